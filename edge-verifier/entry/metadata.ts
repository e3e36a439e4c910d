// What a client that knows nothing but this API's address is told of how to get a token for it (RFC 9728).

import { problem } from "./answers.ts";
import { theIsolate } from "./isolate.ts";
import { WELL_KNOWN } from "./resource.ts";
import type { Env } from "./settings.ts";
import { isSafeUrl } from "./urls.ts";

const MAX_AGE_SECONDS = 3_600;

/** `GET /.well-known/oauth-protected-resource…`; undefined where no audience is a URL: then the path is the upstream's. */
export function metadata(request: Request, env: Env, id: string): Response | undefined {
  const held = theIsolate(env, request.cf, id);
  if (held instanceof Response) return held;
  const { resources, issuer, trusted } = held.settings;
  if (resources.length === 0) return undefined;
  // Pages may read it: a client in a browser has nothing else to begin with. It tells nothing of who asks.
  const headers = { "access-control-allow-origin": "*", "cache-control": `public, max-age=${MAX_AGE_SECONDS}` };
  if (request.method === "OPTIONS") {
    const allowed = { "access-control-allow-methods": "GET", "access-control-allow-headers": "*", "access-control-max-age": "86400" };
    return new Response(null, { status: 204, headers: { ...headers, ...allowed } });
  }
  if (request.method !== "GET" && request.method !== "HEAD") {
    return problem(405, "method_not_allowed", "The metadata is read by GET.", { allow: "GET, HEAD, OPTIONS" });
  }
  const { origin, pathname, search } = new URL(request.url);
  const suffix = pathname.slice(WELL_KNOWN.length).replace(/\/$/, "");
  const fitting = resources.filter(({ path, query }) => path === suffix && query === search);
  const resource = fitting.find((one) => one.origin === origin) ?? fitting[0] ?? (suffix === "" ? resources[0] : undefined);
  if (resource === undefined) {
    return problem(404, "unknown_resource", "No API of that path is behind this edge.", { "access-control-allow-origin": "*" });
  }
  const scopes = held.policy?.scopesOf(resource.id);
  const about = {
    resource: resource.id,
    authorization_servers: [issuer, ...trusted.filter((one) => one.audiences.includes(resource.id) && isSafeUrl(one.issuer)).map((one) => one.issuer)],
    ...(scopes !== undefined && { scopes_supported: scopes }),
    bearer_methods_supported: ["header"],
  };
  return Response.json(about, { headers });
}
