// Tokens of other issuers that the operator trusts (docs/reference/trusted-issuers.md). Each has keys of its own, which are asked for when its first token comes. Nothing
// here is on the way of our own issuer's tokens: a token gets here when it isn't accepted as one of those.

import { read, write } from "./buffers.ts";
import { FetchedKeys, RENEW_AFTER_MS, RETRY_AFTER_MS, UNKNOWN_KEY_COOLDOWN_MS, fetchJson } from "./keys.ts";
import { note } from "./refresh.ts";
import { ALGORITHMS, type Source, TYPES, type TrustedIssuer } from "./trusted.ts";
import { isSafeUrl } from "./urls.ts";
import { KEPT_SECONDS, VerifiedTokens } from "./verified.ts";
import { type HostKey, LONGEST_TOKEN_SEEN, type Verdict, type VerifierExports, importKey, readHolder, readRefused } from "./verifier.ts";

/** To `trust_text`. */
const TEXT = { audience: 0, agentClaim: 1, scopeClaim: 2, tenant: [3, 4], agentType: [5, 6] } as const;
/** To `key` and `key_name`: the purpose of the keys of the first issuer. */
const FIRST_PURPOSE = 3;
/** For how long the isolates of one place share what an issuer answered; then one of them asks again. */
const SHARED_SECONDS = RENEW_AFTER_MS / 1000;

/** Verdicts on tokens of trusted issuers, by what is held of their keys. */
export class ForeignVerifier {
  readonly #wasm: VerifierExports;
  readonly #issuers: readonly TrustedIssuer[];
  readonly #keys: Promise<HostKey>[][];
  /** Of each issuer; goes up with every change of its keys. */
  readonly #generations: number[];
  /** Tokens that held, each with its issuer's number as `held` and the generation of the keys that vouched for it. */
  readonly #verified = new VerifiedTokens(() => undefined);

  constructor(wasm: VerifierExports, issuers: readonly TrustedIssuer[]) {
    this.#wasm = wasm;
    this.#issuers = issuers;
    this.#keys = issuers.map(() => []);
    this.#generations = issuers.map(() => 0);
    issuers.forEach((issuer, number) => {
      const bits = (chosen: readonly string[], all: readonly string[]) => all.reduce((sum, name, place) => sum + (chosen.includes(name) ? 1 << place : 0), 0);
      const given = wasm.trust(write(wasm, issuer.issuer), issuer.clockLeewaySeconds, bits(issuer.algorithms, ALGORITHMS), bits(issuer.types, TYPES));
      if (given !== number) throw new Error(`the issuer ${issuer.issuer} could not be configured`);
      const say = (what: number, text: string) => wasm.trust_text(number, what, write(wasm, text));
      const saySource = ([claim, constant]: readonly [number, number], source: Source) =>
        "claim" in source ? say(claim, source.claim) : say(constant, source.constant);
      for (const audience of issuer.audiences) say(TEXT.audience, audience);
      say(TEXT.agentClaim, issuer.agentClaim);
      say(TEXT.scopeClaim, issuer.scopeClaim);
      saySource(TEXT.tenant, issuer.tenant);
      saySource(TEXT.agentType, issuer.agentType);
    });
  }

