// The decision endpoint, asked as nginx, Traefik, Caddy and Envoy ask it.

import assert from "node:assert/strict";
import { createHash, generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import { after, before, describe, test } from "node:test";

import { METADATA, startWorld } from "./support.mjs";

const SECRET = "a decision secret for tests";

describe("decisions for other proxies", () => {
  let world;
  before(async () => {
    const routes = [
      { path: "/**", scopes: ["reports:read"] },
      { path: "/reports/*", methods: ["DELETE"], scopes: ["reports:write"] },
      { path: "/public/**", anonymous: true },
      { path: "/admin/**", deny: true },
    ];
    const key = { ...generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" }), kid: "edge" };
    const vars = { DECISION_SECRET: SECRET, ROUTE_POLICY: { version: 1, routes }, ASSERTION_KEY: JSON.stringify(key), UPSTREAM_URL: "", ASSERTION_AUDIENCE: "orders" };
    world = await startWorld({ vars });
    await world.settle();
    world.beat();
  });
  after(() => world.stop());

  /** As bytes on the wire: fetch would tidy paths up first. */
  async function ask({ path = "/_countersign/decide", method = "GET", headers = {}, secret = SECRET, token = undefined }) {
    const { hostname, port } = new URL(world.edge.url);
    const all = { ...(secret && { "x-countersign-decision-secret": secret }), ...(token && { authorization: `Bearer ${token}` }), ...headers };
    const [answer] = await once(http.request({ hostname, port, path, method, headers: all }).end(), "response");
    const body = (await answer.toArray()).join("");
    return { status: answer.statusCode, headers: answer.headers, code: body === "" ? undefined : JSON.parse(body).code };
  }
  const nginx = (method, uri) => ({ headers: { "x-original-method": method, "x-original-uri": uri } });
  const traefik = (method, uri) => ({ headers: { "x-forwarded-method": method, "x-forwarded-uri": uri, "x-forwarded-host": "api.example", "x-forwarded-proto": "https" } });
  const envoy = (method, uri) => ({ method, path: `/_countersign/decide${uri}` });
  const proxies = { nginx, traefik, envoy };

  for (const [name, as] of Object.entries(proxies)) {
    test(`as ${name} asks: the route decides about the original request`, async () => {
      const { token, claims } = world.issuer.token();
      const passed = await ask({ ...as("GET", "/reports/7?x=1"), token });
      assert.equal(passed.status, 200);
      assert.equal(passed.headers["x-countersign-agent"], claims.sub);
      assert.equal(passed.headers["x-countersign-scope"], "reports:read");
      assert.equal(passed.headers["cache-control"], "no-store");
      assert.ok(passed.headers["x-request-id"]);
      const assertion = JSON.parse(Buffer.from(passed.headers["x-countersign-assertion"].split(".")[1], "base64url").toString());
      assert.equal(assertion.request_sha256, createHash("sha256").update("GET /reports/7?x=1").digest("base64url"));

      const lacking = await ask({ ...as("DELETE", "/reports/7"), token });
      assert.deepEqual([lacking.status, lacking.code], [403, "insufficient_scope"]);
      assert.match(lacking.headers["www-authenticate"], /error="insufficient_scope".* scope="reports:write"/);
      assert.deepEqual([(await ask({ ...as("GET", "/admin/x"), token })).code, (await ask({ ...as("GET", "/public/x") })).status], ["route_denied", 200]);
      const none = await ask(as("GET", "/reports/7"));
      assert.deepEqual([none.status, none.headers["www-authenticate"]], [401, `Bearer ${METADATA}`]);
      const wrong = await ask({ ...as("GET", "/reports/7"), token: "nonsense" });
      assert.equal(wrong.status, 401);
      assert.match(wrong.headers["www-authenticate"], /error="invalid_token"/);
      assert.equal((await ask({ ...as("GET", "/reports/7?access_token=x"), token })).code, "invalid_request");
    });
  }

  test("Envoy is told which of the client's headers to take out", async () => {
    const { token } = world.issuer.token();
    const { headers } = await ask({ ...envoy("GET", "/reports/7"), token });
    assert.equal(headers["x-envoy-auth-headers-to-remove"], "x-countersign-revocations-age-ms,x-countersign-revocations");
    const anonymous = await ask(envoy("GET", "/public/7"));
    assert.match(anonymous.headers["x-envoy-auth-headers-to-remove"], /^x-countersign-issuer,.*,x-countersign-assertion$/);
    assert.equal((await ask(nginx("GET", "/public/7"))).headers["x-envoy-auth-headers-to-remove"], undefined);
  });

  test("without the proxies' secret nothing is decided", async () => {
    const { token } = world.issuer.token();
    for (const secret of ["", "wrong", `${SECRET} `.padEnd(40, "x")]) {
      const { status, code, headers } = await ask({ ...nginx("GET", "/public/x"), secret, token });
      assert.deepEqual([status, code, headers["x-countersign-agent"]], [400, "wrong_decision_secret", undefined]);
    }
  });

  test("what isn't said, is said by half, or contradicts itself is refused", async () => {
    const { token } = world.issuer.token();
    const original = { "x-original-method": "GET", "x-original-uri": "/reports/7" };
    for (const headers of [
      {},
      { "x-original-uri": "/reports/7" },
      { "x-original-method": "GET" },
      { ...original, "x-forwarded-uri": "/public/x" },
      { ...original, "x-forwarded-uri": "/public/x", "x-forwarded-method": "GET" },
      { ...original, "x-forwarded-uri": "/reports/7", "x-forwarded-method": "DELETE" },
      { ...original, "x-original-method": "GET, DELETE" },
      { ...original, "x-original-uri": "https://evil.example/public/x" },
      { ...original, "x-original-uri": "@evil.example/public" },
      { ...original, "x-original-uri": "" },
    ]) {
      const { status, code } = await ask({ headers, token });
      assert.deepEqual([status, code], [400, "original_unknown"], JSON.stringify(headers));
    }
    const contradicted = await ask({ ...envoy("GET", "/public/x"), headers: { "x-original-method": "GET", "x-original-uri": "/reports/../public/x" } });
    assert.equal(contradicted.code, "original_unknown");
    assert.equal((await ask({ headers: { ...original, "x-forwarded-uri": "/reports/7", "x-forwarded-method": "GET" }, token })).status, 200, "both say the same");
  });

  test("a method that only some servers take for another one isn't decided about", async () => {
    const { token } = world.issuer.token();
    for (const as of [nginx, traefik]) {
      for (const method of ["delete", "Delete"]) {
        const { status, code } = await ask({ ...as(method, "/reports/7"), token });
        assert.deepEqual([status, code], [400, "original_unknown"], method);
      }
    }
  });

  test("headers by which the API would do something else than was decided about, or believe the client, are refused", async () => {
    const { token } = world.issuer.token();
    const withHeaders = (headers) => ask({ headers: { ...nginx("GET", "/reports/7?x=1").headers, ...headers }, token });
    for (const headers of [
      { "x-http-method-override": "DELETE" }, { x_http_method_override: "DELETE" }, { "x-http-method": "DELETE" }, { "x-method-override": "GET, DELETE" },
      { "x-rewrite-url": "/admin/x" }, { "x-original-url": "/admin/x" }, { "x-original-url": "https://api.example/admin/x?/reports/7?x=1" }, { "x-original-url": "/reports/7" },
      { x_countersign_agent: "root" }, { "x-countersign_tenant": "root" },
    ]) {
      const { status, code } = await withHeaders(headers);
      assert.deepEqual([status, code], [400, "ambiguous_header"], JSON.stringify(headers));
    }
    // As proxies say it themselves, and what they overwrite.
    for (const headers of [
      { "x-http-method-override": "GET" }, { "x-original-url": "/reports/7?x=1" }, { "x-original-url": "https://API.example:443/reports/7?x=1" }, { "x-countersign-agent": "root" },
    ]) {
      assert.equal((await withHeaders(headers)).status, 200, JSON.stringify(headers));
    }
  });

  test("no way of writing a path gets around its route", async () => {
    const { token } = world.issuer.token();
    for (const uri of [
      "/public/../admin/x", "/public/%2e%2e/admin/x", "/public/.%2E/reports/7", "/./public/x", "/public\\..\\admin", "//public/x", "/public/x#/../y", "/public/%2561dmin",
      "/public;x/..;/admin", "/PUBLIC/x",
    ]) {
      const { status } = await ask({ ...nginx("GET", uri), token });
      assert.ok(status === 400 || status === 403, `${uri}: ${status}`);
    }
    // What is in the query is no matter.
    assert.equal((await ask(nginx("GET", "/public/x?y=/../admin"))).status, 200);
    // The path that Envoy asks by leads out of the endpoint: to one that anybody gets 200 from, and to the gateway.
    for (const uri of ["/../health", "/%2e%2e/health", "/../../public/x", "/../../.well-known/oauth-protected-resource", "/../jwks.json"]) {
      const { status } = await ask({ ...envoy("GET", uri), token });
      assert.equal(status, 400, uri);
    }
  });
});

test("where no secret is set, it isn't there", async () => {
  const world = await startWorld();
  try {
    await world.settle();
    const headers = { "x-countersign-decision-secret": "", "x-original-method": "GET", "x-original-uri": "/" };
    const response = await world.get(world.issuer.token().token, { path: "/_countersign/decide", headers });
    assert.deepEqual([response.status, (await response.json()).code], [404, "not_configured"]);
  } finally {
    await world.stop();
  }
});

test("what isn't known: 503, with Retry-After", async () => {
  const world = await startWorld({ vars: { DECISION_SECRET: SECRET } });
  try {
    const headers = { "x-countersign-decision-secret": SECRET, "x-original-method": "GET", "x-original-uri": "/" };
    const response = await world.get(world.issuer.token().token, { path: "/_countersign/decide", headers });
    assert.deepEqual([response.status, response.headers.get("retry-after"), (await response.json()).code], [503, "1", "revocations_unknown"]);
  } finally {
    await world.stop();
  }
});
