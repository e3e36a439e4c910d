// The setting TRUSTED_ISSUERS, and an issuer's keys over hours. The clock, the issuer and the shared cache are ours here, everything else is the edge's own.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";
import { scheduler } from "node:timers/promises";

import { ForeignVerifier, IssuerKeys } from "../../entry/issuers.ts";
import { readTrustedIssuers } from "../../entry/trusted.ts";
import { ForeignIssuer, makeRsaKey } from "../foreign-issuer.mjs";
import { newExports } from "./support.mjs";

const OWN = { issuer: "https://issuer.example", audiences: ["https://api.example"], clockLeewaySeconds: 5 };
const MINUTE = 60_000;
globalThis.scheduler ??= scheduler;

describe("TRUSTED_ISSUERS", () => {
  const GOOD = { issuer: "https://login.example/", algorithms: ["RS256"] };
  const problemsOf = (given) => {
    const problems = [];
    readTrustedIssuers(given, OWN, problems);
    return problems;
  };

  test("has defaults that are the strict ones", () => {
    assert.deepEqual(problemsOf([GOOD]), []);
    const [issuer] = readTrustedIssuers(JSON.stringify([GOOD]), OWN, []);
    assert.deepEqual(issuer, {
      issuer: "https://login.example/", jwksUri: undefined, algorithms: ["RS256"], audiences: OWN.audiences, types: ["at+jwt"], clockLeewaySeconds: 5,
      agentClaim: "sub", tenant: { constant: "" }, agentType: { constant: "" }, scopeClaim: "scope",
    });
    for (const nothing of [undefined, "", [], "[]"]) assert.deepEqual(readTrustedIssuers(nothing, OWN, []), []);
  });

  test("names every mistake with its place", () => {
    for (const [given, ...expected] of [
      ["{", /^TRUSTED_ISSUERS must be an array/],
      ["{}", /^TRUSTED_ISSUERS must be an array/],
      [Array(17).fill(GOOD), /^TRUSTED_ISSUERS must be an array of at most 16/],
      [["x"], /^TRUSTED_ISSUERS\[0\] must be an object/, /\[0\]\.issuer /, /\[0\]\.algorithms /],
      [[{ ...GOOD, issuer: undefined }], /\[0\]\.issuer must be/],
      [[{ ...GOOD, issuer: "urn:x" }], /\[0\]\.jwks_uri must be there/],
      [[{ ...GOOD, issuer: "http://login.example" }], /\[0\]\.jwks_uri must be there/],
      [[{ ...GOOD, jwks_uri: "http://login.example/keys" }], /\[0\]\.jwks_uri must be an https URL/],
      [[{ ...GOOD, jwks_uri: 7 }], /\[0\]\.jwks_uri must be an https URL/],
      [[{ issuer: GOOD.issuer }], /\[0\]\.algorithms must be an array of algorithms: some of RS256, PS256, ES256, EdDSA/],
      [[{ ...GOOD, algorithms: [] }], /\[0\]\.algorithms/],
      [[{ ...GOOD, algorithms: ["RS256", "HS256"] }], /\[0\]\.algorithms/],
      [[{ ...GOOD, algorithms: ["none"] }], /\[0\]\.algorithms/],
      [[{ ...GOOD, audiences: [] }], /\[0\]\.audiences/],
      [[{ ...GOOD, audiences: ["a", ""] }], /\[0\]\.audiences/],
      [[{ ...GOOD, typ: ["id+jwt"] }], /\[0\]\.typ/],
      [[{ ...GOOD, typ: "" }], /\[0\]\.typ/],
      [[{ ...GOOD, clock_leeway_seconds: 1000 }], /\[0\]\.clock_leeway_seconds/],
      [[{ ...GOOD, clock_leeway_seconds: "5" }], /\[0\]\.clock_leeway_seconds/],
      [[{ ...GOOD, agent_claim: "" }], /\[0\]\.agent_claim/],
      [[{ ...GOOD, scope_claim: 1 }], /\[0\]\.scope_claim/],
      [[{ ...GOOD, tenant: "a b" }], /\[0\]\.tenant must be/],
      [[{ ...GOOD, tenant: "a", tenant_claim: "b" }], /\[0\]\.tenant contradicts tenant_claim/],
      [[{ ...GOOD, agent_type: "é" }], /\[0\]\.agent_type must be/],
      [[{ ...GOOD, jwks_url: "https://x.example" }], /\[0\]\.jwks_url is no member/],
      [[GOOD, GOOD], /^TRUSTED_ISSUERS\[1\]\.issuer is ISSUER_URL, or there twice/],
      [[{ ...GOOD, issuer: OWN.issuer }], /^TRUSTED_ISSUERS\[0\]\.issuer is ISSUER_URL, or there twice/],
      [[{ issuer: "https://a.example", algorithms: ["x"], typ: ["y"] }, { ...GOOD, scope: "z" }], /\[0\]\.algorithms/, /\[0\]\.typ/, /\[1\]\.scope is no member/],
    ]) {
      const problems = problemsOf(given);
      assert.equal(problems.length, expected.length, `${JSON.stringify(given)}: ${problems}`);
      expected.forEach((pattern, place) => assert.match(problems[place], pattern));
    }
  });
});

