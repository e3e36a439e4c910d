// bin/bench revocation: what revoked sets cost, beside what others do: natively (shared/bench) and in WebAssembly under V8. And the whole system, from a
// revocation to its refusal (end-to-end.mjs).

import fs from "node:fs";
import path from "node:path";

import { modernNode } from "../npm.mjs";
import { Problem, task } from "../output.mjs";
import { run as runCommand } from "../processes.mjs";
import { benchManifest, buildRevocationWasm } from "../revocation-wasm.mjs";
import { cargo, targetDir } from "../rust.mjs";
import { setUpPackages, setUpRust, setUpWasmBindgen } from "../setup.mjs";
import * as endToEnd from "./end-to-end.mjs";
import { median } from "./load.mjs";
import { wholeNumber } from "./options.mjs";

export const what = "the revoked set beside what others have; and the whole system, from a revocation to its refusal at the edge";

const PARTS = ["set", "end-to-end"];

export const options = /** @type {const} */ ({
  rounds: { type: "string", default: "9" },
  exact: { type: "string", default: "100000000" },
  only: { type: "string" },
  revocations: { type: "string", default: "1000" },
  rate: { type: "string", default: "5000" },
  seconds: { type: "string", default: "60" },
});

export const help = `          --rounds N       rounds of what is timed (default 9)
          --exact N        serials that are checked one by one, natively and in wasm (default 100000000)
          --revocations N  tokens revoked one by one under load (default 1000)
          --rate N         revocations a second, in requests of 1,000 (default 5000) …
          --seconds N      … for so long (default 60)
          --only PART      set (the first two options), or end-to-end (the others)
`;

/** What each figure must be: by the end of its work's and metric's names. */
const TARGETS = [
  { work: /^Elias–Fano, 10 M revoked, 10% /, metric: /^bits a revoked/, most: 5.7 },
  { work: /^Elias–Fano, 10 M revoked, 1% /, metric: /^bits a revoked/, most: 9 },
  { work: /^Elias–Fano, 10 M revoked, 0.1% /, metric: /^bits a revoked/, most: 12.5 },
  { work: /^Elias–Fano, 10 M revoked/, metric: /^build, sort included/, most: 0.25 },
  { work: /^Elias–Fano, 10 M revoked/, metric: /^peak memory/, most: 3 },
  { work: /^Elias–Fano, 10 M revoked/, metric: /^look-up, wasm/, most: 60 },
  { work: /^Elias–Fano, 1 M revoked/, metric: /^load.*without the digest$/, most: 0.3 },
  { work: /^Elias–Fano.* one by one/, metric: /^false/, most: 0 },
  { work: /^delta of 1000 over 100 M/, metric: /./, most: 3 },
  { work: /^split-block/, metric: /^missed/, most: 0 },
];

/** @type {import("../bench.mjs").Bench["run"]} */
export async function run({ processes, dir, values }) {
  const rounds = wholeNumber("rounds", values.rounds, 3, 1000);
  const exact = wholeNumber("exact", values.exact, 1_000_000, 100_000_000);
  const revocations = wholeNumber("revocations", values.revocations, 1, 100_000);
  const rate = wholeNumber("rate", values.rate, 1_000, 100_000);
  const seconds = wholeNumber("seconds", values.seconds, 1, 3_600);
  if (values.only !== undefined && !PARTS.includes(values.only)) throw new Problem(`--only must be one of ${PARTS.join(", ")}`);
  const parts = PARTS.filter((part) => values.only === undefined || values.only === part);
  await setUpRust();
  await Promise.all([setUpPackages(), setUpWasmBindgen()]);
  const results = [];
  if (parts.includes("set")) results.push(await revokedSet({ dir, rounds, exact }));
  if (parts.includes("end-to-end")) results.push(await endToEnd.run({ processes, dir, revocations, rate, seconds }));
  return {
    rows: results.flatMap(({ rows }) => rows),
    versions: Object.assign({}, ...results.map(({ versions }) => versions)),
    notes: results.flatMap(({ notes }) => notes),
  };
}

async function revokedSet({ dir, rounds, exact }) {
  await task("native part, as released", async (progress) => {
    const { compiled } = await cargo(["build", "--release", "--bin", "revocation-bench", "--manifest-path", benchManifest, "--target-dir", await targetDir()], {
      log: path.join(dir, "build.log"), failure: "shared/bench doesn't compile", progress,
    });
    return { result: compiled ? `compiled (${compiled} crates)` : "up to date" };
  });
  await task("wasm part, as the edge's modules", async (progress) => {
    const { bytes } = await buildRevocationWasm(progress);
    return { result: `${(bytes / 1000).toFixed(1)} KB` };
  });
  const objects = path.join(dir, "revocation");
  const program = path.join(await targetDir(), "release", "revocation-bench");
  const lines = [];
  try {
    for (const [name, command] of [
      ["native", [program]],
      ["wasm", [modernNode(), path.join(import.meta.dirname, "revocation-wasm.mjs")]],
    ]) {
      const { stdout } = await task(`measuring: ${name}`, async () => {
        const [first, ...more] = /** @type {string[]} */ (command);
        const { stdout } = await runCommand(first, [...more, objects, String(rounds), String(exact)], { log: path.join(dir, `revocation-${name}.log`), failure: `the ${name} part failed` });
        return { stdout, result: "done" };
      });
      lines.push(...stdout.trim().split("\n"));
    }
  } finally {
    fs.rmSync(objects, { recursive: true, force: true });
  }
  const { stdout: node } = await runCommand(modernNode(), ["-p", "process.versions.node + ' ' + process.versions.v8"]);
  const [nodeVersion, v8] = node.trim().split(" ");
  const notes = [
    `${rounds} rounds; times are CPU times but for loading; 'native' is a release build, 'wasm' the profile of the edge's modules`,
    "look-ups are of serials that look random, of which as many are revoked as in the set; what each is compared with takes turns with it",
    "memory is the highest sum of what the builder had allocated at once, the object included, its input not",
  ];
  return { rows: lines.map(row), versions: { node: nodeVersion, v8, ...peerVersions() }, notes };
}

/** @returns {import("../bench.mjs").Row} */
function row(line) {
  const [work, metric, unit, numbers] = line.split("\t");
  const values = numbers?.split(" ").map(Number);
  if (!values?.length || values.some(Number.isNaN)) throw new Problem(`a part of the benchmark printed: ${line}`);
  const value = Number(median(values).toPrecision(3));
  const spread = values.length > 1 ? { spread: `${Math.min(...values).toPrecision(3)}–${Math.max(...values).toPrecision(3)}` } : {};
  const target = TARGETS.find((target) => target.work.test(work) && target.metric.test(metric));
  return { work, metric, value, unit, ...spread, ...(target && { target: `≤ ${target.most}`, met: median(values) <= target.most }) };
}

/** Of what it is compared with. */
function peerVersions() {
  const lock = fs.readFileSync(path.join(path.dirname(benchManifest), "Cargo.lock"), "utf8");
  return Object.fromEntries(["clubcard", "fastbloom", "flate2", "xorf"].map((name) => {
    const version = new RegExp(`name = "${name}"\nversion = "([^"]+)"`).exec(lock)?.[1];
    return [name, version ?? "unknown"];
  }));
}
