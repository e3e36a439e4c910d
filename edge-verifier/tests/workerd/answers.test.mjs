// What the edge answers itself: challenges, where they point, request ids.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { AUDIENCE } from "../fake-issuer.mjs";
import { startWorld } from "./support.mjs";

const WELL_KNOWN = "/.well-known/oauth-protected-resource";
const MCP = "https://mcp.example/mcp";

describe("answers", () => {
  let world;
  before(async () => {
    const routes = [
      { path: "/**", scopes: ["reports:read"] },
      { path: "/reports/*", methods: ["DELETE"], scopes: ["reports:write", "reports:read"] },
      { path: "/mcp/**", scopes: "tools:call", audience: MCP },
      { path: "/public", anonymous: true },
    ];
    world = await startWorld({ vars: { AUDIENCE: `urn:reports, ${AUDIENCE}, ${MCP}`, ROUTE_POLICY: { version: 1, routes } } });
    await world.settle();
    world.beat();
  });
  after(() => world.stop());

  test("a token where it doesn't belong, or two of them: 400 invalid_request, and the upstream hears nothing", async () => {
    const { token } = world.issuer.token();
    const heard = world.upstream.seen.length;
    for (const [path, authorization, description] of [
      [`/reports/7?access_token=${token}`, undefined, "The token belongs into the Authorization header, not into the URL"],
      [`/reports/7?x=1&acc%65ss_token=${token}`, undefined, "The token belongs into the Authorization header, not into the URL"],
      ["/reports/7?access_token=another", `Bearer ${token}`, "The token belongs into the Authorization header only"],
      ["/reports/7", `Basic Zm9v, Bearer ${token}`, "There is more than one Authorization header"],
      ["/reports/7", `Bearer ${token}, Bearer ${token}`, "The Authorization header is malformed"],
    ]) {
      const response = await world.get(undefined, { path, headers: authorization ? { authorization } : {} });
      assert.equal(response.status, 400, path);
      const challenge = `Bearer error="invalid_request", error_description="${description}", resource_metadata="${AUDIENCE}${WELL_KNOWN}"`;
      assert.equal(response.headers.get("www-authenticate"), challenge);
      const body = await response.json();
      assert.deepEqual([body.code, body.detail, body.status], ["invalid_request", `${description}.`, 400]);
      assert.ok(!JSON.stringify(body).includes(token));
    }
    assert.equal(world.upstream.seen.length, heard);
    // Other parameters are the upstream's, and so are those of who needs no token.
    assert.equal((await world.get(token, { path: "/reports/7?x=%2F&my_access_token=1" })).status, 200);
    assert.equal((await world.get(undefined, { path: "/public?access_token=1" })).status, 200);
    // In a form it isn't looked for.
    const form = await world.get(undefined, { method: "POST", body: new URLSearchParams({ access_token: token }) });
    assert.equal(form.status, 401);
  });

  test("metadata (RFC 9728): for whoever asks, in pages too, of the API that is meant", async () => {
    const read = async (path, init) => fetch(`${world.edge.url}${path}`, init);
    const response = await read(WELL_KNOWN);
    assert.equal(response.status, 200);
    assert.match(response.headers.get("content-type"), /^application\/json/);
    assert.equal(response.headers.get("access-control-allow-origin"), "*");
    assert.equal(response.headers.get("cache-control"), "public, max-age=3600");
    const common = { authorization_servers: [world.issuer.url], bearer_methods_supported: ["header"] };
    assert.deepEqual(await response.json(), { resource: AUDIENCE, ...common, scopes_supported: ["reports:read", "reports:write"] });
    const mcp = await (await read(`${WELL_KNOWN}/mcp`)).json();
    assert.deepEqual(mcp, { resource: MCP, ...common, scopes_supported: ["reports:read", "reports:write", "tools:call"] });

    const unknown = await read(`${WELL_KNOWN}/elsewhere`);
    assert.equal(unknown.status, 404);
    assert.equal((await unknown.json()).code, "unknown_resource");
    const preflight = await read(WELL_KNOWN, { method: "OPTIONS", headers: { "access-control-request-headers": "mcp-protocol-version" } });
    assert.deepEqual([preflight.status, preflight.headers.get("access-control-allow-headers")], [204, "*"]);
    const written = await read(WELL_KNOWN, { method: "POST" });
    assert.deepEqual([written.status, written.headers.get("allow")], [405, "GET, HEAD, OPTIONS"]);
    // Nothing else that begins alike is taken from the upstream.
    assert.equal((await read(`${WELL_KNOWN}s`)).status, 401);
  });

  test("a request has an id: the client's if it is sound; in the answer, the problem and what the upstream gets", async () => {
    const { token } = world.issuer.token();
    const given = await world.get(token, { headers: { "x-request-id": "trace.7_a-B", traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" } });
    assert.equal(given.headers.get("x-request-id"), "trace.7_a-B");
    const seen = (await given.json()).headers;
    assert.equal(seen["x-request-id"], "trace.7_a-B");
    assert.equal(seen.traceparent, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    const refused = await world.get(undefined, { headers: { "x-request-id": "abc" } });
    assert.deepEqual([refused.headers.get("x-request-id"), (await refused.json()).request_id], ["abc", "abc"]);

    const made = new Set();
    for (const unsound of [undefined, "", "a b", 'a"b', "x".repeat(65), "a, b"]) {
      const response = await world.get(token, { headers: unsound === undefined ? {} : { "x-request-id": unsound } });
      const id = response.headers.get("x-request-id");
      assert.match(id, /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
      assert.equal((await response.json()).headers["x-request-id"], id);
      made.add(id);
    }
    assert.equal(made.size, 6);
    const health = await world.get(undefined, { path: "/_countersign/health" });
    assert.ok(health.headers.get("x-request-id"));
  });
});

test("which API a challenge points to; none where none is a URL", async () => {
  const here = async (audience, resource = "") => {
    const world = await startWorld({ vars: { AUDIENCE: audience, RESOURCE: resource } });
    try {
      await world.settle();
      const challengeAt = async (path) => (await world.get(undefined, { path })).headers.get("www-authenticate");
      return { challenge: await challengeAt("/x"), well: (await world.get(undefined, { path: WELL_KNOWN })).status, health: (await world.get(undefined, { path: "/_countersign/health" })).status };
    } finally {
      await world.stop();
    }
  };
  assert.deepEqual(await here("urn:reports"), { challenge: "Bearer", well: 401, health: 200 });
  const two = "https://a.example/v1/?x=1,https://b.example";
  assert.deepEqual(await here(two), {
    challenge: 'Bearer resource_metadata="https://a.example/.well-known/oauth-protected-resource/v1?x=1"', well: 200, health: 200,
  });
  assert.deepEqual(await here(two, "https://b.example"), {
    challenge: 'Bearer resource_metadata="https://b.example/.well-known/oauth-protected-resource"', well: 200, health: 200,
  });
  assert.equal((await here(two, "https://c.example")).health, 503);
});

test("the log knows by the request's id what went wrong with it", async () => {
  const lines = [];
  const world = await startWorld({ vars: { UPSTREAM_URL: "http://127.0.0.1:9" }, logs: (line) => lines.push(line) });
  try {
    await world.settle();
    const { token } = world.issuer.token();
    assert.equal((await world.get(token, { headers: { "x-request-id": "the-one" } })).status, 502);
    for (const end = Date.now() + 5_000; lines.length === 0 && Date.now() < end; ) await new Promise((resolve) => setTimeout(resolve, 10));
    const said = lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line)).find(({ event }) => event === "upstream_failed");
    assert.equal(said?.request_id, "the-one");
    assert.ok(!lines.join().includes(token));
  } finally {
    await world.stop();
  }
});
