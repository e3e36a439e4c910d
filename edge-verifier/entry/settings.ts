// What an operator configures at the edge: variables and bindings of wrangler.toml.

import { Assertions } from "./assertion.ts";
import { type HubPlan, readHubPlan } from "./hubs.ts";
import { type Resource, readResources } from "./resource.ts";
import { type TrustedIssuer, readTrustedIssuers } from "./trusted.ts";
import { isSafeUrl, jwksUrlOf } from "./urls.ts";

export interface Env {
  readonly ISSUER_URL?: string;
  readonly AUDIENCE?: string;
  readonly RESOURCE?: string;
  readonly UPSTREAM_URL?: string;
  readonly UPSTREAM?: Fetcher;
  readonly REVOCATION_KEYS?: string;
  readonly HUB_SHARDS?: string;
  readonly HUB_REGIONS?: string;
  readonly OPERATOR_SECRET?: string;
  readonly DECISION_SECRET?: string;
  readonly LISTENER_SECRET?: string;
  readonly ASSERTION_KEY?: string;
  readonly ASSERTION_ISSUER?: string;
  readonly ASSERTION_AUDIENCE?: string;
  readonly CLOCK_LEEWAY_SECONDS?: string;
  readonly FORWARD_AUTHORIZATION?: string;
  readonly WEBSOCKETS?: string;
  readonly ROUTE_POLICY?: string | object;
  readonly TRUSTED_ISSUERS?: string | object;
  /** The Worker of the hubs (edge-verifier/hub), and its objects. */
  readonly HUB_DOOR: Fetcher;
  readonly REVOCATION_HUB: DurableObjectNamespace;
  /** Workers Analytics Engine, where it is bound. */
  readonly ANALYTICS?: AnalyticsEngineDataset;
  readonly REVOCATION_OBJECTS: KVNamespace;
}

export interface Settings {
  /** The one trusted `iss`. */
  readonly issuer: string;
  /** Where the issuer's JWK Set is. */
  readonly jwksUrl: string;
  readonly audiences: readonly string[];
  /** The audiences that are URLs, that first which stands for the others. */
  readonly resources: readonly Resource[];
  /** Where accepted requests go; undefined: as they are, through the binding, or nowhere. */
  readonly upstream: URL | undefined;
  /** Undefined: the upstream gets no signed identity. */
  readonly assertions: Assertions | undefined;
  /** The JWK Set of the keys that sign revocation heads. */
  readonly revocationKeys: string;
  readonly hubs: HubPlan;
  readonly clockLeewaySeconds: number;
  readonly forwardAuthorization: boolean;
  /** Whether a WebSocket ends with its token. */
  readonly endsWebSockets: boolean;
  /** Others than `issuer`. */
  readonly trusted: readonly TrustedIssuer[];
}

/** Throws an Error that names every mistake at once, each with its fix. */
export function readSettings(env: Env): Settings {
  const problems: string[] = [];
  const required = (name: keyof Env, what: string) => {
    const value = env[name];
    if (typeof value === "string" && value !== "") return value;
    problems.push(`${name} is not set: ${what}`);
    return "";
  };
  const url = (name: keyof Env, what: string, isRequired = true) => {
    const value = isRequired || env[name] ? required(name, what) : "";
    if (value === "") return value;
    // A binding has no way there on which it could be read or changed.
    const isBound = name === "UPSTREAM_URL" && env.UPSTREAM !== undefined && /^http:\/\/./.test(value) && URL.canParse(value);
    if (!isBound && !isSafeUrl(value)) problems.push(`${name} is not an https URL (http only on the loopback): ${what}`);
    return value;
  };
  const flag = (name: keyof Env) => {
    const value = env[name] ?? "false";
    if (value !== "true" && value !== "false") problems.push(`${name} must be "true" or "false"`);
    return value === "true";
  };

  const issuer = url("ISSUER_URL", "the issuer's URL, exactly as its tokens name it");
  const upstream = url("UPSTREAM_URL", "where accepted requests go", false);
  const audiences = required("AUDIENCE", "the identifiers of this API, comma-separated")
    .split(",")
    .map((audience) => audience.trim())
    .filter((audience) => audience !== "");
  if (env.RESOURCE && !audiences.includes(env.RESOURCE)) problems.push("RESOURCE must be one of AUDIENCE, exactly as it stands there");
  const resources = readResources(audiences, env.RESOURCE);
  const assertions = Assertions.read(env, audiences[0] ?? "", problems);
  const revocationKeys = required("REVOCATION_KEYS", "what `countersign keys export-public --purpose revocation` prints");
  const hubs = readHubPlan(env, problems);
  const leeway = env.CLOCK_LEEWAY_SECONDS ?? "5";
  if (!/^\d{1,3}$/.test(leeway)) problems.push("CLOCK_LEEWAY_SECONDS must be a whole number of seconds, at most 999");
  const forwardAuthorization = flag("FORWARD_AUTHORIZATION");
  const webSockets = env.WEBSOCKETS || "open";
  if (webSockets !== "open" && webSockets !== "token") problems.push('WEBSOCKETS must be "open" or "token"');
  const trusted = readTrustedIssuers(env.TRUSTED_ISSUERS, { issuer, audiences, clockLeewaySeconds: Number(leeway) }, problems);

  if (problems.length > 0) throw new Error(problems.join("; "));
  return {
    issuer,
    jwksUrl: jwksUrlOf(issuer),
    audiences,
    resources,
    upstream: upstream === "" ? undefined : new URL(upstream),
    assertions,
    revocationKeys,
    hubs,
    clockLeewaySeconds: Number(leeway),
    forwardAuthorization,
    endsWebSockets: webSockets === "token",
    trusted,
  };
}
