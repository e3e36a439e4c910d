// bin/bench revocation, end to end: from a revocation's commit to where the edge refuses the token, and how many a second get there. The whole local
// system as it would be released: two issuers on one Postgres and Redis, wrangler dev with hub and KV, an upstream. One issuer answers and seals the audit
// log, the other only publishes, so that what publishing costs can be seen.

import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { createDatabase, query } from "../database.mjs";
import { edgeReady, startWranglerDev } from "../edge.mjs";
import { basic, request, until } from "../http.mjs";
import { bootstrap, issuerEnv, issuerUrl, KV_NAMESPACE_ID, migrate, revocationKeys, startIssuer } from "../issuer.mjs";
import { Problem, task } from "../output.mjs";
import { root } from "../paths.mjs";
import { freePort } from "../ports.mjs";
import { startPostgres } from "../postgres.mjs";
import { run as runCommand } from "../processes.mjs";
import { startProxy } from "../proxy.mjs";
import { requireRedis, startRedis } from "../redis.mjs";
import { cargo, targetDir } from "../rust.mjs";
import { setUpEdge, setUpPostgres } from "../setup.mjs";
import { AUDIENCE, testIssuerSettings } from "../testing.mjs";
import { cpuMicros, median, quantile } from "./load.mjs";

/** Of `jtis` in one request (issuer/src/tokens/revoke.rs). */
const BATCH = 1_000;
/** Serials for each revocation: one in ten is revoked. */
const ONE_IN = 10;
/** Who revokes one token after the other. */
const REVOKERS = 4;
/** What else goes on meanwhile, a second. */
const LOAD = { tokens: 20, verifications: 100 };
/** Beside so many of a flood goes one token that was really issued, to be tried at the edge. */
const PROBES_A_BATCH = 7;
/** Requests of a flood under way at once. */
const AT_ONCE = 4;
/** So much faster than what is to be sustained it is sent, so that its last answer's delay doesn't count against it. */
const HEADROOM = 1.05;
/** How long after the last answer everything may take to be at the edge. */
const DRAIN_MS = 60_000;

const TARGETS = { median: 250, p99: 1_000, worst: 5_000 };

/**
 * @param {{processes: import("../processes.mjs").Processes, dir: string, revocations: number, rate: number, seconds: number}} options
 *   `revocations` one by one; `rate` a second for so many `seconds`, all at once
 * @returns {Promise<{rows: import("../bench.mjs").Row[], versions: Record<string, string>, notes: string[]}>}
 */
export async function run({ processes, dir, revocations, rate, seconds }) {
  await setUpEdge();
  await task("issuer, as released", async (progress) => {
    const args = ["build", "--release", "-p", "countersign-issuer", "--bin", "countersign", "--example", "revocation-load"];
    const { compiled } = await cargo(args, { log: path.join(dir, "build-issuer.log"), failure: "the issuer doesn't compile", progress });
    return { result: compiled ? `compiled (${compiled} crates)` : "up to date" };
  });
  const server = await setUpPostgres();
  const postgres = await startPostgres(processes, { dir, server, durable: true });
  const redis = await startRedis(processes, { dir, program: await requireRedis({ log: path.join(dir, "redis-install.log") }) });
  // A run that was ended half-way left its own behind.
  for (const [name] of await query(postgres.url, "select datname from pg_database where datname like 'revocation\\_%'")) {
    await query(postgres.url, `drop database ${name} with (force)`);
  }
  const database = await createDatabase(postgres.url, "revocation");
  const state = path.join(dir, "end-to-end");
  fs.rmSync(state, { recursive: true, force: true });
  const system = { database, state, postgres, closing: /** @type {(() => Promise<unknown>)[]} */ ([]) };
  try {
    const world = await start({ processes, dir, system, redis });
    const single = await oneByOne({ world, revocations });
    const flood = await allAtOnce({ world, rate, seconds });
    const notes = [
      `end to end: release builds, Postgres with fsync, wrangler dev; the load is ${LOAD.tokens} tokens issued and ${LOAD.verifications} verified at the edge a second, from this process; every answer of it was right`,
      `one by one: ${REVOKERS} at once, each by POST /oauth2/v1/revoke, with pauses of up to 200 ms; then the token is asked about without pause. What is measured ends with the answer that refuses it`,
      `all at once: POST /api/v1/revocations, ${BATCH} jtis a request, one token in ${ONE_IN} of ${(flood.ids * ONE_IN).toLocaleString("en")} revoked in random order; ${flood.probes} of them were issued as tokens, the other jtis are of leased serials`,
    ];
    return { rows: [...single, ...flood.rows], versions: { postgres: server.version, node: process.versions.node }, notes };
  } finally {
    for (const close of system.closing.reverse()) await close();
    for (const child of [...processes.children].reverse()) await processes.stop(child);
    fs.rmSync(state, { recursive: true, force: true });
  }
}

