// bin/bench scale: whether a token, and an introspection, cost the same with a long history in the database as with none.
//
// Two issuers, each on a database of its own on one Postgres: one has nothing but the clients that ask, the other the same clients among
// many agents, credentials and audit rows. They take turns under the same load.

import crypto from "node:crypto";
import http from "node:http";
import path from "node:path";

import { createDatabase, query } from "../database.mjs";
import { basic, request } from "../http.mjs";
import { bootstrap, buildIssuer, migrate, startIssuer } from "../issuer.mjs";
import { Problem, task } from "../output.mjs";
import { startPostgres } from "../postgres.mjs";
import { requireRedis, startRedis } from "../redis.mjs";
import { setUpPackages, setUpPostgres, setUpRust } from "../setup.mjs";
import { testIssuerSettings } from "../testing.mjs";
import { cpuMicros, median, quantile, send } from "./load.mjs";

export const what = "cost of a token and of an introspection, with a long history against with none";

export const options = /** @type {const} */ ({
  full: { type: "boolean" },
  share: { type: "string", default: "0.05" },
  rounds: { type: "string", default: "15" },
  requests: { type: "string", default: "1000" },
});

export const help = `          --full           1,000,000 agents, 5,000,000 credentials, 50,000,000 audit rows (takes long, and 30 GB of disk)
          --share S        that share of them (default 0.05)
          --rounds N       rounds of each work on each database (default 15)
          --requests N     requests a round (default 1000)
`;

/** What a large installation has behind it. */
const FULL = { agents: 1_000_000, credentials: 5_000_000, auditRows: 50_000_000 };
/** Agents that ask for tokens; among the many they are spread evenly. */
const CLIENTS = 500;
const CONNECTIONS = 8;
const TARGET = 1.1;

/** @type {import("../bench.mjs").Bench["run"]} */
export async function run({ processes, dir, values }) {
  const share = values.full ? 1 : number("share", values.share, 0.0001, 1);
  const rounds = number("rounds", values.rounds, 3, 1000);
  const requests = number("requests", values.requests, 50, 100_000);
  const size = Object.fromEntries(Object.entries(FULL).map(([name, count]) => [name, Math.round(count * share)]));

  await setUpRust();
  await setUpPackages();
  await task("issuer, as released", async (progress) => {
    const { compiled } = await buildIssuer(progress, "release");
    return { result: compiled ? `compiled (${compiled} crates)` : "up to date" };
  });
  const server = await setUpPostgres();
  const postgres = await startPostgres(processes, { dir, server, durable: true });
  const redis = await startRedis(processes, { dir, program: await requireRedis({ log: path.join(dir, "redis-install.log") }) });

  // A run that was ended half-way left its own behind.
  for (const [name] of await query(postgres.url, "select datname from pg_database where datname like 'scale\\_%'")) {
    await query(postgres.url, `drop database ${name} with (force)`);
  }
  const drops = [];
  try {
    const sides = [];
    for (const name of ["empty", "full"]) {
      const database = await createDatabase(postgres.url, `scale_${name}`);
      drops.push(database.drop);
      const side = await prepare({ name, database, redisUrl: redis.url, processes, dir, seed: name === "full" ? size : undefined });
      sides.push(side);
    }
    const [empty, full] = sides;
    for (const side of sides) side.tokens = await tokensOf(side);

    const rows = [];
    for (const work of ["token", "introspection"]) {
      rows.push(...(await measure({ work, empty, full, rounds, requests, postgres })));
    }
    const notes = [
      `history: ${size.agents.toLocaleString("en")} agents, ${size.credentials.toLocaleString("en")} credentials, ${size.auditRows.toLocaleString("en")} audit rows` +
        (share === 1 ? "" : `, ${share * 100}% of the 1 M / 5 M / 50 M that --full makes`),
      `${CLIENTS} clients in turn, ${CONNECTIONS} connections, ${rounds} rounds of ${requests} requests on each, in turns; CPU is that of issuer and Postgres together`,
    ];
    return { rows, notes, versions: { postgres: server.version, node: process.versions.node } };
  } finally {
    for (const drop of drops) await drop();
  }
}

function number(name, text, least, most) {
  const value = Number(text);
  if (!(value >= least && value <= most)) throw new Problem(`--${name} must be a number from ${least} to ${most}`);
  return value;
}

