// A thousand requests at once over one isolate, whose verifications are interleaved wherever something is awaited: each gets the verdict on its own token, and the upstream is told of its
// own bearer.

import assert from "node:assert/strict";
import { constants, generateKeyPairSync, sign } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import { after, before, test } from "node:test";

import { ForeignIssuer } from "../foreign-issuer.mjs";
import { startWorld, until } from "./support.mjs";

const rsa = () => generateKeyPairSync("rsa", { modulusLength: 2048 });
/** By algorithm: a key, and how it signs (RFC 7518 §3.1, RFC 8037 §3.1). */
const ALGORITHMS = {
  RS256: [rsa, (data, key) => sign("sha256", data, key)],
  PS256: [rsa, (data, key) => sign("sha256", data, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 })],
  ES256: [() => generateKeyPairSync("ec", { namedCurve: "P-256" }), (data, key) => sign("sha256", data, { key, dsaEncoding: "ieee-p1363" })],
  EdDSA: [() => generateKeyPairSync("ed25519"), (data, key) => sign(null, data, key)],
};
const NAMES = Object.keys(ALGORITHMS);
const KINDS = ["valid", "expired", "revoked", "forged", "partner's", "partner's, forged", "partner's, for others", "stranger's"];
const REQUESTS = 1_000;
const AT_ONCE = 250;

/** A key for each algorithm, of the same names for everybody. */
const makeKeys = () => Object.fromEntries(NAMES.map((alg) => [alg, ALGORITHMS[alg][0]()]));
const jwks = (keys) => ({ keys: NAMES.map((alg) => ({ ...keys[alg].publicKey.export({ format: "jwk" }), kid: `key-${alg}`, alg, use: "sig" })) });
const json = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
function jws(alg, typ, claims, keys) {
  const input = `${json({ alg, kid: `key-${alg}`, typ })}.${json(claims)}`;
  return `${input}.${ALGORITHMS[alg][1](Buffer.from(input), keys[alg].privateKey).toString("base64url")}`;
}

const [ours, theirs, nobodys] = [makeKeys(), makeKeys(), makeKeys()];
let world;
let partner;
let pushing;
const revoked = [];
const agent = new http.Agent({ keepAlive: true, maxSockets: AT_ONCE });

before(async () => {
  partner = await ForeignIssuer.start();
  partner.jwks = () => jwks(theirs);
  world = await startWorld({
    vars: { TRUSTED_ISSUERS: [{ issuer: partner.url, algorithms: NAMES, typ: ["JWT"], tenant_claim: "org", agent_type: "router", scope_claim: "scp" }] },
  });
  world.issuer.jwks = () => jwks(ours);
});
after(async () => {
  clearInterval(pushing);
  agent.destroy();
  await Promise.all([world.stop(), partner.stop()]);
});

/** A token, and what is to come of it: 401 with a description, or 200 with who its bearer is. */
function make(number) {
  const [alg, kind] = [NAMES[number % NAMES.length], KINDS[Math.floor(number / NAMES.length) % KINDS.length]];
  const now = Math.floor(Date.now() / 1000);
  // Of different lengths, so that what one leaves in a buffer would show in another.
  const scope = Array.from({ length: 1 + (number * 7) % 40 }, (_, place) => `s${number}:${place}`).join(" ");
  const refusal = (description) => ({ name: `${number} ${alg} ${kind}`, description });
  if (kind.startsWith("partner's")) {
    const claims = { iss: partner.url, sub: `agent-${number}`, aud: ["https://api.example"], iat: now, exp: now + 600, jti: `jti-${number}`, org: `org-${number}`, scp: scope };
    const identity = { issuer: partner.url, agent: claims.sub, tenant: claims.org, credential: "", "agent-type": "router", jti: claims.jti, scope };
    if (kind.endsWith("forged")) return { token: jws(alg, "JWT", claims, ours), ...refusal("The token's signature is not valid") };
    if (kind.endsWith("others")) return { token: jws(alg, "JWT", { ...claims, aud: "https://others.example" }, theirs), ...refusal("The token is for another audience") };
    return { token: jws(alg, "JWT", claims, theirs), identity, name: refusal("").name };
  }
  const { claims, coordinate } = world.issuer.token({ scope, ...(kind === "expired" && { iat: now - 600, exp: now - 1 }) });
  const token = (changes, keys) => jws(alg, "at+jwt", { ...claims, ...changes }, keys);
  switch (kind) {
    case "expired":
      return { token: token({}, ours), ...refusal("The token has expired") };
    case "revoked":
      revoked.push(coordinate);
      return { token: token({}, ours), ...refusal("The token was revoked") };
    case "forged":
      return { token: token({}, nobodys), ...refusal("The token's signature is not valid") };
    case "stranger's":
      return { token: token({ iss: "https://stranger.example" }, ours), ...refusal("The token is from another issuer") };
    default: {
      const { sub, tenant_id: tenant, credential_id: credential, agent_type: type, jti } = claims;
      return { token: token({}, ours), identity: { issuer: world.issuer.url, agent: sub, tenant, credential, "agent-type": type, jti, scope }, coordinate, name: refusal("").name };
    }
  }
}

