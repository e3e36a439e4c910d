// The golden files, which were made natively, in WebAssembly: it reads them, answers exactly, and makes the same bytes.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { loadRevocationWasm } from "../../../bin/lib/revocation-wasm.mjs";

const wasm = await loadRevocationWasm();
const names = wasm.golden_names().split("\n");
const read = (name) => readFileSync(new URL(name, import.meta.url));

test("all of them are there", () => assert.ok(names.length >= 6, names.join()));

for (const name of names) {
  test(`${name} is read in wasm`, () => {
    const answer = wasm.golden_check(name, read(name));
    assert.match(answer, /^\d+$/);
    assert.ok(Number(answer) >= 100, `only ${answer} answers`);
  });

  test(`${name} is made in wasm, byte by byte`, () => {
    assert.deepEqual(Buffer.from(wasm.golden_make(name)), read(name));
  });
}

test("a damaged file gets another answer", () => {
  const damaged = read("sparse.base");
  damaged[damaged.length - 1] ^= 1;
  assert.doesNotMatch(wasm.golden_check("sparse.base", damaged), /^\d+$/);
});

test("four million serials are answered exactly", () => {
  // Made in wasm: the set natively is in shared/tests/revocation.rs.
  for (const oneIn of [3, 10, 100]) {
    assert.ok(wasm.build_sample(4_000_000, oneIn));
    const [rejects, accepts, right] = wasm.wrong(0, 4_000_000, oneIn);
    assert.deepEqual([rejects, accepts], [0, 0]);
    assert.ok(right > 3_000_000 / oneIn, `${right} revoked`);
  }
});
