// What the edge itself answers, as problem details (RFC 9457).

const TITLES: Record<number, string> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  413: "Content Too Large",
  502: "Bad Gateway",
  503: "Service Unavailable",
};

/** `code`: a stable word for programs; `detail`: a sentence for people, fit for outsiders. */
export function problem(
  status: number,
  code: string,
  detail: string,
  headers: Record<string, string> = {},
): Response {
  const body = { type: "about:blank", title: TITLES[status], status, code, detail };
  return new Response(JSON.stringify(body), {
    status,
    headers: { "content-type": "application/problem+json", "cache-control": "no-store", ...headers },
  });
}

/** The edge cannot know, so it says neither yes nor no. */
export function unavailable(code: string, detail: string): Response {
  return problem(503, code, detail, { "retry-after": "1" });
}
