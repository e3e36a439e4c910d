// What an operator may ask an edge, and nobody else.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { EMPTY_BASE, makeKey, sha256 } from "../fake-issuer.mjs";
import { PUSH_SECRET, startWorld, until } from "./support.mjs";

const SECRET = "an operators' secret for tests";
const LEVEL = { tenant: 1, agent: 2 };
const uuidBytes = (uuid) => Buffer.from(uuid.replaceAll("-", ""), "hex");
const refused = ({ status }) => status === 401;

/** A base with one bitmap shard of one word that holds `serial` (docs/reference/formats.md). */
function baseWith({ shard, serial }, seq) {
  const header = Buffer.alloc(24);
  header.write("CSRB");
  header.writeUInt16LE(1, 4);
  header.writeUInt32LE(1, 8);
  header.writeBigUInt64LE(BigInt(seq), 16);
  const entry = Buffer.alloc(32);
  entry.writeUInt32LE(shard, 0);
  entry[4] = 1;
  entry.writeBigUInt64LE(1n, 8);
  entry.writeBigUInt64LE(serial + 1n, 16);
  entry.writeUInt32LE(1, 24);
  const word = Buffer.alloc(8);
  word.writeBigUInt64LE(1n << serial);
  return Buffer.concat([header, entry, word]);
}

describe("operators' questions", () => {
  let world;
  let inBase;
  let inDelta;
  let ended;
  let good;
  let base;
  let ruledAt;
  const ask = (path, { secret = SECRET, ...init } = {}) =>
    fetch(`${world.edge.url}/_countersign/${path}`, { ...init, headers: { authorization: `Bearer ${secret}` } });
  const why = async (what) => {
    const response = what.token ? await ask("why", { method: "POST", body: what.token }) : await ask(`why?jti=${what.jti}`);
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("cache-control"), "no-store");
    return response.json();
  };

  before(async () => {
    world = await startWorld({ vars: { OPERATOR_SECRET: SECRET } });
    const { issuer } = world;
    const now = Math.floor(Date.now() / 1000);
    [inBase, inDelta, good] = [issuer.token(), issuer.token(), issuer.token()];
    ended = issuer.token({ iat: now - 100 });
    ruledAt = now - 50;
    base = baseWith(inBase.coordinate, 41);
    await world.putObject(sha256(base), base);
    const rules = [
      { level: LEVEL.tenant, subject: uuidBytes(ended.claims.tenant_id), notBefore: ruledAt - 20 },
      { level: LEVEL.agent, subject: uuidBytes(ended.claims.sub), notBefore: ruledAt },
    ];
    const head = issuer.head({ base: sha256(base), revoked: [inDelta.coordinate], rules, seq: 43 });
    assert.equal((await world.push(head)).status, 200);
    await until(5_000, () => world.get(inBase.token), refused);
  });
  after(() => world.stop());

  test("a jti: where it is revoked, and as of when that is known", async () => {
    const answer = await why({ jti: inBase.claims.jti });
    assert.equal(answer.revoked, true);
    assert.equal(answer.serial, "base");
    assert.equal(answer.knowledge.head.seq, 43);
    assert.ok(answer.knowledge.age_ms >= 0 && answer.knowledge.age_ms < 30_000);
    assert.equal((await why({ jti: inDelta.claims.jti })).serial, "delta");
    const clear = await why({ jti: good.claims.jti });
    assert.deepEqual([clear.revoked, clear.serial], [false, null]);
    for (const path of ["why", "why?jti=nonsense", `why?jti=${crypto.randomUUID()}`]) assert.equal((await ask(path)).status, 400, path);
  });

  test("a token: the whole reason", async () => {
    const bySerial = await why(inDelta);
    assert.deepEqual([bySerial.accepted, bySerial.reason, bySerial.serial, bySerial.rule], [false, "revoked", "delta", null]);
    assert.equal(bySerial.token.jti, inDelta.claims.jti);
    const byRule = await why(ended);
    assert.deepEqual([byRule.accepted, byRule.reason, byRule.revoked, byRule.serial], [false, "superseded", true, null]);
    assert.deepEqual(byRule.rule, { level: "agent", not_before: ruledAt, in: "delta", ends_it: true });
    const fine = await why(good);
    assert.deepEqual([fine.accepted, fine.reason, fine.revoked], [true, null, false]);
    assert.deepEqual(fine.token.agent, good.claims.sub);
    // The same agent's later token: the rule is about it, and doesn't end it.
    const { sub, client_id, tenant_id } = ended.claims;
    const later = await why(world.issuer.token({ sub, client_id, tenant_id }));
    assert.deepEqual([later.accepted, later.rule.ends_it], [true, false]);
  });

  test("a token that is refused for something else: for what, and whether it is revoked besides", async () => {
    const { issuer } = world;
    const now = Math.floor(Date.now() / 1000);
    const expired = await why(issuer.token({ iat: now - 700, exp: now - 100 }));
    assert.deepEqual([expired.accepted, expired.reason, expired.revoked], [false, "expired", false]);
    const elsewhere = await why(issuer.token({ aud: "https://other.example" }));
    assert.equal(elsewhere.reason, "wrong_audience");
    for (const [reason, token] of [
      ["bad_signature", issuer.token({}, makeKey(issuer.tokenKey.kid)).token],
      ["unknown_key", issuer.token({}, makeKey("nobody")).token],
      ["malformed", "rubbish"],
    ]) {
      const answer = await why({ token });
      assert.deepEqual([answer.accepted, answer.reason, answer.token], [false, reason, undefined], "of what isn't signed nothing is told");
    }
    assert.equal((await ask("why", { method: "POST", body: "x".repeat(20_000) })).status, 413);
  });

  test("the status: what is in force, its size, the keys, the hubs and who listens", async () => {
    const answer = await (await ask("status")).json();
    const { knowledge } = answer;
    assert.equal(knowledge.readiness, "fresh");
    assert.deepEqual([knowledge.head.epoch, knowledge.head.seq], [1, 43]);
    assert.deepEqual(knowledge.base, { sha256: sha256(base), seq: 41, bytes: base.length, serials: 1, rules: 0 });
    assert.deepEqual([knowledge.delta.serials, knowledge.delta.rules], [1, 2]);
    assert.deepEqual(answer.keys, [{ kid: world.issuer.tokenKey.kid, alg: "EdDSA" }]);
    assert.equal(answer.listening.hub, "global");
    assert.ok(answer.listening.silent_ms < 3_000);
    const [hub] = answer.hubs;
    assert.deepEqual([hub.hub, hub.head, hub.listeners.listening], ["global", { epoch: 1, seq: 43 }, 1]);
  });

  test("nobody else is answered", async () => {
    for (const [path, init] of [["why?jti=x", {}], ["why", { method: "POST", body: good.token }], ["status", {}]]) {
      for (const secret of ["", "wrong", PUSH_SECRET, good.token]) {
        const response = await ask(path, { ...init, secret });
        assert.equal(response.status, 401, `${path} with ${secret}`);
        await response.text();
      }
      assert.equal((await ask(path, { method: "DELETE" })).status, 405);
    }
  });
});

