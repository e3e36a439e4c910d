// Tokens that are shown again: spared the signature, and nothing else.

import assert from "node:assert/strict";
import { constants, generateKeyPairSync, sign } from "node:crypto";
import { beforeEach, describe, test } from "node:test";
import { VerifiedTokens } from "../../entry/verified.ts";
import { AUDIENCE, EMPTY_BASE, FakeIssuer, makeKey } from "../fake-issuer.mjs";
import { newVerifier } from "./support.mjs";

const now = () => Math.floor(Date.now() / 1000);

describe("a token that is shown again", () => {
  let issuer;
  let verifier;
  /** How often a signature was looked at. */
  let looks;
  beforeEach(async () => {
    issuer = new FakeIssuer();
    issuer.url = "https://issuer.example";
    verifier = newVerifier((exports) => {
      looks = 0;
      return { ...exports, prepare: (length) => ((looks += 1), exports.prepare(length)) };
    });
    verifier.configure(issuer.url, [AUDIENCE], 5);
    await verifier.loadKeys("heads", JSON.stringify(issuer.headJwks()));
    await verifier.loadKeys("tokens", JSON.stringify(issuer.jwks()));
    assert.equal((await verifier.adoptHead(issuer.head())).kind, "needs-base");
    assert.equal(await verifier.loadBase(new Uint8Array(EMPTY_BASE).buffer), undefined);
  });

  async function outcome(token, at = now()) {
    const verdict = await verifier.verify(token, at);
    return "identity" in verdict ? "accepted" : verdict.refused.reason;
  }

  test("gets the same verdict without another look at its signature", async () => {
    const { token, claims } = issuer.token();
    assert.equal(await outcome(token), "accepted");
    const again = await verifier.verify(Buffer.from(token).toString(), now());
    assert.equal(again.identity.agent, claims.sub);
    assert.equal(again.identity.jti, claims.jti);
    assert.equal(looks, 1);
  });

  test("is another one if a single character differs", async () => {
    const { token } = issuer.token();
    await outcome(token);
    for (const place of [3, Math.floor(token.length / 2), token.length - 20]) {
      const other = token[place] === "A" ? "B" : "A";
      const changed = token.slice(0, place) + other + token.slice(place + 1);
      assert.notEqual(await outcome(changed), "accepted", `character ${place}`);
    }
    assert.notEqual(await outcome(`${token} `), "accepted");
    assert.notEqual(await outcome(token.slice(0, -1)), "accepted");
  });

  test("is refused from the head on that revokes it, and accepted through one that doesn't", async () => {
    const [one, other] = [issuer.token(), issuer.token()];
    await outcome(one.token);
    await outcome(other.token);
    await verifier.adoptHead(issuer.head({ revoked: [one.coordinate] }));
    assert.equal(await outcome(one.token), "revoked");
    assert.equal(looks, 3, "looked at anew, for the reason");
    assert.equal(await outcome(other.token), "accepted");
    assert.equal(looks, 3);
  });

  test("is refused from the rule on that ends it", async () => {
    const { token, claims } = issuer.token();
    await outcome(token);
    const subject = Buffer.from(claims.sub.replaceAll("-", ""), "hex");
    await verifier.adoptHead(issuer.head({ rules: [{ level: 2, subject, notBefore: now() }] }));
    assert.equal(await outcome(token), "superseded");
  });

  test("has no second more than another", async () => {
    const { token, claims } = issuer.token({ exp: now() + 60 });
    assert.equal(await outcome(token), "accepted");
    assert.equal(await outcome(token, claims.exp - 1), "accepted");
    assert.equal(await outcome(token, claims.exp), "expired");
  });

  test("is looked at again after five minutes, and by a clock that went back", async () => {
    const { token } = issuer.token();
    // The head is fresh for five minutes: a later one keeps it so.
    await verifier.adoptHead(issuer.head({ fresh_until: now() + 1_000 }));
    await outcome(token);
    assert.equal(await outcome(token, now() + 299), "accepted");
    assert.equal(looks, 1);
    assert.equal(await outcome(token, now() + 301), "accepted");
    assert.equal(looks, 2);
    assert.equal(await outcome(token, now()), "accepted");
    assert.equal(looks, 3);
  });

  test("isn't accepted beyond what the head was signed for", async () => {
    const { token } = issuer.token();
    await verifier.adoptHead(issuer.head({ fresh_until: now() + 30 }));
    assert.equal(await outcome(token), "accepted");
    assert.equal(await outcome(token, now() + 30), "revocations_unknown");
  });

  test("is refused when its key is gone", async () => {
    const { token } = issuer.token();
    await outcome(token);
    await verifier.loadKeys("tokens", JSON.stringify(new FakeIssuer().jwks()).replaceAll("token-1", "token-2"));
    assert.equal(await outcome(token), "unknown_key");
  });

  test("isn't kept if its key went while its signature was looked at", async () => {
    // PS256 isn't looked at at once.
    const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const keys = JSON.stringify({ keys: [{ ...publicKey.export({ format: "jwk" }), kid: "pss", alg: "PS256", use: "sig" }] });
    await verifier.loadKeys("tokens", keys);
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const input = `${part({ alg: "PS256", kid: "pss", typ: "at+jwt" })}.${part(issuer.token().claims)}`;
    const signature = sign("sha256", Buffer.from(input), { key: privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 });
    const token = `${input}.${signature.toString("base64url")}`;
    assert.equal(await outcome(token), "accepted");
    assert.equal(verifier.recall(token, now()) === undefined, false);

    await verifier.loadKeys("tokens", keys);
    const verdict = verifier.verify(token, now());
    assert.ok(verdict instanceof Promise);
    await verifier.adoptKeyStatement(issuer.keyStatement({ keys: [makeKey("token-2")] }));
    await verdict;
    assert.equal(await outcome(token), "unknown_key");
  });
});