describe("an issuer's keys over hours", () => {
  let partner;
  let verifier;
  let keys;
  let asked;
  let away;
  let pending;
  let cache;
  const ctx = { waitUntil: (work) => pending.push(work) };

  beforeEach(() => {
    mock.timers.enable({ apis: ["Date"], now: Date.now() });
    mock.method(console, "error", () => undefined);
    mock.method(console, "warn", () => undefined);
    mock.method(globalThis, "fetch", async () => {
      asked += 1;
      if (away) throw new Error("away");
      return Response.json(partner.jwks());
    });
    asked = 0;
    away = false;
    pending = [];
    cache = new Map();
    globalThis.caches = {
      default: {
        match: async (key) => cache.get(key)?.clone(),
        put: async (key, response) => void cache.set(key, response),
      },
    };
    partner = new ForeignIssuer();
    partner.url = "https://login.example";
    [verifier, keys] = isolate();
  });
  afterEach(() => {
    delete globalThis.caches;
    mock.restoreAll();
    mock.timers.reset();
  });

  function isolate() {
    const [issuer] = readTrustedIssuers([{ issuer: partner.url, jwks_uri: "https://login.example/keys", algorithms: ["RS256"], typ: ["JWT"] }], OWN, []);
    const made = new ForeignVerifier(newExports(), [issuer]);
    return [made, new IssuerKeys(made, 0, issuer)];
  }

  const ready = async (feed = keys) => {
    const isReady = await feed.ready(ctx);
    await Promise.all(pending.splice(0));
    return isReady;
  };
  const now = () => Math.floor(Date.now() / 1000);
  const outcome = async (token, by = verifier) => {
    const verdict = await by.verify(0, token, now());
    return "identity" in verdict ? "accepted" : verdict.refused.reason;
  };

  test("are renewed every five minutes; a key that is gone is gone then, and its tokens with it", async () => {
    assert.equal(await ready(), true);
    const old = partner.token({ exp: now() + 3_600 });
    assert.equal(await outcome(old), "accepted");
    assert.equal(verifier.knows(old), true);
    mock.timers.tick(4 * MINUTE);
    await ready();
    assert.equal(asked, 1);
    partner.key = makeRsaKey("theirs-2");
    mock.timers.tick(2 * MINUTE);
    await ready();
    assert.equal(asked, 2);
    assert.equal(await outcome(old), "unknown_key");
    assert.equal(await outcome(partner.token()), "accepted");
  });

  test("that stayed the same are no reason to look at anybody again", async () => {
    await ready();
    const token = partner.token({ exp: now() + 3_600 });
    assert.equal(await outcome(token), "accepted");
    const { changes } = keys;
    mock.timers.tick(6 * MINUTE);
    await ready();
    assert.deepEqual([asked, keys.changes], [2, changes]);
  });

  test("stay good for a day while nobody can be asked, and no longer", async () => {
    await ready();
    away = true;
    mock.timers.tick(23 * 60 * MINUTE);
    assert.equal(await ready(), true);
    assert.equal(await outcome(partner.token()), "accepted");
    mock.timers.tick(61 * MINUTE);
    assert.equal(await ready(), false);
  });

  test("an issuer that doesn't answer is left alone for a second, whoever names it", async () => {
    away = true;
    assert.equal(await ready(), false);
    for (let n = 0; n < 50; n++) assert.equal(await ready(), false);
    assert.equal(asked, 1);
    away = false;
    mock.timers.tick(1_000);
    assert.equal(await ready(), true);
    assert.equal(asked, 2);
  });

  test("a set without any sound key changes nothing", async () => {
    await ready();
    const { key } = partner;
    mock.method(partner, "jwks", () => ({ keys: [{ kty: "oct", kid: key.kid, alg: "RS256", k: "AAAA" }] }));
    mock.timers.tick(6 * MINUTE);
    assert.equal(await ready(), true);
    assert.equal(await outcome(partner.token()), "accepted");
    assert.ok([...cache.values()].length === 1 && !(await [...cache.values()][0].clone().text()).includes("oct"), "nor is it spread");
  });

  test("are shared: a second isolate doesn't ask within five minutes, and does afterwards", async () => {
    await ready();
    mock.timers.tick(4 * MINUTE);
    const [other, othersKeys] = isolate();
    assert.equal(await ready(othersKeys), true);
    assert.equal(asked, 1);
    assert.equal(await outcome(partner.token(), other), "accepted");
    // What it was told is as old as it is: it counts from when the first one asked.
    mock.timers.tick(2 * MINUTE);
    await ready(othersKeys);
    assert.equal(asked, 2);
    await ready();
    assert.equal(asked, 2);
  });

  test("what is kept and won't do, as it was another deployment's, keeps nobody from asking", async () => {
    await ready();
    for (const kept of ["<html>", JSON.stringify({ keys: [{ kty: "EC", kid: "theirs-1", alg: "ES256", crv: "P-256", x: "AA", y: "AA" }] })]) {
      const [[name, answer]] = [...cache];
      cache.set(name, new Response(kept, answer));
      const [other, othersKeys] = isolate();
      const before = asked;
      assert.equal(await ready(othersKeys), true, kept);
      assert.equal(asked, before + 1);
      assert.equal(await outcome(partner.token(), other), "accepted");
      assert.equal(JSON.parse(await [...cache.values()][0].clone().text()).keys[0].kty, "RSA", "nor does it stay there");
    }
  });

  test("an unknown kid isn't answered by what is kept, unless that is a moment old", async () => {
    await ready();
    mock.timers.tick(MINUTE);
    const [other, othersKeys] = isolate();
    await ready(othersKeys);
    partner.key = makeRsaKey("theirs-2");
    assert.equal(await outcome(partner.token(), other), "unknown_key");
    assert.equal(await othersKeys.renewForUnknownKey(ctx), "renewed");
    assert.equal(asked, 2);
    assert.equal(await outcome(partner.token(), other), "accepted");
    // The first isolate learns of it from what the other one was told.
    assert.equal(await keys.renewForUnknownKey(ctx), "renewed");
    assert.equal(asked, 2);
    assert.equal(await keys.renewForUnknownKey(ctx), "recent");
    assert.equal(await othersKeys.renewForUnknownKey(ctx), "recent");
    assert.equal(asked, 2);
  });

  test("a verdict that was under way when the keys changed isn't kept", async () => {
    await ready();
    const token = partner.token();
    const verdict = verifier.verify(0, token, now());
    verifier.loadKeys(0, JSON.stringify({ keys: [partner.jwks().keys[0], { ...partner.jwks().keys[0], kid: "another" }] }));
    await verdict;
    assert.equal(verifier.knows(token), false);
  });
});
