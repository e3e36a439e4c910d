// The issuer's public keys: held in the isolate, renewed off the request path.

import { SingleFlight, alarm } from "./refresh.ts";
import type { Settings } from "./settings.ts";
import type { Verifier } from "./verifier.ts";

/** How long keys serve before they are renewed in the background; the issuer advertises the same lifetime. */
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
  readonly #settings: Settings;
  readonly #flight = new SingleFlight(WAIT_MS);
  #loadedAt = -Infinity;
  #triedAt = -Infinity;

  constructor(verifier: Verifier, settings: Settings) {
    this.#verifier = verifier;
    this.#settings = settings;
  }

  get #loaded(): boolean {
    return this.#loadedAt !== -Infinity;
  }

  /** Whether there are keys; asks for them where there aren't, and waits. Old keys stay good for a day while the issuer is away. */
  async ready(ctx: ExecutionContext): Promise<boolean> {
    const untried = Date.now() - this.#triedAt;
    if (!this.#loaded || (Date.now() - this.#loadedAt > RENEW_AFTER_MS && untried > RETRY_AFTER_MS)) {
      const renewal = this.#flight.run(ctx, () => this.#fetch());
      if (!this.#loaded || untried > WAIT_AFTER_MS) await renewal;
      else ctx.waitUntil(renewal);
    }
    return Date.now() - this.#loadedAt < GOOD_FOR_MS;
  }

  /** A token named a key that isn't known. Asks the issuer for its keys, unless it was asked a moment ago: then the key is none of its own. */
  async renewForUnknownKey(ctx: ExecutionContext): Promise<"renewed" | "recent" | "failed"> {
    if (Date.now() - this.#triedAt < UNKNOWN_KEY_COOLDOWN_MS) {
      return this.#loadedAt >= this.#triedAt ? "recent" : "failed";
    }
    const before = this.#loadedAt;
    await this.#flight.run(ctx, () => this.#fetch());
    return this.#loadedAt > before ? "renewed" : "failed";
  }

  async #fetch(): Promise<void> {
    try {
      const response = await fetch(this.#settings.jwksUrl, {
        headers: { accept: "application/jwk-set+json, application/json" },
        redirect: "manual",
        cache: "no-store",
        signal: AbortSignal.timeout(WAIT_MS),
      });
      if (response.status !== 200) throw new Error(`${this.#settings.jwksUrl} answered ${response.status}`);
      await this.#verifier.loadKeys("tokens", await response.text());
      this.#loadedAt = this.#triedAt = Date.now();
    } catch (error) {
      this.#triedAt = Date.now();
      alarm("jwks_refresh_failed", error);
    }
  }
}
