// What an isolate counts of its decisions: for Prometheus at /_countersign/metrics, and for Workers Analytics Engine, which adds up all isolates.

import type { Isolate } from "./isolate.ts";
import { alarms } from "./refresh.ts";

/** By which way somebody asked. */
export type Way = "gateway" | "decision" | "rpc";
/** `unavailable`: it isn't known enough to say yes or no. */
type Outcome = "accepted" | "anonymous" | "refused" | "unavailable";

/** The outcome of what was answered with a status other than success. */
export function outcomeOf(status: number): Outcome {
  return status >= 500 ? "unavailable" : "refused";
}

/** What was decided. `reason`: a stable word of ours (docs/reference/edge.md), empty where the request may pass; `ms`: how long it took. */
export interface Decided {
  readonly way: Way;
  readonly outcome: Outcome;
  readonly reason: string;
  readonly ms: number;
}

/** Upper bounds of the histogram of durations, in seconds. */
const BOUNDS = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5] as const;

const id = () => crypto.randomUUID().slice(0, 8);

class Metrics {
  /** Since when they count, in seconds since the Unix epoch, and in which isolate: set by the first decision, as an isolate has neither clock nor chance before. */
  #isolate: { readonly id: string; readonly since: number } | undefined;
  readonly #decisions = new Map<string, number>();
  /** How many took no longer than each bound. */
  readonly #within = BOUNDS.map(() => 0);
  #count = 0;
  #seconds = 0;

  /** Counts a decision, and writes it to `held`'s dataset if it has one. */
  decided({ way, outcome, reason, ms }: Decided, held: Isolate): void {
    this.#isolate ??= { id: id(), since: Date.now() / 1000 };
    const key = `way="${way}",outcome="${outcome}",reason="${reason}"`;
    this.#decisions.set(key, (this.#decisions.get(key) ?? 0) + 1);
    const seconds = ms / 1000;
    this.#count += 1;
    this.#seconds += seconds;
    for (let place = BOUNDS.length - 1; place >= 0 && seconds <= BOUNDS[place]!; place--) this.#within[place]! += 1;
    const age = held.revocations.ageMs;
    held.analytics?.writeDataPoint({ indexes: [outcome], blobs: [way, outcome, reason], doubles: [ms, age === Infinity ? -1 : age] });
  }

  /** In Prometheus's text format. */
  text(held: Isolate): string {
    this.#isolate ??= { id: id(), since: Date.now() / 1000 };
    const lines: string[] = [];
    const family = (name: string, type: string, help: string, samples: readonly (readonly [labels: string, value: number])[]) => {
      lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
      for (const [labels, value] of samples) lines.push(`${name}${labels && `{${labels}}`} ${value}`);
    };
    const { verifier, revocations } = held;
    const inForce = verifier.inForce();
    const age = revocations.ageMs;
    family("countersign_edge_isolate_start_time_seconds", "gauge", "Since when this isolate counts; another isolate may answer the next time.", [[`isolate="${this.#isolate.id}"`, this.#isolate.since]]);
    family("countersign_edge_decisions_total", "counter", "Decisions by way, outcome and reason.", [...this.#decisions]);
    const name = "countersign_edge_decision_duration_seconds";
    family(name, "histogram", "How long a decision took. The clock of Cloudflare stands still but for input and output.", []);
    BOUNDS.forEach((bound, place) => lines.push(`${name}_bucket{le="${bound}"} ${this.#within[place]}`));
    lines.push(`${name}_bucket{le="+Inf"} ${this.#count}`, `${name}_sum ${this.#seconds}`, `${name}_count ${this.#count}`);
    family("countersign_edge_verified_tokens_total", "counter", "Tokens that were known again (hit), and others (miss).", [
      [`result="hit"`, verifier.hits],
      [`result="miss"`, verifier.misses],
    ]);
    family("countersign_edge_alarms_total", "counter", "What the log has said went wrong, by event.", [...alarms].map(([event, count]) => [`event="${event}"`, count]));
    family("countersign_edge_keys", "gauge", "Keys of tokens that are known.", [["", verifier.keyNames().length]]);
    if (age !== Infinity) family("countersign_edge_revocations_age_seconds", "gauge", "Since when what is known of revocations may not be all.", [["", age / 1000]]);
    if (inForce !== undefined) {
      const { head, base, delta } = inForce;
      family("countersign_edge_revocation_head_epoch", "gauge", "Epoch of the head in force.", [["", head.epoch]]);
      family("countersign_edge_revocation_head_seq", "gauge", "Sequence number of the head in force.", [["", head.seq]]);
      family("countersign_edge_revocation_head_fresh_until_seconds", "gauge", "Until when the head in force is good.", [["", head.freshUntil]]);
      family("countersign_edge_revoked_serials", "gauge", "Revoked serials held, in the base object and in what came since.", [
        [`part="base"`, base.serials],
        [`part="delta"`, delta.serials],
      ]);
    }
    return `${lines.join("\n")}\n`;
  }
}

/** This isolate's. */
export const metrics = new Metrics();
