// Middleware for Hono.

import type { Context, MiddlewareHandler } from "hono";
import type { Accepted, Needs, Rejected, TokenVerifier } from "./core.ts";

/** What handlers find: `c.var.countersign`. */
export interface Variables {
  readonly countersign: Accepted;
}

/**
 * Lets through who has a token that holds and has what is `needed`; answers everybody else with problem details (RFC 9457) and a challenge
 * (RFC 6750 §3). `verifier`: one, or a function that finds it, where it takes the request's bindings to make it; it must find the same each time.
 */
export function countersign<Bindings extends object = object>(
  verifier: TokenVerifier | ((context: Context<{ Bindings: Bindings }>) => TokenVerifier),
  needed: Needs = {},
): MiddlewareHandler<{ Bindings: Bindings; Variables: Variables }> {
  return async (context, next) => {
    const one = typeof verifier === "function" ? verifier(context as never) : verifier;
    const outcome = await one.authenticate(context.req.raw, needed);
    if (!outcome.ok) return refuse(outcome);
    context.set("countersign", outcome);
    return next();
  };
}

function refuse({ status, reason, description, challenge }: Rejected): Response {
  const headers = new Headers({ "content-type": "application/problem+json", "cache-control": "no-store" });
  if (challenge !== undefined) headers.set("www-authenticate", challenge);
  if (status === 503) headers.set("retry-after", "1");
  return new Response(JSON.stringify({ type: "about:blank", status, code: reason, detail: description }), { status, headers });
}