async function ask({ token, name }, number) {
  const { hostname, port } = new URL(world.edge.url);
  const options = { agent, hostname, port, path: `/reports/${number}`, headers: { authorization: `Bearer ${token}`, "x-request-id": `request-${number}` } };
  const [answer] = await once(http.request(options).end(), "response");
  const body = (await answer.toArray()).join("");
  assert.equal(answer.headers["x-request-id"], `request-${number}`, name);
  return { status: answer.statusCode, challenge: answer.headers["www-authenticate"], body };
}

function check({ identity, description }, { status, challenge, body }, name, number) {
  if (identity === undefined) {
    assert.equal(status, 401, `${name}: ${body}`);
    assert.ok(challenge.includes(`error_description="${description}"`), `${name}: ${challenge}`);
    return;
  }
  assert.equal(status, 200, `${name}: ${body}`);
  const { url, headers } = JSON.parse(body);
  assert.equal(url, `/base/reports/${number}`, name);
  const said = Object.entries(headers).flatMap(([header, value]) => (header.startsWith("x-countersign-") ? [[header.slice("x-countersign-".length), value]] : []));
  assert.deepEqual(Object.fromEntries(said), identity, name);
}

test("each of a thousand interleaved requests gets its own verdict and identity", async () => {
  const cases = Array.from({ length: REQUESTS }, (_, number) => make(number));
  // In an order in which neighbours are of different kinds, and the same in every run.
  const order = cases.map((_, place) => (place * 617) % REQUESTS);
  assert.equal(new Set(order).size, REQUESTS);
  assert.equal(new Set(cases.map(({ token }) => token)).size, REQUESTS);
  await world.settle();
  const push = async () => (await world.push(world.issuer.head({ revoked }))).text();
  await push();
  // News come meanwhile, through the same module: what is revoked stays the same.
  pushing = setInterval(() => void push().catch(() => undefined), 100);

  // At first none was seen before, nor is anything known; then what holds is in the table, and what is revoked changes meanwhile.
  for (const round of ["first", "second"]) {
    const outcomes = await Promise.all(order.map(async (number) => [number, await ask(cases[number], number)]));
    for (const [number, outcome] of outcomes) check(cases[number], outcome, `${round} round, ${cases[number].name}`, number);
  }

  // Then the half of those that hold, all of which are in the table, is revoked at once: from one instant on that half is refused, and nobody else.
  const holding = cases.filter(({ coordinate }) => coordinate !== undefined);
  const ended = holding.filter((_, place) => place % 2 === 0);
  revoked.push(...ended.map(({ coordinate }) => coordinate));
  await push();
  await until(5_000, () => world.get(ended[0].token), ({ status }) => status === 401);
  await Promise.all(holding.map(async (one) => {
    const number = cases.indexOf(one);
    const expected = ended.includes(one) ? { description: "The token was revoked" } : one;
    check(expected, await ask(one, number), `revoked, ${one.name}`, number);
  }));
});
