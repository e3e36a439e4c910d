// oidc-provider from npm as a contestant: in one process, its clients and tokens in that process's memory. With a store of its own behind it, as its
// documentation demands for production, every opaque token and every assertion would cost a write more.

import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";

import { modernNode } from "../../npm.mjs";
import { root } from "../../paths.mjs";
import { freePort } from "../../ports.mjs";
import { writeSecret } from "../../secrets.mjs";
import { askAll } from "./contestants.mjs";
import { assertionForm, makeKeys } from "./keys.mjs";
import { ALGORITHMS, resourceOf } from "./ours.mjs";
import { startTimed } from "./starts.mjs";
import { basicOf } from "./wrk.mjs";

const SCOPE = "orders:read orders:write";

export const version = () => JSON.parse(fs.readFileSync(path.join(root, "node_modules", "oidc-provider", "package.json"), "utf8")).version;

function signingKeys() {
  const pairs = {
    ES256: () => crypto.generateKeyPairSync("ec", { namedCurve: "P-256" }), EdDSA: () => crypto.generateKeyPairSync("ed25519"),
    RS256: () => crypto.generateKeyPairSync("rsa", { modulusLength: 2048 }),
  };
  // The pairs are held meanwhile: see makeKey.
  const made = ALGORITHMS.map((alg) => ({ alg, pair: pairs[alg]() }));
  return { keys: made.map(({ alg, pair }) => ({ ...pair.privateKey.export({ format: "jwk" }), alg, use: "sig", kid: alg })) };
}

/**
 * @param {{processes: import("../../processes.mjs").Processes, dir: string, clientCount: number, keyed: boolean}} options
 * @returns {Promise<import("./contestants.mjs").Contestant>}
 */
export async function startOidcProvider({ processes, dir, clientCount, keyed }) {
  const bySecret = Array.from({ length: clientCount }, () => ({ id: crypto.randomUUID(), secret: crypto.randomBytes(32).toString("base64url") }));
  // A client has one method there.
  const byKey = keyed ? makeKeys(clientCount).map((key) => ({ id: crypto.randomUUID(), key })) : [];
  const common = { grant_types: ["client_credentials"], redirect_uris: [], response_types: [], scope: SCOPE };
  const clients = [
    ...bySecret.map(({ id, secret }) => ({ ...common, client_id: id, client_secret: secret, token_endpoint_auth_method: "client_secret_basic" })),
    ...byKey.map(({ id, key }) => ({
      ...common, client_id: id, token_endpoint_auth_method: "private_key_jwt", token_endpoint_auth_signing_alg: key.algorithm,
      jwks: { keys: [{ ...key.jwk, alg: key.algorithm, use: "sig" }] },
    })),
  ];
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const file = path.join(dir, "secrets", "oidc-provider.json");
  writeSecret(file, JSON.stringify({ port, clients, jwks: signingKeys(), resources: Object.fromEntries(ALGORITHMS.map((alg) => [resourceOf(alg), alg])) }));
  const script = path.join(import.meta.dirname, "oidc-provider-server.mjs");
  const start = () => startTimed(
    () => processes.start("oidc-provider", modernNode(), [script, file], { env: { ...process.env, NODE_ENV: "production" } }), `${url}/.well-known/openid-configuration`,
  );
  let { child } = await start();
  const pids = { server: child.pid };
  return {
    name: "oidc-provider", url, pids, works: worksOf({ url, bySecret, byKey }),
    async restart() {
      await processes.stop(child);
      const started = await start();
      ({ child } = started);
      pids.server = child.pid;
      return started.ms;
    },
  };
}

/** @param {Record<string, string>} fields */
const form = (fields) => new URLSearchParams(fields).toString();

/** @returns {import("./contestants.mjs").Work[]} */
function worksOf({ url, bySecret, byKey }) {
  const tokenRequest = ({ id, secret }, algorithm) => ({
    path: "/token", authorization: basicOf(id, secret),
    body: form({ grant_type: "client_credentials", scope: SCOPE, ...(algorithm && { resource: resourceOf(algorithm) }) }),
  });
  const tokens = async (count) => {
    const holders = Array.from({ length: count }, (_, place) => bySecret[place % bySecret.length]);
    const texts = await askAll(url, holders.map((client) => tokenRequest(client)), { expected: 200, pick: (body) => body.access_token });
    return holders.map((holder, place) => ({ ...holder, token: texts[place] }));
  };
  const about = (path) => ({ id, secret, token }) => ({ path, authorization: basicOf(id, secret), body: form({ token }) });
  const kept = {};
  /** @type {import("./contestants.mjs").Work[]} */
  const works = [
    ...ALGORITHMS.map((algorithm) => ({
      name: `token by secret, ${algorithm}`, expected: 200, requests: async () => bySecret.map((client) => tokenRequest(client, algorithm)),
    })),
    { name: "token by secret, opaque", expected: 200, requests: async () => bySecret.map((client) => tokenRequest(client)) },
  ];
  if (byKey.length > 0) {
    for (const algorithm of /** @type {const} */ (["ES256", "EdDSA"])) {
      works.push({
        name: `token by private_key_jwt, ${algorithm}`, expected: 200, once: true,
        requests: async (count) => {
          const holders = byKey.filter(({ key }) => key.algorithm === algorithm);
          return Array.from({ length: count }, (_, place) => ({
            path: "/token",
            body: form({ grant_type: "client_credentials", scope: SCOPE, resource: resourceOf(algorithm), ...assertionForm(holders[place % holders.length], url) }),
          }));
        },
      });
    }
  }
  works.push(
    {
      name: "introspection of active tokens", expected: 200,
      requests: async (count) => (kept.active ??= (await tokens(Math.min(count, bySecret.length))).map(about("/token/introspection"))),
    },
    {
      name: "introspection of revoked tokens", expected: 200,
      requests: async (count) => {
        if (kept.revoked) return kept.revoked;
        const revoked = await tokens(Math.min(count, bySecret.length));
        await askAll(url, revoked.map(about("/token/revocation")), { expected: 200, pick: () => undefined });
        return (kept.revoked = revoked.map(about("/token/introspection")));
      },
    },
    { name: "revocation", expected: 200, once: true, requests: async (count) => (await tokens(count)).map(about("/token/revocation")) },
    {
      name: "wrong secret", expected: 401,
      requests: async () => bySecret.map((client, place) => tokenRequest({ ...client, secret: bySecret[(place + 1) % bySecret.length].secret }, "ES256")),
    },
  );
  return works;
}
