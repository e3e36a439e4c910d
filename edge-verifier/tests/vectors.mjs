// Runs the shared vectors on a Verifier, wherever it lives: under Node and in workerd.

import { ForeignVerifier } from "../entry/issuers.ts";
import { readTrustedIssuers } from "../entry/trusted.ts";

/** `verifier` lives on `wasm`. `revocations`: `{keys, head, base}` of a head that revokes nothing. Returns how many cases ran and what came out wrong. */
export async function runVectors(verifier, wasm, { policy, jwks, trusted, key_sets, identity, cases }, { keys, head, base }) {
  verifier.configure(policy.issuer, policy.audiences, policy.clock_leeway);
  await verifier.loadKeys("tokens", JSON.stringify(jwks));
  await verifier.loadKeys("heads", keys);
  const wrong = [];
  const own = { issuer: policy.issuer, audiences: policy.audiences, clockLeewaySeconds: policy.clock_leeway };
  const foreign = new ForeignVerifier(wasm, readTrustedIssuers(trusted.map(({ settings }) => settings), own, wrong));
  trusted.forEach(({ jwks }, number) => foreign.loadKeys(number, JSON.stringify(jwks)));
  const outcome = await verifier.adoptHead(head);
  if (outcome.kind !== "needs-base") wrong.push(`the head: ${JSON.stringify(outcome)}`);
  const bytes = new Uint8Array(base);
  const refused = await verifier.loadBase(bytes.buffer);
  if (refused !== undefined) wrong.push(`the base: ${refused}`);

  const held = verifier.keyNames().length;
  for (const { name, jwks: given, expect } of key_sets) {
    const [verdict, count] = await verifier.loadKeys("tokens", given).then(() => [undefined, verifier.keyNames().length], ({ message }) => [message, held]);
    if ((verdict ?? `${count}`) !== expect) wrong.push(`key set: ${name}: expected ${expect}, got ${verdict ?? count}`);
    await verifier.loadKeys("tokens", JSON.stringify(jwks));
  }

  for (const { name, token, now, expect, identity: given } of cases) {
    const who = given ?? (name.startsWith("foreign: ") ? {} : { ...identity, issuer: policy.issuer });
    // As edge-verifier/entry/decision.ts goes about it.
    const verify = async () => {
      const verdict = await verifier.verify(token, now);
      const number = "refused" in verdict ? foreign.issuerOf(token) : undefined;
      return number === undefined ? verdict : foreign.verify(number, token, now);
    };
    const verdict = await verify();
    const got = "identity" in verdict ? "accept" : verdict.refused.reason;
    if (expect === "refuse" ? got === "accept" : got !== expect) wrong.push(`${name}: expected ${expect}, got ${got}`);
    for (const key of Object.keys("identity" in verdict ? who : {})) {
      if (verdict.identity[key] !== who[key]) wrong.push(`${name}: ${key} is ${verdict.identity[key]}`);
    }
    // What holds is known again, and gets no other verdict then.
    if ("identity" in verdict) {
      const again = await verify();
      if (JSON.stringify(again) !== JSON.stringify(verdict)) wrong.push(`${name}: the second time ${JSON.stringify(again)}`);
    }
  }
  return { count: cases.length, wrong };
}
