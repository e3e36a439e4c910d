// The jsonwebtoken crate in WebAssembly (edge-verifier/bench/jsonwebtoken): a peer to measure beside, and to compare verdicts with.

import path from "node:path";

import { buildModule } from "./build-edge.mjs";
import { edgeBuildDir, root } from "./paths.mjs";
import { ensureWasmBindgen } from "./rust.mjs";

export const jsonwebtokenManifest = path.join(root, "edge-verifier", "bench", "jsonwebtoken", "Cargo.toml");

/**
 * Builds edge-verifier/build/bench-jsonwebtoken/, unless it is up to date.
 * @param {(status: string) => void} [progress]
 */
export async function buildJsonwebtoken(progress = () => {}) {
  const tool = await ensureWasmBindgen((status) => progress(`wasm-bindgen ${status}`));
  const out = path.join(edgeBuildDir, "bench-jsonwebtoken");
  return buildModule({ name: "bench-jsonwebtoken", crate: "countersign-bench-jsonwebtoken", manifest: jsonwebtokenManifest, out, tool, progress });
}
