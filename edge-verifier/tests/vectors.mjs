// Runs the shared vectors on a Verifier, wherever it lives: under Node and in workerd.

/** `revocations`: `{keys, head, base}` of a head that revokes nothing. Returns how many cases ran and what came out wrong. */
export async function runVectors(verifier, { policy, jwks, identity, cases }, { keys, head, base }) {
  verifier.configure(policy.issuer, policy.audiences, policy.clock_leeway);
  await verifier.loadKeys("tokens", JSON.stringify(jwks));
  await verifier.loadKeys("heads", keys);
  const wrong = [];
  const outcome = await verifier.adoptHead(head);
  if (outcome.kind !== "needs-base") wrong.push(`the head: ${JSON.stringify(outcome)}`);
  const bytes = new Uint8Array(base);
  const refused = await verifier.loadBase(bytes.buffer);
  if (refused !== undefined) wrong.push(`the base: ${refused}`);

  for (const { name, token, now, expect } of cases) {
    const verdict = await verifier.verify(token, now);
    const got = "identity" in verdict ? "accept" : verdict.refused.reason;
    if (got !== expect) wrong.push(`${name}: expected ${expect}, got ${got}`);
    for (const key of Object.keys("identity" in verdict ? identity : {})) {
      if (verdict.identity[key] !== identity[key]) wrong.push(`${name}: ${key} is ${verdict.identity[key]}`);
    }
  }
  return { count: cases.length, wrong };
}
