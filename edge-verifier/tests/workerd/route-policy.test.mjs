// A route policy in workerd: what it asks of requests, and that no way of writing a path gets around it.

import assert from "node:assert/strict";
import { connect } from "node:net";
import { after, before, describe, test } from "node:test";

import { AUDIENCE } from "../fake-issuer.mjs";
import { startWorld, until } from "./support.mjs";

const POLICY = {
  version: 1,
  routes: [
    { path: "/**", scopes: ["reports:read"] },
    { path: "/public/**", anonymous: true },
    { path: "/reports/*", methods: ["DELETE"], scopes: ["reports:read", "reports:write"] },
    { path: "/admin/**", scopes: ["admin"] },
    { path: "/ours/**", tenants: ["99999999-9999-4999-8999-999999999999"] },
    { path: "/screen/**", agent_types: ["screener"] },
    { path: "/mine/**", audience: AUDIENCE },
    { path: "/secret/**", deny: true },
  ],
};

describe("route policy", () => {
  let world;
  before(async () => {
    world = await startWorld({ vars: { ROUTE_POLICY: POLICY } });
    await world.settle();
    world.beat();
  });
  after(() => world.stop());

  const good = () => world.issuer.token().token;

  test("a token needs what its route says", async () => {
    assert.equal((await world.get(good(), { path: "/reports/7" })).status, 200);
    assert.equal((await world.get(good(), { path: "/mine/7" })).status, 200);
    const lacking = await world.get(good(), { path: "/reports/7", method: "DELETE" });
    assert.equal(lacking.status, 403);
    assert.equal(
      lacking.headers.get("www-authenticate"),
      'Bearer error="insufficient_scope", error_description="The token\'s scope is not sufficient", scope="reports:read reports:write", ' +
        `resource_metadata="${AUDIENCE}/.well-known/oauth-protected-resource"`,
    );
    assert.equal((await lacking.json()).code, "insufficient_scope");
    for (const [path, code] of [["/ours/1", "wrong_tenant"], ["/screen/1", "wrong_agent_type"], ["/secret/1", "route_denied"]]) {
      const response = await world.get(good(), { path });
      assert.equal(response.status, 403, path);
      assert.equal((await response.json()).code, code);
    }
    assert.equal((await world.get(undefined, { path: "/reports/7" })).status, 401);
    assert.equal((await world.get("nonsense", { path: "/admin/x" })).status, 401);
  });

  test("an anonymous route looks at no token, and lets no identity through", async () => {
    for (const token of [undefined, "nonsense", good()]) {
      const response = await world.get(token, { path: "/public/a", headers: { "x-countersign-agent": "root" } });
      assert.equal(response.status, 200);
      const { headers } = await response.json();
      assert.deepEqual(Object.keys(headers).filter((name) => name.startsWith("x-countersign") || name === "authorization"), []);
    }
  });

  test("headers that would override what was decided about don't get through", async () => {
    const headers = { "X-HTTP-Method-Override": "DELETE", "x_http_method_override": "DELETE", "X-Original-URL": "/admin/x", "X-Rewrite-URL": "/admin/x" };
    const seen = (await (await world.get(good(), { path: "/reports/7", headers })).json()).headers;
    assert.deepEqual(Object.keys(seen).filter((name) => /override|original|rewrite/.test(name)), []);
  });

  // As bytes on the wire: fetch would tidy the path up first.
  const raw = (path) =>
    new Promise((resolve, reject) => {
      const { hostname, port } = new URL(world.edge.url);
      const socket = connect({ host: hostname, port: Number(port) });
      let answer = "";
      socket.on("error", reject);
      socket.on("data", (data) => (answer += data));
      socket.on("close", () => resolve(answer));
      socket.end(`GET ${path} HTTP/1.1\r\nhost: ${hostname}:${port}\r\nauthorization: Bearer ${good()}\r\nconnection: close\r\n\r\n`);
    });

  test("no way of writing a path gets around its route", async () => {
    world.upstream.seen.length = 0;
    for (const path of [
      "/admin/x", "/Admin/x", "/ADMIN", "/admin/", "//admin/x", "/./admin/x", "/reports/../admin/x", "/reports/%2e%2e/admin/x", "/reports/.%2E/admin/x", "/%61dmin/x",
      "/reports%2f..%2fadmin/x", "/reports/..%2fadmin", "/reports/..;/admin/x", "/admin;a=b/x", "/reports\\..\\admin/x", "/reports/%5c..%5cadmin", "/reports/%252e%252e/admin/x",
      "/admin%00", "/admin/%2e", "/secret/x", "/SECRET/x", "/reports/../secret/x",
    ]) {
      const status = (await raw(path)).split(" ")[1];
      assert.ok(status === "400" || status === "403", `${path}: ${status}`);
    }
    assert.deepEqual(world.upstream.seen.map(({ url }) => url), []);
    // What everybody reads alike is let through as it came.
    assert.equal((await raw("/reports/a%20b?x=/admin/../y")).split(" ")[1], "200");
    assert.equal(world.upstream.seen[0].url, "/base/reports/a%20b?x=/admin/../y");
  });
});

describe("staleness by route", () => {
  let world;
  before(async () => {
    const routes = [
      { path: "/strict", fresh_seconds: 2, usable_seconds: 2 },
      { path: "/usual" },
      { path: "/open", fresh_seconds: 2, usable_seconds: 2, when_unknown: "serve" },
    ];
    world = await startWorld({ vars: { ROUTE_POLICY: JSON.stringify({ version: 1, routes }) } });
    await world.settle();
  });
  after(() => world.stop());

  test("one refuses what another one still serves", async () => {
    const { token } = world.issuer.token();
    for (const path of ["/strict", "/usual", "/open"]) assert.equal((await world.get(token, { path })).status, 200, path);
    // No heartbeat comes.
    await until(10_000, () => world.get(token, { path: "/strict" }), ({ status }) => status === 503);
    const usual = await world.get(token, { path: "/usual" });
    assert.equal(usual.status, 200);
    assert.equal((await usual.json()).headers["x-countersign-revocations"], undefined);
    const open = await world.get(token, { path: "/open" });
    assert.equal(open.status, 200);
    const { headers } = await open.json();
    assert.equal(headers["x-countersign-revocations"], "unknown");
    assert.ok(Number(headers["x-countersign-revocations-age-ms"]) > 2_000);
  });
});

describe("a policy with mistakes", () => {
  let world;
  before(async () => {
    world = await startWorld({ vars: { ROUTE_POLICY: JSON.stringify({ version: 1, routes: [{ path: "/", scope: "x" }] }) } });
  });
  after(() => world.stop());

  test("lets nothing through", async () => {
    const response = await world.get(undefined, { path: "/" });
    assert.equal(response.status, 503);
    assert.equal((await response.json()).code, "misconfigured");
  });
});
