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
expect("bad_signature", "the stranger's key comes along as jwk", signed(json(header({ jwk: stranger.publicKey.export({ format: "jwk" }) })), json(claims()), "RS256", stranger.privateKey));
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
  ["a jwk that must be ignored", { jwk: stranger.publicKey.export({ format: "jwk" }) }, "accept"],
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

const names = new Set(cases.map(({ name }) => name));
if (names.size !== cases.length) throw new Error("two cases have one name");
const file = {
  note: "Written by generate.mjs. Every runtime must give every token the verdict in `expect`: accept, or the reason of the refusal.",
  policy: { issuer: ISSUER, audiences: [AUDIENCE], clock_leeway: LEEWAY },
  jwks,
  identity: { agent: claims().sub, tenant: claims().tenant_id, credential: claims().credential_id },
  cases,
};
writeFileSync(new URL("vectors.json", import.meta.url), `${JSON.stringify(file, null, 1)}\n`);
console.log(`${cases.length} cases, ${cases.filter(({ expect }) => expect === "accept").length} of them to accept`);
