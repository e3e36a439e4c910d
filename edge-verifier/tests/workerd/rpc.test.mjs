// Verification by a call from another Worker.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { AUDIENCE, makeKey } from "../fake-issuer.mjs";
import { ForeignIssuer } from "../foreign-issuer.mjs";
import { METADATA, startWorld, until } from "./support.mjs";

/** Passes on what it is asked, and what it is answered. */
const CALLER = `
  export default {
    async fetch(request, env) {
      const { token, needs } = await request.json();
      try {
        return Response.json(await env.VERIFIER.verify(token, needs));
      } catch (error) {
        return Response.json({ threw: error.name, message: error.message });
      }
    },
  };
`;

describe("verification for other Workers", () => {
  let world;
  before(async () => {
    const caller = {
      name: "caller", modules: true, script: CALLER, compatibilityDate: "2026-11-17",
      serviceBindings: { VERIFIER: { name: "countersign-edge", entrypoint: "TokenVerifier" } },
      unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }],
    };
    // It needs no upstream.
    world = await startWorld({ vars: { UPSTREAM_URL: "", AUDIENCE: `${AUDIENCE}, https://other.example` }, beside: [caller] });
    await world.settle();
    world.beat();
  });
  after(() => world.stop());
  const verify = async (token, needs) =>
    (await fetch(world.edge.others.caller, { method: "POST", body: JSON.stringify({ token, needs }) })).json();

  test("a token that holds: whose it is", async () => {
    const { token, claims } = world.issuer.token({ scope: "reports:read reports:write" });
    const { ok, identity, knowledge } = await verify(token);
    assert.equal(ok, true);
    assert.deepEqual(identity, {
      issuer: world.issuer.url, agent: claims.sub, tenant: claims.tenant_id, credential: claims.credential_id, agentType: "router", jti: claims.jti,
      scope: "reports:read reports:write", audience: AUDIENCE,
    });
    assert.equal(knowledge.readiness, "fresh");
    assert.ok(knowledge.ageMs >= 0 && knowledge.ageMs < 5_000);
    const needs = { audience: [AUDIENCE, "https://x.example"], scopes: ["reports:write", "reports:read"], tenants: claims.tenant_id, agentTypes: ["router"] };
    assert.equal((await verify(token, needs)).ok, true);
  });

  test("one that doesn't, or lacks something: status, reason and challenge", async () => {
    const { issuer } = world;
    const { token } = issuer.token();
    const now = Math.floor(Date.now() / 1000);
    const scopes = ["reports:read", "reports:write"];
    for (const [given, needs, status, reason, challenge] of [
      [undefined, {}, 401, "unauthorized", `Bearer ${METADATA}`],
      ["", {}, 401, "unauthorized", `Bearer ${METADATA}`],
      ["rubbish", {}, 401, "malformed", `Bearer error="invalid_token", error_description="The token is malformed", ${METADATA}`],
      [issuer.token({ iat: now - 90, exp: now - 1 }).token, {}, 401, "expired", `Bearer error="invalid_token", error_description="The token has expired", ${METADATA}`],
      [issuer.token({}, makeKey("nobody's")).token, {}, 401, "unknown_key", `Bearer error="invalid_token", error_description="The token's signing key is not known", ${METADATA}`],
      [token, { scopes }, 403, "insufficient_scope", `Bearer error="insufficient_scope", error_description="The token's scope is not sufficient", scope="reports:read reports:write", ${METADATA}`],
      [token, { audience: "https://other.example" }, 403, "wrong_audience", undefined],
      [token, { tenants: ["99999999-9999-4999-8999-999999999999"] }, 403, "wrong_tenant", undefined],
      [token, { agentTypes: ["screener"] }, 403, "wrong_agent_type", undefined],
    ]) {
      const answer = await verify(given, needs);
      assert.deepEqual({ ok: answer.ok, status: answer.status, reason: answer.reason, challenge: answer.challenge }, { ok: false, status, reason, challenge });
      assert.match(answer.description, /^[A-Z].*\.$/);
      assert.equal(answer.identity, undefined);
    }
    const elsewhere = await verify("rubbish", { audience: "https://other.example" });
    assert.match(elsewhere.challenge, /resource_metadata="https:\/\/other\.example\/\.well-known\/oauth-protected-resource"$/);
  });

  test("needs that make no sense are said, and let nobody in", async () => {
    const { token } = world.issuer.token();
    for (const needs of [{ scope: "reports:write" }, { scopes: [] }, { scopes: ["a b"] }, { scopes: 'a"' }, { tenants: [7] }, { staleness: { freshMs: 1 } }, { staleness: { whenUnknown: "open" } }]) {
      const answer = await verify(token, needs);
      assert.deepEqual([answer.threw, answer.ok], ["TypeError", undefined], JSON.stringify(needs));
    }
  });

  test("one that is revoked is refused a moment later", async () => {
    const { token, coordinate } = world.issuer.token();
    assert.equal((await verify(token)).ok, true);
    await world.push(world.issuer.head({ revoked: [coordinate] }));
    const ask = () => fetch(world.edge.others.caller, { method: "POST", body: JSON.stringify({ token }) });
    const answers = [];
    await until(3_000, async () => {
      const response = await ask();
      answers.push(await response.clone().json());
      return response;
    }, () => answers.at(-1).ok === false);
    assert.deepEqual([answers.at(-1).status, answers.at(-1).reason], [401, "revoked"]);
  });
});

