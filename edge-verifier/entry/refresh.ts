// Work that one request starts and all requests of the isolate profit from.

/** What can keep work alive beyond the request that started it: an execution context. */
export interface Background {
  waitUntil(work: Promise<unknown>): void;
}

/** Runs at most one piece of work at a time; whoever asks meanwhile shares it. */
export class SingleFlight {
  #running: { readonly since: number; readonly done: Promise<void> } | undefined;
  readonly #limitMs: number;

  /** After `limitMs` a piece of work counts as lost: the platform may drop one together with the request that started it. */
  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** Resolves when the work, or the one already under way, has ended, well or not; at the latest after the limit. */
  async run(ctx: Background, work: () => Promise<void>): Promise<void> {
    if (this.#running === undefined || Date.now() - this.#running.since >= this.#limitMs) {
      const running = { since: Date.now(), done: work() };
      this.#running = running;
      const settled = running.done
        .catch(() => undefined)
        .finally(() => {
          if (this.#running === running) this.#running = undefined;
        });
      // So that it goes on when its own request has been answered.
      ctx.waitUntil(settled);
    }
    const left = this.#limitMs - (Date.now() - this.#running.since);
    await Promise.race([this.#running.done.catch(() => undefined), sleep(Math.max(left, 0))]);
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** How often each event was said to go wrong. The events are words of ours, so there are few. */
export const alarms = new Map<string, number>();

/** Says on the log what went wrong, as one JSON line; where it was with one request, with that one's id. */
export function alarm(event: string, detail: unknown, requestId?: string): void {
  alarms.set(event, (alarms.get(event) ?? 0) + 1);
  const message = detail instanceof Error ? detail.message : String(detail);
  console.error(JSON.stringify({ level: "ERROR", event, message, request_id: requestId }));
}

/** Says on the log what an operator may want to count. */
export function note(event: string, message: string): void {
  console.warn(JSON.stringify({ level: "WARN", event, message }));
}
