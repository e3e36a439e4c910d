// Whether the committed query data (.sqlx/) is what the migrated database says: without sqlx-cli, by compiling the issuer's
// queries against a database and comparing what the macros write.

import fs from "node:fs";
import path from "node:path";

import { migrate } from "./issuer.mjs";
import { task } from "./output.mjs";
import { root, shown, toolsDir } from "./paths.mjs";
import { createDatabase } from "./database.mjs";
import { cargo, targetDir } from "./rust.mjs";
import { testIssuerSettings } from "./testing.mjs";

const COMMITTED = path.join(root, ".sqlx");
const FRESH = path.join(toolsDir, "query-data-fresh");

/**
 * @param {{url: string, logs: string}} options `url`: a superuser's
 * @returns {Promise<{passed: number, failed: number, note?: string}>} a test for each query
 */
export async function checkQueryData({ url, logs }) {
  // Beside cargo's own output, and as long-lived: what is up to date isn't compiled again, and so not written again.
  const written = path.join(await targetDir(), "query-data");
  const database = await createDatabase(url, "sqlx");
  try {
    await migrate(await testIssuerSettings({ databaseUrl: database.url }));
    await task("compile the queries", (progress) =>
      cargo(["check", "--workspace", "--all-targets"], {
        env: { RUSTC_WORKSPACE_WRAPPER: path.join(root, "bin", "lib", "sqlx-rustc.sh"), QUERY_DATABASE_URL: database.url, QUERY_DATA_DIR: written },
        log: path.join(logs, "sqlx.log"),
        failure: "the issuer's queries don't compile against the migrated database",
        progress,
      }),
    );
  } finally {
    await database.drop();
  }

  const fresh = new Map(fs.readdirSync(written).flatMap((crate) => [...queries(path.join(written, crate))]));
  const committed = queries(COMMITTED);
  const problems = [];
  for (const [name, text] of fresh) {
    if (!committed.has(name)) problems.push(`missing: ${sqlOf(text)}`);
    else if (committed.get(name) !== text) problems.push(`differs: ${sqlOf(text)}`);
  }
  const wrong = problems.length;
  for (const [name, text] of committed) if (!fresh.has(name)) problems.push(`no longer used: ${sqlOf(text)}`);
  if (fresh.size === 0) problems.push("the compiler wrote no query data");
  if (problems.length === 0) return { passed: fresh.size, failed: 0 };

  fs.rmSync(FRESH, { recursive: true, force: true });
  fs.mkdirSync(FRESH, { recursive: true });
  for (const [name, text] of fresh) fs.writeFileSync(path.join(FRESH, name), text);
  return {
    passed: fresh.size - wrong,
    failed: problems.length,
    note: `${problems.join("; ")}. To put it right: rm -r .sqlx && cp -r ${shown(FRESH)} .sqlx`,
  };
}

/** @returns {Map<string, string>} the texts of the files, by name */
function queries(folder) {
  const names = fs.existsSync(folder) ? fs.readdirSync(folder).filter((name) => /^query-.*\.json$/.test(name)) : [];
  return new Map(names.map((name) => [name, fs.readFileSync(path.join(folder, name), "utf8")]));
}

function sqlOf(text) {
  return JSON.parse(text).query.replaceAll(/\s+/g, " ").trim().slice(0, 80);
}
