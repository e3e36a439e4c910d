// The outage table: each part of a real system is cut under load, and what was promised for that (docs/operations/outages.md) is looked at meanwhile and
// afterwards. Prints the table; OUTAGES_TABLE=FILE writes it into that page, between its marks.
//
// OUTAGES=full: as long as the promises are about (Postgres away for 30 s, issuers for 40 s); else shorter.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { query } from "../lib/database.mjs";
import { requireFakeTime } from "../lib/faketime.mjs";
import { basic, request, until } from "../lib/http.mjs";
import { startLine } from "../lib/line.mjs";
import { findServer, startPostgres } from "../lib/postgres.mjs";
import { Processes } from "../lib/processes.mjs";
import { requireRedis, startRedis } from "../lib/redis.mjs";
import { startSystem } from "../lib/testing.mjs";

const FULL = process.env.OUTAGES === "full";
/** How old an edge's knowledge may be before it answers 503 (edge-verifier/entry/revocations.ts). */
const USABLE_MS = 30_000;
/** A request is answered within that (issuer/src/http/bounds.rs), and some for the machine. */
const ANSWERED_MS = 5_000 + 2_500;
/** How soon everything works again after a fault has ended. */
const RECOVERED_MS = 20_000;
/** Requests that an issuer takes at once, here: a debug build does some dozens a second. And clients that ask for more. */
const AT_ONCE = 64;
const FLOOD = 300;
/** Of the disk on which Postgres is. */
const DISK_MB = 420;

/** @type {{what: string, seconds: string, load: string, slowest: string, refused: number, lost: number, recovery: string, seen: string}[]} */
const rows = [];
/** The system, its parts, and a client. @type {any} */
let world;

/** What is to be undone at the end, the last first, also where not all of it was started. @type {(() => unknown)[]} */
const undo = [];

async function startWorld() {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "countersign-outages-"));
  fs.chmodSync(dir, 0o755);
  undo.push(() => fs.rmSync(dir, { recursive: true, force: true }));
  const processes = new Processes(dir);
  const disk = mountDisk(path.join(dir, "disk"));
  undo.push(disk.unmount, () => processes.stopAll());
  const server = await findServer();
  const redisProgram = await requireRedis({ log: path.join(dir, "redis-install.log") });
  const postgresOptions = { dir: disk.folder, server, durable: true };
  let postgres = await startPostgres(processes, postgresOptions);
  const redis = await startRedis(processes, { dir, program: redisProgram });
  const [database, cache] = [await startLine(Number(new URL(postgres.url).port)), await startLine(Number(new URL(redis.url).port))];
  undo.push(database.close, cache.close);
  const through = (url, line) => Object.assign(new URL(url), { port: String(line.port) }).href;
  process.env.TEST_DATABASE_URL = through(postgres.url, database);
  process.env.TEST_REDIS_URL = through(redis.url, cache);
  const system = await startSystem({
    redis: true, replicas: 2, proxied: true,
    issuer: { TOKEN_SIGNING_ALGORITHM: "EdDSA", MAX_CONNECTIONS: "20000", LOG_FORMAT: "json", LOCKOUT_ATTEMPTS: "10000", MAX_REQUESTS: String(AT_ONCE) },
  });
  undo.push(system.stop);
  const name = new URL(system.superuserUrl).pathname;
  return {
    ...system,
    processes, disk, database, cache, redis, dir,
    /** As a superuser, by no proxy. */
    sql: (text, options) => query(Object.assign(new URL(postgres.url), { pathname: name }).href, text, options),
    postgres: () => postgres,
    async restartPostgres() {
      await processes.stop(postgres.child);
      postgres = await startPostgres(processes, postgresOptions);
      database.redirect(Number(new URL(postgres.url).port));
    },
    /** Where issuer `n` is reached, by no balancer. */
    at: (n) => `http://127.0.0.1:${system.issuers[n].settings.port}`,
    log: (n) => fs.readFileSync(system.issuers[n].process.log, "utf8"),
  };
}

/** A small disk for Postgres, where one can be had: in memory, which takes the right to mount. */
function mountDisk(folder) {
  fs.mkdirSync(folder, { mode: 0o755 });
  const mounted = process.platform === "linux" && spawnSync("mount", ["-t", "tmpfs", "-o", `size=${DISK_MB}m,mode=0755`, "tmpfs", folder]);
  const why = !mounted ? "not Linux" : mounted.status === 0 ? undefined : String(mounted.stderr).trim() || "no right to mount";
  return { folder, why, unmount: () => (why === undefined ? spawnSync("umount", ["-l", folder]) : undefined) };
}

