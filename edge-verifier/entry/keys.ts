// The issuer's public keys: held in the isolate, renewed off the request path.

import { SingleFlight, alarm } from "./refresh.ts";
import type { Settings } from "./settings.ts";
import type { Verifier } from "./verifier.ts";

/** How long keys serve before they are renewed in the background; the issuer advertises the same lifetime. */
const RENEW_AFTER_MS = 300_000;
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

  get loaded(): boolean {
    return this.#loadedAt !== -Infinity;
  }

  /** Whether there are keys; asks for them where there aren't, and waits. Old keys stay good while the issuer is away. */
  async ready(ctx: ExecutionContext): Promise<boolean> {
    if (!this.loaded) {
      await this.#flight.run(ctx, () => this.#fetch());
    } else if (Date.now() - this.#loadedAt > RENEW_AFTER_MS && Date.now() - this.#triedAt > RETRY_AFTER_MS) {
      ctx.waitUntil(this.#flight.run(ctx, () => this.#fetch()));
    }
    return this.loaded;
  }

  /** A token named a key that isn't known. Whether the keys were renewed, so that looking again may help. */
  async renewForUnknownKey(ctx: ExecutionContext): Promise<boolean> {
    if (Date.now() - this.#triedAt < UNKNOWN_KEY_COOLDOWN_MS) return false;
    const before = this.#loadedAt;
    await this.#flight.run(ctx, () => this.#fetch());
    return this.#loadedAt > before;
  }

  async #fetch(): Promise<void> {
    try {
      const response = await fetch(this.#settings.jwksUrl, {
        headers: { accept: "application/jwk-set+json, application/json" },
        redirect: "manual",
        signal: AbortSignal.timeout(WAIT_MS),
      });
      if (response.status !== 200) throw new Error(`${this.#settings.jwksUrl} answered ${response.status}`);
      await this.#verifier.loadKeys("tokens", await response.text());
      this.#loadedAt = Date.now();
    } catch (error) {
      alarm("jwks_refresh_failed", error);
    } finally {
      this.#triedAt = Date.now();
    }
  }
}
