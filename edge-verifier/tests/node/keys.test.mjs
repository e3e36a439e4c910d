// Key statements in the WebAssembly that the edge runs, under Node: what an isolate believes when even the hub is not to be believed.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { AUDIENCE, EMPTY_BASE, FakeIssuer, makeKey } from "../fake-issuer.mjs";
import { newVerifier } from "./support.mjs";

describe("key statements", () => {
  let issuer;
  let verifier;
  before(async () => {
    issuer = new FakeIssuer();
    issuer.url = "https://issuer.example";
    verifier = newVerifier();
    verifier.configure(issuer.url, [AUDIENCE], 5);
    await verifier.loadKeys("heads", JSON.stringify(issuer.headJwks()));
    assert.equal((await verifier.adoptHead(issuer.head())).kind, "needs-base");
    assert.equal(await verifier.loadBase(new Uint8Array(EMPTY_BASE).buffer), undefined);
  });

  /** What becomes of a token of `key`. */
  async function outcome(key) {
    const verdict = await verifier.verify(issuer.token({}, key).token, Math.floor(Date.now() / 1000));
    return "identity" in verdict ? "accepted" : verdict.refused.reason;
  }

  test("a sound one takes effect at once; the same again changes nothing", async () => {
    assert.equal(await outcome(issuer.tokenKey), "unknown_key");
    assert.equal(verifier.keyPosition(), undefined);
    const statement = issuer.keyStatement();
    assert.equal(await verifier.adoptKeyStatement(statement), true);
    assert.equal(await outcome(issuer.tokenKey), "accepted");
    assert.equal(await verifier.adoptKeyStatement(statement), false);
    assert.deepEqual(verifier.keyPosition(), { epoch: 1, version: 1 });
  });

  test("forged, foreign and damaged ones are refused, and the keys stay as they were", async () => {
    const other = new FakeIssuer();
    other.url = issuer.url;
    const thief = makeKey("thief");
    const sound = issuer.keyStatement({ version: 99, keys: [thief] });
    const forged = {
      "by a stranger": [other.keyStatement({ version: 99, keys: [thief] }), /bad_signature/],
      "by an unknown key": [issuer.keyStatement({ version: 99, keys: [thief], key: makeKey("nobody") }), /unknown_key/],
      "by a key of tokens": [issuer.keyStatement({ version: 99, keys: [thief], key: issuer.tokenKey }), /unknown_key/],
      "of another issuer": [issuer.keyStatement({ version: 99, keys: [thief], iss: "https://other.example" }), /wrong_issuer/],
      "about another issuer": [issuer.keyStatement({ version: 99, keys: [thief], sub: "https://other.example" }), /wrong_issuer/],
      "a head": [issuer.head(), /wrong_type/],
      "a token": [issuer.token().token, /wrong_type/],
      "no JWS": ["rubbish", /malformed/],
      "of altered content": [sound.replace(/\.[^.]+\./, `.${Buffer.from("{}").toString("base64url")}.`), /bad_signature/],
      "cut short": [sound.slice(0, -4), /malformed/],
      "without keys": [issuer.keyStatement({ version: 99, keys: [] }), /no usable/],
    };
    for (const [name, [statement, reason]] of Object.entries(forged)) {
      await assert.rejects(verifier.adoptKeyStatement(statement), reason, name);
    }
    assert.equal(await outcome(thief), "unknown_key");
    assert.equal(await outcome(issuer.tokenKey), "accepted");
    assert.deepEqual(verifier.keyPosition(), { epoch: 1, version: 1 });
  });

  test("no way back: an older version, an older epoch, other keys at the same position", async () => {
    const withdrawn = issuer.tokenKey;
    const old = issuer.keyStatement({ version: 1 });
    issuer.tokenKey = makeKey("its-successor");
    assert.equal(await verifier.adoptKeyStatement(issuer.keyStatement()), true);
    assert.equal(await outcome(withdrawn), "unknown_key");
    await assert.rejects(verifier.adoptKeyStatement(old), /older_key_statement/);
    await assert.rejects(verifier.adoptKeyStatement(issuer.keyStatement({ epoch: 0, version: 1_000 })), /older_key_statement/);
    assert.equal(await verifier.adoptKeyStatement(issuer.keyStatement({ version: issuer.keyVersion, keys: [withdrawn] })), false);
    assert.equal(await outcome(withdrawn), "unknown_key");
    assert.equal(await outcome(issuer.tokenKey), "accepted");
    // After a restore from a backup an operator raises the epoch.
    assert.equal(await verifier.adoptKeyStatement(issuer.keyStatement({ epoch: 2, version: 1 })), true);
  });

  test("keys may be added, and those that are there are not replaced", async () => {
    const [own, added] = [issuer.tokenKey, makeKey("added")];
    const impostor = makeKey(own.kid);
    issuer.tokenKey = impostor;
    const { keys } = issuer.jwks();
    issuer.tokenKey = added;
    await verifier.addTokenKeys(JSON.stringify({ keys: [...keys, ...issuer.jwks().keys] }));
    assert.equal(await outcome(added), "accepted");
    assert.equal(await outcome(own), "accepted");
    assert.equal(await outcome(impostor), "bad_signature");
    // What is pushed next is all there is.
    issuer.tokenKey = own;
    assert.equal(await verifier.adoptKeyStatement(issuer.keyStatement({ epoch: 2, version: 2 })), true);
    assert.equal(await outcome(added), "unknown_key");
  });
});
