// docs/operations: every command that needs no cloud account, run as it stands against a system of this test's own.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";

import { query } from "../lib/database.mjs";
import { pageCommands, runPage } from "../lib/guide.mjs";
import { request, until } from "../lib/http.mjs";
import { root } from "../lib/paths.mjs";
import { findServer } from "../lib/postgres.mjs";
import { findRedis } from "../lib/redis.mjs";
import { startSystem, testServer } from "../lib/testing.mjs";

const folder = path.join(root, "docs", "operations");
const OPERATOR_SECRET = "operations-test-operator-secret-0123456789";

/** Databases that the pages make, and that have to be gone before and after. */
const MADE = ["countersign_restored", "countersign_drill"];

/** What every incident's page says, in this order. */
const PARTS = ["How it shows", "What to look at", "What to do", "What not to do", "How to see that it is over"];

/** After the recovery the database of before is one that edges go back from: that page is the last. */
const LAST = "recovery.md";

const pages = fs
  .readdirSync(folder, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".md"))
  .sort((one, other) => Number(one === LAST) - Number(other === LAST) || one.localeCompare(other))
  .map((name) => ({ name, text: fs.readFileSync(path.join(folder, name), "utf8") }));

let system;
let variables;
const executed = { commands: 0, cloud: 0 };

async function dropMade() {
  for (const name of MADE) await query(system.superuserUrl, `drop database if exists ${name} with (force)`);
}

before(async () => {
  system = await startSystem({ redis: true, edge: { OPERATOR_SECRET } });
  await dropMade();
  const server = await findServer();
  const redis = findRedis();
  const programs = [server?.bin, redis && path.dirname(redis)].filter(Boolean);
  const redisUrl = new URL(testServer("TEST_REDIS_URL"));
  const backups = path.join(system.dir, "backups");
  fs.mkdirSync(backups);
  variables = {
    ADMIN_URL: `http://${system.issuer.settings.adminAddress}`,
    ...databaseServices(system), OPERATOR_SECRET, BACKUPS: backups,
    REDIS_HOST: redisUrl.hostname, REDIS_PORT: redisUrl.port, REDISCLI_AUTH: decodeURIComponent(redisUrl.password),
    ADMIN_CLIENT_ID: system.admin.clientId, ADMIN_CLIENT_SECRET: system.admin.clientSecret,
  };
  process.env.PATH = [process.env.PATH, ...programs].join(path.delimiter);
});
after(async () => {
  if (!system) return;
  try {
    await dropMade();
  } finally {
    await system.stop();
  }
  console.log(`docs/operations: ${executed.commands} commands executed, ${executed.cloud} need a cloud account`);
});

/** Where `psql` finds the database without its password in a command line: the files that the index of the pages describes. */
function databaseServices({ dir, databaseUrl, superuserUrl }) {
  const files = { PGSERVICEFILE: path.join(dir, "pg_service.conf"), PGPASSFILE: path.join(dir, "pgpass") };
  const places = Object.entries({ countersign: databaseUrl, "countersign-superuser": superuserUrl }).map(([name, url]) => {
    const { hostname: host, port, pathname, username, password } = new URL(url);
    return { name, host, port: port || "5432", database: pathname.slice(1), user: decodeURIComponent(username), password: decodeURIComponent(password) };
  });
  const services = places.map(({ name, host, port, database, user }) => `[${name}]\nhost=${host}\nport=${port}\ndbname=${database}\nuser=${user}\n`);
  fs.writeFileSync(files.PGSERVICEFILE, services.join("\n"));
  const escaped = (text) => text.replaceAll(/[\\:]/g, "\\$&");
  fs.writeFileSync(files.PGPASSFILE, places.map(({ host, port, user, password }) => `${host}:${port}:*:${user}:${escaped(password)}\n`).join(""), { mode: 0o600 });
  return files;
}

/** A page may have stopped the issuer: its own commands say that it may. */
async function issuerRuns() {
  const ready = async () => (await request(`${system.issuer.url}/ready`)).status === 200;
  if (await ready().catch(() => false)) return;
  await system.issuer.stop();
  await system.issuer.start();
  assert.ok(await until(ready, { timeoutMs: 20_000 }), "the issuer is ready");
}

for (const { name, text } of pages) {
  // The page of a deployment's own machinery is tried where that is.
  if (name === "deploy.md") continue;
  test(`docs/operations/${name}`, async () => {
    await issuerRuns();
    const { commands, cloud } = await runPage(text, system, variables);
    executed.commands += commands;
    executed.cloud += cloud;
  });
}

