// The issuer's process: building it, its settings, its commands.

import fs from "node:fs";
import path from "node:path";

import { request, until } from "./http.mjs";
import { Problem } from "./output.mjs";
import { toolsDir } from "./paths.mjs";
import { run } from "./processes.mjs";
import { cargo, targetDir } from "./rust.mjs";
import { writeSecret } from "./secrets.mjs";

/** Builds the binary `countersign`; `profile` is cargo's `dev` or `release`. */
export async function buildIssuer(progress, profile = "dev") {
  return cargo(["build", "-p", "countersign-issuer", "--bin", "countersign", "--profile", profile], {
    log: path.join(toolsDir, "build-issuer.log"),
    failure: "the issuer doesn't compile",
    progress,
  });
}

/** @returns {Promise<string>} the built binary */
export async function issuerProgram(profile = "dev") {
  return path.join(await targetDir(), profile === "dev" ? "debug" : profile, "countersign");
}

/**
 * @typedef {object} IssuerSettings
 * @property {string} databaseUrl
 * @property {string} [redisUrl] absent: the in-process hot state
 * @property {string} masterKey base64 of 32 bytes
 * @property {number} port
 * @property {string} adminAddress
 * @property {string} audience the first resource server's identifier
 * @property {string} edgeUrl where the hub and the objects' store are
 * @property {string} hubPushSecret
 * @property {string} [profile] of the binary; default `dev`
 * @property {string} [issuerUrl] default `http://127.0.0.1:{port}`
 * @property {Record<string, string>} [more] further settings, by their names in the environment
 */

/** The id of wrangler.toml's namespace; miniflare and wrangler keep local objects under it. */
export const KV_NAMESPACE_ID = "countersign-revocation-objects";

/** @param {IssuerSettings} settings */
export const issuerUrl = (settings) => settings.issuerUrl ?? `http://127.0.0.1:${settings.port}`;

/**
 * The issuer's environment: what it needs of ours, and nothing of the user's own settings beside log level and format.
 * @param {IssuerSettings} settings
 * @returns {NodeJS.ProcessEnv}
 */
export function issuerEnv(settings) {
  const kept = Object.fromEntries(["PATH", "HOME", "TMPDIR", "LANG", "TZ", "LOG_LEVEL", "LOG_FORMAT", "RUST_BACKTRACE", "TOKEN_LIFETIME_SECONDS"].flatMap((name) =>
    process.env[name] === undefined ? [] : [[name, process.env[name]]],
  ));
  return {
    ...kept,
    COUNTERSIGN_ENV: "development",
    // Its output goes to a file.
    NO_COLOR: "1",
    DATABASE_URL: settings.databaseUrl,
    ...(settings.redisUrl && { REDIS_URL: settings.redisUrl }),
    MASTER_KEY: settings.masterKey,
    ISSUER_URL: issuerUrl(settings),
    DEFAULT_AUDIENCE: settings.audience,
    HOST: "127.0.0.1",
    PORT: String(settings.port),
    ADMIN_ADDRESS: settings.adminAddress,
    KV_API_BASE: `${settings.edgeUrl}/cdn-cgi/local/explorer/api`,
    KV_NAMESPACE_ID,
    HUB_URL: settings.edgeUrl,
    HUB_PUSH_SECRET: settings.hubPushSecret,
    SHUTDOWN_TIMEOUT_SECONDS: "5",
    ...settings.more,
  };
}

/**
 * Runs one of the issuer's commands to its end.
 * @param {string[]} args
 * @param {IssuerSettings} settings
 * @param {string} failure the one line if it fails
 * @returns {Promise<string>} what it printed
 */
export async function issuerCommand(args, settings, failure) {
  const { status, stdout, stderr } = await run(await issuerProgram(settings.profile), args, {
    env: issuerEnv(settings),
    allowFailure: true,
  });
  if (status !== 0) {
    // Only what it printed as an error: bootstrap's output proper holds a secret.
    const said = stderr.trim().split("\n").map((text) => text.replace(/^countersign: /, "").trim()).filter(Boolean);
    throw new Problem(`${failure}: ${said.join("; ") || `countersign ${args[0]} exited with status ${status}`}`);
  }
  return stdout;
}

/** Creates or updates the tables. */
export const migrate = (settings) => issuerCommand(["migrate"], settings, "the database couldn't be migrated");

/**
 * Makes the first tenant and its administrator where there is none, and remembers the administrator's secret, which is shown once.
 * @param {IssuerSettings} settings
 * @param {{dir: string, userDatabase: boolean}} options `dir`: the state directory; `userDatabase`: DATABASE_URL is the user's
 * @returns {Promise<{tenantId: string, clientId: string, clientSecret: string, created: boolean, file: string}>}
 */
export async function bootstrap(settings, { dir, userDatabase }) {
  const text = await issuerCommand(["bootstrap", "--tenant", "Development", "--json"], settings, "the first tenant couldn't be made");
  const { tenant_id: tenantId, client_id: clientId, client_secret: secret } = JSON.parse(text);
  const file = path.join(dir, "secrets", `administrator-${clientId}.env`);
  if (secret) {
    writeSecret(file, `ADMIN_CLIENT_ID=${clientId}\nADMIN_CLIENT_SECRET=${secret}\n`);
    return { tenantId, clientId, clientSecret: secret, created: true, file };
  }
  const given = process.env.ADMIN_CLIENT_SECRET;
  if (given) writeSecret(file, `ADMIN_CLIENT_ID=${clientId}\nADMIN_CLIENT_SECRET=${given}\n`);
  const kept = fs.existsSync(file) && /^ADMIN_CLIENT_SECRET=(.+)$/m.exec(fs.readFileSync(file, "utf8"))?.[1];
  if (!kept) {
    throw new Problem("this database was bootstrapped before, and its administrator's secret, shown once, isn't kept here", {
      fix: userDatabase
        ? `give the secret of client ${clientId} once: ADMIN_CLIENT_SECRET=… bin/dev; or use an empty database`
        : `begin with an empty database: rm -r ${dir}`,
    });
  }
  return { tenantId, clientId, clientSecret: kept, created: false, file };
}

/** The public keys that the edge trusts revocation heads by. @returns {Promise<string>} a JWK Set */
export async function revocationKeys(settings) {
  const text = await issuerCommand(["keys", "export-public", "--purpose", "revocation"], settings, "the revocation key couldn't be exported");
  return JSON.stringify(JSON.parse(text));
}

/**
 * Starts `countersign serve`.
 * @param {import("./processes.mjs").Processes} processes
 * @param {IssuerSettings} settings
 * @param {{name?: string}} [options] `name`: of its log
 * @returns {Promise<import("./processes.mjs").Child & {url: string}>} once it answers
 */
export async function startIssuer(processes, settings, { name = "issuer" } = {}) {
  const child = processes.start(name, await issuerProgram(settings.profile), ["serve"], { env: issuerEnv(settings) });
  const url = `http://127.0.0.1:${settings.port}`;
  const answers = await until(async () => child.ended || (await request(`${url}/health`)).status === 200, { timeoutMs: 60_000 });
  if (!answers || child.ended) {
    await processes.stop(child);
    throw child.problem();
  }
  return Object.assign(child, { url });
}
