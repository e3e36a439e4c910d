// Rotations under load: two issuers, the edge in workerd, and other makers' JWT libraries with ordinary JWKS caching. No valid token is refused.
//
// ROTATION_REVOCATIONS: how many keys are revoked, one after the other. ROTATION_MAX_AGE_SECONDS: how long the JWK Set may be kept, and so how long a key is published before it signs. Short by default, to be over soon; with 31 or
// more the libraries are held to it at their defaults, too, which don't ask again within 30 seconds.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from "jose";
import { query } from "../../../bin/lib/database.mjs";
import { edgeReady } from "../../../bin/lib/edge.mjs";
import { basic, request, until } from "../../../bin/lib/http.mjs";
import { issuerCommand, revocationKeys } from "../../../bin/lib/issuer.mjs";
import { pythonWithPyJwt } from "../../../bin/lib/python.mjs";
import { AUDIENCE, startSystem } from "../../../bin/lib/testing.mjs";

const MAX_AGE = Number(process.env.ROTATION_MAX_AGE_SECONDS ?? 5);
/** What jose and PyJWT wait between two fetches for unknown kids, at their defaults. */
const LIBRARIES_COOLDOWN = 30;
/** How long tokens live: long enough to be used across a change of keys. */
const LIFETIME = 30;
/** Loops that get tokens and have them verified. */
const WORKERS = 4;
/** The longest that a revocation of a key may take to the edge. */
const REVOKED_MS = 5_000;
const REVOCATIONS = Number(process.env.ROTATION_REVOCATIONS ?? 5);

const seconds = () => Date.now() / 1000;
const claimsOf = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString());

/** The system under test, and an agent of its. */
let system;
let client;

async function start(signing) {
  system = await startSystem({
    redis: true,
    replicas: 2,
    issuer: { JWKS_MAX_AGE_SECONDS: String(MAX_AGE), TOKEN_LIFETIME_SECONDS: String(LIFETIME), KEY_ROTATION_DAYS: "0", TOKEN_SIGNING_ALGORITHM: signing },
  });
  // Issuers remember for how long others may keep the JWK Set, and begin with five minutes. Nobody was told so here.
  await query(system.superuserUrl, `update key_state set jwks_max_age_seconds = ${MAX_AGE}`);
  client = await newClient();
}

async function newClient() {
  const { clientId, clientSecret } = system.admin;
  const management = await token({ clientId, clientSecret }, { resource: system.issuer.url });
  const headers = { authorization: `Bearer ${management}` };
  const json = {
    email: "rotation@agents.example", agent_type: "router", version: "1.0.0", owner: "tests", deployment_env: "development", scopes: ["orders:read"],
  };
  const agent = await request(`${system.issuer.url}/api/v1/agents`, { headers, json });
  assert.equal(agent.status, 201, agent.text);
  const url = `${system.issuer.url}/api/v1/agents/${agent.body.agent_id}/credentials`;
  const { status, text, body } = await request(url, { headers, json: {} });
  assert.equal(status, 201, text);
  return { clientId: body.client_id, clientSecret: body.client_secret };
}

async function token(from = client, form = {}) {
  const response = await request(`${system.issuer.url}/oauth2/v1/token`, {
    headers: basic(from.clientId, from.clientSecret),
    form: { grant_type: "client_credentials", ...form },
  });
  assert.equal(response.status, 200, response.text);
  return response.body.access_token;
}

const atTheEdge = (accessToken) => request(`${system.edge.url}/orders/42`, { headers: { authorization: `Bearer ${accessToken}` } });

/** Which of the balancer's counts is whose. */
const fetches = (agent) => system.balancer.jwksRequests(agent);

