// The way to the revocation hub: a Durable Object written in Rust (edge-verifier/control), and the door in front of it.

import { DurableObject } from "cloudflare:workers";
import { problem } from "./answers.ts";
import type { Env } from "./settings.ts";
import { type ControlHub, startControl } from "./wasm.ts";

let control: ReturnType<typeof startControl> | undefined;

export class RevocationHub extends DurableObject<Env> {
  #hub: ControlHub;

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    control ??= startControl();
    this.#hub = new control.RevocationHub(state, env);
  }

  override async fetch(request: Request): Promise<Response> {
    try {
      return await this.#hub.fetch(request);
    } catch (error) {
      // A trap leaves the module in no usable state: begin afresh, from what is stored.
      if (error instanceof WebAssembly.RuntimeError) {
        control = startControl();
        this.#hub = new control.RevocationHub(this.ctx, this.env);
      }
      throw error;
    }
  }
}

/** None is longer (MAX_HEAD_BYTES in shared/src/revocation/head.rs, MAX_KEY_STATEMENT_BYTES in shared/src/key_statement.rs). */
const MAX_KIB = { head: 256, keys: 96 };

/** `PUT /_countersign/hub/head` and `…/keys`: lets the issuer through to the hub, and nobody else. What it brings, the hub checks. */
export async function push(what: keyof typeof MAX_KIB, request: Request, env: Env): Promise<Response> {
  if (request.method !== "PUT") {
    return problem(405, "method_not_allowed", "The hub takes heads and key statements by PUT.", { allow: "PUT" });
  }
  if (!env.HUB_PUSH_SECRET) return problem(503, "misconfigured", "HUB_PUSH_SECRET is not set.");
  if (!(await isEqual(request.headers.get("authorization") ?? "", `Bearer ${env.HUB_PUSH_SECRET}`))) {
    return problem(401, "unauthorized", "The push secret is missing or wrong.", { "www-authenticate": "Bearer" });
  }
  if (Number(request.headers.get("content-length") ?? Infinity) > MAX_KIB[what] * 1024) {
    return problem(413, "payload_too_large", `What is pushed here has at most ${MAX_KIB[what]} KiB and says its length.`);
  }
  return env.REVOCATION_HUB.get(env.REVOCATION_HUB.idFromName("global")).fetch(`https://hub/${what}`, request);
}

/** Compares in a time that depends on neither value: digests have one length. */
async function isEqual(a: string, b: string): Promise<boolean> {
  const [left, right] = await Promise.all(
    [a, b].map((text) => crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))),
  );
  return crypto.subtle.timingSafeEqual(left as ArrayBuffer, right as ArrayBuffer);
}
