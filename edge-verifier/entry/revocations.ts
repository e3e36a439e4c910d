// What is revoked: held in the isolate, kept current by an answer of the hub that is always open, off the request path. It brings new keys, too.

import type { KeyFeed } from "./keys.ts";
import { type Background, SingleFlight, alarm, sleep } from "./refresh.ts";
import { type Readiness, type Staleness, DEFAULT_STALENESS } from "./staleness.ts";
import type { Verifier } from "./verifier.ts";

/** How long a request waits for news at most. */
const WAIT_MS = 2_000;
/** How long one request listens on behalf of the isolate: the platform ends it 30 s after its response. */
const LISTEN_MS = 26_000;
/** From when on the next request takes over, so that one listens before the other ends. */
const TAKE_OVER_MS = 22_000;
/** The hub says something every second, or every second and a half: after this time its answer is given up. */
const SILENCE_MS = 2_500;
/** When whoever listens has given no sign of life for so long, the platform has ended it. More than any one of its steps may take. */
const LOST_MS = 8_000;
/** How long after a failure to ask again: doubled each time, up to the longest, and by chance a little less. */
const RETRY_MS = 250;
const LONGEST_RETRY_MS = 2_000;
/** How long to wait where the hub has no room for another listener. */
const NO_ROOM_MS = 2_000;
/** How long after a request has asked the next one may. */
const ASK_AGAIN_MS = 500;
/** A hub that hasn't heard from the issuer for so long has lost it; another one may not have. */
const DEAF_MS = 4_000;
/** How long a hub is left alone that failed, while there are others. */
const AVOID_MS = 60_000;
/** How long a base object may take to come. */
const OBJECT_WAIT_MS = 5_000;
/** How long after a key statement was refused to ask for it again. */
const REFUSED_KEYS_MS = 10_000;
/** No line is longer: a head and a key statement are at most 352 KiB. */
const MAX_LINE = 512 * 1024;
/** What an answer with lines is declared as; without it, it is a plain one. */
const LINES = "text/x-countersign-news";

/** Who is asked for the newest head: a hub, or the edge on behalf of its own. */
export interface HeadSource {
  readonly name: string;
  fetch(question: URLSearchParams, init: { readonly signal: AbortSignal }): Promise<Response>;
}

/** Where base objects are. */
export interface ObjectStore {
  /** As messages name it. */
  readonly name: string;
  /** Null: there is none of that name, a hexadecimal SHA-256. */
  get(name: string): Promise<ArrayBuffer | null>;
}

/** Where an isolate learns what is revoked. */
export interface Sources {
  /** In the order in which they are asked; there is one at least. */
  readonly heads: readonly HeadSource[];
  readonly objects: ObjectStore;
  /** The JWK Set of the keys that sign heads. */
  readonly headKeys: string;
}

export class RevocationFeed {
  readonly #verifier: Verifier;
  readonly #hubs: readonly HeadSource[];
  readonly #objects: ObjectStore;
  readonly #flight = new SingleFlight(WAIT_MS);
  readonly #keys: KeyFeed;
  readonly #headKeys: string;
  #headKeysLoaded: Promise<void> | undefined;
  #keysRefusedAt = -Infinity;
  /** When, by our clock, what we hold was last known to be all there is; durations only, so no two clocks are compared. */
  #currentAt = -Infinity;
  readonly #onTrap: () => void;
  #askedAt = -Infinity;
  /** By name, when a hub failed last. */
  readonly #failedAt = new Map<string, number>();
  /** Whoever listens has a number; the newest that was taken, and the newest that has heard something. */
  #newestListener = 0;
  #newestToHear = 0;
  #takeOverAt = -Infinity;
  #lifeSignAt = -Infinity;
  #listensTo: string | undefined;
  /** Breaks off the answer that is listened to. */
  #open: AbortController | undefined;

