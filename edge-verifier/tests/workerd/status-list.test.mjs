// The issuer's status lists, read by a verifier that was written from the draft alone; and the edge, which goes by its own set.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { basic, request, until } from "../../../bin/lib/http.mjs";
import { issuerCommand } from "../../../bin/lib/issuer.mjs";
import { startSystem } from "../../../bin/lib/testing.mjs";
import { statusOf } from "../status-list-decoder.mjs";

let system;
let jwks;
before(async () => {
  system = await startSystem({ replicas: 2 });
  const list = JSON.parse(await issuerCommand(["resource-servers", "list", "--json"], system.issuer.settings, "list"));
  const id = list.items.find(({ identifier }) => identifier === system.audience).resource_server_id;
  await issuerCommand(["resource-servers", "update", id, "--status-list", "true"], system.issuer.settings, "update");
  await until(async () => JSON.parse(Buffer.from((await token(system.admin)).split(".")[1], "base64url")).status, { timeoutMs: 5_000 });
  jwks = (await request(`${system.issuer.url}/.well-known/jwks.json`)).body;
});
after(() => system.stop());

async function token(client, form = {}) {
  const response = await request(`${system.issuer.url}/oauth2/v1/token`, {
    headers: basic(client.clientId, client.clientSecret),
    form: { grant_type: "client_credentials", ...form },
  });
  assert.equal(response.status, 200, response.text);
  return response.body.access_token;
}

/** Of every replica, which must agree. */
async function status(accessToken) {
  const all = await Promise.all(system.issuers.map(({ settings }) =>
    statusOf(accessToken, jwks, async (uri) => {
      assert.ok(uri.startsWith(`${system.issuer.url}/`), uri);
      const response = await request(`http://127.0.0.1:${settings.port}${new URL(uri).pathname}`, { headers: { accept: "application/statuslist+jwt" } });
      assert.equal(response.status, 200, response.text);
      return { contentType: response.headers.get("content-type"), text: response.text };
    }),
  ));
  return all.every((one) => one === all[0]) ? all[0] : all.join(" and ");
}

const call = async (accessToken) => (await request(`${system.edge.url}/orders/42`, { headers: { authorization: `Bearer ${accessToken}` } })).status;

test("what ends a token, at the edge and in its list", async (t) => {
  const authorization = `Bearer ${await token(system.admin, { resource: system.issuer.url })}`;
  const post = async (path, json) => {
    const response = await request(`${system.issuer.url}${path}`, { headers: { authorization }, json });
    assert.ok(response.status < 300, response.text);
    return response.body;
  };
  const bystander = await token(system.admin);
  for (const by of ["jti", "agent_id", "credential_id"]) {
    const agent = await post("/api/v1/agents", { email: `${by}@agents.example`, agent_type: "router", version: "1.0.0", owner: "tests", deployment_env: "development" });
    const credential = await post(`/api/v1/agents/${agent.agent_id}/credentials`, {});
    const accessToken = await token({ clientId: agent.agent_id, clientSecret: credential.client_secret });
    assert.equal(await status(accessToken), "VALID");
    assert.equal(await call(accessToken), 200, "the edge takes tokens with the claim");
    const { jti } = JSON.parse(Buffer.from(accessToken.split(".")[1], "base64url"));
    const began = performance.now();
    await post("/api/v1/revocations", { [by]: { jti, agent_id: agent.agent_id, credential_id: credential.credential_id }[by] });
    assert.ok(await until(async () => (await status(accessToken)) === "INVALID", { timeoutMs: 5_000 }), by);
    t.diagnostic(`${by}: in the lists of both replicas after ${(performance.now() - began).toFixed(0)} ms`);
    assert.ok(await until(async () => (await call(accessToken)) === 401, { timeoutMs: 5_000 }), by);
    assert.equal(await status(bystander), "VALID");
    assert.equal(await call(bystander), 200);
  }
});