before(async () => {
  world = await startWorld();
  world.client = await newClient();
});
after(async () => {
  const failures = [];
  for (const step of undo.reverse()) {
    try {
      await step();
    } catch (error) {
      failures.push(error);
    }
  }
  const table = report();
  console.log(`\n${table}`);
  const file = process.env.OUTAGES_TABLE;
  if (file && rows.length > 0) {
    const page = fs.readFileSync(file, "utf8");
    fs.writeFileSync(file, page.replace(/(<!-- table -->\n)[\s\S]*?(<!-- end of the table -->)/, (_, begin, end) => `${begin}\n${table}\n${end}`));
  }
  if (failures.length > 0) throw new AggregateError(failures, "not all could be undone");
});

function report() {
  const line = (cells) => `| ${cells.join(" | ")} |\n`;
  return [
    line(["what was cut", "for", "requests meanwhile, by status", "slowest answer", "valid tokens refused", "revocations lost", "all well again after", "what else was seen"]),
    "|---|---|---|---|---|---|---|---|\n",
    ...rows.map((row) => line([row.what, row.seconds, row.load, row.slowest, row.refused, row.lost, row.recovery, row.seen])),
  ].join("");
}

async function newClient() {
  const authorization = `Bearer ${await issue(0, world.admin, { resource: world.issuer.url })}`;
  const agent = await request(`${world.at(0)}/api/v1/agents`, {
    headers: { authorization },
    json: { email: "outages@agents.example", agent_type: "router", version: "1.0.0", owner: "tests", deployment_env: "development", scopes: ["orders:read"] },
  });
  assert.equal(agent.status, 201, agent.text);
  const credential = await request(`${world.at(0)}/api/v1/agents/${agent.body.agent_id}/credentials`, { headers: { authorization }, json: {} });
  assert.equal(credential.status, 201, credential.text);
  return { clientId: credential.body.client_id, clientSecret: credential.body.client_secret, agent: agent.body.agent_id };
}

async function issue(place, client, form = {}) {
  const answer = await request(`${world.at(place)}/oauth2/v1/token`, { headers: basic(client.clientId, client.clientSecret), form: { grant_type: "client_credentials", ...form } });
  assert.equal(answer.status, 200, answer.text);
  return answer.body.access_token;
}

