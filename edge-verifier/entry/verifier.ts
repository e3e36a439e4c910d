// The verification core (edge-verifier/verifier, WebAssembly) as an object. It decides; this file carries bytes to it and
// signatures to the host's crypto.

/** What the module exports: numbers in, numbers out. See edge-verifier/verifier/src/lib.rs. */
export interface VerifierExports {
  readonly memory: WebAssembly.Memory;
  input(length: number): number;
  shrink_input(): void;
  output_ptr(): number;
  output_len(): number;
  configure(issuerLength: number, clockLeeway: number): number;
  add_audience(length: number): number;
  load_keys(purpose: number, length: number): number;
  key(purpose: number, index: number): number;
  prepare(length: number): number;
  finish(handle: number, signatureIsValid: number, now: number, evenIfStale: number): number;
  prepare_head(length: number): number;
  finish_head(handle: number, signatureIsValid: number): number;
  load_base(length: number): number;
  head(): number;
  prepare_key_statement(length: number): number;
  finish_key_statement(handle: number, signatureIsValid: number): number;
  key_statement(): number;
  load_policy(length: number): number;
  route(methodLength: number, length: number): number;
  admits(route: number, length: number): number;
  pending_key(handle: number): number;
  pending_signing_input(handle: number): number;
  pending_signature(handle: number): void;
}

/** Who a token belongs to, once it holds. */
export interface Identity {
  readonly agent: string;
  readonly tenant: string;
  readonly credential: string;
  readonly agentType: string;
  readonly jti: string;
  readonly scope: string;
  /** Its `aud`, separated by spaces. */
  readonly audience: string;
}

/** `reason`: a stable word (`Refusal::reason`). `challenge`: for `WWW-Authenticate`; empty where the token is not at fault. */
export interface Refused {
  readonly reason: string;
  readonly challenge: string;
  readonly description: string;
}

export type Verdict = { readonly identity: Identity } | { readonly refused: Refused };

/** `needsBase`: the name of the object to pass to `loadBase` before the head can take effect. */
export type HeadOutcome =
  | { readonly kind: "adopted" | "older" }
  | { readonly kind: "needs-base"; readonly base: string }
  | { readonly kind: "refused"; readonly reason: string };

export interface HeadInForce {
  readonly epoch: number;
  readonly seq: number;
  /** Seconds since the Unix epoch. */
  readonly freshUntil: number;
  /** The version of the key statement that goes with it, in the same epoch; undefined where the issuer makes none. */
  readonly keys: number | undefined;
}

/** Where a key statement stands: a verifier never goes back. */
export interface KeyPosition {
  readonly epoch: number;
  readonly version: number;
}

type Purpose = "tokens" | "heads";
const PURPOSE: Record<Purpose, number> = { tokens: 0, heads: 1 };
/** To `load_keys`: add what isn't there, replace nothing. */
const MISSING_TOKEN_KEYS = 2;

/** Longer tokens are cut: the core refuses from 8 KiB on, and need not see how much more there is. */
const LONGEST_TOKEN_SEEN = 16 * 1024;

interface HostKey {
  readonly key: CryptoKey;
  readonly algorithm: SubtleCryptoSignAlgorithm;
}

export class Verifier {
  readonly #wasm: VerifierExports;
  #memory = new Uint8Array();
  readonly #keys: Record<Purpose, (HostKey | Promise<HostKey>)[]> = { tokens: [], heads: [] };

  constructor(wasm: VerifierExports) {
    this.#wasm = wasm;
  }

  configure(issuer: string, audiences: readonly string[], clockLeewaySeconds: number): void {
    this.#wasm.configure(this.#write(issuer), clockLeewaySeconds);
    for (const audience of audiences) this.#wasm.add_audience(this.#write(audience));
  }

