// The Rust side of set-up: the toolchain, cargo with its progress, wasm-bindgen's program.

import fs from "node:fs";
import path from "node:path";

import { Problem } from "./output.mjs";
import { root, toolsDir } from "./paths.mjs";
import { run } from "./processes.mjs";

const WASM = "wasm32-unknown-unknown";

/**
 * cargo's environment. issuer/build.rs has the queries checked against the committed data, unless SQLX_OFFLINE says otherwise: a user's
 * DATABASE_URL is for running, and mustn't decide what compiles.
 */
const { SQLX_OFFLINE: _, ...inherited } = process.env;
const cargoEnv = { ...inherited, CARGO_TERM_PROGRESS_WHEN: "always", CARGO_TERM_PROGRESS_WIDTH: "80", CARGO_TERM_COLOR: "never" };

/**
 * Checks the toolchain and adds what rust-toolchain.toml asks for.
 * @returns {Promise<string>} the compiler's version
 */
export async function ensureRust() {
  const fix = "install Rust with rustup (https://rustup.rs), or run: rustup update stable";
  // The first cargo or rustc call lets rustup install the toolchain of rust-toolchain.toml.
  const { stdout } = await run("rustc", ["--version"], { cwd: root, failure: "rustc doesn't run", fix });
  const version = /(\d+)\.(\d+)\.\d+/.exec(stdout);
  const needed = /rust-version = "(\d+)\.(\d+)"/.exec(fs.readFileSync(path.join(root, "Cargo.toml"), "utf8"));
  if (version && needed) {
    const [, major, minor] = version.map(Number);
    const [, neededMajor, neededMinor] = needed.map(Number);
    if (major < neededMajor || (major === neededMajor && minor < neededMinor)) {
      throw new Problem(`Rust ${version[0]} is too old: ${neededMajor}.${neededMinor} or newer is needed`, { fix: "rustup update stable" });
    }
  }
  const libraries = async (target) => {
    const { stdout: folder } = await run("rustc", ["--print", "target-libdir", "--target", target], { cwd: root });
    return fs.existsSync(folder.trim());
  };
  if (!(await libraries(WASM))) {
    await run("rustup", ["target", "add", WASM], { cwd: root, failure: `Rust's target ${WASM} is missing and rustup couldn't add it`, fix: `rustup target add ${WASM}` });
  }
  return version?.[0] ?? stdout.trim();
}

/** Checks that clippy and rustfmt are there, adding them where rustup can. */
export async function ensureRustComponents() {
  for (const [component, ...command] of [["clippy", "clippy"], ["rustfmt", "fmt"]]) {
    const { status } = await run("cargo", [...command, "--version"], { cwd: root, allowFailure: true });
    if (status === 0) continue;
    await run("rustup", ["component", "add", component], { cwd: root, failure: `${component} is missing and rustup couldn't add it`, fix: `rustup component add ${component}` });
  }
}

/** Fails if there is no C compiler or no make: several crates build C code. */
export async function requireCCompiler() {
  for (const [what, program] of [["C compiler", process.env.CC || "cc"], ["make", "make"]]) {
    const { status } = await run(program, ["--version"], { allowFailure: true }).catch(() => ({ status: 127 }));
    if (status !== 0) {
      throw new Problem(`there is no ${what} (${program}), which some crates need`, { fix: "install one (Debian: apt-get install build-essential; macOS: xcode-select --install)" });
    }
  }
}

/**
 * Runs cargo, reporting how far it is.
 * @param {string[]} args
 * @param {{env?: NodeJS.ProcessEnv, cwd?: string, log: string, failure: string, fix?: string, progress?: (status: string) => void, show?: boolean, allowFailure?: boolean}} options
 * @returns {Promise<{compiled: number, stdout: string, stderr: string, status: number}>} `compiled`: how many crates weren't up to date
 */
export async function cargo(args, { progress = () => {}, env = {}, cwd = root, ...options }) {
  let compiled = 0;
  let partial = "";
  const result = await run("cargo", args, {
    cwd,
    env: { ...cargoEnv, ...env },
    ...options,
    onText: (text) => {
      // A progress bar ends with a carriage return, and cargo writes a line in pieces.
      const rows = (partial + text).split(/[\r\n]/);
      partial = rows.pop() ?? "";
      for (const row of rows) if (/^\s*(?:Compiling|Checking) \S+ v/.test(row)) compiled += 1;
      const bar = [...text.matchAll(/\] (\d+\/\d+)/g)].at(-1);
      if (bar) progress(bar[1]);
    },
  });
  return { compiled, ...result };
}

let metadata;

/** The folder that cargo builds into, which the user may have moved. */
export async function targetDir() {
  metadata ??= run("cargo", ["metadata", "--format-version=1", "--no-deps"], { cwd: root });
  return JSON.parse((await metadata).stdout).target_directory;
}

/** The version of wasm-bindgen in Cargo.lock: the program must be the same as the crate. */
function wasmBindgenVersion() {
  const lock = path.join(root, "Cargo.lock");
  const match = fs.existsSync(lock) && /name = "wasm-bindgen"\nversion = "([^"]+)"/.exec(fs.readFileSync(lock, "utf8"));
  if (!match) throw new Problem("Cargo.lock doesn't name wasm-bindgen", { fix: "run cargo metadata, and commit Cargo.lock" });
  return match[1];
}

/**
 * wasm-bindgen's program, installed into the project on first use.
 * @param {(status: string) => void} [progress]
 * @returns {Promise<{program: string, version: string, installed: boolean}>} `installed`: just now
 */
export async function ensureWasmBindgen(progress) {
  const version = wasmBindgenVersion();
  const folder = path.join(toolsDir, `wasm-bindgen-${version}`);
  const program = path.join(folder, "bin", "wasm-bindgen");
  if (fs.existsSync(program)) return { program, version, installed: false };
  // cargo puts the program there only when it is complete.
  await cargo(["install", "wasm-bindgen-cli", "--version", version, "--root", folder, "--force"], {
    cwd: toolsDirMade(),
    log: path.join(toolsDir, "wasm-bindgen-install.log"),
    failure: `wasm-bindgen-cli ${version} couldn't be installed`,
    progress,
  });
  return { program, version, installed: true };
}

function toolsDirMade() {
  fs.mkdirSync(toolsDir, { recursive: true });
  return toolsDir;
}
