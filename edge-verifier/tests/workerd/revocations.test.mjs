// Revocation in workerd: hub, KV and isolate. What is pushed is refused at once; what isn't sound changes nothing.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { EMPTY_BASE, makeKey, sha256 } from "../fake-issuer.mjs";
import { startWorld, until } from "./support.mjs";

const uuidBytes = (uuid) => Buffer.from(uuid.replaceAll("-", ""), "hex");
const refused = ({ status }) => status === 401;
const accepted = ({ status }) => status === 200;
const LEVEL = { global: 0, tenant: 1, agent: 2, credential: 3, key: 4 };

describe("revocations", () => {
  let world;
  before(async () => {
    world = await startWorld();
    await world.settle();
  });
  after(() => world.stop());

  /** Everything revoked so far: a delta is cumulative. */
  const revoked = [];

  test("a revoked token is refused within a second, another one is not", async () => {
    const [victim, other] = [world.issuer.token(), world.issuer.token()];
    assert.equal((await world.get(victim.token)).status, 200);
    revoked.push(victim.coordinate);
    assert.equal((await world.push(world.issuer.head({ revoked }))).status, 200);
    const { response, elapsed } = await until(3_000, () => world.get(victim.token), refused);
    assert.match(response.headers.get("www-authenticate"), /error="invalid_token", error_description="The token was revoked"/);
    assert.ok(elapsed < 1_000, `${elapsed} ms`);
    assert.equal((await world.get(other.token)).status, 200);
  });

  test("a not-before rule of any level ends older tokens and not newer ones", async () => {
    const now = Math.floor(Date.now() / 1000);
    for (const [level, subject] of [
      ["credential", ({ claims }) => uuidBytes(claims.credential_id)],
      ["agent", ({ claims }) => uuidBytes(claims.sub)],
      ["tenant", ({ claims }) => uuidBytes(claims.tenant_id)],
      ["key", () => Buffer.from(world.issuer.tokenKey.kid)],
      ["global", () => Buffer.alloc(0)],
    ]) {
      const older = world.issuer.token({ iat: now - 120 });
      const { sub, client_id, tenant_id, credential_id } = older.claims;
      const newer = world.issuer.token({ iat: now - 60, sub, client_id, tenant_id, credential_id });
      assert.equal((await world.get(older.token)).status, 200, level);
      const rules = [{ level: LEVEL[level], subject: subject(older), notBefore: now - 120 }];
      assert.equal((await world.push(world.issuer.head({ revoked, rules }))).status, 200);
      await until(3_000, () => world.get(older.token), refused);
      assert.equal((await world.get(newer.token)).status, 200, level);
      await world.push(world.issuer.head({ revoked }));
      await until(3_000, () => world.get(older.token), accepted);
    }
  });

  test("of several rules the latest counts, whatever the levels", async () => {
    const now = Math.floor(Date.now() / 1000);
    const { token, claims } = world.issuer.token({ iat: now - 30 });
    const rule = (level, subject, notBefore) => ({ level: LEVEL[level], subject, notBefore });
    const rules = [
      rule("global", Buffer.alloc(0), now - 20),
      rule("agent", uuidBytes(claims.sub), now - 40),
    ];
    await world.push(world.issuer.head({ revoked, rules }));
    await until(3_000, () => world.get(token), refused);
    await world.push(world.issuer.head({ revoked }));
    await until(3_000, () => world.get(token), accepted);
  });

  test("the hub refuses whoever lacks the secret", async () => {
    for (const headers of [{}, { authorization: "Bearer wrong" }, { authorization: "" }]) {
      const response = await world.push(world.issuer.head({ revoked }), { secret: "", headers });
      assert.equal(response.status, 401);
      await response.text();
    }
    assert.equal((await fetch(`${world.edge.url}/_countersign/hub/head`)).status, 405);
  });

  test("the hub refuses what isn't a sound head, and everything goes on as before", async () => {
    const { issuer } = world;
    const stranger = makeKey(issuer.headKey.kid);
    const { token } = issuer.token();
    assert.equal((await world.get(token)).status, 200);
    const unsound = {
      "not a JWS": "rubbish",
      "an access token": issuer.token().token,
      "an unknown key": issuer.head({ key: makeKey("nobody") }),
      "a stranger's signature under our kid": issuer.head({ key: stranger }),
      "the token key": issuer.head({ key: { ...issuer.tokenKey, kid: issuer.headKey.kid } }),
      "another type": issuer.head({ typ: "at+jwt" }),
      "another issuer": issuer.head({ iss: "https://other.example" }),
      "a negative seq": issuer.head({ seq: -1 }),
      "no base": issuer.head({ base: undefined }),
      "a short base name": issuer.head({ base: "abcd" }),
      "a delta that isn't one": issuer.head({ delta: "AQ" }),
      "a rule of a later format": issuer.head({ rules: [{ level: 9, subject: Buffer.alloc(16), notBefore: 1 }] }),
      "a delta that goes on": issuer.head({ delta: "AAAA" }),
      "too long": "x".repeat(300_000),
    };
    for (const [name, head] of Object.entries(unsound)) {
      const response = await world.push(head);
      assert.ok([400, 413].includes(response.status), `${name}: ${response.status}`);
      const { code } = await response.json();
      assert.match(code, /INVALID_HEAD|payload_too_large/i, name);
    }
    assert.equal((await world.get(token)).status, 200);
  });

  test("time never runs backwards", async () => {
    const { issuer } = world;
    const { coordinate, token } = issuer.token();
    const old = issuer.head({ revoked });
    const revocation = issuer.head({ revoked: [...revoked, coordinate] });
    assert.equal((await world.push(revocation)).status, 200);
    await until(3_000, () => world.get(token), refused);
    for (const [name, head] of [
      ["replayed", old],
      ["a smaller seq", issuer.head({ seq: 1 })],
      ["a smaller epoch", issuer.head({ epoch: 0, seq: 1_000_000 })],
    ]) {
      const response = await world.push(head);
      assert.equal(response.status, 409, name);
      const { code, details } = await response.json();
      assert.equal(code, "OLDER_HEAD");
      assert.equal(details.epoch, issuer.epoch);
    }
    assert.equal((await world.get(token)).status, 401);
    revoked.push(coordinate);
    // A higher epoch starts over, as an operator does after a restore.
    issuer.epoch += 1;
    issuer.seq = 0;
    assert.equal((await world.push(issuer.head({ revoked }))).status, 200);
  });

  test("two heads of one position that differ: the second is refused", async () => {
    const { issuer } = world;
    const { coordinate, token } = issuer.token();
    const seq = issuer.seq + 1;
    const as_of = Math.floor(Date.now() / 1000);
    assert.equal((await world.push(issuer.head({ revoked, as_of }))).status, 200);
    const other = await world.push(issuer.head({ revoked: [...revoked, coordinate], seq, as_of: as_of + 1 }));
    assert.equal(other.status, 409);
    assert.deepEqual((await other.json()).details, { epoch: issuer.epoch, seq });
    // The same content with later news is a heartbeat.
    assert.equal((await world.push(issuer.head({ revoked, seq, as_of: as_of + 1 }))).status, 200);
    issuer.seq = seq;
    assert.equal((await world.get(token)).status, 200);
  });

  test("a base that is missing or damaged: what is held stays in force until a sound one comes", async () => {
    const { issuer } = world;
    const { token, coordinate } = issuer.token();
    assert.equal((await world.get(token)).status, 200);
    const better = Buffer.from(EMPTY_BASE);
    better.writeBigUInt64LE(77n, 16);
    const name = sha256(better);

    assert.equal((await world.push(issuer.head({ revoked: [...revoked, coordinate], base: name }))).status, 200);
    assert.equal((await world.get(token)).status, 200, "missing");
    await world.putObject(name, better.subarray(0, 20));
    assert.equal((await world.get(token)).status, 200, "truncated");
    await world.putObject(name, better);
    revoked.push(coordinate);
    // KV may answer from its cache for a while; a new name is a new question.
    const best = Buffer.from(EMPTY_BASE);
    best.writeBigUInt64LE(78n, 16);
    await world.putObject(sha256(best), best);
    await world.push(issuer.head({ revoked, base: sha256(best) }));
    await until(5_000, () => world.get(token), refused);
  });

  test("a hundred revocations one after the other are each refused", async () => {
    for (let n = 0; n < 100; n++) {
      const { token, coordinate } = world.issuer.token();
      revoked.push(coordinate);
      await (await world.push(world.issuer.head({ revoked, base: sha256(EMPTY_BASE) }))).text();
      await until(3_000, () => world.get(token), refused);
    }
  });
});

