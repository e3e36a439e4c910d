// The hubs: what they say to those who listen, and several of them, with isolates near and far, when one fails.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { EMPTY_BASE, sha256 } from "../fake-issuer.mjs";
import { startWorld, until } from "./support.mjs";

const refused = ({ status }) => status === 401;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Reads an answer with lines as they come; `next` resolves to the lines of a kind. */
function listen(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const lines = [];
  const started = performance.now();
  const ended = (async () => {
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return performance.now() - started;
      const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = parts.pop();
      for (const part of parts) {
        const [what, clock, age, ...more] = part.split(" ");
        lines.push({ what, clock: Number(clock), age: Number(age), rest: more });
      }
    }
  })();
  return {
    lines,
    ended,
    async has(predicate, limitMs = 3_000) {
      for (const start = performance.now(); performance.now() - start < limitMs; await pause(5)) {
        const found = lines.find(predicate);
        if (found) return found;
      }
      throw new Error(`not said within ${limitMs} ms; said was ${JSON.stringify(lines)}`);
    },
  };
}

describe("an answer that stays open", () => {
  let world;
  before(async () => {
    world = await startWorld();
    await world.settle();
  });
  after(() => world.stop());

  test("says the head at once and when it changes, else that there is nothing newer, and ends in time", async () => {
    const { issuer, edge } = world;
    const listener = listen(await edge.hub("global", "head?stream_ms=4000"));
    const first = await listener.has(({ what }) => what === "head");
    assert.equal(JSON.parse(Buffer.from(first.rest[0].split(".")[1], "base64url")).seq, issuer.seq);
    // A heartbeat: the same content, later.
    const later = Math.floor(Date.now() / 1000) + 1;
    await (await world.push(issuer.heartbeat({ as_of: later }))).text();
    const tick = await listener.has(({ what }) => what === "tick");
    assert.deepEqual(tick.rest.map(Number), [issuer.epoch, issuer.seq]);
    assert.ok(tick.age < 500 && tick.clock >= first.clock, JSON.stringify(tick));
    const { coordinate } = issuer.token();
    const head = issuer.head({ revoked: [coordinate] });
    await (await world.push(head)).text();
    await listener.has(({ what, rest }) => what === "head" && rest[0] === head);
    // The issuer is silent: the hub says how old its knowledge is, and that it is still there.
    await listener.has(({ what, age }) => what === "tick" && age > 1_000);
    const took = await listener.ended;
    assert.ok(took > 3_500 && took < 6_000, `${took} ms`);
    assert.equal(listener.lines.filter(({ what }) => what === "head").length, 2);
    // Nothing is said of keys to who doesn't ask.
    assert.equal(listener.lines.some(({ what }) => what === "keys"), false);
  });

  test("brings a key statement that is newer than what the listener has", async () => {
    const { issuer, edge } = world;
    const none = listen(await edge.hub("global", "head?stream_ms=2000&key_epoch=0&key_version=0"));
    const statement = issuer.keyStatement();
    assert.equal((await world.pushKeys(statement)).status, 200);
    await none.has(({ what, rest }) => what === "keys" && rest[0] === statement);
    const late = listen(await edge.hub("global", "head?stream_ms=1000&key_epoch=0&key_version=0"));
    await late.has(({ what, rest }) => what === "keys" && rest[0] === statement);
    const has = listen(await edge.hub("global", `head?stream_ms=1000&key_epoch=${issuer.epoch}&key_version=${issuer.keyVersion}`));
    await Promise.all([none.ended, late.ended, has.ended]);
    assert.equal(has.lines.some(({ what }) => what === "keys"), false);
    assert.equal(none.lines.filter(({ what }) => what === "keys").length, 1);
  });

  test("a push is answered with how many listen and what all of them were sent", async () => {
    const { issuer, edge } = world;
    const two = [1, 2].map(async () => listen(await edge.hub("global", "head?stream_ms=3000")));
    const listeners = await Promise.all(two);
    await Promise.all(listeners.map((listener) => listener.has(({ what }) => what === "head")));
    const answer = await (await world.push(issuer.head())).json();
    const { listening } = (await (await edge.hub("global", "status")).json()).listeners;
    assert.deepEqual(answer.listeners, { count: listening, epoch: issuer.epoch, seq: issuer.seq });
    assert.ok(listening >= 2);
    await Promise.all(listeners.map(({ ended }) => ended));
    const { count } = (await (await world.push(issuer.head())).json()).listeners;
    assert.equal(count, 0, "those whose answers have ended aren't counted");
  });

  test("a hub that never held anything begins with what the first one holds, and takes nothing older", async () => {
    const { issuer, edge } = world;
    const { head } = await (await edge.hub("enam/3", "status")).json();
    assert.deepEqual(head, { epoch: issuer.epoch, seq: issuer.seq });
    const { seq } = issuer;
    const older = await edge.hub("enam/3", "head", { method: "PUT", body: issuer.head({ seq: 1 }) });
    issuer.seq = seq;
    assert.equal(older.status, 409);
    await older.text();
    await edge.evictHub("enam/3");
    assert.deepEqual((await (await edge.hub("enam/3", "status")).json()).head, { epoch: issuer.epoch, seq });
  });
});

