// The verifier beside jose and the jsonwebtoken crate, on many tokens that are spoiled in all ways (spoil.mjs). What it accepts, they accept. What it refuses and they
// accept is of a class that is named here, with the reason; anything else is a failure.
//
//   DIFFERENTIAL_TOKENS=200000 DIFFERENTIAL_SEED=7 node --test edge-verifier/tests/differential/*.test.mjs

import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";

import { jti } from "../fake-issuer.mjs";
import { LEEWAY, foreign, jose, jsonwebtoken, ours } from "./peers.mjs";
import { b64, generator, spoiled } from "./spoil.mjs";

const TOKENS = Number(process.env.DIFFERENTIAL_TOKENS ?? 20_000);
const SEED = Number(process.env.DIFFERENTIAL_SEED ?? 20_261_121);
/** So many tokens are made and judged by one reading of the clock: jsonwebtoken goes by the machine's. */
const BATCH = 250;

const ISSUER = "https://issuer.example";
const AUDIENCE = "https://api.example";
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

const keys = {
  RS256: { kid: "rs", ...generateKeyPairSync("rsa", { modulusLength: 2048 }) },
  PS256: { kid: "ps", ...generateKeyPairSync("rsa", { modulusLength: 2048 }) },
  ES256: { kid: "es", ...generateKeyPairSync("ec", { namedCurve: "P-256" }) },
  EdDSA: { kid: "ed", ...generateKeyPairSync("ed25519") },
};
const stranger = generateKeyPairSync("rsa", { modulusLength: 2048 });
const jwks = { keys: Object.entries(keys).map(([alg, { kid, publicKey }]) => ({ ...publicKey.export({ format: "jwk" }), kid, alg, use: "sig" })) };

const OWN = {
  typ: "at+jwt",
  make: (random, now) => {
    const exp = now + 100 + random.below(800);
    return {
      iss: ISSUER, sub: "0b54d2c5-8f4b-4c55-9d2c-6d8f0a1b2c3d", client_id: "0b54d2c5-8f4b-4c55-9d2c-6d8f0a1b2c3d", aud: AUDIENCE, iat: now - random.below(60), exp,
      jti: jti({ shard: Math.floor(exp / 3600), serial: BigInt(random.below(2 ** 31)) }), scope: "reports:read",
      tenant_id: "5f0c7a52-3c1e-4f6a-8a55-0f9d6f2b7e11", credential_id: "a1d5a6a0-6f0e-4b43-9a55-27f4bb1f8c02", agent_type: "router",
    };
  },
};
const FOREIGN = {
  typ: "JWT",
  make: (random, now) => ({ iss: ISSUER, sub: "auth0|7", aud: [AUDIENCE], iat: now - random.below(60), exp: now + 100 + random.below(800), scope: "reports:read" }),
};

/**
 * Why it is right to refuse what others accept. `holds`: whether a token is of the class, found out by other means than the verifier's; `reasons`: those that it gives.
 */
