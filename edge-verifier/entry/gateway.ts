// The way of a request: route → token → decision → upstream.

import { problem, unavailable } from "./answers.ts";
import { KeyFeed } from "./keys.ts";
import { RoutePolicy } from "./policy.ts";
import { alarm } from "./refresh.ts";
import { RevocationFeed } from "./revocations.ts";
import type { Place } from "./hubs.ts";
import { type Env, type Settings, readSettings } from "./settings.ts";
import type { Readiness, Staleness } from "./staleness.ts";
import { type Identity, type Verdict, Verifier } from "./verifier.ts";
import { startVerifier } from "./wasm.ts";

/** Headers that only the edge may set on a request to the upstream. */
const IDENTITY_PREFIX = "x-countersign-";

/** Everything the isolate holds. Each request sees the same. */
export interface Isolate {
  readonly settings: Settings;
  readonly verifier: Verifier;
  readonly keys: KeyFeed;
  readonly revocations: RevocationFeed;
  /** None: every path needs a token, and no more than that. */
  readonly policy: RoutePolicy | undefined;
}

let isolate: Isolate | undefined;

/** Throws what `readSettings` throws. Variables cannot change under a running isolate: a deployment starts new ones. */
export function theIsolate(env: Env, request: Request): Isolate {
  if (isolate === undefined) {
    const settings = readSettings(env);
    const wasm = startVerifier();
    const verifier = new Verifier(wasm);
    verifier.configure(settings.issuer, settings.audiences, settings.clockLeewaySeconds);
    const policy = RoutePolicy.read(wasm, env);
    const keys = new KeyFeed(verifier, settings);
    const revocations = new RevocationFeed(verifier, settings, env, keys, request.cf as Place);
    isolate = { settings, verifier, keys, revocations, policy };
  }
  return isolate;
}

export async function gateway(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
  let held: Isolate;
  try {
    held = theIsolate(env, request);
  } catch (error) {
    return misconfigured(error);
  }
  const route = attempt(held, () => held.policy?.decide(request));
  if (route instanceof Response) return route;
  if (route?.anonymous === true) return forward(request, undefined, held);

  const token = bearerToken(request);
  if (token === undefined) {
    const challenge = { "www-authenticate": "Bearer" };
    return problem(401, "unauthorized", "This API needs an access token (Authorization: Bearer).", challenge);
  }
  if (token === null) {
    const description = "The Authorization header is malformed";
    const challenge = `Bearer error="invalid_request", error_description="${description}"`;
    return problem(400, "invalid_request", `${description}.`, { "www-authenticate": challenge });
  }

  let verdict: Decision | Response;
  try {
    verdict = await decide(token, held, ctx, route?.staleness);
  } catch (error) {
    return failed(held, error);
  }
  if (verdict instanceof Response) return verdict;
  if ("refused" in verdict) {
    const { challenge, description } = verdict.refused;
    if (challenge === "") return unavailable("revocations_unknown", "It is not known at present what is revoked.");
    return problem(401, "invalid_token", `${description}.`, { "www-authenticate": challenge });
  }
  const { identity } = verdict;
  const refused = route && attempt(held, () => held.policy?.refusal(route, identity));
  return refused ?? forward(request, verdict, held);
}

/** What the module says without anything being awaited; a response if it fails. */
function attempt<T>(held: Isolate, ask: () => T): T | Response {
  try {
    return ask();
  } catch (error) {
    return failed(held, error);
  }
}

/** A trap leaves the module in no usable state, so the next request begins with a new one. No input should be able to get here. */
function failed(held: Isolate, error: unknown): Response {
  alarm("verifier_failed", error);
  if (error instanceof WebAssembly.RuntimeError && isolate === held) isolate = undefined;
  return unavailable("verifier_failed", "The token could not be verified.");
}

/** `GET /_countersign/health`. 503 until the isolate could decide about a request. */
export async function health(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
  let held: Isolate;
  try {
    held = theIsolate(env, request);
  } catch (error) {
    return misconfigured(error);
  }
  const isCurrent = (await held.revocations.ready(ctx)) !== "refuse";
  const hasKeys = await held.keys.ready(ctx);
  const head = held.verifier.head();
  const isUsable = isCurrent && head !== undefined && now() < head.freshUntil;
  const status = hasKeys && isUsable ? "ok" : head === undefined || !hasKeys ? "starting" : "stale";
  const revocations = head && { epoch: head.epoch, seq: head.seq, age_ms: held.revocations.ageMs };
  return Response.json(
    {
      status,
      keys: hasKeys ? "loaded" : "missing",
      key_statement: held.verifier.keyPosition() ?? null,
      revocations: revocations ?? null,
    },
    { status: status === "ok" ? 200 : 503, headers: { "cache-control": "no-store" } },
  );
}

/** The token; undefined if the request has none; null if the header is not what RFC 6750 §2.1 says. */
function bearerToken(request: Request): string | undefined | null {
  const header = request.headers.get("authorization");
  if (header === null || !/^bearer(?: |$)/i.test(header)) return undefined;
  return /^bearer +([A-Za-z0-9\-._~+/]+=*)$/i.exec(header)?.[1] ?? null;
}

/** A verdict, and how good the knowledge of revocations was that it was reached with. */
export type Decision = Verdict & { readonly knowledge: Readiness };

export async function decide(
  token: string,
  held: Isolate,
  ctx: ExecutionContext,
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

async function forward(
  request: Request,
  /** Undefined: nobody was asked who they are. */
  decision: { readonly identity: Identity; readonly knowledge: Readiness } | undefined,
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
  if (decision !== undefined) {
    const { identity, knowledge } = decision;
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

/** Which variable is at fault goes to the log only: whoever asks need not be the operator. */
export function misconfigured(error: unknown): Response {
  alarm("misconfigured", error);
  return unavailable("misconfigured", "The edge verifier is not configured; its log says what is missing.");
}
