// bin/test: every test there is, in sections that can also be run by name. Each section says what it needs; a need is met once, when a
// section first asks for it. Nothing is skipped in silence: a test that didn't run, an empty section and a missing server are failures.

import fs from "node:fs";
import path from "node:path";

import { bundleEdge } from "./build-edge.mjs";
import { ensureKubernetesValidate, ensurePromtool } from "./deploy-tools.mjs";
import { buildJsonwebtoken, jsonwebtokenManifest } from "./jsonwebtoken-wasm.mjs";
import { refuseUsage, runCommand } from "./lifecycle.mjs";
import { modernNode, nodeEnv } from "./npm.mjs";
import { Problem, bold, dim, duration, green, heading, lastLines, line, printFailure, red, say, task } from "./output.mjs";
import { root, shown, stateDir } from "./paths.mjs";
import { startPostgres } from "./postgres.mjs";
import { run } from "./processes.mjs";
import { requireRedis, startRedis } from "./redis.mjs";
import { benchManifest, buildRevocationWasm } from "./revocation-wasm.mjs";
import { cargo, ensureRustComponents } from "./rust.mjs";
import { setUpEdge, setUpIssuer, setUpPackages, setUpPostgres, setUpPyJwt, setUpRust, setUpWasmBindgen } from "./setup.mjs";
import { requireSoftHsm } from "./softhsm.mjs";
import { checkQueryData } from "./sqlx.mjs";

/** Beside bin/dev's own, so that both can run at once. */
const dir = path.join(stateDir, "test");
const logs = path.join(dir, "logs");

/** @typedef {{passed: number, failed: number, note?: string}} Outcome */

/** @type {{name: string, what: string, run: () => Promise<Outcome>}[]} */
const SECTIONS = [
  { name: "format", what: "cargo fmt --check", run: format },
  { name: "lint", what: "clippy, native and wasm32, no warnings", run: lint },
  { name: "rust", what: "cargo test, on a real Postgres, a real Redis and a PKCS#11 token", run: rust },
  { name: "sqlx", what: "the committed query data is that of the migrated database", run: sqlx },
  { name: "wasm", what: "the edge's modules, and the Worker as a deployment bundles it", run: wasm },
  { name: "types", what: "tsc over the edge's scripts, the package and bin/", run: types },
  { name: "vectors", what: "the shared accept and reject vectors, and what an isolate believes of keys, in wasm under Node", run: () => nodeTests("vectors", "edge-verifier/tests/node/*.test.mjs") },
  { name: "differential", what: "the verifier beside jose and jsonwebtoken, on many spoiled tokens", run: differential },
  { name: "golden", what: "revoked sets made natively, read and made in wasm", run: golden },
  { name: "workerd", what: "end to end: the built wasm in workerd", run: () => nodeTests("workerd", "edge-verifier/tests/workerd/*.test.mjs") },
  { name: "dev", what: "bin/dev itself", run: () => nodeTests("dev", "bin/tests/dev.test.mjs") },
  { name: "guides", what: "docs/guides, command by command", run: () => nodeTests("guides", "bin/tests/guides.test.mjs") },
  { name: "redaction", what: "a whole run at TRACE, and no secret in anything that it said", run: () => nodeTests("redaction", "bin/tests/redaction.test.mjs") },
  { name: "deploy", what: "deploy/: schemas, settings, alerts, and its scripts run", run: deploy },
  { name: "operations", what: "docs/operations, command by command; the references beside the code and the schema", run: () => nodeTests("operations", "bin/tests/{operations,reference}.test.mjs") },
  { name: "bench", what: "bin/bench issuer, all of it, briefly", run: () => runNodeTests("bench", "bin/tests/bench.test.mjs", {}) },
  { name: "outages", what: "each part cut under load, and the table of what that did", run: outages },
];

const HELP = `bin/test: sets up what the tests need and runs every one of them.

  bin/test            all sections
  bin/test NAME…      only these
  bin/test --list     their names
  bin/test --help     this text

A private Postgres and a private Redis are started for the tests and ended with them.
`;

const names = process.argv.slice(2);
if (names.includes("--help") || names.includes("-h")) {
  process.stdout.write(HELP);
  process.exit(0);
}
if (names.includes("--list")) {
  for (const { name, what } of SECTIONS) process.stdout.write(`${name.padEnd(10)} ${what}\n`);
  process.exit(0);
}
for (const name of names) {
  if (!SECTIONS.some((section) => section.name === name)) refuseUsage("bin/test", `there is no section ${name} (bin/test --list)`);
}

/** @type {import("./processes.mjs").Processes} */
let processes;

