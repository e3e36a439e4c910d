// deploy/, run: without a container engine, but with the very scripts, settings and commands that its files name.

import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";

import { parse } from "yaml";

import { query } from "../../bin/lib/database.mjs";
import { request, until } from "../../bin/lib/http.mjs";
import { issuerProgram } from "../../bin/lib/issuer.mjs";
import { root } from "../../bin/lib/paths.mjs";
import { freePort } from "../../bin/lib/ports.mjs";
import { findServer, startPostgres } from "../../bin/lib/postgres.mjs";
import { Processes, run } from "../../bin/lib/processes.mjs";

const deploy = path.join(root, "deploy");
const compose = parse(fs.readFileSync(path.join(deploy, "compose", "compose.yaml"), "utf8"), { merge: true });
const { services } = compose;
/** The image's and compose.yaml's, which are one: with the program that is here. */
const healthcheck = (port) => {
  const [, command, ...args] = services["issuer-1"].healthcheck.test;
  assert.equal(command, "/usr/local/bin/countersign");
  return run(program, args, { env: { PORT: String(port) }, allowFailure: true });
};

let dir, processes, program, secrets, postgres, redisUrl, PATH;

before(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), "countersign-deploy-"));
  // Postgres, which doesn't run as root, has its folder here too.
  fs.chmodSync(dir, 0o711);
  processes = new Processes(dir);
  program = await issuerProgram();
  // secrets.sh as it is, in a copy of its folder.
  const folder = path.join(dir, "compose");
  fs.cpSync(path.join(deploy, "compose"), folder, { recursive: true, filter: (source) => !/\/(secrets|\.env)$/.test(source) });
  await run(path.join(folder, "secrets.sh"), [], {});
  secrets = path.join(folder, "secrets");
  const server = await findServer();
  PATH = `${server.bin}${path.delimiter}${process.env.PATH}`;
  postgres = await startPostgres(processes, { dir: path.join(dir, "pg"), server, durable: false });
});
after(async () => {
  await processes?.stopAll();
  fs.rmSync(dir, { recursive: true, force: true });
});

const secret = (name) => fs.readFileSync(path.join(secrets, name), "utf8").trim();

test("secrets.sh: all that compose.yaml names, not for everybody, and none is made anew", async () => {
  for (const [name, { file }] of Object.entries(compose.secrets)) {
    assert.equal(file, `secrets/${name}`);
    assert.ok(secret(name).length >= 32, name);
    assert.equal(fs.statSync(path.join(secrets, name)).mode & 0o777, 0o640, name);
  }
  assert.match(fs.readFileSync(path.join(dir, "compose", ".env"), "utf8"), new RegExp(`^SECRETS_GID=${process.getgid?.()}$`, "m"));
  const all = () => Object.keys(compose.secrets).map(secret);
  const first = all();
  assert.equal(new Set(first).size, first.length);
  await run(path.join(dir, "compose", "secrets.sh"), [], {});
  assert.deepEqual(all(), first);
});

test("postgres-init.sh: a role that isn't a superuser, and its database", async () => {
  const url = new URL(postgres.url);
  url.pathname = "/postgres";
  // As an empty server: bin's own set-up has made both already.
  await query(url.href, "drop database countersign with (force)");
  await query(url.href, "drop role countersign");
  await run(path.join(deploy, "compose", "config", "postgres-init.sh"), [], {
    env: { PATH, PGHOST: url.hostname, PGPORT: url.port, PGPASSWORD: url.password, DATABASE_PASSWORD: secret("database_password") },
  });
  assert.deepEqual(await query(url.href, "select rolsuper, rolbypassrls, rolcanlogin from pg_roles where rolname = 'countersign'"), [["f", "f", "t"]]);
  // The URL that secrets.sh made, but for where the server is.
  const made = new URL(secret("database_url"));
  assert.equal(`${made.hostname}:${made.port}`, "postgres:5432");
  made.hostname = url.hostname;
  made.port = url.port;
  assert.deepEqual(await query(made.href, "select current_user::text, current_database()::text"), [["countersign", "countersign"]]);
  fs.writeFileSync(path.join(secrets, "database_url"), `${made.href}\n`);
});

test("what goes before an image's own entrypoint hands on what it read, and the command", async () => {
  const bin = path.join(dir, "bin");
  fs.mkdirSync(bin);
  const entrypoint = path.join(bin, "docker-entrypoint.sh");
  fs.writeFileSync(entrypoint, '#!/bin/sh\necho "$DATABASE_PASSWORD $*"\n', { mode: 0o755 });
  const certificate = path.join(dir, "certificate.yaml");
  const started = async (name, env) => {
    const [command, ...args] = [...services[name].entrypoint, ...services[name].command].map((word) =>
      word.replaceAll("$$", "$").replace("/run/secrets", secrets).replace("/tmp/certificate.yaml", certificate).replace("/bin/prometheus", entrypoint));
    return (await run(command, args, { env: { PATH: `${bin}${path.delimiter}${process.env.PATH}`, ...env } })).stdout.trim();
  };
  assert.equal(await started("postgres", {}), `${secret("database_password")} postgres -c shared_buffers=256MB`);
  assert.equal(await started("prometheus", { ISSUER_HOST: "id.example.com" }), services.prometheus.command.join(" "));
  assert.deepEqual(parse(fs.readFileSync(certificate, "utf8")), [{ targets: ["id.example.com:443"] }]);
});

