// Keys in workerd: pushed ahead of use through the hub, signed; pulled from the issuer where no push has come. What isn't sound changes nothing.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { makeKey } from "../fake-issuer.mjs";
import { startWorld, until } from "./support.mjs";

const refused = ({ status }) => status === 401;
const accepted = ({ status }) => status === 200;

/** What the isolate says of itself. */
async function health(world) {
  return (await world.get(undefined, { path: "/_countersign/health" })).json();
}

/** Waits until the isolate holds that key statement. */
async function holds(world, { epoch, version }) {
  await until(
    3_000,
    async () => {
      const held = (await health(world)).key_statement;
      return Response.json(held, { status: held?.epoch === epoch && held?.version === version ? 200 : 404 });
    },
    accepted,
  );
}

async function push(world, statement) {
  const response = await world.pushKeys(statement);
  assert.equal(response.status, 200, await response.clone().text());
  return response.json();
}

describe("pushed keys", () => {
  let world;
  before(async () => {
    world = await startWorld();
    await world.settle();
    await push(world, world.issuer.keyStatement());
    await world.push(world.issuer.head());
    await holds(world, { epoch: 1, version: 1 });
    world.beat();
  });
  after(() => world.stop());

  test("a cold isolate has them from the hub: the issuer is asked for nothing", async () => {
    world.issuer.down = true;
    await world.edge.restart();
    await world.settle();
    await push(world, world.issuer.keyStatement({ version: 1 }));
    const asked = world.issuer.jwksRequests;
    assert.equal((await world.get(world.issuer.token().token)).status, 200);
    assert.equal(world.issuer.jwksRequests, asked);
    world.issuer.down = false;
  });

  test("a key that is pushed ahead of use is known when its first token comes", async () => {
    const { issuer } = world;
    const asked = issuer.jwksRequests;
    for (let n = 0; n < 3; n++) {
      const [old, next] = [issuer.tokenKey, makeKey(`next-${n}`)];
      await push(world, issuer.keyStatement({ keys: [old, next] }));
      await holds(world, { epoch: issuer.epoch, version: issuer.keyVersion });
      assert.equal((await world.get(issuer.token({}, next).token)).status, 200);
      assert.equal((await world.get(issuer.token({}, old).token)).status, 200);
      issuer.tokenKey = next;
      await push(world, issuer.keyStatement());
      await until(3_000, () => world.get(issuer.token({}, old).token), refused);
      assert.equal((await world.get(issuer.token().token)).status, 200);
    }
    // The last ones named a key that was withdrawn: that is asked for once.
    assert.ok(issuer.jwksRequests - asked <= 1, `${issuer.jwksRequests - asked} requests`);
  });

  test("the hub refuses whoever lacks the secret, and what is no key statement", async () => {
    const { issuer } = world;
    for (const headers of [{}, { authorization: "Bearer wrong" }]) {
      const response = await world.pushKeys(issuer.keyStatement(), { secret: "", headers });
      assert.equal(response.status, 401);
      await response.text();
    }
    assert.equal((await fetch(`${world.edge.url}/_countersign/hub/keys`)).status, 405);
    const unsound = {
      "not a JWS": "rubbish",
      "an access token": issuer.token().token,
      "a head": issuer.head(),
      "an unknown key's": issuer.keyStatement({ key: makeKey("nobody") }),
      "a stranger's signature under our kid": issuer.keyStatement({ key: makeKey(issuer.headKey.kid) }),
      "signed by a key of tokens": issuer.keyStatement({ key: { ...issuer.tokenKey, kid: issuer.headKey.kid } }),
      "another type": issuer.keyStatement({ typ: "revocation-head+jwt" }),
      "another issuer's": issuer.keyStatement({ iss: "https://other.example", sub: "https://other.example" }),
      "about another issuer": issuer.keyStatement({ sub: "https://other.example" }),
      "without a version": issuer.keyStatement({ version: undefined }),
      "without keys": issuer.keyStatement({ keys: [] }),
      "with a private key": issuer.keyStatement({ jwks: [{ ...issuer.jwks().keys[0], d: "AA" }] }),
      "too long": "x".repeat(100_000),
    };
    for (const [name, statement] of Object.entries(unsound)) {
      const response = await world.pushKeys(statement);
      assert.ok([400, 413].includes(response.status), `${name}: ${response.status}`);
      assert.match((await response.json()).code, /INVALID_KEYS|payload_too_large/i, name);
    }
    assert.equal((await world.get(issuer.token().token)).status, 200);
  });

  test("keys never go back: a replayed or older statement, and another of the same position, are refused", async () => {
    const { issuer } = world;
    const withdrawn = issuer.tokenKey;
    const old = issuer.keyStatement();
    await push(world, old);
    issuer.tokenKey = makeKey("after-the-withdrawn");
    await push(world, issuer.keyStatement());
    await until(3_000, () => world.get(issuer.token({}, withdrawn).token), refused);
    for (const [name, statement] of [
      ["replayed", old],
      ["an older version", issuer.keyStatement({ version: 1, keys: [withdrawn] })],
      ["an older epoch", issuer.keyStatement({ epoch: 0, version: 1_000_000, keys: [withdrawn] })],
      ["other keys at the same position", issuer.keyStatement({ version: issuer.keyVersion, keys: [withdrawn] })],
    ]) {
      const response = await world.pushKeys(statement);
      assert.equal(response.status, 409, name);
      const { code, details } = await response.json();
      assert.equal(code, "OLDER_KEYS", name);
      assert.deepEqual(details, { epoch: issuer.epoch, version: issuer.keyVersion }, name);
    }
    assert.equal((await world.get(issuer.token({}, withdrawn).token)).status, 401);
    // The same once more does no harm.
    await push(world, issuer.keyStatement({ version: issuer.keyVersion }));
    assert.equal((await world.get(issuer.token().token)).status, 200);
  });

  test("an answer to a head says which keys the hub holds, so that an issuer sees when they are lost", async () => {
    const { issuer } = world;
    const { keys } = await (await world.push(issuer.head())).json();
    assert.deepEqual(keys, { epoch: issuer.epoch, version: issuer.keyVersion });
  });

  test("what the issuer answers adds to keys that a head vouches for, and takes none away", async () => {
    const { issuer } = world;
    const pushed = issuer.tokenKey;
    await world.push(issuer.head());
    // An answer from somebody's cache: without the pushed key, with one that is newer than the push.
    const early = makeKey("rotated-in-a-hurry");
    issuer.tokenKey = early;
    await until(12_000, () => world.get(issuer.token({}, early).token), accepted);
    assert.equal((await world.get(issuer.token({}, pushed).token)).status, 200);
    // The next push says what counts.
    issuer.tokenKey = makeKey("the-push-after");
    await push(world, issuer.keyStatement());
    await until(3_000, () => world.get(issuer.token({}, early).token), refused);
    assert.equal((await world.get(issuer.token().token)).status, 200);
  });

  test("a higher epoch starts over, as an operator does after a restore", async () => {
    const { issuer } = world;
    issuer.epoch += 1;
    issuer.keyVersion = 0;
    issuer.tokenKey = makeKey("restored");
    await world.push(issuer.head());
    await push(world, issuer.keyStatement());
    await until(3_000, () => world.get(issuer.token().token), accepted);
  });
});

