// Public keys of issuers. Our own one's are pushed ahead of use, signed, through the hub (revocations.ts brings them); where no push has
// come, or pushes have stopped, or a token names a key that isn't known, the isolate asks the issuer itself. Others' (issuers.ts) are always asked for.

import { type Background, SingleFlight, alarm, note } from "./refresh.ts";
import type { Verifier } from "./verifier.ts";

/** How long keys serve that nobody vouches for before they are renewed in the background; the issuer advertises the same lifetime. */
export const RENEW_AFTER_MS = 300_000;
/** An isolate that slept for longer waits for the renewal: its keys may have been withdrawn meanwhile. */
const WAIT_AFTER_MS = 600_000;
/** So long old keys stay good while the issuer is away. */
const GOOD_FOR_MS = 24 * 3_600_000;
/** How long a request waits for keys at most. */
const WAIT_MS = 3_000;
/** The longest JWK Set, or metadata, in bytes; the core reads no longer one either. */
const MAX_BYTES = 64 * 1024;
/** How long after a renewal an unknown `kid` is believed to be none of the issuer's, so that made-up ones cost it nothing. */
export const UNKNOWN_KEY_COOLDOWN_MS = 10_000;
/** How long to leave an issuer alone that didn't answer. */
export const RETRY_AFTER_MS = 1_000;

/** Fetches a JSON document about keys. Throws where it isn't there as it should be: elsewhere (a redirect), too long, or too late. */
export async function fetchJson(url: string): Promise<string> {
  const response = await fetch(url, {
    headers: { accept: "application/jwk-set+json, application/json", "user-agent": "countersign-edge" },
    // Whose keys count is for the settings to say, not for whoever answers.
    redirect: "manual",
    cache: "no-store",
    signal: AbortSignal.timeout(WAIT_MS),
  });
  if (response.status !== 200) {
    await response.body?.cancel();
    throw new Error(`${url} answered ${response.status}`);
  }
  const decoder = new TextDecoder();
  let [text, bytes] = ["", 0];
  for await (const chunk of response.body ?? []) {
    bytes += chunk.byteLength;
    if (bytes > MAX_BYTES) throw new Error(`${url} answered more than ${MAX_BYTES} bytes`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/** When an issuer is asked for its keys, and for how long what it said is gone by. */
export abstract class FetchedKeys {
  readonly #flight = new SingleFlight(WAIT_MS);
  /** When keys came last, and when the issuer was last asked. */
  protected loadedAt = -Infinity;
  protected triedAt = -Infinity;
  /** When what we hold was last known to be all there is: the issuer had just said so, or a signed head named the statement that we hold. */
  protected currentAt = -Infinity;
  /** Goes up whenever other keys come into force. */
  changes = 0;
  /** How long to leave an issuer alone that didn't answer, where there are no keys at all; our own is asked by every request then. */
  protected readonly patienceMs: number = 0;

  /** Asks the issuer and takes what it answers; throws where that can't be. `isForUnknownKey`: an answer that was kept somewhere won't do. */
  protected abstract fetch(isForUnknownKey: boolean): Promise<void>;

  /** Whether somebody other than the issuer vouched for the keys within the last `ms`. */
  protected isVouchedFor(_ms: number): boolean {
    return false;
  }

  /** Whether there are keys that may still be gone by. */
  get #areGood(): boolean {
    return Date.now() - Math.max(this.loadedAt, this.currentAt) < GOOD_FOR_MS;
  }

  /** Whether there are keys; asks the issuer where there aren't, and waits. Old keys stay good for a day while nobody can be asked. */
  async ready(ctx: Background): Promise<boolean> {
    const now = Date.now();
    if (!this.#areGood && now - this.triedAt < this.patienceMs) return false;
    if (!this.#areGood || (now - this.currentAt > RENEW_AFTER_MS && now - this.triedAt > RETRY_AFTER_MS)) {
      const renewal = this.#flight.run(ctx, () => this.#renew(false));
      if (!this.#areGood || now - Math.max(this.triedAt, this.currentAt) > WAIT_AFTER_MS) await renewal;
      else ctx.waitUntil(renewal);
    }
    return this.#areGood;
  }

  /** A token named a key that isn't known. Asks the issuer for its keys, unless it was asked a moment ago: then the key is none of its own. */
  async renewForUnknownKey(ctx: Background): Promise<"renewed" | "recent" | "failed"> {
    if (Date.now() - this.triedAt >= UNKNOWN_KEY_COOLDOWN_MS) {
      const before = this.changes;
      await this.#flight.run(ctx, () => {
        note("unknown_key", "a token names a key that isn't known: the issuer is asked for its keys");
        return this.#renew(true);
      });
      if (this.changes !== before) return "renewed";
    }
    // The issuer is away. Then what it signed a moment ago decides: a key that isn't in there isn't its own.
    if (this.isVouchedFor(UNKNOWN_KEY_COOLDOWN_MS)) return "recent";
    return this.loadedAt >= this.triedAt ? "recent" : "failed";
  }

  async #renew(isForUnknownKey: boolean): Promise<void> {
    try {
      await this.fetch(isForUnknownKey);
    } catch (error) {
      this.triedAt = Date.now();
      alarm("jwks_refresh_failed", error);
    }
  }
}

/** Our own issuer's. */
export class KeyFeed extends FetchedKeys {
  readonly #verifier: Verifier;
  readonly #settings: { readonly jwksUrl: string };
  /** Whether the keys in force are those of a key statement, and not what the issuer answered. */
  #arePushed = false;

  constructor(verifier: Verifier, settings: { readonly jwksUrl: string }) {
    super();
    this.#verifier = verifier;
    this.#settings = settings;
  }

  /** Whether a signed head vouched for the pushed keys within the last `ms`. */
  protected override isVouchedFor(ms: number): boolean {
    return this.#arePushed && Date.now() - this.currentAt <= ms;
  }

  /** Takes a pushed key statement (a JWS); throws, and everything stays as it is, if that is refused. */
  async take(statement: string): Promise<void> {
    if (!(await this.#verifier.adoptKeyStatement(statement))) return;
    this.#arePushed = true;
    this.loadedAt = Date.now();
    this.changes += 1;
  }

  /** A head came into force that was the newest at `heardAt`: if it names the statement that we hold, our keys were current then. */
  noteHead(heardAt: number): void {
    const head = this.#verifier.head();
    const held = this.#verifier.keyPosition();
    if (!this.#arePushed || head?.keys === undefined || held === undefined) return;
    const isHeld = held.epoch > head.epoch || (held.epoch === head.epoch && held.version >= head.keys);
    if (isHeld) this.currentAt = Math.max(this.currentAt, heardAt);
  }

  protected override async fetch(isForUnknownKey: boolean): Promise<void> {
    if (this.#arePushed && !isForUnknownKey) note("keys_not_vouched_for", "no head names the pushed keys any more: the issuer is asked for its keys");
    const jwks = await fetchJson(this.#settings.jwksUrl);
    // An answer has no place in the order of key statements, and may come from somebody's cache. So it replaces no keys that a head vouches
    // for: it may only add what is so new that the push hasn't come.
    const isAddition = this.isVouchedFor(RENEW_AFTER_MS);
    const loading = isAddition ? this.#verifier.addTokenKeys(jwks) : this.#verifier.loadKeys("tokens", jwks);
    if (!isAddition) this.#arePushed = false;
    this.changes += 1;
    await loading;
    this.loadedAt = this.triedAt = Date.now();
    if (!isAddition) this.currentAt = this.loadedAt;
  }
}
