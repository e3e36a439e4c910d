// The decoder that the issuer's lists are checked with, against the examples of draft-ietf-oauth-status-list-21 §4.

import assert from "node:assert/strict";
import { test } from "node:test";

import { statusAt } from "../status-list-decoder.mjs";

test("one bit a token", () => {
  const statuses = [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1];
  const list = { bits: 1, lst: "eNrbuRgAAhcBXQ" };
  assert.deepEqual(statuses.map((_, index) => statusAt(list, index)), statuses);
  assert.throws(() => statusAt(list, 16), /out of bounds/);
});

test("two bits a token", () => {
  const statuses = [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3];
  const list = { bits: 2, lst: "eNo76fITAAPfAgc" };
  assert.deepEqual(statuses.map((_, index) => statusAt(list, index)), statuses);
  assert.throws(() => statusAt(list, 12), /out of bounds/);
});

test("what isn't a list is refused", () => {
  assert.throws(() => statusAt({ bits: 3, lst: "eNrbuRgAAhcBXQ" }, 0), /bits/);
  assert.throws(() => statusAt({ bits: 1, lst: "eNrbuRgAAhcBXQ==" }, 0), /base64url/);
  assert.throws(() => statusAt({ bits: 1, lst: "AAAA" }, 0));
});
