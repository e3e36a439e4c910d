// The verification core (edge-verifier/verifier, WebAssembly) as an object. It decides; this file carries bytes to it and
// signatures to the host's crypto.

import { type KeyObject, createPublicKey, verify as verifyNow } from "node:crypto";
import { KEPT_SECONDS, VerifiedTokens } from "./verified.ts";

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
  recheck(held: number, now: number, evenIfStale: number): number;
  forget(held: number): void;
  prepare_head(length: number): number;
  finish_head(handle: number, signatureIsValid: number): number;
  load_base(length: number): number;
  head(): number;
  prepare_key_statement(length: number): number;
  finish_key_statement(handle: number, signatureIsValid: number): number;
  key_statement(): number;
  explain(handle: number, signatureIsValid: number): number;
  explain_jti(length: number): number;
  in_force(): number;
  key_name(purpose: number, index: number): number;
  load_policy(length: number): number;
  route(methodLength: number, length: number): number;
  admits(route: number, length: number): number;
  trust(length: number, clockLeeway: number, algorithms: number, types: number): number;
  trust_text(issuer: number, what: number, length: number): number;
  load_issuer_keys(issuer: number, length: number): number;
  issuer_of(length: number): number;
  prepare_foreign(issuer: number, length: number): number;
  finish_foreign(handle: number, signatureIsValid: number, now: number): number;
  pending_key(handle: number): number;
  pending_signing_input(handle: number): number;
  pending_signature(handle: number): void;
}

/** Who a token belongs to, once it holds. */
export interface Identity {
  /** Whose token it is: all else is as that one says. */
  readonly issuer: string;
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

/** Where something is that was revoked: in the base object, or in what came since. */
export type Part = "base" | "delta";

/** What of a token bears on its revocation; times in seconds since the Unix epoch. */
export interface Explanation {
  readonly jti: string;
  readonly agent: string;
  readonly tenant: string;
  readonly credential: string;
  readonly kid: string;
  readonly issuedAt: number;
  readonly expiresAt: number;
  /** Where its serial is revoked. */
  readonly serial: Part | null;
  /** The latest not-before rule about it, whether or not that ends it: it does if it isn't before `issuedAt`. */
  readonly rule: { readonly level: string; readonly notBefore: number; readonly part: Part } | null;
}

/** All that is in force, in figures; times in seconds since the Unix epoch. */
export interface InForce {
  readonly head: { readonly epoch: number; readonly seq: number; readonly asOf: number; readonly freshUntil: number };
  readonly base: { readonly sha256: string; readonly seq: number; readonly bytes: number; readonly serials: number; readonly rules: number };
  readonly delta: { readonly bytes: number; readonly serials: number; readonly rules: number };
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
export const LONGEST_TOKEN_SEEN = 16 * 1024;

/** Whether a signature holds over what was signed: at once where the host can say so, else later. Neither argument is kept. */
export type HostKey = (signature: Uint8Array<ArrayBuffer>, signed: Uint8Array<ArrayBuffer>) => boolean | Promise<boolean>;

export class Verifier {
  readonly #wasm: VerifierExports;
  #memory = new Uint8Array();
  readonly #keys: Record<Purpose, (HostKey | Promise<HostKey>)[]> = { tokens: [], heads: [] };
  /** Goes up with every change of the tokens' keys. */
  #keyGeneration = 0;
  readonly #verified: VerifiedTokens;
  /** How many tokens `verify` knew again, and how many not. */
  hits = 0;
  misses = 0;
  #issuer = "";
  /** Goes up with every change of what is revoked. */
  #generation = 0;
  /** The signed bound of the head in force, in seconds since the Unix epoch. */
  #freshUntil = -Infinity;

  constructor(wasm: VerifierExports) {
    this.#wasm = wasm;
    this.#verified = new VerifiedTokens((held) => wasm.forget(held));
  }

  configure(issuer: string, audiences: readonly string[], clockLeewaySeconds: number): void {
    this.#verified.clear();
    this.#issuer = issuer;
    this.#wasm.configure(this.#write(issuer), clockLeewaySeconds);
    for (const audience of audiences) this.#wasm.add_audience(this.#write(audience));
  }

