// The API behind the edge in the walk-through. It trusts the edge: whoever reaches it has been verified, and the
// `x-countersign-…` headers say who it is. It answers with what it saw. In production nothing but the edge may reach such an upstream.

import http from "node:http";
import process from "node:process";
import { pathToFileURL } from "node:url";

/**
 * @param {{host?: string, port?: number}} [address] port 0: any free one
 * @returns {Promise<{url: string, close: () => Promise<void>}>}
 */
export function startDemoUpstream({ host = "127.0.0.1", port = 0 } = {}) {
  const server = http.createServer((request, response) => {
    const identity = Object.fromEntries(
      Object.entries(request.headers)
        .filter(([name]) => name.startsWith("x-countersign-"))
        .map(([name, value]) => [name.slice("x-countersign-".length), value]),
    );
    const body = { method: request.method, path: request.url, identity, sawAuthorization: "authorization" in request.headers };
    response.writeHead(200, { "content-type": "application/json", "cache-control": "no-store" });
    response.end(`${JSON.stringify(body, null, 2)}\n`);
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      const address = /** @type {import("node:net").AddressInfo} */ (server.address());
      resolve({
        url: `http://${host}:${address.port}`,
        close: () =>
          new Promise((done) => {
            server.close(() => done());
            server.closeAllConnections();
          }),
      });
    });
  });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const upstream = await startDemoUpstream({ port: Number(process.env.PORT ?? 0) });
  console.log(`demo upstream on ${upstream.url}`);
  for (const name of ["SIGTERM", "SIGINT"]) process.once(name, () => upstream.close().then(() => process.exit(0)));
}
