// Where a request has its token: in the header, which is the only place that it is taken from (RFC 6750 §2.1).

import { type Problem, problem } from "./answers.ts";

/** What a request lacks that brings no token; without an error, as RFC 6750 §3.1 says. */
export const NO_TOKEN = { code: "unauthorized", challenge: "Bearer", detail: "This API needs an access token (Authorization: Bearer)." };

/** The token, or what to answer. `url` is absolute. */
export function bearerToken({ url, headers }: { readonly url: string; readonly headers: Headers }): string | Problem {
  const header = headers.get("authorization");
  if (hasTokenInQuery(url)) {
    return malformed(`The token belongs into the Authorization header${header === null ? ", not into the URL" : " only"}`);
  }
  if (header === null || !/^bearer(?: |$)/i.test(header)) {
    // Several headers come as one, with commas between them.
    if (/,\s*bearer /i.test(header ?? "")) return malformed("There is more than one Authorization header");
    // RFC 9449 §7.1. Taken as a bearer token it would be worth more than its issuer meant.
    if (/^dpop(?: |$)/i.test(header ?? "")) {
      const detail = "This API takes no DPoP proofs (RFC 9449): it needs an access token that is not bound to a key (Authorization: Bearer).";
      return problem(401, "dpop_not_supported", detail, { "www-authenticate": NO_TOKEN.challenge });
    }
    return problem(401, NO_TOKEN.code, NO_TOKEN.detail, { "www-authenticate": NO_TOKEN.challenge });
  }
  return /^bearer +([A-Za-z0-9\-._~+/]+=*)$/i.exec(header)?.[1] ?? malformed("The Authorization header is malformed");
}

/** RFC 6750 §2.3. Such a URL ends up in logs; and an upstream may go by that token, when another one was decided about. */
function hasTokenInQuery(url: string): boolean {
  // Mostly that settles it, without taking the query apart. No look goes beyond the next place where one begins, so that it takes time in proportion to the URL.
  if (!/[?&](?:access_token|[^=&?]*%)/.test(url)) return false;
  return new URL(url).searchParams.has("access_token");
}

function malformed(description: string): Problem {
  const challenge = `Bearer error="invalid_request", error_description="${description}"`;
  return problem(400, "invalid_request", `${description}.`, { "www-authenticate": challenge });
}
