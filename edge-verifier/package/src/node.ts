// The package on Node.

import { readFileSync } from "node:fs";
import { makeGlue } from "../../build/verifier/countersign_edge_verifier_glue.js";
import { instantiate } from "../../entry/instantiate.ts";
import { type Options, type TokenVerifier, makeVerifier } from "./core.ts";

export type * from "./core.ts";

let compiled: WebAssembly.Module | undefined;

/** A verifier. Throws a TypeError that names every mistake in `options`. Nothing is asked for before it is first used. */
export function createVerifier(options: Options): TokenVerifier {
  return makeVerifier(options, {
    startModule() {
      compiled ??= compile(readFileSync(new URL("./verifier.wasm", import.meta.url)));
      return instantiate("countersign_edge_verifier", compiled, makeGlue());
    },
    background: { waitUntil: (work) => void work.catch(() => undefined) },
    isProcess: true,
  });
}

/** What Workers' types rule out, for Workers can't. */
function compile(bytes: Uint8Array): WebAssembly.Module {
  const Module = WebAssembly.Module as unknown as new (bytes: Uint8Array) => WebAssembly.Module;
  return new Module(bytes);
}
