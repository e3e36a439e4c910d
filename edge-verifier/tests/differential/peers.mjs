// jose and the jsonwebtoken crate as their users call them, and the edge's verifier, with the same keys and demands.

import { readFileSync } from "node:fs";
import { createLocalJWKSet, jwtVerify } from "jose";

import { ForeignVerifier } from "../../entry/issuers.ts";
import { readTrustedIssuers } from "../../entry/trusted.ts";
import { Verifier } from "../../entry/verifier.ts";
import { EMPTY_BASE, FakeIssuer } from "../fake-issuer.mjs";
import { newExports } from "../node/support.mjs";

/** By how many seconds clocks may differ: ours for `iat` and `nbf`, jose's for all, jsonwebtoken's by default. */
export const LEEWAY = { ours: 5, jose: 5, jsonwebtoken: 60 };

/** @typedef {(token: string, now: number) => Promise<string>} Verdict `accepted`, or why not */

/** Our own tokens, by the verifier. @returns {Promise<Verdict>} */
export async function ours({ issuer, audience, jwks }) {
  const verifier = new Verifier(newExports());
  const heads = new FakeIssuer();
  heads.url = issuer;
  verifier.configure(issuer, [audience], LEEWAY.ours);
  await verifier.loadKeys("tokens", JSON.stringify(jwks));
  await verifier.loadKeys("heads", JSON.stringify(heads.headJwks()));
  await verifier.adoptHead(heads.head({ fresh_until: 9_999_999_999 }));
  await verifier.loadBase(new Uint8Array(EMPTY_BASE).buffer);
  return async (token, now) => said(await verifier.verify(token, now));
}

/** Those of another issuer, which need no jti, tenant and so on of our kind. @returns {Verdict} */
export function foreign({ issuer, audience, jwks }) {
  const problems = [];
  const settings = [{ issuer, jwks_uri: `${issuer}/keys`, algorithms: ["RS256", "PS256", "ES256", "EdDSA"], typ: ["at+jwt", "JWT"] }];
  const trusted = readTrustedIssuers(settings, { issuer: "https://own.example", audiences: [audience], clockLeewaySeconds: LEEWAY.ours }, problems);
  if (problems.length > 0) throw new Error(problems.join("; "));
  const verifier = new ForeignVerifier(newExports(), trusted);
  verifier.loadKeys(0, JSON.stringify(jwks));
  return async (token, now) => {
    const number = verifier.issuerOf(token);
    return number === undefined ? "wrong_issuer" : said(await verifier.verify(number, token, now));
  };
}

const said = (verdict) => ("identity" in verdict ? "accepted" : verdict.refused.reason);

/** @returns {Verdict} */
export function jose({ issuer, audience, jwks }, typ) {
  const keys = createLocalJWKSet(jwks);
  const algorithms = jwks.keys.map(({ alg }) => alg);
  const options = { issuer, audience, algorithms, clockTolerance: LEEWAY.jose, requiredClaims: ["exp"], ...(typ !== undefined && { typ }) };
  return async (token, now) => {
    try {
      await jwtVerify(token, keys, { ...options, currentDate: new Date(now * 1000) });
      return "accepted";
    } catch (error) {
      return error.code ?? String(error);
    }
  };
}

/** The crate goes by the machine's clock. @returns {Promise<Verdict>} */
export async function jsonwebtoken({ issuer, audience, jwks }) {
  const folder = new URL("../../build/bench-jsonwebtoken/", import.meta.url);
  const module = new WebAssembly.Module(readFileSync(new URL("countersign_bench_jsonwebtoken_bg.wasm", folder)));
  const byKid = new Map();
  for (const { kid, ...jwk } of jwks.keys) {
    // The glue remembers its instance's memory, so each has its own.
    const glue = await import(`${new URL("countersign_bench_jsonwebtoken_bg.js", folder).href}?${instances++}`);
    const { exports } = new WebAssembly.Instance(module, { "./countersign_bench_jsonwebtoken_bg.js": glue });
    glue.__wbg_set_wasm(exports);
    exports.__wbindgen_start();
    const mistake = glue.configure(JSON.stringify(jwk), jwk.alg, issuer, audience);
    if (mistake !== "") throw new Error(`jsonwebtoken: ${mistake}`);
    byKid.set(kid, glue);
  }
  const [first] = byKid.values();
  return async (token) => {
    const key = byKid.get(first.kid(token));
    return key !== undefined && key.verify(token) > 0 ? "accepted" : "refused";
  };
}

let instances = 0;
