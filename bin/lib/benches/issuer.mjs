// bin/bench issuer: what a token, an introspection, a revocation cost our issuer, beside others that a registry provides; how it holds out when too
// much is asked of it. The parts are in issuer/.

import os from "node:os";
import path from "node:path";

import { buildIssuer } from "../issuer.mjs";
import { Problem, task } from "../output.mjs";
import { modernNode } from "../npm.mjs";
import { startPostgres } from "../postgres.mjs";
import { run as runCommand } from "../processes.mjs";
import { requireRedis, startRedis } from "../redis.mjs";
import { setUpPackages, setUpPostgres, setUpRust } from "../setup.mjs";
import { VERSION as authgentVersion, installAuthgent, startAuthgent } from "./issuer/authgent.mjs";
import { Figures } from "./issuer/figures.mjs";
import { measureCliffs } from "./issuer/cliffs.mjs";
import { measureHistory } from "./issuer/history.mjs";
import { measureLatency } from "./issuer/latency.mjs";
import { startOidcProvider, version as oidcProviderVersion } from "./issuer/oidc-provider.mjs";
import { startOurs } from "./issuer/ours.mjs";
import { idleCosts, runRounds } from "./issuer/rounds.mjs";
import { buildSignatures, bareSignatures } from "./issuer/signatures.mjs";
import { measureStarts } from "./issuer/starts.mjs";
import { requireWrk } from "./issuer/wrk.mjs";
import { wholeNumber } from "./options.mjs";

export const what = "tokens, introspection, revocation beside oidc-provider and authgent-server; memory, start, overload";

const SECTIONS = ["start", "works", "connections", "latency", "flat", "cliffs"];
const PEERS = ["oidc-provider", "authgent-server"];

export const options = /** @type {const} */ ({
  quick: { type: "boolean" },
  debug: { type: "boolean" },
  only: { type: "string", default: SECTIONS.join() },
  works: { type: "string", default: "" },
  peers: { type: "string", default: PEERS.join() },
  rounds: { type: "string" },
  seconds: { type: "string" },
  clients: { type: "string" },
  tokens: { type: "string" },
});

export const help = `          --quick          a short run, to see that it works: its figures say little
          --debug          our issuer in a debug build, which compiles sooner: to see that all works; its figures say nothing
          --only A,B       these parts: ${SECTIONS.join(", ")} (default all)
          --works TEXT     of the works only those with TEXT in their names, as "secret, ES256" (default all)
          --peers A,B      beside these: ${PEERS.join(", ")} (default all; "" none)
          --rounds N       rounds of each work by each contestant, in turns (default 3, quick 1)
          --seconds N      how long a load lasts (default 2, quick 1)
          --clients N      agents that ask, in each server (default 10000, quick 200)
          --tokens N       flat: tokens between the first and the last (default 200000, quick 2000; the targets are for 1000000 and 10000000)
`;

/** @param {string} name @param {string} text @param {readonly string[]} known */
function someOf(name, text, known) {
  const chosen = text.split(",").filter(Boolean);
  for (const one of chosen) if (!known.includes(one)) throw new Problem(`--${name} knows ${known.join(", ")}, not ${one}`);
  return new Set(chosen);
}

/** Where there is no Python for it, the benchmark goes on without. @returns {Promise<{bin?: string, missing?: string, result: string}>} */
const setUpAuthgent = () =>
  task("authgent-server", async (progress) => {
    try {
      const { bin } = await installAuthgent(progress);
      return { bin, result: authgentVersion };
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      return { missing: error.message, result: `is missing: ${error.message}` };
    }
  });

