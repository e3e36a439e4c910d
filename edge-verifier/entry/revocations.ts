// What is revoked: held in the isolate, kept current by a question to the hub that is always open, off the request path. The answers bring new
// keys, too.

import type { KeyFeed } from "./keys.ts";
import { SingleFlight, alarm } from "./refresh.ts";
import type { Env, Settings } from "./settings.ts";
import type { Verifier } from "./verifier.ts";

/** Up to this age a request is served at once. The issuer is heard from every second, the hub answers within three. */
const FRESH_MS = 5_000;
/** Up to this age it is served after an attempt to renew; beyond it, refused. */
const USABLE_MS = 30_000;
/** How long a request waits for news at most. */
const WAIT_MS = 2_000;
/** How long the hub may keep a question open (its own limit is the same). */
const POLL_MS = 3_000;
/** How long one request keeps asking on behalf of the isolate: the platform ends it 30 s after its response. */
const LOOP_MS = 22_000;
/** How long after a failure to ask again. */
const RETRY_MS = 250;
/** How long a base object may take to come. */
const KV_WAIT_MS = 5_000;
/** How long KV may answer from a location's cache. */
const KV_CACHE_SECONDS = 60;
/** How long after a key statement was refused to ask for it again. */
const REFUSED_KEYS_MS = 10_000;

export class RevocationFeed {
  readonly #verifier: Verifier;
  readonly #hub: DurableObjectNamespace;
  readonly #objects: KVNamespace;
  readonly #flight = new SingleFlight(WAIT_MS);
  readonly #keys: KeyFeed;
  readonly #headKeys: string;
  #headKeysLoaded: Promise<void> | undefined;
  #keysRefusedAt = -Infinity;
  /** When, by our clock, what we hold was last known to be all there is; durations only, so no two clocks are compared. */
  #currentAt = -Infinity;
  #loopUntil = -Infinity;

  /** `keys` gets the key statements that come with the answers. */
  constructor(verifier: Verifier, settings: Settings, env: Env, keys: KeyFeed) {
    this.#verifier = verifier;
    this.#keys = keys;
    this.#hub = env.REVOCATION_HUB;
    this.#objects = env.REVOCATION_OBJECTS;
    this.#headKeys = settings.revocationKeys;
  }

  /** Milliseconds since our knowledge was current; Infinity before we have any. */
  get ageMs(): number {
    return Math.max(0, Date.now() - this.#currentAt);
  }

  /** Whether what we hold is recent enough to decide with; renews it where it isn't. */
  async ready(ctx: ExecutionContext): Promise<boolean> {
    this.#keepAsking(ctx);
    if (this.ageMs > FRESH_MS) {
      await this.#flight.run(ctx, async () => void (await this.#ask(0)));
    }
    return this.ageMs <= USABLE_MS;
  }

  get isStale(): boolean {
    return this.ageMs > FRESH_MS;
  }

  /** Starts a loop of questions unless one is running. It ends by itself; the next request starts another. */
  #keepAsking(ctx: ExecutionContext): void {
    const now = Date.now();
    if (now < this.#loopUntil) return;
    // The margin covers a last question that is open when the time is up. A loop that the platform cut off is replaced then, too.
    const until = now + LOOP_MS;
    this.#loopUntil = until + POLL_MS;
    ctx.waitUntil(
      (async () => {
        while (Date.now() < until) {
          if (!(await this.#ask(POLL_MS))) await scheduler.wait(RETRY_MS);
        }
        if (this.#loopUntil === until + POLL_MS) this.#loopUntil = -Infinity;
      })(),
    );
  }

  /** One question, kept open up to `waitMs`. Whether we now hold what the hub holds. */
  async #ask(waitMs: number): Promise<boolean> {
    try {
      await (this.#headKeysLoaded ??= this.#verifier.loadKeys("heads", this.#headKeys));
      const known = this.#verifier.head();
      const question = new URLSearchParams({
        epoch: String(known?.epoch ?? 0),
        seq: String(known?.seq ?? 0),
        wait_ms: String(known === undefined ? 0 : waitMs),
      });
      // Whoever doesn't say which keys they have isn't offered any: one that was refused would be offered again at once, for ever.
      if (Date.now() - this.#keysRefusedAt > REFUSED_KEYS_MS) {
        const held = this.#verifier.keyPosition();
        question.set("key_epoch", String(held?.epoch ?? 0));
        question.set("key_version", String(held?.version ?? 0));
      }
      const stub = this.#hub.get(this.#hub.idFromName("global"));
      const response = await stub.fetch(`https://hub/head?${question}`, {
        signal: AbortSignal.timeout(waitMs + WAIT_MS),
      });
      // Before anything else is awaited: what follows may take its time, and must not make old news look new.
      const heardAt = Date.now() - Number(response.headers.get("x-countersign-age-ms") ?? Infinity);
      const body = await response.text();
      if (response.status !== 200) throw new Error(`the hub answered ${response.status}: ${body.slice(0, 200)}`);
      const [head = "", statement] = body.split("\n");
      // Neither waits for the other, nor fails with it.
      const taking = statement === undefined ? undefined : this.#takeKeys(statement);
      try {
        await this.#adopt(head);
      } finally {
        await taking;
      }
      this.#currentAt = Math.max(this.#currentAt, heardAt);
      this.#keys.noteHead(heardAt);
      return true;
    } catch (error) {
      alarm("revocation_refresh_failed", error);
      return false;
    }
  }

  async #takeKeys(statement: string): Promise<void> {
    try {
      await this.#keys.take(statement);
    } catch (error) {
      this.#keysRefusedAt = Date.now();
      alarm("key_statement_refused", error);
    }
  }

  /** Takes a head into force, with its base. What is held stays in force if that fails. */
  async #adopt(head: string): Promise<void> {
    const outcome = await this.#verifier.adoptHead(head);
    switch (outcome.kind) {
      case "adopted":
        return;
      case "older":
        // A hub that went back in time. Not believing it is right; so is not counting this as news.
        throw new Error("the hub answered with an older head than the one in force");
      case "refused":
        throw new Error(`the hub's head is refused: ${outcome.reason}`);
      case "needs-base": {
        // KV caches that there is nothing, too: the shortest time it takes, so that an early look doesn't spoil many later ones.
        const read = this.#objects.get(`base/${outcome.base}`, { type: "arrayBuffer", cacheTtl: KV_CACHE_SECONDS });
        const object = await Promise.race([read, scheduler.wait(KV_WAIT_MS)]);
        if (object === undefined) throw new Error(`KV didn't answer within ${KV_WAIT_MS} ms`);
        if (object === null) throw new Error(`base object ${outcome.base} is not in KV`);
        const refused = await this.#verifier.loadBase(object);
        if (refused !== undefined) throw new Error(`base object ${outcome.base} is refused: ${refused}`);
      }
    }
  }
}
