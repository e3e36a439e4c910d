// Keys of clients, and what they sign with them.

import crypto from "node:crypto";

/** @typedef {"ES256" | "EdDSA"} AssertionAlgorithm */
/** @typedef {ReturnType<typeof makeKey>} Key */

/** What stands before the key itself in the DER of a public key (RFC 5480, RFC 8410), in bytes. */
const PREFIX = { ES256: 27, EdDSA: 12 };

/**
 * By way of DER: in Node 20 a pair that was just generated may lock itself up for good when it is exported as a JWK.
 * @param {AssertionAlgorithm} algorithm
 */
export function makeKey(algorithm) {
  /** @type {any} */
  const der = { publicKeyEncoding: { type: "spki", format: "der" }, privateKeyEncoding: { type: "pkcs8", format: "der" } };
  /** @type {any} */
  const { publicKey, privateKey } = algorithm === "ES256" ? crypto.generateKeyPairSync("ec", { namedCurve: "P-256", ...der }) : crypto.generateKeyPairSync("ed25519", der);
  const point = publicKey.subarray(PREFIX[algorithm]);
  const part = (from, to) => point.subarray(from, to).toString("base64url");
  return {
    algorithm, privateKey: crypto.createPrivateKey({ key: privateKey, type: "pkcs8", format: "der" }),
    jwk: algorithm === "ES256" ? { kty: "EC", crv: "P-256", x: part(0, 32), y: part(32, 64) } : { kty: "OKP", crv: "Ed25519", x: part(0, 32) },
  };
}

/** Keys for so many clients, one after the other; making each a pair of its own would take longer than the benchmark. @param {number} count */
export function makeKeys(count) {
  const few = Array.from({ length: Math.min(count, 500) }, (_, place) => makeKey(place % 2 ? "EdDSA" : "ES256"));
  return Array.from({ length: count }, (_, place) => few[place % few.length]);
}

const b64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/**
 * The form of a client that authenticates by `private_key_jwt` (RFC 7523 §3), with an assertion that holds for four minutes and counts once.
 * @param {{id: string, key: Key}} client
 * @param {string} audience
 */
export function assertionForm({ id, key }, audience) {
  const now = Math.floor(Date.now() / 1000);
  const input = `${b64({ alg: key.algorithm, typ: "JWT" })}.${b64({ iss: id, sub: id, aud: audience, jti: crypto.randomUUID(), iat: now, exp: now + 240 })}`;
  const signature = key.algorithm === "ES256"
    ? crypto.sign("sha256", Buffer.from(input), { key: key.privateKey, dsaEncoding: "ieee-p1363" })
    : crypto.sign(null, Buffer.from(input), key.privateKey);
  return {
    client_id: id, client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", client_assertion: `${input}.${signature.toString("base64url")}`,
  };
}
