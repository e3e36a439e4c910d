// A load balancer in front of several issuers, for tests: takes them in turn, leaves out those that don't answer, and counts.

import http from "node:http";

/**
 * @param {{port: number, targets: string[]}} options `targets`: the issuers' URLs
 * @returns {Promise<{url: string, jwksRequests: (agent: RegExp) => number, close: () => Promise<void>}>}
 *   `jwksRequests`: how often the JWK Set was asked for by clients whose `User-Agent` matches
 */
export async function startBalancer({ port, targets }) {
  const agent = new http.Agent({ keepAlive: true });
  /** @type {string[]} */
  const asked = [];
  let turn = 0;

  /**
   * The answer of the next issuer that can be reached.
   * @param {http.IncomingMessage} request
   * @param {Buffer} body
   * @returns {Promise<http.IncomingMessage>}
   */
  function forward(request, body, attempt = 0) {
    const { method, url, headers } = request;
    const target = new URL(targets[turn++ % targets.length]);
    return new Promise((resolve, reject) => {
      const sent = http.request({ host: target.hostname, port: target.port, method, path: url, headers, agent }, resolve);
      sent.on("error", (error) => {
        // A connection that was refused has carried nothing.
        const retry = "code" in error && error.code === "ECONNREFUSED" && attempt + 1 < targets.length;
        if (retry) forward(request, body, attempt + 1).then(resolve, reject);
        else reject(error);
      });
      sent.end(body);
    });
  }

  const server = http.createServer(async (request, response) => {
    if (request.url === "/.well-known/jwks.json") asked.push(request.headers["user-agent"] ?? "");
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    try {
      const answer = await forward(request, Buffer.concat(chunks));
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    } catch {
      response.writeHead(502).end();
    }
  });
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(undefined));
  });
  return {
    url: `http://127.0.0.1:${port}`,
    jwksRequests: (pattern) => asked.filter((name) => pattern.test(name)).length,
    close: () => {
      agent.destroy();
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve(undefined)));
    },
  };
}
