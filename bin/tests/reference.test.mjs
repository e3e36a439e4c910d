// References that must say what the code says: settings, the database's schema, the log's messages.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";

import { createDatabase, query } from "../lib/database.mjs";
import { migrate } from "../lib/issuer.mjs";
import { root } from "../lib/paths.mjs";
import { testIssuerSettings, testServer } from "../lib/testing.mjs";

const read = (...parts) => fs.readFileSync(path.join(root, ...parts), "utf8");
const sorted = (names) => [...new Set(names)].sort();

/** The names in the first cells of the tables in `text`: every `NAME` in backticks there. */
function firstCells(text) {
  return [...text.matchAll(/^\| (`[^|]*) \|/gm)].flatMap(([, cell]) => [...cell.matchAll(/`([A-Z][A-Z0-9_]*…?)`/g)].map(([, name]) => name));
}

test("docs/reference/configuration.md has the issuer's settings, and no others", () => {
  const code = read("issuer", "src", "config", "mod.rs");
  const list = /const SETTINGS: &\[Setting\] = &\[([\s\S]*?)\n\];/.exec(code);
  assert.ok(list, "the list of settings is where it was");
  const settings = [...list[1].matchAll(/\b(secret|plain)\("([A-Z0-9_]+)"\)/g)].map(([, kind, name]) => ({ name, secret: kind === "secret" }));
  assert.ok(settings.length > 50, `${settings.length} settings`);
  const [issuer] = read("docs", "reference", "configuration.md").split("\n## The edge\n");
  const documented = sorted(firstCells(issuer));
  // One row is about all of the other token's settings.
  const expected = sorted(settings.map(({ name }) => (name.startsWith("NEW_PKCS11_") ? "NEW_PKCS11_…" : name)));
  assert.deepEqual(documented, expected);
  const rows = issuer.split("\n").filter((row) => row.startsWith("| `"));
  for (const { name, secret } of settings) {
    const row = rows.find((text) => firstCells(text).includes(name));
    // Of several settings in one row, the row says it of all, or each is said elsewhere.
    if (row && firstCells(row).length === 1) assert.equal(row.split(" | ")[1].includes("secret"), secret, `whether ${name} is secret`);
  }
});

test("docs/reference/configuration.md has the edge's settings, and no others", () => {
  const sources = ["entry", "hub", "control/src"].flatMap((folder) => fs.readdirSync(path.join(root, "edge-verifier", folder)).filter((name) => /\.(ts|rs)$/.test(name)).map((name) => read("edge-verifier", folder, name)));
  const scripts = sources.join("\n");
  const declared = sorted([...scripts.matchAll(/^\s+(?:readonly )?([A-Z][A-Z0-9_]+)\?: string\b/gm)].map(([, name]) => name));
  assert.ok(declared.length > 10, `${declared.length} variables`);
  const [, edge] = read("docs", "reference", "configuration.md").split("\n## The edge\n");
  const documented = firstCells(edge);
  assert.deepEqual(declared.filter((name) => !documented.includes(name)), []);
  assert.deepEqual(documented.filter((name) => !new RegExp(`\\b${name}\\b`).test(scripts)), []);
});

let database;
before(async () => {
  database = await createDatabase(testServer("TEST_DATABASE_URL"), "reference");
  await migrate(await testIssuerSettings({ databaseUrl: database.url }));
});
after(() => database?.drop());

/** What docs/operations/database.md says of each table: its columns' types, and its indexes. */
function documentedSchema() {
  const tables = new Map();
  for (const section of read("docs", "operations", "database.md").split(/^### /m).slice(1)) {
    const name = /^`([a-z_]+)`/.exec(section)?.[1];
    if (!name) continue;
    const columns = [...section.matchAll(/^\| `([a-z0-9_]+)` \| ([^|]+?) \| ([^|]+?) \|$/gm)].map(([, column, type]) => `${column} ${type}`);
    const indexes = [...section.matchAll(/^- `([a-z0-9_]+)`/gm)].map(([, index]) => index);
    tables.set(name, { columns, indexes: indexes.sort() });
  }
  return Object.fromEntries([...tables].sort(([one], [other]) => (one < other ? -1 : 1)));
}

test("docs/operations/database.md has every table, column, type and index of a migrated database, and no others", async () => {
  const columns = await query(database.superuserUrl, `
    select c.table_name, c.column_name,
           case when c.data_type = 'ARRAY' then ltrim(c.udt_name, '_') || '[]' else replace(c.data_type, 'timestamp with time zone', 'timestamptz') end
           || case c.is_nullable when 'YES' then '?' else '' end
    from information_schema.columns c
    join pg_class on pg_class.oid = format('%I.%I', c.table_schema, c.table_name)::regclass
    where c.table_schema = 'public' and not pg_class.relispartition
    order by c.table_name, c.ordinal_position`);
  const indexes = await query(database.superuserUrl, `
    select tablename, indexname from pg_indexes
    join pg_class on pg_class.oid = format('%I.%I', schemaname, tablename)::regclass
    where schemaname = 'public' and not pg_class.relispartition `);
  const actual = {};
  for (const [table, column, type] of columns) (actual[String(table)] ??= { columns: [], indexes: [] }).columns.push(`${column} ${type}`);
  for (const [table, index] of indexes) actual[String(table)].indexes.push(index);
  const inOrder = Object.fromEntries(Object.entries(actual).sort(([one], [other]) => (one < other ? -1 : 1)).map(([table, { columns, indexes }]) => [table, { columns, indexes: indexes.sort() }]));
  assert.deepEqual(documentedSchema(), inOrder);
});

test("migrations/README.md has every migration, in its order", () => {
  const files = fs.readdirSync(path.join(root, "migrations")).filter((name) => name.endsWith(".sql")).sort();
  const documented = [...read("migrations", "README.md").matchAll(/^\| `(\d+_[a-z0-9_]+\.sql)` \|/gm)].map(([, name]) => name);
  assert.deepEqual(documented, files);
});

test("docs/operations/operations.md quotes messages that the issuer has", () => {
  const reference = read("docs", "operations", "operations.md").split("\n## The log\n")[1]?.split("\n## ")[0] ?? "";
  const quoted = [...reference.matchAll(/^\| (`+)(.+?)\1 \|/gm)].map(([, , message]) => message.trim());
  assert.ok(quoted.length > 20, `${quoted.length} messages`);
  const sources = fs.readdirSync(path.join(root, "issuer", "src"), { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".rs"));
  // A long message is broken over lines by a backslash.
  const code = sources.map((name) => read("issuer", "src", name)).join("\n").replaceAll(/\\\n\s*/g, "");
  assert.deepEqual(quoted.filter((message) => !code.includes(message.replace(/ ?…$/, ""))), []);
});
