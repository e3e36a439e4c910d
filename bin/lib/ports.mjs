// Ports: finding a free one, and saying clearly which one is taken.

import net from "node:net";

import { Problem } from "./output.mjs";

/** @returns {Promise<number>} a port of `host` that was free a moment ago */
export function freePort(host = "127.0.0.1") {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once("error", reject);
    server.listen({ host, port: 0, exclusive: true }, () => {
      const { port } = /** @type {net.AddressInfo} */ (server.address());
      server.close(() => resolve(port));
    });
  });
}

/**
 * Fails with one clear line if `port` can't be had.
 * @param {number} port
 * @param {{host?: string, what: string, setting: string, example: string}} names `setting`: the environment variable that changes it
 */
export async function requireFree(port, { host = "127.0.0.1", what, setting, example }) {
  const error = await new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", resolve);
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(undefined)));
  });
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
