// Looking for secrets in everything that a system says: as they are, and in the forms in which they could get into a log.

import { Buffer } from "node:buffer";

/** Of what is cut in a log the beginning, the middle or the end may be left: so many characters are looked for. */
const PART = 20;

/** What is shorter could be there by chance. */
const SHORTEST = 12;

/** Secrets, and where each of their forms was found. */
export class Leaks {
  /** What each form is a form of. @type {Map<string, string>} */
  #forms = new Map();
  /** @type {{name: string, text: string}[]} */
  #outputs = [];

  /** How many secrets there are. */
  secrets = 0;

  /** A secret that people or programs write as text. */
  text(name, secret) {
    if (typeof secret !== "string" || secret.length < SHORTEST) throw new Error(`${name} isn't a secret that could be found`);
    this.secrets += 1;
    this.#add(name, secret);
    this.#add(name, encodeURIComponent(secret));
    this.#add(name, JSON.stringify(secret).slice(1, -1));
    this.#inBytes(name, Buffer.from(secret));
    if (secret.length > 2 * PART) for (const start of [secret.length >> 1, secret.length - PART]) this.#add(name, secret.slice(start, start + PART));
    // What stands before is the prefix of all secrets, or the header of all tokens.
    if (secret.length > 2 * PART) this.#add(name, secret.slice(8, 8 + PART));
    return secret;
  }

  /** What holds a secret at its end, encoded with what is none before it. */
  ending(name, text) {
    this.#add(name, text);
    this.#add(name, text.slice(-PART));
  }

  /** A token or an assertion: each of its parts, for a payload tells of whom it is, too. */
  token(name, token) {
    const [header, payload, signature, ...more] = token.split(".");
    if (!header || !payload || !signature || more.length > 0) throw new Error(`${name} isn't a token`);
    this.secrets += 1;
    // Headers are of the key: all tokens have the same.
    this.#add(name, token);
    this.#add(`${name}'s payload`, payload);
    this.#add(`${name}'s signature`, signature);
    this.#add(`${name}'s signature`, signature.slice(0, PART));
    this.#add(`${name}'s payload`, Buffer.from(payload, "base64url").toString("utf8"));
    this.#inBytes(`${name}'s signature`, Buffer.from(signature, "base64url"));
    return token;
  }

  /** A key's bytes. */
  bytes(name, bytes) {
    this.secrets += 1;
    this.#inBytes(name, Buffer.from(bytes));
  }

  /** A private key's members: RFC 7518 §6.2.2, §6.3.2. */
  jwk(name, jwk) {
    for (const member of ["d", "p", "q", "dp", "dq", "qi"]) if (jwk[member]) this.bytes(`${name}'s ${member}`, Buffer.from(jwk[member], "base64url"));
  }

  #inBytes(name, bytes) {
    // A log may cut what is long; a multiple of three, so that base64 is the same for the whole.
    const start = bytes.subarray(0, Math.max(12, Math.min(24, bytes.length - (bytes.length % 3))));
    if (start.length < 12) return;
    this.#add(`${name} in base64`, start.toString("base64"));
    this.#add(`${name} in base64url`, start.toString("base64url"));
    this.#add(`${name} in hex`, start.toString("hex"));
    this.#add(`${name} in hex`, start.toString("hex").toUpperCase());
    this.#add(`${name} as a list`, [...start].join(", "));
    this.#add(`${name} as a list`, [...start].join(","));
  }

  #add(name, form) {
    const bare = form.replace(/=+$/, "");
    if (bare.length >= SHORTEST) this.#forms.set(bare, name);
  }

  /** Something that the system said. */
  said(name, text) {
    this.#outputs.push({ name, text: Buffer.isBuffer(text) ? text.toString("latin1") : String(text) });
  }

  /** How much it said. */
  get size() {
    return this.#outputs.reduce((sum, { text }) => sum + text.length, 0);
  }

  /** Of which names there is something. */
  get names() {
    return [...new Set(this.#outputs.map(({ name }) => name))];
  }

  /** @returns {string[]} each form that stands somewhere, by whose it is and where; never the form itself */
  found() {
    const found = new Set();
    for (const { name, text } of this.#outputs) {
      for (const [form, whose] of this.#forms) {
        const at = text.indexOf(form);
        if (at >= 0) found.add(`${whose} in ${name}, after: ${this.#blacked(text.slice(Math.max(0, at - 120), at))}`);
      }
    }
    return [...found];
  }

  /** Without the secrets that stand before another. */
  #blacked(text) {
    let shown = text;
    for (const form of this.#forms.keys()) shown = shown.replaceAll(form, "[secret]");
    return shown;
  }
}