test("redis-start.sh: behind the password, refuses to evict, keeps a log", async () => {
  const port = await freePort();
  const folder = path.join(dir, "redis");
  fs.mkdirSync(folder);
  const base = fs.readFileSync(path.join(deploy, "compose", "config", "redis.conf"), "utf8");
  fs.writeFileSync(path.join(folder, "base.conf"), base.replace("port 6379", `port ${port}`).replace("bind * -::*", "bind 127.0.0.1").replace("dir /data", `dir ${folder}`));
  const script = path.join(deploy, "compose", "config", "redis-start.sh");
  processes.start("redis", "sh", [script], {
    cwd: folder, env: { PATH: process.env.PATH, REDIS_RUN: folder, REDIS_BASE: path.join(folder, "base.conf"), REDIS_PASSWORD_FILE: path.join(secrets, "redis_password") },
  });
  // The healthcheck of compose.yaml, word by word but for the port and the secret's place.
  const [, check] = services.redis.healthcheck.test;
  const command = check.replaceAll("$$", "$").replace("/run/secrets", secrets).replace("redis-cli", `redis-cli -p ${port}`);
  assert.ok(await until(async () => (await run("sh", ["-c", command], { allowFailure: true })).status === 0, { timeoutMs: 15_000 }), "redis is healthy");
  assert.notEqual((await run("sh", ["-c", command.replace("redis_password", "admin_token")], { allowFailure: true })).status, 0, "another password isn't taken");
  assert.equal(fs.statSync(path.join(folder, "redis.conf")).mode & 0o077, 0);
  const { stdout } = await run("redis-cli", ["-p", String(port), "config", "get", "maxmemory-policy"], { env: { ...process.env, REDISCLI_AUTH: secret("redis_password") } });
  assert.match(stdout, /noeviction/);
  redisUrl = secret("redis_url").replace("redis:6379", `127.0.0.1:${port}`);
  fs.writeFileSync(path.join(secrets, "redis_url"), `${redisUrl}\n`);
});

/** A service's environment, with its secrets where they are here, and names filled in. */
function environment(name, more = {}) {
  const filled = Object.entries(services[name].environment ?? {}).map(([key, value]) => [
    key, value.replace("/run/secrets", secrets).replace(/\$\{ISSUER_HOST[^}]*\}/, "id.example.com").replace(/\$\{DEFAULT_AUDIENCE[^}]*\}/, "https://api.example.com"),
  ]);
  return { PATH, ...Object.fromEntries(filled), ...more };
}

test("migrate, bootstrap, both issuers at once, in production; probes and healthcheck; backup; stop", async () => {
  await run(program, services.migrate.command, { env: environment("migrate") });
  const { stdout } = await run(program, ["bootstrap", "--json"], { env: environment("cli") });
  assert.ok(JSON.parse(stdout).client_secret);

  const started = [];
  for (const name of ["issuer-1", "issuer-2"]) {
    const [port, admin] = [String(await freePort()), `127.0.0.1:${await freePort()}`];
    const env = environment(name, { HOST: "127.0.0.1", PORT: port, ADMIN_ADDRESS: admin, SHUTDOWN_DELAY_SECONDS: "3" });
    started.push({ name, port, admin, child: processes.start(name, program, services[name].command, { env }) });
  }
  const healthy = async (port) => (await healthcheck(port)).status === 0;
  for (const { name, port, admin, child } of started) {
    assert.ok(await until(async () => child.ended !== undefined || healthy(port), { timeoutMs: 60_000 }), `${name} is healthy: ${child.ended}`);
    assert.equal(child.ended, undefined, fs.readFileSync(child.log, "utf8").split("\n").slice(-4).join("\n"));
    // What Kubernetes asks, and what the proxy does.
    for (const probe of ["/livez", "/readyz"]) assert.equal((await request(`http://${admin}${probe}`)).status, 200, probe);
    const ready = await request(`http://127.0.0.1:${port}/ready`);
    assert.equal(ready.body.checks.hot_state.kind, "redis");
    assert.equal((await request(`http://${admin}/metrics`)).status, 401, "metrics are for those with the token");
    assert.equal((await request(`http://${admin}/metrics`, { headers: { authorization: `Bearer ${secret("admin_token")}` } })).status, 200);
  }

  const backups = path.join(dir, "backups");
  fs.mkdirSync(backups);
  await run(program, ["backup", "--out", `${backups}/`, "--keep", "14", "--json"], { env: environment("cli") });
  assert.equal(fs.readdirSync(backups).filter((name) => name.endsWith(".sealed")).length, 1);

  const [first, second] = started;
  process.kill(first.child.pid, compose.services["issuer-1"].stop_signal ?? "SIGTERM");
  first.child.stopping = true;
  assert.ok(await until(async () => !(await healthy(first.port)), { timeoutMs: 2_500, everyMs: 20 }), "not healthy, while it stops");
  assert.equal(await first.child.exit, "exited with status 0");
  assert.ok(await healthy(second.port), "the other one serves");
});

test("the healthcheck: only 200 is healthy, and nobody there isn't", async () => {
  let status = 200;
  const server = http.createServer((_, response) => response.writeHead(status).end("{}"));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const code = async () => (await healthcheck(port)).status;
  assert.equal(await code(), 0);
  for (status of [503, 404, 500]) assert.equal(await code(), 1);
  await new Promise((resolve) => server.close(resolve));
  assert.equal(await code(), 1);
});
