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

/** The role that issuers run as: row-level security, which keeps tenants apart, doesn't bind superusers. */
export const ROLE = "countersign";

/**
 * Makes the role that issuers run as, if the server has none; its password is the superuser's.
 * @param {string} url a superuser's
 * @returns {Promise<string>} the same URL with that role
 */
export async function issuerRole(url) {
  const target = new URL(url);
  // One at a time: two that create the role at once would fail. The URL's password is percent-encoded, the statement's quoted.
  const password = decodeURIComponent(target.password).replaceAll("'", "''");
  await query(
    url,
    `do $role$ begin
       perform pg_advisory_xact_lock(hashtext('countersign role'));
       if not exists (select from pg_roles where rolname = '${ROLE}') then
         create role ${ROLE} login password '${password}';
       end if;
     end $role$`,
  );
  target.username = ROLE;
  return target.href;
}

/**
 * Makes an empty database with a name of its own, for an issuer.
 * @param {string} url a superuser's
 * @param {string} purpose a word for its name
 * @returns {Promise<{url: string, superuserUrl: string, drop: () => Promise<void>}>} `url` names the issuer's role
 */
export async function createDatabase(url, purpose) {
  const name = `${purpose}_${crypto.randomBytes(6).toString("hex")}`;
  const role = new URL(await issuerRole(url));
  await query(url, `create database ${name} owner ${ROLE}`);
  const target = new URL(url);
  target.pathname = role.pathname = `/${name}`;
  return {
    superuserUrl: target.href,
    url: role.href,
    drop: async () => void (await query(url, `drop database if exists ${name} with (force)`)),
  };
}
