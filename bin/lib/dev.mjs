// bin/dev: sets everything up, starts the whole system, walks through its main job, and stays up.

import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";

import { edgeReady, startWranglerDev } from "./edge.mjs";
import { request, until } from "./http.mjs";
import { bootstrap, issuerUrl, migrate, revocationKeys, startIssuer } from "./issuer.mjs";
import { refuseUsage, runCommand } from "./lifecycle.mjs";
import { Problem, bold, dim, duration, green, heading, red, say, task } from "./output.mjs";
import { root, shown, stateDir } from "./paths.mjs";
import { freePort, portSetting, requireFree } from "./ports.mjs";
import { checkDatabase, findServer, startPostgres } from "./postgres.mjs";
import { findRedis, startRedis } from "./redis.mjs";
import { keptSecret } from "./secrets.mjs";
import { setUpEdge, setUpIssuer, setUpPackages, setUpPostgres, setUpRust, setUpWasmBindgen } from "./setup.mjs";
import { curlLines, walkthrough } from "./walkthrough.mjs";

const HELP = `bin/dev: sets everything up, starts the whole system and walks through its main job.

  bin/dev          stays up afterwards; Ctrl-C ends everything it started
  bin/dev --once   exits after the walk-through, with 0 only if every step did what it should
  bin/dev --help   this text

Environment:
  DATABASE_URL     a Postgres ≥ 15 of your own instead of a private one
  REDIS_URL        a Redis of your own instead of a private one
  PORT             the issuer's port (3000)
  ADMIN_ADDRESS    the issuer's admin listener (127.0.0.1:9090)
  EDGE_PORT        the edge's port (8787)
  MASTER_KEY       base64 of 32 bytes; made and kept by default, must fit the database
  ADMIN_CLIENT_SECRET   for a database that was bootstrapped elsewhere, once
  COUNTERSIGN_STATE_DIR where everything is kept (.countersign); remove it to begin afresh
`;

/** The identifier of the demo upstream as a resource server (RFC 8707): a name, and the same whatever the ports. */
const AUDIENCE = "https://orders.example";

const options = process.argv.slice(2);
const once = options.includes("--once");
if (options.includes("--help") || options.includes("-h")) {
  process.stdout.write(HELP);
  process.exit(0);
}
const unknown = options.find((option) => option !== "--once");
if (unknown !== undefined) refuseUsage("bin/dev", `bin/dev has no option ${unknown}`);

await runCommand({ name: "bin/dev", dir: stateDir }, main);

/** @param {{processes: import("./processes.mjs").Processes, signal: AbortSignal}} context @returns {Promise<number>} */
async function main({ processes, signal }) {
  const started = Date.now();
  const ports = settingsOfPorts();
  await requireFree(ports.issuer, { what: "the issuer", setting: "PORT", example: "3001" });
  await requireFree(ports.admin, { host: ports.adminHost, what: "the issuer's admin listener", setting: "ADMIN_ADDRESS", example: "127.0.0.1:9091" });
  await requireFree(ports.edge, { what: "the edge", setting: "EDGE_PORT", example: "8788" });

  heading("Set-up");
  await setUpRust();
  // The network, one compiler and another: each leaves the processor time that the others can use.
  const parts = await Promise.all([setUpPackages(), setUpWasmBindgen(), setUpIssuer()]);
  const edge = await setUpEdge();
  const server = process.env.DATABASE_URL ? undefined : await setUpPostgres();
  const setUp = Date.now() - started;
  const [packages, wasmBindgen, issuer] = parts;
  const warmth = packages.did || wasmBindgen.did ? "cold" : issuer.did || edge.did ? "partly warm" : "warm";
  say(`  ${bold(`set-up took ${duration(setUp)}`)} (${warmth})`);

  heading("Start");
  const system = await start(processes, ports, server);
  say(`  ${bold(`running after ${duration(Date.now() - started)}`)}`);

  heading("Walk-through");
  const result = await walkthrough({ ...system, signal });
  say();
  report(result, setUp, warmth, processes.logs);
  if (once) return result.ok ? 0 : 1;

  showWhatRuns(system, processes.logs);
  return new Promise(() => {});
}

function settingsOfPorts() {
  const admin = process.env.ADMIN_ADDRESS || "127.0.0.1:9090";
  const match = /^(.+):(\d+)$/.exec(admin);
  if (!match) throw new Problem(`ADMIN_ADDRESS is "${admin}", not an address with a port`, { fix: "write it as 127.0.0.1:9090" });
  return {
    issuer: portSetting("PORT", 3000),
    edge: portSetting("EDGE_PORT", 8787),
    adminAddress: admin,
    adminHost: match[1].replace(/^\[(.*)\]$/, "$1"),
    admin: Number(match[2]),
  };
}

