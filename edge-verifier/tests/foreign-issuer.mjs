// Another issuer, whose tokens are not like ours, for tests: metadata, a JWK Set and tokens, made with Node's crypto. It misbehaves on request.

import { generateKeyPairSync, sign } from "node:crypto";
import { createServer } from "node:http";

const json = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const now = () => Math.floor(Date.now() / 1000);

export class ForeignIssuer {
  url = "";
  key = makeRsaKey("theirs-1");
  /** What the JWK Set has beside the key. */
  otherKeys = [];
  /** How often the JWK Set was asked for, and metadata, by its path. */
  jwksRequests = 0;
  metadataRequests = [];
  /** Where metadata is; undefined: nowhere. */
  metadataAt = "/.well-known/openid-configuration";
  metadata = {};
  /** What the JWK Set's address does: it answers, or `away`, `redirects`, is `long`, says `nonsense`. */
  mood = "";
  delayMs = 0;
  #server;

  static async start() {
    const issuer = new ForeignIssuer();
    issuer.#server = createServer(async (request, response) => {
      if (request.url.includes("/.well-known/")) {
        issuer.metadataRequests.push(request.url);
        if (request.url !== issuer.metadataAt) return response.writeHead(404).end();
        return response.writeHead(200).end(JSON.stringify({ issuer: issuer.url, jwks_uri: `${issuer.url}/keys`, ...issuer.metadata }));
      }
      if (request.url === "/elsewhere") return response.writeHead(200).end(JSON.stringify(issuer.jwks()));
      if (request.url !== "/keys") return response.writeHead(404).end();
      issuer.jwksRequests += 1;
      if (issuer.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, issuer.delayMs));
      switch (issuer.mood) {
        case "away":
          return response.writeHead(503).end();
        case "redirects":
          return response.writeHead(302, { location: "/elsewhere" }).end();
        case "long":
          return response.writeHead(200).end(`${JSON.stringify(issuer.jwks())}${" ".repeat(100_000)}`);
        case "nonsense":
          return response.writeHead(200).end("<html>");
        default:
          return response.writeHead(200).end(JSON.stringify(issuer.jwks()));
      }
    });
    await new Promise((resolve) => issuer.#server.listen(0, "127.0.0.1", resolve));
    issuer.url = `http://127.0.0.1:${issuer.#server.address().port}`;
    return issuer;
  }

  stop() {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(resolve));
  }

  jwks() {
    const { kid, publicKey } = this.key;
    return { keys: [{ ...publicKey.export({ format: "jwk" }), kid, use: "sig" }, ...this.otherKeys] };
  }

  /** A token as such issuers make them: of another type, with other claims. */
  token(changes = {}, { key = this.key, header = {} } = {}) {
    const claims = { iss: this.url, sub: "auth0|7", aud: ["https://api.example", `${this.url}/userinfo`], iat: now(), exp: now() + 600, org: "acme", scp: ["reports:read"], ...changes };
    const input = `${json({ alg: "RS256", kid: key.kid, typ: "JWT", ...header })}.${json(claims)}`;
    return `${input}.${sign("sha256", Buffer.from(input), key.privateKey).toString("base64url")}`;
  }
}

export function makeRsaKey(kid) {
  return { kid, ...generateKeyPairSync("rsa", { modulusLength: 2048 }) };
}
