// How old knowledge of revocations may be for a request to be decided with it.

export interface Staleness {
  /** Up to this age a request is served at once, in milliseconds. */
  readonly freshMs: number;
  /** Up to this age it is served after an attempt to renew, and the upstream is told the age. */
  readonly usableMs: number;
  /** Beyond it: whether requests are refused with 503, or served by what was known last, and the upstream is told. */
  readonly whenUnknown: "refuse" | "serve";
}

/**
 * `refuse`: it isn't known what is revoked. The others may be decided, by what is held: `stale` and `unknown` are older than they should be, and
 * the upstream is told.
 */
export type Readiness = "fresh" | "stale" | "unknown" | "refuse";

export const DEFAULT_STALENESS: Staleness = { freshMs: 5_000, usableMs: 30_000, whenUnknown: "refuse" };

/** The issuer is heard from every second, so less would have requests wait all the time. */
const LEAST_FRESH_MS = 2_000;
/** What a head is good for (`fresh_until`). */
const MOST_USABLE_MS = 300_000;

/** What is wrong with these bounds, with the fix; nothing if they are sound. */
export function problemsOf({ freshMs, usableMs, whenUnknown }: Staleness): string[] {
  const problems: string[] = [];
  if (!(Number.isInteger(freshMs) && freshMs >= LEAST_FRESH_MS && freshMs <= MOST_USABLE_MS)) {
    problems.push(`fresh must be a whole number of milliseconds from ${LEAST_FRESH_MS} to ${MOST_USABLE_MS}`);
  }
  if (!(Number.isInteger(usableMs) && usableMs >= freshMs && usableMs <= MOST_USABLE_MS)) {
    problems.push(`usable must be a whole number of milliseconds from fresh to ${MOST_USABLE_MS}`);
  }
  if (whenUnknown !== "refuse" && whenUnknown !== "serve") problems.push(`when unknown must be "refuse" or "serve"`);
  return problems;
}
