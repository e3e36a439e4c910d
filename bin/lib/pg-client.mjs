// Just enough of PostgreSQL's protocol (version 3, simple query, SCRAM-SHA-256 or no password) to ask a server who it is and to make
// databases for tests: the server packages of npm bring no psql, and this is no reason for a dependency.

import crypto from "node:crypto";
import net from "node:net";

/** An error that the server sent. */
export class PgError extends Error {
  /** @param {Record<string, string>} fields by their one-letter types (protocol-error-fields) */
  constructor(fields) {
    super(fields.M ?? "unknown error");
    this.name = "PgError";
    /** SQLSTATE. */
    this.code = fields.C;
  }
}

/**
 * Runs one statement on a connection of its own.
 * @param {string} url `postgres://user:password@host:port/database`, without TLS
 * @param {string} sql
 * @param {{timeoutMs?: number}} [options]
 * @returns {Promise<(string | null)[][]>} the rows, as text
 */
export async function query(url, sql, { timeoutMs = 10_000 } = {}) {
  const target = new URL(url);
  const user = decodeURIComponent(target.username || "postgres");
  const password = decodeURIComponent(target.password);
  const socket = net.connect({ host: target.hostname || "127.0.0.1", port: Number(target.port || 5432) });
  socket.setNoDelay(true);
  const timer = setTimeout(() => socket.destroy(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
  try {
    await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
    const messages = read(socket);
    const next = async () => {
      const { value, done } = await messages.next();
      if (done) throw new Error("the server closed the connection");
      if (value.type === "E") throw new PgError(fields(value.body));
      return value;
    };
    const parameters = `user\0${user}\0database\0${decodeURIComponent(target.pathname.slice(1)) || user}\0\0`;
    const startup = Buffer.concat([int32(196_608), Buffer.from(parameters)]);
    socket.write(Buffer.concat([int32(startup.length + 4), startup]));
    await authenticate(socket, next, password);
    while ((await next()).type !== "Z");
    socket.write(message("Q", Buffer.from(`${sql}\0`)));
    const rows = [];
    for (;;) {
      const { type, body } = await next();
      if (type === "D") rows.push(row(body));
      else if (type === "Z") break;
    }
    socket.end(message("X", Buffer.alloc(0)));
    return rows;
  } finally {
    clearTimeout(timer);
    socket.destroy();
  }
}

/**
 * Makes an empty database with a name of its own.
 * @param {string} url a superuser's
 * @param {string} purpose a word for its name
 * @returns {Promise<{url: string, drop: () => Promise<void>}>}
 */
export async function createDatabase(url, purpose) {
  const name = `${purpose}_${crypto.randomBytes(6).toString("hex")}`;
  await query(url, `create database ${name}`);
  const target = new URL(url);
  target.pathname = `/${name}`;
  return { url: target.href, drop: async () => void (await query(url, `drop database if exists ${name} with (force)`)) };
}

async function authenticate(socket, next, password) {
  const nonce = crypto.randomBytes(18).toString("base64");
  const bare = `n=,r=${nonce}`;
  let expected;
  for (;;) {
    const { type, body } = await next();
    if (type !== "R") throw new Error(`unexpected message ${type} during authentication`);
    const kind = body.readInt32BE(0);
    const text = body.subarray(4).toString("utf8");
    if (kind === 0) return;
    if (kind === 10) {
      if (!text.split("\0").includes("SCRAM-SHA-256")) throw new Error("the server wants another SASL mechanism than SCRAM-SHA-256");
      const first = Buffer.from(`n,,${bare}`);
      socket.write(message("p", Buffer.concat([Buffer.from("SCRAM-SHA-256\0"), int32(first.length), first])));
    } else if (kind === 11) {
      // RFC 5802 §3.
      const part = Object.fromEntries(text.split(",").map((item) => [item[0], item.slice(2)]));
      if (!part.r.startsWith(nonce)) throw new Error("the server's nonce isn't ours");
      const salted = crypto.pbkdf2Sync(password, Buffer.from(part.s, "base64"), Number(part.i), 32, "sha256");
      const mac = (key, data) => crypto.createHmac("sha256", key).update(data).digest();
      const clientKey = mac(salted, "Client Key");
      const unproved = `c=biws,r=${part.r}`;
      const signed = `${bare},${text},${unproved}`;
      const signature = mac(crypto.createHash("sha256").update(clientKey).digest(), signed);
      const proof = Buffer.from(clientKey.map((byte, index) => byte ^ signature[index]));
      expected = mac(mac(salted, "Server Key"), signed).toString("base64");
      socket.write(message("p", Buffer.from(`${unproved},p=${proof.toString("base64")}`)));
    } else if (kind === 12) {
      if (text !== `v=${expected}`) throw new Error("the server doesn't know the password's verifier");
    } else {
      throw new Error(`the server wants an authentication method that isn't supported here (${kind})`);
    }
  }
}

async function* read(socket) {
  let pending = Buffer.alloc(0);
  for await (const chunk of socket) {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 5 && pending.length >= 1 + pending.readInt32BE(1)) {
      const end = 1 + pending.readInt32BE(1);
      yield { type: String.fromCharCode(pending[0]), body: pending.subarray(5, end) };
      pending = pending.subarray(end);
    }
  }
}

function int32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

function message(type, body) {
  return Buffer.concat([Buffer.from(type), int32(body.length + 4), body]);
}

function fields(body) {
  return Object.fromEntries(body.toString("utf8").split("\0").filter(Boolean).map((item) => [item[0], item.slice(1)]));
}

function row(body) {
  const values = [];
  let offset = 2;
  for (let count = body.readInt16BE(0); count > 0; count--) {
    const length = body.readInt32BE(offset);
    offset += 4;
    values.push(length < 0 ? null : body.subarray(offset, offset + length).toString("utf8"));
    offset += Math.max(length, 0);
  }
  return values;
}
