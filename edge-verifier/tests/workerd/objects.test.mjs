// Base objects in KV, as the issuer stores and deletes them by Cloudflare's API, with the real edge reading them.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { basic, request, until } from "../../../bin/lib/http.mjs";
import { query } from "../../../bin/lib/database.mjs";
import { startSystem } from "../../../bin/lib/testing.mjs";

describe("base objects", () => {
  let system;
  before(async () => (system = await startSystem()));
  after(() => system.stop());

  const names = async () => {
    const { kvApiBase, kvNamespaceId } = system.edge;
    const { status, body, text } = await request(`${kvApiBase}/storage/kv/namespaces/${kvNamespaceId}/keys?prefix=base%2F`);
    assert.equal(status, 200, text);
    return body.result.map(({ name }) => name).sort();
  };
  const sql = (text) => query(system.superuserUrl, text);

  async function token() {
    const { clientId, clientSecret } = system.admin;
    const response = await request(`${system.issuer.url}/oauth2/v1/token`, {
      headers: basic(clientId, clientSecret), form: { grant_type: "client_credentials" },
    });
    assert.equal(response.status, 200, response.text);
    return response.body.access_token;
  }
  const call = (accessToken) => request(`${system.edge.url}/orders/42`, { headers: { authorization: `Bearer ${accessToken}` } });

  /** Revokes a token, and has the issuer make a base of it; the token. */
  async function inANewBase() {
    const taken = await token();
    const { clientId, clientSecret } = system.admin;
    const revoked = await request(`${system.issuer.url}/oauth2/v1/revoke`, { headers: basic(clientId, clientSecret), form: { token: taken } });
    assert.equal(revoked.status, 200, revoked.text);
    const seq = async () => Number((await sql("select coalesce(base_seq, 0) from publisher_state"))[0][0]);
    const earlier = await seq();
    assert.ok(await until(async () => (await call(taken)).status === 401, { timeoutMs: 5_000 }), "it is refused");
    await system.issuer.stop();
    await system.issuer.start();
    assert.ok(await until(async () => (await seq()) > earlier, { timeoutMs: 10_000 }), "a new base is in force");
    return taken;
  }

  test("old ones are deleted when no head can name them, and what is in force is read by an edge that begins cold", async () => {
    const [first, second] = [await inANewBase(), await inANewBase()];
    const stored = await names();
    assert.ok(stored.length >= 3, `one before, and one for each: ${stored}`);
    await sql("update published_objects set superseded_at = superseded_at - interval '3961 seconds'");
    const inForce = (await sql("select 'base/' || encode(base_sha256, 'hex') from publisher_state"))[0][0];
    assert.ok(await until(async () => (await names()).length === 1, { timeoutMs: 25_000 }), `still there: ${await names()}`);
    assert.deepEqual(await names(), [inForce]);
    assert.deepEqual((await sql("select count(*) from published_objects"))[0], ["1"]);
    await system.edge.restart();
    const good = await token();
    assert.ok(await until(async () => (await call(good)).status === 200, { timeoutMs: 20_000 }), "the edge works");
    for (const taken of [first, second]) assert.equal((await call(taken)).status, 401);
  });
});