const claims = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString());
const seconds = (ms) => (ms < 950 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

/**
 * Everybody who goes on asking: both issuers for tokens, introspection, revocation, management and keys, and the edge. Notes who got what, and every answer
 * that was wrong.
 */
class Load {
  /** @type {Map<string, Map<string, number>>} */
  statuses = new Map();
  slowest = 0;
  /** Valid tokens that somebody said don't hold: 401 of the edge, `active: false`. */
  refused = 0;
  /** Tokens that were accepted after their revocation was known where they were asked about. */
  lost = 0;
  /** Answers of 503 without Retry-After. */
  mute = 0;
  /** Revoked with success: each must be refused in the end. @type {{token: string, at: number}[]} */
  revoked = [];
  stopped = false;

  constructor({ good, bad, management, kinds, issuers = [0, 1] }) {
    this.good = good;
    this.bad = bad;
    const all = {
      token: (place) => this.token(place), introspect: (place) => this.introspect(place), revoke: (place) => this.revoke(place),
      manage: (place) => this.manage(place, management), keys: (place) => this.get("keys", `${world.at(place)}/.well-known/jwks.json`), edge: () => this.edge(),
    };
    /** @type {Promise<void>[]} */
    this.workers = Object.entries(all).filter(([kind]) => !kinds || kinds.includes(kind)).flatMap(([kind, work]) =>
      (kind === "edge" ? [0] : issuers).map(async (place) => {
        while (!this.stopped) {
          await work(place);
          await sleep(kind === "revoke" || kind === "manage" ? 150 : 25);
        }
      }));
  }

  async get(kind, url, options = {}) {
    const began = performance.now();
    const answer = await request(url, { timeoutMs: 15_000, ...options }).catch((error) => ({
      status: error.name === "TimeoutError" ? "no answer" : "no connection", headers: new Headers(), text: "", body: undefined,
    }));
    if (this.stopped) return answer;
    this.slowest = Math.max(this.slowest, performance.now() - began);
    const of = this.statuses.get(kind) ?? new Map();
    this.statuses.set(kind, of.set(String(answer.status), (of.get(String(answer.status)) ?? 0) + 1));
    if (answer.status === 503 && kind !== "edge" && !answer.headers.has("retry-after")) this.mute += 1;
    return answer;
  }

  ask(kind, endpoint, place, form) {
    const { clientId, clientSecret } = world.client;
    return this.get(kind, `${world.at(place)}/oauth2/v1/${endpoint}`, { headers: basic(clientId, clientSecret), form });
  }

  token(place) {
    return this.ask("token", "token", place, { grant_type: "client_credentials" });
  }

  async introspect(place) {
    const good = await this.ask("introspect", "introspect", place, { token: this.good });
    if (good.status === 200 && good.body.active !== true) this.refused += 1;
    const bad = await this.ask("introspect", "introspect", place, { token: this.bad });
    if (bad.status === 200 && bad.body.active !== false) this.lost += 1;
  }

  async revoke(place) {
    const made = await this.token(place);
    if (made.status !== 200) return;
    const token = made.body.access_token;
    const answer = await this.ask("revoke", "revoke", place, { token });
    if (answer.status === 200) this.revoked.push({ token, at: performance.now() });
  }

  manage(place, management) {
    return this.get("manage", `${world.at(place)}/api/v1/agents/${world.client.agent}`, { headers: { authorization: `Bearer ${management}` } });
  }

  async edge() {
    const call = (token) => this.get("edge", `${world.edge.url}/orders/1`, { headers: { authorization: `Bearer ${token}` } });
    if ((await call(this.good)).status === 401) this.refused += 1;
    const bad = await this.get("edge (revoked)", `${world.edge.url}/orders/1`, { headers: { authorization: `Bearer ${this.bad}` } });
    if (bad.status === 200) this.lost += 1;
  }

  async stop() {
    this.stopped = true;
    await Promise.all(this.workers);
  }

  of(kind) {
    return Object.fromEntries(this.statuses.get(kind) ?? []);
  }

  said() {
    return [...this.statuses].map(([kind, counts]) => `${kind} ${[...counts].map(([status, count]) => `${status}×${count}`).join(" ")}`).join("; ");
  }
}

/** Whether every way in works: at both issuers and the edge. */
async function allWell(good) {
  const { clientId, clientSecret } = world.client;
  const auth = basic(clientId, clientSecret);
  for (const place of [0, 1]) {
    const answers = await Promise.all([
      request(`${world.at(place)}/oauth2/v1/token`, { headers: auth, form: { grant_type: "client_credentials" } }),
      request(`${world.at(place)}/oauth2/v1/introspect`, { headers: auth, form: { token: good } }),
      request(`${world.at(place)}/ready`),
    ]);
    if (answers.some(({ status }) => status !== 200) || answers[1].body.active !== true) return false;
  }
  return (await request(`${world.edge.url}/orders/1`, { headers: { authorization: `Bearer ${good}` } })).status === 200;
}

/** That each of these is refused everywhere, in good time. How many aren't. */
async function notEnforced(revoked) {
  let lost = 0;
  for (const { token } of revoked) {
    const introspected = await request(`${world.at(1)}/oauth2/v1/introspect`, { headers: basic(world.client.clientId, world.client.clientSecret), form: { token } });
    const refused = await until(async () => (await request(`${world.edge.url}/orders/1`, { headers: { authorization: `Bearer ${token}` } })).status === 401, { timeoutMs: 10_000 });
    if (introspected.body?.active !== false || !refused) lost += 1;
  }
  return lost;
}

/**
 * One row: `cut` begins the fault, `mend` ends it, `during` looks at what is promised meanwhile; gives what else is to be said.
 * @param {string} what
 * @param {{ms: number, cut: () => unknown, mend: () => unknown, kinds?: string[], issuers?: number[], during?: (load: Load) => Promise<void>, seen?: (load: Load) => unknown, slowestMs?: number}} options
 */
async function outage(what, { ms, cut, mend, kinds, issuers, during = async () => {}, seen = () => "", slowestMs = ANSWERED_MS }) {
  const [good, bad] = [await issue(1, world.client), await issue(1, world.client)];
  const management = await issue(1, world.admin, { resource: world.issuer.url });
  const revocation = await request(`${world.at(1)}/oauth2/v1/revoke`, { headers: basic(world.client.clientId, world.client.clientSecret), form: { token: bad } });
  assert.equal(revocation.status, 200);
  assert.equal(await notEnforced([{ token: bad }]), 0, "before it all is well");
  assert.ok(await until(() => allWell(good), { timeoutMs: RECOVERED_MS }), "before it all is well");
  /** @type {Load | undefined} */
  let running;
  let mended;
  const began = performance.now();
  const go = async () => {
    try {
      await cut();
      running = new Load({ good, bad, management, kinds, issuers });
      await Promise.all([sleep(ms), during(running)]);
      return running;
    } finally {
      mended = performance.now();
      await mend();
    }
  };
  const look = async () => {
    const load = await go();
    const [statuses, slowest] = [load.said(), load.slowest];
    const well = await until(() => allWell(good), { timeoutMs: RECOVERED_MS, everyMs: 20 });
    return { load, statuses, slowest, well, recovery: performance.now() - mended };
  };
  // Whatever comes of it, nobody goes on asking in the tests that follow.
  const { load, statuses, slowest, well, recovery } = await look().finally(() => running?.stop());
  const lasted = mended - began;
  const lost = load.lost + (await notEnforced(load.revoked));
  rows.push({ what, seconds: seconds(lasted), load: statuses, slowest: seconds(slowest), refused: load.refused, lost, recovery: seconds(recovery), seen: String((await seen(load)) ?? "") });
  console.log(`${what}: ${JSON.stringify(rows.at(-1))}`);
  assert.ok(well, `${what}: not well after ${RECOVERED_MS} ms`);
  assert.equal(load.refused, 0, "valid tokens that were said not to hold");
  assert.equal(lost, 0, "revocations that were lost");
  assert.equal(load.mute, 0, "503 without Retry-After");
  assert.ok(slowest < slowestMs, `the slowest answer took ${slowest} ms`);
  return load;
}

const only = (load, kind, ...statuses) => {
  const others = Object.keys(load.of(kind)).filter((status) => !statuses.includes(status));
  assert.deepEqual(others, [], `${kind}: ${JSON.stringify(load.of(kind))}`);
  assert.ok(Object.keys(load.of(kind)).length > 0, `nobody asked for ${kind}`);
};
const edgeStatuses = (ms) => (ms + 2_000 < USABLE_MS ? ["200"] : ["200", "503"]);
const errors = (n) => world.log(n).split("\n").filter((row) => row.includes('"level":"ERROR"'));

test("Postgres is gone", { timeout: 180_000 }, async () => {
  const ms = FULL ? 30_000 : 12_000;
  const before = world.log(0).length;
  const load = await outage("Postgres gone (connections cut)", {
    ms,
    cut: () => world.database.set("cut"),
    mend: () => world.database.set("open"),
    seen: () => {
      const said = (text) => (world.log(0).slice(before).match(new RegExp(text, "g")) ?? []).length;
      const lines = said("starts over");
      assert.ok(lines <= 3 * (2 + Math.log2(ms / 10_000 + 1)), `${lines} lines say that something starts over`);
      return `${lines} lines in the log of one issuer say “starts over”`;
    },
  });
  assert.ok(Object.keys(load.of("token")).includes("503"));
  for (const kind of ["token", "introspect", "manage"]) only(load, kind, "200", "503");
  only(load, "keys", "200");
});

test("Postgres is silent", { timeout: 120_000 }, async () => {
  const load = await outage("Postgres silent (connections stay, nothing arrives)", {
    ms: 8_000, cut: () => world.database.set("silent"), mend: () => world.database.set("open"), slowestMs: 10_000,
  });
  only(load, "keys", "200");
});

test("Redis is gone", { timeout: 120_000 }, async () => {
  const load = await outage("Redis gone", { ms: 5_000, cut: () => world.cache.set("cut"), mend: () => world.cache.set("open"), slowestMs: 3_000 });
  for (const kind of ["token", "introspect", "revoke", "manage", "keys", "edge"]) only(load, kind, "200");
});

test("Redis is flushed", { timeout: 120_000 }, async () => {
  const load = await outage("Redis flushed, every 200 ms", {
    ms: 3_000, cut: () => {}, mend: () => {},
    during: async () => {
      for (let n = 0; n < 15; n++) {
        await flush();
        await sleep(200);
      }
    },
    slowestMs: 3_000,
  });
  for (const kind of ["token", "introspect", "revoke", "manage", "keys", "edge"]) only(load, kind, "200");
});

test("Redis is slow", { timeout: 120_000 }, async () => {
  const load = await outage("Redis slow (each answer 1 s late)", {
    ms: 6_000, cut: () => world.cache.delay(500), mend: () => world.cache.delay(0), slowestMs: 3_000,
    seen: () => "nobody waits longer than 100 ms, and for it is asked once a second; limits are counted by each process meanwhile",
  });
  for (const kind of ["token", "introspect", "revoke", "manage", "keys", "edge"]) only(load, kind, "200");
});

function flush() {
  const { port, password } = new URL(world.redis.url);
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host: "127.0.0.1", port: Number(port) }, () => socket.write(`AUTH ${password}\r\nFLUSHALL\r\n`));
    let said = "";
    socket.on("data", (data) => {
      said += data;
      if (said.split("\r\n").length > 2) socket.destroy();
    });
    socket.on("error", reject);
    socket.on("close", () => (said.startsWith("+OK\r\n+OK") ? resolve(undefined) : reject(new Error(said))));
  });
}