/** Starts everything. */
async function start({ processes, dir, system, redis }) {
  const { database, state } = system;
  const edgePort = await freePort();
  const edgeUrl = `http://127.0.0.1:${edgePort}`;
  // What the hub has taken, to be looked at in the end.
  const hub = await startProxy({ target: edgeUrl });
  system.closing.push(hub.close);
  const taken = { head: "", seq: 0 };
  hub.handle = async (exchange) => {
    const answer = await exchange.forward();
    if (exchange.path.endsWith("/head") && answer.status === 200) {
      taken.head = exchange.body.toString();
      taken.seq = JSON.parse(String(answer.body)).seq;
    }
    return answer;
  };
  const more = {
    RATE_LIMIT_PER_IP: "10000000", RATE_LIMIT_PER_CLIENT: "10000000", RATE_LIMIT_PER_TENANT: "10000000", LOG_LEVEL: "WARN",
    TOKEN_SIGNING_ALGORITHM: "EdDSA", TOKEN_LIFETIME_SECONDS: "3600", KV_API_BASE: `${edgeUrl}/cdn-cgi/local/explorer/api`,
  };
  const publishing = { ...(await testIssuerSettings({ databaseUrl: database.url, edgeUrl: hub.url, redisUrl: redis.url, more })), profile: "release" };
  // The one that answers publishes nothing.
  const answering = {
    ...publishing, port: await freePort(), adminAddress: `127.0.0.1:${await freePort()}`, issuerUrl: issuerUrl(publishing),
    more: { ...more, HUB_URL: "", HUB_PUSH_SECRET: "", KV_NAMESPACE_ID: "", KV_API_BASE: "" },
  };
  const { admin, keys } = await task("a fresh database", async () => {
    await migrate(publishing);
    const admin = await bootstrap(publishing, { dir: state, userDatabase: false });
    return { admin, keys: await revocationKeys(publishing), result: "bootstrapped" };
  });
  const upstreamPort = await freePort();
  processes.start("upstream", process.execPath, [path.join(root, "bin", "lib", "demo-upstream.mjs")], {
    env: { PATH: process.env.PATH, PORT: String(upstreamPort) },
  });
  const edge = startWranglerDev(processes, {
    port: edgePort, dir: state, persist: path.join(state, "edge"),
    settings: {
      ISSUER_URL: issuerUrl(publishing), AUDIENCE, UPSTREAM_URL: `http://127.0.0.1:${upstreamPort}`, REVOCATION_KEYS: keys,
      HUB_PUSH_SECRET: publishing.hubPushSecret,
    },
  });
  // The first to come seals the audit log.
  const issuer = await startIssuer(processes, answering, { name: "issuer-answering" });
  await sleep(1_500);
  const publisher = await startIssuer(processes, publishing, { name: "issuer-publishing" });
  await task("edge (wrangler dev)", async () => {
    await edgeReady(edgeUrl, { child: edge });
    return { result: edgeUrl };
  });
  const agent = new http.Agent({ keepAlive: true });
  system.closing.push(async () => agent.destroy());
  const world = {
    issuer: issuer.url, publisher: publisher.url, edge: edgeUrl, settings: publishing, admin, keys, taken, agent, dir, state, database,
    pids: { "issuer that answers": issuer.pid, "issuer that publishes": publisher.pid, Postgres: system.postgres.child.pid, edge: edge.pid },
  };
  return { ...world, client: await newClient(world), revoked: /** @type {string[]} */ ([]) };
}

