// What the upstream is told of who calls, and what a client may not say of that itself.

import type { Admitted } from "./admission.ts";
import type { Isolate } from "./isolate.ts";

/** Headers that only the edge may set on a request to the upstream. */
const PREFIX = "x-countersign-";

/** Whether `name`, in lower case, is a header of ours. Many servers take `_` and `-` in header names for the same. */
export function isOurs(name: string): boolean {
  return name.replaceAll("_", "-").startsWith(PREFIX);
}

/** What is said of whom; of nobody nothing. */
export function identityHeaders({ identity, knowledge }: Admitted, { revocations }: Pick<Isolate, "revocations">): [name: string, value: string][] {
  if (identity === undefined) return [];
  const said: [string, string][] = [
    [`${PREFIX}issuer`, identity.issuer],
    [`${PREFIX}agent`, identity.agent],
    [`${PREFIX}tenant`, identity.tenant],
    [`${PREFIX}credential`, identity.credential],
    [`${PREFIX}agent-type`, identity.agentType],
    [`${PREFIX}jti`, identity.jti],
    [`${PREFIX}scope`, identity.scope],
  ];
  // Decided on knowledge that is older than it should be: the upstream may want to know.
  if (knowledge !== "fresh") said.push([`${PREFIX}revocations-age-ms`, String(revocations.ageMs)]);
  if (knowledge === "unknown") said.push([`${PREFIX}revocations`, "unknown"]);
  return said;
}

/** Every header that may be said. */
export const IDENTITY_HEADERS = ["issuer", "agent", "tenant", "credential", "agent-type", "jti", "scope", "revocations-age-ms", "revocations", "assertion"].map(
  (name) => `${PREFIX}${name}`,
);
export const ASSERTION_HEADER = `${PREFIX}assertion`;