/** @type {import("../bench.mjs").Bench["run"]} */
export async function run({ processes, dir, values }) {
  const number = (name, usual, quick, least, most) => wholeNumber(name, values[name] ?? String(values.quick ? quick : usual), least, most);
  const rounds = number("rounds", 3, 1, 1, 1000);
  const seconds = number("seconds", 2, 1, 1, 600);
  const clientCount = number("clients", 10_000, 200, 10, 1_000_000);
  const tokens = number("tokens", 200_000, 2_000, 1, 1_000_000_000);
  const sections = someOf("only", values.only, SECTIONS);
  const peers = someOf("peers", values.peers, PEERS);

  await setUpRust();
  await setUpPackages();
  const profile = values.debug ? "dev" : "release";
  await task(values.debug ? "issuer, a debug build" : "issuer, as released", async (progress) => {
    const { compiled } = await buildIssuer(progress, profile);
    return { result: compiled ? `compiled (${compiled} crates)` : "up to date" };
  });
  await task("bare signatures", (progress) => buildSignatures(progress, profile));
  const program = await task("wrk", async (progress) => requireWrk({ log: path.join(dir, "wrk-install.log"), progress }));
  const authgent = peers.has("authgent-server") ? await setUpAuthgent() : undefined;
  const server = await setUpPostgres();
  // As its manual advises, a quarter of the machine's memory; more than this wouldn't be used here.
  const megabytes = Math.min(1024, Math.floor(os.totalmem() / 4 / 2 ** 20));
  const postgres = await startPostgres(processes, { dir, server, durable: true, megabytes });
  const redis = await startRedis(processes, { dir, program: await requireRedis({ log: path.join(dir, "redis-install.log") }) });

  const figures = new Figures();
  const wanted = (name) => name.includes(values.works);
  const ours = await startOurs({ processes, dir, profile, clientCount, keyed: wanted("token by private_key_jwt"), postgres, redis });
  try {
    /** @type {import("./issuer/contestants.mjs").Contestant[]} */
    const contestants = [ours];
    if (peers.has("oidc-provider")) contestants.push(await startOidcProvider({ processes, dir, clientCount, keyed: wanted("token by private_key_jwt") }));
    if (authgent?.bin) contestants.push(await startAuthgent({ processes, dir, clientCount, bin: authgent.bin }));
    const bench = { contestants, program, dir, figures, rounds, seconds, once: values.quick ? 300 : 4000, bareSignatures: (copies) => bareSignatures(values.quick ? 50 : 300, profile, copies) };
    if (sections.has("start")) await measureStarts(bench, { times: values.quick ? 1 : 5 });
    const idle = await idleCosts(bench);
    const names = [...new Set(contestants.flatMap(({ works }) => works.map(({ name }) => name)))].filter(wanted);
    if (names.length === 0) throw new Problem(`--works: no work has "${values.works}" in its name`);
    if (sections.has("works")) await runRounds(bench, { names, label: "works, 64 connections", connections: 64, idle });
    if (sections.has("connections")) {
      for (const connections of [1, 16, 256]) {
        await runRounds(bench, { names: ["token by secret, ES256"], label: `tokens, ${connections} connections`, connections, suffix: `, ${connections} connections`, idle });
      }
    }
    if (sections.has("latency")) await measureLatency(bench);
    if (sections.has("flat")) await measureHistory(bench, ours, { tokens, idle: idle.get(ours.name) ?? {} });
    if (sections.has("cliffs")) await measureCliffs(bench, ours, { idleConnections: values.quick ? 500 : 10_000, seconds: values.quick ? 1 : 4 });
    const { stdout: node } = await runCommand(modernNode(), ["-p", "process.versions.node"]);
    const notes = [
      `${rounds} rounds of ${seconds} s, in turns after one that warms up; medians with quartiles; ${clientCount.toLocaleString("en")} different agents ask one after the other`,
      "wrk, the servers and Postgres share the machine's cores: requests a second and latencies say how they get on there, CPU a request what the work costs",
      "CPU of countersign is that of issuer, Postgres (all its processes, synced commits) and Redis together; oidc-provider keeps everything in its own memory, and no audit log",
      ...(authgent?.bin ? ["authgent-server checks each secret with bcrypt, one after the other, and is asked by two connections at once (introspection: 16)"] : []),
      ...(authgent?.missing ? [`without authgent-server: ${authgent.missing}`] : []),
      ...(values.debug ? ["a debug build of our issuer: no figure of it says anything"] : []),
      ...figures.notes,
    ];
    return { rows: figures.rows(), notes, versions: { postgres: server.version, "oidc-provider": oidcProviderVersion(), "authgent-server": authgentVersion, node: node.trim() } };
  } finally {
    await ours.end();
  }
}
