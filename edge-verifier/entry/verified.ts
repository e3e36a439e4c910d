// Tokens that were verified, by their exact text: whoever shows one again is spared the signature. Its expiry and its revocation are looked at
// each time all the same (verifier.ts).

import type { Verdict } from "./verifier.ts";

/** A token that held when it was verified. */
export interface VerifiedToken {
  readonly token: string;
  readonly verdict: Verdict;
  /** The core's number for it. */
  readonly held: number;
  /** Seconds since the Unix epoch: since when it was seen to hold, and from when on its signature is to be looked at again. */
  readonly from: number;
  readonly until: number;
  /** The state of knowledge about revocations in which it was last seen to hold. */
  generation: number;
}

/** How many tokens are kept in each of the two halves, and how many characters of them at most. */
const HALF = 2_048;
const HALF_CHARACTERS = 2 * 1024 * 1024;
/** By so many last characters tokens are looked up, before they are compared in full: a string's hash takes longer than comparing it. They are of the signature. */
const TAIL = 32;
/** How long a verified signature counts, in seconds; never longer than the token. */
export const KEPT_SECONDS = 300;

/**
 * A bounded table: what wasn't asked for since the newer half was begun goes when that is full. A flood of tokens pushes others out, which costs
 * those a verification and nobody a wrong verdict.
 */
export class VerifiedTokens {
  #newer = new Map<string, VerifiedToken>();
  #older = new Map<string, VerifiedToken>();
  /** Of the newer half; what was deleted since counts too. */
  #characters = 0;
  readonly #forget: (held: number) => void;

  /** `forget` is called with each token's number when it is gone. */
  constructor(forget: (held: number) => void) {
    this.#forget = forget;
  }

  get(token: string): VerifiedToken | undefined {
    const tail = token.slice(-TAIL);
    const newer = this.#newer.get(tail);
    if (newer !== undefined) return newer.token === token ? newer : undefined;
    const older = this.#older.get(tail);
    if (older === undefined || older.token !== token) return undefined;
    this.#older.delete(tail);
    this.#put(tail, older);
    return older;
  }

  /** Takes the place of what was kept of the token: two requests may have verified it at the same time. */
  set(entry: VerifiedToken): void {
    const tail = entry.token.slice(-TAIL);
    this.#delete(tail);
    this.#put(tail, entry);
  }

  delete(token: string): void {
    this.#delete(token.slice(-TAIL));
  }

  #delete(tail: string): void {
    const entry = this.#newer.get(tail) ?? this.#older.get(tail);
    if (entry === undefined) return;
    this.#newer.delete(tail);
    this.#older.delete(tail);
    this.#forget(entry.held);
  }

  clear(): void {
    for (const half of [this.#newer, this.#older]) {
      for (const { held } of half.values()) this.#forget(held);
      half.clear();
    }
    this.#characters = 0;
  }

  #put(tail: string, entry: VerifiedToken): void {
    const { length } = entry.token;
    this.#characters += length;
    if (this.#newer.size >= HALF || this.#characters > HALF_CHARACTERS) {
      for (const { held } of this.#older.values()) this.#forget(held);
      this.#older = this.#newer;
      this.#newer = new Map();
      this.#characters = length;
    }
    this.#newer.set(tail, entry);
  }
}
