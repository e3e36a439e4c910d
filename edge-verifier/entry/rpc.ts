// Verification for other Workers, by a call through a service binding: no HTTP, no secret, and nothing of it is reachable from outside.

import { WorkerEntrypoint } from "cloudflare:workers";
import { Problem } from "./answers.ts";
import { failed, theIsolate } from "./isolate.ts";
import { metrics, outcomeOf } from "./metrics.ts";
import type { Env } from "./settings.ts";
import { type Needs, type Verification, rejectedBy, verification } from "./verification.ts";

/** The entrypoint that other Workers bind: `entrypoint = "TokenVerifier"`. */
export class TokenVerifier extends WorkerEntrypoint<Env> {
  /** Decides about a token; null or undefined: there is none. Throws a TypeError for needs that make no sense. */
  async verify(token: string | null | undefined, needs: Needs = {}): Promise<Verification> {
    const held = theIsolate(this.env, undefined);
    if (held instanceof Response) return rejectedBy(held as Problem);
    const { resources } = held.settings;
    const meant = resources.find(({ id }) => [needs.audience ?? []].flat().includes(id)) ?? resources[0];
    try {
      const began = Date.now();
      const verified = await verification(token, needs, held, this.ctx, meant?.metadata);
      const said = verified.ok ? { outcome: "accepted" as const, reason: "" } : { outcome: outcomeOf(verified.status), reason: verified.reason };
      metrics.decided({ way: "rpc", ...said, ms: Date.now() - began }, held);
      return verified;
    } catch (error) {
      if (error instanceof TypeError) throw error;
      return rejectedBy(failed(held, error) as Problem);
    }
  }
}
