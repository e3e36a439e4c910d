// Latency where there is room: half of what a server was seen to do.

import { task } from "../../output.mjs";
import { measure } from "./rounds.mjs";

const WORK = "token by secret, ES256";
const CONNECTIONS = 64;

/** @param {import("./rounds.mjs").Bench} bench */
export async function measureLatency(bench) {
  const { contestants, figures, rounds, seconds } = bench;
  await task("tokens at half of what can be done", async (progress) => {
    const chosen = contestants.flatMap((contestant) => {
      const work = contestant.works.find(({ name, connections }) => name === WORK && connections === undefined);
      return work ? [{ contestant, work, most: 0 }] : [];
    });
    for (const one of chosen) {
      progress(`what ${one.contestant.name} can do`);
      await measure(bench, one.contestant, one.work, { connections: CONNECTIONS, seconds: 1 });
      const { answered, seconds: took } = await measure(bench, one.contestant, one.work, { connections: CONNECTIONS, seconds });
      one.most = answered / took;
    }
    for (let round = 1; round <= rounds; round++) {
      for (const { contestant, work, most } of round % 2 ? chosen : [...chosen].reverse()) {
        progress(`${round}, ${contestant.name}`);
        const { name } = contestant;
        const outcome = await measure(bench, contestant, work, { connections: CONNECTIONS, seconds, delayMs: Math.round((CONNECTIONS / (most / 2)) * 1000) });
        const place = `${WORK}, below saturation`;
        figures.add(place, `p99 / p50, ${name}`, "×", outcome.p99 / outcome.p50);
        figures.add(place, `requests a second, ${name}`, "/s", outcome.answered / outcome.seconds);
        figures.add(place, `of what it can do, ${name}`, "%", (100 * outcome.answered) / outcome.seconds / most);
        for (const [metric, value] of Object.entries({ p50: outcome.p50, p99: outcome.p99, "p99.9": outcome.p999 })) figures.add(place, `${metric}, ${name}`, "ms", value);
      }
    }
    return { result: "measured" };
  });
}
