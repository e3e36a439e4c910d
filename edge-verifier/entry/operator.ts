// What an operator may ask an edge: why a token is refused, and what the isolate that answers goes by. Nothing of a token is logged.

import { problem } from "./answers.ts";
import { decide } from "./decision.ts";
import { type Hub, allHubs } from "./hubs.ts";
import { type Isolate, theIsolate } from "./isolate.ts";
import { metrics } from "./metrics.ts";
import { hasSecret } from "./secrets.ts";
import type { Env } from "./settings.ts";
import type { Explanation } from "./verifier.ts";

/** A token is at most 8 KiB; what is longer is refused as such. */
const MAX_TOKEN_BYTES = 16 * 1024;
/** How long a hub may take to say how it is. */
const HUB_WAIT_MS = 2_000;

/** `GET /_countersign/why?jti=…`, or `POST` with a token as the body. */
export async function why(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
  const methods = { allow: "GET, POST" };
  if (request.method !== "GET" && request.method !== "POST") {
    return problem(405, "method_not_allowed", "Ask for a jti by GET, for a token by POST.", methods);
  }
  const held = await admit(request, env);
  if (held instanceof Response) return held;
  if (request.method === "POST") {
    const token = await limitedText(request);
    if (token === undefined) return problem(413, "payload_too_large", "A token has at most 8 KiB.");
    return answer(await whyToken(token.trim(), held, ctx));
  }
  const jti = new URL(request.url).searchParams.get("jti");
  if (jti === null) return problem(400, "invalid_request", "Name the jti: /_countersign/why?jti=…");
  const knowledge = await held.revocations.ready(ctx);
  const part = held.verifier.explainJti(jti);
  if (part === undefined) {
    if (held.verifier.head() === undefined) return problem(503, "revocations_unknown", "Nothing is known yet of what is revoked.", { "retry-after": "1" });
    return problem(400, "invalid_jti", "That is no jti of this issuer's: they are UUIDs of version 8.");
  }
  return answer({
    jti,
    revoked: part !== null,
    serial: part,
    // A jti names neither agent nor time, so whether a rule ends its token can't be told.
    rules: "not looked at: send the token by POST",
    knowledge: { readiness: knowledge, ...knowledgeOf(held) },
  });
}

async function whyToken(token: string, held: Isolate, ctx: ExecutionContext): Promise<object> {
  const decision = await decide(token, held, ctx);
  const explained = await held.verifier.explain(token);
  const isSigned = "jti" in explained;
  const bears = isSigned ? revocationOf(explained) : null;
  const knowledge = knowledgeOf(held);
  if (decision instanceof Response) {
    const { code, detail } = await decision.json<{ code: string; detail: string }>();
    return { accepted: false, reason: code, description: detail, ...bears, knowledge: { readiness: "refuse", ...knowledge } };
  }
  const outcome =
    "refused" in decision
      ? { accepted: false, reason: decision.refused.reason, description: decision.refused.description }
      : { accepted: true, reason: null, description: null, issuer: decision.identity.issuer };
  return { ...outcome, ...bears, knowledge: { readiness: decision.knowledge, ...knowledge } };
}

function revocationOf({ serial, rule, issuedAt, expiresAt, ...token }: Explanation): object {
  const isEnded = rule !== null && issuedAt <= rule.notBefore;
  return {
    token: { ...token, iat: issuedAt, exp: expiresAt },
    revoked: serial !== null || isEnded,
    serial,
    rule: rule && { level: rule.level, not_before: rule.notBefore, in: rule.part, ends_it: isEnded },
  };
}

/** `GET /_countersign/status`: what this isolate goes by, and how the hubs are. */
export async function status(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
  if (request.method !== "GET") return problem(405, "method_not_allowed", "Ask by GET.", { allow: "GET" });
  const held = await admit(request, env);
  if (held instanceof Response) return held;
  const readiness = await held.revocations.ready(ctx);
  await held.keys.ready(ctx);
  const hubs = await Promise.all(allHubs(env.REVOCATION_HUB, held.settings.hubs).map(statusOf));
  const { listening } = held.revocations;
  return answer({
    knowledge: { readiness, ...knowledgeOf(held) },
    listening: listening === undefined ? null : { hub: listening.hub, silent_ms: listening.silentMs },
    keys: held.verifier.keyNames(),
    key_statement: held.verifier.keyPosition() ?? null,
    trusted_issuers: held.settings.trusted.map(({ issuer }, number) => ({ issuer, keys: held.foreign?.verifier.keyNames(number) ?? [] })),
    hubs,
  });
}

/** `GET /_countersign/metrics`: what this isolate has counted, for Prometheus. */
export async function scrape(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
  if (request.method !== "GET") return problem(405, "method_not_allowed", "Ask by GET.", { allow: "GET" });
  const held = await admit(request, env);
  if (held instanceof Response) return held;
  // An isolate that is asked nothing else is to listen all the same.
  await held.revocations.ready(ctx);
  const headers = { "content-type": "text/plain; version=0.0.4; charset=utf-8", "cache-control": "no-store" };
  return new Response(metrics.text(held), { headers });
}

async function statusOf(hub: Hub): Promise<object> {
  try {
    const response = await hub.fetch("https://hub/status", { signal: AbortSignal.timeout(HUB_WAIT_MS) });
    const said = await response.json<Record<string, unknown>>();
    return response.status === 200 ? { hub: hub.name, ...said } : { hub: hub.name, error: said["message"] };
  } catch (error) {
    return { hub: hub.name, error: error instanceof Error ? error.message : String(error) };
  }
}

/** What the isolate goes by, and how old that is. */
function knowledgeOf({ verifier, revocations }: Isolate): object {
  const held = verifier.inForce();
  const age = revocations.ageMs;
  return {
    age_ms: age === Infinity ? null : age,
    head: held === undefined ? null : {
      epoch: held.head.epoch,
      seq: held.head.seq,
      as_of: held.head.asOf,
      fresh_until: held.head.freshUntil,
    },
    base: held?.base ?? null,
    delta: held?.delta ?? null,
  };
}

/** The isolate, for whoever shows the operators' secret. */
async function admit(request: Request, env: Env): Promise<Isolate | Response> {
  if (!env.OPERATOR_SECRET) return problem(503, "not_configured", "OPERATOR_SECRET is not set, so nobody may ask.");
  if (!(await hasSecret(request, env.OPERATOR_SECRET))) {
    return problem(401, "unauthorized", "The operators' secret is missing or wrong.", { "www-authenticate": "Bearer" });
  }
  return theIsolate(env, request.cf);
}

/** The body as text; undefined if it is too long. */
async function limitedText(request: Request): Promise<string | undefined> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of request.body ?? []) {
    text += decoder.decode(chunk, { stream: true });
    if (text.length > MAX_TOKEN_BYTES) return undefined;
  }
  return text;
}

function answer(body: object): Response {
  return Response.json(body, { headers: { "cache-control": "no-store" } });
}