test("another issuer's token does only where the caller names the issuer, whatever tenant it claims", async () => {
  const caller = {
    name: "caller", modules: true, script: CALLER, compatibilityDate: "2026-11-17",
    serviceBindings: { VERIFIER: { name: "countersign-edge", entrypoint: "TokenVerifier" } },
    unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }],
  };
  const partner = await ForeignIssuer.start();
  const trusted = [{ issuer: partner.url, algorithms: ["RS256"], typ: ["JWT"], tenant_claim: "org", agent_type: "router", scope_claim: "scp" }];
  const world = await startWorld({ vars: { TRUSTED_ISSUERS: trusted }, beside: [caller] });
  try {
    await world.settle();
    const verify = async (token, needs) =>
      (await fetch(world.edge.others.caller, { method: "POST", body: JSON.stringify({ token, needs }) })).json();
    const { token: ours, claims } = world.issuer.token();
    const theirs = partner.token({ org: claims.tenant_id });
    const needs = { tenants: claims.tenant_id, scopes: "reports:read" };
    const outcome = async (token, issuers) => {
      const { ok, status, reason, challenge } = await verify(token, { ...needs, ...(issuers && { issuers }) });
      return ok ? "ok" : [status, reason, challenge];
    };
    const wrong = [403, "wrong_issuer", undefined];
    assert.deepEqual([await outcome(ours), await outcome(theirs)], ["ok", wrong]);
    assert.deepEqual([await outcome(ours, partner.url), await outcome(theirs, partner.url)], [wrong, "ok"]);
    const both = [world.issuer.url, partner.url];
    assert.deepEqual([await outcome(ours, both), await outcome(theirs, both)], ["ok", "ok"]);
    assert.deepEqual(await outcome(theirs, "https://third.example"), wrong);
  } finally {
    await Promise.all([world.stop(), partner.stop()]);
  }
});

test("where it isn't known what is revoked: 503, never 401", async () => {
  const caller = {
    name: "caller", modules: true, script: CALLER, compatibilityDate: "2026-11-17",
    serviceBindings: { VERIFIER: { name: "countersign-edge", entrypoint: "TokenVerifier" } },
    unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }],
  };
  const world = await startWorld({ beside: [caller] });
  try {
    const body = JSON.stringify({ token: world.issuer.token().token });
    const answer = await (await fetch(world.edge.others.caller, { method: "POST", body })).json();
    assert.deepEqual([answer.ok, answer.status, answer.reason, answer.challenge], [false, 503, "revocations_unknown", undefined]);
  } finally {
    await world.stop();
  }
});
