// The revocation hub's object: the shell around the module that is written in Rust (edge-verifier/control).

import { DurableObject } from "cloudflare:workers";
import { makeGlue } from "../build/control/countersign_edge_control_glue.js";
import controlModule from "../build/control/countersign_edge_control_bg.wasm";
import { instantiate } from "../entry/instantiate.ts";
import type { HubEnv } from "./settings.ts";

/** The hub, as wasm-bindgen exports it. */
interface ControlHub {
  fetch(request: Request): Promise<Response>;
}

/** A hub in an instance of its own: what one does to its memory is no other's concern. */
function startHub(state: DurableObjectState, env: object): ControlHub {
  const glue = makeGlue();
  instantiate("countersign_edge_control", controlModule, glue);
  const { RevocationHub } = glue as unknown as { RevocationHub: new (state: DurableObjectState, env: object) => ControlHub };
  return new RevocationHub(state, env);
}

/** How long a hub may take to begin its answer: it holds none back for longer than three seconds. */
const ANSWER_MS = 6_000;

export class RevocationHub extends DurableObject<HubEnv> {
  #hub: ControlHub | undefined;

  override async fetch(request: Request): Promise<Response> {
    this.#hub ??= startHub(this.ctx, this.env);
    const hub = this.#hub;
    // A trap in what the module does later leaves its promise open for ever.
    let timer: number | null = null;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Late()), ANSWER_MS);
    });
    try {
      return await Promise.race([hub.fetch(request), late]);
    } catch (error) {
      // It is in no usable state: the next one begins afresh, from what is stored.
      const isBroken = error instanceof WebAssembly.RuntimeError || error instanceof Late;
      if (isBroken && this.#hub === hub) this.#hub = undefined;
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }
}

class Late extends Error {
  override readonly message = `the hub's module didn't answer within ${ANSWER_MS} ms`;
}
