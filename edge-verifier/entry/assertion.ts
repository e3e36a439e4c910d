// A signed word to the upstream on who calls, so that it can check that a request came through the edge: a short-lived JWS for one request.

import type { Admitted } from "./admission.ts";

/** How long one is good for, in seconds. */
const LIFETIME = 30;
const TYPE = "countersign-assertion+jwt";
const MAX_AGE_SECONDS = 300;

const ALGORITHMS = {
  EdDSA: { key: { name: "Ed25519" }, signature: { name: "Ed25519" } },
  ES256: { key: { name: "ECDSA", namedCurve: "P-256" }, signature: { name: "ECDSA", hash: "SHA-256" } },
} as const;

interface PrivateKey {
  readonly kid: string;
  readonly alg: keyof typeof ALGORITHMS;
  readonly jwk: JsonWebKey;
}

interface Given {
  readonly ASSERTION_KEY?: string;
  readonly ASSERTION_ISSUER?: string;
  readonly ASSERTION_AUDIENCE?: string;
  readonly UPSTREAM_URL?: string;
}

/** What an assertion is about. `target`: path and query as the upstream sees them. */
export interface About {
  readonly admitted: Admitted;
  readonly method: string;
  readonly target: string;
  readonly requestId: string;
  /** Of the knowledge of revocations that it was decided with. */
  readonly ageMs: number;
}

export class Assertions {
  readonly #keys: readonly [PrivateKey, ...PrivateKey[]];
  readonly #issuer: string;
  readonly #audience: string;
  #signing: Promise<CryptoKey> | undefined;

  /** Undefined where no key is set; what is wrong goes into `problems`, and nothing of the key with it. */
  static read(env: Given, issuer: string, problems: string[]): Assertions | undefined {
    if (!env.ASSERTION_KEY) return undefined;
    const [first, ...others] = privateKeys(env.ASSERTION_KEY);
    if (first === undefined) {
      problems.push("ASSERTION_KEY must be a private JWK with kid, of Ed25519 or P-256, or a JWK Set of such: the first one signs, all are published");
      return undefined;
    }
    const audience = env.ASSERTION_AUDIENCE || (URL.canParse(env.UPSTREAM_URL ?? "") ? new URL(env.UPSTREAM_URL ?? "").origin : "");
    if (audience === "") problems.push("ASSERTION_AUDIENCE is not set: whom assertions are for, where there is no UPSTREAM_URL to name its origin");
    return new Assertions([first, ...others], env.ASSERTION_ISSUER || issuer, audience);
  }

  private constructor(keys: readonly [PrivateKey, ...PrivateKey[]], issuer: string, audience: string) {
    this.#keys = keys;
    this.#issuer = issuer;
    this.#audience = audience;
  }

  /** A JWS about whom was admitted with one request, and for that request only; undefined where that is nobody. */
  async sign({ admitted: { identity, knowledge }, method, target, requestId, ageMs }: About): Promise<string | undefined> {
    if (identity === undefined) return undefined;
    const [{ kid, alg, jwk }] = this.#keys;
    // Once an isolate. One that fails is tried again, by the next request.
    this.#signing ??= crypto.subtle.importKey("jwk", jwk, ALGORITHMS[alg].key, false, ["sign"]);
    const key = await this.#signing.catch((error: unknown) => {
      this.#signing = undefined;
      throw error;
    });
    const now = Math.floor(Date.now() / 1000);
    const claims = {
      iss: this.#issuer,
      aud: this.#audience,
      iat: now,
      exp: now + LIFETIME,
      jti: crypto.randomUUID(),
      sub: identity.agent,
      tenant_id: identity.tenant,
      credential_id: identity.credential,
      agent_type: identity.agentType,
      scope: identity.scope,
      token_iss: identity.issuer,
      token_jti: identity.jti,
      request_id: requestId,
      request_sha256: base64url(await crypto.subtle.digest("SHA-256", encoder.encode(`${method} ${target}`))),
      ...(knowledge !== "fresh" && { revocations: knowledge, revocations_age_ms: ageMs }),
    };
    const input = `${encoded({ alg, kid, typ: TYPE })}.${encoded(claims)}`;
    return `${input}.${base64url(await crypto.subtle.sign(ALGORITHMS[alg].signature, key, encoder.encode(input)))}`;
  }

  /** `GET /_countersign/jwks.json`: what upstreams check assertions with. */
  jwks(): Response {
    const keys = this.#keys.map(({ kid, alg, jwk: { kty, crv, x, y } }) => ({ kty, crv, x, y, kid, alg, use: "sig" }));
    return Response.json({ keys }, { headers: { "content-type": "application/jwk-set+json", "cache-control": `public, max-age=${MAX_AGE_SECONDS}` } });
  }
}

/** Of a JWK or a JWK Set; none if any isn't sound. */
function privateKeys(text: string): PrivateKey[] {
  try {
    const given = JSON.parse(text) as { keys?: unknown };
    const read = (Array.isArray(given.keys) ? given.keys : [given]).map(privateKey);
    return read.every((key) => key !== undefined) ? read : [];
  } catch {
    return [];
  }
}

function privateKey(given: JsonWebKey & { kid?: unknown }): PrivateKey | undefined {
  const { kty, crv, x, y, d, kid } = given;
  if (typeof kid !== "string" || kid === "" || typeof d !== "string" || typeof x !== "string") return undefined;
  if (kty === "OKP" && crv === "Ed25519") return { kid, alg: "EdDSA", jwk: { kty, crv, x, d } };
  return kty === "EC" && crv === "P-256" && typeof y === "string" ? { kid, alg: "ES256", jwk: { kty, crv, x, y, d } } : undefined;
}

const encoder = new TextEncoder();

function encoded(value: object): string {
  return base64url(encoder.encode(JSON.stringify(value)));
}

function base64url(bytes: ArrayBuffer | Uint8Array): string {
  const text = String.fromCharCode(...new Uint8Array(bytes));
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}
