// What an edge counts: by what it was asked, for Prometheus and for Analytics Engine; and that the documentation lists all of it.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import { startWorld } from "./support.mjs";

const OPERATOR_SECRET = "of the operators, for tests";
const DECISION_SECRET = "of proxies that ask, for tests";
const POLICY = { version: 1, routes: [{ path: "/open", anonymous: true }, { path: "/reports", scopes: ["reports:read"] }, { path: "/**" }] };

let world;
before(async () => {
  const entry = fileURLToPath(new URL("counting-edge.ts", import.meta.url));
  world = await startWorld({ vars: { OPERATOR_SECRET, DECISION_SECRET, ROUTE_POLICY: JSON.stringify(POLICY) }, entry });
  await world.settle();
  world.beat();
});
after(() => world?.stop());

async function scrape() {
  const response = await fetch(`${world.edge.url}/_countersign/metrics`, { headers: { authorization: `Bearer ${OPERATOR_SECRET}` } });
  assert.equal(response.status, 200);
  assert.match(response.headers.get("content-type"), /^text\/plain; version=0\.0\.4/);
  return parse(await response.text());
}

/** The families by name: their type, and their samples by labels. */
function parse(text) {
  const families = new Map();
  let family;
  for (const line of text.trimEnd().split("\n")) {
    const [, what, name, rest] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? [];
    if (what === "HELP") families.set(name, (family = { samples: new Map() }));
    else if (what === "TYPE") family.type = rest;
    else {
      const sample = /^([a-z_]+)(?:\{(.*)\})? (-?[0-9.e+-]+)$/.exec(line);
      assert.ok(sample, `not in the format: ${line}`);
      family.samples.set(`${sample[1]}{${sample[2] ?? ""}}`, Number(sample[3]));
    }
  }
  return families;
}

const decisions = (families) => families.get("countersign_edge_decisions_total").samples;
const counted = (samples, way, outcome, reason) => samples.get(`countersign_edge_decisions_total{way="${way}",outcome="${outcome}",reason="${reason}"}`) ?? 0;

test("decisions are counted by way, outcome and reason", async () => {
  const { issuer } = world;
  const ask = async (token, path, status, headers) => assert.equal((await world.get(token, { path, headers })).status, status, path);
  const now = Math.floor(Date.now() / 1000);
  const before = await scrape();
  const good = issuer.token({ scope: "reports:read" }).token;
  for (let n = 0; n < 3; n++) await ask(good, "/reports", 200);
  await ask(undefined, "/open", 200);
  await ask(undefined, "/other", 401);
  await ask(issuer.token({ exp: now - 10 }).token, "/other", 401);
  const revoked = issuer.token();
  assert.equal((await world.push(issuer.head({ revoked: [revoked.coordinate] }))).status, 200);
  for (let status = 0, began = Date.now(); status !== 401; ) {
    assert.ok(Date.now() - began < 5_000);
    ({ status } = await world.get(revoked.token, { path: "/other" }));
  }
  await ask(issuer.token({ scope: "reports:write" }).token, "/reports", 403);
  const decided = await world.get(good, {
    path: "/_countersign/decide",
    headers: { "x-countersign-decision-secret": DECISION_SECRET, "x-original-method": "GET", "x-original-uri": "/reports" },
  });
  assert.equal(decided.status, 200);

  const families = await scrape();
  const grown = (...labels) => counted(decisions(families), ...labels) - counted(decisions(before), ...labels);
  assert.ok(grown("gateway", "accepted", "") >= 3);
  assert.equal(grown("gateway", "anonymous", ""), 1);
  assert.equal(grown("gateway", "refused", "unauthorized"), 1);
  assert.equal(grown("gateway", "refused", "expired"), 1);
  assert.equal(grown("gateway", "refused", "revoked"), 1);
  assert.equal(grown("gateway", "refused", "insufficient_scope"), 1);
  assert.equal(grown("decision", "accepted", ""), 1);
  assert.ok(families.get("countersign_edge_verified_tokens_total").samples.get('countersign_edge_verified_tokens_total{result="hit"}') >= 3, "known again");
  const all = [...decisions(families).values()].reduce((sum, count) => sum + count, 0);
  const { samples } = families.get("countersign_edge_decision_duration_seconds");
  assert.equal(samples.get("countersign_edge_decision_duration_seconds_count{}"), all);
  assert.equal(samples.get('countersign_edge_decision_duration_seconds_bucket{le="+Inf"}'), all);
  const buckets = [...samples].filter(([name]) => name.includes("_bucket")).map(([, count]) => count);
  assert.deepEqual(buckets, buckets.toSorted((a, b) => a - b), "each counts what the ones before it count");
  assert.ok(families.get("countersign_edge_revocations_age_seconds").samples.get("countersign_edge_revocations_age_seconds{}") < 5);
  assert.equal(families.get("countersign_edge_revocation_head_seq").samples.get("countersign_edge_revocation_head_seq{}") >= 1, true);

  // The same, one by one, with nothing that names anybody.
  const points = await (await fetch(`${world.edge.url}/__points`)).json();
  assert.equal(points.length, all);
  const last = points.at(-1);
  assert.deepEqual(last.blobs, ["decision", "accepted", ""]);
  assert.deepEqual(last.indexes, ["accepted"]);
  assert.ok(last.doubles[0] >= 0 && last.doubles[1] < 5_000, JSON.stringify(last));
  assert.ok(points.some(({ blobs }) => blobs.join() === "gateway,refused,revoked"));
});

test("what is there and what is documented are the same", async () => {
  const reference = readFileSync(new URL("../../../docs/reference/edge.md", import.meta.url), "utf8");
  const documented = new Set([...reference.matchAll(/^\| `(countersign_edge_[a-z_]+)` \|/gm)].map(([, name]) => name));
  const families = await scrape();
  assert.deepEqual([...families.keys()].sort(), [...documented].sort());
  for (const [name, { type }] of families) assert.match(type, /^(counter|gauge|histogram)$/, name);
});

test("only operators may read them", async () => {
  const url = `${world.edge.url}/_countersign/metrics`;
  assert.equal((await fetch(url)).status, 401);
  assert.equal((await fetch(url, { headers: { authorization: "Bearer another" } })).status, 401);
  assert.equal((await fetch(url, { method: "POST", headers: { authorization: `Bearer ${OPERATOR_SECRET}` } })).status, 405);
});
