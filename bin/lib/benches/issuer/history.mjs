// Whether a token costs the same, and the issuer needs no more memory, after many tokens.

import { task } from "../../output.mjs";
import { memoryOf } from "./contestants.mjs";
import { measure, sum } from "./rounds.mjs";

const WORK = "token by secret, ES256";
/** Loads before, and after: each gives a value. */
const LOADS = 5;
/** The longest load, in seconds: between them one sees how far it is. */
const LONGEST = 10;

/**
 * @param {import("./rounds.mjs").Bench} bench
 * @param {import("./contestants.mjs").Contestant} ours
 * @param {{tokens: number, idle: Record<string, number>}} options `tokens`: so many are issued between the first loads and the last
 */
export async function measureHistory(bench, ours, { tokens, idle }) {
  const { figures, seconds } = bench;
  const work = ours.works.find(({ name }) => name === WORK);
  if (!work) throw new Error(`there is no work ${WORK}`);
  const shown = tokens.toLocaleString("en");
  await task(`${shown} tokens`, async (progress) => {
    // Its memory is to be of these tokens only.
    await ours.restart?.();
    let issued = 0;
    const one = async (length) => {
      const outcome = await measure(bench, ours, work, { connections: 64, seconds: length, idle });
      issued += outcome.answered - outcome.failures;
      if (outcome.failures > 0) figures.notes.push(`${shown} tokens: answers ${JSON.stringify(outcome.statuses)}, errors ${JSON.stringify(outcome.errors)}`);
      return { cpu: outcome.cpu, rate: outcome.answered / outcome.seconds };
    };
    const several = async (label) => {
      /** @type {Record<string, number>[]} */
      const costs = [];
      for (let load = 1; load <= LOADS; load++) {
        progress(`${label}, ${load} of ${LOADS}`);
        costs.push((await one(seconds)).cpu);
      }
      return costs;
    };
    let { rate } = await one(seconds); // warms up
    const before = await several("the first");
    while (issued < tokens) {
      progress(`${issued.toLocaleString("en")} issued`);
      ({ rate } = await one(Math.max(1, Math.min(LONGEST, Math.ceil((tokens - issued) / rate)))));
      if (!(rate > 0)) throw new Error("no tokens are issued");
    }
    const memory = memoryOf(ours.pids.issuer);
    const after = await several("the last");
    for (const [load, cpu] of after.entries()) figures.add("flat", `CPU a token, after ${shown} / after none`, "×", sum(cpu) / sum(before[load]));
    for (const [label, loads] of Object.entries({ "after none": before, [`after ${shown}`]: after })) {
      for (const cpu of loads) {
        figures.add("flat", `CPU a token, ${label}`, "µs", sum(cpu));
        for (const [part, micros] of Object.entries(cpu)) figures.add("flat", `CPU a token, ${label}, ${part}`, "µs", micros);
      }
    }
    figures.add("memory", `after ${shown} tokens, issuer`, "MB", memory.now);
    figures.add("memory", "the most there was until then, issuer", "MB", memory.most);
    return { result: "measured" };
  });
}