test("with neither head nor elder: no answer is kept open", async () => {
  const world = await startWorld();
  try {
    for (const name of ["global", "weur/1"]) {
      const answer = await world.edge.hub(name, "head?stream_ms=2000");
      assert.equal(answer.status, 503, name);
      assert.equal((await answer.json()).code, "NO_HEAD");
    }
  } finally {
    await world.stop();
  }
});

describe("two regions of two hubs", () => {
  const NAMES = ["global", "weur/1", "enam/0", "enam/1"];
  const NEAR = { weur: { continent: "EU" }, enam: { continent: "NA", latitude: "40.7", longitude: "-74.0" } };
  // The first isolate comes to the hubs by a way that can't be broken, so it isn't asked.
  const ISOLATES = [1, 2, 3, 4];
  const at = (isolate) => (isolate <= 2 ? "weur" : "enam");
  let world;
  let beating;
  const revoked = [];
  const get = (token, isolate) => world.get(token, { isolate, headers: { "mf-cf-blob": JSON.stringify(NEAR[at(isolate)]) } });
  const push = async (head) => {
    const response = await world.push(head, { isolate: 1 });
    return { status: response.status, body: await response.json() };
  };
  const beat = () => push(world.issuer.heartbeat({ revoked })).catch(() => undefined);
  const listening = async (name) => (await (await world.edge.hub(name, "status")).json()).listeners.listening;

  before(async () => {
    world = await startWorld({ isolates: 5, vars: { HUB_SHARDS: "2", HUB_REGIONS: "weur, enam" } });
    await world.putObject(sha256(EMPTY_BASE), EMPTY_BASE);
    assert.equal((await push(world.issuer.head())).status, 200);
    beating = setInterval(beat, 1_000);
  });
  after(async () => {
    clearInterval(beating);
    await world.stop();
  });

  /** Revokes a token; each isolate that accepted it refuses it. */
  async function revokeEverywhere() {
    const { token, coordinate } = world.issuer.token();
    for (const isolate of ISOLATES) assert.equal((await get(token, isolate)).status, 200, `isolate ${isolate}`);
    revoked.push(coordinate);
    const pushed = await push(world.issuer.head({ revoked }));
    for (const isolate of ISOLATES) await until(5_000, () => get(token, isolate), refused);
    return pushed;
  }

  test("each isolate listens in its region, each refuses what is revoked, and the push says so", async () => {
    assert.equal((await revokeEverywhere()).status, 200);
    assert.equal((await listening("global")) + (await listening("weur/1")), 2);
    assert.equal((await listening("enam/0")) + (await listening("enam/1")), 2);
    const { body } = await push(world.issuer.head({ revoked }));
    assert.deepEqual(body.listeners, { count: 4, epoch: world.issuer.epoch, seq: world.issuer.seq });
  });

  for (const fault of ["throws", "hangs"]) {
    test(`a region that ${fault}: its isolates listen elsewhere, nobody's knowledge grows old, and the push names the hubs`, { timeout: 60_000 }, async () => {
      const { token } = world.issuer.token();
      for (const isolate of ISOLATES) assert.equal((await get(token, isolate)).status, 200);
      for (const name of NAMES.slice(0, 2)) await world.edge.break(name, fault);
      // Isolates are asked all the time, as they would be.
      for (const start = performance.now(); performance.now() - start < 8_000; await pause(100)) {
        for (const isolate of ISOLATES) {
          const answer = await get(token, isolate);
          assert.equal(answer.status, 200);
          assert.equal((await answer.json()).headers["x-countersign-revocations-age-ms"], undefined, `isolate ${isolate}`);
        }
      }
      const { status, body } = await revokeEverywhere();
      assert.equal(status, 503);
      assert.equal(body.code, "HUBS_INCOMPLETE");
      assert.deepEqual(body.details.failing.map(({ hub }) => hub).sort(), ["global", "weur/1"]);
      for (const name of NAMES.slice(0, 2)) await world.edge.break(name, "");
      assert.equal((await push(world.issuer.head({ revoked }))).status, 200, "when they are back");
    });
  }

  test("a hub that is ahead: the push is refused with its position", async () => {
    const { issuer, edge } = world;
    clearInterval(beating);
    const seq = issuer.seq + 5;
    const ahead = issuer.head({ revoked, seq });
    await (await edge.hub("enam/0", "head", { method: "PUT", body: ahead })).text();
    const { status, body } = await push(issuer.head({ revoked }));
    assert.equal(status, 409);
    assert.equal(body.code, "OLDER_HEAD");
    assert.equal(body.hub, "enam/0");
    assert.deepEqual(body.details, { epoch: issuer.epoch, seq });
    issuer.seq = seq;
    assert.equal((await push(issuer.head({ revoked }))).status, 200);
  });
});

