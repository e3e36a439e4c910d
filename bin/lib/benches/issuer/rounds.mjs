// Rounds: each contestant in its turn, under the same load; what that costs which of its processes.

import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { task } from "../../output.mjs";
import { askAll, cpuOf } from "./contestants.mjs";
import { load, writeRequests } from "./wrk.mjs";

/** Between loads: what one left to be done, the sealing of its audit rows say, isn't the next one's. */
const SETTLE_MS = 300;

/** How many signatures are made at once: where cores are halves of one, each takes longer while the other works, too, as it does under a load. */
const SIGNATURES = { CPU: 1, "CPU, on all cores at once": os.availableParallelism() };

/**
 * @typedef {object} Bench what all rounds need
 * @property {import("./contestants.mjs").Contestant[]} contestants
 * @property {string} program wrk's
 * @property {string} dir for files with requests
 * @property {import("./figures.mjs").Figures} figures
 * @property {number} rounds
 * @property {number} seconds how long a load lasts
 * @property {number} once how many requests a round has at most that count once
 * @property {(copies: number) => Promise<Record<string, number>>} bareSignatures CPU of a signature alone, in µs, by algorithm, so many being made at once
 */

/** What each contestant's processes take while nothing is asked of them, in µs of CPU a second. @returns {Promise<Map<string, Record<string, number>>>} by name */
export async function idleCosts({ contestants, figures }) {
  const seconds = 3;
  const before = contestants.map(cpuOf);
  await sleep(seconds * 1000);
  return new Map(contestants.map((contestant, place) => {
    const costs = Object.fromEntries(Object.entries(cpuOf(contestant)).map(([part, micros]) => [part, (micros - before[place][part]) / seconds]));
    for (const [part, micros] of Object.entries(costs)) figures.add("idle", `CPU, ${nameOf(contestant, part)}`, "ms/s", micros / 1000);
    return [contestant.name, costs];
  }));
}

/** How a part of a contestant is called in rows: the only one by the contestant's name. */
export const nameOf = (contestant, part) => (Object.keys(contestant.pids).length === 1 ? contestant.name : part);

/**
 * One contestant, one load.
 * @param {Bench} bench
 * @param {import("./contestants.mjs").Contestant} contestant
 * @param {import("./contestants.mjs").Work} work
 * @param {{connections: number, seconds: number, delayMs?: number, idle?: Record<string, number>}} how
 * @returns {Promise<import("./wrk.mjs").Outcome & {cpu: Record<string, number>, failures: number}>} `cpu`: µs a request, by process
 */
export async function measure(bench, contestant, work, { connections, seconds, delayMs, idle = {} }) {
  const file = path.join(bench.dir, "secrets", `requests-${contestant.name}`);
  writeRequests(file, await work.requests(bench.once));
  await sleep(SETTLE_MS);
  const before = cpuOf(contestant);
  const outcome = await load({ program: bench.program, url: contestant.url, file, once: work.once, connections: Math.min(connections, work.connections ?? connections), seconds, delayMs });
  const after = cpuOf(contestant);
  const cpu = Object.fromEntries(Object.entries(after).map(([part, micros]) => {
    // The last second is for what the load left to be done, which is its cost, too; what is always done isn't.
    const spent = micros - before[part] - (idle[part] ?? 0);
    return [part, Math.max(0, spent) / outcome.sent];
  }));
  const good = outcome.statuses[work.expected] ?? 0;
  const failures = Object.values(outcome.statuses).reduce((sum, count) => sum + count, 0) - good + Object.values(outcome.errors).reduce((sum, count) => sum + count, 0);
  return { ...outcome, cpu, failures };
}

export const sum = (parts) => Object.values(parts).reduce((all, part) => all + part, 0);

/**
 * All that the contestants can do, in turns; of every round but the first the figures are kept.
 * @param {Bench} bench
 * @param {{names: string[], label: string, connections: number, suffix?: string, idle: Map<string, Record<string, number>>}} what `names` of works
 */
