// The verifier as a library: the same sources as the edge's own, without a gateway around them.

import type { Problem } from "../../entry/answers.ts";
import { bearerToken } from "../../entry/bearer.ts";
import type { Held } from "../../entry/decision.ts";
import { type HubNamespace, type Place, type Region, readHubPlan } from "../../entry/hubs.ts";
import { KeyFeed } from "../../entry/keys.ts";
import { type Background, alarm } from "../../entry/refresh.ts";
import { type HeadSource, type ObjectStore, RevocationFeed } from "../../entry/revocations.ts";
import { type ObjectNamespace, boundHubs, boundObjects } from "../../entry/sources.ts";
import type { Staleness } from "../../entry/staleness.ts";
import { isSafeUrl, jwksUrlOf } from "../../entry/urls.ts";
import { type Needs, type Verification, rejectedBy, verification } from "../../entry/verification.ts";
import { type Identity, Verifier, type VerifierExports } from "../../entry/verifier.ts";

export type { Accepted, Needs, Rejected, Verification } from "../../entry/verification.ts";
export type { Background, HubNamespace, Identity, ObjectNamespace, Place, Region, Staleness };

/** Revocations by way of an edge: `url` is its address, `secret` its `LISTENER_SECRET`. */
export interface EdgeSource {
  readonly url: string;
  readonly secret: string;
}

/** Revocations by bindings, in a Worker of the account in which the edge is. */
export interface BoundSource {
  /** The binding of the edge's Durable Object class `RevocationHub`. */
  readonly hubs: HubNamespace;
  /** The binding of its KV namespace. */
  readonly objects: ObjectNamespace;
  /** As the edge's `HUB_SHARDS` and `HUB_REGIONS`, where they are set. */
  readonly shards?: number;
  readonly regions?: readonly Region[];
  /** Where the isolate is: the `cf` of a request. The nearest hub is listened to. */
  readonly place?: Place;
}

export interface Options {
  /** The one trusted `iss`, exactly as tokens name it. */
  readonly issuer: string;
  /** This API's identifiers; a token is for one of them at least. */
  readonly audience: string | readonly string[];
  /** What `countersign keys export-public --purpose revocation` prints: a JWK Set, as a text or parsed. */
  readonly revocationKeys: string | object;
  /** Where it is learnt what is revoked. */
  readonly source: EdgeSource | BoundSource;
  /** By how much `iat` and `nbf` may lie ahead of this machine's clock; 5. */
  readonly clockLeewaySeconds?: number;
  /** For challenges: where the API's metadata is (RFC 9728). */
  readonly resourceMetadata?: string;
}

/** A verifier of the tokens of one issuer for one API. It holds keys and what is revoked; have one, and keep it. */
export interface TokenVerifier {
  /**
   * Decides about a token; null or undefined: there is none. `background`: in a Worker, what keeps listening alive beyond the request; it needn't be
   * given where `cloudflare:workers` has `waitUntil`. Throws a TypeError for needs that make no sense.
   */
  verify(token: string | null | undefined, needs?: Needs, background?: Background): Promise<Verification>;
  /** Decides about the token in a request's `Authorization` header. */
  authenticate(request: Pick<Request, "url" | "headers">, needs?: Needs, background?: Background): Promise<Verification>;
  /** Whether it could decide now. Also has it begin: a server that calls this before it takes requests spares the first one the wait. */
  ready(background?: Background): Promise<boolean>;
  /** Ends listening, so that a process can end. */
  close(): void;
}

/** What differs from host to host. */
export interface Host {
  startModule(): VerifierExports;
  readonly background: Background;
  /** Whether listening goes on without requests: a process may, an isolate can't. */
  readonly isProcess: boolean;
}

/** How often a process sees to it that the hub is listened to: one answer lasts 26 seconds, and the next takes over from the 22nd on. */
const LISTEN_AGAIN_MS = 1_000;

