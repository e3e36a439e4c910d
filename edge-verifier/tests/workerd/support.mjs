// What the tests in workerd share: an edge in front of an upstream that echoes, and a fake issuer behind it.

import { createServer } from "node:http";
import { startEdge } from "../../../bin/lib/edge.mjs";
import { freePort } from "../../../bin/lib/ports.mjs";
import { AUDIENCE, EMPTY_BASE, FakeIssuer, sha256 } from "../fake-issuer.mjs";

export const PUSH_SECRET = "a push secret for tests";
/** Where every challenge points to. */
export const METADATA = `resource_metadata="${AUDIENCE}/.well-known/oauth-protected-resource"`;

/**
 * Starts all three. Whatever was started is stopped by `stop`.
 * @param {{vars?: Record<string, any>, persist?: string, isolates?: number, more?: object, beside?: any[], logs?: (message: string) => void}} [options] `beside`: each a Worker, or what
 *   makes one of the issuer and the edge's address
 */
export async function startWorld({ vars = {}, persist, isolates, entry, inspected, more, beside, logs } = {}) {
  const issuer = await FakeIssuer.start();
  const upstream = await startUpstream();
  const stopAll = (...started) => Promise.all(started.map((part) => part.stop()));
  // Known beforehand only where somebody has to know it.
  const port = beside?.some((one) => typeof one === "function") ? await freePort() : 0;
  const edge = await startEdge({
    port,
    persist,
    isolates,
    inspected,
    ...(entry && { entry, whole: true }),
    more,
    logs,
    beside: beside?.map((one) => (typeof one === "function" ? one(issuer, `http://127.0.0.1:${port}`) : one)),
    vars: {
      ISSUER_URL: issuer.url,
      AUDIENCE,
      UPSTREAM_URL: `${upstream.url}/base`,
      REVOCATION_KEYS: JSON.stringify(issuer.headJwks()),
      HUB_PUSH_SECRET: PUSH_SECRET,
      ...vars,
    },
  }).catch(async (error) => {
    // What is left open would keep the test's process.
    await stopAll(issuer, upstream);
    throw error;
  });
  let beating;
  const world = {
    issuer,
    upstream,
    edge,
    get: (token, { isolate = 0, path = "/reports", headers = {}, ...init } = {}) =>
      fetch(`${edge.isolates[isolate]}${path}`, {
        redirect: "manual",
        headers: { ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...headers },
        ...init,
      }),
    push: (head, { secret = PUSH_SECRET, headers = {}, isolate = 0 } = {}) =>
      fetch(`${edge.isolates[isolate]}/_countersign/hub/head`, {
        method: "PUT",
        headers: { authorization: `Bearer ${secret}`, "content-type": "application/jose", ...headers },
        body: head,
      }),
    pushKeys: (statement, { secret = PUSH_SECRET, headers = {} } = {}) =>
      fetch(`${edge.url}/_countersign/hub/keys`, {
        method: "PUT",
        headers: { authorization: `Bearer ${secret}`, "content-type": "application/jose", ...headers },
        body: statement,
      }),
    putObject: (name, bytes) =>
      fetch(
        `${edge.kvApiBase}/storage/kv/namespaces/${edge.kvNamespaceId}/values/${encodeURIComponent(`base/${name}`)}`,
        { method: "PUT", body: bytes },
      ),
    /** Puts the empty base and a first head in place. */
    async settle() {
      await world.putObject(sha256(EMPTY_BASE), EMPTY_BASE);
      const pushed = await world.push(issuer.head());
      if (pushed.status !== 200) throw new Error(`first head: ${pushed.status} ${await pushed.text()}`);
    },
    /** Pushes a head each second from now on, as the issuer does. */
    beat() {
      beating = setInterval(() => world.push(issuer.head()).then((response) => response.text()).catch(() => undefined), 1_000);
    },
    async stop() {
      clearInterval(beating);
      await stopAll(edge, upstream, issuer);
    },
  };
  return world;
}

/** Status of `action`'s response once `done` says so; fails after `limitMs`. */
export async function until(limitMs, action, done) {
  const start = performance.now();
  for (;;) {
    const response = await action();
    const body = await response.text();
    const elapsed = performance.now() - start;
    if (done(response)) return { response, body, elapsed };
    if (elapsed > limitMs) throw new Error(`still ${response.status} after ${elapsed.toFixed(0)} ms: ${body}`);
  }
}

async function startUpstream() {
  const seen = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const { method, url, headers } = request;
    const exchange = { method, url, headers, body: Buffer.concat(chunks).toString() };
    seen.push(exchange);
    if (url.startsWith("/base/redirect")) return response.writeHead(302, { location: "/elsewhere" }).end();
    response.writeHead(url.startsWith("/base/teapot") ? 418 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(exchange));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    seen,
    stop: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
