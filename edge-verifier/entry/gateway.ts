// The gateway: a reverse proxy that lets through what may pass, and tells the upstream who it is.

import { type Admitted, admit } from "./admission.ts";
import { problem } from "./answers.ts";
import { type Isolate, theIsolate } from "./isolate.ts";
import { RoutePolicy } from "./policy.ts";
import { alarm } from "./refresh.ts";
import type { Env } from "./settings.ts";

/** Headers that only the edge may set on a request to the upstream. */
const IDENTITY_PREFIX = "x-countersign-";

export async function gateway(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
  const held = theIsolate(env, request.cf);
  if (held instanceof Response) return held;
  const admitted = await admit(request, held, ctx);
  return admitted instanceof Response ? admitted : forward(request, admitted, held);
}

async function forward(
  request: Request,
  { identity, knowledge }: Admitted,
  held: Isolate,
): Promise<Response> {
  const { settings, revocations } = held;
  const headers = new Headers(request.headers);
  for (const name of [...headers.keys()]) {
    // Many servers take `_` and `-` in header names for the same.
    if (name.replaceAll("_", "-").startsWith(IDENTITY_PREFIX)) headers.delete(name);
  }
  // It names headers for the next hop to drop, and could name ours.
  headers.delete("connection");
  if (!settings.forwardAuthorization) headers.delete("authorization");
  if (held.policy !== undefined) RoutePolicy.dropOverrides(headers);
  if (identity !== undefined) {
    headers.set(`${IDENTITY_PREFIX}issuer`, identity.issuer);
    headers.set(`${IDENTITY_PREFIX}agent`, identity.agent);
    headers.set(`${IDENTITY_PREFIX}tenant`, identity.tenant);
    headers.set(`${IDENTITY_PREFIX}credential`, identity.credential);
    headers.set(`${IDENTITY_PREFIX}agent-type`, identity.agentType);
    headers.set(`${IDENTITY_PREFIX}jti`, identity.jti);
    headers.set(`${IDENTITY_PREFIX}scope`, identity.scope);
    // Decided on knowledge that is older than it should be: the upstream may want to know.
    if (knowledge !== "fresh") headers.set(`${IDENTITY_PREFIX}revocations-age-ms`, String(revocations.ageMs));
    if (knowledge === "unknown") headers.set(`${IDENTITY_PREFIX}revocations`, "unknown");
  }

  try {
    const target = upstreamUrl(request.url, settings.upstream);
    return await fetch(target, {
      method: request.method,
      headers,
      body: request.body,
      redirect: "manual",
      // The zone's cache goes by the URL alone: it would answer one agent with what another one got.
      cache: "no-store",
    });
  } catch (error) {
    alarm("upstream_failed", error);
    return problem(502, "upstream_failed", "The upstream could not be reached.");
  }
}

/** The request's path and query below the upstream's own path. The path is data: it cannot choose the host. */
function upstreamUrl(requested: string, upstream: URL): URL {
  const { pathname, search } = new URL(requested);
  const target = new URL(upstream);
  target.pathname = upstream.pathname.replace(/\/$/, "") + pathname;
  target.search = search;
  return target;
}
