// Tokens of other issuers in workerd: who gets in where, and what becomes of their keys.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { makeKey } from "../fake-issuer.mjs";
import { ForeignIssuer, makeRsaKey } from "../foreign-issuer.mjs";
import { METADATA, startWorld, until } from "./support.mjs";

const settings = (issuer, changes = {}) => ({
  issuer: issuer.url, algorithms: ["RS256"], typ: ["JWT"], tenant_claim: "org", agent_type: "router", scope_claim: "scp", ...changes,
});

/** An edge that trusts one more issuer. */
async function startPartners({ vars = {}, isolates, changes, prepare = () => undefined } = {}) {
  const partner = await ForeignIssuer.start();
  prepare(partner);
  const world = await startWorld({ vars: { TRUSTED_ISSUERS: JSON.stringify([settings(partner, changes)]), ...vars }, isolates });
  const { stop } = world;
  return { ...world, partner, stop: () => Promise.all([stop(), partner.stop()]) };
}

const status = async (response) => {
  const { status: code } = await response;
  return code;
};

describe("another issuer's tokens", () => {
  let world;
  before(async () => {
    world = await startPartners({ vars: { OPERATOR_SECRET: "an operator's secret" } });
    await world.settle();
    world.beat();
  });
  after(() => world.stop());

  test("reach the upstream, which sees whose they are, in the operator's words", async () => {
    const response = await world.get(world.partner.token({ jti: "x.1" }), { headers: { "x-countersign-issuer": world.issuer.url } });
    assert.equal(response.status, 200);
    const { headers } = await response.json();
    const said = Object.fromEntries(Object.entries(headers).filter(([name, value]) => name.startsWith("x-countersign-") && value !== ""));
    assert.deepEqual(said, {
      "x-countersign-issuer": world.partner.url,
      "x-countersign-agent": "auth0|7",
      "x-countersign-tenant": "acme",
      "x-countersign-agent-type": "router",
      "x-countersign-jti": "x.1",
      "x-countersign-scope": "reports:read",
    });
    assert.equal(headers.authorization, undefined);
    assert.deepEqual(world.partner.metadataRequests, ["/.well-known/openid-configuration"]);
    // Ours as ever.
    const ours = await (await world.get(world.issuer.token().token)).json();
    assert.equal(ours.headers["x-countersign-issuer"], world.issuer.url);
  });

  test("are asked about once, however often they come", async () => {
    const token = world.partner.token();
    for (let n = 0; n < 20; n++) assert.equal(await status(world.get(token)), 200);
    assert.equal(world.partner.jwksRequests, 1);
  });

  test("are told of to operators: why one is refused, and which keys there are", async () => {
    const { issuer, partner } = world;
    const ask = async (path, body) => {
      const headers = { authorization: "Bearer an operator's secret" };
      return (await fetch(`${world.edge.url}/_countersign/${path}`, body === undefined ? { headers } : { headers, method: "POST", body })).json();
    };
    const accepted = await ask("why", partner.token());
    assert.deepEqual([accepted.accepted, accepted.issuer, accepted.token], [true, partner.url, undefined]);
    assert.deepEqual([(await ask("why", issuer.token().token)).issuer], [issuer.url]);
    const refused = await ask("why", partner.token({ cnf: {} }));
    assert.deepEqual([refused.accepted, refused.reason], [false, "proof_required"]);
    const { trusted_issuers: trusted, keys } = await ask("status");
    assert.deepEqual(trusted, [{ issuer: partner.url, keys: [{ kid: "theirs-1", alg: "RS256" }] }]);
    assert.ok(keys.every(({ kid }) => kid !== "theirs-1"));
  });

  test("are refused for what is wrong with them", async () => {
    const { partner } = world;
    const now = Math.floor(Date.now() / 1000);
    for (const [name, token, description] of [
      ["expired", partner.token({ exp: now - 1, iat: now - 60 }), "The token has expired"],
      ["for others", partner.token({ aud: "https://other.example" }), "The token is for another audience"],
      ["of another type", partner.token({}, { header: { typ: "at+jwt" } }), "The token is not an access token"],
      ["bound to a key", partner.token({ cnf: { jkt: "x" } }), "The token is bound to a key, and no proof of possession is taken here"],
      ["forged", partner.token({}, { key: makeRsaKey(partner.key.kid) }), "The token's signature is not valid"],
      ["without aud", partner.token({ aud: undefined }), "The token's claims are not acceptable"],
      ["without exp", partner.token({ exp: undefined }), "The token's claims are not acceptable"],
      ["without the tenant", partner.token({ org: undefined }), "The token's claims are not acceptable"],
    ]) {
      const response = await world.get(token);
      assert.equal(response.status, 401, name);
      assert.equal(response.headers.get("www-authenticate"), `Bearer error="invalid_token", error_description="${description}", ${METADATA}`, name);
      await response.text();
    }
    assert.equal(await status(world.get(partner.token({ iss: "https://third.example" }))), 401);
  });

  test("may be had from there, as the API's metadata says", async () => {
    const metadata = await (await world.get(undefined, { path: "/.well-known/oauth-protected-resource" })).json();
    assert.deepEqual(metadata.authorization_servers, [world.issuer.url, world.partner.url]);
  });

  test("are never ours, and ours never theirs, whatever the keys are called", async () => {
    const { issuer, partner } = world;
    const ours = issuer.tokenKey;
    const theirs = partner.key;
    // Their next key has our key's name, and the other way round.
    partner.key = makeRsaKey(ours.kid);
    partner.otherKeys = [{ ...theirs.publicKey.export({ format: "jwk" }), kid: theirs.kid, use: "sig" }];
    await until(12_000, () => world.get(partner.token()), ({ status: code }) => code === 200);
    assert.equal(await status(world.get(issuer.token().token)), 200);
    assert.equal(await status(world.get(partner.token({}, { key: theirs }))), 200);
    // What we sign in their name isn't theirs; what they sign in ours isn't ours.
    const { claims } = issuer.token();
    assert.equal(await status(world.get(issuer.token({ iss: partner.url }).token)), 401);
    assert.equal(await status(world.get(partner.token({ ...claims }, { header: { typ: "at+jwt" } }))), 401);
    assert.equal(await status(world.get(partner.token({ ...claims }, { key: theirs, header: { typ: "at+jwt" } }))), 401);
  });

  test("a token that is bound to a key is refused from our own issuer, too, and so is DPoP", async () => {
    const bound = await world.get(world.issuer.token({ cnf: { jkt: "x" } }).token);
    assert.equal(bound.status, 401);
    assert.match(bound.headers.get("www-authenticate"), /^Bearer error="invalid_token", error_description="The token is bound to a key/);
    await bound.text();
    const dpop = await world.get(undefined, { headers: { authorization: `DPoP ${world.issuer.token().token}` } });
    assert.equal(dpop.status, 401);
    assert.equal(dpop.headers.get("www-authenticate"), `Bearer ${METADATA}`);
    assert.equal((await dpop.json()).code, "dpop_not_supported");
  });
});

describe("another issuer's keys", () => {
  const worlds = [];
  const start = async (options) => {
    const world = await startPartners(options);
    worlds.push(world);
    await world.settle();
    world.beat();
    return world;
  };
  after(() => Promise.all(worlds.map((world) => world.stop())));

  test("are asked for once, by however many tokens at once; made-up kids cost nothing for ten seconds; a rotated key is found after that", async () => {
    const world = await start({ prepare: (partner) => (partner.delayMs = 300) });
    const { partner } = world;
    const first = await Promise.all(Array.from({ length: 50 }, (_, n) => status(world.get(partner.token({ sub: `a${n}` })))));
    assert.deepEqual([...new Set(first)], [200]);
    assert.equal(partner.jwksRequests, 1);
    partner.delayMs = 0;
    const madeUp = await Promise.all(Array.from({ length: 50 }, (_, n) => status(world.get(partner.token({}, { header: { kid: `made-up-${n}` } })))));
    assert.deepEqual([...new Set(madeUp)], [401]);
    assert.equal(partner.jwksRequests, 1);
    const old = partner.key;
    partner.key = makeRsaKey("theirs-2");
    await until(12_000, () => world.get(partner.token()), ({ status: code }) => code === 200);
    assert.equal(partner.jwksRequests, 2);
    assert.equal(await status(world.get(partner.token({}, { key: old }))), 401, "and the one that is gone is gone");
    // Nobody asked our issuer on their behalf, but for its own keys.
    assert.ok(world.issuer.jwksRequests <= 1);
  });

  test("are shared by the isolates of one place", async () => {
    const world = await start({ isolates: 2 });
    assert.equal(await status(world.get(world.partner.token())), 200);
    assert.equal(await status(world.get(world.partner.token(), { isolate: 1 })), 200);
    assert.equal(world.partner.jwksRequests, 1);
  });

  test("that aren't sound are left out, and take none of the others with them", async () => {
    const world = await start({
      prepare: (partner) =>
        (partner.otherKeys = [
          { kty: "oct", kid: "secret", alg: "HS256", k: "AAAA" },
          { kty: "RSA", kid: "weak", alg: "RS256", n: "AQAB", e: "Aw" },
          { ...makeKey("ed").publicKey.export({ format: "jwk" }), kid: "ed", alg: "EdDSA" },
        ]),
    });
    assert.equal(await status(world.get(world.partner.token())), 200);
    assert.equal(await status(world.get(world.partner.token({}, { header: { kid: "weak" } }))), 401);
  });

  for (const mood of ["away", "redirects", "long", "nonsense"]) {
    test(`that can't be had (${mood}): 503 for their tokens, and nothing for ours; had once, they stay good`, async () => {
      const world = await start({ prepare: (partner) => (partner.mood = mood) });
      const response = await world.get(world.partner.token());
      assert.equal(response.status, 503);
      assert.equal((await response.json()).code, "keys_unknown");
      assert.equal(await status(world.get(world.issuer.token().token)), 200);
      world.partner.mood = "";
      const token = world.partner.token();
      await until(5_000, () => world.get(token), ({ status: code }) => code === 200);
      world.partner.mood = mood;
      assert.equal(await status(world.get(world.partner.token({ sub: "another" }))), 200);
    });
  }

  test("are where RFC 8414 metadata says; metadata of somebody else leads nowhere", async () => {
    const world = await start({ prepare: (partner) => (partner.metadataAt = "/.well-known/oauth-authorization-server") });
    assert.equal(await status(world.get(world.partner.token())), 200);
    assert.deepEqual(world.partner.metadataRequests, ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"]);
    const astray = await start({ prepare: (partner) => (partner.metadata = { issuer: "https://other.example" }) });
    assert.equal(await status(astray.get(astray.partner.token())), 503);
    assert.equal(astray.partner.jwksRequests, 0);
  });

  test("are there although our own issuer has never been heard", async () => {
    const world = await startPartners();
    worlds.push(world);
    world.issuer.down = true;
    // No head was ever pushed: nothing is known of what is revoked, and that says nothing of their tokens.
    assert.equal(await status(world.get(world.issuer.token().token)), 503);
    assert.equal(await status(world.get(world.partner.token())), 200);
  });
});

describe("routes", () => {
  let world;
  let third;
  before(async () => {
    third = await ForeignIssuer.start();
    const partner = await ForeignIssuer.start();
    const base = await startWorld({
      vars: {
        TRUSTED_ISSUERS: [settings(partner), settings(third)],
        ROUTE_POLICY: {
          version: 1,
          routes: [
            { path: "/ours/**" },
            { path: "/theirs/**", issuers: [partner.url], scopes: ["reports:read"] },
            { path: "/acme/**", issuers: [partner.url, third.url], tenants: ["acme"] },
          ],
        },
      },
    });
    world = { ...base, partner, stop: () => Promise.all([base.stop(), partner.stop(), third.stop()]) };
    await world.settle();
    world.beat();
  });
  after(() => world.stop());

  test("let other issuers in only where they name them", async () => {
    const [ours, partner, other] = [world.issuer.token().token, world.partner.token(), third.token()];
    for (const [path, token, code] of [
      ["/ours/1", ours, undefined],
      ["/ours/1", partner, "wrong_issuer"],
      ["/ours/1", other, "wrong_issuer"],
      ["/theirs/1", ours, "wrong_issuer"],
      ["/theirs/1", partner, undefined],
      ["/theirs/1", other, "wrong_issuer"],
      ["/theirs/1", world.partner.token({ scp: [] }), "insufficient_scope"],
      ["/acme/1", partner, undefined],
      ["/acme/1", other, undefined],
      ["/acme/1", third.token({ org: "other" }), "wrong_tenant"],
      ["/acme/1", ours, "wrong_issuer"],
    ]) {
      const response = await world.get(token, { path });
      const body = await response.json();
      assert.equal(response.status === 200 ? undefined : body.code, code, `${path} ${code}`);
      if (code !== undefined) assert.equal(response.status, 403);
    }
  });
});

test("mistakes in the setting: nobody gets in", async () => {
  const world = await startWorld({ vars: { TRUSTED_ISSUERS: JSON.stringify([{ issuer: "https://a.example", algorithms: ["HS256"] }]) } });
  try {
    const response = await world.get(world.issuer.token().token);
    assert.equal(response.status, 503);
    assert.equal((await response.json()).code, "misconfigured");
  } finally {
    await world.stop();
  }
});