test("the table is bounded, and says which tokens are gone, each once", () => {
  const gone = [];
  const table = new VerifiedTokens((held) => gone.push(held));
  const entry = (token, held) => ({ token, verdict: undefined, held, from: 0, until: 1, generation: 0 });
  for (let n = 0; n < 10_000; n++) {
    table.set(entry(`t${n}`, n));
    // One is asked for all the time, and stays.
    assert.equal(table.get("t0")?.held, 0, `after ${n}`);
  }
  const kept = 10_000 - gone.length;
  assert.ok(kept >= 2_048 && kept <= 4_096, `${kept} are kept`);
  assert.equal(new Set(gone).size, gone.length);
  table.set(entry("t0", 10_000));
  assert.equal(gone.at(-1), 0, "replaced");
  table.clear();
  assert.equal(gone.length, 10_001);
  assert.equal(table.get("t0"), undefined);
});

test("the table is bounded by what it holds, too", () => {
  let held = 0;
  const table = new VerifiedTokens(() => (held -= 1));
  for (let n = 0; n < 3_000; n++) {
    const token = `${n}`.padStart(8_000, "x");
    table.set({ token, verdict: undefined, held: n, from: 0, until: 1, generation: 0 });
    held += 1;
    assert.ok(held * 8_000 <= 4 * 1024 * 1024 + 16_000, `${held} of 8,000 characters`);
  }
  assert.ok(held > 200, `${held} are kept`);
});

test("a token that ends like a kept one isn't it", () => {
  const gone = [];
  const table = new VerifiedTokens((held) => gone.push(held));
  const [one, other] = ["a", "b"].map((begin) => begin.padEnd(400, "x"));
  const entry = (token, held) => ({ token, verdict: undefined, held, from: 0, until: 1, generation: 0 });
  table.set(entry(one, 0));
  assert.equal(table.get(other), undefined);
  assert.equal(table.get(one)?.held, 0);
  table.set(entry(other, 1));
  assert.deepEqual(gone, [0]);
  assert.equal(table.get(one), undefined);
  assert.equal(table.get(other)?.held, 1);
  // However it came by: what is asked about is compared in full.
  for (let n = 0; n < 2_048; n++) table.set(entry(`${n}`.padStart(400, "y"), n + 2));
  assert.equal(table.get(one), undefined, "from the older half");
  assert.equal(table.get(other)?.held, 1);
});