export function makeVerifier(options: Options, host: Host): TokenVerifier {
  const { issuer, clockLeewaySeconds = 5, resourceMetadata } = options;
  const audiences = [options.audience].flat();
  const problems: string[] = [];
  if (typeof issuer !== "string" || !URL.canParse(issuer)) problems.push("issuer must be a URL, exactly as tokens name it");
  if (audiences.length === 0 || !audiences.every((one) => typeof one === "string" && one !== "")) problems.push("audience must be a text, or a list of texts");
  if (!(Number.isInteger(clockLeewaySeconds) && clockLeewaySeconds >= 0 && clockLeewaySeconds < 1_000)) {
    problems.push("clockLeewaySeconds must be a whole number from 0 to 999");
  }
  const headKeys = typeof options.revocationKeys === "string" ? options.revocationKeys : JSON.stringify(options.revocationKeys ?? null);
  if (!isJwkSet(headKeys)) problems.push("revocationKeys must be a JWK Set: what `countersign keys export-public --purpose revocation` prints");
  const findSources = sourcesOf(options.source, problems);
  if (problems.length > 0) throw new TypeError(problems.join("; "));

  let held: Held | undefined;
  let timer: ReturnType<typeof setInterval> | undefined;
  let isClosed = false;
  const abandon = (one: Held) => {
    one.revocations.stop();
    if (held === one) held = undefined;
  };
  // Not before it is asked for: an isolate has neither randomness nor anybody to ask before its first request.
  const begin = () => {
    if (isClosed) throw new Error("the verifier was closed");
    const verifier = new Verifier(host.startModule());
    verifier.configure(issuer, audiences, clockLeewaySeconds);
    const keys = new KeyFeed(verifier, { jwksUrl: jwksUrlOf(issuer) });
    const made: Held = { verifier, keys, foreign: undefined, revocations: new RevocationFeed(verifier, { ...findSources(), headKeys }, keys, () => abandon(made)) };
    if (host.isProcess && timer === undefined) {
      timer = setInterval(() => held?.revocations.listen(host.background), LISTEN_AGAIN_MS);
      // What keeps a process alive is its server.
      (timer as { unref?(): void }).unref?.();
    }
    return made;
  };
  const guarded = async (work: (one: Held) => Promise<Verification>): Promise<Verification> => {
    const one = (held ??= begin());
    try {
      return await work(one);
    } catch (error) {
      if (error instanceof TypeError) throw error;
      // No input should be able to get here. A trap leaves the module in no usable state, so the next one begins anew.
      alarm("verifier_failed", error);
      if (error instanceof WebAssembly.RuntimeError) abandon(one);
      return { ok: false, status: 503, reason: "verifier_failed", description: "The token could not be verified." };
    }
  };
  const verify: TokenVerifier["verify"] = (token, needs = {}, background = host.background) =>
    guarded((one) => verification(token, needs, one, background, resourceMetadata));
  return {
    verify,
    async authenticate(request, needs = {}, background = host.background) {
      const token = bearerToken(request);
      if (typeof token === "string") return verify(token, needs, background);
      return rejectedBy(token as Problem, resourceMetadata);
    },
    async ready(background = host.background) {
      const one = (held ??= begin());
      const isCurrent = (await one.revocations.ready(background)) !== "refuse";
      return (await one.keys.ready(background)) && isCurrent;
    },
    close() {
      isClosed = true;
      if (timer !== undefined) clearInterval(timer);
      held?.revocations.stop();
      held = undefined;
    },
  };
}

/** Whether it could be one; which keys are sound the module says. */
function isJwkSet(text: string): boolean {
  try {
    const parsed = JSON.parse(text) as { keys?: unknown } | null;
    return Array.isArray(parsed?.keys) && parsed.keys.length > 0;
  } catch {
    return false;
  }
}

type Sources = () => { heads: HeadSource[]; objects: ObjectStore };

function sourcesOf(source: EdgeSource | BoundSource, problems: string[]): Sources {
  if (typeof source !== "object" || source === null || !("hubs" in source || "url" in source)) {
    problems.push("source must have url and secret (an edge's), or hubs and objects (bindings)");
    return () => ({ heads: [], objects: { name: "", get: async () => null } });
  }
  if ("hubs" in source) {
    const { shards, regions, place } = source;
    const named = { ...(shards !== undefined && { HUB_SHARDS: String(shards) }), ...(regions && { HUB_REGIONS: regions.join(",") }) };
    const plan = readHubPlan(named, problems);
    return () => ({ heads: boundHubs(source.hubs, plan, place), objects: boundObjects(source.objects) });
  }
  const url = URL.canParse(source.url) ? new URL(source.url) : undefined;
  if (!isSafeUrl(source.url)) problems.push("source.url is not an https URL (http only on the loopback): the edge's address");
  if (typeof source.secret !== "string" || source.secret === "") problems.push("source.secret is missing: the edge's LISTENER_SECRET");
  const base = `${String(source.url).replace(/\/$/, "")}/_countersign`;
  const headers = { authorization: `Bearer ${source.secret}` };
  const ask = (path: string, init: RequestInit = {}) => fetch(`${base}/${path}`, { ...init, headers, redirect: "manual" });
  const name = `the edge ${url?.host}`;
  const heads = [{ name, fetch: (question: URLSearchParams, init: RequestInit) => ask(`feed?${question}`, init) }];
  const get = async (object: string) => {
    const answer = await ask(`objects/base/${object}`);
    if (answer.status !== 200 && answer.status !== 404) throw new Error(`${name} answered ${answer.status} when asked for a base object`);
    const bytes = await answer.arrayBuffer();
    return answer.status === 200 ? bytes : null;
  };
  return () => ({ heads, objects: { name, get } });
}