test("with no head: 503, never 401 nor 200; and never treated as an empty set", async () => {
  const world = await startWorld();
  try {
    const response = await world.get(world.issuer.token().token);
    assert.equal(response.status, 503);
    assert.equal(response.headers.get("retry-after"), "1");
    assert.equal((await response.json()).code, "revocations_unknown");
    assert.equal((await world.get(undefined, { path: "/_countersign/health" })).status, 503);
    await world.settle();
    await until(3_000, () => world.get(world.issuer.token().token), accepted);
  } finally {
    await world.stop();
  }
});

test("an expired head: 503", async () => {
  const world = await startWorld();
  try {
    const now = Math.floor(Date.now() / 1000);
    await world.putObject(sha256(EMPTY_BASE), EMPTY_BASE);
    await world.push(world.issuer.head({ as_of: now - 400, fresh_until: now - 100 }));
    assert.equal((await world.get(world.issuer.token().token)).status, 503);
  } finally {
    await world.stop();
  }
});

test("when the issuer falls silent requests are refused after 30 s, and served again when it is back", { timeout: 90_000 }, async () => {
  const world = await startWorld();
  try {
    await world.settle();
    const { token } = world.issuer.token();
    assert.equal((await world.get(token)).status, 200);
    await new Promise((resolve) => setTimeout(resolve, 15_000));
    const flagged = await world.get(token);
    assert.equal(flagged.status, 200);
    assert.ok(Number((await flagged.json()).headers["x-countersign-revocations-age-ms"]) > 5_000);
    await new Promise((resolve) => setTimeout(resolve, 17_000));
    const silent = await world.get(token);
    assert.equal(silent.status, 503);
    assert.equal((await silent.json()).code, "revocations_unknown");
    await world.push(world.issuer.head());
    await until(3_000, () => world.get(token), accepted);
  } finally {
    await world.stop();
  }
});

test("what was revoked before a restart of the edge is refused after it", async () => {
  const persist = mkdtempSync(join(tmpdir(), "countersign-edge-"));
  const world = await startWorld({ persist });
  try {
    await world.settle();
    const { token, coordinate } = world.issuer.token();
    const good = world.issuer.token();
    await world.push(world.issuer.head({ revoked: [coordinate] }));
    await world.edge.restart();
    assert.equal((await world.get(token)).status, 401);
    assert.equal((await world.get(good.token)).status, 200);
    // The hub remembers what it held.
    assert.equal((await world.push(world.issuer.head({ seq: 1 }))).status, 409);
  } finally {
    await world.stop();
    rmSync(persist, { recursive: true, force: true });
  }
});