  /** The one whose tokens these are. */
  get issuer(): string {
    return this.#issuer;
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
    if (purpose === "tokens") {
      // What another set of keys vouched for is looked at again.
      this.#keyGeneration += 1;
      this.#verified.clear();
    }
    const imported = await Promise.all(importing);
    if (this.#keys[purpose] === importing) this.#keys[purpose] = imported;
  }

  /**
   * Decides about a token at `now`, in seconds since the Unix epoch; at once, where the host can check its signature at once. `evenIfStale`: by the
   * newest head that there is, even if it is no longer to be relied on.
   */
  verify(token: string, now: number, evenIfStale = false): Verdict | Promise<Verdict> {
    const recalled = this.recall(token, now, evenIfStale);
    if (recalled !== undefined) {
      this.hits += 1;
      return recalled;
    }
    this.misses += 1;
    return this.#verifyAnew(token, now, evenIfStale);
  }

  /** The verdict on a token that was verified before, if it still holds: not expired, and not revoked by what is known now. */
  recall(token: string, now: number, evenIfStale = false): Verdict | undefined {
    const entry = this.#verified.get(token);
    if (entry === undefined) return undefined;
    if (now >= entry.from && now < entry.until && (evenIfStale || now < this.#freshUntil)) {
      // The set of what is revoked changes as a whole: in one and the same the answer is the same.
      if (entry.generation === this.#generation) return entry.verdict;
      if (this.#wasm.recheck(entry.held, now, evenIfStale ? 1 : 0) === 0) {
        entry.generation = this.#generation;
        return entry.verdict;
      }
    }
    this.#verified.delete(token);
    return undefined;
  }

  #verifyAnew(token: string, now: number, evenIfStale: boolean): Verdict | Promise<Verdict> {
    const handle = this.#wasm.prepare(this.#write(token.slice(0, LONGEST_TOKEN_SEEN)));
    if (handle < 0) return { refused: this.#refusal() };
    const keys = this.#keyGeneration;
    const finish = (valid: boolean): Verdict => {
      const held = this.#wasm.finish(handle, valid ? 1 : 0, now, evenIfStale ? 1 : 0);
      if (held < 0) return { refused: this.#refusal() };
      const { identity, expiresAt } = readHolder(this.#output(), this.#issuer);
      const verdict = { identity };
      if (keys === this.#keyGeneration) {
        const until = Math.min(expiresAt, now + KEPT_SECONDS);
        this.#verified.set({ token, verdict, held, from: now, until, generation: this.#generation });
      } else {
        this.#wasm.forget(held);
      }
      return verdict;
    };
    const valid = this.#signatureHolds(handle, "tokens");
    return typeof valid === "boolean" ? finish(valid) : valid.then(finish);
  }

  /** What of a token bears on its revocation; a refusal if its issuer didn't sign it. Decides nothing. */
  async explain(token: string): Promise<Explanation | Refused> {
    const handle = this.#wasm.prepare(this.#write(token.slice(0, LONGEST_TOKEN_SEEN)));
    if (handle < 0) return this.#refusal();
    const valid = await this.#signatureHolds(handle, "tokens");
    if (this.#wasm.explain(handle, valid ? 1 : 0) < 0) return this.#refusal();
    const [jti = "", agent = "", tenant = "", credential = "", kid = "", issued, expires, serial, level = "", notBefore, part] =
      this.#output().split("\n");
    return {
      ...{ jti, agent, tenant, credential, kid },
      issuedAt: Number(issued),
      expiresAt: Number(expires),
      serial: asPart(serial),
      rule: level === "" ? null : { level, notBefore: Number(notBefore), part: asPart(part) ?? "base" },
    };
  }

  /** Where a jti is revoked; null: nowhere. Undefined: it is none of ours, or nothing is known yet. */
  explainJti(jti: string): Part | null | undefined {
    return this.#wasm.explain_jti(this.#write(jti)) < 0 ? undefined : asPart(this.#output());
  }

  inForce(): InForce | undefined {
    if (this.#wasm.in_force() < 0) return undefined;
    const fields = this.#output().split(" ");
    const [epoch = NaN, seq = NaN, asOf = NaN, freshUntil = NaN, , baseSeq = NaN, ...sizes] = fields.map(Number);
    const [baseBytes = NaN, baseSerials = NaN, baseRules = NaN, bytes = NaN, serials = NaN, rules = NaN] = sizes;
    return {
      head: { epoch, seq, asOf, freshUntil },
      base: { sha256: fields[4] ?? "", seq: baseSeq, bytes: baseBytes, serials: baseSerials, rules: baseRules },
      delta: { bytes, serials, rules },
    };
  }

  /** The keys of tokens that are known. */
  keyNames(): { readonly kid: string; readonly alg: string }[] {
    const names: { kid: string; alg: string }[] = [];
    while (this.#wasm.key_name(PURPOSE.tokens, names.length) === 0) {
      const [alg = "", ...kid] = this.#output().split(" ");
      names.push({ kid: kid.join(" "), alg });
    }
    return names;
  }

  /** Takes a revocation head (a JWS) into force, if it holds and isn't older than what is. */
  async adoptHead(jws: string): Promise<HeadOutcome> {
    const handle = this.#wasm.prepare_head(this.#write(jws));
    if (handle < 0) return { kind: "refused", reason: this.#refusal().reason };
    const valid = await this.#signatureHolds(handle, "heads");
    switch (this.#wasm.finish_head(handle, valid ? 1 : 0)) {
      case 0:
        this.#noteRevocations();
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
    if (refused === undefined) this.#noteRevocations();
    return refused;
  }

  /** Something new may be revoked. */
  #noteRevocations(): void {
    this.#generation += 1;
    this.#freshUntil = this.head()?.freshUntil ?? -Infinity;
  }

  head(): HeadInForce | undefined {
    if (this.#wasm.head() < 0) return undefined;
    const [epoch = NaN, seq = NaN, freshUntil = NaN, keys] = this.#output().split(" ").map(Number);
    return { epoch, seq, freshUntil, keys };
  }

  #signatureHolds(handle: number, purpose: Purpose): boolean | Promise<boolean> {
    const key = this.#keys[purpose][this.#wasm.pending_key(handle)];
    if (key === undefined) return false;
    const start = this.#wasm.input(0);
    const length = this.#wasm.pending_signing_input(handle);
    this.#wasm.pending_signature(handle);
    const [signed, signature] = [this.#bytes().subarray(start, start + length), this.#outputBytes()];
    // A key that the host wouldn't import, or input that it wouldn't look at, vouches for nothing.
    const refuse = () => false;
    try {
      if (typeof key === "function") {
        const holds = key(signature, signed);
        return typeof holds === "boolean" ? holds : holds.catch(refuse);
      }
      // Copies: neither buffer is ours once something is awaited.
      const copies = [signature.slice(), signed.slice()] as const;
      return key.then((imported) => imported(...copies)).catch(refuse);
    } catch {
      return false;
    }
  }

  #write(text: string): number {
    // Three bytes are the most that UTF-8 needs for one UTF-16 code unit.
    const start = this.#wasm.input(text.length * 3);
    return encoder.encodeInto(text, this.#bytes().subarray(start, start + text.length * 3)).written;
  }

  #refusal(): Refused {
    return readRefused(this.#output());
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

/** What the core writes of a token of `issuer` that holds: lines. Every verification comes by here, and splitting them and taking the array apart takes several times as long. */
export function readHolder(text: string, issuer: string): { readonly identity: Identity; readonly expiresAt: number } {
  const agent = text.indexOf("\n");
  const tenant = text.indexOf("\n", agent + 1);
  const credential = text.indexOf("\n", tenant + 1);
  const agentType = text.indexOf("\n", credential + 1);
  const jti = text.indexOf("\n", agentType + 1);
  const scope = text.indexOf("\n", jti + 1);
  const expiresAt = text.indexOf("\n", scope + 1);
  const identity = {
    issuer,
    agent: text.slice(0, agent),
    tenant: text.slice(agent + 1, tenant),
    credential: text.slice(tenant + 1, credential),
    agentType: text.slice(credential + 1, agentType),
    jti: text.slice(agentType + 1, jti),
    scope: text.slice(jti + 1, scope),
    audience: text.slice(expiresAt + 1),
  };
  return { identity, expiresAt: Number(text.slice(scope + 1, expiresAt)) };
}

/** What the core writes of a refusal. */
export function readRefused(text: string): Refused {
  const [reason = "", challenge = "", description = ""] = text.split("\n");
  return { reason, challenge, description };
}

function asPart(text: string | undefined): Part | null {
  return text === "base" || text === "delta" ? text : null;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Imports a JWK that the core has checked. All but PS256 are checked at once, which spares the request a turn of the event loop and is faster. */
export async function importKey(json: string): Promise<HostKey> {
  const { alg, ...jwk } = JSON.parse(json) as JsonWebKey;
  switch (alg) {
    case "RS256":
      return atOnce("sha256", createPublicKey({ key: jwk, format: "jwk" }));
    case "PS256": {
      const key = await crypto.subtle.importKey("jwk", jwk, { name: "RSA-PSS", hash: "SHA-256" }, false, ["verify"]);
      return later({ name: "RSA-PSS", saltLength: 32 }, key);
    }
    case "ES256": {
      const verify = atOnce("sha256", createPublicKey({ key: jwk, format: "jwk" }));
      return (signature, signed) => verify(asDer(signature), signed);
    }
    case "EdDSA":
      return atOnce(null, createPublicKey({ key: jwk, format: "jwk" }));
    default:
      throw new Error(`the core let an unknown algorithm through: ${alg}`);
  }
}

function atOnce(digest: "sha256" | null, key: KeyObject): HostKey {
  return (signature, signed) => verifyNow(digest, signed, key, signature);
}

/** An ECDSA signature as `node:crypto` takes it in workerd (RFC 3279 §2.2.3), of one as JWS has it (RFC 7518 §3.4): two integers of 32 bytes, the core has seen to that. */
function asDer(signature: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  // SEQUENCE, and twice INTEGER: without leading zeros, and with one where it would be negative else.
  const der = new Uint8Array(72);
  der[0] = 0x30;
  let end = 2;
  for (const start of [0, 32]) {
    let first = start;
    while (first < start + 31 && signature[first] === 0) first += 1;
    const isNegative = signature[first]! >= 0x80;
    der[end++] = 0x02;
    der[end++] = start + 32 - first + (isNegative ? 1 : 0);
    if (isNegative) end += 1;
    while (first < start + 32) der[end++] = signature[first++]!;
  }
  der[1] = end - 2;
  return der.subarray(0, end);
}

/** The host copies what it is given before it returns. */
function later(algorithm: SubtleCryptoSignAlgorithm, key: CryptoKey): HostKey {
  return (signature, signed) => crypto.subtle.verify(algorithm, key, signature, signed);
}
