// The edge verifier, run locally: under `wrangler dev` for people, or the bundled Worker in miniflare for tests.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";

import { request, until } from "./http.mjs";
import { KV_NAMESPACE_ID } from "./issuer.mjs";
import { wranglerCommand } from "./npm.mjs";
import { Problem } from "./output.mjs";
import { edgeBuildDir, root } from "./paths.mjs";
import { writeSecret } from "./secrets.mjs";

/**
 * @typedef {object} EdgeSettings the Worker's variables
 * @property {string} ISSUER_URL
 * @property {string} AUDIENCE
 * @property {string} UPSTREAM_URL
 * @property {string} REVOCATION_KEYS
 * @property {string} HUB_PUSH_SECRET
 */

/**
 * Starts `wrangler dev`; returns at once, `edgeAnswers` waits.
 * @param {import("./processes.mjs").Processes} processes
 * @param {{port: number, dir: string, persist: string, settings: EdgeSettings}} options `persist`: where objects and the hub's state stay
 * @returns {import("./processes.mjs").Child & {url: string}}
 */
export function startWranglerDev(processes, { port, dir, persist, settings }) {
  const envFile = path.join(dir, "secrets", "edge.env");
  // Single quotes keep JSON as it is; no value of ours holds one.
  writeSecret(envFile, Object.entries(settings).map(([name, value]) => `${name}='${value}'\n`).join(""));
  const { command, args, env } = wranglerCommand([
    "dev", "--ip", "127.0.0.1", "--port", String(port), "--inspector-port", "0", "--env-file", envFile, "--persist-to", persist,
    "--show-interactive-dev-session=false",
  ]);
  const child = processes.start("edge", command, args, { env, cwd: root });
  return Object.assign(child, { url: `http://127.0.0.1:${port}` });
}

/**
 * Waits until the edge could decide about a request: it has the issuer's keys and a revocation head.
 * @param {string} url
 * @param {{child?: import("./processes.mjs").Child, timeoutMs?: number}} [options]
 */
export async function edgeReady(url, { child, timeoutMs = 60_000 } = {}) {
  let last = "no answer";
  const ready = await until(
    async () => {
      if (child?.ended) return true;
      const { status, text } = await request(`${url}/_countersign/health`);
      last = `${status} ${text.trim()}`;
      return status === 200;
    },
    { timeoutMs },
  );
  if (child?.ended) throw child.problem();
  if (!ready) throw new Problem(`the edge at ${url} isn't ready after ${timeoutMs / 1000} s: ${last}`, { log: child?.log });
}

/**
 * @typedef {object} LocalEdge
 * @property {string} url
 * @property {string[]} isolates where each of them is; the first one is at `url` and comes to the hubs directly, the others through `break`
 * @property {Record<string, string>} others where the Workers beside it are that have a socket of their own
 * @property {string} kvApiBase
 * @property {string} kvNamespaceId
 * @property {(name: string, request: string, init?: object) => Promise<any>} hub asks a hub itself, as isolates do
 * @property {(name: string, fault: "" | "throws" | "hangs" | "delays" | `is ${string}`) => Promise<void>} break what happens from now on to whoever comes to a hub through any but the
 *   first isolate; breaks off what is open. `delays`: what the hub says comes two seconds late; `is …`: another
 *   hub answers
 * @property {(name: string) => Promise<void>} evictHub restarts a hub, with what it stored
 * @property {() => Promise<void>} stop
 * @property {(changes?: Record<string, string>) => Promise<void>} restart a new workerd at the same address, with what `persist` kept; `changes` to the variables
 */

