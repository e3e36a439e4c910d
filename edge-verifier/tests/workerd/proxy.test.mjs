// The gateway as a proxy: bodies as they come, WebSockets, an upstream that is a Worker, and what the upstream can check.

import assert from "node:assert/strict";
import { createHash, generateKeyPairSync, randomBytes } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import { after, before, describe, test } from "node:test";
import { gunzipSync, gzipSync } from "node:zlib";
import { calculateJwkThumbprint, createRemoteJWKSet, jwtVerify } from "jose";

import { AUDIENCE } from "../fake-issuer.mjs";
import { startWorld } from "./support.mjs";

/** An upstream by `handle`, with WebSockets that greet with the headers they were opened with and echo what they are sent. */
async function startServer(handle) {
  const server = http.createServer(handle);
  const sockets = new Set();
  /** Of each close frame that came: its code; undefined: it had none. */
  const closes = [];
  server.on("upgrade", (request, socket) => {
    sockets.add(socket);
    const accept = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\nX-Upstream: yes\r\n\r\n`);
    const send = (opcode, payload) => {
      const length = payload.length < 126 ? Buffer.from([payload.length]) : Buffer.from([126, payload.length >> 8, payload.length & 255]);
      socket.write(Buffer.concat([Buffer.from([0x80 | opcode]), length, payload]));
    };
    send(1, Buffer.from(JSON.stringify({ url: request.url, headers: request.headers })));
    // Frames of the test are short, and come whole.
    socket.on("data", (frame) => {
      const [opcode, length, mask] = [frame[0] & 15, frame[1] & 127, frame.subarray(2, 6)];
      const payload = Buffer.from(frame.subarray(6, 6 + length).map((byte, place) => byte ^ mask[place % 4]));
      if (opcode === 8) closes.push(payload.length < 2 ? undefined : payload.readUInt16BE());
      send(opcode, payload);
    });
    socket.on("error", () => socket.destroy());
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const stop = () => {
    server.closeAllConnections();
    // Those that were upgraded are nobody's any more.
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  };
  return { url: `http://127.0.0.1:${port}`, closes, stop };
}

async function openSocket(url, headers) {
  const socket = new WebSocket(url.replace(/^http/, "ws"), /** @type {any} */ ({ headers }));
  const messages = [];
  const waiting = [];
  socket.addEventListener("message", ({ data }) => (waiting.shift() ?? ((one) => messages.push(one)))(data));
  const next = () => (messages.length > 0 ? Promise.resolve(messages.shift()) : new Promise((resolve) => waiting.push(resolve)));
  await new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve);
    socket.addEventListener("error", reject);
  });
  return { socket, next };
}