/**
 * A request on a connection that is kept; its status and its body.
 * @param {http.Agent} agent
 * @param {string} url
 * @param {{method?: string, headers?: Record<string, string>, body?: string}} [options]
 */
function send(agent, url, { method = "GET", headers = {}, body = "" } = {}) {
  return new Promise((/** @type {(_: {status: number, text: string}) => void} */ resolve, reject) => {
    const sent = http.request(url, { method, agent, timeout: 15_000, headers: { ...headers, "content-length": Buffer.byteLength(body) } });
    sent.on("response", (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part) => (text += part)).on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode ?? 0, text }));
    });
    sent.on("timeout", () => sent.destroy(new Error("no answer in 15 s")));
    sent.on("error", reject);
    sent.end(body);
  });
}

async function newClient({ issuer, settings, admin, agent }) {
  const headers = { authorization: `Bearer ${await newToken({ issuer, agent, client: admin, resource: issuerUrl(settings) })}` };
  const made = await request(`${issuer}/api/v1/agents`, {
    headers, json: { email: "bench@agents.example", agent_type: "custom", version: "1", owner: "bench", deployment_env: "production", scopes: ["orders:read"] },
  });
  const credential = await request(`${issuer}/api/v1/agents/${made.body?.agent_id}/credentials`, { headers, json: {} });
  if (credential.status !== 201) throw new Problem(`a client couldn't be made: ${made.status} ${credential.status} ${credential.text}`);
  return { clientId: credential.body.client_id, clientSecret: credential.body.client_secret };
}

const FORM = { "content-type": "application/x-www-form-urlencoded" };

/** @param {{issuer: string, agent: http.Agent, client: {clientId: string, clientSecret: string}, resource?: string}} options */
async function newToken({ issuer, agent, client, resource }) {
  const body = String(new URLSearchParams({ grant_type: "client_credentials", ...(resource === undefined ? {} : { resource }) }));
  const { status, text } = await send(agent, `${issuer}/oauth2/v1/token`, { method: "POST", headers: { ...FORM, ...basic(client.clientId, client.clientSecret) }, body });
  if (status !== 200) throw new Problem(`no token: ${status} ${text}`);
  return JSON.parse(text).access_token;
}

const atTheEdge = async ({ agent, edge }, token) => (await send(agent, `${edge}/orders/42`, { headers: { authorization: `Bearer ${token}` } })).status;

const jtiOf = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString()).jti;

/** Tokens are issued and verified, so many a second, until `stop`; then what was answered otherwise than it should have been. */
function load(world) {
  const wrong = new Map();
  const done = { issued: 0, verified: 0 };
  /** @type {string[]} */
  const tokens = [];
  let stopped = false;
  const paced = async (rate, work) => {
    const began = performance.now();
    for (let n = 0; !stopped; n++) {
      await work().catch((error) => wrong.set(error.message, (wrong.get(error.message) ?? 0) + 1));
      await sleep(Math.max(0, began + ((n + 1) * 1000) / rate - performance.now()));
    }
  };
  const verify = async () => {
    const token = tokens.at(-1 - Math.floor(Math.random() * Math.min(tokens.length, 100)));
    if (token === undefined) return;
    const status = await atTheEdge(world, token);
    done.verified += 1;
    if (status !== 200) throw new Error(`a token that nobody revoked got ${status}`);
  };
  const running = [
    paced(LOAD.tokens, async () => void ((done.issued += 1), tokens.push(await newToken(world)), tokens.length > 500 && tokens.shift())),
    ...Array.from({ length: 4 }, () => paced(LOAD.verifications / 4, verify)),
  ];
  return {
    done,
    stop: async () => {
      stopped = true;
      await Promise.all(running);
      if (wrong.size > 0) throw new Problem(`under load: ${[...wrong].map(([what, count]) => `${what} × ${count}`).join(", ")}`);
    },
  };
}

/** Asks about a revoked token without pause; when the edge refused it, by `performance.now()`. */
async function refusedAt(world, token) {
  const limit = performance.now() + 30_000;
  for (;;) {
    const status = await atTheEdge(world, token);
    const now = performance.now();
    if (status === 401) return now;
    if (status !== 200) throw new Problem(`the edge answered ${status} about a revoked token`);
    if (now > limit) throw new Problem("a revoked token is still accepted after 30 s");
  }
}

