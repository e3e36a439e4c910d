// The package in a Worker.

import { waitUntil } from "cloudflare:workers";
import { makeGlue } from "../../build/verifier/countersign_edge_verifier_glue.js";
import module from "../../build/verifier/countersign_edge_verifier_bg.wasm";
import { instantiate } from "../../entry/instantiate.ts";
import { type Options, type TokenVerifier, makeVerifier } from "./core.ts";

export type * from "./core.ts";

/** A verifier. Throws a TypeError that names every mistake in `options`. Nothing is asked for before it is first used. */
export function createVerifier(options: Options): TokenVerifier {
  return makeVerifier(options, {
    startModule: () => instantiate("countersign_edge_verifier", module, makeGlue()),
    background: { waitUntil },
    isProcess: false,
  });
}