async function main() {
  const started = Date.now();
  /** @type {{name: string, ms: number, outcome: Outcome}[]} */
  const results = [];
  const section = async (name, what, work) => {
    heading(`${name}: ${what}`);
    const began = Date.now();
    let outcome;
    try {
      outcome = await work();
    } catch (error) {
      printFailure(error);
      outcome = { passed: 0, failed: 1, note: error.message };
    }
    results.push({ name, ms: Date.now() - began, outcome });
    return outcome.failed === 0;
  };

  const ready = await section("setup", "what everything needs", async () => {
    await setUpRust();
    await Promise.all([setUpPackages(), setUpWasmBindgen()]);
    await task("clippy and rustfmt", async () => {
      await ensureRustComponents();
      return "are there";
    });
    return { passed: 0, failed: 0, note: "" };
  });
  // Without its tools every other section would fail for the same reason.
  if (ready) {
    for (const { name, what, run: work } of SECTIONS) {
      if (names.length === 0 || names.includes(name)) await section(name, what, work);
    }
  }
  return summary(results, Date.now() - started);
}

function summary(results, ms) {
  heading("Summary");
  for (const { name, ms: took, outcome } of results) {
    const counts = [outcome.passed && `${outcome.passed} passed`, outcome.failed && `${outcome.failed} failed`].filter(Boolean).join(", ");
    line(outcome.failed ? "failed" : "ok", name, [counts, outcome.note].filter(Boolean).join(": ") || "done", took);
  }
  const passed = results.reduce((sum, { outcome }) => sum + outcome.passed, 0);
  const failed = results.reduce((sum, { outcome }) => sum + outcome.failed, 0);
  say(`  ${dim(`in ${duration(ms)}; logs in ${shown(logs)}`)}`);
  say(failed ? red(`\n${passed} passed, ${failed} failed`) : green(`\n${passed} passed, ${failed} failed`));
  return failed ? 1 : 0;
}

// --- Needs

/** Meets a need once: later askers get the first one's answer, or its failure. */
function onceOnly(work) {
  let answer;
  return () => (answer ??= work());
}

const postgres = onceOnly(async () => {
  const server = await setUpPostgres();
  return task("private Postgres", async (progress) => {
    const { url } = await startPostgres(processes, { dir, server, durable: false, progress });
    return { url, result: `127.0.0.1:${new URL(url).port}` };
  });
});

const redis = onceOnly(() =>
  task("private Redis", async (progress) => {
    const program = await requireRedis({ log: path.join(logs, "redis-install.log"), progress });
    const { url } = await startRedis(processes, { dir, program });
    return { url, result: `127.0.0.1:${new URL(url).port}` };
  }),
);

const softHsm = onceOnly(() =>
  task("SoftHSM", async (progress) => {
    const module = await requireSoftHsm({ log: path.join(logs, "softhsm-install.log"), progress });
    return { module, result: module };
  }),
);

const issuer = onceOnly(setUpIssuer);
const edge = onceOnly(setUpEdge);

const bundle = onceOnly(async () => {
  await edge();
  await task("wrangler deploy --dry-run", async () => shown(await bundleEdge()));
});

/** What tests find the servers by. */
async function servers() {
  return { TEST_DATABASE_URL: (await postgres()).url, TEST_REDIS_URL: (await redis()).url };
}

// --- Sections

/**
 * Commands that say yes or no; each counts as one test.
 * @param {[string, string[], NodeJS.ProcessEnv?][]} commands
 * @returns {Promise<Outcome>}
 */
async function checks(commands) {
  const outcome = { passed: 0, failed: 0 };
  for (const [label, [command, ...args], env] of commands) {
    const log = path.join(logs, `${label.replaceAll(/\W+/g, "-")}.log`);
    const options = { log, failure: `${label} failed`, allowFailure: true, env };
    try {
      await task(label, async (progress) => {
        const { status } = command === "cargo" ? await cargo(args, { ...options, progress }) : await run(command, args, { ...options, cwd: root });
        if (status !== 0) throw new Problem(`${label} failed`, { fix: `see ${shown(log)}` });
      });
      outcome.passed += 1;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      say(withoutProgress(lastLines(log, 200)));
      outcome.failed += 1;
    }
  }
  return outcome;
}

/** The crate of the benchmark isn't in the workspace. */
function format() {
  return checks([
    ["cargo fmt", ["cargo", "fmt", "--all", "--check"]],
    ["cargo fmt, benchmark", ["cargo", "fmt", "--manifest-path", benchManifest, "--check"]],
    ["cargo fmt, a peer", ["cargo", "fmt", "--manifest-path", jsonwebtokenManifest, "--check"]],
  ]);
}

function lint() {
  const deny = ["--", "-D", "warnings"];
  return checks([
    ["clippy", ["cargo", "clippy", "--workspace", "--all-targets", "--features", "countersign-issuer/measurements", ...deny]],
    ["clippy, benchmark", ["cargo", "clippy", "--manifest-path", benchManifest, "--all-targets", ...deny]],
    // One by one, as they are built: features that the one asks of a crate aren't the other's.
    ...["verifier", "control"].map((name) => /** @type {[string, string[]]} */ ([
      `clippy for wasm32, ${name}`, ["cargo", "clippy", "--target", "wasm32-unknown-unknown", "-p", `countersign-edge-${name}`, ...deny],
    ])),
  ]);
}