async function oneByOne({ world, revocations }) {
  const { issuer, agent, client } = world;
  /** @type {number[]} */
  const fromAnswer = [];
  /** @type {number[]} */
  const fromRequest = [];
  await task(`${revocations.toLocaleString("en")} revocations under load`, async (progress) => {
    const background = load(world);
    let left = revocations;
    const revoker = async () => {
      while (left > 0) {
        left -= 1;
        const token = await newToken(world);
        if ((await atTheEdge(world, token)) !== 200) throw new Problem("the edge doesn't accept a fresh token");
        await sleep(Math.random() * 200);
        const asked = performance.now();
        const { status } = await send(agent, `${issuer}/oauth2/v1/revoke`, {
          method: "POST", headers: { ...FORM, ...basic(client.clientId, client.clientSecret) }, body: String(new URLSearchParams({ token })),
        });
        if (status !== 200) throw new Problem(`a revocation got ${status}`);
        const answered = performance.now();
        const refused = await refusedAt(world, token);
        fromAnswer.push(refused - answered);
        fromRequest.push(refused - asked);
        world.revoked.push(jtiOf(token));
        progress(`${fromAnswer.length}`);
      }
    };
    await Promise.all(Array.from({ length: REVOKERS }, revoker));
    await background.stop();
    return { result: `beside ${background.done.issued} tokens issued and ${background.done.verified} verified` };
  });
  const work = "revoked to refused, under load";
  const of = (values, from) => {
    const sorted = [...values].sort((a, b) => a - b);
    const spread = `of ${sorted.length}; quartiles ${quantile(sorted, 0.25).toFixed(1)}–${quantile(sorted, 0.75).toFixed(1)}`;
    return [
      timeRow(work, `${from}, median`, median(sorted), TARGETS.median, "<", spread),
      timeRow(work, `${from}, 99 of 100`, quantile(sorted, 0.99), TARGETS.p99, "<"),
      timeRow(work, `${from}, worst`, sorted.at(-1) ?? NaN, TARGETS.worst, "≤"),
    ];
  };
  return [...of(fromAnswer, "from the answer"), ...of(fromRequest, "from the request").map(({ target: _, met: __, ...row }) => row)];
}

/**
 * @param {string} work
 * @param {string} metric
 * @param {number} ms
 * @param {number} most
 * @param {"<" | "≤"} relation
 * @param {string} [spread]
 * @returns {import("../bench.mjs").Row}
 */
function timeRow(work, metric, ms, most, relation, spread) {
  const met = relation === "<" ? ms < most : ms <= most;
  return { work, metric, value: Number(ms.toPrecision(3)), unit: "ms", target: `${relation} ${most}`, met, ...(spread && { spread }) };
}

