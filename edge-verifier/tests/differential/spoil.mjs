// Tokens that are spoiled in every way there is a name for, from a seed.

import { createHmac, randomBytes, sign } from "node:crypto";

export const b64 = (data) => Buffer.from(data).toString("base64url");

/** mulberry32: small, and the same everywhere. */
export function generator(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    chance: (probability) => next() < probability,
    below: (limit) => Math.floor(next() * limit),
    of: (items) => items[Math.floor(next() * items.length)],
  };
}

const SIGN = {
  RS256: (input, key) => sign("sha256", input, key),
  PS256: (input, key) => sign("sha256", input, { key, padding: 6, saltLength: 32 }),
  ES256: (input, key) => sign("sha256", input, { key, dsaEncoding: "ieee-p1363" }),
  EdDSA: (input, key) => sign(null, input, key),
};

const VALUES = [null, true, false, 0, 1, -1, 7.5, 1e21, "", "x", "x y", "é", "\u0000", "a\nb", [], {}, [null], ["x"], [1], { a: 1 }, { a: { b: [1, 2] } }, "JWT", "at+jwt", "none"];
const HEADER = ["alg", "kid", "typ", "crit", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", "cty", "zip", "enc", "b64", "nonce", "url", "note"];
const CLAIMS = [
  "iss", "sub", "client_id", "aud", "iat", "exp", "nbf", "jti", "scope", "tenant_id", "credential_id", "agent_type", "cnf", "nonce", "at_hash", "events", "note", "__proto__",
];

/**
 * A token of `make` (its claims), mostly spoiled, and signed mostly by its issuer. `keys`: of the issuer, by algorithm, and a stranger's.
 * @returns {{token: string, how: string[]}}
 */
export function spoiled(random, { keys, stranger, make, typ, now }) {
  const alg = random.of(["RS256", "PS256", "ES256", "EdDSA", "EdDSA", "EdDSA"]);
  const how = [alg];
  const note = (what) => void how.push(what);
  const header = { alg, kid: keys[alg].kid, typ };
  const claims = make(random, now);
  let signWith = { alg, key: keys[alg].privateKey };

  const rounds = random.of([0, 1, 1, 1, 1, 2, 2, 3]);
  const on = { header: 0, claims: 0, text: 0, signature: 0, token: 0 };
  for (let round = 0; round < rounds; round++) on[random.of(Object.keys(on))] += 1;

  for (let n = 0; n < on.header; n++) {
    random.of([
      () => {
        const name = random.of(HEADER);
        header[name] = random.of(VALUES);
        note(`header ${name}=${JSON.stringify(header[name])}`);
      },
      () => {
        const name = random.of(["alg", "kid", "typ"]);
        delete header[name];
        note(`header without ${name}`);
      },
      () => {
        header.alg = random.of(["none", "HS256", "RS384", "ES512", "rs256", "EdDSA ", ...Object.keys(keys)]);
        note(`alg ${header.alg}`);
      },
      () => {
        header.kid = random.of([...Object.values(keys).map(({ kid }) => kid), "nobody", `${header.kid} `, String(header.kid).toUpperCase()]);
        note(`kid ${header.kid}`);
      },
      () => {
        header.typ = random.of(["JWT", "at+JWT", "application/at+jwt", "APPLICATION/AT+JWT", "application/jwt", "id+jwt", "at+jwt ", "dpop+jwt", "text/at+jwt"]);
        note(`typ ${header.typ}`);
      },
      () => {
        header.crit = random.of([[], ["exp"], ["b64"], ["x"], ["alg"], "exp", ["x", "x"]]);
        header.b64 = random.of([true, false, undefined]);
        note(`crit ${JSON.stringify(header.crit)}`);
      },
      () => {
        header.jwk = random.of([stranger.publicKey, keys[alg].publicKey]).export({ format: "jwk" });
        note("a jwk");
      },
      () => {
        // The algorithm that the header names, by the key that it is for; the kid stays.
        const other = random.of(Object.keys(keys));
        header.alg = other;
        signWith = { alg: other, key: keys[other].privateKey };
        note(`signed with ${other} under kid ${header.kid}`);
      },
    ])();
  }
  for (let n = 0; n < on.claims; n++) {
    random.of([
      () => {
        const name = random.of(CLAIMS);
        Object.defineProperty(claims, name, { value: random.of(VALUES), enumerable: true, configurable: true, writable: true });
        note(`claim ${name}=${JSON.stringify(claims[name])}`);
      },
      () => {
        const name = random.of(CLAIMS.slice(0, 12));
        delete claims[name];
        note(`without ${name}`);
      },
      () => {
        const name = random.of(["iat", "exp", "nbf"]);
        claims[name] = now + random.of([-100_000, -100, -61, -30, -6, -5, -4, -1, 0, 1, 4, 5, 6, 30, 61, 100, 100_000]);
        note(`${name} at ${claims[name] - now}`);
      },
      () => {
        const name = random.of(["iat", "exp", "nbf"]);
        claims[name] = random.of([now + 100.5, String(now + 100), (now + 100) * 1000, -1, 0, 2 ** 53, 1e300, -1e300, now - 100.25]);
        note(`${name} ${claims[name]}`);
      },
      () => {
        const { aud } = claims;
        claims.aud = random.of([[aud], [aud, "x"], ["x"], [aud, 1], [aud, ""], `${aud}/`, ` ${aud}`, Array(16).fill(aud), Array(17).fill(aud), { 0: aud }, [[aud]]]);
        note(`aud ${JSON.stringify(claims.aud).slice(0, 40)}`);
      },
      () => {
        claims.iss = random.of([`${claims.iss}/`, [claims.iss], String(claims.iss).toUpperCase(), "https://evil.example"]);
        note(`iss ${claims.iss}`);
      },
      () => {
        claims.cnf = random.of([{ jkt: "x" }, { "x5t#S256": "x" }, null, {}]);
        note("cnf");
      },
      () => {
        claims.note = "x".repeat(random.of([100, 3000, 5000, 8000, 20_000]));
        note(`${claims.note.length} characters more`);
      },
    ])();
  }

  const texts = [JSON.stringify(header), JSON.stringify(claims)].map((text) => Buffer.from(text));
  for (let n = 0; n < on.text; n++) {
    const which = random.below(2);
    const text = texts[which].toString("utf8");
    const members = Object.entries(which === 0 ? header : claims);
    const [name, value] = members.length > 0 ? random.of(members) : ["x", 1];
    const [changed, what] = random.of([
      () => [` ${text.replaceAll(",", " ,\n\t").replaceAll('":', '" :')}\r\n`, "white space"],
      () => [text.replace(`"${name}"`, `"\\u${name.charCodeAt(0).toString(16).padStart(4, "0")}${name.slice(1)}"`), "an escaped name"],
      () => [`${text.slice(0, -1)},"${name}":${JSON.stringify(random.of([value, ...VALUES]))}}`, "a member twice"],
      () => [`{"${name}":${JSON.stringify(random.of([value, ...VALUES]))},${text.slice(1)}`, "a member twice, first"],
      () => [`${text.slice(0, -1)},"x":{"a":1,"a":2}}`, "a nested member twice"],
      () => [`${text}${random.of(["x", "{}", "\0", " ", ","])}`, "a tail"],
      () => [`${random.of(["\ufeff", "\0", "/**/", " "])}${text}`, "a head"],
      () => [text.replace("}", ",}"), "a comma more"],
      () => [text.replaceAll('"', "'"), "other quotes"],
      () => [text.slice(0, -1 - random.below(8)), "cut short"],
      () => [text.replace(/"(exp|iat)":(\d+)/, (_, time, digits) => `"${time}":${random.of([`${digits}.0`, `${digits}e0`, `0${digits}`, `+${digits}`, `${digits}0e-1`, "NaN", "1e400", `${digits}.`])}`), "a number otherwise"],
      () => [`${text.slice(0, -1)},"x":"\\ud800"}`, "a lone surrogate"],
      () => [`${text.slice(0, -1)},"x":${"[".repeat(3 + random.below(40))}`.replace(/\[+$/, (open) => `${open}${"]".repeat(open.length)}}`), "nested"],
      () => [`${text.slice(0, -1)},"x":[${Array(random.of([10, 127, 128, 129, 400])).fill(0)}]}`, "a long array"],
      () => [`[${text}]`, "an array"],
    ])();
    texts[which] = random.chance(0.06) ? Buffer.concat([Buffer.from(changed.slice(0, -1)), Buffer.from([0x2c, 0x22, 0x78, 0x22, 0x3a, 0x22, 0xff, 0x22, 0x7d])]) : Buffer.from(changed);
    note(`${which === 0 ? "header" : "payload"}: ${what}`);
  }

  // Spelled otherwise before it is signed, or after.
  const segments = texts.map(b64);
  const spell = (segment) =>
    random.of([
      () => `${segment}${"=".repeat((4 - (segment.length % 4)) % 4 || 1)}`,
      () => segment.replaceAll("-", "+").replaceAll("_", "/"),
      () => `${segment.slice(0, 4)}${random.of([" ", "\n", "\t", "\r\n", "\0", "="])}${segment.slice(4)}`,
      () => `${segment}${random.of([" ", "A", "AA", "%", "é"])}`,
      () => {
        const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        return segment.slice(0, -1) + alphabet[(alphabet.indexOf(segment.at(-1)) ^ (1 + random.below(15))) & 63];
      },
    ])();
  const early = on.token > 0 && random.chance(0.4);
  if (early) {
    const which = random.below(2);
    segments[which] = spell(segments[which]);
    note(`segment ${which} spelled otherwise, and signed so`);
  }
  const input = Buffer.from(segments.join("."));
  let signature = SIGN[signWith.alg](input, signWith.key);
  for (let n = 0; n < on.signature; n++) {
    const [changed, what] = random.of([
      () => {
        const copy = Buffer.from(signature);
        if (copy.length > 0) copy[random.below(copy.length)] ^= 1 << random.below(8);
        return [copy, "a bit of the signature"];
      },
      () => [signature.subarray(0, random.below(signature.length + 1)), "a shorter signature"],
      () => [Buffer.concat([signature, Buffer.alloc(1 + random.below(3))]), "a longer signature"],
      () => [Buffer.alloc(signature.length, random.of([0, 0xff])), "a constant signature"],
      () => [SIGN.RS256(input, stranger.privateKey), "a stranger's signature"],
      () => [createHmac("sha256", keys.RS256.publicKey.export({ type: "spki", format: "pem" })).update(input).digest(), "an HMAC with the public key"],
      () => [randomBytes(random.of([0, 64, 256])), "a random signature"],
      () => {
        if (signWith.alg !== "ES256" || signature.length !== 64) return [sign("sha512", input, keys.RS256.privateKey), "of SHA-512"];
        const order = BigInt("0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
        const s = order - BigInt(`0x${signature.subarray(32).toString("hex")}`);
        return [Buffer.concat([signature.subarray(0, 32), Buffer.from(s.toString(16).padStart(64, "0"), "hex")]), "the other s"];
      },
      () => [sign("sha256", input, keys.ES256.privateKey), "a DER signature"],
      () => [sign("sha256", input, { key: keys.PS256.privateKey, padding: 6, saltLength: random.of([0, 20, 64]) }), "another salt"],
    ])();
    signature = changed;
    note(what);
  }
  segments.push(b64(signature));
  let token = segments.join(".");
  for (let n = early ? 1 : 0; n < on.token; n++) {
    const [changed, what] = random.of([
      () => {
        const which = random.below(3);
        return [segments.with(which, spell(segments[which])).join("."), `segment ${which} spelled otherwise`];
      },
      () => {
        const other = make(random, now);
        return [[segments[0], b64(JSON.stringify({ ...other, scope: "admin" })), segments[2]].join("."), "another payload"];
      },
      () => [[b64(JSON.stringify({ ...header, x: 1 })), segments[1], segments[2]].join("."), "another header"],
      () => [random.of([`${token}.`, `.${token}`, `${token}.${segments[2]}`, segments.slice(0, 2).join("."), `${segments[0]}..${segments[2]}`, segments.toReversed().join(".")]), "other segments"],
      () => [random.of([` ${token}`, `${token}\n`, `${token} `, `\ufeff${token}`, `"${token}"`, `Bearer ${token}`]), "something around"],
      () => {
        const place = random.below(token.length);
        return [token.slice(0, place) + random.of(["A", "_", ".", "", "é", " "]) + token.slice(place + 1), `character ${place}`];
      },
    ])();
    token = changed;
    note(what);
  }
  return { token, how };
}
