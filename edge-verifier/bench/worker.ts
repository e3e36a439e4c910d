// A Worker for `bin/bench edge`: verifies tokens with one contestant after the other, as often as it is told, and answers single requests with one
// that is named in the path. Nothing here is of the product but the imports from ../entry/.

import { createPublicKey, verify } from "node:crypto";

import tsndr from "@tsndr/cloudflare-worker-jwt";
import { verify as honoVerify } from "hono/jwt";
import { importJWK, jwtVerify } from "jose";

import * as peerGlue from "../build/bench-jsonwebtoken/countersign_bench_jsonwebtoken_bg.js";
import peerModule from "../build/bench-jsonwebtoken/countersign_bench_jsonwebtoken_bg.wasm";
import { Verifier } from "../entry/verifier.ts";
import { startVerifier } from "../entry/wasm.ts";

/** What is measured: whether the token holds. */
type Check = (token: string) => unknown;

interface Setup {
  readonly algorithm: string;
  readonly issuer: string;
  readonly audience: string;
  /** The public key of tokens. */
  readonly jwk: JsonWebKey & { readonly kid: string };
  readonly headJwks: string;
  /** By the contestant's name: what is revoked, as a head and its base object (base64). */
  readonly sets: Readonly<Record<string, { readonly head: string; readonly base: string }>>;
}

/** Once: the glue remembers its instance's memory. */
let peer: ReturnType<typeof instantiate> | undefined;

const contestants = new Map<string, Check>();
const now = () => Math.floor(Date.now() / 1000);

