// Verification for code that asks by a call, from another Worker or as a library: a value for an answer, and not a response.

import { type Problem, withMetadata } from "./answers.ts";
import { NO_TOKEN } from "./bearer.ts";
import { type Held, decide } from "./decision.ts";
import type { Background } from "./refresh.ts";
import { DEFAULT_STALENESS, type Readiness, type Staleness, problemsOf } from "./staleness.ts";
import type { Identity } from "./verifier.ts";

/** What a token needs beside that it holds. Where a list has one text, the text alone will do. */
export interface Needs {
  /** One of these is its `iss`; without it the verifier's own issuer only, for what another one calls a tenant or a scope is its own affair. Each must be trusted: a token of any other never holds. */
  readonly issuers?: string | readonly string[];
  /** One of these is in its `aud`. They must be audiences of the verifier's: a token for none of those never holds. */
  readonly audience?: string | readonly string[];
  /** All of these are in its `scope`. */
  readonly scopes?: string | readonly string[];
  /** One of these is its tenant. */
  readonly tenants?: string | readonly string[];
  /** One of these is its agent's type. */
  readonly agentTypes?: string | readonly string[];
  /** How old the knowledge of revocations may be that it is decided with; 5 s, 30 s and `refuse` where nothing is said. */
  readonly staleness?: Partial<Staleness>;
}

/** A token that holds and has what is needed. */
export interface Accepted {
  readonly ok: true;
  readonly identity: Identity;
  /** How good the knowledge of revocations was, and how old in milliseconds. */
  readonly knowledge: { readonly readiness: Exclude<Readiness, "refuse">; readonly ageMs: number };
}

/** Anything else. A response of that status, with `challenge` as its `WWW-Authenticate`, is what RFC 6750 §3 asks for. */
export interface Rejected {
  readonly ok: false;
  /** 400: the request is malformed; 401: there is no token that holds; 403: it lacks something; 503: it can't be known now. */
  readonly status: number;
  /** A stable word: `expired`, `revoked`, `wrong_audience`, `insufficient_scope`, `revocations_unknown` and so on (docs/reference/edge.md). */
  readonly reason: string;
  /** A sentence, fit for outsiders. */
  readonly description: string;
  /** Absent where a new token wouldn't help. */
  readonly challenge?: string;
}

export type Verification = Accepted | Rejected;

/** `metadata`: where it is told what a token takes (RFC 9728), for challenges. Throws a TypeError for needs that make no sense. */
export async function verification(token: unknown, needs: Needs, held: Held, ctx: Background, metadata?: string): Promise<Verification> {
  const { staleness, lists } = readNeeds(needs);
  if (token === undefined || token === null || token === "") {
    const { code, challenge, detail } = NO_TOKEN;
    return rejected(401, code, detail, challenge, metadata);
  }
  if (typeof token !== "string") throw new TypeError("the token must be a text");
  const decision = await decide(token, held, ctx, staleness);
  if (decision instanceof Response) return rejectedBy(decision as Problem);
  if ("refused" in decision) {
    const { reason, description, challenge } = decision.refused;
    return rejected(challenge === "" ? 503 : 401, reason, `${description}.`, challenge, metadata);
  }
  const { identity, knowledge } = decision;
  const lack = lackOf(identity, { ...lists, issuers: lists.issuers ?? [held.verifier.issuer] });
  if (lack !== undefined) return rejected(403, ...lack, metadata);
  return { ok: true, identity, knowledge: { readiness: knowledge as Accepted["knowledge"]["readiness"], ageMs: held.revocations.ageMs } };
}

/** An answer as a value. */
export function rejectedBy({ status, code, detail, challenge }: Problem, metadata?: string): Rejected {
  return rejected(status, code, detail, challenge ?? "", metadata);
}

function rejected(status: number, reason: string, description: string, challenge: string, metadata?: string): Rejected {
  return { ok: false, status, reason, description, ...(challenge !== "" && { challenge: withMetadata(challenge, metadata) }) };
}

const LISTS = ["issuers", "audience", "scopes", "tenants", "agentTypes"] as const;
type Lists = Record<(typeof LISTS)[number], readonly string[] | undefined>;

function readNeeds(needs: Needs): { staleness: Staleness; lists: Lists } {
  const known: readonly string[] = [...LISTS, "staleness"];
  const unknown = Object.keys(needs).find((name) => !known.includes(name));
  // A need that is misspelt would be none.
  if (unknown !== undefined) throw new TypeError(`there is no such need: ${unknown}`);
  const lists = Object.fromEntries(LISTS.map((name) => [name, listOf(name, needs[name])])) as Lists;
  const staleness = { ...DEFAULT_STALENESS, ...needs.staleness };
  const problems = problemsOf(staleness);
  if (problems.length > 0) throw new TypeError(problems.join("; "));
  return { staleness, lists };
}

function listOf(name: string, value: unknown): readonly string[] | undefined {
  if (value === undefined) return undefined;
  const list: unknown[] = [value].flat();
  // No spaces: a scope is one word. No quotes: they end up in a challenge.
  if (list.every((item): item is string => typeof item === "string" && /^[!#-[\]-~]+$/.test(item)) && list.length > 0) return list;
  throw new TypeError(`${name} must be a word, or a list of words that isn't empty`);
}

function lackOf(identity: Identity, { issuers, audience, scopes, tenants, agentTypes }: Lists): [reason: string, description: string, challenge: string] | undefined {
  const has = (words: string, wanted: readonly string[] | undefined) => wanted?.some((one) => words.split(" ").includes(one)) ?? true;
  if (issuers?.includes(identity.issuer) === false) return ["wrong_issuer", "Tokens of this issuer have no access.", ""];
  if (!has(identity.audience, audience)) return ["wrong_audience", "The token is for another audience.", ""];
  if (!has(identity.tenant, tenants)) return ["wrong_tenant", "The token's tenant has no access.", ""];
  if (!has(identity.agentType, agentTypes)) return ["wrong_agent_type", "Agents of this type have no access.", ""];
  const granted = identity.scope.split(" ");
  if (scopes === undefined || scopes.every((scope) => granted.includes(scope))) return undefined;
  const description = "The token's scope is not sufficient";
  return ["insufficient_scope", `${description}.`, `Bearer error="insufficient_scope", error_description="${description}", scope="${scopes.join(" ")}"`];
}
