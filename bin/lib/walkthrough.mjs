// The product's main job on a running system, step by step: from an agent's registration to a refused revoked token.

import crypto from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { basic, request } from "./http.mjs";
import { duration, line } from "./output.mjs";

const SAMPLES = 50;
const REVOCATIONS = 20;
/** What a revocation may take here, at worst. */
const LIMIT_MS = 3_000;
const GIVE_UP_MS = 15_000;

/** A step that didn't do what it should. */
class Unexpected extends Error {}

/** @param {unknown} condition @param {string} message @returns {asserts condition} */
function expect(condition, message) {
  if (!condition) throw new Unexpected(message);
}

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

const short = (text, length = 60) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

/**
 * @param {{issuerUrl: string, edgeUrl: string, upstreamUrl: string, admin: {clientId: string, clientSecret: string}, signal?: AbortSignal}} system
 * @returns {Promise<{ok: boolean, failed: string[], figures: Record<string, number>}>} times in milliseconds
 */
export async function walkthrough({ issuerUrl, edgeUrl, upstreamUrl, admin, signal }) {
  const failed = [];
  /** @type {Record<string, number>} */
  const figures = {};

  /**
   * One step: `work` gives the line's text, and may give the time to show.
   * @param {string} label
   * @param {() => Promise<string | {text: string, ms: number}>} work
   */
  async function step(label, work) {
    signal?.throwIfAborted();
    const started = performance.now();
    try {
      const result = await work();
      const { text, ms } = typeof result === "string" ? { text: result, ms: performance.now() - started } : result;
      line("ok", label, text, ms);
    } catch (error) {
      if (signal?.aborted) throw error;
      failed.push(label);
      line("failed", label, error instanceof Unexpected ? error.message : `${error.cause?.message ?? error.message}`, performance.now() - started);
    }
  }

  const token = async (client, form = {}) => {
    const response = await request(`${issuerUrl}/oauth2/v1/token`, {
      headers: basic(client.clientId, client.clientSecret),
      form: { grant_type: "client_credentials", ...form },
    });
    expect(response.status === 200, `token: ${response.status} ${short(response.text)}`);
    return /** @type {string} */ (response.body.access_token);
  };
  const call = (accessToken) => request(`${edgeUrl}/orders/42`, { headers: accessToken === undefined ? {} : { authorization: `Bearer ${accessToken}` } });
  const expectAccepted = async (accessToken) => {
    const response = await call(accessToken);
    expect(response.status === 200, `${response.status} ${short(response.text.trim())}`);
    return response.body;
  };
  const expectRefused = async (accessToken) => {
    const response = await call(accessToken);
    const challenge = response.headers.get("www-authenticate") ?? "";
    expect(response.status === 401, `${response.status} instead of 401: ${short(response.text.trim())}`);
    expect(/^Bearer .*error="invalid_token"/.test(challenge), `401 with the challenge \`${challenge}\``);
    return `401 ${/error_description="([^"]*)"/.exec(challenge)?.[1] ?? "invalid_token"}`;
  };
  const revoke = async (client, accessToken) => {
    const response = await request(`${issuerUrl}/oauth2/v1/revoke`, { headers: basic(client.clientId, client.clientSecret), form: { token: accessToken } });
    expect(response.status === 200, `revoke: ${response.status} ${short(response.text)}`);
  };
  /** From the request to revoke until the edge says no; polled every 2 ms, since a bare loop would starve the system that it measures. */
  const revokeAndWait = async (client, accessToken, alongside = async () => {}) => {
    const started = performance.now();
    await revoke(client, accessToken);
    for (;;) {
      signal?.throwIfAborted();
      const response = await call(accessToken);
      const ms = performance.now() - started;
      if (response.status === 401) {
        expect(/error="invalid_token"/.test(response.headers.get("www-authenticate") ?? ""), "refused without an invalid_token challenge");
        return ms;
      }
      expect(response.status === 200, `the edge answered ${response.status} ${short(response.text.trim())}`);
      expect(ms < GIVE_UP_MS, `still accepted after ${duration(ms)}`);
      await alongside();
      await sleep(2);
    }
  };

  const email = `walkthrough-${crypto.randomBytes(4).toString("hex")}@agents.example`;
  let management = "";
  let agentId = "";
  const agent = { clientId: "", clientSecret: "" };
  let first = "";
  let second = "";

  await step("administrator's token", async () => {
    management = await token(admin, { resource: issuerUrl });
    return "for the issuer's own API";
  });
  const authorised = () => ({ authorization: `Bearer ${management}` });
  await step("register an agent", async () => {
    const response = await request(`${issuerUrl}/api/v1/agents`, {
      headers: authorised(),
      json: { email, agent_type: "screener", version: "1.0.0", owner: "walkthrough", deployment_env: "development", scopes: ["orders:read"] },
    });
    expect(response.status === 201, `${response.status} ${short(response.text)}`);
    agentId = response.body.agent_id;
    return `201 agent ${agentId}`;
  });
  await step("make a credential", async () => {
    const response = await request(`${issuerUrl}/api/v1/agents/${agentId}/credentials`, { headers: authorised(), json: {} });
    expect(response.status === 201, `${response.status} ${short(response.text)}`);
    agent.clientId = response.body.client_id;
    agent.clientSecret = response.body.client_secret;
    return `201 secret ${agent.clientSecret.slice(0, 8)}… (shown once)`;
  });
  await step("get a token", async () => {
    first = await token(agent);
    second = await token(agent);
    const { alg, typ } = JSON.parse(Buffer.from(first.split(".")[0], "base64url").toString());
    return `200 ${typ}, ${alg}, ${first.length} bytes`;
  });
  await step("call the upstream through the edge", async () => {
    const { identity, sawAuthorization } = await expectAccepted(first);
    expect(identity.agent === agentId, `the upstream saw the agent ${identity.agent}`);
    expect(identity.scope === "orders:read", `the upstream saw the scope ${identity.scope}`);
    expect(!sawAuthorization, "the upstream saw the token itself");
    return `200 upstream saw ${identity["agent-type"]} ${identity.agent.slice(0, 8)}…, ${identity.scope}`;
  });
  await step("… with a made-up identity header", async () => {
    const { body } = await request(`${edgeUrl}/`, { headers: { authorization: `Bearer ${first}`, "x-countersign-agent": "root", "x-countersign-admin": "yes" } });
    expect(body?.identity?.agent === agentId && !("admin" in body.identity), `the upstream saw ${JSON.stringify(body?.identity)}`);
    return "200 the made-up headers were dropped";
  });
  await step("… with a tampered signature", async () => {
    const [header, payload, signature] = first.split(".");
    return expectRefused(`${header}.${payload}.${signature[0] === "A" ? "B" : "A"}${signature.slice(1)}`);
  });
  await step("… with an altered payload", async () => {
    const [header, payload, signature] = first.split(".");
    const claims = JSON.parse(Buffer.from(payload, "base64url").toString());
    const altered = Buffer.from(JSON.stringify({ ...claims, scope: "orders:delete" })).toString("base64url");
    return expectRefused(`${header}.${altered}.${signature}`);
  });
  await step("… with an expired token", async () => {
    const brief = await token(agent, { expires_in: "1" });
    const { exp } = JSON.parse(Buffer.from(brief.split(".")[1], "base64url").toString());
    await sleep(Math.max(0, exp * 1000 - Date.now()) + 20, undefined, { signal });
    const started = performance.now();
    return { text: await expectRefused(brief), ms: performance.now() - started };
  });
  await step("… with no token", async () => {
    const response = await call(undefined);
    const challenge = response.headers.get("www-authenticate") ?? "";
    expect(response.status === 401, `${response.status} instead of 401`);
    // RFC 6750 §3.1: no error code for a request that brought no authentication.
    expect(/^Bearer/.test(challenge) && !/error/.test(challenge), `401 with the challenge \`${challenge}\``);
    return `401 WWW-Authenticate: ${challenge.replace(/"[^"]*"/g, "…")}`;
  });
  await step("revoke it: refused at the edge after", async () => {
    figures.revokeToRefused = await revokeAndWait(agent, first, () => expectAccepted(second));
    await expectAccepted(second);
    return { text: "401; the agent's other token went on working", ms: figures.revokeToRefused };
  });

  const tokens = [];
  await step(`token latency, median of ${SAMPLES}`, async () => {
    const times = [];
    for (let i = 0; i < SAMPLES; i++) {
      const started = performance.now();
      tokens.push(await token(agent));
      times.push(performance.now() - started);
    }
    figures.token = median(times);
    return { text: "authenticate, sign, audit (debug build)", ms: figures.token };
  });
  await step(`edge latency, median of ${SAMPLES}`, async () => {
    const direct = [];
    const through = [];
    for (const accessToken of tokens) {
      let started = performance.now();
      await request(`${upstreamUrl}/orders/42`);
      direct.push(performance.now() - started);
      started = performance.now();
      await expectAccepted(accessToken);
      through.push(performance.now() - started);
    }
    figures.upstream = median(direct);
    figures.edge = median(through);
    return { text: `a new token each; the upstream alone: ${duration(figures.upstream)}`, ms: figures.edge };
  });
  await step(`${REVOCATIONS} revocations, worst`, async () => {
    const times = [];
    for (const accessToken of tokens.slice(0, REVOCATIONS)) times.push(await revokeAndWait(agent, accessToken));
    figures.revocationMedian = median(times);
    figures.revocationWorst = Math.max(...times);
    expect(times.length === REVOCATIONS, `only ${times.length} tokens to revoke`);
    expect(figures.revocationWorst < LIMIT_MS, `${duration(figures.revocationWorst)}, over ${duration(LIMIT_MS)}`);
    return { text: `from the request to the first refusal; median ${duration(figures.revocationMedian)}`, ms: figures.revocationWorst };
  });
  await step("the agent's other token", async () => {
    await expectAccepted(second);
    return "200 still accepted";
  });
  return { ok: failed.length === 0, failed, figures };
}

