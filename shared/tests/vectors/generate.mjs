// Writes vectors.json: tokens with the verdict that every runtime must give (native Rust, WebAssembly in Node, WebAssembly in workerd).
//
//   node shared/tests/vectors/generate.mjs
//
// Tokens are made here with Node's crypto, by none of our own code, so that a mistake of ours cannot hide on both sides. The keys
// are drawn anew each time and thrown away: only tokens and public keys are kept.

import { createHmac, createSign, generateKeyPairSync, randomBytes, sign as rawSign } from "node:crypto";
import { writeFileSync } from "node:fs";

const NOW = 1_800_000_000;
const ISSUER = "https://issuer.example";
const AUDIENCE = "https://api.example";
const LEEWAY = 5;

const b64 = (data) => Buffer.from(data).toString("base64url");
const json = (value) => b64(JSON.stringify(value));

// ---- Keys

const pair = (type, options) => generateKeyPairSync(type, options);
const keys = {
  RS256: { kid: "rs", ...pair("rsa", { modulusLength: 2048 }) },
  PS256: { kid: "ps", ...pair("rsa", { modulusLength: 2048 }) },
  ES256: { kid: "es", ...pair("ec", { namedCurve: "P-256" }) },
  EdDSA: { kid: "ed", ...pair("ed25519") },
};
const stranger = pair("rsa", { modulusLength: 2048 });
const jwks = {
  keys: Object.entries(keys).map(([alg, { kid, publicKey }]) => ({
    ...publicKey.export({ format: "jwk" }),
    kid,
    alg,
    use: "sig",
  })),
};

const signWith = {
  RS256: (input, key) => rawSign("sha256", input, key),
  PS256: (input, key) => rawSign("sha256", input, { key, padding: 6, saltLength: 32 }),
  ES256: (input, key) => rawSign("sha256", input, { key, dsaEncoding: "ieee-p1363" }),
  EdDSA: (input, key) => rawSign(null, input, key),
};

/** Signs `header.payload`, both already encoded. */
function signed(header, payload, alg = "RS256", key = keys[alg].privateKey) {
  const input = `${header}.${payload}`;
  return `${input}.${b64(signWith[alg](Buffer.from(input), key))}`;
}

// ---- Good claims

const EXP = NOW + 600;

