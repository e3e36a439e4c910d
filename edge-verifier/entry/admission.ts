// Whether a request may pass: route → token → decision → what the route needs. Whoever stands in front of an API asks here.

import { Problem, problem, unavailable } from "./answers.ts";
import { bearerToken } from "./bearer.ts";
import { type Decision, decide } from "./decision.ts";
import { type Isolate, attempt, failed } from "./isolate.ts";
import { type Decided, type Way, metrics, outcomeOf } from "./metrics.ts";
import { resourceOf } from "./resource.ts";
import type { Readiness, Staleness } from "./staleness.ts";
import type { Identity } from "./verifier.ts";

/** What is decided about. `url` is absolute. */
export interface Asked {
  readonly method: string;
  readonly url: string;
  readonly headers: Headers;
}

/** A request that may pass. */
export interface Admitted {
  /** Undefined: nobody was asked who they are. */
  readonly identity: Identity | undefined;
  /** How good the knowledge of revocations was that it was decided with. */
  readonly knowledge: Readiness;
  /** With what it was decided, and by which bounds; undefined with the identity. */
  readonly by?: { readonly token: string; readonly staleness: Staleness | undefined };
}

/** Lets a request pass, or says what to answer it. `id`: the request's, for the log. */
export async function admit(way: Way, asked: Asked, held: Isolate, ctx: ExecutionContext, id: string): Promise<Admitted | Response> {
  const began = Date.now();
  const outcome = await admission(asked, held, ctx, id);
  metrics.decided({ way, ...said(outcome), ms: Date.now() - began }, held);
  if (!(outcome instanceof Problem) || outcome.challenge === undefined) return outcome;
  const resource = resourceOf(asked.url, held.settings.resources);
  return resource === undefined ? outcome : outcome.pointTo(resource.metadata);
}

function said(outcome: Admitted | Response): Pick<Decided, "outcome" | "reason"> {
  if (!(outcome instanceof Response)) return { outcome: outcome.identity === undefined ? "anonymous" : "accepted", reason: "" };
  return { outcome: outcomeOf(outcome.status), reason: outcome instanceof Problem ? outcome.reason : "" };
}

async function admission(asked: Asked, held: Isolate, ctx: ExecutionContext, id: string): Promise<Admitted | Response> {
  const route = attempt(held, () => held.policy?.decide(asked), id);
  if (route instanceof Response) return route;
  if (route?.anonymous === true) return { identity: undefined, knowledge: "fresh" };

  const token = bearerToken(asked);
  if (token instanceof Response) return token;

  let decision: Decision | Response;
  try {
    decision = await decide(token, held, ctx, route?.staleness);
  } catch (error) {
    return failed(held, error, id);
  }
  if (decision instanceof Response) return decision;
  if ("refused" in decision) {
    const { challenge, description } = decision.refused;
    if (challenge === "") return unavailable("revocations_unknown", "It is not known at present what is revoked.");
    return problem(401, "invalid_token", `${description}.`, { "www-authenticate": challenge }).because(decision.refused.reason);
  }
  const { identity, knowledge } = decision;
  const refused = route && attempt(held, () => held.policy?.refusal(route, identity), id);
  return refused ?? { identity, knowledge, by: { token, staleness: route?.staleness } };
}