const CLASSES = [
  { name: "another spelling of the same bytes (padding, white space, unused bits)", reasons: ["malformed", "wrong_issuer"], holds: ({ token }) => !isCanonical(token) },
  { name: "over 8 KiB", reasons: ["too_large", "wrong_issuer"], holds: ({ token }) => Buffer.byteLength(token) > 8192 },
  { name: "JSON that verifiers read differently: a member twice", reasons: ["malformed", "wrong_issuer"], holds: ({ texts }) => texts.some(hasMemberTwice) },
  { name: "JSON with bytes, characters or a mark that not everybody takes", reasons: ["malformed", "wrong_issuer"], holds: ({ texts }) => texts.some(isOddText) },
  { name: "JSON nested more than six deep, or with more than 128 entries in one place", reasons: ["malformed", "wrong_issuer"], holds: ({ values }) => values.some((value) => isLarge(value)) },
  { name: "an extension that is marked critical", reasons: ["critical_extension"], holds: ({ header }) => Object.hasOwn(header, "crit") },
  { name: "no kid: which key it is for is a guess", reasons: ["malformed"], holds: ({ header }) => typeof header.kid !== "string" },
  { name: "no access token by its typ", reasons: ["wrong_type", "malformed"], holds: ({ header, profile }) => !isAccessToken(header.typ, profile) },
  { name: "a key comes along, or a header parameter isn't what its document says", reasons: ["malformed"], holds: ({ header }) => hasOddParameter(header) },
  { name: "bound to a key whose proof nobody looked at", reasons: ["proof_required"], holds: ({ claims }) => Object.hasOwn(claims, "cnf") },
  { name: "another kind of JWT by its claims", reasons: ["wrong_type"], holds: ({ claims, profile }) => profile === FOREIGN && ["nonce", "at_hash", "c_hash", "events"].some((name) => Object.hasOwn(claims, name)) },
  { name: "a claim that we require is absent or not what it must be", reasons: ["missing_claim", "invalid_claim"], holds: ({ claims, profile }) => (profile === OWN ? lacksOurs : lacksTheirs)(claims) },
  { name: "aud with something that is no audience, or with more than 16", reasons: ["invalid_claim"], holds: ({ claims }) => !isAudience(claims.aud) },
  { name: "iss an array: a token has one issuer (RFC 7519 §4.1.1)", reasons: ["invalid_claim", "wrong_issuer"], holds: ({ claims }) => Array.isArray(claims.iss) },
  { name: "a time that is no whole number of seconds", reasons: ["invalid_claim"], holds: ({ claims, texts }) => ["iat", "exp", "nbf"].some((name) => Object.hasOwn(claims, name) && !isTime(claims[name])) || /"(iat|exp|nbf)"\s*:\s*[0-9-]*[.eE]/.test(texts[1]) },
  { name: "expired, within the others' leeway", reasons: ["expired"], holds: ({ claims, now }) => claims.exp <= now && claims.exp > now - Math.max(LEEWAY.jose, LEEWAY.jsonwebtoken) - 2 },
  { name: "not valid yet, beyond our leeway and within jsonwebtoken's", reasons: ["not_yet_valid"], holds: ({ claims, now }) => claims.nbf > now + LEEWAY.ours },
  { name: "issued in the future, which the others don't look at", reasons: ["issued_in_the_future"], holds: ({ claims, now }) => claims.iat > now + LEEWAY.ours },
  { name: "issued when it had expired, which the others don't look at", reasons: ["invalid_claim"], holds: ({ claims }) => claims.iat >= claims.exp },
];

for (const [name, profile, verifier] of [["our own tokens", OWN, ours], ["another issuer's tokens", FOREIGN, foreign]]) {
  test(`${name}: nothing is accepted that jose or jsonwebtoken refuses, and what they accept beyond that is known`, async (context) => {
    const demands = { issuer: ISSUER, audience: AUDIENCE, jwks };
    const us = await verifier(demands);
    // jose can be told one type only: with two it is told none.
    const peers = { jose: jose(demands, profile === OWN ? "at+jwt" : undefined), jsonwebtoken: await jsonwebtoken(demands) };
    const random = generator(SEED);
    const count = profile === OWN ? Math.ceil(TOKENS * 0.7) : Math.floor(TOKENS * 0.3);
    const [lax, unexplained] = [[], []];
    const counts = { accepted: 0, refused: 0, jose: 0, jsonwebtoken: 0 };
    const classes = new Map(CLASSES.map(({ name }) => [name, { jose: 0, jsonwebtoken: 0 }]));
    const reasons = new Map();
    for (let done = 0; done < count; done += BATCH) {
      const now = Math.floor(Date.now() / 1000);
      for (let n = 0; n < Math.min(BATCH, count - done); n++) {
        const { token, how } = spoiled(random, { ...profile, keys, stranger, now });
        const said = await us(token, now);
        counts[said === "accepted" ? "accepted" : "refused"] += 1;
        reasons.set(said, (reasons.get(said) ?? 0) + 1);
        for (const [peer, verify] of Object.entries(peers)) {
          const theirs = await verify(token, now);
          if (theirs === "accepted") counts[peer] += 1;
          if ((said === "accepted") === (theirs === "accepted")) continue;
          const report = `${how.join(", ")}: ${said}, ${peer} says ${theirs}\n  ${token.slice(0, 3000)}`;
          if (said === "accepted") {
            lax.push(report);
            continue;
          }
          const parts = read(token, { now, profile });
          const found = CLASSES.find(({ reasons, holds }) => reasons.includes(said) && holds(parts));
          if (found === undefined) unexplained.push(report);
          else classes.get(found.name)[peer] += 1;
        }
      }
    }
    context.diagnostic(`seed ${SEED}, ${count} tokens (DIFFERENTIAL_SEED, DIFFERENTIAL_TOKENS); the keys are drawn anew`);
    context.diagnostic(`accepted: ${counts.accepted}, by jose ${counts.jose}, by jsonwebtoken ${counts.jsonwebtoken}`);
    context.diagnostic(`said: ${[...reasons].sort(([, a], [, b]) => b - a).map(([reason, times]) => `${reason} ${times}`).join(", ")}`);
    for (const [name, times] of classes) if (times.jose + times.jsonwebtoken > 0) context.diagnostic(`${name}: jose ${times.jose}, jsonwebtoken ${times.jsonwebtoken}`);
    // Whole tokens, so that a failure can be looked into with other keys than the seed brings back.
    assert.deepEqual(lax.slice(0, 10), [], `${lax.length} are accepted that others refuse`);
    assert.deepEqual(unexplained.slice(0, 10), [], `${unexplained.length} are refused that others accept, for no known reason`);
    // Neither everything nor nothing, else none of this says anything.
    assert.ok(counts.accepted > count / 10 && counts.refused > count / 3, JSON.stringify(counts));
    assert.ok(counts.jose >= counts.accepted && counts.jsonwebtoken >= counts.accepted);
  });
}

