// The gateway: a reverse proxy that lets through what may pass, and tells the upstream who it is.

import { type Admitted, admit } from "./admission.ts";
import { REQUEST_ID, problem } from "./answers.ts";
import { ASSERTION_HEADER, identityHeaders, isOurs } from "./identity.ts";
import { type Isolate, misconfigured, theIsolate } from "./isolate.ts";
import { RoutePolicy } from "./policy.ts";
import { alarm } from "./refresh.ts";
import type { Env } from "./settings.ts";
import { bounded } from "./websocket.ts";

/** What concerns one connection only (RFC 9110 §7.6.1). */
const HOP_BY_HOP = ["connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"];

/** `id`: the request's. */
export async function gateway(request: Request, env: Env, ctx: ExecutionContext, id: string): Promise<Response> {
  const held = theIsolate(env, request.cf, id);
  if (held instanceof Response) return held;
  if (held.settings.upstream === undefined && env.UPSTREAM === undefined) {
    return misconfigured("UPSTREAM_URL is not set, nor is UPSTREAM bound: where accepted requests go", id);
  }
  const admitted = await admit("gateway", request, held, ctx, id);
  return admitted instanceof Response ? admitted : forward({ request, admitted, held, env, ctx, id });
}

interface Passing {
  readonly request: Request;
  readonly admitted: Admitted;
  readonly held: Isolate;
  readonly env: Env;
  readonly ctx: ExecutionContext;
  readonly id: string;
}

async function forward({ request, admitted, held, env: { UPSTREAM: binding }, ctx, id }: Passing): Promise<Response> {
  const { settings, revocations } = held;
  const { method } = request;
  const target = upstreamUrl(request.url, settings.upstream);
  const headers = new Headers(request.headers);
  const isWebSocket = headers.get("upgrade")?.toLowerCase() === "websocket";
  // A client may name headers of its own for the next hop to drop; ours come later.
  const named = new Set(headers.get("connection")?.toLowerCase().split(",").map((name) => name.trim()));
  for (const name of [...headers.keys()]) {
    if (isOurs(name) || HOP_BY_HOP.includes(name) || named.has(name)) headers.delete(name);
  }
  if (isWebSocket) headers.set("upgrade", "websocket");
  if (!settings.forwardAuthorization) headers.delete("authorization");
  if (held.policy !== undefined) RoutePolicy.dropOverrides(headers);
  for (const [name, value] of identityHeaders(admitted, held)) headers.set(name, value);
  headers.set(REQUEST_ID, id);

  try {
    const about = { admitted, method, target: target.pathname + target.search, requestId: id, ageMs: revocations.ageMs };
    const assertion = await settings.assertions?.sign(about);
    if (assertion !== undefined) headers.set(ASSERTION_HEADER, assertion);
    const asked = {
      method,
      headers,
      body: request.body,
      redirect: "manual",
      // The zone's cache goes by the URL alone: it would answer one agent with what another one got.
      cache: "no-store",
    } as const;
    const answer = await (binding === undefined ? fetch(target, asked) : binding.fetch(target, asked));
    if (answer.webSocket !== null && admitted.by !== undefined && settings.endsWebSockets) {
      const webSocket = bounded(answer.webSocket, { ...admitted.by, requestId: id }, held, ctx);
      return new Response(null, { status: 101, headers: answer.headers, webSocket });
    }
    // Whoever fetched it can't change it. A WebSocket goes along.
    const passed = new Response(answer.body, answer);
    if (answer.webSocket === null) for (const name of HOP_BY_HOP) passed.headers.delete(name);
    return passed;
  } catch (error) {
    alarm("upstream_failed", error, id);
    return problem(502, "upstream_failed", "The upstream could not be reached.");
  }
}

/** The request's path and query below the upstream's own path. The path is data: it cannot choose the host. */
function upstreamUrl(requested: string, upstream: URL | undefined): URL {
  if (upstream === undefined) return new URL(requested);
  const { pathname, search } = new URL(requested);
  const target = new URL(upstream);
  target.pathname = upstream.pathname.replace(/\/$/, "") + pathname;
  target.search = search;
  return target;
}
