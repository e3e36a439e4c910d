// The gateway in workerd: who gets through, what the upstream sees, what everyone else is told.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { after, before, describe, test } from "node:test";

import { makeKey } from "../fake-issuer.mjs";
import { METADATA, startWorld } from "./support.mjs";

describe("gateway", () => {
  let world;
  before(async () => {
    world = await startWorld();
    await world.settle();
  });
  after(() => world.stop());

  test("a good token reaches the upstream, which sees whose it is and not the token", async () => {
    const { token, claims } = world.issuer.token();
    const response = await world.get(token, { path: "/reports/7?full=1&x=%2F" });
    assert.equal(response.status, 200);
    const { url, headers } = await response.json();
    assert.equal(url, "/base/reports/7?full=1&x=%2F");
    assert.equal(headers["x-countersign-issuer"], world.issuer.url);
    assert.equal(headers["x-countersign-agent"], claims.sub);
    assert.equal(headers["x-countersign-tenant"], claims.tenant_id);
    assert.equal(headers["x-countersign-credential"], claims.credential_id);
    assert.equal(headers["x-countersign-agent-type"], "router");
    assert.equal(headers["x-countersign-jti"], claims.jti);
    assert.equal(headers["x-countersign-scope"], "reports:read");
    assert.equal(headers.authorization, undefined);
  });

  test("a Connection header costs no more than its length", async () => {
    const { hostname, port } = new URL(world.edge.url);
    const { token } = world.issuer.token();
    // By the square of it the first would be 4 s of this isolate's time, and by each name for each header the second one, too.
    for (const [connection, others] of [[`a${" ".repeat(64_000)}a`, 0], ["a,".repeat(32_000), 500]]) {
      const headers = { authorization: `Bearer ${token}`, connection, "x-dropped": "1", ...Object.fromEntries(Array.from({ length: others }, (_, n) => [`x-${n}`, "1"])) };
      const start = performance.now();
      const [answer] = await once(http.request({ hostname, port, path: "/reports/7", headers }).end(), "response");
      await answer.toArray();
      const took = performance.now() - start;
      assert.equal(answer.statusCode, 200);
      assert.ok(took < 1_500, `${took.toFixed(0)} ms`);
    }
    const [answer] = await once(http.request({ hostname, port, path: "/reports/7", headers: { authorization: `Bearer ${token}`, connection: "close , X-Dropped", "x-dropped": "1", "x-kept": "1" } }).end(), "response");
    const { headers } = JSON.parse((await answer.toArray()).join(""));
    assert.deepEqual([headers["x-dropped"], headers["x-kept"]], [undefined, "1"]);
  });

  test("identity headers of the client don't get through, whatever their case or name", async () => {
    const { token, claims } = world.issuer.token();
    const headers = {
      "X-Countersign-Agent": "root",
      "x-countersign-tenant": "root",
      "X-COUNTERSIGN-ADMIN": "yes",
      x_countersign_agent: "root",
      "x_countersign-scope": "admin",
    };
    const seen = (await (await world.get(token, { headers })).json()).headers;
    assert.equal(seen["x-countersign-agent"], claims.sub);
    assert.equal(seen["x-countersign-tenant"], claims.tenant_id);
    assert.equal(seen["x-countersign-scope"], "reports:read");
    assert.deepEqual(
      Object.keys(seen).filter((name) => /countersign/.test(name)).sort(),
      ["agent", "agent-type", "credential", "issuer", "jti", "scope", "tenant"].map((name) => `x-countersign-${name}`),
    );
  });

  test("method, body, status and redirects pass through", async () => {
    const { token } = world.issuer.token();
    const posted = await world.get(token, { method: "POST", body: "some bytes", path: "/teapot" });
    assert.equal(posted.status, 418);
    const { method, body } = await posted.json();
    assert.deepEqual({ method, body }, { method: "POST", body: "some bytes" });
    const redirected = await world.get(token, { path: "/redirect" });
    assert.equal(redirected.status, 302);
    assert.equal(redirected.headers.get("location"), "/elsewhere");
  });

  test("a path cannot choose another host", async () => {
    const { token } = world.issuer.token();
    for (const path of ["//evil.example/x", "/http://evil.example/x", "/..//evil.example", "/@evil.example"]) {
      const response = await world.get(token, { path });
      assert.equal(response.status, 200, path);
      assert.match((await response.json()).url, /^\/base\//, path);
    }
  });

  test("no token: 401 with a challenge that names no error (RFC 6750 §3.1)", async () => {
    for (const headers of [{}, { authorization: "Basic Zm9vOmJhcg==" }, { authorization: "Bearertoken" }]) {
      const response = await world.get(undefined, { headers });
      assert.equal(response.status, 401);
      assert.equal(response.headers.get("www-authenticate"), `Bearer ${METADATA}`);
      assert.equal(response.headers.get("content-type"), "application/problem+json");
      assert.equal((await response.json()).code, "unauthorized");
    }
  });

  test("a malformed header: 400 invalid_request", async () => {
    for (const authorization of ["Bearer", "Bearer a b", "Bearer a, Bearer b", 'Bearer "a"', "Bearer ä"]) {
      const response = await world.get(undefined, { headers: { authorization } });
      assert.equal(response.status, 400, authorization);
      assert.match(response.headers.get("www-authenticate"), /^Bearer error="invalid_request"/);
      await response.text();
    }
  });

  test("the scheme's name is case-insensitive", async () => {
    const { token } = world.issuer.token();
    assert.equal((await world.get(undefined, { headers: { authorization: `bearer ${token}` } })).status, 200);
  });

  test("what doesn't hold: 401 invalid_token with the reason, and the upstream hears nothing", async () => {
    const { issuer } = world;
    const now = Math.floor(Date.now() / 1000);
    const good = issuer.token().token;
    const refused = {
      "The token's signature is not valid": [issuer.token({}, { ...makeKey("x"), kid: issuer.tokenKey.kid }).token],
      "The token is malformed": ["rubbish", `${good}=`, good.slice(0, -1)],
      "The token has expired": [issuer.token({ iat: now - 100, exp: now - 1 }).token],
      "The token is for another audience": [issuer.token({ aud: "https://other.example" }).token],
      "The token is from another issuer": [issuer.token({ iss: "https://other.example" }).token],
      "The token is too long": [issuer.token({ note: "x".repeat(9000) }).token],
    };
    const heard = world.upstream.seen.length;
    for (const [description, tokens] of Object.entries(refused)) {
      for (const token of tokens) {
        const response = await world.get(token);
        assert.equal(response.status, 401, description);
        assert.equal(
          response.headers.get("www-authenticate"),
          `Bearer error="invalid_token", error_description="${description}", ${METADATA}`,
        );
        assert.equal(response.headers.get("cache-control"), "no-store");
        assert.equal((await response.json()).code, "invalid_token");
      }
    }
    assert.equal(world.upstream.seen.length, heard);
  });

  test("1,000 requests at once, with different tokens, each get their own verdict", async () => {
    const { issuer } = world;
    const tokens = Array.from({ length: 1000 }, (_, n) =>
      n % 3 === 0 ? { ...issuer.token({ aud: "https://other.example" }), status: 401 } : { ...issuer.token(), status: 200 },
    );
    const answers = await Promise.all(
      tokens.map(async ({ token }) => {
        const response = await world.get(token);
        return { status: response.status, body: await response.json() };
      }),
    );
    answers.forEach(({ status, body }, n) => {
      assert.equal(status, tokens[n].status);
      if (status === 200) assert.equal(body.headers["x-countersign-jti"], tokens[n].claims.jti);
    });
  });

  test("an unknown key is asked for once, and made-up ones cost the issuer nothing", async () => {
    const before = world.issuer.jwksRequests;
    for (let n = 0; n < 20; n++) {
      const response = await world.get(world.issuer.token({}, makeKey(`made-up-${n}`)).token);
      assert.equal(response.status, 401);
      await response.text();
    }
    assert.ok(world.issuer.jwksRequests - before <= 1, `${world.issuer.jwksRequests - before} requests`);
  });

  test("an upstream that is away: 502", async () => {
    const lonely = await startWorld({ vars: { UPSTREAM_URL: "http://127.0.0.1:9" } });
    try {
      await lonely.settle();
      const response = await lonely.get(lonely.issuer.token().token);
      assert.equal(response.status, 502);
      assert.equal((await response.json()).code, "upstream_failed");
    } finally {
      await lonely.stop();
    }
  });

  test("paths of the verifier's own don't reach the upstream", async () => {
    assert.equal((await world.get(undefined, { path: "/_countersign/nothing" })).status, 404);
    const health = await world.get(undefined, { path: "/_countersign/health" });
    assert.equal(health.status, 200);
    assert.equal((await health.json()).status, "ok");
  });
});

test("FORWARD_AUTHORIZATION hands the token on", async () => {
  const world = await startWorld({ vars: { FORWARD_AUTHORIZATION: "true" } });
  try {
    await world.settle();
    const { token } = world.issuer.token();
    assert.equal((await (await world.get(token)).json()).headers.authorization, `Bearer ${token}`);
  } finally {
    await world.stop();
  }
});

test("plain http is refused for what must not be read or changed on the way", async () => {
  const world = await startWorld({ vars: { UPSTREAM_URL: "http://upstream.example" } });
  try {
    await world.settle();
    assert.equal((await (await world.get(world.issuer.token().token)).json()).code, "misconfigured");
  } finally {
    await world.stop();
  }
});

test("a missing setting: 503 for everyone, details on the log only", async () => {
  const world = await startWorld({ vars: { AUDIENCE: "", CLOCK_LEEWAY_SECONDS: "soon" } });
  try {
    const response = await world.get(world.issuer.token().token);
    assert.equal(response.status, 503);
    assert.equal(response.headers.get("retry-after"), "1");
    const body = await response.json();
    assert.equal(body.code, "misconfigured");
    assert.doesNotMatch(body.detail, /AUDIENCE/);
  } finally {
    await world.stop();
  }
});

test("without keys: 503, never 401; with them, at once", async () => {
  const world = await startWorld();
  try {
    world.issuer.down = true;
    await world.settle();
    const { token } = world.issuer.token();
    const early = await world.get(token);
    assert.equal(early.status, 503);
    assert.equal((await early.json()).code, "keys_unknown");
    world.issuer.down = false;
    assert.equal((await world.get(token)).status, 200);
    // From here on the issuer may be away: what is held stays good.
    world.issuer.down = true;
    assert.equal((await world.get(token)).status, 200);
  } finally {
    await world.stop();
  }
});
