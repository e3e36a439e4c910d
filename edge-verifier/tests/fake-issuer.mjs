// An issuer for tests of the edge alone: keys, tokens, heads and deltas made with Node's crypto, by none of our own code. It misbehaves on
// request. What the real issuer does is tested in workerd/end-to-end.test.mjs.

import { createHash, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { createServer } from "node:http";

const b64 = (data) => Buffer.from(data).toString("base64url");
const json = (value) => b64(JSON.stringify(value));
const nowSeconds = () => Math.floor(Date.now() / 1000);

export const AUDIENCE = "https://api.example";

/** A base object that holds nothing (docs/reference/formats.md). */
export const EMPTY_BASE = Buffer.concat([Buffer.from("CSRB"), Buffer.from([1, 0, 0, 0]), Buffer.alloc(16)]);

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

export class FakeIssuer {
  url = "";
  tokenKey = makeKey("token-1");
  headKey = makeKey("head-1");
  epoch = 1;
  seq = 0;
  /** Of the newest key statement; 0: there is none, and heads name none. */
  keyVersion = 0;
  /** How often the JWK Set was asked for. */
  jwksRequests = 0;
  /** Set to make the JWKS endpoint fail. */
  down = false;
  /** How long it takes to answer. */
  delayMs = 0;
  #server;
  #serial = 0n;

  static async start() {
    const issuer = new FakeIssuer();
    issuer.#server = createServer(async (request, response) => {
      if (request.url !== "/.well-known/jwks.json") return response.writeHead(404).end();
      issuer.jwksRequests += 1;
      if (issuer.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, issuer.delayMs));
      if (issuer.down) return response.writeHead(503).end();
      response.writeHead(200, { "content-type": "application/jwk-set+json" }).end(JSON.stringify(issuer.jwks()));
    });
    await new Promise((resolve) => issuer.#server.listen(0, "127.0.0.1", resolve));
    issuer.url = `http://127.0.0.1:${issuer.#server.address().port}`;
    return issuer;
  }

  stop() {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(resolve));
  }

  jwks() {
    return { keys: [publicJwk(this.tokenKey)] };
  }

  headJwks() {
    return { keys: [publicJwk(this.headKey)] };
  }

  /** A token; returns it with its claims. */
  token(changes = {}, key = this.tokenKey) {
    const now = nowSeconds();
    const exp = changes.exp ?? now + 600;
    const coordinate = { shard: Math.floor(exp / 3600), serial: this.#serial++ };
    const agent = randomUUID();
    const claims = {
      iss: this.url,
      sub: agent,
      client_id: agent,
      aud: AUDIENCE,
      iat: now,
      exp,
      jti: jti(coordinate),
      scope: "reports:read",
      tenant_id: randomUUID(),
      credential_id: randomUUID(),
      agent_type: "router",
      ...changes,
    };
    return { token: jws({ alg: "EdDSA", kid: key.kid, typ: "at+jwt" }, claims, key), claims, coordinate };
  }

  /**
   * The next head: everything in `revoked` (coordinates) and `rules` as its delta. Changes are for misbehaviour.
   * @param {Record<string, any>} [options]
   */
  head({ revoked = [], rules = [], key = this.headKey, typ = "revocation-head+jwt", ...changes } = {}) {
    const now = nowSeconds();
    const payload = {
      iss: this.url,
      epoch: this.epoch,
      seq: ++this.seq,
      base: sha256(EMPTY_BASE),
      delta: b64(delta(revoked, rules)),
      as_of: now,
      fresh_until: now + 300,
      ...(this.keyVersion > 0 && { keys: this.keyVersion }),
      ...changes,
    };
    return jws({ alg: "EdDSA", kid: key.kid, typ }, payload, key);
  }

  /** The head of the last position again, as of now: `options` must say the same as then. */
  heartbeat(options = {}) {
    const { seq } = this;
    const head = this.head({ ...options, seq });
    this.seq = seq;
    return head;
  }

  /** The next key statement, of `keys`. With any other option it is out of turn, for misbehaviour. */
  keyStatement(options = {}) {
    const { keys = [this.tokenKey], jwks = keys.map(publicJwk), key = this.headKey, typ = "jwk-set+jwt", ...changes } = options;
    const inTurn = keys.length > 0 && Object.keys(options).every((name) => name === "keys");
    if (inTurn) this.keyVersion += 1;
    const payload = {
      iss: this.url,
      sub: this.url,
      iat: nowSeconds(),
      epoch: this.epoch,
      version: this.keyVersion + (inTurn ? 0 : 1),
      keys: jwks,
      ...changes,
    };
    return jws({ alg: "EdDSA", kid: key.kid, typ }, payload, key);
  }
}

export function makeKey(kid) {
  return { kid, ...generateKeyPairSync("ed25519") };
}

function publicJwk({ kid, publicKey }) {
  return { ...publicKey.export({ format: "jwk" }), kid, alg: "EdDSA", use: "sig" };
}

function jws(header, payload, { privateKey }) {
  const input = `${json(header)}.${json(payload)}`;
  return `${input}.${b64(sign(null, Buffer.from(input), privateKey))}`;
}

export function jti({ shard, serial }) {
  const bits =
    (BigInt(shard) << 104n) | ((serial >> 12n) << 80n) | (8n << 76n) | ((serial & 0xfffn) << 64n) | (2n << 62n) | 42n;
  return bits.toString(16).padStart(32, "0").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/**
 * A delta (docs/reference/formats.md).
 * @param {{shard: number, serial: bigint}[]} revoked
 * @param {{level: number, subject: Buffer, notBefore: number}[]} rules in order
 */
function delta(revoked, rules) {
  /** @type {Map<number, bigint[]>} */
  const shards = new Map();
  for (const { shard, serial } of revoked) shards.set(shard, [...(shards.get(shard) ?? []), serial]);
  const bytes = [...leb128(shards.size)];
  let previousShard = 0;
  for (const [shard, serials] of [...shards].sort(([a], [b]) => a - b)) {
    const sorted = [...new Set(serials)].sort((a, b) => (a < b ? -1 : 1));
    bytes.push(...leb128(shard - previousShard), ...leb128(sorted.length));
    sorted.forEach((serial, place) => bytes.push(...leb128(place === 0 ? serial : serial - sorted[place - 1] - 1n)));
    previousShard = shard;
  }
  bytes.push(...leb128(rules.length));
  for (const { level, subject, notBefore } of rules) {
    const instant = Buffer.alloc(8);
    instant.writeBigInt64LE(BigInt(notBefore));
    bytes.push(level, subject.length, ...subject, ...instant);
  }
  return Buffer.from(bytes);
}

function leb128(number) {
  const bytes = [];
  let rest = BigInt(number);
  for (;;) {
    const bits = Number(rest & 0x7fn);
    rest >>= 7n;
    if (rest === 0n) return [...bytes, bits];
    bytes.push(bits | 0x80);
  }
}