describe("bodies and WebSockets", () => {
  let world;
  let server;
  /** Requests that the server holds open. */
  const held = [];
  before(async () => {
    server = await startServer((request, response) => {
      if (request.url === "/hold") return held.push({ request, response });
      if (request.url === "/gzip") {
        response.writeHead(200, { "content-encoding": "gzip", "content-type": "text/plain", "set-cookie": ["a=1", "b=2"] });
        return response.end(gzipSync("packed ".repeat(10_000)));
      }
      if (request.url === "/empty") return response.writeHead(204).end();
      if (request.url === "/unchanged") return response.writeHead(304, { etag: '"x"' }).end();
      response.writeHead(200, { "x-upstream": "yes", "x-request-id": "the upstream's own", "keep-alive": "timeout=5", "proxy-authenticate": "Basic" });
      response.end(JSON.stringify(request.headers));
    });
    world = await startWorld({ vars: { UPSTREAM_URL: server.url } });
    await world.settle();
    world.beat();
  });
  after(() => Promise.all([world.stop(), server.stop()]));

  test("a body that has no end reaches the upstream as it is written, and its answer the client as it is", { timeout: 20_000 }, async () => {
    const { token } = world.issuer.token();
    const { hostname, port } = new URL(world.edge.url);
    const request = http.request({ hostname, port, path: "/hold", method: "POST", headers: { authorization: `Bearer ${token}` } });
    const answered = once(request, "response");
    request.write("first");
    while (held.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    const [{ request: received, response }] = held;
    const [first] = await once(received, "data");
    assert.equal(first.toString(), "first");
    // The answer begins while the request goes on.
    response.writeHead(200);
    response.write("one");
    const [answer] = await answered;
    assert.equal((await once(answer, "data")).toString(), "one");
    for (let n = 0; n < 3; n++) {
      const [there, back] = [once(received, "data"), once(answer, "data")];
      request.write(`up ${n}`);
      assert.equal((await there).toString(), `up ${n}`);
      response.write(`down ${n}`);
      assert.equal((await back).toString(), `down ${n}`);
    }
    const ended = once(received, "end");
    request.end();
    received.resume();
    await ended;
    response.end();
    answer.resume();
    await once(answer, "end");
  });

  test("what concerns one connection doesn't go on to the next, in either direction", async () => {
    const { token } = world.issuer.token();
    const { hostname, port } = new URL(world.edge.url);
    const headers = {
      authorization: `Bearer ${token}`, connection: "keep-alive, X-Mine, X-Countersign-Agent", "x-mine": "1", "x-other": "2",
      te: "trailers", "proxy-authorization": "Basic Zm9v", "keep-alive": "timeout=5",
    };
    const request = http.get({ hostname, port, path: "/x", headers });
    const [answer] = await once(request, "response");
    const seen = JSON.parse((await answer.toArray()).join(""));
    for (const name of ["x-mine", "te", "proxy-authorization", "keep-alive", "authorization"]) assert.equal(seen[name], undefined, name);
    assert.equal(seen["x-other"], "2");
    assert.ok(seen["x-countersign-agent"], "ours stays, whatever the client names");
    assert.equal(answer.headers["x-upstream"], "yes");
    assert.equal(answer.headers["proxy-authenticate"], undefined);
    assert.equal(answer.headers["x-request-id"], seen["x-request-id"]);
    assert.notEqual(answer.headers["x-request-id"], "the upstream's own");
  });

  test("packed bodies, several cookies and answers without a body arrive as they were sent", async () => {
    const { hostname, port } = new URL(world.edge.url);
    const headers = { authorization: `Bearer ${world.issuer.token().token}`, "accept-encoding": "gzip" };
    const ask = async (path) => {
      const [answer] = await once(http.get({ hostname, port, path, headers }), "response");
      return { answer, body: Buffer.concat(await answer.toArray()) };
    };
    const { answer, body } = await ask("/gzip");
    assert.equal(answer.headers["content-encoding"], "gzip");
    assert.equal(gunzipSync(body).toString(), "packed ".repeat(10_000));
    assert.deepEqual(answer.headers["set-cookie"], ["a=1", "b=2"]);
    for (const [path, status] of [["/empty", 204], ["/unchanged", 304]]) {
      const empty = await ask(path);
      assert.deepEqual([empty.answer.statusCode, empty.body.length], [status, 0]);
    }
  });

  test("a WebSocket goes through, with whose it is", async () => {
    const { token, claims } = world.issuer.token();
    const { socket, next } = await openSocket(`${world.edge.url}/live?x=1`, { authorization: `Bearer ${token}`, "x-countersign-agent": "root" });
    const { url, headers } = JSON.parse(await next());
    assert.equal(url, "/live?x=1");
    assert.equal(headers["x-countersign-agent"], claims.sub);
    assert.equal(headers.authorization, undefined);
    for (const word of ["hello", "again"]) {
      socket.send(word);
      assert.equal(await next(), word);
    }
    socket.close();
  });

  test("without a token that holds there is no WebSocket", async () => {
    for (const token of [undefined, "nonsense"]) {
      const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
      await assert.rejects(openSocket(`${world.edge.url}/live`, headers));
      const { hostname, port } = new URL(world.edge.url);
      const upgrade = { connection: "upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": randomBytes(16).toString("base64") };
      const [answer] = await once(http.get({ hostname, port, path: "/live", headers: { ...headers, ...upgrade } }), "response");
      assert.equal(answer.statusCode, 401);
    }
  });
});

describe("a WebSocket that ends with its token", () => {
  let world;
  let server;
  before(async () => {
    server = await startServer((request, response) => response.end());
    const routes = [{ path: "/**" }, { path: "/strict", fresh_seconds: 2, usable_seconds: 2 }, { path: "/public", anonymous: true }];
    world = await startWorld({ vars: { UPSTREAM_URL: server.url, WEBSOCKETS: "token", ROUTE_POLICY: { version: 1, routes } } });
    await world.settle();
  });
  after(() => Promise.all([world.stop(), server.stop()]));

  const open = async (token, path = "/live") => {
    const { socket, next } = await openSocket(`${world.edge.url}${path}`, token === undefined ? {} : { authorization: `Bearer ${token}` });
    const closed = once(socket, "close").then(([event]) => ({ code: event.code, reason: event.reason }));
    return { socket, next, closed, greeting: JSON.parse(await next()) };
  };
  const echoes = async ({ socket, next }, message) => {
    socket.send(message);
    return next();
  };

  test("messages of both kinds go through, and a close with its code", async () => {
    const one = await open(world.issuer.token().token);
    assert.ok(one.greeting.headers["x-countersign-agent"]);
    assert.equal(await echoes(one, "hello"), "hello");
    one.socket.binaryType = "arraybuffer";
    assert.deepEqual(new Uint8Array(await echoes(one, new Uint8Array([1, 2, 255]))), new Uint8Array([1, 2, 255]));
    one.socket.close(4001, "done");
    assert.deepEqual(await one.closed, { code: 4001, reason: "done" });
  });

  test("ends at the upstream, too, whatever the client says at its end", async () => {
    const { hostname, port } = new URL(world.edge.url);
    for (const code of [999, 1004, 1006, 1015, 5_000, 65_535]) {
      const headers = {
        authorization: `Bearer ${world.issuer.token().token}`, connection: "upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": randomBytes(16).toString("base64"),
      };
      const [, socket] = await once(http.request({ hostname, port, path: "/live", headers }).end(), "upgrade");
      try {
        socket.resume();
        server.closes.length = 0;
        // A close frame, masked with nothing; and the connection stays.
        socket.write(Buffer.from([0x88, 0x82, 0, 0, 0, 0, code >> 8, code & 255]));
        const start = performance.now();
        while (server.closes.length === 0 && performance.now() - start < 3_000) await new Promise((resolve) => setTimeout(resolve, 10));
        assert.equal(server.closes.length, 1, `${code}: the upstream's end is open`);
      } finally {
        socket.destroy();
      }
    }
  });

  test("is closed when that is revoked or expires, and no other is", { timeout: 30_000 }, async () => {
    const { issuer } = world;
    const [victim, good, brief] = [issuer.token(), issuer.token(), issuer.token({ exp: Math.floor(Date.now() / 1000) + 3 })];
    const sockets = await Promise.all([victim, good, brief].map(({ token }) => open(token)));
    let revoked = [];
    const beat = setInterval(() => world.push(issuer.head({ revoked })).then((response) => response.text()).catch(() => undefined), 1_000);
    try {
      revoked = [victim.coordinate];
      assert.equal((await world.push(issuer.head({ revoked }))).status, 200);
      const since = performance.now();
      assert.deepEqual(await sockets[0].closed, { code: 1008, reason: "The token was revoked." });
      const took = performance.now() - since;
      assert.ok(took < 2_500, `${took.toFixed(0)} ms`);
      assert.deepEqual(await sockets[2].closed, { code: 1008, reason: "The token has expired." });
      assert.equal(await echoes(sockets[1], "still here"), "still here");
      sockets[1].socket.close();
      await assert.rejects(open(victim.token));
    } finally {
      clearInterval(beat);
    }
  });

  test("is closed when it isn't known any more what is revoked; one that needed no token stays", { timeout: 30_000 }, async () => {
    await world.push(world.issuer.head());
    const [strict, anonymous] = await Promise.all([open(world.issuer.token().token, "/strict"), open(undefined, "/public")]);
    // No head comes.
    assert.deepEqual(await strict.closed, { code: 1013, reason: "It is not known at present what is revoked." });
    assert.equal(await echoes(anonymous, "still here"), "still here");
    anonymous.socket.close();
  });
});

/** An upstream that is a Worker: says what it was asked, or echoes in a WebSocket. */
const WORKER = `
  export default {
    fetch(request) {
      const seen = JSON.stringify({ url: request.url, method: request.method, headers: Object.fromEntries(request.headers) });
      if (request.headers.get("upgrade") !== "websocket") return new Response(seen);
      const [client, server] = Object.values(new WebSocketPair());
      server.accept();
      server.send(seen);
      server.addEventListener("message", ({ data }) => server.send(data));
      return new Response(null, { status: 101, webSocket: client });
    },
  };
`;

describe("an upstream that is a Worker", () => {
  for (const [what, upstream, expected] of [
    ["asked as the edge was", "", "/reports/7?x=1"],
    ["asked at an address of its own", "http://orders.internal/base", "http://orders.internal/base/reports/7?x=1"],
  ]) {
    test(what, async () => {
      const beside = [{ name: "orders", modules: true, script: WORKER, compatibilityDate: "2026-11-17" }];
      const world = await startWorld({ vars: { UPSTREAM_URL: upstream }, more: { serviceBindings: { UPSTREAM: "orders" } }, beside });
      try {
        await world.settle();
        const { token, claims } = world.issuer.token();
        const { url, headers } = await (await world.get(token, { path: "/reports/7?x=1" })).json();
        assert.equal(url, new URL(expected, world.edge.url).href);
        assert.equal(headers["x-countersign-agent"], claims.sub);
        assert.equal((await world.get(undefined)).status, 401);
        const { socket, next } = await openSocket(world.edge.url, { authorization: `Bearer ${token}` });
        assert.equal(JSON.parse(await next()).headers["x-countersign-agent"], claims.sub);
        socket.send("hello");
        assert.equal(await next(), "hello");
        socket.close();
      } finally {
        await world.stop();
      }
    });
  }

  test("with neither, nothing is forwarded", async () => {
    const world = await startWorld({ vars: { UPSTREAM_URL: "" } });
    try {
      await world.settle();
      const response = await world.get(world.issuer.token().token);
      assert.deepEqual([response.status, (await response.json()).code], [503, "misconfigured"]);
    } finally {
      await world.stop();
    }
  });
});

const privateJwk = (type, options) => generateKeyPairSync(type, options).privateKey.export({ format: "jwk" });

describe("signed identity", () => {
  for (const [alg, jwk] of [["EdDSA", privateJwk("ed25519")], ["ES256", privateJwk("ec", { namedCurve: "P-256" })]]) {
    test(`${alg}: the upstream can check that a request came through the edge, and is that one`, async () => {
      const kid = await calculateJwkThumbprint(jwk);
      const routes = [{ path: "/**" }, { path: "/public", anonymous: true }];
      const world = await startWorld({ vars: { ASSERTION_KEY: JSON.stringify({ ...jwk, kid }), ROUTE_POLICY: { version: 1, routes } } });
      try {
        await world.settle();
        const keys = createRemoteJWKSet(new URL(`${world.edge.url}/_countersign/jwks.json`));
        const options = { issuer: AUDIENCE, audience: new URL(world.upstream.url).origin, typ: "countersign-assertion+jwt", maxTokenAge: 60 };
        const { token, claims } = world.issuer.token();
        const response = await world.get(token, {
          method: "POST", path: "/reports/7?x=%2F", body: "x", headers: { "x-countersign-assertion": "forged", "x-request-id": "id-1" },
        });
        const { method, url, headers } = await response.json();
        const { payload, protectedHeader } = await jwtVerify(headers["x-countersign-assertion"], keys, options);
        assert.deepEqual(protectedHeader, { alg, kid, typ: "countersign-assertion+jwt" });
        const { iat, exp, jti, ...rest } = payload;
        assert.equal(exp - iat, 30);
        assert.deepEqual(rest, {
          iss: AUDIENCE, aud: options.audience, sub: claims.sub, tenant_id: claims.tenant_id, credential_id: claims.credential_id, agent_type: "router",
          scope: "reports:read", token_iss: world.issuer.url, token_jti: claims.jti, request_id: "id-1",
          request_sha256: createHash("sha256").update(`${method} ${url}`).digest("base64url"),
        });
        const again = await (await world.get(token)).json();
        const other = await jwtVerify(again.headers["x-countersign-assertion"], keys, options);
        assert.notEqual(other.payload.jti, jti);
        assert.notEqual(other.payload.request_sha256, payload.request_sha256);
        // Another edge's isn't good here; nobody who wasn't asked has one.
        await assert.rejects(jwtVerify(headers["x-countersign-assertion"], keys, { ...options, audience: "https://other.example" }));
        const anonymous = await world.get(undefined, { path: "/public", headers: { "x-countersign-assertion": "forged" } });
        assert.equal((await anonymous.json()).headers["x-countersign-assertion"], undefined);
        // Nothing private is published.
        const published = await (await fetch(`${world.edge.url}/_countersign/jwks.json`)).text();
        assert.ok(!published.includes(jwk.d));
        assert.deepEqual(Object.keys(JSON.parse(published).keys[0]).sort(), alg === "EdDSA" ? ["alg", "crv", "kid", "kty", "use", "x"] : ["alg", "crv", "kid", "kty", "use", "x", "y"]);
      } finally {
        await world.stop();
      }
    });
  }

  test("the first key of a set signs, all are published; without a key there is nothing; an unsound one is a mistake", async () => {
    const [one, other] = [{ ...privateJwk("ed25519"), kid: "one" }, { ...privateJwk("ed25519"), kid: "other" }];
    for (const [key, jwks, kid] of [[JSON.stringify({ keys: [one, other] }), ["one", "other"], "one"], ["", undefined, undefined]]) {
      const world = await startWorld({ vars: { ASSERTION_KEY: key, ASSERTION_ISSUER: "https://edge.example", ASSERTION_AUDIENCE: "orders" } });
      try {
        await world.settle();
        const published = await fetch(`${world.edge.url}/_countersign/jwks.json`);
        assert.equal(published.status, jwks === undefined ? 404 : 200);
        const body = await published.json();
        assert.deepEqual(body.keys?.map((key) => key.kid), jwks);
        const assertion = (await (await world.get(world.issuer.token().token)).json()).headers["x-countersign-assertion"];
        const [header, claims] = assertion?.split(".").map((part) => Buffer.from(part, "base64url").toString()) ?? [];
        assert.equal(header && JSON.parse(header).kid, kid);
        if (claims) assert.deepEqual([JSON.parse(claims).iss, JSON.parse(claims).aud], ["https://edge.example", "orders"]);
      } finally {
        await world.stop();
      }
    }
    const { d, ...publicOnly } = one;
    for (const unsound of ["secret words", "{}", JSON.stringify(publicOnly), JSON.stringify({ keys: [one, { ...other, kid: "" }] }), JSON.stringify({ ...one, crv: "X25519" })]) {
      const world = await startWorld({ vars: { ASSERTION_KEY: unsound } });
      try {
        assert.equal((await world.get(undefined, { path: "/_countersign/health" })).status, 503, unsound);
      } finally {
        await world.stop();
      }
    }
  });
});
