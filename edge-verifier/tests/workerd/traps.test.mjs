// A module that fails in the middle of something, as by a lack of memory: what it leaves behind is of no use, and must not be what others meet.

import assert from "node:assert/strict";
import http from "node:http";
import path from "node:path";
import { after, before, test } from "node:test";
import { startEdge } from "../../../bin/lib/edge.mjs";
import { AUDIENCE, EMPTY_BASE, FakeIssuer, sha256 } from "../fake-issuer.mjs";

const SECRET = "of the pusher";
let issuer;
let upstream;
let edge;
before(async () => {
  issuer = await FakeIssuer.start();
  upstream = http.createServer((_, response) => response.end("{}"));
  await new Promise((resolve) => upstream.listen(0, "127.0.0.1", resolve));
  edge = await startEdge({
    entry: path.join(import.meta.dirname, "trapping-edge.ts"),
    hubEntry: path.join(import.meta.dirname, "trapping-hub.ts"),
    whole: true,
    vars: {
      ISSUER_URL: issuer.url, AUDIENCE, UPSTREAM_URL: `http://127.0.0.1:${upstream.address().port}`,
      REVOCATION_KEYS: JSON.stringify(issuer.headJwks()), HUB_PUSH_SECRET: SECRET,
    },
  });
  const name = encodeURIComponent(`base/${sha256(EMPTY_BASE)}`);
  await fetch(`${edge.kvApiBase}/storage/kv/namespaces/${edge.kvNamespaceId}/values/${name}`, { method: "PUT", body: EMPTY_BASE });
  assert.equal(await push(), 200);
  assert.equal(await outcome(), 200);
});
after(async () => {
  await edge?.stop();
  upstream?.closeAllConnections();
  await new Promise((resolve) => upstream.close(resolve));
  await issuer?.stop();
});

/** The answer to the next head; 0: none within three seconds. */
async function push(options) {
  const request = { method: "PUT", headers: { authorization: `Bearer ${SECRET}` }, body: issuer.head(options), signal: AbortSignal.timeout(3_000) };
  return fetch(`${edge.url}/_countersign/hub/head`, request).then(({ status }) => status, () => 0);
}

async function outcome(token = issuer.token().token) {
  const response = await fetch(`${edge.url}/anything`, { headers: { authorization: `Bearer ${token}` } });
  return response.status;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

test("a hub whose module has failed begins afresh, with what it stored", async () => {
  const revoked = issuer.token();
  assert.equal(await push({ revoked: [revoked.coordinate] }), 200);
  assert.equal((await fetch(`${edge.url}/__trap/hub`)).status, 200);
  const began = Date.now();
  assert.notEqual(await push({ revoked: [revoked.coordinate] }), 200);
  const another = issuer.token();
  while ((await push({ revoked: [revoked.coordinate, another.coordinate] })) !== 200) {
    assert.ok(Date.now() - began < 15_000, "the hub takes heads again");
    await pause(250);
  }
  // Isolates hear from it again, too.
  while ((await outcome(another.token)) !== 401) {
    assert.ok(Date.now() - began < 20_000, "isolates hear of what is revoked");
    await pause(100);
  }
  assert.equal(await outcome(revoked.token), 401);
  assert.equal(await outcome(), 200);
});

test("an isolate whose module has failed beside requests is replaced before the next one", async () => {
  const { token } = issuer.token();
  assert.equal(await outcome(token), 200);
  assert.equal((await fetch(`${edge.url}/__trap/verifier`)).status, 200);
  assert.equal(await push(), 200);
  await pause(500);
  assert.equal(await outcome(token), 200);
  assert.equal(await outcome(), 200);
});
