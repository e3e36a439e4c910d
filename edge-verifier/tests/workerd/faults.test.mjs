// What fails, and what must hold meanwhile and after it: every committed revocation is enforced, and nobody is refused but by what
// docs/reference/faults.md says. On real parts: the issuer's process on Postgres and Redis, the edge in workerd; between the two a proxy that meddles,
// and in the edge a KV, a hub and a clock that do (faulty-edge.ts).

import assert from "node:assert/strict";
import net from "node:net";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { createDatabase, query } from "../../../bin/lib/database.mjs";
import { basic, request, until } from "../../../bin/lib/http.mjs";
import { issuerCommand } from "../../../bin/lib/issuer.mjs";
import { startSystem, testServer } from "../../../bin/lib/testing.mjs";
import { FakeIssuer, makeKey } from "../fake-issuer.mjs";

const entry = fileURLToPath(new URL("faulty-edge.ts", import.meta.url));
const hubEntry = fileURLToPath(new URL("faulty-hub.ts", import.meta.url));
/** How old an isolate's knowledge may be before requests are refused with 503 (edge-verifier/entry/revocations.ts). */
const USABLE_MS = 30_000;
/** How soon after a fault has ended all must be as it should: an isolate asks again after 250 ms, an issuer after a few seconds. */
const RECOVERY_MS = 10_000;
const MINUTES = 60_000;

const claimsOf = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString());
const jtiOf = (token) => claimsOf(token).jti;

/** A system with a client, and what is asked of both. */
async function startWorld(options = {}) {
  const moods = { kv: "is well", hub: "is well" };
  const telling = createServer((_, response) => response.end(JSON.stringify(moods)));
  // Should the rest not start, it holds up nothing.
  telling.unref();
  await new Promise((resolve) => telling.listen(0, "127.0.0.1", resolve));
  const system = await startSystem({
    ...options,
    edgeEntry: entry,
    hubEntry,
    proxied: true,
    issuer: { TOKEN_SIGNING_ALGORITHM: "EdDSA", ...options.issuer },
    edge: { MOODS_URL: `http://127.0.0.1:${telling.address().port}`, ...options.edge },
  });
  const world = {
    ...system,
    /** What KV does when it is read, and the hub when it is called. */
    moods,
    stopped: false,
    async stop() {
      world.stopped = true;
      await system.stop();
      telling.closeAllConnections();
      await new Promise((resolve) => telling.close(resolve));
    },
    at: (place = 0) => `http://127.0.0.1:${system.issuers[place].settings.port}`,
    async token(form = {}, place = 0, client = world.client) {
      const response = await request(`${world.at(place)}/oauth2/v1/token`, {
        headers: basic(client.clientId, client.clientSecret), form: { grant_type: "client_credentials", ...form },
      });
      assert.equal(response.status, 200, response.text);
      return response.body.access_token;
    },
    /** When it returns the revocation is committed. */
    async revoke(token, place = 0) {
      const response = await request(`${world.at(place)}/oauth2/v1/revoke`, {
        headers: basic(world.client.clientId, world.client.clientSecret), form: { token },
      });
      assert.equal(response.status, 200, response.text);
    },
    call: (token) => request(`${system.edge.url}/orders/42`, { headers: { authorization: `Bearer ${token}` } }),
    /** Waits until the edge refuses all of these tokens as revoked. */
    async refuses(tokens, limitMs = RECOVERY_MS) {
      const start = performance.now();
      for (const token of [tokens].flat()) {
        for (;;) {
          const { status, text, headers } = await world.call(token);
          if (status === 401) {
            assert.match(headers.get("www-authenticate"), /The token was revoked|was ended/);
            break;
          }
          assert.ok(performance.now() - start < limitMs, `a revoked token still gets ${status} after ${limitMs} ms: ${text}`);
          await sleep(20);
        }
      }
    },
    /** Waits until the edge accepts it. */
    async accepts(token, limitMs = RECOVERY_MS) {
      const start = performance.now();
      for (;;) {
        const { status, text } = await world.call(token);
        if (status === 200) return;
        assert.equal(status, 503, `a token that nobody revoked: ${text}`);
        assert.ok(performance.now() - start < limitMs, `still ${status} after ${limitMs} ms: ${text}`);
        await sleep(20);
      }
    },
    /** The position that the isolate goes by. */
    async position() {
      const { body } = await request(`${system.edge.url}/_countersign/health`);
      return body.revocations && [body.revocations.epoch, body.revocations.seq];
    },
    /** The row of `publisher_state`. */
    state: async () => (await query(system.superuserUrl, "select epoch, seq, encode(base_sha256, 'hex') from publisher_state"))[0],
    /** A token that is revoked and refused, and one that isn't. */
    async pair() {
      const [bad, good] = [await world.token(), await world.token()];
      await world.revoke(bad);
      await world.refuses(bad);
      await world.accepts(good);
      return { bad, good };
    },
  };
  world.client = await newClient(world);
  return world;
}

