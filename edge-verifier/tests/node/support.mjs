// The verifier's module under Node.

import { readFileSync } from "node:fs";
import * as glue from "../../build/verifier/countersign_edge_verifier_bg.js";
import { Verifier } from "../../entry/verifier.ts";

const wasm = readFileSync(new URL("../../build/verifier/countersign_edge_verifier_bg.wasm", import.meta.url));

/** What the module exports, of a fresh instance. */
export function newExports() {
  const name = "./countersign_edge_verifier_bg.js";
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(wasm), { [name]: glue });
  glue.__wbg_set_wasm(exports);
  exports.__wbindgen_start();
  return exports;
}

/** `through`: makes of the module's functions those that are to be called. */
export const newVerifier = (through = (exports) => exports) => new Verifier(through(newExports()));
