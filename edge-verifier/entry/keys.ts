// The issuer's public keys. They are pushed ahead of use, signed, through the hub (revocations.ts brings them); where no push has
// come, or pushes have stopped, or a token names a key that isn't known, the isolate asks the issuer itself.

import { type Background, SingleFlight, alarm, note } from "./refresh.ts";
import type { Verifier } from "./verifier.ts";

/** How long keys serve that nobody vouches for before they are renewed in the background; the issuer advertises the same lifetime. */
const RENEW_AFTER_MS = 300_000;
/** An isolate that slept for longer waits for the renewal: its keys may have been withdrawn meanwhile. */
const WAIT_AFTER_MS = 600_000;
/** So long old keys stay good while the issuer is away. */
const GOOD_FOR_MS = 24 * 3_600_000;
/** How long a request waits for keys at most. */
const WAIT_MS = 3_000;
/** How long after a renewal an unknown `kid` is believed to be none of the issuer's, so that made-up ones cost it nothing. */
const UNKNOWN_KEY_COOLDOWN_MS = 10_000;
/** How long to leave an issuer alone that didn't answer. */
const RETRY_AFTER_MS = 1_000;

export class KeyFeed {
  readonly #verifier: Verifier;
  readonly #settings: { readonly jwksUrl: string };
  readonly #flight = new SingleFlight(WAIT_MS);
  /** When keys came last, and when the issuer was last asked. */
  #loadedAt = -Infinity;
  #triedAt = -Infinity;
  /** When what we hold was last known to be all there is: the issuer had just said so, or a signed head named the statement that we hold. */
  #currentAt = -Infinity;
  /** Whether the keys in force are those of a key statement, and not what the issuer answered. */
  #arePushed = false;
  #changes = 0;

  constructor(verifier: Verifier, settings: { readonly jwksUrl: string }) {
    this.#verifier = verifier;
    this.#settings = settings;
  }

  /** Goes up whenever other keys come into force. */
  get changes(): number {
    return this.#changes;
  }

  /** Whether there are keys that may still be gone by. */
  get #areGood(): boolean {
    return Date.now() - Math.max(this.#loadedAt, this.#currentAt) < GOOD_FOR_MS;
  }

  /** Whether a signed head vouched for the pushed keys within the last `ms`. */
  #isVouchedFor(ms: number): boolean {
    return this.#arePushed && Date.now() - this.#currentAt <= ms;
  }

  /** Whether there are keys; asks the issuer where there aren't, and waits. Old keys stay good for a day while nobody can be asked. */
  async ready(ctx: Background): Promise<boolean> {
    const now = Date.now();
    if (!this.#areGood || (now - this.#currentAt > RENEW_AFTER_MS && now - this.#triedAt > RETRY_AFTER_MS)) {
      const renewal = this.#flight.run(ctx, () => {
        if (this.#arePushed) note("keys_not_vouched_for", "no head names the pushed keys any more: the issuer is asked for its keys");
        return this.#fetch();
      });
      if (!this.#areGood || now - Math.max(this.#triedAt, this.#currentAt) > WAIT_AFTER_MS) await renewal;
      else ctx.waitUntil(renewal);
    }
    return this.#areGood;
  }

  /** Takes a pushed key statement (a JWS); throws, and everything stays as it is, if that is refused. */
  async take(statement: string): Promise<void> {
    if (!(await this.#verifier.adoptKeyStatement(statement))) return;
    this.#arePushed = true;
    this.#loadedAt = Date.now();
    this.#changes += 1;
  }

  /** A head came into force that was the newest at `heardAt`: if it names the statement that we hold, our keys were current then. */
  noteHead(heardAt: number): void {
    const head = this.#verifier.head();
    const held = this.#verifier.keyPosition();
    if (!this.#arePushed || head?.keys === undefined || held === undefined) return;
    const isHeld = held.epoch > head.epoch || (held.epoch === head.epoch && held.version >= head.keys);
    if (isHeld) this.#currentAt = Math.max(this.#currentAt, heardAt);
  }

  /** A token named a key that isn't known. Asks the issuer for its keys, unless it was asked a moment ago: then the key is none of its own. */
  async renewForUnknownKey(ctx: Background): Promise<"renewed" | "recent" | "failed"> {
    if (Date.now() - this.#triedAt >= UNKNOWN_KEY_COOLDOWN_MS) {
      const before = this.#changes;
      await this.#flight.run(ctx, () => {
        note("unknown_key", "a token names a key that isn't known: the issuer is asked for its keys");
        return this.#fetch();
      });
      if (this.#changes !== before) return "renewed";
    }
    // The issuer is away. Then what it signed a moment ago decides: a key that isn't in there isn't its own.
    if (this.#isVouchedFor(UNKNOWN_KEY_COOLDOWN_MS)) return "recent";
    return this.#loadedAt >= this.#triedAt ? "recent" : "failed";
  }

  async #fetch(): Promise<void> {
    try {
      const response = await fetch(this.#settings.jwksUrl, {
        headers: { accept: "application/jwk-set+json, application/json", "user-agent": "countersign-edge" },
        redirect: "manual",
        cache: "no-store",
        signal: AbortSignal.timeout(WAIT_MS),
      });
      if (response.status !== 200) throw new Error(`${this.#settings.jwksUrl} answered ${response.status}`);
      const jwks = await response.text();
      // An answer has no place in the order of key statements, and may come from somebody's cache. So it replaces no keys that a head vouches
      // for: it may only add what is so new that the push hasn't come.
      const isAddition = this.#isVouchedFor(RENEW_AFTER_MS);
      const loading = isAddition ? this.#verifier.addTokenKeys(jwks) : this.#verifier.loadKeys("tokens", jwks);
      if (!isAddition) this.#arePushed = false;
      this.#changes += 1;
      await loading;
      this.#loadedAt = this.#triedAt = Date.now();
      if (!isAddition) this.#currentAt = this.#loadedAt;
    } catch (error) {
      this.#triedAt = Date.now();
      alarm("jwks_refresh_failed", error);
    }
  }
}