async function newClient(world) {
  const authorization = `Bearer ${await world.token({ resource: world.issuer.url }, 0, world.admin)}`;
  const agent = await request(`${world.at()}/api/v1/agents`, {
    headers: { authorization },
    json: { email: "faults@agents.example", agent_type: "router", version: "1.0.0", owner: "tests", deployment_env: "development", scopes: ["orders:read"] },
  });
  assert.equal(agent.status, 201, agent.text);
  const credential = await request(`${world.at()}/api/v1/agents/${agent.body.agent_id}/credentials`, { headers: { authorization }, json: {} });
  assert.equal(credential.status, 201, credential.text);
  return { clientId: credential.body.client_id, clientSecret: credential.body.client_secret };
}

/**
 * Asks about a revoked token and a good one, again and again, until it is told to stop; then says what they got. An edge that isn't there answers nothing.
 * @returns {{stop: () => Promise<{bad: Set<number>, good: Set<number>, firstUnavailable: number}>}}
 */
function guard(world, { bad, good }) {
  const seen = { bad: new Set(), good: new Set(), firstUnavailable: Infinity };
  const asked = { bad: 0, good: 0 };
  const began = performance.now();
  let stopped = false;
  const ask = async (name, token) => {
    // As often as it takes to notice something.
    while (!world.stopped && (!stopped || asked[name] < 20)) {
      const status = await world.call(token).then((answer) => answer.status, () => undefined);
      if (status !== undefined) seen[name].add(status);
      if (status === 503) seen.firstUnavailable = Math.min(seen.firstUnavailable, performance.now() - began);
      asked[name] += 1;
      await sleep(25);
    }
  };
  const asking = [ask("bad", bad), ask("good", good)];
  return {
    stop: async () => {
      stopped = true;
      await Promise.all(asking);
      return seen;
    },
  };
}

/** That the revoked token never passed, and the other one always did. */
async function unharmed(guarded) {
  const { bad, good } = await guarded.stop();
  assert.deepEqual([[...bad], [...good]], [[401], [200]]);
}

/** Pushes a head by somebody who has the secret. */
async function put(world, head) {
  const response = await fetch(`${world.edge.url}/_countersign/hub/head`, {
    method: "PUT",
    headers: { authorization: `Bearer ${world.issuer.settings.hubPushSecret}`, "content-type": "application/jose" },
    body: head,
  });
  return { status: response.status, body: await response.json() };
}

/** A push that never gets an answer. */
const never = () => new Promise(() => {});
const isHead = ({ method, path }) => method === "PUT" && path.endsWith("/hub/head");
const pass = (exchange) => exchange.forward();

