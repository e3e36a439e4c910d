// Whether a request may pass: route → token → decision → what the route needs. Whoever stands in front of an API asks here.

import { Problem, problem, unavailable } from "./answers.ts";
import { type Decision, decide } from "./decision.ts";
import { type Isolate, attempt, failed } from "./isolate.ts";
import { resourceOf } from "./resource.ts";
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

/** Lets a request pass, or says what to answer it. `id`: the request's, for the log. */
export async function admit(asked: Asked, held: Isolate, ctx: ExecutionContext, id: string): Promise<Admitted | Response> {
  const outcome = await admission(asked, held, ctx, id);
  if (!(outcome instanceof Problem) || outcome.challenge === undefined) return outcome;
  const resource = resourceOf(asked.url, held.settings.resources);
  return resource === undefined ? outcome : outcome.pointTo(resource.metadata);
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
    return problem(401, "invalid_token", `${description}.`, { "www-authenticate": challenge });
  }
  const { identity, knowledge } = decision;
  const refused = route && attempt(held, () => held.policy?.refusal(route, identity), id);
  return refused ?? { identity, knowledge };
}

/** The token in the header, which is the only place that it is taken from (RFC 6750 §2.1); or what to answer. */
function bearerToken({ url, headers }: Asked): string | Response {
  const header = headers.get("authorization");
  if (hasTokenInQuery(url)) {
    return malformed(`The token belongs into the Authorization header${header === null ? ", not into the URL" : " only"}`);
  }
  if (header === null || !/^bearer(?: |$)/i.test(header)) {
    // Several headers come as one, with commas between them.
    if (/,\s*bearer /i.test(header ?? "")) return malformed("There is more than one Authorization header");
    const challenge = { "www-authenticate": "Bearer" };
    return problem(401, "unauthorized", "This API needs an access token (Authorization: Bearer).", challenge);
  }
  return /^bearer +([A-Za-z0-9\-._~+/]+=*)$/i.exec(header)?.[1] ?? malformed("The Authorization header is malformed");
}

/** RFC 6750 §2.3. Such a URL ends up in logs; and an upstream may go by that token, when another one was decided about. */
function hasTokenInQuery(url: string): boolean {
  // Mostly that settles it, without taking the query apart.
  if (!/[?&](?:access_token|[^=&]*%)/.test(url)) return false;
  return new URL(url).searchParams.has("access_token");
}

function malformed(description: string): Problem {
  const challenge = `Bearer error="invalid_request", error_description="${description}"`;
  return problem(400, "invalid_request", `${description}.`, { "www-authenticate": challenge });
}
