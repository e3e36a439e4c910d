// A verifier of Token Status Lists, written from draft-ietf-oauth-status-list-21 and nothing of ours: no code is shared with the issuer, nor any assumption about it.

import { webcrypto } from "node:crypto";
import { inflateSync } from "node:zlib";

/** §7.1. */
export const STATUS = ["VALID", "INVALID", "SUSPENDED"];

/** What WebCrypto calls the algorithms of JOSE. */
const ALGORITHMS = {
  RS256: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" },
  PS256: { name: "RSA-PSS", hash: "SHA-256", saltLength: 32 },
  ES256: { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" },
  EdDSA: { name: "Ed25519" },
};

const decode = (part) => JSON.parse(Buffer.from(part, "base64url").toString("utf8"));

/**
 * The status at `index` of a status list (§4.1, §4.2).
 * @param {{bits: number, lst: string}} list
 * @param {number} index
 */
export function statusAt({ bits, lst }, index) {
  if (![1, 2, 4, 8].includes(bits)) throw new Error(`bits is ${bits}`);
  if (!/^[A-Za-z0-9_-]+$/.test(lst)) throw new Error("lst isn't base64url");
  const bytes = inflateSync(Buffer.from(lst, "base64url"));
  const perByte = 8 / bits;
  const place = Math.floor(index / perByte);
  // §8.3, step 6: nothing can be said.
  if (place >= bytes.length) throw new Error(`the index ${index} is out of bounds`);
  return (bytes[place] >> ((index % perByte) * bits)) & ((1 << bits) - 1);
}

/**
 * The claims of a Status List Token that is good for `uri` now (§8.3, steps 3 and 4).
 * @param {string} jwt
 * @param {{uri: string, keys: {kid: string, alg: string}[], now: number}} expected
 */
export async function readStatusListToken(jwt, { uri, keys, now }) {
  const parts = jwt.split(".");
  if (parts.length !== 3) throw new Error("not a JWS compact serialization");
  const [header, claims] = [decode(parts[0]), decode(parts[1])];
  if (header.typ !== "statuslist+jwt") throw new Error(`typ is ${header.typ}`);
  const jwk = keys.find(({ kid, alg }) => kid === header.kid && alg === header.alg);
  const algorithm = ALGORITHMS[header.alg];
  if (!jwk || !algorithm) throw new Error(`no key ${header.kid} for ${header.alg}`);
  const key = await webcrypto.subtle.importKey("jwk", jwk, algorithm, false, ["verify"]);
  const signed = Buffer.from(`${parts[0]}.${parts[1]}`);
  if (!(await webcrypto.subtle.verify(algorithm, key, Buffer.from(parts[2], "base64url"), signed))) throw new Error("the signature isn't valid");
  if (claims.sub !== uri) throw new Error(`sub is ${claims.sub}`);
  if (!Number.isInteger(claims.iat) || claims.iat > now + 5) throw new Error(`iat is ${claims.iat}`);
  if (claims.exp !== undefined && claims.exp <= now) throw new Error("the list has expired");
  if (claims.ttl !== undefined && !(claims.ttl > 0)) throw new Error(`ttl is ${claims.ttl}`);
  return claims;
}

/**
 * The status of a token whose own validity was checked before (§8.3).
 * @param {string} token
 * @param {{keys: {kid: string, alg: string}[]}} jwks
 * @param {(uri: string) => Promise<{contentType: string | null, text: string}>} fetchList
 */
export async function statusOf(token, { keys }, fetchList) {
  const reference = decode(token.split(".")[1]).status?.status_list;
  if (!reference) throw new Error("the token refers to no status list");
  const { idx, uri } = reference;
  if (!Number.isSafeInteger(idx) || idx < 0 || typeof uri !== "string") throw new Error("the reference is malformed");
  const { contentType, text } = await fetchList(uri);
  if (contentType !== "application/statuslist+jwt") throw new Error(`the list is ${contentType}`);
  const { status_list } = await readStatusListToken(text, { uri, keys, now: Math.floor(Date.now() / 1000) });
  return STATUS[statusAt(status_list, idx)] ?? "another";
}