describe("faults", { concurrency: 2 }, () => {
  describe("one after the other", { concurrency: 1 }, () => {
    let world;
    before(async () => {
      world = await startWorld({ redis: true, issuer: { REDIS_URL: `${testServer("TEST_REDIS_URL")}/11` } });
    });
    after(() => world?.stop());

    test("the issuer is killed after the commit and before any push: the next one pushes it", async () => {
      const { bad, good } = await world.pair();
      for (let n = 0; n < 3; n++) {
        const victim = await world.token();
        const watching = guard(world, { bad, good });
        let held = 0;
        world.line.handle = (exchange) => (isHead(exchange) ? ((held += 1), never()) : exchange.forward());
        await until(async () => held > 0, { timeoutMs: 5_000, everyMs: 5 });
        await world.revoke(victim);
        await world.issuer.kill();
        world.line.handle = pass;
        assert.equal((await world.call(victim)).status, 200, "it can't be known at the edge yet");
        await world.issuer.start();
        await world.refuses(victim);
        await unharmed(watching);
      }
    });

    test("KV refuses, is slow, has nothing, or cuts off: what is held stays in force, and all is caught up with", async (t) => {
      for (const mood of ["refuses", "is slow", "has nothing", "cuts off"]) {
        const { bad, good } = await world.pair();
        const [, , before] = await world.state();
        world.moods.kv = mood;
        const watching = guard(world, { bad, good });
        // A term begins with a new base, which has what was revoked since the last.
        const inBase = await world.token();
        await world.revoke(inBase);
        await world.refuses(inBase);
        await world.issuer.stop();
        await world.issuer.start();
        assert.ok(await until(async () => (await world.state())[2] !== before, { timeoutMs: 10_000 }), "no new base");
        const late = await world.token();
        await world.revoke(late);
        await sleep(1_500);
        assert.equal((await world.call(inBase)).status, 401, `KV ${mood}`);
        assert.equal((await world.call(good)).status, 200, `KV ${mood}`);
        const start = performance.now();
        world.moods.kv = "is well";
        // One that is slow has been asked before.
        await world.refuses([late, inBase]);
        t.diagnostic(`KV ${mood}: ${(performance.now() - start).toFixed(0)} ms after it is well again all is refused that should be`);
        await unharmed(watching);
      }
    });

    test("an isolate that begins without KV refuses to decide, and doesn't take it for nothing revoked", async () => {
      const { bad, good } = await world.pair();
      for (const mood of ["refuses", "has nothing", "cuts off"]) {
        world.moods.kv = mood;
        await world.edge.restart();
        for (const token of [bad, good]) {
          const { status, body } = await world.call(token);
          assert.deepEqual([status, body.code], [503, "revocations_unknown"], `KV ${mood}`);
        }
        world.moods.kv = "is well";
        await world.accepts(good);
        await world.refuses(bad);
      }
    });

    test("heads replayed, reordered, forged and of another issuer: none is taken, and the real ones go on", async () => {
      const { bad, good } = await world.pair();
      /** @type {string[]} */
      const heads = [];
      world.line.handle = async (exchange) => {
        if (isHead(exchange)) heads.push(exchange.body.toString());
        // Now and then one that came before comes again, first.
        if (isHead(exchange) && heads.length > 3) await put(world, heads[Math.floor(Math.random() * (heads.length - 1))]);
        return exchange.forward();
      };
      const watching = guard(world, { bad, good });
      const victims = [];
      for (let n = 0; n < 10; n++) {
        const victim = await world.token();
        await world.revoke(victim);
        await world.refuses(victim);
        victims.push(victim);
      }
      world.line.handle = pass;
      const newest = await world.position();
      const seqOf = (head) => claimsOf(head).seq;
      const older = heads.filter((head) => seqOf(head) < newest[1]);
      assert.ok(older.length >= 5, "there are older heads");
      for (const head of [...older].reverse()) {
        const { status, body } = await put(world, head);
        assert.deepEqual([status, body.code], [409, "OLDER_HEAD"]);
      }
      const [header, payload, signature] = heads.at(-1).split(".");
      const changed = (more) => `${header}.${Buffer.from(JSON.stringify({ ...claimsOf(heads.at(-1)), ...more })).toString("base64url")}.${signature}`;
      const stranger = new FakeIssuer();
      stranger.url = world.issuer.url;
      const kid = JSON.parse(Buffer.from(header, "base64url").toString()).kid;
      const forged = {
        "later, with the old signature": changed({ seq: newest[1] + 1000 }),
        "of a later epoch, with the old signature": changed({ epoch: newest[0] + 1 }),
        "without its revocations, with the old signature": changed({ seq: newest[1] + 1, delta: "AAA" }),
        "without a signature": `${header}.${payload}.`,
        "with another's signature": `${header}.${payload}.${heads[0].split(".")[2]}`,
        "by a stranger under our kid": stranger.head({ key: makeKey(kid), seq: newest[1] + 1000 }),
        "by a key that nobody knows": stranger.head({ seq: newest[1] + 1000 }),
      };
      for (const [name, head] of Object.entries(forged)) {
        const { status, body } = await put(world, head);
        assert.deepEqual([status, body.code], [400, "INVALID_HEAD"], name);
      }
      const last = await world.token();
      await world.revoke(last);
      await world.refuses([...victims, last]);
      await unharmed(watching);
    });

    test("Redis is flushed: everything that was revoked stays so, here and at the edge", async () => {
      const { bad, good } = await world.pair();
      const watching = guard(world, { bad, good });
      assert.equal(await redis("EXISTS", `revoked:${jtiOf(bad)}`), ":1", "there was something to lose");
      assert.equal(await redis("FLUSHDB"), "+OK");
      const introspect = (token) =>
        request(`${world.at()}/oauth2/v1/introspect`, { headers: basic(world.client.clientId, world.client.clientSecret), form: { token } });
      assert.deepEqual((await introspect(bad)).body, { active: false });
      assert.equal((await introspect(good)).body.active, true);
      const late = await world.token();
      await world.revoke(late);
      await world.refuses(late);
      await unharmed(watching);
    });

    test("the edge's clock is ahead or behind: what is revoked stays refused, and beyond five minutes nothing is decided", async (t) => {
      const { bad, good } = await world.pair();
      for (const { minutes, leeway = "5", expected } of [
        { minutes: 4.5, expected: 200 },
        // Further than a head says that it may be relied on.
        { minutes: 5.2, expected: 503 },
        // A token that isn't valid yet by that clock; what a JWT is refused for anywhere.
        { minutes: -5, expected: 401 },
        { minutes: -5, leeway: "400", expected: 200 },
      ]) {
        await world.edge.restart({ CLOCK_SHIFT_MS: String(minutes * MINUTES), CLOCK_LEEWAY_SECONDS: leeway });
        const late = await world.token();
        await world.revoke(late);
        const refused = expected === 503 ? 503 : 401;
        const status = async (token) => (await world.call(token)).status;
        // Until a push has come by the clock that is.
        const settled = async () => (await status(good)) === expected && (await status(late)) === refused;
        assert.ok(await until(settled, { timeoutMs: RECOVERY_MS, everyMs: 20 }), `${minutes} min, leeway ${leeway} s`);
        const watching = guard(world, { bad, good });
        await sleep(1_500);
        const seen = await watching.stop();
        t.diagnostic(`${minutes} min, leeway ${leeway} s: revoked ${[...seen.bad]}, other ${[...seen.good]}`);
        assert.deepEqual([[...seen.bad], [...seen.good]], [[refused], [expected]], `${minutes} minutes`);
        assert.equal(await status(late), refused);
      }
      await world.edge.restart({ CLOCK_SHIFT_MS: "0", CLOCK_LEEWAY_SECONDS: "5" });
      await world.accepts(good);
      await world.refuses(bad);
    });

    // The last: it ends every token.
    test("Postgres comes back from a backup: the edge goes back in nothing, and after `recover` all is told from what is", async () => {
      const { bad, good } = await world.pair();
      await world.issuer.stop();
      const database = new URL(world.superuserUrl).pathname.slice(1);
      const server = testServer("TEST_DATABASE_URL");
      await query(server, `create database ${database}_backup template ${database} owner countersign`);
      await world.issuer.start();
      /** Of the epoch that ends with the recovery. */
      let oldHead;
      world.line.handle = (exchange) => {
        if (isHead(exchange)) oldHead = exchange.body.toString();
        return exchange.forward();
      };
      const lost = await world.token();
      await world.revoke(lost);
      await world.refuses(lost);
      const held = await world.position();
      const watching = guard(world, { bad, good });

      await world.issuer.stop();
      await query(server, `drop database ${database} with (force)`);
      await query(server, `alter database ${database}_backup rename to ${database}`);
      /** What the hub says to each head. */
      const answers = [];
      world.line.handle = async (exchange) => {
        const answer = await exchange.forward();
        if (isHead(exchange)) answers.push(answer.status);
        return answer;
      };
      await world.issuer.start();
      const unknown = await world.token();
      for (let n = 0; n < 5; n++) await world.revoke(await world.token());
      await world.revoke(unknown);
      assert.ok(await until(async () => answers.length > 1, { timeoutMs: 10_000 }), "it doesn't even try");
      await sleep(1_500);
      assert.deepEqual(new Set(answers), new Set([409]), "the hub takes nothing");
      assert.deepEqual(await world.position(), held, "the edge goes by what it had");
      assert.equal((await world.call(lost)).status, 401, "what the database has forgotten");
      assert.equal((await world.call(bad)).status, 401);
      assert.equal((await world.call(good)).status, 200);

      await issuerCommand(["recover", "--restored-from-backup", "--reason", "a test"], world.issuer.settings, "recovering failed");
      await world.refuses([lost, bad, unknown, good]);
      const [epoch] = await world.position();
      assert.ok(epoch > held[0], "the epoch has risen");
      assert.equal(claimsOf(oldHead).epoch, held[0]);
      const replayed = await put(world, oldHead);
      assert.deepEqual([replayed.status, replayed.body.code], [409, "OLDER_HEAD"], "a real head of the epoch before");
      const { bad: seen } = await watching.stop();
      assert.deepEqual([...seen], [401], "at no time was it accepted");
      const fresh = await world.token();
      await world.accepts(fresh);
      await world.revoke(fresh);
      await world.refuses(fresh);
    });
  });

  describe("with time to spare", { concurrency: 1 }, () => {
    test("the hub is down for a minute: 503 when what is known is 30 s old, then all that was revoked meanwhile is refused", { timeout: 120_000 }, async (t) => {
      const world = await startWorld();
      try {
        const { bad, good } = await world.pair();
        const victims = await Promise.all(Array.from({ length: 20 }, () => world.token()));
        const watching = guard(world, { bad, good });
        let refused = 0;
        world.line.handle = async (exchange) => {
          const answer = await exchange.forward();
          if (isHead(exchange) && answer.status !== 200) refused += 1;
          return answer;
        };
        world.moods.hub = "is gone";
        const began = performance.now();
        for (const victim of victims) {
          await world.revoke(victim);
          await sleep(Math.max(0, (60_000 - (performance.now() - began)) / 20 - 50));
        }
        await sleep(Math.max(0, 60_000 - (performance.now() - began)));
        assert.ok(refused > 5, "it was tried again and again");
        for (const token of [bad, good, victims[0]]) assert.equal((await world.call(token)).status, 503);
        world.moods.hub = "is well";
        const back = performance.now();
        await world.refuses(victims);
        t.diagnostic(`all 20 were refused ${(performance.now() - back).toFixed(0)} ms after the hub was back`);
        await world.accepts(good);
        const seen = await watching.stop();
        assert.deepEqual([[...seen.bad].sort(), [...seen.good].sort()], [[401, 503], [200, 503]]);
        t.diagnostic(`the first 503 came ${(seen.firstUnavailable / 1000).toFixed(1)} s after it was gone, and ${refused} pushes were refused`);
        // A heartbeat of up to a second before, and the hub's own.
        assert.ok(seen.firstUnavailable > USABLE_MS - 3_000, `${seen.firstUnavailable} ms`);
      } finally {
        await world.stop();
      }
    });

    test("KV is away for longer than what is known may be old: 503, and nothing that was revoked is accepted afterwards", { timeout: 120_000 }, async (t) => {
      const world = await startWorld();
      try {
        const { bad, good } = await world.pair();
        const [, , before] = await world.state();
        const watching = guard(world, { bad, good });
        world.moods.kv = "refuses";
        await world.issuer.stop();
        await world.issuer.start();
        assert.ok(await until(async () => (await world.state())[2] !== before, { timeoutMs: 10_000 }), "no new base");
        const began = performance.now();
        const victim = await world.token();
        await world.revoke(victim);
        let turns = 0;
        const unavailable = await until(async () => {
          world.moods.kv = ["refuses", "has nothing", "cuts off"][turns++ % 3];
          return (await world.call(good)).status === 503;
        }, { timeoutMs: USABLE_MS + RECOVERY_MS, everyMs: 1_000 });
        assert.ok(unavailable, "it goes on with what it has");
        const took = performance.now() - began;
        for (const token of [bad, victim]) assert.equal((await world.call(token)).status, 503);
        world.moods.kv = "is well";
        await world.refuses([victim, bad]);
        await world.accepts(good);
        const seen = await watching.stop();
        assert.deepEqual([[...seen.bad].sort(), [...seen.good].sort()], [[401, 503], [200, 503]]);
        t.diagnostic(`503 came ${(took / 1000).toFixed(1)} s after the new base`);
        assert.ok(took > USABLE_MS - 5_000 && took < USABLE_MS + 5_000, `${took} ms`);
      } finally {
        await world.stop();
      }
    });

    test("a leader is frozen, another takes over, and the frozen one comes back: nothing is lost, nothing goes backwards", async () => {
      const world = await startWorld({ replicas: 2 });
      try {
        const { bad, good } = await world.pair();
        const roles = () => Promise.all(world.issuers.map(async (_, place) => (await request(`${world.at(place)}/ready`)).body.checks.publisher.role));
        assert.ok(await until(async () => (await roles()).sort().join() === "follower,leader", { timeoutMs: 10_000 }), "one leads, one follows");
        const leader = (await roles()).indexOf("leader");
        const other = 1 - leader;
        const watching = guard(world, { bad, good });
        /** Positions, as the hub takes them. */
        const taken = [];
        const heads = [];
        world.line.handle = async (exchange) => {
          const answer = await exchange.forward();
          if (isHead(exchange) && answer.status === 200) {
            const { epoch, seq } = claimsOf(exchange.body.toString());
            taken.push([Number(epoch), seq]);
            heads.push(exchange.body.toString());
          }
          return answer;
        };
        const frozen = world.issuers[leader].process.process;
        const [before, meanwhile, afterwards] = await Promise.all([0, 1, 2].map(() => world.token({}, other)));
        await world.revoke(before, leader);
        assert.ok(await until(async () => heads.length > 0, { timeoutMs: 5_000 }));
        frozen.kill("SIGSTOP");
        const late = heads.at(-1);
        try {
          // Postgres finds out that it is gone, as it does by keepalives when a host vanishes.
          await query(world.superuserUrl, `select pg_terminate_backend(pid) from pg_locks
            where locktype = 'advisory' and granted and database = (select oid from pg_database where datname = current_database())
            and ((classid::bigint << 32) | objid::bigint) = hashtextextended('countersign publisher', 0)`);
          await world.revoke(meanwhile, other);
          await world.refuses([before, meanwhile]);
          assert.equal((await put(world, late)).status, 409, "what the frozen one had sent, arriving only now");
        } finally {
          frozen.kill("SIGCONT");
        }
        assert.ok(await until(async () => (await roles())[leader] === "follower", { timeoutMs: 10_000 }), "it follows now");
        assert.equal((await roles())[other], "leader");
        await world.revoke(afterwards, leader);
        await world.refuses(afterwards);
        const sorted = [...taken].sort(([a, b], [c, d]) => a - c || b - d);
        assert.deepEqual(taken, sorted, "the hub never went back");
        await unharmed(watching);
      } finally {
        await world.stop();
      }
    });
  });
});

/** One command to the Redis of these tests; its answer's first line. */
async function redis(...command) {
  const { hostname, port, password } = new URL(testServer("TEST_REDIS_URL"));
  const encode = (words) => `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`;
  const socket = net.connect({ host: hostname, port: Number(port) });
  let answer = "";
  socket.on("data", (data) => (answer += data));
  socket.write([["AUTH", password], ["SELECT", "11"], command].map(encode).join(""));
  const lines = await until(async () => answer.split("\r\n").length > 3 && answer.split("\r\n"), { timeoutMs: 5_000, everyMs: 5 });
  socket.destroy();
  assert.ok(lines, "Redis doesn't answer");
  return lines[2];
}
