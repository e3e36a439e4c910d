// What an isolate holds, for all of its requests.

import { unavailable } from "./answers.ts";
import type { Held } from "./decision.ts";
import type { Place } from "./hubs.ts";
import { ForeignVerifier, IssuerKeys } from "./issuers.ts";
import { KeyFeed } from "./keys.ts";
import { RoutePolicy } from "./policy.ts";
import { alarm } from "./refresh.ts";
import { RevocationFeed } from "./revocations.ts";
import { type Env, type Settings, readSettings } from "./settings.ts";
import { boundHubs, boundObjects } from "./sources.ts";
import type { TrustedIssuer } from "./trusted.ts";
import { Verifier, type VerifierExports } from "./verifier.ts";
import { startVerifier } from "./wasm.ts";

/** Everything the isolate holds. Each request sees the same. */
export interface Isolate extends Held {
  readonly settings: Settings;
  /** None: every path needs a token, and no more than that. */
  readonly policy: RoutePolicy | undefined;
  /** Where every decision is written down, if anywhere. */
  readonly analytics: AnalyticsEngineDataset | undefined;
}

let isolate: Isolate | undefined;

/**
 * The isolate, begun if need be; the answer to give where it can't be, as the settings are unsound. Variables cannot change under a running isolate: a
 * deployment starts new ones. `cf`: what Cloudflare says of where the request comes from; `id`: the request's, for the log.
 */
export function theIsolate(env: Env, cf: unknown, id?: string): Isolate | Response {
  try {
    return (isolate ??= begin(env, cf as Place));
  } catch (error) {
    return misconfigured(error, id);
  }
}

/** Which variable is at fault goes to the log only: whoever asks need not be the operator. */
export function misconfigured(problem: unknown, id?: string): Response {
  alarm("misconfigured", problem, id);
  return unavailable("misconfigured", "The edge verifier is not configured; its log says what is missing.");
}

function begin(env: Env, place: Place): Isolate {
  const settings = readSettings(env);
  const wasm = startVerifier();
  const verifier = new Verifier(wasm);
  verifier.configure(settings.issuer, settings.audiences, settings.clockLeewaySeconds);
  const foreign = settings.trusted.length === 0 ? undefined : trust(wasm, settings.trusted);
  const policy = RoutePolicy.read(wasm, env);
  const keys = new KeyFeed(verifier, settings);
  const sources = {
    heads: boundHubs(env.REVOCATION_HUB, settings.hubs, place),
    objects: boundObjects(env.REVOCATION_OBJECTS),
    headKeys: settings.revocationKeys,
  };
  const revocations = new RevocationFeed(verifier, sources, keys, () => abandon(made));
  const made: Isolate = { settings, verifier, keys, revocations, foreign, policy, analytics: env.ANALYTICS };
  return made;
}

function trust(wasm: VerifierExports, issuers: readonly TrustedIssuer[]) {
  const verifier = new ForeignVerifier(wasm, issuers);
  return { verifier, keys: issuers.map((issuer, number) => new IssuerKeys(verifier, number, issuer)) };
}

/** The next request begins with a new one. */
function abandon(held: Isolate): void {
  if (isolate === held) isolate = undefined;
}

/** What the module says without anything being awaited; a response if it fails. */
export function attempt<T>(held: Isolate, ask: () => T, id?: string): T | Response {
  try {
    return ask();
  } catch (error) {
    return failed(held, error, id);
  }
}

/** A trap leaves the module in no usable state, so the next request begins with a new one. No input should be able to get here. */
export function failed(held: Isolate, error: unknown, id?: string): Response {
  alarm("verifier_failed", error, id);
  if (error instanceof WebAssembly.RuntimeError) abandon(held);
  return unavailable("verifier_failed", "The token could not be verified.");
}