test("one issuer of two is killed", { timeout: 120_000 }, async () => {
  const load = await outage("one issuer of two killed", { ms: 5_000, issuers: [1], cut: () => world.issuers[0].kill(), mend: () => world.issuers[0].start() });
  for (const kind of ["token", "introspect", "revoke", "manage", "keys", "edge"]) only(load, kind, "200");
});

test("all issuers are killed", { timeout: 180_000 }, async () => {
  const ms = FULL ? 40_000 : 8_000;
  const load = await outage("all issuers killed", {
    ms, kinds: ["edge"],
    cut: () => Promise.all(world.issuers.map((issuer) => issuer.kill())),
    mend: () => Promise.all(world.issuers.map((issuer) => issuer.start())),
  });
  only(load, "edge", ...edgeStatuses(ms));
  only(load, "edge (revoked)", ...edgeStatuses(ms).map((status) => (status === "200" ? "401" : status)), "401");
});

test("hub and KV are gone", { timeout: 180_000 }, async () => {
  const ms = FULL ? 40_000 : 8_000;
  const pass = (exchange) => exchange.forward();
  const load = await outage("hub and KV gone for the issuers", {
    ms,
    cut: () => void (world.line.handle = async () => undefined),
    mend: () => void (world.line.handle = pass),
    seen: (running) => `${running.revoked.length} tokens were revoked meanwhile`,
  });
  for (const kind of ["token", "introspect", "revoke", "manage", "keys"]) only(load, kind, "200");
  only(load, "edge", ...edgeStatuses(ms));
});

