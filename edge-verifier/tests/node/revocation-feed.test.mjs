// How old knowledge of revocations may be, by the caller's choice, and what an isolate does with objects that don't come or aren't sound. The clock,
// the hub and the objects are ours here, everything else is the edge's own.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";
import { hubsInOrder, readHubPlan } from "../../entry/hubs.ts";
import { KeyFeed } from "../../entry/keys.ts";
import { RevocationFeed } from "../../entry/revocations.ts";
import { boundHubs, boundObjects } from "../../entry/sources.ts";
import { DEFAULT_STALENESS, problemsOf } from "../../entry/staleness.ts";
import { AUDIENCE, EMPTY_BASE, FakeIssuer, sha256 } from "../fake-issuer.mjs";
import { newVerifier } from "./support.mjs";

const nowSeconds = () => Math.floor(Date.now() / 1000);

describe("revocation feed", () => {
  let issuer;
  let verifier;
  let feed;
  let alarms;
  /** What the hub says, unless it is away; the objects by name, as promises. */
  let said;
  let objects;
  const ctx = { waitUntil: (work) => void work.catch(() => undefined) };
  const bytes = (buffer) => new Uint8Array(buffer).buffer;

  beforeEach(() => {
    mock.timers.enable({ apis: ["Date"], now: Date.now() });
    alarms = [];
    mock.method(console, "error", (line) => alarms.push(JSON.parse(line).message));
    issuer = new FakeIssuer();
    issuer.url = "https://issuer.example";
    verifier = newVerifier();
    verifier.configure(issuer.url, [AUDIENCE], 5);
    said = undefined;
    objects = new Map([[`base/${sha256(EMPTY_BASE)}`, () => bytes(EMPTY_BASE)]]);
    const stub = {
      fetch: async () => {
        if (said === undefined) throw new Error("away");
        return new Response(said, { headers: { "x-countersign-age-ms": "0" } });
      },
    };
    const env = {
      REVOCATION_HUB: { idFromName: (name) => name, get: () => stub },
      REVOCATION_OBJECTS: { get: async (name) => (await objects.get(name)?.()) ?? null },
    };
    const settings = {
      revocationKeys: JSON.stringify(issuer.headJwks()),
      hubs: { shards: 1, regions: [] },
      jwksUrl: `${issuer.url}/.well-known/jwks.json`,
    };
    const sources = {
      heads: boundHubs(env.REVOCATION_HUB, settings.hubs, undefined),
      objects: boundObjects(env.REVOCATION_OBJECTS),
      headKeys: settings.revocationKeys,
    };
    feed = new RevocationFeed(verifier, sources, new KeyFeed(verifier, settings), () => undefined);
  });
  afterEach(() => {
    feed.stop();
    mock.restoreAll();
    mock.timers.reset();
  });

  test("with nothing known nobody is served, whatever the caller allows", async () => {
    assert.equal(await feed.ready(ctx, { ...DEFAULT_STALENESS, whenUnknown: "serve" }), "refuse");
  });

  test("as knowledge ages: fresh, stale, and then as the caller says", async () => {
    said = issuer.head();
    assert.equal(await feed.ready(ctx), "fresh");
    said = undefined;
    const strict = { freshMs: 2_000, usableMs: 10_000, whenUnknown: "refuse" };
    const patient = { freshMs: 20_000, usableMs: 60_000, whenUnknown: "serve" };
    for (const [elapsed, byDefault, byStrict, byPatient] of [
      [1_500, "fresh", "fresh", "fresh"],
      [4_500, "fresh", "stale", "fresh"],
      [9_500, "stale", "stale", "fresh"],
      [29_500, "stale", "refuse", "stale"],
      [59_500, "refuse", "refuse", "stale"],
      [61_000, "refuse", "refuse", "unknown"],
      [86_400_000, "refuse", "refuse", "unknown"],
    ]) {
      mock.timers.setTime(Date.now() + elapsed - feed.ageMs);
      assert.equal(await feed.ready(ctx), byDefault, `${elapsed}`);
      assert.equal(await feed.ready(ctx, strict), byStrict, `${elapsed}`);
      assert.equal(await feed.ready(ctx, patient), byPatient, `${elapsed}`);
    }
    said = issuer.head();
    mock.timers.setTime(Date.now() + 1_000);
    assert.equal(await feed.ready(ctx, strict), "fresh", "asks before it says that it doesn't know");
  });

  test("who is served by old knowledge is still refused what was revoked by then", async () => {
    await verifier.loadKeys("tokens", JSON.stringify(issuer.jwks()));
    const [victim, good] = [issuer.token({ exp: nowSeconds() + 3_000 }), issuer.token({ exp: nowSeconds() + 3_000 })];
    said = issuer.head({ revoked: [victim.coordinate] });
    assert.equal(await feed.ready(ctx), "fresh");
    said = undefined;
    mock.timers.setTime(Date.now() + 600_000);
    assert.equal(await feed.ready(ctx, { ...DEFAULT_STALENESS, whenUnknown: "serve" }), "unknown");
    assert.equal((await verifier.verify(good.token, nowSeconds())).refused.reason, "revocations_unknown", "past fresh_until");
    assert.ok("identity" in (await verifier.verify(good.token, nowSeconds(), true)));
    assert.equal((await verifier.verify(victim.token, nowSeconds(), true)).refused.reason, "revoked");
  });

  test("a base that is missing, damaged or slow: a cold isolate refuses, a warm one keeps what it has and says so", { timeout: 60_000 }, async () => {
    const other = Buffer.from(EMPTY_BASE);
    other.writeBigUInt64LE(5n, 16);
    const name = `base/${sha256(other)}`;
    const faults = {
      missing: [() => null, /is not in KV/],
      empty: [() => bytes(Buffer.alloc(0)), /SHA-256/],
      truncated: [() => bytes(other.subarray(0, 20)), /SHA-256/],
      "another one": [() => bytes(EMPTY_BASE), /SHA-256/],
      slow: [() => new Promise((resolve) => setTimeout(() => resolve(bytes(other)), 20_000).unref()), /KV didn't answer/],
    };
    for (const isWarm of [false, true]) {
      if (isWarm) {
        said = issuer.head();
        mock.timers.setTime(Date.now() + 6_000);
        assert.equal(await feed.ready(ctx), "fresh");
        assert.equal(verifier.inForce().base.sha256, sha256(EMPTY_BASE));
      }
      for (const [fault, [object, reason]] of Object.entries(faults)) {
        const before = verifier.head();
        alarms.length = 0;
        objects.set(name, object);
        said = issuer.head({ base: sha256(other) });
        if (isWarm) mock.timers.setTime(Date.now() + 6_000 - Math.min(feed.ageMs, 5_900));
        assert.equal(await feed.ready(ctx), isWarm ? "stale" : "refuse", fault);
        assert.deepEqual(verifier.head(), before, fault);
        if (fault === "slow") await new Promise((resolve) => setTimeout(resolve, 4_000));
        assert.match(alarms.join("\n"), reason, fault);
        // As if its time were over: it was asked for just now.
        mock.timers.setTime(Date.now() + 1_000);
      }
      objects.set(name, () => bytes(other));
      said = issuer.head({ base: sha256(other) });
      assert.equal(await feed.ready(ctx), "fresh", "a sound one");
      assert.equal(verifier.head().seq, issuer.seq);
    }
  });
});

test("bounds of staleness", () => {
  assert.deepEqual(problemsOf(DEFAULT_STALENESS), []);
  for (const wrong of [
    { freshMs: 1_999 },
    { freshMs: 2_000.5 },
    { freshMs: NaN },
    { freshMs: 31_000 },
    { usableMs: 300_001 },
    { usableMs: "30000" },
    { whenUnknown: "open" },
    { whenUnknown: undefined },
  ]) {
    assert.notDeepEqual(problemsOf({ ...DEFAULT_STALENESS, ...wrong }), [], JSON.stringify(wrong));
  }
});

describe("which hubs there are", () => {
  const namespace = { idFromName: (name) => name };
  const order = (plan, place, draw = 0) => hubsInOrder(namespace, plan, place, draw).map(({ name }) => name);

  test("as one, it keeps its name", () => assert.deepEqual(order({ shards: 1, regions: [] }, undefined), ["global"]));

  test("the own shard in the nearest region first, then in the others, then the other shards", () => {
    const plan = readHubPlan({ HUB_SHARDS: "2", HUB_REGIONS: "enam,weur, apac" }, []);
    assert.deepEqual(order(plan, { continent: "EU" }, 0.7), ["weur/1", "enam/1", "apac/1", "weur/0", "global", "apac/0"]);
    assert.deepEqual(order(plan, { latitude: "35.7", longitude: "139.7", continent: "AS" }).slice(0, 3), ["apac/0", "weur/0", "global"]);
    assert.deepEqual(order(plan, undefined).slice(0, 3), ["global", "weur/0", "apac/0"], "by the operator's order");
  });

  test("settings that make no sense are named", () => {
    const problems = (env) => {
      const found = [];
      readHubPlan(env, found);
      return found.length;
    };
    for (const good of [{}, { HUB_SHARDS: "" }, { HUB_SHARDS: "64" }, { HUB_REGIONS: "weur" }, { HUB_SHARDS: "7", HUB_REGIONS: "wnam,enam,sam,weur,eeur,apac,oc,afr,me" }]) {
      assert.equal(problems(good), 0, JSON.stringify(good));
    }
    for (const bad of [{ HUB_SHARDS: "0" }, { HUB_SHARDS: "65" }, { HUB_SHARDS: "2.5" }, { HUB_REGIONS: "europe" }, { HUB_REGIONS: "weur,weur" }, { HUB_SHARDS: "40", HUB_REGIONS: "weur,enam" }]) {
      assert.equal(problems(bad), 1, JSON.stringify(bad));
    }
  });
});
