// Statements on a Postgres, for starting servers and for tests.

import crypto from "node:crypto";

/**
 * Runs one statement on a connection of its own.
 * @param {string} url `postgres://user:password@host:port/database`
 * @param {string} sql
 * @param {{timeoutMs?: number}} [options]
 * @returns {Promise<(string | null)[][]>} the rows, as text
 * @throws what `pg` throws: for a refusal of the server a `DatabaseError` with its `code`
 */
export async function query(url, sql, { timeoutMs = 10_000 } = {}) {
  // Late: bin/dev loads this file before npm's packages are there.
  const { default: pg } = await import("pg");
  const client = new pg.Client({
    connectionString: url, connectionTimeoutMillis: timeoutMs, query_timeout: timeoutMs, types: { getTypeParser: () => String },
  });
  // A connection that breaks is told by what it was to do.
  client.on("error", () => {});
  try {
    await client.connect();
    const { rows } = await client.query({ text: sql, rowMode: "array" });
    return rows;
  } finally {
    await client.end();
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