/** Stands before each hub in tests: lets everything through, or fails on demand. */
const FAULTY_HUB = `
  import { DurableObject } from "cloudflare:workers";
  export class FaultyHub extends DurableObject {
    #fault = "";
    #open = new Set();
    async fetch(request) {
      if (new URL(request.url).pathname === "/fault") {
        this.#fault = await request.text();
        for (const writer of this.#open) writer.abort("broken off").catch(() => undefined);
        this.#open.clear();
        return new Response();
      }
      const fault = this.#fault;
      if (fault === "throws") throw new Error("this hub is down");
      if (fault === "hangs") await scheduler.wait(20_000);
      const [, other] = /^is (.*)/.exec(fault) ?? [];
      const answer = await this.env.HUBS.get(this.env.HUBS.idFromName(other ?? this.ctx.id.name)).fetch(request);
      if (answer.body === null) return answer;
      // By hand, so that what is open can be broken off.
      const { readable, writable } = new TransformStream();
      const writer = writable.getWriter();
      this.#open.add(writer);
      this.ctx.waitUntil((async () => {
        const coming = [];
        for await (const chunk of answer.body) {
          coming.push(scheduler.wait(fault === "delays" ? 2_000 : 0).then(() => writer.write(chunk)));
          coming.at(-1).catch(() => undefined);
        }
        await Promise.all(coming);
        await writer.close();
      })().catch(() => undefined).finally(() => this.#open.delete(writer)));
      return new Response(readable, answer);
    }
  }
  export default { fetch: () => new Response(null, { status: 404 }) };
`;

/**
 * Runs the bundled Worker (`node bin/lib/build-edge.mjs --bundle`) in miniflare, in workerd, with its Durable Object, its
 * KV namespace and Cloudflare's KV API for it. Needs Node ≥ 22.12.
 * @param {{vars: Record<string, string>, entry?: string, whole?: boolean, port?: number, persist?: string, verbose?: boolean, isolates?: number, bound?: object,
 *   beside?: any[]}} options
 *   `vars`: the Worker's variables, by `EdgeSettings`; `entry`: another module entry, bundled here; without hub and namespace unless it is `whole`;
 *   `port` 0 or absent: any free one; `persist`: a folder that keeps what is stored, for tests that restart the edge; `isolates`: how many
 *   of the Worker there are, with the same hubs and objects; `bound`: more of miniflare's options for each of them, `beside`: whole other Workers, whose
 *   addresses are in `others`
 * @returns {Promise<LocalEdge>}
 */