/** Verifiers by name: each says why it refuses a token, or nothing. */
function verifiers() {
  const url = `${system.issuer.url}/.well-known/jwks.json`;
  const joseOf = (name, options) => {
    const keys = createRemoteJWKSet(new URL(url), { ...options, headers: { "user-agent": `jose ${name}` } });
    return async (accessToken) => {
      try {
        await jwtVerify(accessToken, keys, { issuer: system.issuer.url, audience: AUDIENCE, typ: "at+jwt", clockTolerance: 1 });
      } catch (error) {
        return `${error.code}: ${error.message}`;
      }
    };
  };
  const children = [];
  const pyJwtOf = (name, lifespan, cooldown) => {
    const script = new URL("pyjwt-verifier.py", import.meta.url).pathname;
    const child = spawn(pythonWithPyJwt(), [script, url, system.issuer.url, AUDIENCE, lifespan, cooldown, `PyJWT ${name}`], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    children.push(child);
    const waiting = [];
    createInterface({ input: child.stdout }).on("line", (line) => waiting.shift()(JSON.parse(line)));
    child.once("exit", () => waiting.splice(0).forEach((answer) => answer({ ok: false, error: "the process is gone" })));
    return async (accessToken) => {
      const answer = await new Promise((resolve) => {
        waiting.push(resolve);
        child.stdin.write(`${JSON.stringify({ token: accessToken })}\n`);
      });
      return answer.ok ? undefined : answer.error;
    };
  };
  // By Cache-Control: as long as that says, and no request in between for a key that can't be there.
  const honest = { cacheMaxAge: MAX_AGE * 1000, cooldownDuration: MAX_AGE * 1000 };
  const all = {
    edge: async (accessToken) => {
      const { status, text } = await atTheEdge(accessToken);
      return status === 200 ? undefined : `${status} ${text}`;
    },
    "jose, max-age": joseOf("max-age", honest),
    "jose, defaults": joseOf("defaults", {}),
    "PyJWT, max-age": pyJwtOf("max-age", String(Math.max(MAX_AGE, 0.1)), String(MAX_AGE)),
    "PyJWT, defaults": pyJwtOf("defaults", "-", "-"),
  };
  return {
    all,
    stop: () => Promise.all(children.map((child) => (child.stdin.end(), child.exitCode === null ? once(child, "exit") : undefined))),
  };
}

/** Gets tokens and has them verified, new ones and ones kept from before, until told to stop. */
function startLoad({ all }) {
  const tally = Object.fromEntries(Object.keys(all).map((name) => [name, { asked: 0, refused: [] }]));
  const seen = { tokens: 0, notIssued: 0, algorithms: {}, kids: new Set() };
  let running = true;
  const kept = [];
  const check = (accessToken) =>
    Promise.all(
      Object.entries(all).map(async ([name, verify]) => {
        // One that expires while it is on its way says nothing.
        if (claimsOf(accessToken).exp - seconds() < 2) return;
        const problem = await verify(accessToken);
        tally[name].asked += 1;
        if (problem === undefined) return;
        const { alg, kid } = decodeProtectedHeader(accessToken);
        const age = (seconds() - claimsOf(accessToken).iat).toFixed(1);
        tally[name].refused.push(`${alg} ${kid} issued ${age} s before: ${problem}`);
      }),
    );
  const work = async () => {
    while (running) {
      let accessToken;
      try {
        accessToken = await token();
      } catch {
        // A replica that is being restarted drops what it hadn't begun.
        seen.notIssued += 1;
        await sleep(50);
        continue;
      }
      seen.tokens += 1;
      const { alg, kid } = decodeProtectedHeader(accessToken);
      seen.algorithms[alg] = (seen.algorithms[alg] ?? 0) + 1;
      seen.kids.add(kid);
      kept.push(accessToken);
      if (kept.length > 400) kept.shift();
      await check(accessToken);
      await check(kept[Math.floor(Math.random() * kept.length)]);
      await sleep(5);
    }
  };
  const workers = Array.from({ length: WORKERS }, work);
  return {
    tally,
    seen,
    async stop() {
      running = false;
      await Promise.all(workers);
    },
  };
}

/** Waits until both issuers sign as `isNew` says. */
async function changed(isNew) {
  let streak = 0;
  const done = await until(
    async () => {
      streak = isNew(decodeProtectedHeader(await token())) ? streak + 1 : 0;
      return streak >= 6;
    },
    { timeoutMs: (MAX_AGE + 40) * 1000, everyMs: 100 },
  );
  assert.ok(done, "the new key doesn't sign");
}

/** Restarts the issuers one after the other, with another setting. */
async function rollOut(name, value) {
  for (const issuer of system.issuers) {
    await issuer.stop();
    issuer.settings.more = { ...issuer.settings.more, [name]: value };
    await issuer.start();
  }
}

describe("key rotation", () => {
  before(() => start("RS256"));
  after(() => system?.stop());

  test("three of them, RS256 to RS256 to ES256 to EdDSA, under load: no valid token is refused", { timeout: (MAX_AGE + 60) * 3_000 }, async (t) => {
    const verifying = verifiers();
    const atStart = fetches(/countersign-edge/);
    const load = startLoad(verifying);
    const started = performance.now();
    try {
      // At their defaults the libraries fetch for an unknown kid only when the last fetch is older than this.
      if (MAX_AGE > LIBRARIES_COOLDOWN) await sleep(1_000);
      const { kid: first } = decodeProtectedHeader(await token());
      const report = JSON.parse(await issuerCommand(["keys", "rotate", "--json"], system.issuer.settings, "keys rotate"));
      assert.equal(report.predecessor.kid, first);
      await changed(({ alg, kid }) => alg === "RS256" && kid !== first);
      await rollOut("TOKEN_SIGNING_ALGORITHM", "ES256");
      await changed(({ alg }) => alg === "ES256");
      await rollOut("TOKEN_SIGNING_ALGORITHM", "EdDSA");
      await changed(({ alg }) => alg === "EdDSA");
      // Old tokens go on being used for a while.
      await sleep(3_000);
    } finally {
      await load.stop();
      await verifying.stop();
    }
    const { tally, seen } = load;
    const took = ((performance.now() - started) / 1000).toFixed(0);
    const algorithms = Object.entries(seen.algorithms).map(([alg, count]) => `${alg} ${count}`).join(", ");
    t.diagnostic(`${took} s, ${seen.tokens} tokens (${algorithms}), ${seen.notIssued} requests for one that a restart cut off`);
    for (const [name, { asked, refused }] of Object.entries(tally)) t.diagnostic(`${name}: ${asked} verified, ${refused.length} refused`);
    const unknownKid = fetches(/countersign-edge/) - atStart;
    t.diagnostic(
      `JWKS fetches: edge ${unknownKid}, jose ${fetches(/jose max-age/)} by max-age and ${fetches(/jose defaults/)} at defaults, ` +
        `PyJWT ${fetches(/PyJWT max-age/)} and ${fetches(/PyJWT defaults/)}`,
    );
    assert.deepEqual(Object.keys(seen.algorithms).sort(), ["ES256", "EdDSA", "RS256"]);
    assert.equal(seen.kids.size, 4, "three rotations, and no other");
    const held = MAX_AGE > LIBRARIES_COOLDOWN ? Object.keys(tally) : ["edge", "jose, max-age", "PyJWT, max-age"];
    for (const name of held) {
      assert.ok(tally[name].asked > 200, `${name}: ${tally[name].asked}`);
      assert.deepEqual(tally[name].refused.slice(0, 5), [], `${name}: ${tally[name].refused.length} refused`);
    }
    assert.equal(unknownKid, 0, "the edge met no unknown kid");
  });
});

describe("rotation of the key of heads", () => {
  before(() => start("EdDSA"));
  after(() => system?.stop());

  const command = async (...args) => JSON.parse(await issuerCommand(["keys", ...args, "--purpose", "revocation", "--json"], system.issuer.settings, `keys ${args}`));
  /** Deploys the edge and its hubs with these keys. */
  const trust = (keys) => system.edge.restart({ REVOCATION_KEYS: JSON.stringify({ keys }) });
  const health = async () => (await request(`${system.edge.url}/_countersign/health`)).status;

  /** Revokes a token that is taken, and waits until it isn't any more. */
  async function revoked() {
    const accessToken = await token();
    assert.equal((await atTheEdge(accessToken)).status, 200);
    const { status } = await request(`${system.issuer.url}/oauth2/v1/revoke`, { headers: basic(client.clientId, client.clientSecret), form: { token: accessToken } });
    assert.equal(status, 200);
    return until(async () => (await atTheEdge(accessToken)).status === 401, { timeoutMs: REVOKED_MS, everyMs: 10 });
  }

  test("both are trusted while one takes over from the other: no request is refused, and what is revoked is", { timeout: (MAX_AGE + 60) * 1_000 }, async (t) => {
    const { key: made } = await command("generate");
    const { keys } = JSON.parse(await revocationKeys(system.issuer.settings));
    assert.equal(keys.length, 2);
    const only = (isOurs) => keys.filter(({ kid }) => isOurs(kid === made.kid));
    await trust(keys);
    await edgeReady(system.edge.url);

    const refused = [];
    let asked = 0;
    let running = true;
    const work = async () => {
      while (running) {
        const { status, text } = await atTheEdge(await token());
        asked += 1;
        if (status !== 200) refused.push(`${status} ${text}`);
        await sleep(5);
      }
    };
    const workers = [work(), work()];
    try {
      const { key, predecessor } = await command("rotate");
      assert.deepEqual([key.kid, predecessor.kid], [made.kid, only((isNew) => !isNew)[0].kid]);
      assert.ok(await revoked(), "by a head of the old key");
      const state = `select state from signing_keys where kid = '${made.kid}'`;
      const isActive = await until(async () => (await query(system.superuserUrl, state))[0][0] === "active", { timeoutMs: (MAX_AGE + 20) * 1000, everyMs: 100 });
      assert.ok(isActive, "the new key doesn't sign");
      assert.ok(await revoked(), "by a head of the new key");
      await sleep(2_000);
    } finally {
      running = false;
      await Promise.all(workers);
    }
    t.diagnostic(`${asked} requests while the key of heads changed, ${refused.length} refused`);
    assert.ok(asked > 100, String(asked));
    assert.deepEqual(refused.slice(0, 5), []);

    // Nothing that is needed now hangs on the old key; and without the new one nothing is believed.
    await trust(only((isNew) => isNew));
    await edgeReady(system.edge.url);
    assert.ok(await revoked());
    await trust(only((isNew) => !isNew));
    const end = Date.now() + 4_000;
    while (Date.now() < end) {
      assert.equal(await health(), 503);
      await sleep(500);
    }
  });
});

describe("key revocation", () => {
  // A key of which is made in a moment, also by a debug build: the successor of an RSA key takes seconds there.
  before(() => start("EdDSA"));
  after(() => system?.stop());

  test(`a revoked key: its tokens are refused at the edge within ${REVOKED_MS / 1000} s, and its successor's aren't`, { timeout: 30_000 + REVOCATIONS * 10_000 }, async (t) => {
    const times = [];
    const commands = [];
    const promotions = [];
    const gaps = [];
    for (let n = 0; n < REVOCATIONS; n++) {
      const accessToken = await token();
      assert.equal((await atTheEdge(accessToken)).status, 200);
      const { kid } = decodeProtectedHeader(accessToken);
      const start = performance.now();
      const revoking = issuerCommand(["keys", "revoke", kid, "--reason", "a test"], system.issuer.settings, "keys revoke");
      const done = revoking.then(() => commands.push(performance.now() - start));
      for (;;) {
        const { status, headers } = await atTheEdge(accessToken);
        const elapsed = performance.now() - start;
        if (status === 401) {
          assert.match(headers.get("www-authenticate"), /revoked|signing key is not known/);
          times.push(elapsed);
          break;
        }
        assert.ok(elapsed < REVOKED_MS, `still ${status} after ${elapsed.toFixed(0)} ms`);
      }
      await done;
      // Each issuer hears of it within a second; what one signs until then is refused with the rest.
      let next;
      let streak = 0;
      const isNext = await until(
        async () => {
          next = await token();
          streak = decodeProtectedHeader(next).kid === kid ? 0 : streak + 1;
          return streak === 2 * system.issuers.length;
        },
        { timeoutMs: REVOKED_MS, everyMs: 10 },
      );
      assert.ok(isNext, "the revoked key signs");
      promotions.push(performance.now() - start);
      const promoted = performance.now();
      const isAccepted = await until(async () => (await atTheEdge(next)).status === 200, { timeoutMs: REVOKED_MS, everyMs: 10 });
      assert.ok(isAccepted, "the successor's token is refused");
      gaps.push(performance.now() - promoted);
      // The revoked key stays out, also for an edge that asks the issuer.
      assert.equal((await atTheEdge(accessToken)).status, 401);
    }
    const say = (values) => {
      const sorted = [...values].sort((a, b) => a - b);
      return `median ${sorted[sorted.length >> 1].toFixed(0)} ms, worst ${sorted.at(-1).toFixed(0)} ms`;
    };
    t.diagnostic(`from the start of keys revoke, which takes ${say(commands)}, to refused at the edge: ${say(times)}`);
    t.diagnostic(`to where both issuers sign with the successor: ${say(promotions)}; the edge accepts that after another ${say(gaps)}`);
  });
});
