// The revoked set in WebAssembly, for bin/bench revocation and the golden files: built as the edge's modules are, from shared/bench.

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

import { buildModule } from "./build-edge.mjs";
import { edgeBuildDir, root } from "./paths.mjs";
import { ensureWasmBindgen } from "./rust.mjs";

const CRATE = "countersign-revocation-bench";
const FILE = CRATE.replaceAll("-", "_");
const OUT = path.join(edgeBuildDir, "revocation-bench");

/** The crate, which isn't in the workspace. */
export const benchManifest = path.join(root, "shared", "bench", "Cargo.toml");

/** @param {(status: string) => void} [progress] */
export async function buildRevocationWasm(progress = () => {}) {
  const tool = await ensureWasmBindgen((status) => progress(`wasm-bindgen ${status}`));
  return buildModule({ name: "revocation-bench", crate: CRATE, manifest: benchManifest, out: OUT, tool, progress });
}

let instances = 0;

/** The module's functions (shared/bench/src/lib.rs), in an instance of its own. It must have been built. */
export async function loadRevocationWasm() {
  const name = `./${FILE}_bg.js`;
  // The glue remembers its instance's memory, so each has its own.
  const glue = await import(`${pathToFileURL(path.join(OUT, name)).href}?${instances++}`);
  // Node's types leave it out.
  const { WebAssembly } = /** @type {any} */ (globalThis);
  const module = await WebAssembly.compile(fs.readFileSync(path.join(OUT, `${FILE}_bg.wasm`)));
  const { exports } = await WebAssembly.instantiate(module, { [name]: glue });
  glue.__wbg_set_wasm(exports);
  exports.__wbindgen_start();
  return glue;
}
