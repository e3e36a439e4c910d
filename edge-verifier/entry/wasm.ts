// The hot path's WebAssembly module, as wrangler bundles it.

import * as glue from "../build/verifier/countersign_edge_verifier_bg.js";
import module from "../build/verifier/countersign_edge_verifier_bg.wasm";
import { instantiate } from "./instantiate.ts";
import type { VerifierExports } from "./verifier.ts";

/** A fresh instance. */
export function startVerifier(): VerifierExports {
  return instantiate("countersign_edge_verifier", module, glue);
}