  /**
   * `keys` gets the key statements that come with the answers; `onTrap` is called when the verifier's module has failed, and is in no usable state
   * any more.
   */
  constructor(verifier: Verifier, { heads, objects, headKeys }: Sources, keys: KeyFeed, onTrap: () => void) {
    this.#verifier = verifier;
    this.#onTrap = onTrap;
    this.#keys = keys;
    this.#hubs = heads;
    this.#objects = objects;
    this.#headKeys = headKeys;
  }

  /** Milliseconds since our knowledge was current; Infinity before we have any. */
  get ageMs(): number {
    return Math.max(0, Date.now() - this.#currentAt);
  }

  /** The hub that is listened to, and for how long it has been silent; undefined if none is. */
  get listening(): { readonly hub: string; readonly silentMs: number } | undefined {
    if (this.#listensTo === undefined) return undefined;
    return { hub: this.#listensTo, silentMs: Math.max(0, Date.now() - this.#lifeSignAt) };
  }

  /** Whether what we hold is recent enough to decide with; renews it where it isn't. */
  async ready(ctx: Background, staleness: Staleness = DEFAULT_STALENESS): Promise<Readiness> {
    this.listen(ctx);
    // Whoever has just asked would hear the same. Not so if nothing is known yet: then there is nothing else to do.
    if (this.ageMs > staleness.freshMs && (Date.now() - this.#askedAt > ASK_AGAIN_MS || this.ageMs === Infinity)) {
      await this.#flight.run(ctx, () => this.#ask());
    }
    // Nobody can be refused by who has never heard what is revoked. So that is never served, whatever the route says.
    if (this.ageMs === Infinity) return "refuse";
    if (this.ageMs <= staleness.freshMs) return "fresh";
    if (this.ageMs <= staleness.usableMs) return "stale";
    return staleness.whenUnknown === "serve" ? "unknown" : "refuse";
  }

  /** Listens no more, and breaks off what is open; until somebody asks `ready` again. */
  stop(): void {
    this.#newestListener += 1;
    this.#takeOverAt = -Infinity;
    this.#listensTo = undefined;
    this.#open?.abort();
  }

  // ---- Listening

  /** Sees to it that the hub is listened to. That ends by itself; a later request takes over, mostly before. */
  listen(ctx: Background): void {
    const now = Date.now();
    if (now < this.#takeOverAt && now - this.#lifeSignAt < LOST_MS) return;
    this.#takeOverAt = now + TAKE_OVER_MS;
    this.#lifeSignAt = now;
    this.#newestListener += 1;
    ctx.waitUntil(this.#listen(this.#newestListener, now + LISTEN_MS));
  }

  async #listen(listener: number, until: number): Promise<void> {
    let pause = RETRY_MS;
    while (listener === this.#newestListener && Date.now() < until) {
      this.#lifeSignAt = Date.now();
      const hub = this.#hub();
      try {
        const hasRoom = await this.#hear(hub, listener, until);
        pause = RETRY_MS;
        if (!hasRoom) await sleep(NO_ROOM_MS * (0.75 + Math.random() / 2));
      } catch (error) {
        this.#noteTrap(error);
        // Whoever took over says for itself how it fares.
        if (listener !== this.#newestListener) return;
        this.#failedAt.set(hub.name, Date.now());
        alarm("revocation_refresh_failed", error);
        this.#lifeSignAt = Date.now();
        await sleep(pause * (0.75 + Math.random() / 4));
        pause = Math.min(pause * 2, LONGEST_RETRY_MS);
      }
    }
    if (listener === this.#newestListener) {
      this.#takeOverAt = -Infinity;
      this.#listensTo = undefined;
    }
  }

  /** Listens to a hub until its answer ends. False: it had no room, and said what it holds at the moment. Throws if it fails or falls silent. */
  async #hear(hub: HeadSource, listener: number, until: number): Promise<boolean> {
    const question = await this.#question();
    question.set("stream_ms", String(until - Date.now()));
    const abort = (this.#open = new AbortController());
    const sentAt = Date.now();
    const response = await within(WAIT_MS, `the hub ${hub.name}`, hub.fetch(question, { signal: abort.signal })).catch(
      (error: unknown) => {
        abort.abort();
        throw error;
      },
    );
    if (response.headers.get("content-type") !== LINES || response.body === null) {
      await this.#takeAnswer(response, sentAt);
      return false;
    }
    const reader = response.body.getReader();
    try {
      const decoder = new TextDecoder();
      const reckoning = new Reckoning(sentAt);
      let rest = "";
      for (;;) {
        const { done, value } = await within(SILENCE_MS, `the hub ${hub.name}`, reader.read());
        if (done) return true;
        const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
        rest = lines.pop() ?? "";
        if (rest.length > MAX_LINE) throw new Error("the hub's line is too long");
        if (lines.length === 0) continue;
        this.#mustHear(hub, await this.#takeLines(lines, reckoning));
        if (listener >= this.#newestToHear) {
          this.#newestToHear = listener;
          this.#lifeSignAt = Date.now();
          this.#listensTo = hub.name;
        } else {
          // Somebody took over and has heard the hub.
          return true;
        }
      }
    } finally {
      void reader.cancel().catch(() => undefined);
    }
  }

  /** `what clock age …`: see `next_lines` in edge-verifier/control/src/hub.rs. When what they say was true. */
  async #takeLines(lines: readonly string[], reckoning: Reckoning): Promise<number> {
    const parsed = lines.map((line) => {
      const [what, clock, age, ...rest] = line.split(" ");
      return { what, rest, heardAt: reckoning.heardAt(Number(clock), Number(age)) };
    });
    // Keys don't wait for a base object that is long in coming, nor fail with it.
    const taking = parsed.filter(({ what }) => what === "keys").map(({ rest: [jws = ""] }) => this.#takeKeys(jws));
    let heardAt = -Infinity;
    try {
      for (const line of parsed) {
        const [first = "", second = ""] = line.rest;
        if (line.what === "head") await this.#adopt(first);
        // There is nothing newer than that; which says something only to who has it.
        else if (line.what === "tick") this.#mustHold(Number(first), Number(second));
        else continue;
        heardAt = line.heardAt;
        this.#currentAt = Math.max(this.#currentAt, heardAt);
      }
    } finally {
      await Promise.all(taking);
    }
    this.#keys.noteHead(heardAt);
    return heardAt;
  }

  /** Throws where another hub may know more. When all know as little nobody is blamed, and asked about it again in a minute. */
  #mustHear(hub: HeadSource, heardAt: number): void {
    const age = Date.now() - heardAt;
    const others = this.#hubs.some((other) => other !== hub && this.#isGood(other));
    if (heardAt > -Infinity && age > DEAF_MS && others) throw new Error(`the hub ${hub.name} last heard from the issuer ${age} ms ago`);
  }

  #mustHold(epoch: number, seq: number): void {
    const held = this.#verifier.head();
    const isHeld = held !== undefined && (held.epoch > epoch || (held.epoch === epoch && held.seq >= seq));
    if (!isHeld) throw new Error(`the hub goes by a head of epoch ${epoch} seq ${seq}, which isn't in force here`);
  }

  // ---- Asking

  /** One question, answered at once. Where there are more hubs than one a second is asked if the first fails. */
  async #ask(): Promise<void> {
    for (let left = Math.min(2, this.#hubs.length); left > 0; left--) {
      const hub = this.#hub();
      const limit = this.#hubs.length > 1 ? WAIT_MS / 2 : WAIT_MS;
      try {
        const question = await this.#question();
        const sentAt = Date.now();
        const response = await hub.fetch(question, { signal: AbortSignal.timeout(limit) });
        this.#mustHear(hub, await this.#takeAnswer(response, sentAt));
        this.#askedAt = Date.now();
        return;
      } catch (error) {
        this.#noteTrap(error);
        this.#askedAt = Date.now();
        this.#failedAt.set(hub.name, this.#askedAt);
        alarm("revocation_refresh_failed", error);
      }
    }
  }

  /** The first hub that hasn't failed of late, or the one whose failure is the longest ago. */
  #hub(): HeadSource {
    const failedAt = ({ name }: HeadSource) => this.#failedAt.get(name) ?? -Infinity;
    return (
      this.#hubs.find((hub) => this.#isGood(hub)) ??
      this.#hubs.reduce((one, other) => (failedAt(other) < failedAt(one) ? other : one))
    );
  }

  #isGood({ name }: HeadSource): boolean {
    return Date.now() - (this.#failedAt.get(name) ?? -Infinity) > AVOID_MS;
  }

  /** What every question says: what we hold. */
  async #question(): Promise<URLSearchParams> {
    await (this.#headKeysLoaded ??= this.#verifier.loadKeys("heads", this.#headKeys));
    const known = this.#verifier.head();
    const question = new URLSearchParams({ epoch: String(known?.epoch ?? 0), seq: String(known?.seq ?? 0) });
    // Whoever doesn't say which keys they have isn't offered any: one that was refused would be offered again at once, for ever.
    if (Date.now() - this.#keysRefusedAt > REFUSED_KEYS_MS) {
      const held = this.#verifier.keyPosition();
      question.set("key_epoch", String(held?.epoch ?? 0));
      question.set("key_version", String(held?.version ?? 0));
    }
    return question;
  }

  /** A plain answer: a head, and where there is a newer one a key statement on the next line. When what it says was true. */
  async #takeAnswer(response: Response, sentAt: number): Promise<number> {
    // By when the question was sent, not by when we come to read the answer: old news mustn't look new.
    const heardAt = sentAt - Number(response.headers.get("x-countersign-age-ms") ?? Infinity);
    const body = await within(WAIT_MS, "the hub", response.text());
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
    return heardAt;
  }

  // ---- Taking into force

  async #takeKeys(statement: string): Promise<void> {
    try {
      await this.#keys.take(statement);
    } catch (error) {
      this.#noteTrap(error);
      this.#keysRefusedAt = Date.now();
      alarm("key_statement_refused", error);
    }
  }

  /** Beside requests, too: else an isolate that is too old to decide anything would never meet the trap again, and stay so. */
  #noteTrap(error: unknown): void {
    if (error instanceof WebAssembly.RuntimeError) this.#onTrap();
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
        const object = await within(OBJECT_WAIT_MS, this.#objects.name, this.#objects.get(outcome.base));
        if (object === null) throw new Error(`base object ${outcome.base} is not in ${this.#objects.name}`);
        const refused = await this.#verifier.loadBase(object);
        if (refused !== undefined) throw new Error(`base object ${outcome.base} is refused: ${refused}`);
      }
    }
  }
}

/**
 * When the lines of an answer were true, by our clock. The first can't have been written before the question was sent; how much later the others
 * were is told by the hub's own clock. So lines that were held up on their way look as old as they are, and no two clocks are compared.
 */
class Reckoning {
  readonly #sentAt: number;
  #firstClock: number | undefined;

  constructor(sentAt: number) {
    this.#sentAt = sentAt;
  }

  /** `clock`: the hub's, when it wrote the line; `ageMs`: how long before that it had heard from the issuer. */
  heardAt(clock: number, ageMs: number): number {
    if (!(clock >= 0 && ageMs >= 0)) throw new Error("the hub's line is malformed");
    this.#firstClock ??= clock;
    return Math.min(Date.now(), this.#sentAt + (clock - this.#firstClock)) - ageMs;
  }
}

/** `what` is waited for so long; then it is an Error. */
async function within<T>(limitMs: number, who: string, what: Promise<T>): Promise<T> {
  let timer: number | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${who} didn't answer within ${limitMs} ms`)), limitMs);
  });
  try {
    return await Promise.race([what, late]);
  } finally {
    clearTimeout(timer ?? null);
  }
}
