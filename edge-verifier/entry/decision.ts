// Whether a token holds, by what the isolate knows; and what it takes to know enough.

import { unavailable } from "./answers.ts";
import type { KeyFeed } from "./keys.ts";
import type { Background } from "./refresh.ts";
import type { RevocationFeed } from "./revocations.ts";
import type { Readiness, Staleness } from "./staleness.ts";
import type { Verdict, Verifier } from "./verifier.ts";

/** What decides. */
export interface Held {
  readonly verifier: Verifier;
  readonly keys: KeyFeed;
  readonly revocations: RevocationFeed;
}

/** A verdict, and how good the knowledge of revocations was that it was reached with. */
export type Decision = Verdict & { readonly knowledge: Readiness };

/** Decides about a token. A response: it isn't known enough to say yes or no (503). */
export async function decide(
  token: string,
  held: Held,
  ctx: Background,
  staleness?: Staleness,
): Promise<Decision | Response> {
  const { verifier, keys, revocations } = held;
  // In this order: the hub's answer brings the keys too, and then the issuer needn't be asked.
  const knowledge = await revocations.ready(ctx, staleness);
  if (knowledge === "refuse") return unavailable("revocations_unknown", "It is not known at present what is revoked.");
  const hasKeys = await keys.ready(ctx);
  if (!hasKeys) return unavailable("keys_unknown", "The issuer's keys could not be fetched.");

  const verify = async () => ({ ...(await verifier.verify(token, now(), knowledge === "unknown")), knowledge });
  const { changes } = keys;
  const verdict = await verify();
  if (!("refused" in verdict) || verdict.refused.reason !== "unknown_key") return verdict;
  // They may have come meanwhile, by a push or for another request.
  if (keys.changes !== changes) return verify();
  switch (await keys.renewForUnknownKey(ctx)) {
    case "renewed":
      return verify();
    case "failed":
      return unavailable("keys_unknown", "The issuer's keys could not be fetched.");
    case "recent":
      return verdict;
  }
}

function now(): number {
  return Math.floor(Date.now() / 1000);
}
