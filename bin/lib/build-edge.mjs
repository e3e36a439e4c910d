// Builds the edge's two wasm modules, as wrangler's [build] command and for bin/dev and bin/test:
//
//   node bin/lib/build-edge.mjs            edge-verifier/build/{verifier,control}/
//   node bin/lib/build-edge.mjs NAME       only that one
//   node bin/lib/build-edge.mjs --bundle   and edge-verifier/build/{worker,hub-worker}/, the Workers as wrangler uploads them
//
// Each crate is built on its own, because cargo merges the features of crates that it builds together, and the
// hot path must not pay for the control module's. What is up to date isn't made again.

import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import zlib from "node:zlib";

import { Problem, line, printFailure } from "./output.mjs";
import { edgeBuildDir, root, toolsDir } from "./paths.mjs";
import { run, stopCommands } from "./processes.mjs";
import { cargo, ensureWasmBindgen, targetDir } from "./rust.mjs";
import { wranglerCommand } from "./npm.mjs";

/** The compiler copies less of what is called into what calls it: a ninth smaller, and what the module does of a verification a tenth slower (5.6 µs for 5.1, of some 31 with RS256). */
const SPARING = { RUSTFLAGS: "-C llvm-args=-inline-threshold=25" };

const MODULES = [
  { name: "verifier", crate: "countersign-edge-verifier", profile: "wasm-fast", env: SPARING },
  { name: "control", crate: "countersign-edge-control", profile: "wasm" },
];

/** The WebAssembly features that rustc uses by default, and SIMD: workerd has them all. */
const FEATURES = ["bulk-memory", "bulk-memory-opt", "multivalue", "mutable-globals", "nontrapping-float-to-int", "reference-types", "sign-ext", "simd", "call-indirect-overlong"]
  .map((name) => `--enable-${name}`);

/** The Workers made with them, each with what wrangler is told about it. */
const WORKERS = [
  { out: "worker", config: "wrangler.toml" },
  { out: "hub-worker", config: path.join("edge-verifier", "hub", "wrangler.toml") },
];

/**
 * @param {{progress?: (status: string) => void, only?: string}} [options] `only`: the name of one module
 * @returns {Promise<{built: string[], sizes: {name: string, bytes: number, gzipped: number}[]}>} `built`: what wasn't up to date
 */
export async function buildEdge({ progress = () => {}, only } = {}) {
  const { program, version } = await ensureWasmBindgen((status) => progress(`wasm-bindgen ${status}`));
  const built = [];
  const sizes = [];
  for (const { name, crate, profile, env } of MODULES) {
    if (only !== undefined && name !== only) continue;
    const module = { name, crate, profile, env, out: path.join(edgeBuildDir, name), tool: { program, version }, progress };
    const { fresh, bytes, gzipped } = await buildModule(module);
    if (fresh) built.push(name);
    sizes.push({ name, bytes, gzipped });
  }
  return { built, sizes };
}

/**
 * Builds one module, unless it is up to date.
 * @param {{name: string, crate: string, profile?: string, env?: Record<string, string>, manifest?: string, out: string, tool: {program: string, version: string}, progress: (status: string) => void}} module
 *   `profile`: of Cargo.toml; `env`: for cargo; `manifest`: of a crate that isn't in the workspace
 */
export async function buildModule({ name, crate, profile = "wasm", env, manifest, out, tool, progress }) {
  const place = manifest ? ["--manifest-path", manifest, "--target-dir", await targetDir()] : ["-p", crate];
  await cargo(["build", "--profile", profile, "--target", "wasm32-unknown-unknown", "--lib", ...place], {
    log: path.join(toolsDir, `build-${name}.log`),
    failure: `the ${name} module doesn't compile`,
    ...(env && { env }),
    progress: (status) => progress(`${name} ${status}`),
  });
  const file = crate.replaceAll("-", "_");
  const compiled = path.join(await targetDir(), "wasm32-unknown-unknown", profile, `${file}.wasm`);
  const digest = crypto.createHash("sha256").update(fs.readFileSync(compiled)).update(`wasm-bindgen ${tool.version} ${FEATURES} glue 2`).digest("hex");
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
    await writeGlueFactory(partial, file);
    fs.writeFileSync(path.join(partial, ".built-from"), digest);
    fs.rmSync(out, { recursive: true, force: true });
    fs.renameSync(partial, out);
  }
  const bytes = fs.readFileSync(path.join(out, `${file}_bg.wasm`));
  return { fresh, bytes: bytes.length, gzipped: zlib.gzipSync(bytes, { level: 9 }).length };
}

/**
 * wasm-bindgen's glue remembers the memory of one instance. An instance that takes the place of a failed one needs glue of its own: what the failed one left
 * behind would go on in the new one's memory otherwise.
 */
async function writeGlueFactory(folder, file) {
  const esbuild = await import("esbuild");
  const { outputFiles } = await esbuild.build({
    entryPoints: [path.join(folder, `${file}_bg.js`)], bundle: true, write: false, format: "iife", globalName: "glue", target: "es2024", logLevel: "error",
  });
  const factory = `// Made by bin/lib/build-edge.mjs.\nexport function makeGlue() {\n${outputFiles[0].text}return glue;\n}\n`;
  fs.writeFileSync(path.join(folder, `${file}_glue.js`), factory);
  const types = "/** The glue of wasm-bindgen, for one instance. */\nexport function makeGlue(): { __wbg_set_wasm(exports: WebAssembly.Exports): void };\n";
  fs.writeFileSync(path.join(folder, `${file}_glue.d.ts`), types);
}

/**
 * Bundles the Workers the way a deployment does, for miniflare: of each index.js and its wasm modules.
 * @returns {Promise<string>} the folder of the edge's
 */
export async function bundleEdge() {
  for (const { out, config } of WORKERS) {
    const folder = path.join(edgeBuildDir, out);
    const partial = `${folder}.partial-${process.pid}`;
    fs.rmSync(partial, { recursive: true, force: true });
    const { command, args, env } = wranglerCommand(["deploy", "--dry-run", "--env", "", "--config", config, "--outdir", partial]);
    await run(command, args, { cwd: root, env, log: path.join(toolsDir, `bundle-${out}.log`), failure: `wrangler couldn't bundle ${config}` });
    fs.rmSync(folder, { recursive: true, force: true });
    fs.renameSync(partial, folder);
  }
  return path.join(edgeBuildDir, "worker");
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
    const only = process.argv.slice(2).find((argument) => !argument.startsWith("--"));
    if (only !== undefined && !MODULES.some(({ name }) => name === only)) {
      throw new Problem(`there is no module ${only}`, { fix: `one of ${MODULES.map(({ name }) => name).join(", ")}` });
    }
    const { built, sizes } = await buildEdge({ ...(only && { only }) });
    line("ok", "edge modules", `${built.length ? `built ${built.join(", ")}` : "up to date"}: ${describeSizes(sizes)}`, Date.now() - started);
    if (process.argv.includes("--bundle")) {
      const bundling = Date.now();
      await bundleEdge();
      line("ok", "edge bundles", "edge-verifier/build/{worker,hub-worker}", Date.now() - bundling);
    }
  } catch (error) {
    printFailure(error);
    process.exitCode = 1;
  }
}