async function allAtOnce({ world, rate, seconds }) {
  const batches = Math.ceil((rate * HEADROOM * seconds) / BATCH);
  const { ids, probes, kept } = await task(`${(batches * BATCH).toLocaleString("en")} jtis to be revoked`, async () => {
    const probes = batches * PROBES_A_BATCH;
    const tokens = await issue(world, probes * 2);
    const ids = await helper(world, ["lease", world.admin.tenantId, String(batches * (BATCH - PROBES_A_BATCH)), String(ONE_IN)]);
    return { ids: ids.trim().split("\n"), probes: tokens.slice(0, probes), kept: tokens.slice(probes), result: `and ${probes} tokens that aren't` };
  });
  for (const token of [probes[0], kept[0]]) if ((await atTheEdge(world, token)) !== 200) throw new Problem("the edge doesn't accept a fresh token");

  const before = cpuOf(world);
  const watching = watch(world);
  const flood = await task(`${rate.toLocaleString("en")} revocations a second for ${seconds} s`, async (progress) => ({
    ...(await revokeAll({ world, ids, probes, batches, interval: (BATCH * 1000) / (rate * HEADROOM), progress })), result: "answered",
  }));
  const drained = await task("until the edge has all", async () => {
    const [[last]] = await query(world.database.superuserUrl, "select count(*) from revocation_outbox where shard is not null");
    const at = await until(async () => {
      const [[seq, waiting]] = await query(world.database.superuserUrl, "select (select max(seq) from revocation_outbox), (select count(*) from revocation_outbox where seq is null)");
      return waiting === "0" && world.taken.seq >= Number(seq) && performance.now();
    }, { timeoutMs: DRAIN_MS, everyMs: 20 });
    if (!at) throw new Problem(`after ${DRAIN_MS / 1000} s the edge hasn't got all`);
    return { at, last: Number(last), result: `${(at - flood.ended).toFixed(0)} ms after the last answer` };
  });
  const watched = await watching.stop();
  const cpu = cpuOf(world);
  const took = (drained.at - flood.began) / 1000;

  const counts = await task("every serial, in what the edge holds", async () => {
    const counts = await compare(world, [...world.revoked, ...ids, ...probes.map(jtiOf)]);
    return { ...counts, result: `${counts.asked.toLocaleString("en")} asked about` };
  });
  const wrong = await task("the tokens, at the edge", async () => {
    const accepted = await count(world, probes, (status) => status !== 401);
    const refused = await count(world, kept, (status) => status !== 200);
    return { accepted, refused, result: `${probes.length} revoked, ${kept.length} not` };
  });

  const work = `${(flood.revoked / 1000).toFixed(0)},000 revocations, 1,000 a request`;
  const inFlood = flood.times.sort((a, b) => a - b);
  /** @type {import("../bench.mjs").Row[]} */
  const rows = [
    { work, metric: "a second, from the first request to where the edge has the last", value: Math.round(flood.revoked / took), unit: "/s", target: `≥ ${rate}`, met: flood.revoked / took >= rate },
    { work, metric: "lost: revoked, and not in what the edge holds", value: counts.lost, unit: "", target: "≤ 0", met: counts.lost === 0 },
    { work, metric: "stray: in what the edge holds, and not revoked", value: counts.stray, unit: "", target: "≤ 0", met: counts.stray === 0 },
    { work, metric: `of ${probes.length} revoked tokens, accepted by the edge`, value: wrong.accepted, unit: "", target: "≤ 0", met: wrong.accepted === 0 },
    { work, metric: `of ${kept.length} others, refused by the edge`, value: wrong.refused, unit: "", target: "≤ 0", met: wrong.refused === 0 },
    { work, metric: "the edge has the last, after the last answer", value: Number((drained.at - flood.ended).toPrecision(3)), unit: "ms" },
    { work, metric: "answer to a request, median", value: Number(median(flood.answers).toPrecision(3)), unit: "ms", spread: `worst ${Math.max(...flood.answers).toFixed(0)}` },
    { work, metric: "answer to refused meanwhile, median", value: Number(median(inFlood).toPrecision(3)), unit: "ms", spread: `of ${inFlood.length}; 99 of 100 ${quantile(inFlood, 0.99).toFixed(0)}, worst ${inFlood.at(-1)?.toFixed(0)}` },
    { work, metric: "lag, worst seen", value: watched.lagMs, unit: "ms", spread: `${watched.lagRows} revocations without a number or a head, each second` },
    { work, metric: "audit events not sealed yet at the end", value: watched.unsealed, unit: "" },
    { work, metric: "head / base at the end", value: counts.base_bytes, unit: "bytes", spread: `head ${counts.head_bytes}, of it delta ${counts.delta_bytes}` },
    ...Object.keys(world.pids).map((name) => ({ work, metric: `CPU: ${name}`, value: Number(((cpu[name] - before[name]) / 1e6 / took).toPrecision(3)), unit: "cores" })),
  ];
  if (drained.last < flood.revoked) throw new Problem(`${drained.last} rows in the outbox, of ${flood.revoked}`);
  return { rows, ids: ids.length, probes: probes.length };
}

const cpuOf = ({ pids }) => Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, cpuMicros(pid)]));

/** `count` tokens. */
async function issue(world, count) {
  const tokens = [];
  const worker = async () => {
    while (tokens.length < count) tokens.push(await newToken(world));
  };
  await Promise.all(Array.from({ length: 16 }, worker));
  return tokens.slice(0, count);
}

