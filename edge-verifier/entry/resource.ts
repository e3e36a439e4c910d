// What a client that knows nothing but this API's address is told of how to get a token for it (RFC 9728).

import { problem } from "./answers.ts";
import { theIsolate } from "./isolate.ts";
import type { Env } from "./settings.ts";

export const WELL_KNOWN = "/.well-known/oauth-protected-resource";
const MAX_AGE_SECONDS = 3_600;

/** An audience that is a URL, and so may be found by its metadata. */
export interface Resource {
  /** Exactly as tokens name it. */
  readonly id: string;
  readonly origin: string;
  /** Without a slash at the end. */
  readonly path: string;
  readonly query: string;
  /** Where its metadata is (RFC 9728 §3.1): the well-known part comes between host and path. */
  readonly metadata: string;
}

/** The audiences that are URLs; `preferred` first, which stands for the others where it isn't clear which one is meant. */
export function readResources(audiences: readonly string[], preferred: string | undefined): Resource[] {
  const found = audiences.flatMap((id) => {
    const url = URL.canParse(id) ? new URL(id) : undefined;
    if ((url?.protocol !== "https:" && url?.protocol !== "http:") || url.hash !== "") return [];
    const [{ origin, search: query }, path] = [url, url.pathname.replace(/\/$/, "")];
    return [{ id, origin, path, query, metadata: `${origin}${WELL_KNOWN}${path}${query}` }];
  });
  return found.sort((one, other) => Number(other.id === preferred) - Number(one.id === preferred));
}

/** The resource that `url` belongs to: of those of its origin the most specific; else the preferred one. */
export function resourceOf(url: string, resources: readonly Resource[]): Resource | undefined {
  const { origin, pathname } = new URL(url);
  const around = resources.filter((one) => one.origin === origin && `${pathname}/`.startsWith(`${one.path}/`));
  return around.reduce<Resource | undefined>((one, other) => (one && one.path.length >= other.path.length ? one : other), undefined) ?? resources[0];
}

/** `GET /.well-known/oauth-protected-resource…`; undefined where no audience is a URL: then the path is the upstream's. */
export function metadata(request: Request, env: Env, id: string): Response | undefined {
  const held = theIsolate(env, request.cf, id);
  if (held instanceof Response) return held;
  const { resources, issuer } = held.settings;
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
    authorization_servers: [issuer],
    ...(scopes !== undefined && { scopes_supported: scopes }),
    bearer_methods_supported: ["header"],
  };
  return Response.json(about, { headers });
}