/** An issuer with the clients that will ask, and what else is in its database. */
async function prepare({ name, database, redisUrl, processes, dir, seed }) {
  const settings = {
    ...(await testIssuerSettings({ databaseUrl: database.url, redisUrl, more: UNLIMITED })),
    profile: "release",
  };
  // Nothing is published: revocation isn't what is measured.
  const more = { ...settings.more, HUB_URL: "", KV_NAMESPACE_ID: "", KV_API_BASE: "", HUB_PUSH_SECRET: "", COUNTERSIGN_ENV: "production", LOG_LEVEL: "WARN", ISSUER_URL: `http://127.0.0.1:${settings.port}` };
  const complete = { ...settings, more };
  await migrate(complete);
  const admin = await bootstrap(complete, { dir: path.join(dir, name), userDatabase: false });
  if (seed) {
    await task(`history of the ${name} database`, async (progress) => {
      await seedHistory({ database, tenant: admin.tenantId, size: seed, progress });
      return { result: "made" };
    });
  }
  const child = await startIssuer(processes, complete, { name: `issuer-${name}` });
  const url = child.url;
  const clients = await task(`clients of the ${name} database`, async () => {
    const clients = await makeClients({ url, admin });
    return Object.assign(clients, { result: `${CLIENTS}` });
  });
  await query(database.superuserUrl, "vacuum analyze", { timeoutMs: 600_000 });
  return { name, url, pid: child.process.pid, admin, clients, agent: new http.Agent({ keepAlive: true, maxSockets: CONNECTIONS }), tokens: [] };
}

/** Limits out of the way: they are counted in constant time whatever the history, and would stop the load. */
const UNLIMITED = {
  RATE_LIMIT_PER_CLIENT: "1000000", RATE_LIMIT_PER_TENANT: "1000000", RATE_LIMIT_PER_IP: "1000000",
};

async function makeClients({ url, admin }) {
  const token = await request(`${url}/oauth2/v1/token`, {
    headers: basic(admin.clientId, admin.clientSecret), form: { grant_type: "client_credentials", resource: url },
  });
  const headers = { authorization: `Bearer ${token.body.access_token}` };
  const clients = [];
  for (let place = 0; place < CLIENTS; place++) {
    const agent = await request(`${url}/api/v1/agents`, {
      headers, json: { email: `client-${place}@bench.example`, agent_type: "custom", version: "1", owner: "bench", deployment_env: "production", scopes: ["orders:read"] },
    });
    const credential = await request(`${url}/api/v1/agents/${agent.body.agent_id}/credentials`, { headers, json: {} });
    if (credential.status !== 201) throw new Problem(`a client couldn't be made: ${agent.status} ${credential.status} ${credential.text}`);
    clients.push({ id: credential.body.client_id, secret: credential.body.client_secret });
  }
  return clients;
}

/** Rows as the issuer itself would have made them over the years, but for signatures and hashes, which nobody looks at here. */
async function seedHistory({ database, tenant, size, progress }) {
  const sql = (text) => query(database.superuserUrl, text, { timeoutMs: 7_200_000 });
  const chunk = 250_000;
  for (let first = 1; first <= size.agents; first += chunk) {
    progress(`agents ${first}`);
    const last = Math.min(size.agents, first + chunk - 1);
    await sql(`insert into agents (agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes, metadata, created_at)
      select gen_random_uuid(), '${tenant}', 'agent-' || n || '@history.example',
             (array['screener','classifier','orchestrator','extractor','summarizer','router','monitor','custom'])[1 + n % 8], '1.0.0', '{}',
             'owner-' || n % 1000, (array['development','staging','production'])[1 + n % 3], '{orders:read}', '{}', now() - n * interval '10 seconds'
      from generate_series(${first}, ${last}) n`);
  }
  progress("credentials");
  await sql(`insert into credentials (credential_id, tenant_id, agent_id, secret_hash, status)
    select gen_random_uuid(), tenant_id, agent_id, sha256(convert_to(agent_id::text || n, 'UTF8')), case when n % 5 = 0 then 'active' else 'revoked' end
    from agents, generate_series(1, ${Math.round(size.credentials / size.agents)}) n where email like '%@history.example'`);
  await sql(`select audit_add_partition(date_trunc('week', now() - n * interval '7 days')::date) from generate_series(0, 12) n`);
  for (let first = 1; first <= size.auditRows; first += chunk) {
    progress(`audit rows ${first.toLocaleString("en")}`);
    await sql(auditRows(tenant, first, Math.min(size.auditRows, first + chunk - 1), size.auditRows));
  }
  await sql(`insert into audit_chains (tenant_id, seq, hash, recorded_at) values ('${tenant}', ${size.auditRows}, sha256('end'), now())`);
}

