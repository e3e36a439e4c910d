// The shared accept and reject vectors, in the WebAssembly and with the crypto that the edge runs on.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { startEdge } from "../../../bin/lib/edge.mjs";
import { EMPTY_BASE, FakeIssuer } from "../fake-issuer.mjs";

test("every vector gets its verdict in workerd", async () => {
  const vectors = JSON.parse(
    readFileSync(new URL("../../../shared/tests/vectors/vectors.json", import.meta.url), "utf8"),
  );
  const issuer = new FakeIssuer();
  issuer.url = vectors.policy.issuer;
  const head = issuer.head({ fresh_until: 9_999_999_999 });
  const revocations = { keys: JSON.stringify(issuer.headJwks()), head, base: [...EMPTY_BASE] };

  const entry = fileURLToPath(new URL("vectors-worker.ts", import.meta.url));
  const edge = await startEdge({ entry, vars: {} });
  try {
    const response = await fetch(edge.url, { method: "POST", body: JSON.stringify({ vectors, revocations }) });
    assert.equal(response.status, 200, await response.clone().text());
    const { count, wrong } = await response.json();
    assert.ok(count > 1_000, `only ${count} cases`);
    assert.deepEqual(wrong, []);
  } finally {
    await edge.stop();
  }
});
