// From a process's start to where it can serve; and what memory it has then.

import { setTimeout as sleep } from "node:timers/promises";

import { request } from "../../http.mjs";
import { task } from "../../output.mjs";
import { memoryOf } from "./contestants.mjs";
import { nameOf } from "./rounds.mjs";

/** How often it is asked whether it is ready, in ms. */
const EVERY = 2;

/**
 * Starts a process and waits until it is ready.
 * @param {() => import("../../processes.mjs").Child} start
 * @param {string} url what answers 200 then
 * @returns {Promise<{child: import("../../processes.mjs").Child, ms: number}>}
 */
export async function startTimed(start, url) {
  const began = performance.now();
  const child = start();
  for (;;) {
    const answer = await request(url, { timeoutMs: 1_000 }).catch(() => undefined);
    if (answer?.status === 200) return { child, ms: performance.now() - began };
    if (child.ended || performance.now() - began > 60_000) throw child.problem();
    await sleep(EVERY);
  }
}

/**
 * Restarts each contestant that can be, several times.
 * @param {import("./rounds.mjs").Bench} bench
 * @param {{times: number}} options
 */
export async function measureStarts({ contestants, figures }, { times }) {
  await task("start and idle memory", async (progress) => {
    for (const contestant of contestants) {
      const [main] = Object.keys(contestant.pids);
      for (let time = 1; time <= times && contestant.restart; time++) {
        progress(`${contestant.name}, ${time}`);
        figures.add("start", `to ready, with the database up, ${nameOf(contestant, main)}`, "ms", await contestant.restart());
      }
    }
    await sleep(2_000);
    for (const contestant of contestants) {
      for (const [part, pid] of Object.entries(contestant.pids)) {
        // Postgres shares its buffers among many processes: what it has can't be told by one of them.
        if (part !== "postgres") figures.add("memory", `idle, ${nameOf(contestant, part)}`, "MB", memoryOf(pid).now);
      }
    }
    return { result: `${times} starts` };
  });
}
