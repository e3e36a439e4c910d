// Many requests of every kind through the gateway, while tokens are revoked: each gets the answer that is due to it, and what the edge holds in memory doesn't grow with them.
// SOAK_REQUESTS says how many (50,000).

import assert from "node:assert/strict";
import http from "node:http";
import { after, before, test } from "node:test";
import { heapOf } from "./heap.mjs";
import { startWorld } from "./support.mjs";

const REQUESTS = Number(process.env.SOAK_REQUESTS ?? 50_000);
const CLIENTS = 16;
const GOOD = 400;
/** How often one is revoked; and how long after the push was taken an isolate may not know it yet. */
const REVOKE_EVERY_MS = 200;
const KNOWN_AFTER_MS = 2_000;

let world;
before(async () => {
  world = await startWorld({ inspected: true });
  await world.settle();
});
after(() => world?.stop());

function tamper(token) {
  const at = token.length - 20;
  return token.slice(0, at) + (token[at] === "A" ? "B" : "A") + token.slice(at + 1);
}

/** Everybody who asks. `due`: the statuses that may be given at the moment. */
function makeCallers(issuer) {
  const now = Math.floor(Date.now() / 1000);
  const good = Array.from({ length: GOOD }, () => {
    const { token, coordinate } = issuer.token();
    const { jti } = JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString());
    return { token, coordinate, jti, pushedAt: Infinity, takenAt: Infinity };
  });
  const kinds = [
    () => issuer.token({ exp: now - 5 }).token,
    () => issuer.token({ aud: "https://other.example" }).token,
    () => issuer.token({ iss: "https://other.example" }).token,
    () => tamper(issuer.token().token),
    () => issuer.token().token.slice(0, -3),
    () => `${issuer.token().token}=`,
    () => "nothing.of.that",
  ];
  const bad = kinds.flatMap((make) => Array.from({ length: 20 }, () => ({ token: make(), pushedAt: -Infinity, takenAt: -Infinity })));
  return { good, callers: [...good, ...good, ...bad, { token: undefined, pushedAt: -Infinity, takenAt: -Infinity }] };
}

test(`${REQUESTS} requests with mixed verdicts while tokens are revoked: no wrong verdict, and memory stays flat`, { timeout: 600_000 }, async (context) => {
  const { issuer, edge, upstream } = world;
  const { good, callers } = makeCallers(issuer);
  const agent = new http.Agent({ keepAlive: true, maxSockets: CLIENTS });
  const url = new URL(edge.url);
  const ask = (token, n) =>
    new Promise((resolve, reject) => {
      const headers = { ...(token && { authorization: `Bearer ${token}` }), "x-nonce": String(n) };
      const request = http.get({ host: url.hostname, port: url.port, path: `/soak/${n}`, agent, headers }, (response) => {
        let body = "";
        response.setEncoding("utf8").on("data", (data) => (body += data)).on("end", () => resolve({ status: response.statusCode, body }));
      });
      request.once("error", reject);
    });

  const counts = { 200: 0, 400: 0, 401: 0 };
  const wrong = [];
  const samples = [];
  let next = 0;
  let done = false;
  const revoked = [];
  const revoking = (async () => {
    while (!done) {
      if (revoked.length < GOOD / 2) {
        const one = good[revoked.length];
        one.pushedAt = Date.now();
        revoked.push(one);
      }
      const response = await world.push(issuer.head({ revoked: revoked.map(({ coordinate }) => coordinate) }));
      await response.text();
      assert.equal(response.status, 200);
      for (const each of revoked) each.takenAt = Math.min(each.takenAt, Date.now());
      await new Promise((resolve) => setTimeout(resolve, REVOKE_EVERY_MS));
    }
  })();
  const client = async () => {
    while (next < REQUESTS) {
      const n = next++;
      const caller = callers[(n * 7919) % callers.length];
      const askedAt = Date.now();
      const { status, body } = await ask(caller.token, n);
      counts[status] = (counts[status] ?? 0) + 1;
      const mayPass = askedAt <= caller.takenAt + KNOWN_AFTER_MS;
      const mayBeRefused = Date.now() >= caller.pushedAt;
      const isRight = status === 200 ? mayPass && JSON.parse(body).headers["x-countersign-jti"] === caller.jti : (status === 401 || (status === 400 && caller.token !== undefined)) && mayBeRefused;
      if (!isRight) wrong.push({ n, status, since: askedAt - caller.takenAt, body: body.slice(0, 200) });
      if (n % 1_000 === 999) upstream.seen.length = 0;
      // Of the edge itself, after its garbage was collected. That of the whole process grows with the requests whatever answers them, by some 10 KB each.
      if (n % Math.ceil(REQUESTS / 10) === 0) samples.push(await heapOf(await edge.inspector(), "countersign-edge"));
    }
  };
  const began = Date.now();
  await Promise.all(Array.from({ length: CLIENTS }, client));
  done = true;
  await revoking;
  agent.destroy();

  assert.deepEqual(wrong.slice(0, 5), []);
  assert.ok(revoked.length >= 10, `${revoked.length} were revoked`);
  assert.ok(counts[200] > REQUESTS / 4 && counts[401] > REQUESTS / 20, JSON.stringify(counts));
  const megabytes = samples.map((bytes) => bytes / 1_000_000);
  const perSecond = Math.round(REQUESTS / ((Date.now() - began) / 1000));
  context.diagnostic(`${JSON.stringify(counts)}, ${revoked.length} revoked meanwhile, ${perSecond} requests/s; MB held by the edge: ${megabytes.map((size) => size.toFixed(2)).join(", ")}`);
  // The first is of an edge that has seen nobody yet.
  const [early, late] = [megabytes[2], megabytes.at(-1)];
  assert.ok(late < early * 1.1 + 0.5, `the edge grew from ${early} to ${late} MB`);
});
