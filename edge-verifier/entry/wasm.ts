// The WebAssembly modules, as wrangler bundles them.

import { makeGlue } from "../build/control/countersign_edge_control_glue.js";
import controlModule from "../build/control/countersign_edge_control_bg.wasm";
import * as verifierGlue from "../build/verifier/countersign_edge_verifier_bg.js";
import verifierModule from "../build/verifier/countersign_edge_verifier_bg.wasm";
import { instantiate } from "./instantiate.ts";
import type { VerifierExports } from "./verifier.ts";

/** A fresh instance of the hot path's module. */
export function startVerifier(): VerifierExports {
  return instantiate("countersign_edge_verifier", verifierModule, verifierGlue);
}

/** The hub, as wasm-bindgen exports it. */
export interface ControlHub {
  fetch(request: Request): Promise<Response>;
}

/** A hub in an instance of its own: what one does to its memory is no other's concern. */
export function startHub(state: DurableObjectState, env: object): ControlHub {
  const glue = makeGlue();
  instantiate("countersign_edge_control", controlModule, glue);
  const { RevocationHub } = glue as unknown as { RevocationHub: new (state: DurableObjectState, env: object) => ControlHub };
  return new RevocationHub(state, env);
}
