// Which requests are let through, and what their tokens need (docs/reference/policy.md). The verifier's module decides; this file carries text to it, and its
// answers out.

import bundled from "../edge-policy.json";
import { problem } from "./answers.ts";
import { read, write } from "./buffers.ts";
import type { Env } from "./settings.ts";
import type { Staleness } from "./staleness.ts";
import { type Identity, type VerifierExports, readRefused } from "./verifier.ts";

/** Headers by which some servers let a client say another method, or another path, than the one that was decided about. */
const METHOD_OVERRIDES = ["x-http-method-override", "x-http-method", "x-method-override"];
const PATH_OVERRIDES = ["x-original-url", "x-rewrite-url"];
const OVERRIDES = [...METHOD_OVERRIDES, ...PATH_OVERRIDES];

/** The route that decides about a request. */
export interface Route {
  readonly place: number;
  /** No token is looked at. */
  readonly anonymous: boolean;
  readonly staleness: Staleness;
}

export class RoutePolicy {
  readonly #wasm: VerifierExports;
  readonly #text: string;

  /** The one that is deployed: the variable, or else the bundled file. Undefined: there is none. Throws an Error that names all that is wrong with it. */
  static read(wasm: VerifierExports, env: Env): RoutePolicy | undefined {
    const given: unknown = env.ROUTE_POLICY ?? bundled;
    if (given === null || given === "") return undefined;
    return new RoutePolicy(wasm, typeof given === "string" ? given : JSON.stringify(given));
  }

  /** `wasm`: must know the audiences and the trusted issuers. */
  constructor(wasm: VerifierExports, text: string) {
    this.#wasm = wasm;
    this.#text = text;
    if (wasm.load_policy(this.#write(text)) < 0) throw new Error(`the route policy: ${this.#output().replaceAll("\n", "; ")}`);
  }

  /** What a request needs; or the answer to one that nothing would let through. */
  decide({ method, url }: Pick<Request, "method" | "url">): Route | Response {
    // That of which the upstream's URL is made, too.
    const { pathname } = new URL(url);
    const place = this.#wasm.route(method.length, this.#write(method + pathname));
    if (place === -2) return problem(400, "ambiguous_path", `${this.#output()}.`);
    if (place < 0) return problem(403, "route_denied", "The policy lets no request through here.");
    const [kind, fresh, usable, whenUnknown] = this.#output().split(" ");
    return {
      place,
      anonymous: kind === "anonymous",
      staleness: { freshMs: Number(fresh) * 1000, usableMs: Number(usable) * 1000, whenUnknown: whenUnknown === "serve" ? "serve" : "refuse" },
    };
  }

  /** The answer to who holds a token that holds, and lacks what the route needs. */
  refusal({ place }: Route, { issuer, audience, scope, tenant, agentType }: Identity): Response | undefined {
    if (this.#wasm.admits(place, this.#write([issuer, audience, scope, tenant, agentType].join("\n"))) === 0) return undefined;
    const { reason, challenge, description } = readRefused(this.#output());
    return problem(403, reason, `${description}.`, challenge === "" ? {} : { "www-authenticate": challenge });
  }

  /** The scopes that some route wants of tokens for `audience`, in the policy's order. */
  scopesOf(audience: string): string[] {
    // The module has read it: it is sound. Where an array has one text, the text alone will do.
    const { routes } = JSON.parse(this.#text) as { routes: { scopes?: string | string[]; audience?: string | string[] }[] };
    const fitting = routes.filter((route) => route.audience === undefined || [route.audience].flat().includes(audience));
    return [...new Set(fitting.flatMap(({ scopes = [] }) => scopes))];
  }

  /** Takes out of a request's headers what would have the upstream do something else than was decided about. */
  static dropOverrides(headers: Headers): void {
    for (const name of [...headers.keys()]) {
      if (OVERRIDES.includes(name.replaceAll("_", "-"))) headers.delete(name);
    }
  }

  /** The header of a request, if there is one, that could have the upstream do something else than `method` and `target`, path and query, say. */
  static overridden(headers: Headers, method: string, target: string): string | undefined {
    for (const [name, value] of headers) {
      const known = name.replaceAll("_", "-");
      if (METHOD_OVERRIDES.includes(known) && value !== method) return name;
      // Proxies that say it too write the whole URL.
      if (PATH_OVERRIDES.includes(known) && value.replace(/^https?:\/\/[^/?#\\]+/i, "") !== target) return name;
    }
    return undefined;
  }

  #write(text: string): number {
    return write(this.#wasm, text);
  }

  #output(): string {
    return read(this.#wasm);
  }
}
