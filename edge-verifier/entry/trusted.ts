// Which other issuers' tokens are taken beside our own: the setting TRUSTED_ISSUERS (docs/reference/trusted-issuers.md).

import { isSafeUrl } from "./urls.ts";

/** The core's order: `Algorithm::ALL` and `TYPES` (shared/src). */
export const ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"] as const;
export const TYPES = ["at+jwt", "JWT", "none"] as const;

/** What is in the claim, or the same for all tokens. */
export type Source = { readonly claim: string } | { readonly constant: string };

export interface TrustedIssuer {
  /** The `iss` of its tokens, byte for byte. */
  readonly issuer: string;
  /** Where its JWK Set is; undefined: its metadata says. */
  readonly jwksUri: string | undefined;
  readonly algorithms: readonly string[];
  readonly audiences: readonly string[];
  readonly types: readonly string[];
  readonly clockLeewaySeconds: number;
  readonly agentClaim: string;
  readonly tenant: Source;
  readonly agentType: Source;
  readonly scopeClaim: string;
}

/** What holds for our own issuer. */
interface Own {
  readonly issuer: string;
  readonly audiences: readonly string[];
  readonly clockLeewaySeconds: number;
}

const MEMBERS = [
  "issuer", "jwks_uri", "algorithms", "audiences", "typ", "clock_leeway_seconds", "agent_claim", "tenant_claim", "tenant", "agent_type_claim", "agent_type",
  "scope_claim",
];
const MOST = 16;

/** Reads the setting, as text (JSON) or as it is in `wrangler.toml`; adds to `problems` every mistake, with its place and its fix. */
export function readTrustedIssuers(given: unknown, own: Own, problems: string[]): TrustedIssuer[] {
  if (given === undefined || given === "") return [];
  let items: unknown = given;
  if (typeof given === "string") {
    try {
      items = JSON.parse(given);
    } catch {
      items = undefined;
    }
  }
  if (!Array.isArray(items) || items.length > MOST) {
    problems.push(`TRUSTED_ISSUERS must be an array of at most ${MOST} issuers (JSON)`);
    return [];
  }
  const issuers = items.map((item: unknown, place) => readOne(item, own, (name, what) => void problems.push(`TRUSTED_ISSUERS[${place}]${name && `.${name}`} ${what}`)));
  const names = [own.issuer, ...issuers.map(({ issuer }) => issuer)];
  names.forEach((name, place) => {
    if (name !== "" && names.indexOf(name) < place) problems.push(`TRUSTED_ISSUERS[${place - 1}].issuer is ISSUER_URL, or there twice`);
  });
  return issuers;
}

function readOne(item: unknown, own: Own, refuse: (name: string, what: string) => void): TrustedIssuer {
  const members = new Map(typeof item === "object" && item !== null && !Array.isArray(item) ? Object.entries(item) : []);
  if (members.size === 0) refuse("", "must be an object");
  for (const name of members.keys()) if (!MEMBERS.includes(name)) refuse(name, "is no member of an issuer");

  const text = (name: string, usual: string): string => {
    const value: unknown = members.get(name) ?? usual;
    if (typeof value === "string" && isClaimName(value)) return value;
    refuse(name, "must be the name of a claim");
    return usual;
  };
  const each = (name: string, usual: readonly string[] | undefined, what: string, isOne: (text: string) => boolean): readonly string[] => {
    const value: unknown = members.get(name) ?? usual;
    const values: unknown[] = Array.isArray(value) ? value : [value];
    const texts = values.filter((one): one is string => typeof one === "string" && isOne(one));
    if (texts.length === 0 || texts.length < values.length) refuse(name, `must be an array of ${what}`);
    return texts;
  };
  const source = (claim: string, constant: string): Source => {
    const value: unknown = members.get(constant);
    if (members.has(claim)) {
      if (value !== undefined) refuse(constant, `contradicts ${claim}: remove one of them`);
      return { claim: text(claim, "") };
    }
    if (value !== undefined && !(typeof value === "string" && isWord(value))) refuse(constant, "must be 1 to 255 printable ASCII characters without spaces");
    return { constant: typeof value === "string" ? value : "" };
  };
  const url = (name: string): string | undefined => {
    const value: unknown = members.get(name);
    if (value === undefined) return undefined;
    if (typeof value === "string" && isSafeUrl(value)) return value;
    refuse(name, "must be an https URL (http only on the loopback)");
    return undefined;
  };

  const issuer: unknown = members.get("issuer");
  if (!(typeof issuer === "string" && isWord(issuer))) refuse("issuer", "must be the `iss` of its tokens, exactly as they name it");
  const jwksUri = url("jwks_uri");
  // Only the URL of an issuer leads to its metadata (OpenID Connect Discovery §4, RFC 8414 §3).
  if (jwksUri === undefined && typeof issuer === "string" && !isSafeUrl(issuer)) refuse("jwks_uri", "must be there, as the issuer is no https URL that metadata could be found by");
  const leeway: unknown = members.get("clock_leeway_seconds") ?? own.clockLeewaySeconds;
  const isLeeway = typeof leeway === "number" && Number.isInteger(leeway) && leeway >= 0 && leeway <= 999;
  if (!isLeeway) refuse("clock_leeway_seconds", "must be a whole number of seconds, at most 999");
  return {
    issuer: typeof issuer === "string" ? issuer : "",
    jwksUri,
    algorithms: each("algorithms", undefined, `algorithms: some of ${ALGORITHMS.join(", ")}`, (name) => (ALGORITHMS as readonly string[]).includes(name)),
    audiences: each("audiences", own.audiences, "identifiers, none empty", (name) => name !== ""),
    types: each("typ", ["at+jwt"], `types: some of ${TYPES.join(", ")}`, (name) => (TYPES as readonly string[]).includes(name)),
    clockLeewaySeconds: isLeeway ? leeway : 0,
    agentClaim: text("agent_claim", "sub"),
    tenant: source("tenant_claim", "tenant"),
    agentType: source("agent_type_claim", "agent_type"),
    scopeClaim: text("scope_claim", "scope"),
  };
}

function isClaimName(text: string): boolean {
  return text.length > 0 && text.length <= 255;
}

/** As the core has it of what goes into headers. */
function isWord(text: string): boolean {
  return /^[!-~]{1,255}$/.test(text);
}
