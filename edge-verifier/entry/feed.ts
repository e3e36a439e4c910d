// What the edge hands on to verifiers elsewhere (the package, on Node or in a Worker without the hubs' binding): a hub's answer as it comes, and base
// objects. All of it is signed, or named by its hash, and says which tokens were revoked: so it is for those who show a secret.

import { problem, unavailable } from "./answers.ts";
import { readHubPlan } from "./hubs.ts";
import { misconfigured } from "./isolate.ts";
import { alarm } from "./refresh.ts";
import { hasSecret } from "./secrets.ts";
import type { Env } from "./settings.ts";
import { boundHubs, boundObjects } from "./sources.ts";

/** What a question says: what the listener holds, and for how long it wants to listen. */
const ASKED = ["epoch", "seq", "key_epoch", "key_version", "stream_ms"];
/** How long a hub may take to begin its answer. */
const HUB_WAIT_MS = 1_500;
const OBJECT = /^\/_countersign\/objects\/base\/([0-9a-f]{64})$/;

/** `GET /_countersign/feed?…`. `id`: the request's. */
export async function feed(request: Request, env: Env, id: string): Promise<Response> {
  const refused = await refusal(request, env);
  if (refused !== undefined) return refused;
  const problems: string[] = [];
  const plan = readHubPlan(env, problems);
  if (problems.length > 0) return misconfigured(problems.join("; "), id);
  const given = new URL(request.url).searchParams;
  const question = new URLSearchParams();
  for (const name of ASKED) {
    const value = given.get(name);
    if (value !== null && !/^\d{1,15}$/.test(value)) return problem(400, "invalid_request", `${name} must be a whole number.`);
    if (value !== null) question.set(name, value);
  }
  // The nearest first; another one where that fails. The listener asks again.
  for (const hub of boundHubs(env.REVOCATION_HUB, plan, request.cf as never).slice(0, 2)) {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(new Error(`the hub ${hub.name} didn't answer within ${HUB_WAIT_MS} ms`)), HUB_WAIT_MS);
    try {
      const answer = await hub.fetch(question, { signal: abort.signal });
      const headers = new Headers(answer.headers);
      headers.set("cache-control", "no-store");
      return new Response(answer.body, { status: answer.status, headers });
    } catch (error) {
      alarm("hub_failed", error, id);
    } finally {
      clearTimeout(timer);
    }
  }
  return unavailable("hub_failed", "No hub answers at present.");
}

/** `GET /_countersign/objects/base/{sha256}`. */
export async function object(request: Request, env: Env): Promise<Response> {
  const refused = await refusal(request, env);
  if (refused !== undefined) return refused;
  const [, name] = OBJECT.exec(new URL(request.url).pathname) ?? [];
  if (name === undefined) return problem(404, "not_found", "Base objects are at /_countersign/objects/base/{SHA-256, in hexadecimal}.");
  const bytes = await boundObjects(env.REVOCATION_OBJECTS).get(name);
  if (bytes === null) return problem(404, "not_found", "There is no object of that name, or not yet.");
  // It never changes; but it isn't for everybody.
  return new Response(bytes, { headers: { "content-type": "application/octet-stream", "cache-control": "private, max-age=31536000, immutable" } });
}

async function refusal(request: Request, env: Env): Promise<Response | undefined> {
  if (!env.LISTENER_SECRET) return problem(404, "not_configured", "LISTENER_SECRET is not set, so nothing is handed on.");
  if (!(await hasSecret(request, env.LISTENER_SECRET))) {
    return problem(401, "unauthorized", "The listeners' secret is missing or wrong.", { "www-authenticate": "Bearer" });
  }
  return request.method === "GET" ? undefined : problem(405, "method_not_allowed", "Ask by GET.", { allow: "GET" });
}