test("without OPERATOR_SECRET nobody may ask", async () => {
  const world = await startWorld();
  try {
    for (const path of ["why?jti=x", "status"]) {
      for (const authorization of ["", "Bearer ", "Bearer undefined"]) {
        const response = await fetch(`${world.edge.url}/_countersign/${path}`, { headers: { authorization } });
        assert.equal(response.status, 503);
        assert.equal((await response.json()).code, "not_configured");
      }
    }
  } finally {
    await world.stop();
  }
});

test("nothing is known yet: that is said, and not that a jti isn't revoked", async () => {
  const world = await startWorld({ vars: { OPERATOR_SECRET: SECRET } });
  try {
    const { claims, token } = world.issuer.token();
    const headers = { authorization: `Bearer ${SECRET}` };
    const byJti = await fetch(`${world.edge.url}/_countersign/why?jti=${claims.jti}`, { headers });
    assert.equal(byJti.status, 503);
    assert.equal((await byJti.json()).code, "revocations_unknown");
    const answer = await (await fetch(`${world.edge.url}/_countersign/why`, { method: "POST", headers, body: token })).json();
    assert.deepEqual([answer.accepted, answer.reason, answer.revoked], [false, "revocations_unknown", undefined]);
    await world.putObject(sha256(EMPTY_BASE), EMPTY_BASE);
  } finally {
    await world.stop();
  }
});
