// Many requests of every kind through the gateway, while tokens are revoked: each gets the answer that is due to it, and workerd's memory doesn't grow with them.
// SOAK_REQUESTS says how many (50,000).

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import http from "node:http";
import { after, before, test } from "node:test";
import { startWorld } from "./support.mjs";

const REQUESTS = Number(process.env.SOAK_REQUESTS ?? 50_000);
const CLIENTS = 16;
const GOOD = 400;
/** How often one is revoked; and how long after the push was taken an isolate may not know it yet. */
const REVOKE_EVERY_MS = 200;
const KNOWN_AFTER_MS = 2_000;

let world;
before(async () => {
  world = await startWorld();
  await world.settle();
  world.beat();
});
after(() => world?.stop());

/** The resident memory of the workerd that this process has started, in MB. */
function memory() {
  for (const entry of readdirSync("/proc")) {
    try {
      const status = readFileSync(`/proc/${entry}/status`, "utf8");
      if (/^Name:\tworkerd$/m.test(status) && new RegExp(`^PPid:\t${process.pid}$`, "m").test(status)) return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)[1]) / 1024;
    } catch {
      // No process, or one that has ended.
    }
  }
  throw new Error("workerd isn't among the processes");
}

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
    while (!done && revoked.length < GOOD / 2) {
      const one = good[revoked.length];
      revoked.push(one);
      one.pushedAt = Date.now();
      const response = await world.push(issuer.head({ revoked: revoked.map(({ coordinate }) => coordinate) }));
      await response.text();
      // A heartbeat may have overtaken it; then the next one brings it.
      if (response.status === 200) for (const each of revoked) each.takenAt = Math.min(each.takenAt, Date.now());
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
      if (n % 1_000 === 999) {
        samples.push(memory());
        upstream.seen.length = 0;
      }
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
  const quarter = samples.length >> 2;
  const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
  const [early, late] = [median(samples.slice(quarter, 2 * quarter)), median(samples.slice(-quarter))];
  const perSecond = Math.round(REQUESTS / ((Date.now() - began) / 1000));
  context.diagnostic(`${JSON.stringify(counts)}, ${revoked.length} revoked meanwhile, ${perSecond} requests/s, workerd ${early.toFixed(0)} MB in the second quarter, ${late.toFixed(0)} MB in the last`);
  assert.ok(late < early * 1.2 + 10, `workerd grew from ${early} to ${late} MB`);
});