/**
 * Commands to paste into a shell that stands in the project, each using what those before it set.
 * @param {{issuerUrl: string, edgeUrl: string, credentialFile: string}} system
 * @returns {{title: string, command: string}[]}
 */
export function curlLines({ issuerUrl, edgeUrl, credentialFile }) {
  const member = (name) => `| node -pe 'JSON.parse(fs.readFileSync(0)).${name}'`;
  return [
    { title: "the administrator's credential", command: `. ${credentialFile}` },
    {
      title: "a token for the issuer's own API",
      command: `ADMIN_TOKEN=$(curl -s -u "$ADMIN_CLIENT_ID:$ADMIN_CLIENT_SECRET" ${issuerUrl}/oauth2/v1/token -d grant_type=client_credentials -d resource=${issuerUrl} ${member("access_token")})`,
    },
    {
      title: "an agent",
      command: `AGENT=$(curl -s -H "Authorization: Bearer $ADMIN_TOKEN" -H 'Content-Type: application/json' ${issuerUrl}/api/v1/agents -d '{"email":"agent-'$(date +%s)'@agents.example","agent_type":"screener","version":"1.0.0","owner":"me","deployment_env":"development","scopes":["orders:read"]}' ${member("agent_id")})`,
    },
    {
      title: "its credential",
      command: `SECRET=$(curl -s -H "Authorization: Bearer $ADMIN_TOKEN" -H 'Content-Type: application/json' ${issuerUrl}/api/v1/agents/$AGENT/credentials -d '{}' ${member("client_secret")})`,
    },
    {
      title: "its access token",
      command: `TOKEN=$(curl -s -u "$AGENT:$SECRET" ${issuerUrl}/oauth2/v1/token -d grant_type=client_credentials ${member("access_token")})`,
    },
    { title: "the upstream, through the edge", command: `curl -i -H "Authorization: Bearer $TOKEN" ${edgeUrl}/hello` },
    { title: "revoke the token", command: `curl -i -u "$AGENT:$SECRET" ${issuerUrl}/oauth2/v1/revoke -d token=$TOKEN` },
    { title: "and again: refused", command: `sleep 1; curl -i -H "Authorization: Bearer $TOKEN" ${edgeUrl}/hello` },
  ];
}
