// The load generator: wrk, a process of its own that costs little, with prepared requests.

import fs from "node:fs";
import path from "node:path";

import { Problem } from "../../output.mjs";
import { findOrInstall, findProgram } from "../../packages.mjs";
import { run } from "../../processes.mjs";

/**
 * @typedef {object} Prepared a request
 * @property {string} path
 * @property {string} [authorization]
 * @property {string} [type] of the body; default a form
 * @property {string} body
 */

/**
 * @typedef {object} Outcome of a load
 * @property {number} sent requests
 * @property {number} answered
 * @property {number} seconds from the first request to the last answer
 * @property {number} p50 in ms, as are the others
 * @property {number} p99
 * @property {number} p999
 * @property {number} max
 * @property {Record<string, number>} statuses how often each was answered
 * @property {Record<string, number>} errors connections that failed, and answers that took longer than ten seconds
 */

/** wrk's program, installed where it is missing and we may. @returns {Promise<string>} */
export function requireWrk({ log, progress }) {
  const packages = { "apt-get": ["wrk"], dnf: ["wrk"], apk: ["wrk"], brew: ["wrk"] };
  return findOrInstall(() => findProgram("wrk"), { what: "wrk, which sends the requests", packages, log, progress });
}

/** Authorization of RFC 6749 §2.3.1, for ids and secrets that need no encoding. */
export const basicOf = (id, secret) => `Basic ${Buffer.from(`${id}:${secret}`).toString("base64")}`;

/**
 * Writes requests down for `load`.
 * @param {string} file which may hold secrets
 * @param {Prepared[]} requests
 */
export function writeRequests(file, requests) {
  fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
  const rows = requests.map(({ path, authorization = "", type = "application/x-www-form-urlencoded", body }) => `${path}\t${authorization}\t${type}\t${body}\n`);
  fs.writeFileSync(file, rows.join(""), { mode: 0o600 });
}

/** Seconds in which the last answers come. */
const DRAIN = 1;

/**
 * Sends requests until the time is over, or there are no more.
 * @param {{program: string, url: string, file: string, once?: boolean, connections: number, seconds: number, delayMs?: number}} load
 *   `connections` are open until a second after the last request;   `once`: each request is sent once, else they begin anew; `delayMs`: the mean of a connection's pause after each answer
 * @returns {Promise<Outcome>}
 */
export async function load({ program, url, file, once = false, connections, seconds, delayMs = 0 }) {
  const script = path.join(import.meta.dirname, "wrk.lua");
  const { stdout } = await run(program, [
    "-t1", `-c${connections}`, `-d${seconds + DRAIN}s`, "--timeout", "10s", "-s", script, url, "--", file, once ? "once" : "cycle", String(seconds), String(delayMs),
  ], { failure: "wrk failed" });
  const line = stdout.trim().split("\n").at(-1) ?? "";
  let said;
  try {
    said = JSON.parse(line);
  } catch {
    throw new Problem(`wrk printed: ${stdout}`);
  }
  const { sent, answered, micros, p50, p99, p999, max, statuses, ...errors } = said;
  return {
    sent, answered, seconds: micros / 1e6, p50: p50 / 1000, p99: p99 / 1000, p999: p999 / 1000, max: max / 1000, statuses,
    errors: Object.fromEntries(Object.entries(errors).filter(([, count]) => count > 0)),
  };
}
