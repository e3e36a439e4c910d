// Load on one server, and what it costs: latencies seen by clients, CPU time taken by processes.

import fs from "node:fs";
import http from "node:http";

import { processTable } from "../processes.mjs";

/** Clock ticks a second in /proc/…/stat: 100 on every Linux that has been built for decades. */
const TICKS = 100;

/** CPU time, user and system, that a process and its descendants have taken so far, in µs. */
export function cpuMicros(pid) {
  const table = processTable();
  const members = new Set([pid]);
  for (let grown = true; grown; ) {
    grown = false;
    for (const info of table.values()) {
      if (!members.has(info.pid) && members.has(info.parent)) grown = Boolean(members.add(info.pid));
    }
  }
  let ticks = 0;
  for (const member of members) {
    try {
      const stat = fs.readFileSync(`/proc/${member}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      // utime and stime; and cutime and cstime, of children that ended.
      ticks += [11, 12, 13, 14].reduce((sum, place) => sum + Number(fields[place]), 0);
    } catch {
      // It ended while we looked.
    }
  }
  return (ticks * 1e6) / TICKS;
}

/**
 * Sends `count` requests from `connections` clients at once, each with a connection of its own that it keeps.
 * @param {{count: number, connections: number, agent: http.Agent, next: () => {url: string, headers: Record<string, string>, body: string}}} load
 * @returns {Promise<{latencies: number[], failures: Map<string, number>}>} milliseconds, ascending; statuses other than 200 and errors, counted
 */
export async function send({ count, connections, agent, next }) {
  const latencies = [];
  /** @type {Map<string, number>} */
  const failures = new Map();
  let left = count;
  const client = async () => {
    while (left > 0) {
      left -= 1;
      const began = performance.now();
      const outcome = await post(agent, next()).catch((error) => error.code ?? error.message);
      latencies.push(performance.now() - began);
      if (outcome !== 200) failures.set(String(outcome), (failures.get(String(outcome)) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: connections }, client));
  return { latencies: latencies.sort((a, b) => a - b), failures };
}

function post(agent, { url, headers, body }) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, {
      method: "POST", agent, timeout: 10_000,
      headers: { "content-type": "application/x-www-form-urlencoded", "content-length": Buffer.byteLength(body), ...headers },
    });
    request.on("response", (response) => {
      response.resume();
      response.on("end", () => resolve(response.statusCode));
      response.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error("no answer in 10 s")));
    request.on("error", reject);
    request.end(body);
  });
}

/** The middle value. */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length % 2 ? sorted[(sorted.length - 1) / 2] : (sorted[sorted.length / 2 - 1] + sorted[sorted.length / 2]) / 2;
}

/** The `p`-th part (0 to 1) of ascending values. */
export const quantile = (sorted, p) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))];