/** Sends all, each batch at its time; one token of most batches is asked about from its answer on. */
async function revokeAll({ world, ids, probes, batches, interval, progress }) {
  const bearer = await newToken({ ...world, client: world.admin, resource: issuerUrl(world.settings) });
  const headers = { authorization: `Bearer ${bearer}`, "content-type": "application/json" };
  const times = [];
  const answers = [];
  let revoked = 0;
  let next = 0;
  let asking = Promise.resolve();
  let busy = false;
  const began = performance.now();
  const worker = async () => {
    while (next < batches) {
      const batch = next++;
      await sleep(Math.max(0, began + batch * interval - performance.now()));
      const own = BATCH - PROBES_A_BATCH;
      const tokens = probes.slice(batch * PROBES_A_BATCH, (batch + 1) * PROBES_A_BATCH);
      const jtis = [...ids.slice(batch * own, (batch + 1) * own), ...tokens.map(jtiOf)];
      const asked = performance.now();
      const { status, text } = await send(world.agent, `${world.issuer}/api/v1/revocations`, { method: "POST", headers, body: JSON.stringify({ jtis }) });
      if (status !== 200) throw new Problem(`a request got ${status}: ${text}`);
      const answered = performance.now();
      answers.push(answered - asked);
      const now = JSON.parse(text).results.filter((result) => result.status === "revoked").length;
      if (now !== jtis.length) throw new Problem(`of ${jtis.length} tokens ${now} were revoked`);
      revoked += now;
      progress(`${revoked.toLocaleString("en")}`);
      if (!busy) {
        busy = true;
        asking = refusedAt(world, tokens[0]).then((at) => {
          times.push(at - answered);
          busy = false;
        });
        asking.catch(() => {});
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  const ended = performance.now();
  await asking;
  return { began, ended, revoked, times, answers };
}

/** Looks each second at how far behind publishing is. */
function watch({ publisher, database }) {
  let stopped = false;
  let lagMs = 0;
  const behind = [];
  const looking = (async () => {
    while (!stopped) {
      const { body } = await request(`${publisher}/ready`);
      const [[waiting]] = await query(database.superuserUrl, "select count(*) from revocation_outbox where seq is null");
      const { lag_ms = 0, lag_seqs = 0 } = body?.checks?.publisher ?? {};
      lagMs = Math.max(lagMs, lag_ms);
      behind.push(Number(waiting) + lag_seqs);
      await sleep(1_000);
    }
  })();
  return {
    stop: async () => {
      stopped = true;
      await looking;
      const [[unsealed]] = await query(database.superuserUrl, "select count(*) from audit_queue");
      const sorted = behind.sort((a, b) => a - b);
      return { lagMs, lagRows: `median ${median(sorted)}, most ${sorted.at(-1)}`, unsealed: Number(unsealed) };
    },
  };
}

/**
 * Runs issuer/examples/revocation-load.rs; what it printed.
 * @param {{settings: import("../issuer.mjs").IssuerSettings}} world
 * @param {string[]} args
 * @param {string} [input]
 */
async function helper({ settings }, args, input) {
  const program = path.join(await targetDir(), "release", "examples", "revocation-load");
  const { stdout } = await runCommand(program, args, { env: issuerEnv(settings), input });
  return stdout;
}

/** What the hub has taken last, with its base from KV, against what was revoked. */
async function compare(world, jtis) {
  const { state, taken, keys, edge, settings } = world;
  const { base } = JSON.parse(Buffer.from(taken.head.split(".")[1], "base64url").toString());
  const key = encodeURIComponent(`base/${base}`);
  const response = await fetch(`${edge}/cdn-cgi/local/explorer/api/storage/kv/namespaces/${KV_NAMESPACE_ID}/values/${key}`);
  if (!response.ok) throw new Problem(`KV answered ${response.status} about the base object in force`);
  const files = { keys, head: taken.head, base: Buffer.from(await response.arrayBuffer()) };
  const paths = Object.entries(files).map(([name, content]) => {
    const file = path.join(state, name);
    fs.writeFileSync(file, content);
    return file;
  });
  return JSON.parse(await helper(world, ["check", issuerUrl(settings), ...paths], jtis.join("\n")));
}

/** How many of `tokens` the edge answers about with what is `wrong`. */
async function count(world, tokens, wrong) {
  let found = 0;
  let next = 0;
  const worker = async () => {
    while (next < tokens.length) found += Number(wrong(await atTheEdge(world, tokens[next++])));
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  return found;
}
