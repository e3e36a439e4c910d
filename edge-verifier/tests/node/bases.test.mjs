// Heads that name other bases, while several answers are under way: none of them may undo another, nor fail because of it.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { AUDIENCE, EMPTY_BASE, FakeIssuer, sha256 } from "../fake-issuer.mjs";
import { newVerifier } from "./support.mjs";

let issuer;
let verifier;
beforeEach(async () => {
  issuer = new FakeIssuer();
  issuer.url = "https://issuer.example";
  verifier = newVerifier();
  verifier.configure(issuer.url, [AUDIENCE], 5);
  await verifier.loadKeys("heads", JSON.stringify(issuer.headJwks()));
});

/** Bases that differ in nothing but their `seq`. */
const bases = [0, 7, 8, 9, 10, 11].map((seq) => {
  const base = Buffer.from(EMPTY_BASE);
  base.writeBigUInt64LE(BigInt(seq), base.length - 8);
  return base;
});
const load = (base) => verifier.loadBase(new Uint8Array(base).buffer);
const seq = () => verifier.head()?.seq;

async function ask(base) {
  const outcome = await verifier.adoptHead(issuer.head({ base: sha256(base) }));
  assert.deepEqual(outcome, { kind: "needs-base", base: sha256(base) });
}

test("an older head's base takes effect while the newer one's is still on its way", async () => {
  await ask(bases[0]);
  await ask(bases[1]);
  assert.equal(await load(bases[0]), undefined);
  assert.equal(seq(), 1);
  assert.equal(await load(bases[1]), undefined);
  assert.equal(seq(), 2);
});

test("and changes nothing if it comes later", async () => {
  await ask(bases[0]);
  await ask(bases[1]);
  assert.equal(await load(bases[1]), undefined);
  assert.equal(seq(), 2);
  assert.notEqual(await load(bases[2]), undefined, "nobody asked for it");
  await load(bases[0]);
  assert.equal(seq(), 2);
});

test("a base that no head named is refused, and what waits goes on waiting", async () => {
  await ask(bases[0]);
  assert.match((await load(bases[1])) ?? "", /SHA-256/);
  assert.equal(seq(), undefined);
  assert.equal(await load(bases[0]), undefined);
  assert.equal(seq(), 1);
});

test("of many that wait the oldest gives way", async () => {
  for (const base of bases) await ask(base);
  assert.notEqual(await load(bases[0]), undefined);
  assert.equal(await load(bases[5]), undefined);
  assert.equal(seq(), 6);
});

test("two contents of one position never follow each other", async () => {
  await ask(bases[0]);
  const twin = issuer.head({ base: sha256(bases[1]), seq: 1, as_of: Math.floor(Date.now() / 1000) + 5 });
  assert.equal((await verifier.adoptHead(twin)).kind, "needs-base");
  assert.equal(await load(bases[0]), undefined);
  assert.notEqual(await load(bases[1]), undefined);
  assert.equal(seq(), 1);
});
