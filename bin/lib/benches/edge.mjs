// bin/bench edge: what a verification costs at the edge, beside jose, hono/jwt, @tsndr/cloudflare-worker-jwt and the jsonwebtoken crate in WebAssembly.
//
// All of them in one workerd (edge-verifier/bench/worker.ts), in turns, on the same tokens. The measuring itself, which takes a newer Node than
// this may be, is in edge-run.mjs.

import fs from "node:fs";
import path from "node:path";
import zlib from "node:zlib";

import { buildEdge, bundleEdge } from "../build-edge.mjs";
import { buildJsonwebtoken } from "../jsonwebtoken-wasm.mjs";
import { modernNode } from "../npm.mjs";
import { Problem, task } from "../output.mjs";
import { edgeBuildDir } from "../paths.mjs";
import { run as runCommand } from "../processes.mjs";
import { buildRevocationWasm } from "../revocation-wasm.mjs";
import { setUpPackages, setUpRust, setUpWasmBindgen } from "../setup.mjs";
import { median } from "./load.mjs";
import { wholeNumber } from "./options.mjs";

export const what = "a verification at the edge, beside jose, hono/jwt, @tsndr and jsonwebtoken in wasm; whole requests; sizes";

export const options = /** @type {const} */ ({
  rounds: { type: "string", default: "11" },
  tokens: { type: "string", default: "6000" },
});

export const help = `          --rounds N       rounds of each work by each contestant, in turns (default 11)
          --tokens N       different tokens, of which the edge can't remember all (default 6000)
`;

/** What each figure must be. */
const TARGETS = [
  { work: "miss, RS256", metric: "CPU, countersign / jose", most: 0.75 },
  { work: "miss, ES256", metric: "CPU, countersign / jose", most: 0.88 },
  { work: "miss, EdDSA", metric: "CPU, countersign / jose", most: 0.92 },
  { work: /^hit, /, metric: "time, jose / countersign", least: 40 },
  { work: /^whole request, miss/, metric: "CPU, countersign / jose", most: 0.75 },
  { work: /^whole request, hit/, metric: "CPU, countersign / jose", most: 0.45 },
  { work: "size", metric: "wasm and script, gzipped", most: 60 },
  { work: "cold start", metric: "beside an empty Worker's", most: 2 },
];

/** @type {import("../bench.mjs").Bench["run"]} */
export async function run({ values, dir }) {
  const rounds = wholeNumber("rounds", values.rounds, 3, 1000);
  const tokens = wholeNumber("tokens", values.tokens, 4_200, 50_000);
  await setUpRust();
  await Promise.all([setUpPackages(), setUpWasmBindgen()]);
  const { sizes } = await task("modules", async (progress) => {
    const { sizes } = await buildEdge({ progress });
    await bundleEdge();
    await buildJsonwebtoken(progress);
    await buildRevocationWasm(progress);
    return { result: "built", sizes };
  });
  const { stdout } = await task("measuring in workerd", async () => {
    const script = path.join(import.meta.dirname, "edge-run.mjs");
    const { stdout } = await runCommand(modernNode(), [script, String(rounds), String(tokens)], { log: path.join(dir, "edge.log"), failure: "the measurement failed" });
    return { stdout, result: "done" };
  });
  const lines = stdout.trim().split("\n").map((line) => line.split("\t"));
  const [first, ...rest] = lines;
  const versions = JSON.parse(first[0]);
  const script = fs.readFileSync(path.join(edgeBuildDir, "worker", "index.js"));
  const gzipped = (bytes) => zlib.gzipSync(bytes, { level: 9 }).length / 1000;
  const hub = path.join(edgeBuildDir, "hub-worker");
  const ofHub = fs.readdirSync(hub).filter((name) => /\.(js|wasm)$/.test(name)).reduce((sum, name) => sum + gzipped(fs.readFileSync(path.join(hub, name))), 0);
  const verifier = (sizes.find(({ name }) => name === "verifier")?.gzipped ?? NaN) / 1000;
  rest.push(["size", "wasm and script, gzipped", "KB", String(verifier + gzipped(script))]);
  rest.push(["size", "the hot path's wasm alone", "KB", String(verifier)], ["size", "the hubs' Worker, apart", "KB", String(ofHub)]);
  const notes = [
    `${rounds} rounds, medians with quartiles; ${tokens} different tokens for a miss, 500 again and again for a hit`,
    "a miss is what the whole process of workerd took of the CPU; a hit the time inside, as making the strings afresh would cost more than looking them up",
    "all demand the same of a token: signature, iss, aud, exp and typ, where they can",
  ];
  return { rows: rest.map(row), versions, notes };
}

/**
 * @param {string[]} line
 * @returns {import("../bench.mjs").Row}
 */
function row([work = "", metric = "", unit = "", numbers]) {
  const values = numbers?.split(" ").map(Number).sort((a, b) => a - b);
  if (!values?.length || values.some(Number.isNaN)) throw new Problem(`a part of the benchmark printed: ${[work, metric, unit, numbers].join("  ")}`);
  const value = Number(median(values).toPrecision(3));
  const quartile = (part) => values[Math.round((values.length - 1) * part)].toPrecision(3);
  const spread = values.length > 1 ? { spread: `quartiles ${quartile(0.25)}–${quartile(0.75)}` } : {};
  const matches = (pattern, text) => (pattern instanceof RegExp ? pattern.test(text) : pattern === text);
  const target = TARGETS.find((target) => matches(target.work, work) && matches(target.metric, metric));
  if (!target) return { work, metric, value, unit, ...spread };
  const { most, least } = target;
  return most === undefined
    ? { work, metric, value, unit, ...spread, target: `≥ ${least}`, met: median(values) >= least }
    : { work, metric, value, unit, ...spread, target: `≤ ${most}`, met: median(values) <= most };
}
