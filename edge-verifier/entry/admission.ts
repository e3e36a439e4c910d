// Whether a request may pass: route → token → decision → what the route needs. Whoever stands in front of an API asks here.

import { problem, unavailable } from "./answers.ts";
import { type Decision, decide } from "./decision.ts";
import { type Isolate, attempt, failed } from "./isolate.ts";
import type { Readiness } from "./staleness.ts";
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
}

/** Lets a request pass, or says what to answer it. */
export async function admit(request: Asked, held: Isolate, ctx: ExecutionContext): Promise<Admitted | Response> {
  const route = attempt(held, () => held.policy?.decide(request));
  if (route instanceof Response) return route;
  if (route?.anonymous === true) return { identity: undefined, knowledge: "fresh" };

  const token = bearerToken(request.headers);
  if (token === undefined) {
    // RFC 9449 §7.1. Taken as a bearer token it would be worth more than its issuer meant.
    if (/^dpop(?: |$)/i.test(request.headers.get("authorization") ?? "")) {
      const detail = "This API takes no DPoP proofs (RFC 9449): it needs an access token that is not bound to a key (Authorization: Bearer).";
      return problem(401, "dpop_not_supported", detail, { "www-authenticate": "Bearer" });
    }
    const challenge = { "www-authenticate": "Bearer" };
    return problem(401, "unauthorized", "This API needs an access token (Authorization: Bearer).", challenge);
  }
  if (token === null) {
    const description = "The Authorization header is malformed";
    const challenge = `Bearer error="invalid_request", error_description="${description}"`;
    return problem(400, "invalid_request", `${description}.`, { "www-authenticate": challenge });
  }

  let decision: Decision | Response;
  try {
    decision = await decide(token, held, ctx, route?.staleness);
  } catch (error) {
    return failed(held, error);
  }
  if (decision instanceof Response) return decision;
  if ("refused" in decision) {
    const { challenge, description } = decision.refused;
    if (challenge === "") return unavailable("revocations_unknown", "It is not known at present what is revoked.");
    return problem(401, "invalid_token", `${description}.`, { "www-authenticate": challenge });
  }
  const { identity, knowledge } = decision;
  const refused = route && attempt(held, () => held.policy?.refusal(route, identity));
  return refused ?? { identity, knowledge };
}

/** The token; undefined if the request has none; null if the header is not what RFC 6750 §2.1 says. */
function bearerToken(headers: Headers): string | undefined | null {
  const header = headers.get("authorization");
  if (header === null || !/^bearer(?: |$)/i.test(header)) return undefined;
  return /^bearer +([A-Za-z0-9\-._~+/]+=*)$/i.exec(header)?.[1] ?? null;
}
