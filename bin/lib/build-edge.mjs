// Builds the edge's two wasm modules, as wrangler's [build] command and for bin/dev and bin/test:
//
//   node bin/lib/build-edge.mjs            edge-verifier/build/{verifier,control}/
//   node bin/lib/build-edge.mjs --bundle   and edge-verifier/build/worker/, the Worker as wrangler uploads it
//
// Each crate is built on its own, because cargo merges the features of crates that it builds together, and the
// hot path must not pay for the control module's. What is up to date isn't made again.

import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import zlib from "node:zlib";

import { duration, line, printFailure } from "./output.mjs";
import { edgeBuildDir, root, toolsDir } from "./paths.mjs";
import { run, stopCommands } from "./processes.mjs";
import { cargo, ensureWasmBindgen, targetDir } from "./rust.mjs";
import { wranglerCommand } from "./npm.mjs";

const MODULES = [
  { name: "verifier", crate: "countersign-edge-verifier", profile: "wasm-fast" },
  { name: "control", crate: "countersign-edge-control", profile: "wasm" },
];

/** The WebAssembly features that rustc uses by default, and SIMD: workerd has them all. */
const FEATURES = ["bulk-memory", "bulk-memory-opt", "multivalue", "mutable-globals", "nontrapping-float-to-int", "reference-types", "sign-ext", "simd", "call-indirect-overlong"]
  .map((name) => `--enable-${name}`);

/**
 * @param {{progress?: (status: string) => void}} [options]
 * @returns {Promise<{built: string[], sizes: {name: string, bytes: number, gzipped: number}[]}>} `built`: what wasn't up to date
 */
export async function buildEdge({ progress = () => {} } = {}) {
  const { program, version } = await ensureWasmBindgen((status) => progress(`wasm-bindgen ${status}`));
  const built = [];
  const sizes = [];
  for (const { name, crate, profile } of MODULES) {
    const module = { name, crate, profile, out: path.join(edgeBuildDir, name), tool: { program, version }, progress };
    const { fresh, bytes, gzipped } = await buildModule(module);
    if (fresh) built.push(name);
    sizes.push({ name, bytes, gzipped });
  }
  return { built, sizes };
}

/**
 * Builds one module, unless it is up to date.
 * @param {{name: string, crate: string, profile?: string, manifest?: string, out: string, tool: {program: string, version: string}, progress: (status: string) => void}} module
 *   `profile`: of Cargo.toml; `manifest`: of a crate that isn't in the workspace
 */
export async function buildModule({ name, crate, profile = "wasm", manifest, out, tool, progress }) {
  const place = manifest ? ["--manifest-path", manifest, "--target-dir", await targetDir()] : ["-p", crate];
  await cargo(["build", "--profile", profile, "--target", "wasm32-unknown-unknown", "--lib", ...place], {
    log: path.join(toolsDir, `build-${name}.log`),
    failure: `the ${name} module doesn't compile`,
    progress: (status) => progress(`${name} ${status}`),
  });
  const file = crate.replaceAll("-", "_");
  const compiled = path.join(await targetDir(), "wasm32-unknown-unknown", profile, `${file}.wasm`);
  const digest = crypto.createHash("sha256").update(fs.readFileSync(compiled)).update(`wasm-bindgen ${tool.version} ${FEATURES}`).digest("hex");
  const stamp = path.join(out, ".built-from");
  const fresh = readIfThere(stamp) !== digest;
  if (fresh) {
    progress(`${name}: bindings`);
    // Made aside, then put in place whole: wrangler may be watching.
    const partial = `${out}.partial-${process.pid}`;
    fs.rmSync(partial, { recursive: true, force: true });
    await run(tool.program, ["--target", "bundler", "--out-dir", partial, "--out-name", file, compiled], {
      fix: "remove edge-verifier/build and .countersign/tools, and run this again",
    });
    progress(`${name}: wasm-opt`);
    const wasm = path.join(partial, `${file}_bg.wasm`);
    await run(process.execPath, [path.join(root, "node_modules", "binaryen", "bin", "wasm-opt"), ...FEATURES, "-Oz", wasm, "-o", `${wasm}.small`], {
      fix: "see that npm's packages are installed: npm install --no-save",
    });
    fs.renameSync(`${wasm}.small`, wasm);
    // wasm-bindgen types what it exports to pages; the entry script uses the glue itself.
    fs.writeFileSync(path.join(partial, `${file}_bg.d.ts`), "export function __wbg_set_wasm(exports: WebAssembly.Exports): void;\n");
    fs.writeFileSync(path.join(partial, ".built-from"), digest);
    fs.rmSync(out, { recursive: true, force: true });
    fs.renameSync(partial, out);
  }
  const bytes = fs.readFileSync(path.join(out, `${file}_bg.wasm`));
  return { fresh, bytes: bytes.length, gzipped: zlib.gzipSync(bytes, { level: 9 }).length };
}

/**
 * Bundles the Worker the way a deployment does, for miniflare: index.js and the wasm modules.
 * @returns {Promise<string>} the folder
 */
export async function bundleEdge() {
  const out = path.join(edgeBuildDir, "worker");
  const partial = `${out}.partial-${process.pid}`;
  fs.rmSync(partial, { recursive: true, force: true });
  const { command, args, env } = wranglerCommand(["deploy", "--dry-run", "--outdir", partial]);
  await run(command, args, { cwd: root, env, log: path.join(toolsDir, "bundle.log"), failure: "wrangler couldn't bundle the Worker" });
  fs.rmSync(out, { recursive: true, force: true });
  fs.renameSync(partial, out);
  return out;
}

/** `verifier 11.3 KB gzipped, control …` */
export function describeSizes(sizes) {
  return sizes.map(({ name, gzipped }) => `${name} ${(gzipped / 1000).toFixed(1)} KB gz`).join(", ");
}

function readIfThere(file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  for (const name of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"])) {
    process.once(name, () => stopCommands().then(() => process.exit(1)));
  }
  try {
    const started = Date.now();
    const { built, sizes } = await buildEdge();
    line("ok", "edge modules", `${built.length ? `built ${built.join(", ")}` : "up to date"}: ${describeSizes(sizes)}`, Date.now() - started);
    if (process.argv.includes("--bundle")) {
      const bundling = Date.now();
      await bundleEdge();
      line("ok", "edge bundle", "edge-verifier/build/worker", Date.now() - bundling);
    }
  } catch (error) {
    printFailure(error);
    process.exitCode = 1;
  }
}