test("the incidents' pages have all their parts, and the runbook names each of them", () => {
  const incidents = pages.filter(({ name }) => name.startsWith(`runbook${path.sep}`));
  assert.ok(incidents.length >= 17, `${incidents.length} incidents`);
  const index = fs.readFileSync(path.join(folder, "runbook.md"), "utf8");
  for (const { name, text } of incidents) {
    const parts = [...text.matchAll(/^## (.+)$/gm)].map(([, title]) => title);
    assert.deepEqual(parts, PARTS, name);
    assert.match(text, /^\*\*P[0-3]/m, `${name} names its severity`);
    assert.ok(index.includes(`(${name})`), `runbook.md names ${name}`);
    assert.ok(pageCommands(text).commands > 0, `${name} has commands`);
  }
});

/** GitHub's anchor of a heading. */
const anchor = (heading) => heading.toLowerCase().replaceAll(/[^\p{L}\p{N}\s_-]/gu, "").trim().replaceAll(/\s/g, "-");

test("no command shows a secret to everybody on the machine", () => {
  for (const { name, text } of pages) {
    for (const command of [...pageCommands(text).blocks].flatMap((block) => block.replaceAll("\\\n", " ").split("\n"))) {
      // In the shell's own echo it is in no process; curl overwrites what follows -u.
      const shown = command.replaceAll(/<\(echo [^)]*\)|curl [^|]*?-u "[^"]*"|\b[A-Z_]+=\$\{?\w+\S*/g, "").replace(/^export .*/, "");
      assert.doesNotMatch(shown, /\$\{?\w*(?:SECRET|TOKEN|PASSWORD|_URL\b|KEY)(?<!ADMIN_URL|ISSUER_URL|HUB_URL|UPSTREAM_URL)/, `${name}: ${command}`);
    }
  }
});

test("every link leads somewhere", () => {
  const broken = [];
  for (const { name, text } of pages) {
    const prose = text.replaceAll(/^```[\s\S]*?^```$/gm, "");
    for (const [, target] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue;
      const [file, heading] = target.split("#");
      const found = file ? path.resolve(folder, path.dirname(name), file) : path.join(folder, name);
      if (!fs.existsSync(found)) broken.push(`${name}: ${target}`);
      else if (heading && found.endsWith(".md")) {
        const headings = [...fs.readFileSync(found, "utf8").matchAll(/^#+ (.+)$/gm)].map(([, title]) => anchor(title));
        if (!headings.includes(heading)) broken.push(`${name}: ${target}`);
      }
    }
  }
  assert.deepEqual(broken, []);
});

test("metrics that are named are there", () => {
  const known = fs.readFileSync(path.join(root, "docs", "reference", "metrics.md"), "utf8");
  for (const { name, text } of pages) {
    for (const [metric] of text.matchAll(/\b(?:countersign|http_request|token_issuance|token_validation|database_connections|memory_usage|background_job)[a-z_]*_(?:total|seconds|bytes|rows|up|leader|listeners|failing|active|idle|keys|rotation|tenants)\b/g)) {
      assert.ok(known.includes(`\`${metric}\``), `${name}: ${metric}`);
    }
  }
});

test("a command with a placeholder, or in a block that nobody runs, is refused", () => {
  assert.throws(() => pageCommands("```sh\ncountersign revoke --agent <agent id>\n```\n"), /placeholder/);
  assert.throws(() => pageCommands("```sh cloud\nwrangler secret put YOUR_SECRET\n```\n"), /placeholder/);
  assert.throws(() => pageCommands("```bash\nls\n```\n"), /nobody runs/);
  assert.deepEqual(pageCommands("```sh\n# why\nls \\\n  -l\ndate\n```\n\n```sh cloud\nwrangler tail\n```\n"), { blocks: ["# why\nls \\\n  -l\ndate\n"], commands: 2, cloud: 1 });
});

test("alerts.md has the alerts of deploy/prometheus/alerts.yaml, and no others", () => {
  const rules = [...fs.readFileSync(path.join(root, "deploy", "prometheus", "alerts.yaml"), "utf8").matchAll(/^\s+- alert: (\w+)\n[\s\S]*?severity: (\w+)/gm)].map(([, name, severity]) => ({ name, severity }));
  assert.ok(rules.length > 20, `${rules.length} rules`);
  const rows = [...fs.readFileSync(path.join(folder, "alerts.md"), "utf8").matchAll(/^\| `(\w+)` \|.*\| P([0-3]) \|/gm)].map(([, name, severity]) => ({ name, severity: Number(severity) <= 1 ? "page" : "ticket" }));
  const inOrder = (list) => list.map(({ name, severity }) => `${name} ${severity}`).sort();
  assert.deepEqual(inOrder(rows), inOrder(rules));
});