test("the database's connections are exhausted", { timeout: 120_000 }, async () => {
  let holding;
  const load = await outage("the pools' connections all wait for a lock", {
    ms: 8_000,
    cut: async () => {
      const { default: pg } = await import("pg");
      const url = Object.assign(new URL(world.postgres().url), { pathname: new URL(world.superuserUrl).pathname });
      holding = new pg.Client({ connectionString: url.href });
      await holding.connect();
      await holding.query("begin; lock table audit_queue in access exclusive mode; lock table revocations in access exclusive mode");
    },
    mend: () => holding.end(),
    slowestMs: 10_000,
  });
  only(load, "keys", "200");
  only(load, "edge", "200");
  assert.ok(Object.keys(load.of("token")).every((status) => ["200", "503"].includes(status)), JSON.stringify(load.of("token")));
});

test("more requests than can be taken", { timeout: 120_000 }, async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: FLOOD });
  const shed = { 200: 0, 503: 0, other: 0, codes: new Set() };
  const accepted = [];
  let going = true;
  const { clientId, clientSecret } = world.client;
  const headers = { ...basic(clientId, clientSecret), "content-type": "application/x-www-form-urlencoded" };
  const one = () => new Promise((/** @type {(_: void) => void} */ resolve) => {
    const began = performance.now();
    const sent = http.request(`${world.at(0)}/oauth2/v1/token`, { method: "POST", agent, headers }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (data) => (body += data)).on("end", () => {
        if (response.statusCode === 200) accepted.push(performance.now() - began);
        else shed.codes.add(JSON.parse(body).code);
        shed[response.statusCode] === undefined ? (shed.other += 1) : (shed[response.statusCode] += 1);
        resolve();
      });
    });
    sent.on("error", () => ((shed.other += 1), resolve()));
    sent.end("grant_type=client_credentials");
  });
  let workers;
  // The other issuer has its own work; what stands in both is the database, whose share the flood has too.
  const load = await outage(`${FLOOD} clients at one issuer that takes ${AT_ONCE} requests at once (\`MAX_REQUESTS\`)`, {
    ms: 6_000, issuers: [1], slowestMs: 10_000,
    cut: () => {
      workers = Array.from({ length: FLOOD }, async () => {
        while (going) await one();
      });
    },
    mend: async () => {
      going = false;
      await Promise.all(workers);
      agent.destroy();
    },
    seen: () => {
      accepted.sort((one, other) => one - other);
      const at = (part) => seconds(accepted[Math.floor(accepted.length * part)] ?? NaN);
      assert.ok(accepted.at(-1) < 5_000, `one that was taken had to wait for ${accepted.at(-1)} ms`);
      return `of the flood 200×${shed[200]}, 503×${shed[503]}; those that were taken: p50 ${at(0.5)}, p99 ${at(0.99)}`;
    },
  });
  assert.ok(shed[503] > 0 && shed[200] > 0, JSON.stringify(shed));
  assert.deepEqual([...shed.codes], ["OVERLOADED"]);
  assert.equal(shed.other, 0);
  only(load, "keys", "200");
});

