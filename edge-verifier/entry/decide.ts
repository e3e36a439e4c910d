// `/_countersign/decide`: whether a request may pass that another proxy holds (nginx's auth_request, Traefik's ForwardAuth, Envoy's ext_authz, Caddy's
// forward_auth). The proxy says which request it is; so only proxies may ask, by a secret.

import { type Asked, admit } from "./admission.ts";
import { problem, unavailable } from "./answers.ts";
import { ASSERTION_HEADER, IDENTITY_HEADERS, identityHeaders, isOurs } from "./identity.ts";
import { type Isolate, theIsolate } from "./isolate.ts";
import { RoutePolicy } from "./policy.ts";
import { alarm } from "./refresh.ts";
import { isSame } from "./secrets.ts";
import type { Env } from "./settings.ts";

const DECIDE = "/_countersign/decide";
export const SECRET_HEADER = "x-countersign-decision-secret";
/** Where proxies say of a request what its method and its path and query are. Whoever uses one of a pair uses both. */
const SAID = [
  ["x-original-method", "x-original-uri"],
  ["x-forwarded-method", "x-forwarded-uri"],
] as const;

/** Whether a path is this one; by its prefix, Envoy says the original path. */
export function isDecision(pathname: string): boolean {
  return pathname === DECIDE || pathname.startsWith(`${DECIDE}/`);
}

/** 200 with the identity headers and no body, or what to answer the client. `id`: the request's. */
export async function decideFor(request: Request, env: Env, ctx: ExecutionContext, id: string): Promise<Response> {
  if (!env.DECISION_SECRET) return problem(404, "not_configured", "DECISION_SECRET is not set, so nothing is decided here for others.");
  if (!(await isSame(request.headers.get(SECRET_HEADER) ?? "", env.DECISION_SECRET))) {
    // Not 401 or 403: a proxy would tell its client that the client is at fault.
    return problem(400, "wrong_decision_secret", `The secret of proxies that ask (${SECRET_HEADER}) is missing or wrong.`);
  }
  const held = theIsolate(env, request.cf, id);
  if (held instanceof Response) return held;
  const original = originalOf(request);
  if (typeof original === "string") return problem(400, "original_unknown", `${original}.`);
  if (held.policy !== undefined && new URL(original.asked.url).pathname !== original.target.replace(/\?.*$/s, "")) {
    // The API is sent the path as it came, and it is that which would have to be decided about.
    return problem(400, "ambiguous_path", "The path is not one that everybody reads alike.");
  }
  // Elsewhere they are taken out, which can't be done here: what the client sent goes on to the API, by the proxy.
  const misleading = misleadingHeader(original, held);
  if (misleading !== undefined) return problem(400, "ambiguous_header", `The header ${misleading} could be taken for something else than was decided about.`);
  const admitted = await admit("decision", original.asked, held, ctx, id);
  if (admitted instanceof Response) return admitted;

  const headers = new Headers({ "cache-control": "no-store" });
  for (const [name, value] of identityHeaders(admitted, held)) headers.set(name, value);
  const assertion = await signed(held, { admitted, method: original.asked.method, target: original.target, requestId: id, ageMs: held.revocations.ageMs });
  if (assertion instanceof Response) return assertion;
  if (assertion !== undefined) headers.set(ASSERTION_HEADER, assertion);
  // Envoy adds what it is told; what the client said of itself it takes out only when it is told so.
  if (original.isByPath) headers.set("x-envoy-auth-headers-to-remove", IDENTITY_HEADERS.filter((name) => !headers.has(name)).join(","));
  return new Response(null, { headers });
}

/** One by which servers take another method or path, where a policy decides about these; or one that many take for a header of ours, and proxies don't. */
function misleadingHeader({ asked: { method, headers }, target }: { asked: Asked; target: string }, { policy }: Isolate): string | undefined {
  const overridden = policy && RoutePolicy.overridden(headers, method, target);
  return overridden ?? [...headers.keys()].find((name) => name.includes("_") && isOurs(name));
}

type About = Parameters<NonNullable<Isolate["settings"]["assertions"]>["sign"]>[0];

async function signed({ settings }: Isolate, about: About): Promise<string | undefined | Response> {
  try {
    return await settings.assertions?.sign(about);
  } catch (error) {
    alarm("assertion_failed", error, about.requestId);
    return unavailable("assertion_failed", "The identity could not be signed.");
  }
}

/** What is asked about. `target`: its path and query as the proxy said them. A text: why that isn't clear. */
function originalOf(request: Request): { asked: Asked; target: string; isByPath: boolean } | string {
  const { headers } = request;
  const { pathname, search } = new URL(request.url);
  const isByPath = pathname !== DECIDE;
  const said: (readonly [method: string, target: string])[] = isByPath ? [[request.method, pathname.slice(DECIDE.length) + search]] : [];
  for (const [methodHeader, targetHeader] of SAID) {
    const [method, target] = [headers.get(methodHeader), headers.get(targetHeader)];
    if (method === null && target === null) continue;
    // A half may be the client's: who sets up a proxy so is to notice at the first request.
    if (method === null || target === null) return `${methodHeader} and ${targetHeader} belong together, and only one of them came`;
    said.push([method, target]);
  }
  const [first] = said;
  if (first === undefined) return `The proxy didn't say what is asked about: ${SAID.flat().join(", ")}`;
  const [method, target] = first;
  if (said.some((other) => other[0] !== method || other[1] !== target)) return "What is said of the original request contradicts itself";
  // Case counts in methods (RFC 9110 §9.1), but not to all servers: `delete` would be decided about as something else than it is taken for.
  if (!/^[A-Z-]{1,32}$/.test(method)) return "The original method is malformed, or not in capitals";
  const url = `${originOf(headers)}${target}`;
  if (!target.startsWith("/") || !URL.canParse(url)) return "The original URI doesn't begin with a slash";
  return { asked: { method, url, headers }, target, isByPath };
}

/** It decides nothing: only which of several APIs a challenge points to. */
function originOf(headers: Headers): string {
  const [host = "", scheme] = [headers.get("x-forwarded-host") ?? "", headers.get("x-forwarded-proto") === "http" ? "http" : "https"];
  return /^[A-Za-z0-9.-]+(?::\d{1,5})?$/.test(host) && URL.canParse(`${scheme}://${host}`) ? `${scheme}://${host}` : "https://unknown.invalid";
}
