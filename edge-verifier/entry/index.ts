// The module entry. Paths below /_countersign/ are the verifier's own, so is where an API says how to get a token for it; every other request goes
// through the gateway.

import { problem, requestId, withRequestId } from "./answers.ts";
import { SECRET_HEADER, decideFor, isDecision } from "./decide.ts";
import { feed, object } from "./feed.ts";
import { gateway } from "./gateway.ts";
import { health } from "./health.ts";
import { theIsolate } from "./isolate.ts";
import { metadata } from "./metadata.ts";
import { scrape, status, why } from "./operator.ts";
import { alarm } from "./refresh.ts";
import { WELL_KNOWN } from "./resource.ts";
import type { Env } from "./settings.ts";

export { TokenVerifier } from "./rpc.ts";

export default {
  async fetch(request, env, ctx): Promise<Response> {
    const id = requestId(request.headers);
    let answer: Response;
    try {
      answer = await answerTo(request, env, ctx, id);
    } catch (error) {
      alarm("failed", error, id);
      answer = problem(500, "internal_error", "Something went wrong at the edge; its log says what, by the request's id.");
    }
    return withRequestId(answer, id);
  },
} satisfies ExportedHandler<Env>;

async function answerTo(request: Request, env: Env, ctx: ExecutionContext, id: string): Promise<Response> {
  const { pathname } = new URL(request.url);
  if (isDecision(pathname)) return decideFor(request, env, ctx, id);
  // A proxy asked about a path with `..` in it, which led elsewhere. What is there must not be taken for a decision.
  if (request.headers.has(SECRET_HEADER)) return problem(400, "ambiguous_path", "The path is not one that everybody reads alike.");
  if (pathname === WELL_KNOWN || pathname.startsWith(`${WELL_KNOWN}/`)) {
    return metadata(request, env, id) ?? gateway(request, env, ctx, id);
  }
  if (!pathname.startsWith("/_countersign/")) return gateway(request, env, ctx, id);
  switch (pathname) {
    case "/_countersign/health":
      return health(request, env, ctx);
    case "/_countersign/hub/head":
    case "/_countersign/hub/keys": {
      // Theirs is the secret to check.
      const answer = await env.HUB_DOOR.fetch(request);
      return new Response(answer.body, answer);
    }
    case "/_countersign/why":
      return why(request, env, ctx);
    case "/_countersign/status":
      return status(request, env, ctx);
    case "/_countersign/metrics":
      return scrape(request, env, ctx);
    case "/_countersign/feed":
      return feed(request, env, id);
    case "/_countersign/jwks.json":
      return assertionKeys(request, env, id);
    default:
      if (pathname.startsWith("/_countersign/objects/")) return object(request, env);
      return problem(404, "not_found", "The edge verifier has no such path.");
  }
}

/** `GET /_countersign/jwks.json`: for upstreams, so public. */
function assertionKeys(request: Request, env: Env, id: string): Response {
  const held = theIsolate(env, request.cf, id);
  if (held instanceof Response) return held;
  return held.settings.assertions?.jwks() ?? problem(404, "not_configured", "ASSERTION_KEY is not set, so nothing is signed here.");
}
