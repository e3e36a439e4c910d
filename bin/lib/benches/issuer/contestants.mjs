// What every server that is measured has in common: what can be asked of it, and what that costs which process.

import fs from "node:fs";
import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

import { Problem } from "../../output.mjs";
import { cpuMicros } from "../load.mjs";

/** @typedef {import("./wrk.mjs").Prepared} Prepared */

/**
 * @typedef {object} Work something that all clients can ask for
 * @property {string} name the same for all that can do it, as `token by secret, ES256`
 * @property {number} expected the status of a good answer
 * @property {number} [connections] at most so many, where more would only wait for each other
 * @property {boolean} [once] each request counts once: they are made anew for each round
 * @property {(count: number) => Promise<Prepared[]>} requests `count` different ones; fewer where they may be sent again and there are no more
 */

/**
 * @typedef {object} Contestant
 * @property {string} name
 * @property {string} url
 * @property {Record<string, number>} pids of the processes that serve, by what they are; each is counted with its descendants
 * @property {Work[]} works
 * @property {() => Promise<number>} [restart] ends its process and starts another; ms until it was ready
 */

/** CPU time that a contestant's processes have taken so far, in µs. @param {Contestant} contestant */
export const cpuOf = ({ pids }) => Object.fromEntries(Object.entries(pids).map(([part, pid]) => [part, cpuMicros(pid)]));

/** Memory that a process has to itself or shares, resident, in MB of 10⁶ bytes; and the most that it ever had. @param {number} pid */
export function memoryOf(pid) {
  const status = fs.readFileSync(`/proc/${pid}/status`, "utf8");
  const field = (name) => (Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1]) * 1024) / 1e6;
  return { now: field("VmRSS"), most: field("VmHWM") };
}

/**
 * Sends requests and keeps the answers' bodies, for what is to be made before something is measured.
 * @template T
 * @param {string} url
 * @param {Prepared[]} requests
 * @param {{expected: number, pick: (body: any) => T, connections?: number}} options
 * @returns {Promise<T[]>} in the requests' order
 */
export async function askAll(url, requests, { expected, pick, connections = 16 }) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: connections });
  const answers = new Array(requests.length);
  let next = 0;
  const client = async () => {
    while (next < requests.length) {
      const place = next++;
      let { status, text } = await ask(agent, url, requests[place]);
      // Nothing is measured yet: who is told to try again shortly does.
      for (let again = 1; status === 503 && again <= 20; again++) {
        await sleep(50 * again);
        ({ status, text } = await ask(agent, url, requests[place]));
      }
      if (status !== expected) throw new Problem(`${url}${requests[place].path} answered ${status}: ${text.slice(0, 500)}`);
      answers[place] = pick(text === "" ? undefined : JSON.parse(text));
    }
  };
  try {
    await Promise.all(Array.from({ length: connections }, client));
  } finally {
    agent.destroy();
  }
  return answers;
}

/**
 * @param {http.Agent} agent
 * @param {string} url
 * @param {Prepared} request
 * @returns {Promise<{status: number, text: string}>}
 */
export function ask(agent, url, { path, authorization, type = "application/x-www-form-urlencoded", body }) {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": type, "content-length": String(Buffer.byteLength(body)), ...(authorization && { authorization }) };
    const request = http.request(`${url}${path}`, { method: "POST", agent, headers, timeout: 20_000 }, (response) => {
      /** @type {Buffer[]} */
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString() }));
      response.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error("no answer in 20 s")));
    request.on("error", reject);
    request.end(body);
  });
}