/** A token's parts as somebody reads them who forgives everything. */
function read(token, context) {
  const texts = token.replace(/[\s\ufeff\0]/g, "").split(".").slice(0, 2).map((segment) => Buffer.from(segment, "base64url"));
  const values = texts.map((text) => {
    try {
      return JSON.parse(text.toString("utf8").replace(/^\ufeff/, ""));
    } catch {
      return {};
    }
  });
  const [header, claims] = values.map((value) => (typeof value === "object" && value !== null ? value : {}));
  return { token, texts: texts.map((text) => text.toString("latin1")), values, header: header ?? {}, claims: claims ?? {}, ...context };
}

const isCanonical = (token) => token.split(".").every((segment) => b64(Buffer.from(segment, "base64url")) === segment);

/** Finds a name that an object has twice, whatever the escapes. */
function hasMemberTwice(text) {
  const objects = [];
  let name;
  for (const [part] of text.matchAll(/"(?:[^"\\]|\\.)*"\s*:?|[{}]/gs)) {
    if (part === "{") objects.push(new Set());
    else if (part === "}") objects.pop();
    else if (part.endsWith(":")) {
      try {
        name = JSON.parse(part.slice(0, -1).trim());
      } catch {
        continue;
      }
      if (objects.at(-1)?.has(name)) return true;
      objects.at(-1)?.add(name);
    }
  }
  return false;
}

function isOddText(latin1) {
  const bytes = Buffer.from(latin1, "latin1");
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return text.startsWith("\ufeff") || /\\u[dD][89a-fA-F]/.test(text);
  } catch {
    return true;
  }
}

function isLarge(value, depth = 0) {
  if (typeof value !== "object" || value === null) return depth > 6;
  const items = Object.values(value);
  return depth > 6 || items.length > 128 || items.some((item) => isLarge(item, depth + 1));
}

function isAccessToken(typ, profile) {
  if (typeof typ !== "string") return false;
  const bare = typ.toLowerCase().replace(/^application\//, "");
  return bare === "at+jwt" || (profile === FOREIGN && bare === "jwt");
}

function hasOddParameter(header) {
  const texts = ["jku", "x5u", "x5t", "x5t#S256", "cty", "enc", "zip", "url", "nonce"];
  const chain = header.x5c;
  return (
    Object.hasOwn(header, "jwk") || texts.some((name) => Object.hasOwn(header, name) && typeof header[name] !== "string") ||
    (Object.hasOwn(header, "x5c") && !(Array.isArray(chain) && chain.every((item) => typeof item === "string")))
  );
}

function lacksOurs(claims) {
  const isUuid = (name) => typeof claims[name] === "string" && UUID.test(claims[name]);
  const isJti = isUuid("jti") && claims.jti[14] === "8" && /[89ab]/.test(claims.jti[19]) && parseInt(claims.jti.slice(0, 6), 16) === Math.floor(claims.exp / 3600);
  const isScope = claims.scope === undefined || (typeof claims.scope === "string" && /^[!#-[\]-~]+( [!#-[\]-~]+)*$/.test(claims.scope));
  return (
    !["sub", "client_id", "tenant_id", "credential_id"].every(isUuid) || !isJti || !isScope || claims.iat === undefined ||
    !(typeof claims.agent_type === "string" && /^[a-z_]{1,32}$/.test(claims.agent_type))
  );
}

function lacksTheirs(claims) {
  const isWord = (text) => typeof text === "string" && /^[!-~]{1,255}$/.test(text);
  const scopes = typeof claims.scope === "string" ? claims.scope.split(" ") : claims.scope;
  const isScope = !Object.hasOwn(claims, "scope") || (Array.isArray(scopes) && scopes.every((scope) => typeof scope === "string" && /^[!#-[\]-~]+$/.test(scope)));
  return !isWord(claims.sub) || (Object.hasOwn(claims, "jti") && !isWord(claims.jti)) || !isScope;
}

function isAudience(aud) {
  const values = Array.isArray(aud) ? aud : [aud];
  return values.length <= 16 && values.every((value) => typeof value === "string" && value !== "");
}

const isTime = (value) => Number.isSafeInteger(value) && value >= 0;
