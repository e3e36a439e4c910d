// A private Redis, where there is one to run: in memory only, on a free port of 127.0.0.1, behind a password.

import net from "node:net";
import path from "node:path";

import { until } from "./http.mjs";
import { findOrInstall, findProgram } from "./packages.mjs";
import { freePort } from "./ports.mjs";
import { keptSecret, writeSecret } from "./secrets.mjs";

/** @returns {string | undefined} the server's program, from the PATH */
export function findRedis() {
  return findProgram("redis-server") ?? findProgram("valkey-server");
}

/**
 * The server's program, installed by the system's package manager where it is missing and we are root.
 * @param {{log: string, progress?: (status: string) => void}} options
 * @returns {Promise<string>}
 * @throws {Problem} when it is missing and can't be installed
 */
export function requireRedis({ log, progress }) {
  const packages = { "apt-get": ["redis-server"], dnf: ["redis"], apk: ["redis"], brew: ["redis"] };
  return findOrInstall(findRedis, { what: "a Redis server", packages, log, progress });
}

/**
 * @param {import("./processes.mjs").Processes} processes
 * @param {{dir: string, program: string}} options `dir`: the state directory
 * @returns {Promise<{url: string, child: import("./processes.mjs").Child}>}
 */
export async function startRedis(processes, { dir, program }) {
  const password = keptSecret(dir, "redis_password");
  const config = path.join(dir, "secrets", "redis.conf");
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    // In a file, because the command line is public.
    writeSecret(config, `bind 127.0.0.1\nport ${port}\nrequirepass ${password}\nsave ""\nappendonly no\ndaemonize no\n`);
    const child = processes.start("redis", program, [config], { cwd: dir });
    const ready = await until(async () => child.ended || (await ping(port, password)), { timeoutMs: 15_000 });
    if (ready && !child.ended) return { url: `redis://:${password}@127.0.0.1:${port}`, child };
    await processes.stop(child);
    if (attempt === 3) throw child.problem();
  }
}

/** Whether a Redis on `port` takes our password. */
function ping(port, password) {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = net.connect({ host: "127.0.0.1", port, timeout: 1_000 });
    socket.on("connect", () => socket.write(`AUTH ${password}\r\nPING\r\n`));
    socket.on("data", (data) => {
      answer += data;
      if (answer.includes("+PONG")) {
        socket.destroy();
        resolve(true);
      }
    });
    socket.on("timeout", () => socket.destroy(new Error("no answer")));
    socket.on("error", reject);
    socket.on("close", () => resolve(false));
  });
}
