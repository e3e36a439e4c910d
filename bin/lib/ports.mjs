// Ports: finding a free one, and saying clearly which one is taken.

import { randomInt } from "node:crypto";
import net from "node:net";

import { Problem } from "./output.mjs";

/** Below those that systems give to outgoing connections (Linux from 32,768 on, macOS from 49,152): one of these could be taken before it is used. */
const RANGE = { from: 20_000, to: 32_767 };
/** Handed out before by this process, whose taker may not have opened it yet. */
const given = new Set();

/** @returns {Promise<number>} a port of `host` that is free */
export async function freePort(host = "127.0.0.1") {
  for (let tries = 0; tries < 100; tries++) {
    const port = randomInt(RANGE.from, RANGE.to + 1);
    if (given.has(port) || (await tryPort(port, host))) continue;
    given.add(port);
    return port;
  }
  throw new Problem(`no free port was found on ${host} between ${RANGE.from} and ${RANGE.to}`, { fix: "end programs that listen there" });
}

/** Opens and closes a port. @returns {Promise<NodeJS.ErrnoException | undefined>} why that fails */
function tryPort(port, host) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", resolve);
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(undefined)));
  });
}

/**
 * Fails with one clear line if `port` can't be had.
 * @param {number} port
 * @param {{host?: string, what: string, setting: string, example: string}} names `setting`: the environment variable that changes it
 */
export async function requireFree(port, { host = "127.0.0.1", what, setting, example }) {
  const error = await tryPort(port, host);
  if (!error) return;
  if (error.code === "EADDRINUSE") {
    throw new Problem(`port ${port} on ${host}, for ${what}, is taken by another program`, {
      fix: `stop that program, or choose another port: ${setting}=${example} bin/dev`,
    });
  }
  throw new Problem(`port ${port} on ${host}, for ${what}, can't be used: ${error.code ?? error.message}`, {
    fix: `choose another: ${setting}=${example} bin/dev`,
  });
}

/** Reads a port from the environment. */
export function portSetting(name, fallback) {
  const text = process.env[name];
  if (text === undefined || text === "") return fallback;
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65535) {
    throw new Problem(`${name} is "${text}", not a port`, { fix: `set it to a number from 1 to 65535, or unset it for ${fallback}` });
  }
  return port;
}