export async function runRounds(bench, { names, label, connections, suffix = "", idle }) {
  const { contestants, figures, rounds, seconds } = bench;
  await task(`${label}: ${rounds} rounds`, async (progress) => {
    for (let round = 0; round <= rounds; round++) {
      if (round > 0 && suffix === "") {
        for (const [metric, copies] of Object.entries(SIGNATURES)) {
          for (const [algorithm, micros] of Object.entries(await bench.bareSignatures(copies))) figures.add(`signature alone, ${algorithm}`, metric, "µs", micros);
        }
      }
      for (const name of names) {
        const costs = {};
        // Who comes first in one round comes last in the next.
        for (const contestant of round % 2 ? contestants : [...contestants].reverse()) {
          const work = contestant.works.find((work) => work.name === name);
          // Who is asked by fewer connections anyway isn't asked by others.
          if (!work || (suffix !== "" && work.connections !== undefined)) continue;
          progress(`${round === 0 ? "warm-up" : round}, ${name}, ${contestant.name}`);
          // Each client once, so that what is kept of clients in memory is there: what is measured is not the first token of their lives.
          if (round === 0 && !work.once && work.expected === 200) await askAll(contestant.url, await work.requests(bench.once), { expected: 200, pick: () => undefined });
          const outcome = await measure(bench, contestant, work, { connections, seconds: round === 0 ? 1 : seconds, idle: idle.get(contestant.name) });
          if (round === 0) continue;
          note(figures, `${name}${suffix}`, contestant, outcome);
          costs[contestant.name] = outcome;
        }
        if (round > 0) compare(figures, `${name}${suffix}`, name, costs);
      }
    }
    return { result: "measured" };
  });
}

/** @param {import("./figures.mjs").Figures} figures */
function note(figures, work, contestant, outcome) {
  const { name } = contestant;
  figures.add(work, `CPU a request, ${name}`, "µs", sum(outcome.cpu));
  const parts = Object.entries(outcome.cpu);
  if (parts.length > 1) for (const [part, micros] of parts) figures.add(work, `CPU a request, ${part}`, "µs", micros);
  figures.add(work, `requests a second, ${name}`, "/s", outcome.answered / outcome.seconds);
  for (const [metric, value] of Object.entries({ p50: outcome.p50, p99: outcome.p99, "p99.9": outcome.p999 })) figures.add(work, `${metric}, ${name}`, "ms", value);
  figures.add(work, `failures, ${name}`, "of all", outcome.failures);
  if (outcome.failures > 0) figures.notes.push(`${work}, ${name}: answers ${JSON.stringify(outcome.statuses)}, errors ${JSON.stringify(outcome.errors)}`);
}

/** How the others compare with ours, and ours with a signature alone, in this round. */
function compare(figures, work, name, outcomes) {
  const ours = outcomes.countersign;
  if (!ours) return;
  for (const [other, outcome] of Object.entries(outcomes)) {
    if (other !== "countersign") figures.add(work, `CPU, ${other} / countersign`, "×", sum(outcome.cpu) / sum(ours.cpu));
  }
  const algorithm = /^token by secret, (ES256|EdDSA|RS256)$/.exec(name)?.[1];
  if (!algorithm || work !== name) return;
  const [bare, busy] = Object.keys(SIGNATURES).map((metric) => figures.values(`signature alone, ${algorithm}`, metric).at(-1) ?? NaN);
  figures.add(work, "issuer's CPU apart from the signature", "µs", ours.cpu.issuer - bare);
  figures.add(work, "issuer's CPU / bare signature", "×", ours.cpu.issuer / bare);
  figures.add(work, "issuer's CPU apart from the signature, made on all cores at once", "µs", ours.cpu.issuer - busy);
  figures.add(work, "issuer's CPU / bare signature, made on all cores at once", "×", ours.cpu.issuer / busy);
}