/** Sealed events of the last 80 days, less than they are kept for. */
function auditRows(tenant, first, last, count) {
  return `insert into audit_events (tenant_id, seq, recorded_at, event_id, occurred_at, actor_agent_id, action, outcome, target_type, target_id, details, hash)
    select '${tenant}', n, at, (lpad(to_hex(floor(extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(chance, 1, 3) || '8' || substr(chance, 4, 15))::uuid, at,
           gen_random_uuid(), 'token.issued', 'success', 'token', gen_random_uuid()::text, '{}', sha256(chance::bytea)
    from (select n, now() - (${count} - n) * (interval '80 days' / ${count}) as at, md5(n::text) as chance from generate_series(${first}, ${last}) n) event`;
}

/** A token of each client, for introspection. */
async function tokensOf({ url, clients }) {
  const tokens = [];
  for (const { id, secret } of clients) {
    const answer = await request(`${url}/oauth2/v1/token`, { headers: basic(id, secret), form: { grant_type: "client_credentials" } });
    if (answer.status !== 200) throw new Problem(`no token: ${answer.status} ${answer.text}`);
    tokens.push(answer.body.access_token);
  }
  return tokens;
}

/** Rounds in turns, each preceded by nothing but the other side's; the first round of each warms up and doesn't count. */
async function measure({ work, empty, full, rounds, requests, postgres }) {
  const results = { empty: [], full: [] };
  await task(`${work}: ${rounds} rounds on each`, async (progress) => {
    for (let round = 0; round <= rounds; round++) {
      progress(`round ${round}`);
      for (const side of round % 2 ? [empty, full] : [full, empty]) {
        const result = await oneRound({ work, side, requests, postgres });
        if (round > 0) results[side.name].push(result);
      }
    }
    return { result: "measured" };
  });
  const of = (side, metric) => results[side].map((result) => result[metric]);
  const ratios = (metric) => results.empty.map((result, round) => results.full[round][metric] / result[metric]);
  const spread = (values) => {
    const sorted = [...values].sort((a, b) => a - b);
    return `quartiles ${quantile(sorted, 0.25).toFixed(2)}–${quantile(sorted, 0.75).toFixed(2)}`;
  };
  const cpu = ratios("cpu");
  const latency = ratios("p50");
  const row = (metric, values, unit, digits = 2) => ({ work, metric, value: Number(median(values).toFixed(digits)), unit, spread: spread(values) });
  return [
    { ...row("CPU, full / empty", cpu, "×"), target: `≤ ${TARGET.toFixed(2)}`, met: median(cpu) <= TARGET },
    { ...row("median latency, full / empty", latency, "×"), target: `≤ ${TARGET.toFixed(2)}`, met: median(latency) <= TARGET },
    row("CPU a request, empty", of("empty", "cpu"), "µs", 0),
    row("CPU a request, full", of("full", "cpu"), "µs", 0),
    row("median latency, empty", of("empty", "p50"), "ms"),
    row("median latency, full", of("full", "p50"), "ms"),
  ];
}

async function oneRound({ work, side, requests, postgres }) {
  let place = crypto.randomInt(CLIENTS);
  const next = () => {
    place = (place + 1) % CLIENTS;
    const { id, secret } = side.clients[place];
    return work === "token"
      ? { url: `${side.url}/oauth2/v1/token`, headers: basic(id, secret), body: "grant_type=client_credentials" }
      : { url: `${side.url}/oauth2/v1/introspect`, headers: basic(id, secret), body: `token=${side.tokens[place]}` };
  };
  const spent = () => cpuMicros(side.pid) + cpuMicros(postgres.child.process.pid);
  const before = spent();
  const { latencies, failures } = await send({ count: requests, connections: CONNECTIONS, agent: side.agent, next });
  const after = spent();
  if (failures.size > 0) throw new Problem(`${work} on the ${side.name} database failed: ${[...failures].map(([status, count]) => `${status} × ${count}`).join(", ")}`);
  return { cpu: (after - before) / requests, p50: quantile(latencies, 0.5) };
}