test("an unknown key: one request to the issuer, however many tokens name it at once; then none for ten seconds", async () => {
  const world = await startWorld();
  try {
    await world.settle();
    const { issuer } = world;
    await push(world, issuer.keyStatement());
    await world.push(issuer.head());
    await holds(world, { epoch: 1, version: 1 });
    assert.equal(issuer.jwksRequests, 0);
    // It answers late, so that all of them wait for the one answer.
    issuer.delayMs = 300;
    const next = makeKey("not-pushed-yet");
    const tokens = Array.from({ length: 100 }, () => issuer.token({}, next).token);
    issuer.tokenKey = next;
    const statuses = await Promise.all(tokens.map(async (token) => (await world.get(token)).status));
    assert.deepEqual([...new Set(statuses)], [200]);
    assert.equal(issuer.jwksRequests, 1);
    issuer.delayMs = 0;
    const made = Array.from({ length: 100 }, (_, n) => issuer.token({}, makeKey(`made-up-${n}`)).token);
    const answers = await Promise.all(made.map(async (token) => (await world.get(token)).status));
    assert.deepEqual([...new Set(answers)], [401]);
    assert.equal(issuer.jwksRequests, 1);
  } finally {
    await world.stop();
  }
});

test("with the issuer away, keys that were pushed and keys that were pulled stay good; made-up ones are refused", async () => {
  for (const isPushed of [true, false]) {
    const world = await startWorld();
    try {
      await world.settle();
      const { issuer } = world;
      if (isPushed) {
        await push(world, issuer.keyStatement());
        await world.push(issuer.head());
        await holds(world, { epoch: 1, version: 1 });
      } else {
        assert.equal((await world.get(issuer.token().token)).status, 200);
        assert.equal(issuer.jwksRequests, 1);
      }
      issuer.down = true;
      assert.equal((await world.get(issuer.token().token)).status, 200);
      // The signed statement, or the issuer's own answer, is a moment old and complete.
      const madeUp = await world.get(issuer.token({}, makeKey("made-up")).token);
      assert.equal(madeUp.status, 401);
      await madeUp.text();
      assert.equal((await world.get(issuer.token().token)).status, 200);
    } finally {
      await world.stop();
    }
  }
});

test("a restarted edge has its keys from what the hub stored, with the issuer away", async () => {
  const persist = mkdtempSync(join(tmpdir(), "countersign-edge-"));
  const world = await startWorld({ persist });
  try {
    await world.settle();
    const { issuer } = world;
    await push(world, issuer.keyStatement());
    await world.push(issuer.head());
    await holds(world, { epoch: 1, version: 1 });
    issuer.down = true;
    await world.edge.restart();
    const asked = issuer.jwksRequests;
    assert.equal((await world.get(issuer.token().token)).status, 200);
    assert.equal(issuer.jwksRequests, asked);
    // It remembers the order, too.
    assert.equal((await world.pushKeys(issuer.keyStatement({ version: 0 }))).status, 409);
  } finally {
    await world.stop();
    rmSync(persist, { recursive: true, force: true });
  }
});
