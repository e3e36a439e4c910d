// Our issuer as a contestant: a release build, on a Postgres that syncs and a Redis of its own, its settings those of production but for the limits.

import crypto from "node:crypto";

import { createDatabase, query } from "../../database.mjs";
import { basic, request } from "../../http.mjs";
import { bootstrap, issuerEnv, issuerProgram, migrate, startIssuer } from "../../issuer.mjs";
import { Problem, task } from "../../output.mjs";
import { testIssuerSettings } from "../../testing.mjs";
import { askAll } from "./contestants.mjs";
import { assertionForm, makeKeys } from "./keys.mjs";
import { startTimed } from "./starts.mjs";
import { basicOf } from "./wrk.mjs";

export const ALGORITHMS = /** @type {const} */ (["ES256", "EdDSA", "RS256"]);
const TOKEN = "/oauth2/v1/token";
const INTROSPECT = "/oauth2/v1/introspect";
const REVOKE = "/oauth2/v1/revoke";
const SCOPE = "orders:read orders:write";

/** The identifier of the API whose tokens are signed so. */
export const resourceOf = (algorithm) => `https://${algorithm.toLowerCase()}.orders.example`;

/** All the load comes from one address, and wrong secrets are a work: high limits, which are counted all the same, and in Redis. */
const UNLIMITED = {
  RATE_LIMIT_PER_CLIENT: "10000000", RATE_LIMIT_PER_TENANT: "10000000", RATE_LIMIT_PER_IP: "10000000", LOCKOUT_ATTEMPTS: "10000", FREE_TIER_TOKENS_PER_MONTH: "1000000000",
};

/**
 * @typedef {object} OurClient
 * @property {string} id
 * @property {string} secret
 * @property {import("./keys.mjs").Key} key of its other credential; those in even places have one for ES256, the others one for EdDSA
 */

/**
 * @param {{processes: import("../../processes.mjs").Processes, dir: string, profile: string, clientCount: number, keyed: boolean,
 *   postgres: Awaited<ReturnType<typeof import("../../postgres.mjs").startPostgres>>, redis: Awaited<ReturnType<typeof import("../../redis.mjs").startRedis>>}} options
 *   `profile`: of the build; `keyed`: the clients get keys, too
 */
export async function startOurs({ processes, dir, profile, clientCount, keyed, postgres, redis }) {
  // A run that was ended half-way left its own behind.
  for (const [name] of await query(postgres.url, "select datname from pg_database where datname like 'speed\\_%'")) {
    await query(postgres.url, `drop database ${name} with (force)`);
  }
  const database = await createDatabase(postgres.url, "speed");
  const settings = { ...(await testIssuerSettings({ databaseUrl: database.url, redisUrl: redis.url })), profile };
  const url = `http://127.0.0.1:${settings.port}`;
  const complete = {
    ...settings,
    more: {
      // Nothing is published, and keys for all three algorithms sign at once.
      HUB_URL: "", KV_NAMESPACE_ID: "", KV_API_BASE: "", HUB_PUSH_SECRET: "", JWKS_MAX_AGE_SECONDS: "0", COUNTERSIGN_ENV: "production", ISSUER_URL: url,
      // A token that is introspected or revoked mustn't expire meanwhile.
      TOKEN_LIFETIME_SECONDS: "3600", SHUTDOWN_DELAY_SECONDS: "0", TOKEN_SIGNING_ALGORITHM: "ES256", ...UNLIMITED,
    },
  };
  await migrate(complete);
  const admin = await bootstrap(complete, { dir, userDatabase: false });
  let child = await startIssuer(processes, complete, { name: "issuer" });
  const token = await adminToken(url, admin);
  await makeResourceServers(url, token);
  const clients = await task(`${clientCount.toLocaleString("en")} agents of our issuer`, async (progress) => {
    const clients = await makeClients({ url, token, clientCount, keyed, progress });
    return Object.assign(clients, { result: keyed ? "each with a secret and a key" : "each with a secret" });
  });
  await query(database.superuserUrl, "vacuum analyze", { timeoutMs: 600_000 });
  const pids = { issuer: child.pid, postgres: postgres.child.pid, redis: redis.child.pid };
  const program = await issuerProgram(profile);
  return {
    name: "countersign", url, admin, clients, pids, works: worksOf({ url, admin, clients, keyed }),
    /** Ends the process and starts another, with other settings if there are any. @param {Record<string, string>} [others] @returns {Promise<number>} ms until it was ready */
    async restart(others = {}) {
      await processes.stop(child);
      const env = issuerEnv({ ...complete, more: { ...complete.more, ...others } });
      const started = await startTimed(() => processes.start("issuer", program, ["serve"], { env }), `${url}/ready`);
      child = Object.assign(started.child, { url });
      pids.issuer = child.pid;
      return started.ms;
    },
    async end() {
      await processes.stop(child);
      await database.drop();
    },
  };
}

export async function adminToken(url, admin) {
  const answer = await request(`${url}${TOKEN}`, { headers: basic(admin.clientId, admin.clientSecret), form: { grant_type: "client_credentials", resource: url } });
  if (answer.status !== 200) throw new Problem(`the administrator gets no token: ${answer.status} ${answer.text}`);
  return `Bearer ${answer.body.access_token}`;
}

