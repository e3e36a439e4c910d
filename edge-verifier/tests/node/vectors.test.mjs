// The shared accept and reject vectors, in the WebAssembly that the edge runs, under Node.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Verifier } from "../../entry/verifier.ts";
import { EMPTY_BASE, FakeIssuer } from "../fake-issuer.mjs";
import { runVectors } from "../vectors.mjs";
import { newExports } from "./support.mjs";

const vectors = JSON.parse(
  readFileSync(new URL("../../../shared/tests/vectors/vectors.json", import.meta.url), "utf8"),
);

test("every vector gets its verdict", async () => {
  const wasm = newExports();
  const { count, wrong } = await runVectors(new Verifier(wasm), wasm, vectors, emptyHead(vectors.policy.issuer));
  assert.ok(count > 1_000, `only ${count} cases`);
  assert.deepEqual(wrong, []);
});

test("tokens verified at the same time don't get each other's verdicts", async () => {
  const wasm = newExports();
  const verifier = new Verifier(wasm);
  await runVectors(verifier, wasm, { ...vectors, cases: [] }, emptyHead(vectors.policy.issuer));
  const own = vectors.cases.filter(({ name, expect }) => !name.startsWith("foreign: ") && expect !== "refuse");
  const cases = Array.from({ length: 1000 }, (_, n) => own[(n * 7919) % own.length]);
  const verdicts = await Promise.all(cases.map(({ token, now }) => verifier.verify(token, now)));
  verdicts.forEach((verdict, n) => {
    assert.equal("identity" in verdict ? "accept" : verdict.refused.reason, cases[n].expect, cases[n].name);
  });
});

/** A head of `issuer` with nothing revoked, and what goes with it. */
function emptyHead(url) {
  const issuer = new FakeIssuer();
  issuer.url = url;
  const head = issuer.head({ fresh_until: 9_999_999_999 });
  return { keys: JSON.stringify(issuer.headJwks()), head, base: EMPTY_BASE };
}
