// A TCP connection's way that can be cut, silenced and slowed down, for tests: between an issuer and its database, or its Redis.

import net from "node:net";

/**
 * @typedef {"open" | "cut" | "silent"} Mood `cut`: connections are ended, new ones too; `silent`: they stay and nothing arrives
 * @typedef {object} Line
 * @property {number} port of 127.0.0.1
 * @property {(mood: Mood) => void} set
 * @property {(ms: number) => void} delay by so much everything comes later, in both directions
 * @property {(port: number) => void} redirect where new connections lead
 * @property {() => Promise<void>} close
 */

/**
 * @param {number} target a port of 127.0.0.1
 * @returns {Promise<Line>}
 */
export async function startLine(target) {
  /** @type {Mood} */
  let mood = "open";
  let delayMs = 0;
  /** What is to be done when silence ends. @type {(() => void)[]} */
  let held = [];
  /** @type {Set<net.Socket>} */
  const sockets = new Set();

  const carry = (from, to) => {
    const send = (work) => {
      const now = () => (mood === "silent" ? held.push(work) : work());
      // Timers of one length fire in the order they were set.
      if (delayMs > 0) setTimeout(now, delayMs);
      else now();
    };
    from.on("data", (data) => send(() => to.destroyed || to.write(data)));
    from.on("end", () => send(() => to.end()));
    from.on("error", () => to.destroy());
    from.on("close", () => (sockets.delete(from), send(() => to.destroy())));
  };
  const server = net.createServer({ allowHalfOpen: true }, (client) => {
    if (mood === "cut") return client.destroy();
    const far = net.connect({ host: "127.0.0.1", port: target, allowHalfOpen: true });
    for (const socket of [client, far]) {
      socket.setNoDelay(true);
      sockets.add(socket);
    }
    carry(client, far);
    carry(far, client);
  });
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => resolve(undefined));
  });
  const { port } = /** @type {net.AddressInfo} */ (server.address());
  return {
    port,
    set: (next) => {
      mood = next;
      if (mood === "cut") for (const socket of sockets) socket.destroy();
      if (mood === "silent") return;
      const due = held;
      held = [];
      for (const work of due) work();
    },
    delay: (ms) => void (delayMs = ms),
    redirect: (next) => void (target = next),
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((/** @type {(_: void) => void} */ resolve) => server.close(() => resolve()));
    },
  };
}
