// An HTTP proxy between two parts of the system, for tests and benchmarks: it looks at what goes through and, where told to, meddles with it.

import http from "node:http";

/**
 * @typedef {{status: number, headers?: http.OutgoingHttpHeaders, body?: Buffer | string}} Answer
 * @typedef {object} Exchange
 * @property {string} method
 * @property {string} path with its query
 * @property {http.IncomingHttpHeaders} headers
 * @property {Buffer} body
 * @property {() => Promise<Answer>} forward asks the target; may be called again
 * @typedef {(exchange: Exchange) => Promise<Answer | undefined>} Handler what is answered; nothing: the connection is cut
 */

/** Of one connection only, and so not passed on (RFC 9110 §7.6.1). */
const HOP = ["connection", "keep-alive", "transfer-encoding", "content-length", "expect"];

/**
 * @param {{target: string, handle?: Handler}} options `handle`: what to do with each request, at first; else it is forwarded
 * @returns {Promise<{url: string, handle: Handler, close: () => Promise<void>}>} `handle` may be exchanged at any time
 */
export async function startProxy({ target, handle = (exchange) => exchange.forward() }) {
  const agent = new http.Agent({ keepAlive: true });
  const to = new URL(target);
  const server = http.createServer(async (request, response) => {
    try {
      const body = await whole(request);
      const { method = "GET", url = "/", headers } = request;
      const forward = () => ask(to, agent, { method, path: url, headers, body });
      const answer = await proxy.handle({ method, path: url, headers, body, forward });
      if (answer === undefined) response.destroy();
      else response.writeHead(answer.status, answer.headers).end(answer.body);
    } catch {
      // The target can't be reached, or who asked has gone.
      if (response.headersSent) response.destroy();
      else response.writeHead(502).end();
    }
  });
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => resolve(undefined));
  });
  const address = /** @type {import("node:net").AddressInfo} */ (server.address());
  const proxy = {
    url: `http://127.0.0.1:${address.port}`,
    handle,
    close: () => {
      agent.destroy();
      server.closeAllConnections();
      return new Promise((/** @type {(_: void) => void} */ resolve) => server.close(() => resolve()));
    },
  };
  return proxy;
}

/**
 * @param {http.IncomingMessage} message
 * @returns {Promise<Buffer>}
 */
async function whole(message) {
  const chunks = [];
  for await (const chunk of message) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** @returns {Promise<Answer>} */
function ask(to, agent, { method, path, headers, body }) {
  return new Promise((resolve, reject) => {
    const kept = Object.fromEntries(Object.entries(headers).filter(([name]) => !HOP.includes(name) && name !== "host"));
    const sent = http.request({ host: to.hostname, port: to.port, method, path, headers: { ...kept, "content-length": body.length }, agent });
    sent.on("error", reject);
    sent.on("response", (response) => {
      const passed = Object.fromEntries(Object.entries(response.headers).filter(([name]) => !HOP.includes(name)));
      whole(response).then((answer) => resolve({ status: response.statusCode ?? 502, headers: passed, body: answer }), reject);
    });
    sent.end(body);
  });
}