async function setUp({ algorithm, issuer, audience, jwk, headJwks, sets }: Setup): Promise<void> {
  contestants.clear();
  for (const [name, { head, base }] of Object.entries(sets)) {
    const ours = new Verifier(startVerifier());
    ours.configure(issuer, [audience], 5);
    await ours.loadKeys("tokens", JSON.stringify({ keys: [jwk] }));
    await ours.loadKeys("heads", headJwks);
    const outcome = await ours.adoptHead(head);
    if (outcome.kind !== "needs-base") throw new Error(`the head: ${JSON.stringify(outcome)}`);
    const refused = await ours.loadBase(Uint8Array.from(atob(base), (character) => character.charCodeAt(0)).buffer);
    if (refused !== undefined) throw new Error(`the base: ${refused}`);
    contestants.set(name, (token) => {
      const verdict = ours.verify(token, now());
      return verdict instanceof Promise ? verdict.then((given) => "identity" in given) : "identity" in verdict;
    });
  }

  const options = { issuer, audience, algorithms: [algorithm], typ: "at+jwt", requiredClaims: ["iat", "sub", "exp"] };
  const key = (await importJWK(jwk, algorithm)) as CryptoKey;
  contestants.set("jose", async (token) => (await jwtVerify(token, key, options)).payload.sub !== undefined);

  const expected = { alg: algorithm as "RS256", iss: issuer, aud: audience, typ: "at+jwt" };
  contestants.set("hono/jwt", async (token) => (await honoVerify(token, key, expected))["sub"] !== undefined);

  if (algorithm !== "EdDSA") {
    contestants.set("@tsndr/cloudflare-worker-jwt", async (token) => {
      const verified = await tsndr.verify(token, key, { algorithm, throwError: false });
      const { payload } = verified ?? {};
      return payload !== undefined && payload.iss === issuer && payload.aud === audience;
    });
  }

  peer ??= instantiate();
  const { kid: _, ...plain } = jwk;
  const mistake = peer.configure(JSON.stringify(plain), algorithm, issuer, audience);
  if (mistake !== "") throw new Error(`jsonwebtoken: ${mistake}`);
  contestants.set("jsonwebtoken in wasm", (token) => peer!.verify(token) > 0);

  // What can't be saved: the host's signature check alone, on bytes that are there already.
  const hostKey = createPublicKey({ key: jwk, format: "jwk" });
  const parsed = new Map<string, [Uint8Array, Uint8Array]>();
  contestants.set("the signature alone", (token) => {
    let parts = parsed.get(token);
    if (parts === undefined) {
      const end = token.lastIndexOf(".");
      const signature = Uint8Array.from(atob(token.slice(end + 1).replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
      parsed.set(token, (parts = [encoder.encode(token.slice(0, end)), signature]));
    }
    return algorithm === "ES256"
      ? crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, key, parts[1], parts[0])
      : verify(algorithm === "EdDSA" ? null : "sha256", parts[0], hostKey, parts[1]);
  });
}

function instantiate() {
  const instance = new WebAssembly.Instance(peerModule, { "./countersign_bench_jsonwebtoken_bg.js": { ...peerGlue } });
  peerGlue.__wbg_set_wasm(instance.exports);
  (instance.exports["__wbindgen_start"] as (() => void) | undefined)?.();
  return peerGlue as unknown as { configure(jwk: string, algorithm: string, issuer: string, audience: string): string; verify(token: string): number };
}

/** What the next run is about. */
let fresh: string[] = [];

/** Makes the strings for a run, each a new one, as a request would bring it. */
function provide(tokens: readonly string[], repetitions: number): void {
  fresh = Array.from({ length: repetitions }, () => tokens.map((token) => decoder.decode(encoder.encode(token)))).flat();
}

/** Runs one contestant over what was provided; how many tokens held, and the time that took. */
async function run(name: string): Promise<{ held: number; ms: number }> {
  const check = contestants.get(name);
  if (check === undefined) throw new Error(`there is no ${name}`);
  let held = 0;
  const began = performance.now();
  for (const token of fresh) {
    const verdict = check(token);
    if (verdict instanceof Promise ? await verdict : verdict) held += 1;
  }
  return { held, ms: performance.now() - began };
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The modules of a Worker: scripts as text, WebAssembly as base64. */
type Code = Record<string, { readonly js: string } | { readonly wasm: string }>;

/** Starts a Worker that isn't running and asks it one thing; how long that took, in ms. */
async function start(loader: WorkerLoader, { code, env, path }: { readonly code: Code; readonly env: object; readonly path: string }): Promise<number> {
  const modules = Object.fromEntries(
    Object.entries(code).map(([name, module]) => [name, "js" in module ? module : { wasm: Uint8Array.from(atob(module.wasm), (character) => character.charCodeAt(0)) }]),
  );
  const began = performance.now();
  const stub = loader.load({ compatibilityDate: "2026-11-17", compatibilityFlags: ["nodejs_compat"], mainModule: "index.js", modules, env, globalOutbound: null });
  await (await stub.getEntrypoint().fetch(`https://edge.example${path}`)).text();
  return performance.now() - began;
}

export default {
  async fetch(request: Request, env: { readonly LOADER: WorkerLoader }): Promise<Response> {
    const { pathname } = new URL(request.url);
    switch (pathname) {
      case "/start":
        return Response.json(await start(env.LOADER, await request.json()));
      case "/set-up":
        await setUp(await request.json());
        return Response.json([...contestants.keys()]);
      case "/provide": {
        const { tokens, repetitions } = (await request.json()) as { tokens: string[]; repetitions: number };
        provide(tokens, repetitions);
        return Response.json(fresh.length);
      }
      case "/run":
        return Response.json(await run(await request.json()));
      case "/none":
        return new Response("ok");
      default: {
        // One request, decided by the contestant in the path: what a Worker is that does nothing else.
        const token = (request.headers.get("authorization") ?? "").slice("Bearer ".length);
        const verdict = contestants.get(decodeURIComponent(pathname.slice(1)))?.(token);
        const held = verdict instanceof Promise ? await verdict.catch(() => false) : verdict;
        return held === true ? new Response("ok") : new Response("refused", { status: 401 });
      }
    }
  },
};