/** The jti at the coordinate of `exp`, laid out as docs/reference/formats.md says. */
function jti(exp, serial = 0x123456789n) {
  const shard = BigInt(Math.floor(exp / 3600));
  const tag = 0x0fedcba987654321n;
  const bits =
    (shard << 104n) | ((serial >> 12n) << 80n) | (8n << 76n) | ((serial & 0xfffn) << 64n) | (2n << 62n) | tag;
  return bits.toString(16).padStart(32, "0").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

const claims = (changes = {}) => {
  const exp = Number.isInteger(changes.exp) && changes.exp >= 0 ? changes.exp : EXP;
  const all = {
    iss: ISSUER,
    sub: "0b54d2c5-8f4b-4c55-9d2c-6d8f0a1b2c3d",
    client_id: "0b54d2c5-8f4b-4c55-9d2c-6d8f0a1b2c3d",
    aud: AUDIENCE,
    iat: NOW - 60,
    exp: EXP,
    jti: jti(exp),
    scope: "reports:read reports:write",
    tenant_id: "5f0c7a52-3c1e-4f6a-8a55-0f9d6f2b7e11",
    credential_id: "a1d5a6a0-6f0e-4b43-9a55-27f4bb1f8c02",
    agent_type: "screener",
    ...changes,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
};
const header = (changes = {}, alg = "RS256") => {
  const all = { alg, kid: keys[alg].kid, typ: "at+jwt", ...changes };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
};
const withClaims = (changes, alg) => signed(json(header({}, alg)), json(claims(changes)), alg);
const withHeader = (changes, alg) => signed(json(header(changes, alg)), json(claims()), alg);

// ---- Cases

const cases = [];
const expect = (verdict, name, token, now = NOW) => cases.push({ name, token, now, expect: verdict });
const accept = (name, token, now) => expect("accept", name, token, now);

for (const alg of Object.keys(keys)) {
  const token = withClaims({}, alg);
  accept(`${alg}: a good token`, token);

  // Signatures
  const [h, p, s] = token.split(".");
  const signature = Buffer.from(s, "base64url");
  const replaced = (bytes) => `${h}.${p}.${b64(bytes)}`;
  const flipped = (place) => {
    const copy = Buffer.from(signature);
    copy[place] ^= 1;
    return copy;
  };
  expect("bad_signature", `${alg}: first bit of the signature flipped`, replaced(flipped(0)));
  expect("bad_signature", `${alg}: last bit of the signature flipped`, replaced(flipped(signature.length - 1)));
  expect("bad_signature", `${alg}: signature of zeros`, replaced(Buffer.alloc(signature.length)));
  expect("bad_signature", `${alg}: signature of ones`, replaced(Buffer.alloc(signature.length, 0xff)));
  expect("bad_signature", `${alg}: signature of another token`, replaced(Buffer.from(withClaims({ iat: NOW - 61 }, alg).split(".")[2], "base64url")));
  expect("malformed", `${alg}: signature cut short`, replaced(signature.subarray(1)));
  expect("malformed", `${alg}: signature with a byte more`, replaced(Buffer.concat([signature, Buffer.alloc(1)])));
  expect("malformed", `${alg}: no signature`, `${h}.${p}.`);
  expect("bad_signature", `${alg}: payload exchanged`, `${h}.${json(claims({ scope: "admin" }))}.${s}`);
  expect("bad_signature", `${alg}: header extended`, `${json(header({ x: 1 }, alg))}.${p}.${s}`);

  // One token has one spelling: every other one of the same bytes is refused.
  const spellings = {
    "padding after the header": `${h}=.${p}.${s}`,
    "padding after the payload": `${h}.${p}=.${s}`,
    "padding after the signature": `${token}=`,
    "double padding after the signature": `${token}==`,
    "a space before": ` ${token}`,
    "a space after": `${token} `,
    "a newline after": `${token}\n`,
    "a space in the header": `${h.slice(0, 4)} ${h.slice(4)}.${p}.${s}`,
    "a newline in the payload": `${h}.${p.slice(0, 8)}\n${p.slice(8)}.${s}`,
    "a tab in the signature": `${h}.${p}.${s.slice(0, 8)}\t${s.slice(8)}`,
    "a zero byte after": `${token}\0`,
    "a zero byte in the signature": `${h}.${p}.${s.slice(0, 8)}\0${s.slice(8)}`,
    "a dot after": `${token}.`,
    "a dot before": `.${token}`,
    "a letter outside ASCII after": `${token}é`,
  };
  for (const [name, spelling] of Object.entries(spellings)) expect("malformed", `${alg}: ${name}`, spelling);
  // Bits that decoding throws away.
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const unused = { 2: 15, 3: 3 }[s.length % 4];
  for (let bits = 1; bits <= (unused ?? 0); bits++) {
    const last = alphabet[alphabet.indexOf(s.at(-1)) ^ bits];
    expect("malformed", `${alg}: trailing bits ${bits} of the signature`, `${h}.${p}.${s.slice(0, -1)}${last}`);
  }
  if (/[-_]/.test(s)) {
    expect("malformed", `${alg}: the signature in the other alphabet`, `${h}.${p}.${s.replace(/-/g, "+").replace(/_/g, "/")}`);
  }

  // The key decides the algorithm.
  for (const other of Object.keys(keys).filter((other) => other !== alg)) {
    expect("algorithm_mismatch", `${alg}'s kid with alg ${other}`, signed(json(header({ alg: other, kid: keys[alg].kid })), json(claims()), other));
  }
}

// The classics
const publicPem = keys.RS256.publicKey.export({ type: "spki", format: "pem" });
const hmac = (alg, secret, changes = {}) => {
  const input = `${json(header({ alg, ...changes }))}.${json(claims())}`;
  return `${input}.${b64(createHmac("sha256", secret).update(input).digest())}`;
};
const goodInput = `${json(header())}.${json(claims())}`;
for (const alg of ["none", "None", "NONE", "nOnE", ""]) {
  const input = `${json(header({ alg }))}.${json(claims())}`;
  expect("unsupported_algorithm", `alg ${JSON.stringify(alg)} without a signature`, `${input}.`);
  expect("unsupported_algorithm", `alg ${JSON.stringify(alg)} with a signature`, `${input}.${b64(randomBytes(256))}`);
}
expect("unsupported_algorithm", "HS256 with the public key's PEM as the secret", hmac("HS256", publicPem));
expect("unsupported_algorithm", "HS256 with the modulus as the secret", hmac("HS256", Buffer.from(jwks.keys[0].n, "base64url")));
expect("unsupported_algorithm", "HS256 with an empty secret", hmac("HS256", ""));
for (const alg of ["RS384", "RS512", "PS384", "ES384", "ES256K", "HS512", "rs256", "RS256 ", "EdDSA\0", "Ed448", "A256GCM"]) {
  expect("unsupported_algorithm", `alg ${JSON.stringify(alg)}`, signed(json(header({ alg })), json(claims())));
}
expect("bad_signature", "signed by a stranger under our kid", signed(json(header()), json(claims()), "RS256", stranger.privateKey));
expect("malformed", "the stranger's key comes along as jwk", signed(json(header({ jwk: stranger.publicKey.export({ format: "jwk" }) })), json(claims()), "RS256", stranger.privateKey));
expect("bad_signature", "the stranger's key comes along by jku", signed(json(header({ jku: "https://evil.example/jwks.json" })), json(claims()), "RS256", stranger.privateKey));
expect("bad_signature", "RS256 with a SHA-1 signature", `${goodInput}.${b64(createSign("sha1").update(goodInput).sign(keys.RS256.privateKey))}`);
expect("bad_signature", "RS256 with a SHA-512 signature", `${goodInput}.${b64(createSign("sha512").update(goodInput).sign(keys.RS256.privateKey))}`);
expect("bad_signature", "RS256 with PSS padding", `${goodInput}.${b64(signWith.PS256(Buffer.from(goodInput), keys.RS256.privateKey))}`);
{
  const input = `${json(header({}, "PS256"))}.${json(claims())}`;
  const salted = rawSign("sha256", Buffer.from(input), { key: keys.PS256.privateKey, padding: 6, saltLength: 20 });
  expect("bad_signature", "PS256 with a salt of 20 bytes", `${input}.${b64(salted)}`);
}
{
  const input = `${json(header({}, "ES256"))}.${json(claims())}`;
  const der = rawSign("sha256", Buffer.from(input), { key: keys.ES256.privateKey, dsaEncoding: "der" });
  expect("malformed", "ES256 with a DER signature", `${input}.${b64(der)}`);
  const order = Buffer.from("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", "hex");
  expect("bad_signature", "ES256 with r = s = n", `${input}.${b64(Buffer.concat([order, order]))}`);
}

// Header
for (const [name, changes, verdict] of [
  ["without alg", { alg: undefined }, "malformed"],
  ["alg a number", { alg: 256 }, "malformed"],
  ["alg null", { alg: null }, "malformed"],
  ["alg an array", { alg: ["RS256"] }, "malformed"],
  ["without kid", { kid: undefined }, "malformed"],
  ["kid a number", { kid: 1 }, "malformed"],
  ["kid null", { kid: null }, "malformed"],
  ["kid an array", { kid: ["rs"] }, "malformed"],
  ["kid empty", { kid: "" }, "unknown_key"],
  ["kid unknown", { kid: "nobody" }, "unknown_key"],
  ["kid in another case", { kid: "RS" }, "unknown_key"],
  ["kid with a space", { kid: "rs " }, "unknown_key"],
  ["kid a path", { kid: "../../rs" }, "unknown_key"],
  ["kid an injection", { kid: "rs' OR '1'='1" }, "unknown_key"],
  ["without typ", { typ: undefined }, "malformed"],
  ["typ JWT", { typ: "JWT" }, "wrong_type"],
  ["typ of an ID token", { typ: "id+jwt" }, "wrong_type"],
  ["typ of a revocation head", { typ: "revocation-head+jwt" }, "wrong_type"],
  ["typ with a parameter", { typ: "at+jwt; charset=utf-8" }, "wrong_type"],
  ["typ with a space", { typ: "at+jwt " }, "wrong_type"],
  ["typ of another tree", { typ: "text/at+jwt" }, "wrong_type"],
  ["typ empty", { typ: "" }, "wrong_type"],
  ["typ a number", { typ: 1 }, "malformed"],
  ["typ null", { typ: null }, "malformed"],
  ["typ in full", { typ: "application/at+jwt" }, "accept"],
  ["typ in capitals", { typ: "AT+JWT" }, "accept"],
  ["an unknown parameter", { "x-note": "ignored (RFC 7515 §4)" }, "accept"],
  ["jku", { jku: "https://issuer.example/jwks.json" }, "accept"],
  ["x5u", { x5u: "https://issuer.example/chain.pem" }, "accept"],
  ["x5t", { x5t: "dGh1bWI", "x5t#S256": "dGh1bWI" }, "accept"],
  ["x5c", { x5c: ["MIIB"] }, "accept"],
  ["cty", { cty: "json" }, "accept"],
  ["b64 that isn't marked critical", { b64: false }, "accept"],
  ["a jwk", { jwk: stranger.publicKey.export({ format: "jwk" }) }, "malformed"],
  ["our own jwk", { jwk: jwks.keys[0] }, "malformed"],
  ["jwk null", { jwk: null }, "malformed"],
  ["jku a number", { jku: 1 }, "malformed"],
  ["x5u null", { x5u: null }, "malformed"],
  ["x5t an array", { x5t: ["dGh1bWI"] }, "malformed"],
  ["x5t#S256 a number", { "x5t#S256": 1 }, "malformed"],
  ["x5c a string", { x5c: "MIIB" }, "malformed"],
  ["x5c of numbers", { x5c: [1] }, "malformed"],
  ["cty an object", { cty: {} }, "malformed"],
  ["zip true", { zip: true }, "malformed"],
  ["enc a number", { enc: 1 }, "malformed"],
  ["nonce a number", { nonce: 1 }, "malformed"],
  ["url a number", { url: 1 }, "malformed"],
  ["typ of a DPoP proof", { typ: "dpop+jwt" }, "wrong_type"],
  ["typ of a logout token", { typ: "logout+jwt" }, "wrong_type"],
  ["typ of a client's assertion", { typ: "client-authentication+jwt" }, "wrong_type"],
  ["typ of a key statement", { typ: "jwk-set+jwt" }, "wrong_type"],
  ["typ of an introspection response", { typ: "token-introspection+jwt" }, "wrong_type"],
  ["crit with an unknown extension", { crit: ["x"], x: 1 }, "critical_extension"],
  ["crit b64", { crit: ["b64"], b64: false }, "critical_extension"],
  ["crit exp", { crit: ["exp"], exp: EXP }, "critical_extension"],
  ["crit empty", { crit: [] }, "critical_extension"],
  ["crit null", { crit: null }, "critical_extension"],
  ["crit a string", { crit: "exp" }, "critical_extension"],
]) {
  expect(verdict, `header: ${name}`, withHeader(changes));
}
const good = header();
for (const [name, text] of [
  ["not JSON", "alg=RS256"],
  ["empty", ""],
  ["an array", "[]"],
  ["a string", '"RS256"'],
  ["null", "null"],
  ["cut short", JSON.stringify(good).slice(0, -1)],
  ["with a tail", `${JSON.stringify(good)}x`],
  ["with a second object", `${JSON.stringify(good)}{}`],
  ["with a byte order mark", `\ufeff${JSON.stringify(good)}`],
  ["with a trailing comma", JSON.stringify(good).replace("}", ",}")],
  ["with a comment", JSON.stringify(good).replace("{", "{/**/")],
  ["alg twice, the bad one first", `{"alg":"none",${JSON.stringify(good).slice(1)}`],
  ["alg twice, the bad one last", `${JSON.stringify(good).slice(0, -1)},"alg":"none"}`],
  ["alg twice, once escaped", `${JSON.stringify(good).slice(0, -1)},"\\u0061lg":"none"}`],
  ["kid twice", `${JSON.stringify(good).slice(0, -1)},"kid":"es"}`],
  ["nested too deeply", `${JSON.stringify(good).slice(0, -1)},"x":${"[".repeat(40)}${"]".repeat(40)}}`],
  ["with a lone surrogate", `${JSON.stringify(good).slice(0, -1)},"x":"\\ud800"}`],
]) {
  expect("malformed", `header: ${name}`, signed(b64(text), json(claims())));
}
accept("header: with white space", signed(b64(` { "typ" : "at+jwt" ,\n"alg":\t"RS256","kid":"rs" } `), json(claims())));
accept("header: with escapes", signed(b64('{"\\u0061lg":"RS256","kid":"r\\u0073","typ":"at+jwt"}'), json(claims())));
expect("malformed", "header: not UTF-8", signed(b64(Buffer.from('{"alg":"RS256","kid":"rs","typ":"at+jwt","x":"\xff"}', "latin1")), json(claims())));

// Segments and size
const token = withClaims({});
const [h, p, s] = token.split(".");
for (const [name, text] of [
  ["nothing", ""],
  ["one dot", "."],
  ["two dots", ".."],
  ["one segment", h],
  ["two segments", `${h}.${p}`],
  ["four segments", `${token}.${s}`],
  ["five segments, as of a JWE", `${h}.${p}.${s}.${p}.${s}`],
  ["no header", `.${p}.${s}`],
  ["no payload", `${h}..${s}`],
  ["a word", "undefined"],
  ["JSON serialization", JSON.stringify({ payload: p, signatures: [{ protected: h, signature: s }] })],
  ["a header of one letter", `A.${p}.${s}`],
]) {
  // Without a payload the signature is what fails: an empty segment is a well-formed one.
  expect(name === "no payload" ? "bad_signature" : "malformed", `segments: ${name}`, text);
}
const padded = (bytes) => {
  const room = withClaims({ note: "" }).length;
  for (let length = Math.floor(((bytes - room) * 3) / 4) - 4; ; length++) {
    const candidate = withClaims({ note: "x".repeat(length) });
    if (candidate.length >= bytes) return candidate;
  }
};
accept("size: just below the limit", padded(8189));
expect("too_large", "size: just over the limit", padded(8193));
expect("too_large", "size: far over the limit", padded(30_000));
expect("too_large", "size: rubbish over the limit", "x".repeat(8193));

// Claims: each absent, each of each wrong type
const wrong = { "a number": 7, "a string": "x y", null: null, true: true, "an array": [7], "an object": { a: 1 }, "an empty string": "" };
const kinds = {
  iss: ["a number", "null", "true", "an array", "an object"],
  sub: Object.keys(wrong),
  client_id: Object.keys(wrong),
  aud: ["a number", "null", "true", "an array", "an object", "an empty string"],
  iat: ["a string", "null", "true", "an array", "an object", "an empty string"],
  exp: ["a string", "null", "true", "an array", "an object", "an empty string"],
  nbf: ["a string", "null", "true", "an array", "an object", "an empty string"],
  jti: Object.keys(wrong),
  scope: ["a number", "null", "true", "an array", "an object", "an empty string"],
  tenant_id: Object.keys(wrong),
  credential_id: Object.keys(wrong),
  agent_type: Object.keys(wrong),
};
for (const [claim, bad] of Object.entries(kinds)) {
  if (claim === "nbf" || claim === "scope") accept(`claims: without ${claim}`, withClaims({ [claim]: undefined }));
  else expect("missing_claim", `claims: without ${claim}`, withClaims({ [claim]: undefined }));
  for (const kind of bad) expect("invalid_claim", `claims: ${claim} is ${kind}`, withClaims({ [claim]: wrong[kind] }));
}
for (const [name, changes, verdict] of [
  ["iss empty", { iss: "" }, "wrong_issuer"],
  ["iss with a slash more", { iss: `${ISSUER}/` }, "wrong_issuer"],
  ["iss in capitals", { iss: ISSUER.toUpperCase() }, "wrong_issuer"],
  ["iss of http", { iss: "http://issuer.example" }, "wrong_issuer"],
  ["iss a longer host", { iss: `${ISSUER}.evil.example` }, "wrong_issuer"],
  ["aud of another API", { aud: "https://other.example" }, "wrong_audience"],
  ["aud with a slash more", { aud: `${AUDIENCE}/` }, "wrong_audience"],
  ["aud a longer name", { aud: `${AUDIENCE}.evil.example` }, "wrong_audience"],
  ["aud the issuer", { aud: ISSUER }, "wrong_audience"],
  ["aud an empty array", { aud: [] }, "invalid_claim"],
  ["aud with an empty string", { aud: [AUDIENCE, ""] }, "invalid_claim"],
  ["aud with a number", { aud: [AUDIENCE, 1] }, "invalid_claim"],
  ["aud of 17", { aud: Array.from({ length: 17 }, () => AUDIENCE) }, "invalid_claim"],
  ["aud of 16", { aud: Array.from({ length: 16 }, () => AUDIENCE) }, "accept"],
  ["aud an array with us in it", { aud: ["https://other.example", AUDIENCE] }, "accept"],
  ["aud an array without us", { aud: ["https://other.example"] }, "wrong_audience"],
  ["exp negative", { exp: -1 }, "invalid_claim"],
  ["exp in milliseconds", { exp: EXP * 1000 }, "invalid_claim"],
  ["exp fractional", { exp: EXP + 0.5 }, "invalid_claim"],
  ["exp huge", { exp: 1e300 }, "invalid_claim"],
  ["iat negative", { iat: -1 }, "invalid_claim"],
  ["iat fractional", { iat: NOW - 0.5 }, "invalid_claim"],
  ["iat in milliseconds", { iat: NOW * 1000 }, "issued_in_the_future"],
  ["nbf negative", { nbf: -5 }, "invalid_claim"],
  ["sub in capitals", { sub: "0B54D2C5-8F4B-4C55-9D2C-6D8F0A1B2C3D" }, "invalid_claim"],
  ["sub without hyphens", { sub: "0b54d2c58f4b4c559d2c6d8f0a1b2c3d" }, "invalid_claim"],
  ["sub in braces", { sub: "{0b54d2c5-8f4b-4c55-9d2c-6d8f0a1b2c3d}" }, "invalid_claim"],
  ["jti a UUIDv4", { jti: "0b54d2c5-8f4b-4c55-9d2c-6d8f0a1b2c3d" }, "invalid_claim"],
  ["jti in capitals", { jti: jti(EXP).toUpperCase() }, "invalid_claim"],
  ["jti of another shard", { jti: jti(EXP + 7200) }, "invalid_claim"],
  ["scope with two spaces", { scope: "a  b" }, "invalid_claim"],
  ["scope with a leading space", { scope: " a" }, "invalid_claim"],
  ["scope with a trailing space", { scope: "a " }, "invalid_claim"],
  ["scope with a quote", { scope: 'a"b' }, "invalid_claim"],
  ["scope with a backslash", { scope: "a\\b" }, "invalid_claim"],
  ["scope with a newline", { scope: "a\nx-countersign-agent: root" }, "invalid_claim"],
  ["scope outside ASCII", { scope: "é" }, "invalid_claim"],
  ["scope of one", { scope: "a" }, "accept"],
  ["agent_type with a newline", { agent_type: "a\nb" }, "invalid_claim"],
  ["agent_type in capitals", { agent_type: "Screener" }, "invalid_claim"],
  ["agent_type of 33 letters", { agent_type: "a".repeat(33) }, "invalid_claim"],
  ["agent_type of 32 letters", { agent_type: "a".repeat(32) }, "accept"],
  ["an unknown claim", { note: { any: ["thing"] } }, "accept"],
]) {
  expect(verdict, `claims: ${name}`, withClaims(changes));
}

// Time, to the second
for (const [name, changes, now, verdict] of [
  ["a second before exp", {}, EXP - 1, "accept"],
  ["at exp", {}, EXP, "expired"],
  ["a second after exp", {}, EXP + 1, "expired"],
  ["long after exp", {}, EXP + 31_536_000, "expired"],
  ["exp zero", { exp: 0, iat: 0 }, NOW, "expired"],
  ["iat now", { iat: NOW }, NOW, "accept"],
  ["iat at the leeway", { iat: NOW + LEEWAY }, NOW, "accept"],
  ["iat a second past the leeway", { iat: NOW + LEEWAY + 1 }, NOW, "issued_in_the_future"],
  ["iat long ago", { iat: 0 }, NOW, "accept"],
  ["iat equal to exp", { iat: EXP }, EXP - 5, "invalid_claim"],
  ["iat after exp", { iat: EXP + 1 }, EXP - 4, "invalid_claim"],
  ["nbf now", { nbf: NOW }, NOW, "accept"],
  ["nbf past", { nbf: NOW - 1000 }, NOW, "accept"],
  ["nbf at the leeway", { nbf: NOW + LEEWAY }, NOW, "accept"],
  ["nbf a second past the leeway", { nbf: NOW + LEEWAY + 1 }, NOW, "not_yet_valid"],
]) {
  expect(verdict, `time: ${name}`, withClaims(changes), now);
}

// Payload
const text = JSON.stringify(claims());
for (const [name, body] of [
  ["not JSON", "iss=x"],
  ["an array", "[]"],
  ["null", "null"],
  ["cut short", text.slice(0, -1)],
  ["with a tail", `${text} x`],
  ["exp twice", `${text.slice(0, -1)},"exp":${EXP + 1}}`],
  ["aud twice", `${text.slice(0, -1)},"aud":"https://other.example"}`],
  ["scope twice, once escaped", `${text.slice(0, -1)},"sc\\u006fpe":"admin"}`],
  ["a member twice in a nested object", `${text.slice(0, -1)},"x":{"a":1,"a":2}}`],
  ["nested too deeply", `${text.slice(0, -1)},"x":${"[".repeat(40)}${"]".repeat(40)}}`],
  ["with a leading zero", text.replace(`"exp":${EXP}`, `"exp":0${EXP}`)],
  ["with NaN", text.replace(`"exp":${EXP}`, '"exp":NaN')],
  ["with a raw newline in a string", text.replace("screener", "scree\nner")],
  ["with a lone surrogate", `${text.slice(0, -1)},"x":"\\udfff"}`],
  ["empty", "{"],
]) {
  expect("malformed", `payload: ${name}`, signed(json(header()), b64(body)));
}
expect("malformed", "payload: not UTF-8", signed(json(header()), b64(Buffer.from(`${text.slice(0, -1)},"x":"\xff"}`, "latin1"))));
expect("missing_claim", "payload: an empty object", signed(json(header()), b64("{}")));
expect("invalid_claim", "payload: exp in exponent form", signed(json(header()), b64(text.replace(`"exp":${EXP}`, `"exp":${EXP / 1e8}e8`))));

// Bound to a key: whatever the method, and whatever it is (RFC 7800 §3, RFC 8705 §3.1, RFC 9449 §6.1).
for (const [name, cnf] of Object.entries({
  "jkt, as of DPoP": { jkt: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" },
  "x5t#S256, as of mutual TLS": { "x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2" },
  "jwk": { jwk: jwks.keys[3] },
  "kid": { kid: "ed" },
  "jku": { jku: "https://issuer.example/keys", kid: "ed" },
  "of an unknown method": { x: 1 },
  "empty": {},
  "null": null,
  "a string": "jkt",
  "false": false,
  "an array": [],
})) {
  expect("proof_required", `cnf: ${name}`, withClaims({ cnf }));
}
for (const alg of Object.keys(keys)) expect("proof_required", `cnf: under ${alg}`, withClaims({ cnf: { jkt: "x" } }, alg));
expect("bad_signature", "cnf: with a signature that doesn't hold", `${withClaims({ cnf: {} }).slice(0, -8)}AAAAAAAA`);
expect("proof_required", "cnf: its name escaped", signed(json(header()), b64(`${text.slice(0, -1)},"c\\u006ef":{}}`)));
accept("cnf: in another case, which is another claim", withClaims({ CNF: {} }));

// Algebra of ECDSA and EdDSA: what is a signature by one equation and not by another.
{
  const order = BigInt("0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
  const token = withClaims({}, "ES256");
  const [h, p, s] = token.split(".");
  const bytes = Buffer.from(s, "base64url");
  const number = (from) => BigInt(`0x${bytes.subarray(from, from + 32).toString("hex")}`);
  const with32 = (value) => Buffer.from(value.toString(16).padStart(64, "0"), "hex");
  const [r, second] = [number(0), number(32)];
  const signature = (first, last) => `${h}.${p}.${b64(Buffer.concat([with32(first), with32(last)]))}`;
  accept("ES256: s", signature(r, second));
  accept("ES256: n − s, which holds as well (docs/design.md)", signature(r, order - second));
  expect("bad_signature", "ES256: r of 0", signature(0n, second));
  expect("bad_signature", "ES256: s of 0", signature(r, 0n));
  expect("bad_signature", "ES256: r of n", signature(order, second));
  expect("bad_signature", "ES256: s of n", signature(r, order));
  expect("bad_signature", "ES256: r and s exchanged", signature(second, r));
  // What is larger than the order by it has another spelling, where it fits into 32 bytes.
  if (second + order < 1n << 256n) expect("bad_signature", "ES256: s + n", signature(r, second + order));
}
{
  const order = (1n << 252n) + 27742317777372353535851937790883648493n;
  const token = withClaims({}, "EdDSA");
  const [h, p, s] = token.split(".");
  const bytes = Buffer.from(s, "base64url");
  const second = BigInt(`0x${Buffer.from(bytes.subarray(32)).reverse().toString("hex")}`);
  const little = (value) => Buffer.from(value.toString(16).padStart(64, "0"), "hex").reverse();
  const signature = (r, last) => `${h}.${p}.${b64(Buffer.concat([r, little(last)]))}`;
  expect("bad_signature", "EdDSA: S + L (RFC 8032 §5.1.7)", signature(bytes.subarray(0, 32), second + order));
  expect("bad_signature", "EdDSA: R the neutral element, S of 0", signature(Buffer.from([1, ...Array(31).fill(0)]), 0n));
  expect("bad_signature", "EdDSA: R in another spelling", signature(Buffer.alloc(32, 0xff), second));
}

// Every place of a token, spoiled: whatever it is refused for, it is refused. (A letter of the header may spoil JSON, kid, alg or typ.)
// Counted under one verdict: "refuse" stands for any reason.
for (const alg of Object.keys(keys)) {
  const token = withClaims({}, alg);
  for (let place = 0; place < token.length; place += Math.ceil(token.length / 40)) {
    const letter = token[place] === "." ? "_" : token[place] === "A" ? "B" : "A";
    expect("refuse", `${alg}: character ${place} exchanged`, token.slice(0, place) + letter + token.slice(place + 1));
    expect("refuse", `${alg}: character ${place} left out`, token.slice(0, place) + token.slice(place + 1));
    expect("refuse", `${alg}: character ${place} doubled`, token.slice(0, place) + token[place] + token.slice(place));
  }
}

// The documents' own examples. None of them is an access token of ours: what they show is that nothing of theirs is mistaken for one.
const es256OfRfc7515 = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
for (const [name, token, verdict] of [
  ["RFC 7515 §A.1, HS256", "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "unsupported_algorithm"],
  ["RFC 7515 §A.3, ES256 without typ", `${es256OfRfc7515}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q`, "malformed"],
  ["RFC 7515 §A.4, ES512", "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AA", "unsupported_algorithm"],
  ["RFC 7515 §A.5, unsecured", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.", "unsupported_algorithm"],
  ["RFC 7515 §A.6, general JSON serialization", '{"payload":"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ","signatures":[{"protected":"eyJhbGciOiJFUzI1NiJ9","header":{"kid":"e9bc097a-ce51-4036-9562-d2ade882db0d"},"signature":"DtEhU3lj"}]}', "malformed"],
  ["RFC 7515 §E, a critical extension", `${b64('{"alg":"none",\r\n "crit":["http://example.invalid/UNDEFINED"],\r\n "http://example.invalid/UNDEFINED":true\r\n}')}.RkFJTA.`, "unsupported_algorithm"],
  ["RFC 7519 §3.1", "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "unsupported_algorithm"],
  ["RFC 7519 §6.1, unsecured", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.", "unsupported_algorithm"],
  ["RFC 7520 §4.1's header, RS256 without typ", `${json({ alg: "RS256", kid: "bilbo.baggins@hobbiton.example" })}.${json(claims())}.AA`, "malformed"],
  ["RFC 7520 §4.2's header, PS384", `${json({ alg: "PS384", kid: "bilbo.baggins@hobbiton.example" })}.${json(claims())}.AA`, "unsupported_algorithm"],
  ["RFC 7520 §4.3's header, ES512", `${json({ alg: "ES512", kid: "bilbo.baggins@hobbiton.example" })}.${json(claims())}.AA`, "unsupported_algorithm"],
  ["RFC 7520 §4.4's header, HS256", `${json({ alg: "HS256", kid: "018c0ae5-4d9b-471b-bfd6-eef314bc7037" })}.${json(claims())}.AA`, "unsupported_algorithm"],
  ["RFC 7797 §4.1, detached and unencoded", `${b64('{"alg":"HS256","b64":false,"crit":["b64"]}')}..A5dxf2s96_n5FLueVuW1Z_vh161FwXZC4YLPff6dmDY`, "unsupported_algorithm"],
  ["RFC 8037 §A.4", "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg", "malformed"],
]) {
  expect(verdict, `${name}`, token);
}
// RFC 9068 §2.2's example, made ours: signed as its header says, with the claims that it has and ours lacks.
expect("unknown_key", "RFC 9068 §2.2's header", signed(json({ typ: "at+JWT", alg: "RS256", kid: "RjEwOwOA" }), json(claims())));
expect("invalid_claim", "RFC 9068 §2.2's claims", signed(json(header({ typ: "at+JWT" })), json({
  iss: ISSUER, sub: "5ba552d67", aud: "https://rs.example.com/", exp: 1639528912, iat: 1618354090, jti: "dbe39bf3a3ba4238a513f51d6e1691c4",
  client_id: "s6BhdRkqt3", scope: "openid profile reademail",
})));

// ---- Other issuers

const FOREIGN = "https://login.partner.example/tenant";
const ODD = "urn:partner:jwt";
const foreignKeys = {
  // Named as one of ours.
  RS256: { kid: "rs", ...pair("rsa", { modulusLength: 2048 }) },
  ES256: { kid: "partner-es", ...pair("ec", { namedCurve: "P-256" }) },
  EdDSA: { kid: "partner-ed", ...pair("ed25519") },
};
const oddKeys = { EdDSA: { kid: "ed", ...pair("ed25519") } };
const publicSet = (keys, named = true) => ({
  keys: Object.entries(keys).map(([alg, { kid, publicKey }]) => ({ ...publicKey.export({ format: "jwk" }), kid, use: "sig", ...(named && { alg }) })),
});
const trusted = [
  {
    settings: { issuer: FOREIGN, jwks_uri: "https://login.partner.example/keys", algorithms: ["RS256", "ES256"] },
    jwks: {
      keys: [
        ...publicSet(foreignKeys).keys,
        // None of these is sound, and none takes the others down.
        { kty: "oct", kid: "secret", alg: "HS256", k: "AAAA" },
        { ...jwks.keys[2], kid: "off-the-curve", y: jwks.keys[2].x },
      ],
    },
  },
  {
    settings: {
      issuer: ODD, jwks_uri: "https://odd.example/keys", algorithms: ["EdDSA"], audiences: ["odd"], typ: ["JWT", "none"], clock_leeway_seconds: 60,
      agent_claim: "azp", tenant_claim: "org", agent_type: "router", scope_claim: "permissions",
    },
    jwks: publicSet(oddKeys, false),
  },
];
const partnerClaims = (changes = {}) => without({
  iss: FOREIGN, sub: "auth0|5f7c8ec7c33c6c004bbafe82", aud: [AUDIENCE, "https://login.partner.example/userinfo"], iat: NOW - 60, exp: EXP,
  scope: "reports:read x", azp: "client", ...changes,
});
const oddClaims = (changes = {}) => without({
  iss: ODD, sub: "somebody", azp: "agent-7", org: "acme", aud: "odd", exp: EXP, permissions: ["a:read", "b:write"], ...changes,
});
const without = (all) => Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
const partner = (changes = {}, head = {}, alg = "RS256", key = foreignKeys[alg]) =>
  signed(json(without({ alg, kid: key.kid, typ: "at+jwt", ...head })), json(partnerClaims(changes)), alg, key.privateKey);
const odd = (changes = {}, head = {}) =>
  signed(json(without({ alg: "EdDSA", kid: "ed", typ: "JWT", ...head })), json(oddClaims(changes)), "EdDSA", oddKeys.EdDSA.privateKey);
const foreign = (verdict, name, token, now = NOW, who = undefined) =>
  cases.push({ name: `foreign: ${name}`, token, now, expect: verdict, ...(who !== undefined && { identity: who }) });
const PARTNER = { issuer: FOREIGN, agent: "auth0|5f7c8ec7c33c6c004bbafe82", tenant: "", credential: "", agentType: "", scope: "reports:read x", jti: "" };
const ODDS = { issuer: ODD, agent: "agent-7", tenant: "acme", credential: "", agentType: "router", scope: "a:read b:write", jti: "" };

foreign("accept", "a good token, under a kid that is one of ours too", partner(), NOW, PARTNER);
foreign("accept", "ES256", partner({}, {}, "ES256"), NOW, PARTNER);
foreign("accept", "a jti goes along", partner({ jti: "a-b.c" }), NOW, { ...PARTNER, jti: "a-b.c" });
foreign("accept", "without iat", partner({ iat: undefined }), NOW, PARTNER);
foreign("accept", "without scope", partner({ scope: undefined }), NOW, { ...PARTNER, scope: "" });
foreign("accept", "scope an array", partner({ scope: ["reports:read", "x"] }), NOW, PARTNER);
foreign("accept", "mapped claims, a key without alg", odd(), NOW, ODDS);
foreign("accept", "without typ, where that is allowed", odd({}, { typ: undefined }), NOW, ODDS);
foreign("accept", "a leeway of its own", odd({ iat: NOW + 60, nbf: NOW + 60 }), NOW, ODDS);

// Neither is taken for the other, whatever the keys are called.
foreign("bad_signature", "their name, our key", signed(json(header()), json(partnerClaims()), "RS256").replace(/.{4}$/, "AAAA"));
foreign("bad_signature", "their name, signed by us", signed(json(header()), json(partnerClaims({ ...claims(), iss: FOREIGN }))));
foreign("bad_signature", "our name, signed by them", signed(json(header()), json(claims()), "RS256", foreignKeys.RS256.privateKey));
foreign("unknown_key", "our name, their kid", signed(json(header({ kid: "partner-es", alg: "ES256" })), json(claims()), "ES256", foreignKeys.ES256.privateKey));
foreign("unknown_key", "one's name, the other's kid", signed(json({ alg: "ES256", kid: "nobody", typ: "at+jwt" }), json(partnerClaims()), "ES256", foreignKeys.ES256.privateKey));
foreign("bad_signature", "one's name, the other's key", signed(json({ alg: "EdDSA", kid: "ed", typ: "JWT" }), json(oddClaims()), "EdDSA", keys.EdDSA.privateKey));
foreign("unsupported_algorithm", "a key that it has, an algorithm that it isn't trusted for", partner({}, {}, "EdDSA"));
foreign("unknown_key", "its off-curve key", partner({}, { alg: "ES256", kid: "off-the-curve" }, "ES256"));
foreign("unsupported_algorithm", "its symmetric key", partner({}, { alg: "HS256", kid: "secret" }));
foreign("algorithm_mismatch", "another alg than the key's", partner({}, { alg: "ES256", kid: "rs" }, "ES256"));
foreign("wrong_issuer", "a third issuer's name, signed by us", signed(json(header()), json(claims({ iss: "https://third.example" }))));
for (const [name, iss, verdict] of [
  ["a slash more", `${FOREIGN}/`, "bad_signature"],
  ["in capitals", FOREIGN.toUpperCase(), "bad_signature"],
  ["an array", [FOREIGN], "bad_signature"],
  ["absent", undefined, "bad_signature"],
  ["null", null, "bad_signature"],
]) {
  // Of nobody who is trusted; by our own demands it is looked at, and our key of that kid didn't sign it.
  foreign(verdict, `iss ${name}`, partner({ iss }));
}
for (const [name, changes, verdict] of [
  ["without aud", { aud: undefined }, "missing_claim"],
  ["aud empty", { aud: [] }, "invalid_claim"],
  ["aud a number", { aud: 1 }, "invalid_claim"],
  ["aud of another", { aud: "https://other.example" }, "wrong_audience"],
  ["aud of the other issuer's tokens", { aud: "odd" }, "wrong_audience"],
  ["without exp", { exp: undefined }, "missing_claim"],
  ["exp a string", { exp: String(EXP) }, "invalid_claim"],
  ["exp fractional", { exp: EXP + 0.5 }, "invalid_claim"],
  ["exp null", { exp: null }, "invalid_claim"],
  ["exp now", { exp: NOW }, "expired"],
  ["exp in a second", { exp: NOW + 1 }, "accept"],
  ["iat at the leeway", { iat: NOW + LEEWAY }, "accept"],
  ["iat past the leeway", { iat: NOW + LEEWAY + 1 }, "issued_in_the_future"],
  ["iat fractional", { iat: NOW - 0.5 }, "invalid_claim"],
  ["iat at exp", { iat: NOW + 1, exp: NOW + 1 }, "invalid_claim"],
  ["nbf at the leeway", { nbf: NOW + LEEWAY }, "accept"],
  ["nbf past the leeway", { nbf: NOW + LEEWAY + 1 }, "not_yet_valid"],
  ["nbf a string", { nbf: "0" }, "invalid_claim"],
  ["without sub", { sub: undefined }, "missing_claim"],
  ["sub a number", { sub: 7 }, "invalid_claim"],
  ["sub empty", { sub: "" }, "invalid_claim"],
  ["sub with a newline", { sub: "a\nx-countersign-agent: root" }, "invalid_claim"],
  ["sub with a space", { sub: "a b" }, "invalid_claim"],
  ["sub outside ASCII", { sub: "é" }, "invalid_claim"],
  ["sub of 256", { sub: "a".repeat(256) }, "invalid_claim"],
  ["sub of 255", { sub: "a".repeat(255) }, "accept"],
  ["scope with two spaces", { scope: "a  b" }, "invalid_claim"],
  ["scope a number", { scope: 1 }, "invalid_claim"],
  ["scope an array with a space in it", { scope: ["a b"] }, "invalid_claim"],
  ["scope an array with a number", { scope: ["a", 1] }, "invalid_claim"],
  ["jti a number", { jti: 1 }, "invalid_claim"],
  ["jti with a newline", { jti: "a\nb" }, "invalid_claim"],
  ["cnf", { cnf: { jkt: "x" } }, "proof_required"],
  ["an ID token by nonce", { nonce: "n" }, "wrong_type"],
  ["an ID token by at_hash", { at_hash: "x" }, "wrong_type"],
  ["an ID token by c_hash", { c_hash: "x" }, "wrong_type"],
  ["a logout token", { events: { "http://schemas.openid.net/event/backchannel-logout": {} } }, "wrong_type"],
]) {
  foreign(verdict, name, partner(changes));
}
for (const [name, head, verdict] of [
  ["typ JWT, where it isn't allowed", { typ: "JWT" }, "wrong_type"],
  ["without typ, where that isn't allowed", { typ: undefined }, "malformed"],
  ["typ null", { typ: null }, "malformed"],
  ["typ empty", { typ: "" }, "wrong_type"],
  ["crit", { crit: ["exp"] }, "critical_extension"],
  ["without kid", { kid: undefined }, "malformed"],
  ["kid unknown", { kid: "nobody" }, "unknown_key"],
  ["a jwk comes along", { jwk: jwks.keys[0] }, "malformed"],
  ["alg none", { alg: "none" }, "unsupported_algorithm"],
]) {
  foreign(verdict, name, partner({}, head));
}
for (const [name, changes, head, verdict] of [
  ["typ at+jwt, where it isn't named", {}, { typ: "at+jwt" }, "wrong_type"],
  ["typ empty, where it may be absent", {}, { typ: "" }, "wrong_type"],
  ["typ null, where it may be absent", {}, { typ: null }, "malformed"],
  ["a leeway of its own, passed", { iat: NOW + 61 }, {}, "issued_in_the_future"],
  ["without the agent's claim", { azp: undefined }, {}, "missing_claim"],
  ["without the tenant's claim", { org: undefined }, {}, "missing_claim"],
  ["the tenant's claim a number", { org: 1 }, {}, "invalid_claim"],
  ["for the edge's audience, which isn't this issuer's", { aud: AUDIENCE }, {}, "wrong_audience"],
  ["an ID token, where JWT is allowed", { nonce: "n" }, {}, "wrong_type"],
]) {
  foreign(verdict, `mapped: ${name}`, odd(changes, head));
}
{
  const token = partner({}, {}, "ES256");
  const [h, p, s] = token.split(".");
  for (const [name, spelling] of Object.entries({
    "padding after the signature": `${token}==`, "a space in the signature": `${h}.${p}.${s.slice(0, 8)} ${s.slice(8)}`, "a newline after": `${token}\n`, "a fourth segment": `${token}.${s}`,
  })) {
    foreign("malformed", name, spelling);
  }
  for (let place = 0; place < token.length; place += Math.ceil(token.length / 40)) {
    const letter = token[place] === "." ? "_" : token[place] === "A" ? "B" : "A";
    foreign("refuse", `character ${place} exchanged`, token.slice(0, place) + letter + token.slice(place + 1));
  }
  const twice = b64(`${JSON.stringify(partnerClaims()).slice(0, -1)},"iss":"${ISSUER}"}`);
  foreign("unknown_key", "iss twice", signed(json({ alg: "ES256", kid: "partner-es", typ: "at+jwt" }), twice, "ES256", foreignKeys.ES256.privateKey));
}
foreign("too_large", "over the limit", partner({ note: "x".repeat(9000) }));

// ---- Key sets: what is refused when it comes in needn't be looked at when it is used

const SAYS = {
  malformed: "the JWK Set is not well-formed (RFC 7517)",
  private: "the JWK Set contains private or symmetric key material",
  kid: "a key's kid is empty or over 128 bytes",
  twice: "two keys have the same kid",
  type: "a key's kty or crv does not go with its alg",
  size: "an RSA modulus is not of 2048 to 4096 bits, or a coordinate is not of 32 bytes",
  exponent: "an RSA exponent is not 65537",
  point: "a key is no point of its curve, or one of small order",
  empty: "the JWK Set has no usable signature key (kid, alg and use=sig)",
  long: "the JWK Set is over 64 KiB",
};
const [RSA, , EC, OKP] = jwks.keys;
const keySets = [];
/** `expect`: how many keys count, or why there are none. Sets are text, so that what no JSON library would write can be in them. */
const keySet = (expect, name, ...given) => keySets.push({ name, jwks: JSON.stringify({ keys: given }), expect: typeof expect === "number" ? `${expect}` : SAYS[expect] });
const modulus = (bytes, change = () => undefined) => {
  const n = Buffer.alloc(bytes, 0xaa);
  n[bytes - 1] |= 1;
  change(n);
  return { ...RSA, n: b64(n) };
};
const bytes32 = (number) => b64(Buffer.from(number.toString(16).padStart(64, "0"), "hex"));
const P = 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n;
keySet(4, "ours", ...jwks.keys);
keySet(1, "RSA of 2048 bits", modulus(256));
keySet(1, "RSA of 3072 bits", modulus(384));
keySet(1, "RSA of 4096 bits", modulus(512));
keySet("size", "RSA of 1024 bits", modulus(128));
keySet("size", "RSA of 2047 bits", modulus(256, (n) => (n[0] = 0x7f)));
keySet("size", "RSA of 2040 bits", modulus(255));
keySet("size", "RSA of 4097 bits", modulus(513, (n) => (n[0] = 1)));
keySet("size", "RSA of 8192 bits", modulus(1024));
keySet("size", "RSA with a leading zero", modulus(257, (n) => (n[0] = 0)));
keySet("size", "RSA with an even modulus", modulus(256, (n) => (n[255] = 0xaa)));
keySet("size", "RSA without a bit", { ...RSA, n: "" });
for (const [name, e] of [["1", "AQ"], ["2", "Ag"], ["3", "Aw"], ["17", "EQ"], ["65539", "AQAD"], ["65537 with a leading zero", "AAEAAQ"], ["of 33 bits", "AQAAAAE"], ["nothing", ""]]) {
  keySet("exponent", `RSA with the exponent ${name}`, { ...RSA, e });
}
for (const name of ["n", "e"]) {
  keySet("malformed", `RSA without ${name}`, { ...RSA, [name]: undefined });
  keySet("malformed", `RSA with ${name} a number`, { ...RSA, [name]: 65537 });
  keySet("malformed", `RSA with ${name} padded`, { ...RSA, [name]: `${RSA[name]}==` });
  keySet("malformed", `RSA with a space in ${name}`, { ...RSA, [name]: ` ${RSA[name]}` });
}
keySet("type", "RSA for ES256", { ...RSA, alg: "ES256" });
keySet("type", "RSA for EdDSA", { ...RSA, alg: "EdDSA" });
keySet("type", "RSA with a curve", { ...RSA, crv: "P-256" });
keySet("malformed", "without kty", { ...RSA, kty: undefined });
keySet("type", "kty in lower case", { ...RSA, kty: "rsa" });
keySet("point", "P-256: y that isn't x's", { ...EC, y: EC.x });
keySet("point", "P-256: x and y exchanged", { ...EC, x: EC.y, y: EC.x });
keySet("point", "P-256: (0, 0)", { ...EC, x: bytes32(0n), y: bytes32(0n) });
keySet("point", "P-256: x of p", { ...EC, x: bytes32(P) });
keySet("point", "P-256: y of 2²⁵⁶ − 1", { ...EC, y: bytes32(2n ** 256n - 1n) });
keySet(1, "P-256: −y, which is a point as well", { ...EC, y: bytes32(P - BigInt(`0x${Buffer.from(EC.y, "base64url").toString("hex")}`)) });
keySet("size", "P-256: x of 31 bytes", { ...EC, x: b64(Buffer.alloc(31, 1)) });
keySet("size", "P-256: y of 33 bytes", { ...EC, y: b64(Buffer.alloc(33, 1)) });
keySet("malformed", "P-256: without y", { ...EC, y: undefined });
keySet("type", "P-384 for ES256", { ...EC, crv: "P-384" });
keySet("type", "secp256k1 for ES256", { ...EC, crv: "secp256k1" });
keySet("type", "P-256 without crv", { ...EC, crv: undefined });
keySet("type", "P-256 for RS256", { ...EC, alg: "RS256" });
const little = (number) => b64(Buffer.from(number.toString(16).padStart(64, "0"), "hex").reverse());
const Q = 2n ** 255n - 19n;
for (const [name, y] of [
  ["0", 0n], ["1", 1n], ["−1", Q - 1n], ["1 with the other sign", 1n + 2n ** 255n], ["p", Q], ["p + 1", Q + 1n], ["2²⁵⁶ − 1", 2n ** 256n - 1n],
  ["of order 8", 0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n], ["of order 8, the other one", Q - 0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n],
]) {
  keySet("point", `Ed25519: y of ${name}`, { ...OKP, x: little(y) });
}
keySet("size", "Ed25519: 31 bytes", { ...OKP, x: b64(Buffer.alloc(31, 9)) });
keySet("size", "Ed448's 57 bytes", { ...OKP, x: b64(Buffer.alloc(57, 9)) });
keySet("type", "Ed448 for EdDSA", { ...OKP, crv: "Ed448" });
keySet("type", "X25519 for EdDSA", { ...OKP, crv: "X25519" });
keySet("private", "a symmetric key", { kty: "oct", kid: "k", alg: "HS256", k: "AAAA" });
keySet("private", "a symmetric key that says RS256", { kty: "oct", kid: "k", alg: "RS256", k: "AAAA" });
for (const name of ["d", "p", "q", "dp", "dq", "qi", "oth"]) keySet("private", `with ${name}`, { ...RSA, [name]: "AQAB" });
keySet("private", "a private key for encryption", { ...OKP, use: "enc", d: "AAAA" });
keySet("private", "a sound key and a private one", EC, { ...OKP, d: "AAAA" });
keySet("size", "a sound key and a short one", EC, modulus(128));
keySet("empty", "for encryption", { ...RSA, use: "enc" });
keySet("empty", "use in capitals", { ...RSA, use: "SIG" });
keySet("malformed", "use a number", { ...RSA, use: 1 });
keySet(1, "without use", { ...RSA, use: undefined });
keySet(1, "to verify", { ...RSA, key_ops: ["verify"] });
keySet("empty", "to sign", { ...RSA, key_ops: ["sign"] });
keySet("empty", "for nothing", { ...RSA, key_ops: [] });
keySet("empty", "to wrap keys", { ...RSA, use: undefined, key_ops: ["wrapKey"] });
keySet("malformed", "key_ops a text", { ...RSA, key_ops: "verify" });
keySet(1, "a sound key beside others' (RFC 7517 §5)", EC, { ...RSA, use: "enc" }, { kty: "EC", crv: "P-521", alg: "ES512", kid: "x", x: "AA", y: "AA" }, { kty: "new" });
keySet("empty", "without alg", { ...RSA, alg: undefined });
keySet("empty", "of an unknown alg", { ...RSA, alg: "RS512" });
keySet("empty", "of alg none", { ...RSA, alg: "none" });
keySet("malformed", "alg null", { ...RSA, alg: null });
keySet("empty", "without kid", { ...RSA, kid: undefined });
keySet("malformed", "kid a number", { ...RSA, kid: 1 });
keySet("kid", "kid empty", { ...RSA, kid: "" });
keySet("kid", "kid of 129 bytes", { ...RSA, kid: "k".repeat(129) });
keySet(1, "kid of 128 bytes", { ...RSA, kid: "k".repeat(128) });
keySet("twice", "one kid twice", EC, { ...OKP, kid: EC.kid });
keySet("empty", "no keys");
keySet("malformed", "null for a key", null);
keySet("malformed", "a text for a key", "key");
keySet("malformed", "129 keys", ...Array.from({ length: 129 }, (_, n) => ({ ...OKP, kid: `${n}` })));
keySet(128, "128 keys", ...Array.from({ length: 128 }, (_, n) => ({ ...OKP, kid: `${n}` })));
for (const [name, text] of [
  ["nothing", ""], ["an array", "[]"], ["keys an object", '{"keys":{}}'], ["without keys", "{}"], ["keys twice", `{"keys":[],"keys":[${JSON.stringify(OKP)}]}`],
  ["a member twice in a key", `{"keys":[${JSON.stringify(OKP).slice(0, -1)},"x":"AA"}]}`], ["a tail", `${JSON.stringify(jwks)}x`],
]) {
  keySets.push({ name, jwks: text, expect: SAYS.malformed });
}
keySets.push({ name: "over 64 KiB", jwks: `${JSON.stringify(jwks)}${" ".repeat(65_536)}`, expect: SAYS.long });

const names = new Set(cases.map(({ name }) => name));
if (names.size !== cases.length) throw new Error("two cases have one name");
const file = {
  note: "Written by generate.mjs. Every runtime must give every token the verdict in `expect`: accept, the reason of the refusal, or any refusal.",
  policy: { issuer: ISSUER, audiences: [AUDIENCE], clock_leeway: LEEWAY },
  jwks,
  trusted,
  key_sets: keySets,
  identity: { agent: claims().sub, tenant: claims().tenant_id, credential: claims().credential_id },
  cases,
};
writeFileSync(new URL("vectors.json", import.meta.url), `${JSON.stringify(file, null, 1)}\n`);
const accepted = cases.filter(({ expect }) => expect === "accept").length;
console.log(`${keySets.length} key sets, ${keySets.filter(({ expect }) => !/^\d/.test(expect)).length} of them to refuse`);
console.log(`${cases.length} cases, ${accepted} of them to accept, ${cases.length - accepted} to refuse`);
const classes = new Map();
for (const { name, expect } of cases) if (expect !== "accept") classes.set(expect, (classes.get(expect) ?? 0) + 1);
for (const [reason, count] of [...classes].sort()) console.log(`${String(count).padStart(5)} ${reason}`);