async function start(processes, ports, server) {
  const databaseUrl = await task("Postgres", async (progress) => {
    const given = process.env.DATABASE_URL;
    if (given) {
      await checkDatabase(given);
      return { url: given, result: `${hostOf(given)} (DATABASE_URL)` };
    }
    server ??= await findServer(progress);
    const postgres = await startPostgres(processes, { dir: stateDir, server, durable: true, progress });
    const by = postgres.owner ? `, run by ${postgres.owner.name}` : "";
    return { url: postgres.issuerUrl, result: `private, 127.0.0.1:${new URL(postgres.url).port}${by}` };
  });
  const redis = await task("hot state", async () => {
    if (process.env.REDIS_URL) return { url: process.env.REDIS_URL, result: `Redis at ${hostOf(process.env.REDIS_URL)} (REDIS_URL)` };
    const program = findRedis();
    if (!program) return { url: undefined, result: "in the issuer's process: no redis-server on the PATH" };
    const { url } = await startRedis(processes, { dir: stateDir, program });
    return { url, result: `private Redis, 127.0.0.1:${new URL(url).port}` };
  });

  const edgeUrl = `http://127.0.0.1:${ports.edge}`;
  /** @type {import("./issuer.mjs").IssuerSettings} */
  const settings = {
    databaseUrl: databaseUrl.url,
    redisUrl: redis.url,
    masterKey: process.env.MASTER_KEY || keptSecret(stateDir, "master_key", "base64"),
    port: ports.issuer,
    adminAddress: ports.adminAddress,
    audience: AUDIENCE,
    edgeUrl,
    hubPushSecret: keptSecret(stateDir, "hub_push_secret"),
  };
  const admin = await task("database", async () => {
    await migrate(settings);
    const administrator = await bootstrap(settings, { dir: stateDir, userDatabase: Boolean(process.env.DATABASE_URL) });
    return { ...administrator, result: administrator.created ? "migrated; first tenant and administrator made" : "migrated; bootstrapped before" };
  });
  const upstreamUrl = await task("demo upstream", async () => {
    const port = await freePort();
    const child = processes.start("demo-upstream", process.execPath, [path.join(root, "bin", "lib", "demo-upstream.mjs")], {
      env: { PATH: process.env.PATH, PORT: String(port) },
    });
    const url = `http://127.0.0.1:${port}`;
    if (!(await until(async () => child.ended || (await request(url)).status === 200, { timeoutMs: 10_000 })) || child.ended) throw child.problem();
    return { url, result: url };
  });
  const keys = await revocationKeys(settings);
  // The edge starts while the issuer does: each waits for the other by itself.
  const edge = startWranglerDev(processes, {
    port: ports.edge,
    dir: stateDir,
    // What the edge holds belongs to one issuer with its keys: with a new database it starts anew.
    persist: path.join(stateDir, `edge-${crypto.createHash("sha256").update(`${issuerUrl(settings)} ${keys}`).digest("hex").slice(0, 12)}`),
    settings: {
      ISSUER_URL: issuerUrl(settings), AUDIENCE, UPSTREAM_URL: upstreamUrl.url, REVOCATION_KEYS: keys, HUB_PUSH_SECRET: settings.hubPushSecret,
    },
  });
  await Promise.all([
    task("issuer", async () => {
      const issuer = await startIssuer(processes, settings);
      return `${issuer.url}, admin ${ports.adminAddress}`;
    }),
    task("edge (wrangler dev)", async () => {
      await edgeReady(edge.url, { child: edge });
      return `${edge.url}, has the issuer's keys and revocations`;
    }),
  ]);
  return { issuerUrl: issuerUrl(settings), edgeUrl, upstreamUrl: upstreamUrl.url, adminAddress: ports.adminAddress, admin, databaseUrl: settings.databaseUrl };
}

function hostOf(url) {
  return URL.canParse(url) ? new URL(url).host : "?";
}

function report({ ok, failed, figures }, setUp, warmth, logs) {
  const figure = (ms) => (ms === undefined ? "not measured" : duration(ms));
  say(`  set-up                ${duration(setUp)} (${warmth})`);
  say(`  token latency         ${figure(figures.token)}`);
  say(`  edge latency          ${figure(figures.edge)}, of which the upstream ${figure(figures.upstream)}`);
  say(`  revoked to refused    median ${figure(figures.revocationMedian)}, worst ${figure(figures.revocationWorst)}`);
  if (ok) say(`\n${green("Every step did what it should.")}`);
  else say(`\n${red(`Not as it should be: ${failed.join("; ")}.`)} The logs: ${shown(logs)}`);
}

function showWhatRuns(system, logs) {
  heading("Running");
  say(`  issuer      ${system.issuerUrl}   (metadata: /.well-known/oauth-authorization-server, /ready)`);
  say(`  admin       http://${system.adminAddress}   (/livez, /readyz, /metrics, /log-level, POST /shutdown)`);
  say(`  edge        ${system.edgeUrl}   (/_countersign/health)`);
  say(`  upstream    ${system.upstreamUrl}`);
  say(`  logs        ${shown(logs)}/*.log`);
  if (!process.env.DATABASE_URL) say(`  database    its URL is in ${shown(writeDatabaseUrl(system.databaseUrl))}`);
  heading("Try it (paste into a shell in this folder)");
  const file = shown(system.admin.file);
  for (const { title, command } of curlLines({ ...system, credentialFile: file.startsWith("/") ? file : `./${file}` })) say(`${dim(`# ${title}`)}\n${command}`);
  say(`\n${dim("Ctrl-C ends everything.")}`);
}

function writeDatabaseUrl(url) {
  const file = path.join(stateDir, "secrets", "database_url");
  fs.writeFileSync(file, `${url}\n`, { mode: 0o600 });
  return file;
}