async function makeResourceServers(url, authorization) {
  for (const algorithm of ALGORITHMS) {
    const answer = await request(`${url}/api/v1/resource-servers`, {
      headers: { authorization }, json: { identifier: resourceOf(algorithm), name: algorithm, signing_algorithm: algorithm, token_lifetime_seconds: 3600 },
    });
    if (answer.status !== 201) throw new Problem(`a resource server couldn't be made: ${answer.status} ${answer.text}`);
  }
}

const agentBody = (email) => JSON.stringify({ email, agent_type: "custom", version: "1", owner: "bench", deployment_env: "production", scopes: SCOPE.split(" ") });

/** @returns {Promise<OurClient[]>} */
export async function makeClients({ url, token, clientCount, keyed, progress = (_) => {} }) {
  const json = { authorization: token, type: "application/json" };
  const run = crypto.randomBytes(4).toString("hex");
  progress("registering");
  const ids = await askAll(url, Array.from({ length: clientCount }, (_, place) => ({ ...json, path: "/api/v1/agents", body: agentBody(`client-${run}-${place}@bench.example`) })), {
    expected: 201, pick: (body) => body.agent_id,
  });
  progress("secrets");
  const credentials = (id) => `/api/v1/agents/${id}/credentials`;
  const secrets = await askAll(url, ids.map((id) => ({ ...json, path: credentials(id), body: "{}" })), { expected: 201, pick: (body) => body.client_secret });
  const keys = makeKeys(clientCount);
  if (keyed) {
    progress("keys");
    await askAll(url, ids.map((id, place) => ({ ...json, path: credentials(id), body: JSON.stringify({ kind: "public_key", public_jwk: keys[place].jwk }) })), {
      expected: 201, pick: () => undefined,
    });
  }
  return ids.map((id, place) => ({ id, secret: secrets[place], key: keys[place] }));
}

/** A form as these requests have it. @param {Record<string, string>} fields */
const form = (fields) => new URLSearchParams(fields).toString();

/** A token request by secret; `resource` is another than the benchmark's own. @param {{id: string, secret: string}} client */
export const tokenRequest = ({ id, secret }, algorithm, resource = resourceOf(algorithm)) => ({
  path: TOKEN, authorization: basicOf(id, secret), body: form({ grant_type: "client_credentials", resource }),
});

/** @returns {import("./contestants.mjs").Work[]} */
function worksOf({ url, admin, clients, keyed }) {
  /** Tokens with whose they are; a client may have several. */
  const tokens = async (count) => {
    const holders = Array.from({ length: count }, (_, place) => clients[place % clients.length]);
    const texts = await askAll(url, holders.map((client) => tokenRequest(client, "ES256")), { expected: 200, pick: (body) => body.access_token });
    return holders.map((holder, place) => ({ ...holder, token: texts[place] }));
  };
  const about = (path) => ({ id, secret, token }) => ({ path, authorization: basicOf(id, secret), body: form({ token }) });
  const kept = {};
  /** @type {import("./contestants.mjs").Work[]} */
  const works = ALGORITHMS.map((algorithm) => ({
    name: `token by secret, ${algorithm}`, expected: 200, requests: async () => clients.map((client) => tokenRequest(client, algorithm)),
  }));
  if (keyed) {
    for (const algorithm of /** @type {const} */ (["ES256", "EdDSA"])) {
      works.push({
        name: `token by private_key_jwt, ${algorithm}`, expected: 200, once: true,
        requests: async (count) => {
          const holders = clients.filter(({ key }) => key.algorithm === algorithm);
          return Array.from({ length: count }, (_, place) => ({
            path: TOKEN, body: form({ grant_type: "client_credentials", resource: resourceOf(algorithm), ...assertionForm(holders[place % holders.length], url) }),
          }));
        },
      });
    }
  }
  works.push(
    { name: "introspection of active tokens", expected: 200, requests: async (count) => (kept.active ??= (await tokens(Math.min(count, clients.length))).map(about(INTROSPECT))) },
    {
      name: "introspection of revoked tokens", expected: 200,
      requests: async (count) => {
        if (kept.revoked) return kept.revoked;
        const revoked = await tokens(Math.min(count, clients.length));
        await askAll(url, revoked.map(about(REVOKE)), { expected: 200, pick: () => undefined });
        return (kept.revoked = revoked.map(about(INTROSPECT)));
      },
    },
    { name: "revocation", expected: 200, once: true, requests: async (count) => (await tokens(count)).map(about(REVOKE)) },
    {
      name: "wrong secret", expected: 401,
      // The next one's: of the right form, checksum and all.
      requests: async () => clients.map((client, place) => tokenRequest({ ...client, secret: clients[(place + 1) % clients.length].secret }, "ES256")),
    },
    {
      name: "agent creation", expected: 201, once: true,
      requests: async (count) => {
        const authorization = await adminToken(url, admin);
        const run = crypto.randomBytes(6).toString("hex");
        return Array.from({ length: count }, (_, place) => ({ path: "/api/v1/agents", authorization, type: "application/json", body: agentBody(`made-${run}-${place}@bench.example`) }));
      },
    },
  );
  return works;
}