  /** Replaces an issuer's keys; throws, and keeps those it has, where no key of the JWK Set is sound. Returns what is wrong with others. */
  loadKeys(number: number, jwks: string): string[] {
    const wasm = this.#wasm;
    const count = wasm.load_issuer_keys(number, write(wasm, jwks));
    const said = read(wasm);
    if (count < 0) throw new Error(`the keys of ${this.#issuers[number]?.issuer}: ${said}`);
    this.#keys[number] = Array.from({ length: count }, (_, index) => {
      wasm.key(FIRST_PURPOSE + number, index);
      const key = importKey(read(wasm));
      // Whoever uses it hears of it; it vouches for nothing.
      key.catch(() => undefined);
      return key;
    });
    this.#generations[number] = (this.#generations[number] ?? 0) + 1;
    return said === "" ? [] : said.split("\n");
  }

  /** The number of the issuer whose token this is: by what was verified before, or by what the token says. Undefined: of none that is trusted. */
  issuerOf(token: string): number | undefined {
    const number = this.#verified.get(token)?.held ?? this.#wasm.issuer_of(this.#write(token));
    return number < 0 ? undefined : number;
  }

  /** Whether a token held before: nothing needs to be said against its being one of ours. */
  knows(token: string): boolean {
    return this.#verified.get(token) !== undefined;
  }

  /** Decides about a token by what is trusted of issuer `number`, at `now`, in seconds since the Unix epoch. */
  async verify(number: number, token: string, now: number): Promise<Verdict> {
    const entry = this.#verified.get(token);
    if (entry !== undefined) {
      if (entry.held === number && entry.generation === this.#generations[number] && now >= entry.from && now < entry.until) return entry.verdict;
      this.#verified.delete(token);
    }
    const wasm = this.#wasm;
    const handle = wasm.prepare_foreign(number, this.#write(token));
    if (handle < 0) return { refused: readRefused(read(this.#wasm)) };
    const generation = this.#generations[number] ?? 0;
    const valid = await this.#signatureHolds(handle, this.#keys[number]?.[wasm.pending_key(handle)]);
    if (wasm.finish_foreign(handle, valid ? 1 : 0, now) < 0) return { refused: readRefused(read(this.#wasm)) };
    const { identity, expiresAt } = readHolder(read(wasm), this.#issuers[number]?.issuer ?? "");
    const verdict = { identity };
    if (generation === this.#generations[number]) {
      this.#verified.set({ token, verdict, held: number, from: now, until: Math.min(expiresAt, now + KEPT_SECONDS), generation });
    }
    return verdict;
  }

  keyNames(number: number): { readonly kid: string; readonly alg: string }[] {
    return (this.#keys[number] ?? []).map((_, index) => {
      this.#wasm.key_name(FIRST_PURPOSE + number, index);
      const [alg = "", ...kid] = read(this.#wasm).split(" ");
      return { kid: kid.join(" "), alg };
    });
  }

  async #signatureHolds(handle: number, key: Promise<HostKey> | undefined): Promise<boolean> {
    const wasm = this.#wasm;
    // Copies: neither buffer is ours once something is awaited.
    const signed = new Uint8Array(wasm.memory.buffer, wasm.input(0), wasm.pending_signing_input(handle)).slice();
    wasm.pending_signature(handle);
    const signature = new Uint8Array(wasm.memory.buffer, wasm.output_ptr(), wasm.output_len()).slice();
    try {
      return (await (await key)?.(signature, signed)) ?? false;
    } catch {
      // A key that the host wouldn't import, or input that it wouldn't look at, vouches for nothing.
      return false;
    }
  }

  #write(token: string): number {
    return write(this.#wasm, token.slice(0, LONGEST_TOKEN_SEEN));
  }
}

/** A JWK Set, and when the issuer was asked for it. */
interface Answered {
  readonly jwks: string;
  readonly at: number;
}

/** The keys of one trusted issuer. */
export class IssuerKeys extends FetchedKeys {
  /** Anybody can write a token that names it. */
  protected override readonly patienceMs = RETRY_AFTER_MS;
  readonly #verifier: ForeignVerifier;
  readonly #number: number;
  readonly #issuer: TrustedIssuer;
  /** Where its metadata said that its keys are. */
  #jwksUri: string | undefined;
  #loaded: string | undefined;

  constructor(verifier: ForeignVerifier, number: number, issuer: TrustedIssuer) {
    super();
    this.#verifier = verifier;
    this.#number = number;
    this.#issuer = issuer;
    this.#jwksUri = issuer.jwksUri;
  }

  protected override async fetch(isForUnknownKey: boolean): Promise<void> {
    const shared = await this.#shared(isForUnknownKey ? UNKNOWN_KEY_COOLDOWN_MS : RENEW_AFTER_MS);
    if (shared !== undefined) {
      try {
        return this.#take(shared);
      } catch (error) {
        // It was another deployment's, with other algorithms, or isn't what was put there.
        note("cache_failed", String(error));
        if (error instanceof WebAssembly.RuntimeError) throw error;
      }
    }
    const answered = await this.#ask();
    this.#take(answered);
    // What isn't sound isn't spread.
    await this.#share(answered);
  }

  /** Throws, and all stays as it was, where no key is sound. `at`: when the issuer was asked. */
  #take({ jwks, at }: Answered): void {
    // The same again is no change: nobody has to be looked at anew.
    if (jwks !== this.#loaded) {
      const unsound = this.#verifier.loadKeys(this.#number, jwks);
      this.#loaded = jwks;
      this.changes += 1;
      if (unsound.length > 0) note("unsound_keys", `of the keys of ${this.#issuer.issuer} these are left out: ${unsound.join("; ")}`);
    }
    this.loadedAt = Date.now();
    // It is the issuer that says what there is, whichever isolate it told.
    this.triedAt = this.currentAt = at;
  }

  /** What another isolate of this place was answered within the last `ms`. */
  async #shared(ms: number): Promise<Answered | undefined> {
    try {
      const kept = await theCache()?.match(this.#cacheKey);
      const at = Number(kept?.headers.get("x-fetched-at"));
      const jwks = await kept?.text();
      const age = Date.now() - at;
      return jwks !== undefined && age >= 0 && age < ms ? { jwks, at } : undefined;
    } catch (error) {
      note("cache_failed", String(error));
      return undefined;
    }
  }

  async #ask(): Promise<Answered> {
    const at = Date.now();
    try {
      this.#jwksUri ??= await discover(this.#issuer.issuer);
      return { jwks: await fetchJson(this.#jwksUri), at };
    } catch (error) {
      // They may have moved.
      this.#jwksUri = this.#issuer.jwksUri;
      throw error;
    }
  }

  async #share({ jwks, at }: Answered): Promise<void> {
    const headers = { "cache-control": `max-age=${SHARED_SECONDS}`, "content-type": "application/jwk-set+json", "x-fetched-at": String(at) };
    await theCache()?.put(this.#cacheKey, new Response(jwks, { headers })).catch((error: unknown) => note("cache_failed", String(error)));
  }

  /** No address that anybody could ask for. */
  get #cacheKey(): string {
    return `https://keys.countersign.invalid/${encodeURIComponent(this.#issuer.issuer)}?from=${encodeURIComponent(this.#issuer.jwksUri ?? "")}`;
  }
}

function theCache(): Cache | undefined {
  return typeof caches === "undefined" ? undefined : caches.default;
}

/** Where an issuer's metadata says its JWK Set is: OpenID Connect Discovery 1.0 §4, else RFC 8414 §3. Both demand that it names the issuer itself. */
async function discover(issuer: string): Promise<string> {
  const { origin, pathname } = new URL(issuer);
  const path = pathname.replace(/\/$/, "");
  const places = [`${origin}${path}/.well-known/openid-configuration`, `${origin}/.well-known/oauth-authorization-server${path}`];
  let problem: unknown;
  for (const place of places) {
    try {
      const metadata: unknown = JSON.parse(await fetchJson(place));
      const { issuer: named, jwks_uri: uri } = (metadata ?? {}) as { issuer?: unknown; jwks_uri?: unknown };
      if (named !== issuer) throw new Error(`${place} is the metadata of another issuer`);
      if (typeof uri !== "string" || !isSafeUrl(uri)) throw new Error(`${place} names no https URL as jwks_uri`);
      return uri;
    } catch (error) {
      problem ??= error;
    }
  }
  throw problem;
}
