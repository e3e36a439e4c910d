// What the edge itself answers, as problem details (RFC 9457), and the id that each request goes by.

const TITLES: Record<number, string> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  413: "Content Too Large",
  500: "Internal Server Error",
  502: "Bad Gateway",
  503: "Service Unavailable",
};

/** An answer that isn't what was asked for. */
export class Problem extends Response {
  /** A stable word for programs. */
  readonly code: string;
  /** A sentence for people, fit for outsiders. */
  readonly detail: string;
  /** Why, for metrics: the code, unless there is a more exact word that isn't for outsiders. */
  reason: string;

  constructor(status: number, code: string, detail: string, headers: HeadersInit = {}, more: object = {}) {
    const body = { type: "about:blank", title: TITLES[status], status, code, detail, ...more };
    super(JSON.stringify(body), { status, headers });
    this.headers.set("content-type", "application/problem+json");
    this.headers.set("cache-control", "no-store");
    if (status === 503 && !this.headers.has("retry-after")) this.headers.set("retry-after", "1");
    this.code = code;
    this.detail = detail;
    this.reason = code;
  }

  /** The challenge (RFC 6750 §3), where there is one. */
  get challenge(): string | undefined {
    return this.headers.get("www-authenticate") ?? undefined;
  }

  because(reason: string): this {
    this.reason = reason;
    return this;
  }

  /** Has the challenge point to `metadata`. */
  pointTo(metadata: string): this {
    const { challenge } = this;
    if (challenge !== undefined) this.headers.set("www-authenticate", withMetadata(challenge, metadata));
    return this;
  }
}

/** A challenge that says where it is told what a token for this API takes (RFC 9728 §5.1); without `metadata` as it is. */
export function withMetadata(challenge: string, metadata: string | undefined): string {
  if (metadata === undefined) return challenge;
  return `${challenge}${challenge === "Bearer" ? " " : ", "}resource_metadata="${metadata}"`;
}

/** `code`: a stable word for programs; `detail`: a sentence for people, fit for outsiders. */
export function problem(status: number, code: string, detail: string, headers: HeadersInit = {}): Problem {
  return new Problem(status, code, detail, headers);
}

/** The edge cannot know, so it says neither yes nor no. */
export function unavailable(code: string, detail: string): Problem {
  return problem(503, code, detail);
}

export const REQUEST_ID = "x-request-id";

/** The caller's id for the request, if it is one that can stand in a log; else a new one. */
export function requestId(headers: Headers): string {
  const given = headers.get(REQUEST_ID);
  return given !== null && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : crypto.randomUUID();
}

/** The answer, with the id by which the log and the upstream know the request. Its headers must not be another server's. */
export function withRequestId(answer: Response, id: string): Response {
  const said = answer instanceof Problem ? new Problem(answer.status, answer.code, answer.detail, answer.headers, { request_id: id }) : answer;
  said.headers.set(REQUEST_ID, id);
  return said;
}