describe("a hub that isn't what it should be", () => {
  let world;
  const revoked = [];
  before(async () => {
    world = await startWorld({ isolates: 2 });
    // Asked before there was a head anywhere, it holds none: as one that lost what it held.
    await (await world.edge.hub("lost", "status")).text();
    await world.settle();
  });
  after(() => world.stop());
  const beat = () => world.push(world.issuer.heartbeat({ revoked })).then((answer) => answer.text());
  const age = async () => (await (await world.get(undefined, { isolate: 1, path: "/_countersign/health" })).json()).revocations.age_ms;

  test("one that went back in time is believed nothing, and what was revoked stays so", { timeout: 30_000 }, async () => {
    const { issuer, edge } = world;
    // It begins with the head of this moment, and hears of nothing that follows.
    await (await edge.hub("past", "status")).text();
    const { token, coordinate } = issuer.token();
    const good = issuer.token().token;
    revoked.push(coordinate);
    assert.equal((await world.push(issuer.head({ revoked }))).status, 200);
    await until(3_000, () => world.get(token, { isolate: 1 }), refused);
    await edge.break("global", "is past");
    const held = await edge.hub("past", "head", { method: "PUT", body: issuer.head({ seq: issuer.seq - 1, as_of: Math.floor(Date.now() / 1000) + 1 }) });
    issuer.seq -= 1;
    assert.equal(held.status, 200, "it believes that it is current");
    await held.text();
    await pause(3_000);
    assert.equal((await world.get(token, { isolate: 1 })).status, 401);
    assert.ok((await age()) > 2_500, "what it says is no news");
    const flagged = await world.get(good, { isolate: 1 });
    assert.equal(flagged.status, 200);
    await edge.break("global", "");
    await until(5_000, () => world.get(good, { isolate: 1 }), ({ status }) => status === 200);
  });

  test("one that lost its memory: what isolates hold stays in force, and an old head that it takes isn't believed", { timeout: 30_000 }, async () => {
    const { issuer, edge } = world;
    const old = issuer.head();
    const { token, coordinate } = issuer.token();
    const good = issuer.token().token;
    revoked.push(coordinate);
    assert.equal((await world.push(issuer.head({ revoked }))).status, 200);
    await until(3_000, () => world.get(token, { isolate: 1 }), refused);
    await edge.break("global", "is lost");
    await pause(1_000);
    assert.equal((await edge.hub("lost", "head?epoch=0&seq=0")).status, 503, "it holds nothing");
    for (const [answer, expected] of [[await world.get(token, { isolate: 1 }), 401], [await world.get(good, { isolate: 1 }), 200]]) {
      assert.equal(answer.status, expected);
      await answer.text();
    }
    assert.equal((await edge.hub("lost", "head", { method: "PUT", body: old })).status, 200);
    await pause(3_000);
    assert.equal((await world.get(token, { isolate: 1 })).status, 401);
    assert.ok((await age()) > 3_500, "that is no news");
    // The issuer's next heartbeat, a second later in life.
    assert.equal((await edge.hub("lost", "head", { method: "PUT", body: issuer.heartbeat({ revoked }) })).status, 200);
    for (const start = performance.now(); (await age()) > 3_000; ) assert.ok(performance.now() - start < 8_000);
    assert.equal((await world.get(token, { isolate: 1 })).status, 401);
    await edge.break("global", "");
  });

  test("one whose words come late is known to be late", { timeout: 30_000 }, async () => {
    const { edge } = world;
    await beat();
    const beating = setInterval(beat, 1_000);
    try {
      await edge.break("global", "delays");
      // By then the isolate has found out that what it listened to was broken off, and has listened anew.
      await pause(5_000);
      const ages = [];
      for (let n = 0; n < 40; n++, await pause(50)) ages.push(await age());
      assert.ok(Math.min(...ages) > 1_800, `lines that come two seconds late are two seconds old: ${ages}`);
      assert.ok(Math.max(...ages) < 5_000, `${ages}`);
      await edge.break("global", "");
      const start = performance.now();
      while ((await age()) > 1_500) assert.ok(performance.now() - start < 8_000, "in time again");
    } finally {
      clearInterval(beating);
    }
  });
});