export async function startEdge({ vars, entry, whole = entry === undefined, port = 0, persist, verbose = false, isolates = 1, bound = {}, beside = [] }) {
  const { Log, LogLevel, Miniflare, convertV4MiniflareOptions } = await import("miniflare");
  const bundle = entry ? await bundleEntry(entry) : wholeBundle();
  const wasm = fs.readdirSync(bundle.folder).filter((name) => name.endsWith(".wasm"));
  const { compatibilityDate, compatibilityFlags } = wranglerConfig();
  const nameOf = (isolate) => (isolate === 0 ? "countersign-edge" : `countersign-edge-${isolate}`);
  const worker = (isolate) => ({
    name: nameOf(isolate),
    modulesRoot: bundle.folder,
    modules: [
      { type: /** @type {const} */ ("ESModule"), path: path.join(bundle.folder, "index.js") },
      ...wasm.map((name) => ({ type: /** @type {const} */ ("CompiledWasm"), path: path.join(bundle.folder, name) })),
    ],
    compatibilityDate,
    compatibilityFlags,
    bindings: !whole ? vars : { CLOCK_LEEWAY_SECONDS: "5", FORWARD_AUTHORIZATION: "false", ...vars },
    ...(whole && {
      durableObjects: { REVOCATION_HUB: isolate === 0 ? { className: "RevocationHub", useSQLite: true } : { className: "FaultyHub", useSQLite: true, scriptName: "faulty-hubs" } },
      kvNamespaces: { REVOCATION_OBJECTS: KV_NAMESPACE_ID },
    }),
    ...bound,
    // The first one answers at the main address.
    ...(isolate > 0 && { unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }] }),
  });
  const faultyHubs = {
    name: "faulty-hubs",
    modules: [{ type: /** @type {const} */ ("ESModule"), path: "index.mjs", contents: FAULTY_HUB }],
    compatibilityDate,
    durableObjects: {
      REVOCATION_HUB: { className: "FaultyHub", useSQLite: true },
      HUBS: { className: "RevocationHub", useSQLite: true, scriptName: nameOf(0) },
    },
  };
  const start = (onPort) =>
    new Miniflare(
      convertV4MiniflareOptions({
        workers: [...Array.from({ length: isolates }, (_, isolate) => worker(isolate)), ...(isolates > 1 ? [faultyHubs] : []), ...beside],
        unsafeLocalExplorer: true,
        host: "127.0.0.1",
        port: onPort,
        cf: false,
        logRequests: verbose,
        log: new Log(verbose ? LogLevel.DEBUG : LogLevel.WARN),
        ...(persist && { resourcePersistencePath: persist }),
      }),
    );
  let miniflare = start(port);
  const hubOf = async (worker, name, request, init) => {
    const hubs = await miniflare.getDurableObjectNamespace("REVOCATION_HUB", worker);
    return hubs.get(hubs.idFromName(name)).fetch(`https://hub/${request}`, init);
  };
  const stop = async () => {
    await miniflare.dispose();
    if (bundle.temporary) fs.rmSync(bundle.folder, { recursive: true, force: true });
  };
  try {
    const url = await miniflare.ready;
    return {
      url: url.origin,
      kvApiBase: `${url.origin}/cdn-cgi/local/explorer/api`,
      kvNamespaceId: KV_NAMESPACE_ID,
      isolates: await Promise.all(
        Array.from({ length: isolates }, async (_, isolate) => (isolate === 0 ? url : await miniflare.unsafeGetDirectURL(nameOf(isolate))).origin),
      ),
      others: Object.fromEntries(
        await Promise.all(beside.filter((one) => one.unsafeDirectSockets).map(async ({ name }) => [name, (await miniflare.unsafeGetDirectURL(name)).origin])),
      ),
      hub: (name, request, init) => hubOf(nameOf(0), name, request, init),
      break: async (name, fault) => void (await hubOf(nameOf(1), name, "fault", { method: "PUT", body: fault })),
      evictHub: (name) => miniflare.unsafeEvictDurableObject(nameOf(0), "RevocationHub", { name }),
      stop,
      restart: async (changes = {}) => {
        vars = { ...vars, ...changes };
        await miniflare.dispose();
        miniflare = start(Number(url.port));
        await miniflare.ready;
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The Worker as a deployment uploads it. */
function wholeBundle() {
  const folder = path.join(edgeBuildDir, "worker");
  if (!fs.existsSync(path.join(folder, "index.js"))) {
    throw new Problem("the Worker isn't bundled", { fix: "node bin/lib/build-edge.mjs --bundle" });
  }
  return { folder, temporary: false };
}

/** Bundles another entry with what wrangler bundles with. */
export async function bundleEntry(entry) {
  const esbuild = await import("esbuild");
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "countersign-entry-"));
  await esbuild.build({
    entryPoints: { index: entry },
    outdir: folder,
    bundle: true,
    format: "esm",
    target: "es2024",
    conditions: ["workerd", "worker", "browser"],
    external: ["cloudflare:*", "node:*"],
    loader: { ".wasm": "copy" },
    assetNames: "[hash]-[name]",
    logLevel: "error",
  });
  return { folder, temporary: true };
}

/** What wrangler.toml says and miniflare must be told too. */
export function wranglerConfig() {
  const text = fs.readFileSync(path.join(root, "wrangler.toml"), "utf8");
  const date = /^compatibility_date = "([^"]+)"/m.exec(text);
  const flags = /^compatibility_flags = \[([^\]]*)\]/m.exec(text);
  if (!date || !flags) throw new Problem("wrangler.toml lacks compatibility_date or compatibility_flags");
  return { compatibilityDate: date[1], compatibilityFlags: [...flags[1].matchAll(/"([^"]+)"/g)].map((match) => match[1]) };
}
