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
      return { cost: sum(outcome.cpu), rate: outcome.answered / outcome.seconds };
    };
    const several = async (label) => {
      /** @type {number[]} */
      const costs = [];
      for (let load = 1; load <= LOADS; load++) {
        progress(`${label}, ${load} of ${LOADS}`);
        costs.push((await one(seconds)).cost);
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
    for (const [load, cost] of after.entries()) figures.add("flat", `CPU a token, after ${shown} / after none`, "×", cost / before[load]);
    for (const cost of before) figures.add("flat", "CPU a token, after none", "µs", cost);
    for (const cost of after) figures.add("flat", `CPU a token, after ${shown}`, "µs", cost);
    figures.add("memory", `after ${shown} tokens, issuer`, "MB", memory.now);
    figures.add("memory", "the most there was until then, issuer", "MB", memory.most);
    return { result: "measured" };
  });
}