/** @returns {Promise<Outcome>} */
async function rust() {
  const env = { ...(await servers()), TEST_PKCS11_MODULE: (await softHsm()).module };
  const log = path.join(logs, "cargo-test.log");
  const { status, stdout } = await task("cargo test", (progress) =>
    cargo(["test", "--workspace", "--no-fail-fast"], { env, log, failure: "cargo test", allowFailure: true, progress }),
  );
  const counts = { passed: 0, failed: 0, ignored: 0 };
  for (const match of stdout.matchAll(/^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/gm)) {
    counts.passed += Number(match[1]);
    counts.failed += Number(match[2]);
    counts.ignored += Number(match[3]);
  }
  if (status !== 0) say(withoutProgress(lastLines(log, 200)));
  return settle(counts.passed, counts.failed, counts.ignored, status, "cargo test");
}

/** @returns {Promise<Outcome>} */
async function sqlx() {
  const { url } = await postgres();
  await issuer();
  return checkQueryData({ url, logs });
}

/** @returns {Promise<Outcome>} */
async function wasm() {
  await edge();
  await bundle();
  return { passed: 2, failed: 0 };
}

async function types() {
  await edge();
  const tsc = [modernNode(), path.join(root, "node_modules", "typescript", "bin", "tsc"), "--noEmit", "--pretty", "false"];
  return checks([
    ["tsc, entry script", [...tsc, "--project", root]],
    ["tsc, bin", [...tsc, "--project", path.join(root, "bin")]],
  ]);
}

/**
 * @param {string} name
 * @param {string} files
 * @returns {Promise<Outcome>}
 */
async function nodeTests(name, files) {
  await edge();
  let env = {};
  if (name !== "vectors") {
    await bundle();
    await issuer();
    env = await servers();
  }
  if (name === "workerd") await setUpPyJwt();
  return runNodeTests(name, files, env);
}

/** It has a Postgres and a Redis of its own, to be cut off and stopped. @returns {Promise<Outcome>} */
async function outages() {
  await bundle();
  await issuer();
  await setUpPostgres();
  await requireRedis({ log: path.join(logs, "redis-install.log") });
  const outcome = await runNodeTests("outages", "bin/tests/outages.test.mjs", {});
  const table = fs.readFileSync(path.join(logs, "outages.log"), "utf8").split("\n").filter((row) => /^(# |ℹ )?\|/.test(row));
  say(table.join("\n"));
  return outcome;
}

/** @returns {Promise<Outcome>} */
async function runNodeTests(name, files, env) {
  const log = path.join(logs, `${name}.log`);
  const { status, stdout } = await task("node --test", () =>
    run(modernNode(), ["--test", "--test-reporter=spec", files], {
      cwd: root, env: { ...nodeEnv(), FORCE_COLOR: "0", ...env }, log, allowFailure: true,
    }),
  );
  const count = (word) => Number(new RegExp(`^ℹ ${word} (\\d+)`, "m").exec(stdout)?.[1] ?? 0);
  if (status !== 0) say(lastLines(log, 200));
  return settle(count("pass"), count("fail") + count("cancelled"), count("skipped") + count("todo"), status, "node --test");
}

/** @returns {Promise<Outcome>} */
async function differential() {
  await edge();
  await task("jsonwebtoken in wasm", async (progress) => ({ result: `${((await buildJsonwebtoken(progress)).bytes / 1000).toFixed(1)} KB` }));
  return runNodeTests("differential", "edge-verifier/tests/differential/*.test.mjs", {});
}

/** @returns {Promise<Outcome>} */
async function golden() {
  await task("revoked sets in wasm", async (progress) => {
    const { bytes } = await buildRevocationWasm(progress);
    return { result: `${(bytes / 1000).toFixed(1)} KB` };
  });
  return runNodeTests("golden", "shared/tests/golden/*.test.mjs", {});
}

/** @returns {Promise<Outcome>} */
async function deploy() {
  await task("promtool", async (progress) => shown(await ensurePromtool(progress)));
  await task("Kubernetes' schemas", async (progress) => shown(await ensureKubernetesValidate(progress)));
  await setUpPostgres();
  await requireRedis({ log: path.join(logs, "redis-install.log") });
  await issuer();
  return runNodeTests("deploy", "deploy/tests/*.test.mjs", {});
}

/**
 * An outcome from counts, with everything that isn't a passed test as a failure.
 * @returns {Outcome}
 */
function settle(passed, failed, skipped, status, what) {
  const problems = [];
  if (skipped > 0) problems.push(`${skipped} skipped`);
  if (failed === 0 && status !== 0) problems.push(`${what} ended with status ${status}`);
  if (passed + failed === 0) problems.push("there are no tests");
  return { passed, failed: failed + problems.length, note: problems.join("; ") };
}

/** cargo's output without its progress bars. */
function withoutProgress(text) {
  return text.split("\n").filter((row) => !/^\s*Building \[/.test(row)).join("\n");
}

// Last, since the needs above are values that must be there first.
await runCommand({ name: "bin/test", dir }, async (context) => {
  processes = context.processes;
  return main();
});
