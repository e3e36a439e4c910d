// Tokens that were verified, by their exact text: whoever shows one again is spared the signature. Its expiry and its revocation are looked at
// each time all the same (verifier.ts).

import type { Verdict } from "./verifier.ts";

/** A token that held when it was verified. */
export interface VerifiedToken {
  readonly verdict: Verdict;
  /** The core's number for it. */
  readonly held: number;
  /** Seconds since the Unix epoch: since when it was seen to hold, and from when on its signature is to be looked at again. */
  readonly from: number;
  readonly until: number;
  /** The state of knowledge about revocations in which it was last seen to hold. */
  generation: number;
}

/** How many tokens are kept in each of the two halves. */
const HALF = 2_048;
/** How long a verified signature counts, in seconds; never longer than the token. */
export const KEPT_SECONDS = 300;

/**
 * A bounded table: what wasn't asked for since the newer half was begun goes when that is full. A flood of tokens pushes others out, which costs
 * those a verification and nobody a wrong verdict.
 */
export class VerifiedTokens {
  #newer = new Map<string, VerifiedToken>();
  #older = new Map<string, VerifiedToken>();
  readonly #forget: (held: number) => void;

  /** `forget` is called with each token's number when it is gone. */
  constructor(forget: (held: number) => void) {
    this.#forget = forget;
  }

  get(token: string): VerifiedToken | undefined {
    const newer = this.#newer.get(token);
    if (newer !== undefined) return newer;
    const older = this.#older.get(token);
    if (older === undefined) return undefined;
    this.#older.delete(token);
    this.#put(token, older);
    return older;
  }

  set(token: string, entry: VerifiedToken): void {
    // Two requests with the same token may have been verified at the same time.
    this.delete(token);
    this.#put(token, entry);
  }

  delete(token: string): void {
    const entry = this.#newer.get(token) ?? this.#older.get(token);
    if (entry === undefined) return;
    this.#newer.delete(token);
    this.#older.delete(token);
    this.#forget(entry.held);
  }

  clear(): void {
    for (const half of [this.#newer, this.#older]) {
      for (const { held } of half.values()) this.#forget(held);
      half.clear();
    }
  }

  #put(token: string, entry: VerifiedToken): void {
    if (this.#newer.size >= HALF) {
      for (const { held } of this.#older.values()) this.#forget(held);
      this.#older = this.#newer;
      this.#newer = new Map();
    }
    this.#newer.set(token, entry);
  }
}