  /** Replaces the keys of one purpose; throws, and keeps those it has, if the JWK Set isn't sound. */
  async loadKeys(purpose: Purpose, jwks: string): Promise<void> {
    const count = this.#wasm.load_keys(PURPOSE[purpose], this.#write(jwks));
    if (count < 0) throw new Error(this.#output());
    await this.#import(purpose, count);
  }

  /** Adds to the keys of tokens those of a JWK Set that aren't there; throws as `loadKeys` does. */
  async addTokenKeys(jwks: string): Promise<void> {
    const count = this.#wasm.load_keys(MISSING_TOKEN_KEYS, this.#write(jwks));
    if (count < 0) throw new Error(this.#output());
    await this.#import("tokens", count);
  }

  /** Takes a key statement (a JWS) into force, if it holds and is newer than the one that is. Whether it was; throws if it is refused. */
  async adoptKeyStatement(jws: string): Promise<boolean> {
    const handle = this.#wasm.prepare_key_statement(this.#write(jws));
    if (handle < 0) throw new Error(this.#refusal().reason);
    const valid = await this.#signatureHolds(handle, "heads");
    const count = this.#wasm.finish_key_statement(handle, valid ? 1 : 0);
    if (count < 0) throw new Error(this.#refusal().reason);
    if (count > 0) await this.#import("tokens", count);
    return count > 0;
  }

  /** Of the key statement in force. */
  keyPosition(): KeyPosition | undefined {
    if (this.#wasm.key_statement() < 0) return undefined;
    const [epoch = NaN, version = NaN] = this.#output().split(" ").map(Number);
    return { epoch, version };
  }

  /** Hands the core's `count` keys of a purpose to the host's crypto. */
  async #import(purpose: Purpose, count: number): Promise<void> {
    // The core has the new keys already, so their places must be filled before anything is awaited.
    const importing = Array.from({ length: count }, (_, index) => {
      this.#wasm.key(PURPOSE[purpose], index);
      return importKey(this.#output());
    });
    this.#keys[purpose] = importing;
    const imported = await Promise.all(importing);
    if (this.#keys[purpose] === importing) this.#keys[purpose] = imported;
  }

  /**
   * Decides about a token at `now`, in seconds since the Unix epoch. `evenIfStale`: by the newest head that there is, even if it is no longer to be
   * relied on.
   */
  async verify(token: string, now: number, evenIfStale = false): Promise<Verdict> {
    const handle = this.#wasm.prepare(this.#write(token.slice(0, LONGEST_TOKEN_SEEN)));
    if (handle < 0) return { refused: this.#refusal() };
    const valid = await this.#signatureHolds(handle, "tokens");
    if (this.#wasm.finish(handle, valid ? 1 : 0, now, evenIfStale ? 1 : 0) < 0) return { refused: this.#refusal() };
    const [agent = "", tenant = "", credential = "", agentType = "", jti = "", scope = "", audience = ""] = this.#output().split("\n");
    return { identity: { agent, tenant, credential, agentType, jti, scope, audience } };
  }

  /** Takes a revocation head (a JWS) into force, if it holds and isn't older than what is. */
  async adoptHead(jws: string): Promise<HeadOutcome> {
    const handle = this.#wasm.prepare_head(this.#write(jws));
    if (handle < 0) return { kind: "refused", reason: this.#refusal().reason };
    const valid = await this.#signatureHolds(handle, "heads");
    switch (this.#wasm.finish_head(handle, valid ? 1 : 0)) {
      case 0:
        return { kind: "adopted" };
      case 1:
        return { kind: "needs-base", base: this.#output() };
      case 2:
        return { kind: "older" };
      default:
        return { kind: "refused", reason: this.#refusal().reason };
    }
  }

  /** The object that the last head asked for. Returns why it is refused, or undefined if all is well. */
  async loadBase(object: ArrayBuffer): Promise<string | undefined> {
    const digest = await crypto.subtle.digest("SHA-256", object);
    const length = digest.byteLength + object.byteLength;
    const start = this.#wasm.input(length);
    const memory = this.#bytes();
    memory.set(new Uint8Array(digest), start);
    memory.set(new Uint8Array(object), start + digest.byteLength);
    const refused = this.#wasm.load_base(length) < 0 ? this.#refusal().reason : undefined;
    this.#wasm.shrink_input();
    return refused;
  }

  head(): HeadInForce | undefined {
    if (this.#wasm.head() < 0) return undefined;
    const [epoch = NaN, seq = NaN, freshUntil = NaN, keys] = this.#output().split(" ").map(Number);
    return { epoch, seq, freshUntil, keys };
  }

  async #signatureHolds(handle: number, purpose: Purpose): Promise<boolean> {
    const held = this.#keys[purpose][this.#wasm.pending_key(handle)];
    if (held === undefined) return false;
    // Copies: neither buffer is ours once something is awaited.
    const start = this.#wasm.input(0);
    const signed = this.#bytes().slice(start, start + this.#wasm.pending_signing_input(handle));
    this.#wasm.pending_signature(handle);
    const signature = this.#outputBytes().slice();
    try {
      const { key, algorithm } = await held;
      return await crypto.subtle.verify(algorithm, key, signature, signed);
    } catch {
      // A key that the host wouldn't import, or input that it wouldn't look at.
      return false;
    }
  }

  #write(text: string): number {
    // Three bytes are the most that UTF-8 needs for one UTF-16 code unit.
    const start = this.#wasm.input(text.length * 3);
    return encoder.encodeInto(text, this.#bytes().subarray(start, start + text.length * 3)).written;
  }

  #refusal(): Refused {
    const [reason = "", challenge = "", description = ""] = this.#output().split("\n");
    return { reason, challenge, description };
  }

  #output(): string {
    return decoder.decode(this.#outputBytes());
  }

  #outputBytes(): Uint8Array<ArrayBuffer> {
    const start = this.#wasm.output_ptr();
    return this.#bytes().subarray(start, start + this.#wasm.output_len());
  }

  /** Growing the memory detaches every view of it, so a view is never kept. */
  #bytes(): Uint8Array<ArrayBuffer> {
    const { buffer } = this.#wasm.memory;
    if (this.#memory.buffer !== buffer) this.#memory = new Uint8Array(buffer);
    return this.#memory;
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Imports a JWK that the core has checked. */
async function importKey(json: string): Promise<HostKey> {
  const { alg, ...jwk } = JSON.parse(json) as JsonWebKey;
  const usage = (algorithm: SubtleCryptoImportKeyAlgorithm) =>
    crypto.subtle.importKey("jwk", jwk, algorithm, false, ["verify"]);
  switch (alg) {
    case "RS256":
      return {
        key: await usage({ name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }),
        algorithm: { name: "RSASSA-PKCS1-v1_5" },
      };
    case "PS256":
      return {
        key: await usage({ name: "RSA-PSS", hash: "SHA-256" }),
        algorithm: { name: "RSA-PSS", saltLength: 32 },
      };
    case "ES256":
      return {
        key: await usage({ name: "ECDSA", namedCurve: "P-256" }),
        algorithm: { name: "ECDSA", hash: "SHA-256" },
      };
    case "EdDSA":
      return { key: await usage({ name: "Ed25519" }), algorithm: { name: "Ed25519" } };
    default:
      throw new Error(`the core let an unknown algorithm through: ${alg}`);
  }
}