test("slow clients", { timeout: 120_000 }, async () => {
  const sockets = [];
  let closed = 0;
  let closedByIssuer = 0;
  const drip = (first, then, everyMs) => {
    const socket = net.connect(Number(world.issuers[0].settings.port), "127.0.0.1", () => socket.write(first));
    const timer = setInterval(() => socket.write(then), everyMs);
    socket.on("error", () => {}).on("close", () => ((closed += 1), clearInterval(timer)));
    sockets.push(socket);
    return socket;
  };
  const head = "POST /oauth2/v1/token HTTP/1.1\r\nhost: x\r\n";
  const load = await outage("200 clients that send head or body byte by byte, 100 that take no answer", {
    ms: 18_000,
    cut: () => {
      for (let n = 0; n < 100; n++) {
        drip(head, "x-a: b\r\n", 1_000).resume();
        drip(`${head}content-type: application/x-www-form-urlencoded\r\ncontent-length: 60000\r\n\r\n`, "a", 500).resume();
        drip("GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(50), "", 60_000).pause();
      }
    },
    mend: () => {
      closedByIssuer = closed;
      sockets.forEach((socket) => socket.destroy());
    },
    seen: () => {
      assert.ok(closedByIssuer >= 190, `only ${closedByIssuer} of 200 were closed within 18 s`);
      return `the issuer closed ${closedByIssuer} of the 300 by itself within 18 s`;
    },
    slowestMs: 5_000,
  });
  for (const kind of ["token", "introspect", "revoke", "manage", "keys", "edge"]) only(load, kind, "200");
});

test("10,000 idle connections", { timeout: 120_000 }, async () => {
  const soft = Number(/Max open files\s+(\d+)/.exec(fs.readFileSync("/proc/self/limits", "utf8"))?.[1] ?? 1024);
  const count = Math.max(100, Math.min(10_000, soft - 1_500));
  const resident = () => Number(/^VmRSS:\s+(\d+) kB/m.exec(fs.readFileSync(`/proc/${world.issuers[0].process.pid}/status`, "utf8"))?.[1]);
  const sockets = [];
  let [before, during, open] = [0, 0, 0];
  const files = () => fs.readdirSync(`/proc/${world.issuers[0].process.pid}/fd`).length;
  const load = await outage(`${count.toLocaleString("en")} idle connections`, {
    ms: 9_000,
    cut: async () => {
      [before, open] = [resident(), files()];
      for (let n = 0; n < count; n += 500) {
        await Promise.all(Array.from({ length: Math.min(500, count - n) }, () => new Promise((resolve, reject) => {
          const socket = net.connect(Number(world.issuers[0].settings.port), "127.0.0.1", () => resolve(undefined));
          socket.on("error", reject);
          sockets.push(socket);
        })));
      }
      await sleep(500);
      [during, open] = [resident(), files() - open];
    },
    mend: () => sockets.forEach((socket) => socket.removeAllListeners("error").on("error", () => {}).destroy()),
    slowestMs: 5_000,
    seen: () => {
      // Who says nothing is sent away after 15 s: on a busy machine the first have gone when the last have come.
      assert.ok(open > count / 2, `only ${open} were open together`);
      const each = (during - before) / open;
      assert.ok(each < 64, `${each} KiB for a connection`);
      return `${open.toLocaleString("en")} open at once; ${each.toFixed(1)} KiB of the issuer's memory for each`;
    },
  });
  for (const kind of ["token", "introspect", "revoke", "manage", "keys", "edge"]) only(load, kind, "200");
});

for (const [direction, step] of /** @type {const} */ ([["ahead", 120], ["behind", -120]])) {
  test(`an issuer's clock steps ${direction}`, { timeout: 120_000 }, async () => {
    const library = await requireFakeTime({ log: path.join(world.dir, "faketime-install.log") });
    const file = path.join(world.dir, `clock-${direction}`);
    fs.writeFileSync(file, "+0\n");
    const stepped = world.issuers[0];
    const more = stepped.settings.more;
    const again = async () => {
      await stepped.stop();
      await stepped.start();
    };
    stepped.settings.more = { ...more, LD_PRELOAD: library, FAKETIME_TIMESTAMP_FILE: file, FAKETIME_NO_CACHE: "1", DONT_FAKE_MONOTONIC: "1", FAKETIME_DONT_FAKE_MONOTONIC: "1" };
    try {
      await again();
      const issued = [];
      let ready;
      const load = await outage(`an issuer's clock steps 2 min ${direction}`, {
        ms: 8_000,
        cut: () => fs.writeFileSync(file, `${step > 0 ? "+" : ""}${step}\n`),
        mend: () => fs.writeFileSync(file, "+0\n"),
        during: async () => {
          await sleep(1_500);
          ready = (await request(`${world.at(0)}/ready`)).status;
          for (let n = 0; n < 5; n++) {
            const answer = await request(`${world.at(0)}/oauth2/v1/token`, { headers: basic(world.client.clientId, world.client.clientSecret), form: { grant_type: "client_credentials" } });
            if (answer.status === 200) issued.push(Math.round(claims(answer.body.access_token).iat - Date.now() / 1000));
            await sleep(500);
          }
        },
        seen: () => {
          assert.equal(ready, 503);
          return "it answers 503 and isn't ready; the other goes on";
        },
      });
      assert.deepEqual(issued, [], "no token by a wrong clock");
      only(load, "keys", "200");
    } finally {
      stepped.settings.more = more;
      await again();
    }
  });
}

// Last: what it leaves of Postgres is a server that was started anew.
test("the disk of Postgres is full", { timeout: 180_000 }, async (context) => {
  if (world.disk.why !== undefined) {
    rows.push({ what: "disk full for Postgres", seconds: "–", load: `not run here: ${world.disk.why}`, slowest: "–", refused: 0, lost: 0, recovery: "–", seen: "" });
    return context.diagnostic(`not run: no small disk can be mounted here (${world.disk.why})`);
  }
  const ballast = path.join(world.disk.folder, "ballast");
  let died = false;
  const load = await outage("disk full for Postgres", {
    ms: FULL ? 20_000 : 10_000,
    cut: async () => {
      const { bavail, bsize } = fs.statfsSync(world.disk.folder);
      fs.writeFileSync(ballast, "");
      // All there is, to the last block.
      const block = Buffer.alloc(1 << 16);
      const file = fs.openSync(ballast, "a");
      try {
        for (let left = bavail * bsize; left >= 0; left -= block.length) fs.writeSync(file, block);
      } catch (error) {
        assert.equal(error.code, "ENOSPC");
      } finally {
        fs.closeSync(file);
      }
      // A new segment of the write-ahead log is what Postgres stumbles over.
      await world.sql("select pg_switch_wal()").catch(() => undefined);
    },
    mend: async () => {
      fs.rmSync(ballast);
      died = world.postgres().child.ended !== undefined;
      if (died) await world.restartPostgres();
    },
    seen: () => `Postgres ${died ? "gave up, and was started again when there was room" : "went on by itself when there was room"}`,
    slowestMs: 10_000,
  });
  only(load, "keys", "200");
  only(load, "edge", "200");
  assert.ok(Object.keys(load.of("token")).includes("503"), JSON.stringify(load.of("token")));
  assert.ok(!Object.keys(load.of("token")).includes("500"), errors(0).at(-1));
});
