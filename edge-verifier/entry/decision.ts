// Whether a token holds, by what the isolate knows; and what it takes to know enough.

import { unavailable } from "./answers.ts";
import type { ForeignVerifier, IssuerKeys } from "./issuers.ts";
import type { FetchedKeys, KeyFeed } from "./keys.ts";
import type { Background } from "./refresh.ts";
import type { RevocationFeed } from "./revocations.ts";
import type { Readiness, Staleness } from "./staleness.ts";
import type { Verdict, Verifier } from "./verifier.ts";

/** What decides. */
export interface Held {
  readonly verifier: Verifier;
  readonly keys: KeyFeed;
  readonly revocations: RevocationFeed;
  /** Other issuers, and the keys of each; undefined: none is trusted. */
  readonly foreign: { readonly verifier: ForeignVerifier; readonly keys: readonly IssuerKeys[] } | undefined;
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
  const { verifier, keys, revocations, foreign } = held;
  if (foreign?.verifier.knows(token) === true) {
    const theirs = await decideForeign(token, held, ctx);
    if (theirs !== undefined) return theirs;
  }
  // In this order: the hub's answer brings the keys too, and then the issuer needn't be asked.
  const knowledge = await revocations.ready(ctx, staleness);
  if (knowledge === "refuse") return (await decideForeign(token, held, ctx)) ?? unavailable("revocations_unknown", "It is not known at present what is revoked.");
  const hasKeys = await keys.ready(ctx);
  if (!hasKeys) return (await decideForeign(token, held, ctx)) ?? unavailable("keys_unknown", "The issuer's keys could not be fetched.");

  const verify = async () => ({ ...(await verifier.verify(token, now(), knowledge === "unknown")), knowledge });
  const { changes } = keys;
  const verdict = await verify();
  if (!("refused" in verdict)) return verdict;
  const theirs = await decideForeign(token, held, ctx);
  if (theirs !== undefined) return theirs;
  return settle(verdict, verify, keys, changes, ctx);
}

/**
 * Decides about a token of another trusted issuer; undefined: it is none of theirs. What is revoked says nothing of their tokens, so nothing of it needs to be known. It is
 * the token that names its issuer, and only that one's keys can vouch for it: so it doesn't matter what their keys are called, or that it was looked at as one of ours before.
 */
async function decideForeign(token: string, { foreign }: Held, ctx: Background): Promise<Decision | Response | undefined> {
  const number = foreign?.verifier.issuerOf(token);
  const keys = number === undefined ? undefined : foreign?.keys[number];
  if (foreign === undefined || number === undefined || keys === undefined) return undefined;
  if (!(await keys.ready(ctx))) return unavailable("keys_unknown", "The issuer's keys could not be fetched.");
  const verify = async (): Promise<Decision> => ({ ...(await foreign.verifier.verify(number, token, now())), knowledge: "fresh" });
  const { changes } = keys;
  return settle(await verify(), verify, keys, changes, ctx);
}

/** A verdict as it is, unless what it lacks is a key that the issuer may have by now. `changes`: of the keys, before the verdict. */
async function settle(verdict: Decision, verify: () => Promise<Decision>, keys: FetchedKeys, changes: number, ctx: Background): Promise<Decision | Response> {
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
