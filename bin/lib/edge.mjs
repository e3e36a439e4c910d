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
 * Starts `wrangler dev` with the edge and its hubs; returns at once, `edgeAnswers` waits.
 * @param {import("./processes.mjs").Processes} processes
 * @param {{port: number, dir: string, persist: string, settings: EdgeSettings}} options `persist`: where objects and the hub's state stay
 * @returns {import("./processes.mjs").Child & {url: string}}
 */
export function startWranglerDev(processes, { port, dir, persist, settings }) {
  const envFile = path.join(dir, "secrets", "edge.env");
  // Single quotes keep JSON as it is; no value of ours holds one.
  writeSecret(envFile, Object.entries(withoutPushSecret({ ...settings })).map(([name, value]) => `${name}='${value}'\n`).join(""));
  const { command, args, env } = wranglerCommand([
    "dev", "--config", "wrangler.toml", "--config", path.join("edge-verifier", "hub", "wrangler.toml"), "--ip", "127.0.0.1", "--port", String(port), "--inspector-port", "0", "--env-file", envFile, "--persist-to", persist,
    "--show-interactive-dev-session=false",
  ]);
  // The file is for the first Worker only. The hubs' gets its variables from the environment, of which it needs no more.
  const { ISSUER_URL, REVOCATION_KEYS, HUB_PUSH_SECRET } = settings;
  const own = Object.fromEntries(Object.entries(env).filter(([name]) => /^(PATH|HOME|TMPDIR|CI|NO_COLOR|(WRANGLER|CLOUDFLARE|NODE)_.*)$/.test(name)));
  const child = processes.start("edge", command, args, {
    env: { ...own, CLOUDFLARE_INCLUDE_PROCESS_ENV: "true", ISSUER_URL, REVOCATION_KEYS, HUB_PUSH_SECRET }, cwd: root,
  });
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
 * @property {() => Promise<string>} inspector where the debugger's protocol is spoken, if they are `inspected`
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
 * Runs the bundled Workers (`node bin/lib/build-edge.mjs --bundle`) in miniflare, in workerd: the edge and its hubs, its
 * KV namespace and Cloudflare's KV API for it. Needs Node ≥ 22.12.
 * @param {{vars: Record<string, string>, entry?: string, hubEntry?: string, whole?: boolean, port?: number, persist?: string, verbose?: boolean, isolates?: number,
 *   more?: any, beside?: any[], logs?: (message: string) => void, inspected?: boolean}} options
 *   `vars`: the Workers' variables, by `EdgeSettings`, the same for both; `entry`, `hubEntry`: other module entries of the edge and the hubs, bundled here; an edge's `entry` is
 *   without hubs and namespace unless it is `whole`;
 *   `port` 0 or absent: any free one; `persist`: a folder that keeps what is stored, for tests that restart the edge; `isolates`: how many
 *   of the edge there are, with the same hubs and objects; `inspected`: a debugger may ask about their memory (`inspector`); `more`: of miniflare's options for the edge; `beside`: whole other Workers, whose addresses are in `others`;
 *   `logs` gets what they log, in place of the terminal
 * @returns {Promise<LocalEdge>}
 */
export async function startEdge({ vars, entry, hubEntry, whole = entry === undefined, port = 0, persist, verbose = false, isolates = 1, more = {}, beside = [], logs = undefined, inspected = false }) {
  const { Log, LogLevel, Miniflare, convertV4MiniflareOptions } = await import("miniflare");
  const bundles = { edge: entry ? await bundleEntry(entry) : builtBundle("worker"), hub: hubEntry ? await bundleEntry(hubEntry) : builtBundle("hub-worker") };
  const { compatibilityDate, compatibilityFlags } = wranglerConfig();
  const modules = ({ folder }) => ({
    modulesRoot: folder,
    modules: [
      { type: /** @type {const} */ ("ESModule"), path: path.join(folder, "index.js") },
      ...fs.readdirSync(folder).filter((name) => name.endsWith(".wasm")).map((name) => ({ type: /** @type {const} */ ("CompiledWasm"), path: path.join(folder, name) })),
    ],
    compatibilityDate,
    compatibilityFlags,
  });
  const { serviceBindings: services, ...others } = more;
  const nameOf = (isolate) => (isolate === 0 ? "countersign-edge" : `countersign-edge-${isolate}`);
  const worker = (isolate) => ({
    name: nameOf(isolate),
    ...modules(bundles.edge),
    ...(whole
      ? {
          bindings: { CLOCK_LEEWAY_SECONDS: "5", FORWARD_AUTHORIZATION: "false", ...withoutPushSecret(vars) },
          durableObjects: {
            REVOCATION_HUB: isolate === 0
              ? { className: "RevocationHub", useSQLite: true, scriptName: HUB_WORKER }
              : { className: "FaultyHub", useSQLite: true, scriptName: "faulty-hubs" },
          },
          serviceBindings: { HUB_DOOR: isolate === 0 ? HUB_WORKER : "faulty-door", ...services },
          kvNamespaces: { REVOCATION_OBJECTS: KV_NAMESPACE_ID },
        }
      : { bindings: vars }),
    // The first one answers at the main address.
    ...(isolate > 0 && { unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }] }),
    ...others,
  });
  const hubs = {
    name: HUB_WORKER,
    ...modules(bundles.hub),
    bindings: vars,
    durableObjects: { REVOCATION_HUB: { className: "RevocationHub", useSQLite: true } },
  };
  const faultyHubs = {
    name: "faulty-hubs",
    modules: [{ type: /** @type {const} */ ("ESModule"), path: "index.mjs", contents: FAULTY_HUB }],
    compatibilityDate,
    durableObjects: {
      REVOCATION_HUB: { className: "FaultyHub", useSQLite: true },
      HUBS: { className: "RevocationHub", useSQLite: true, scriptName: HUB_WORKER },
    },
  };
  // What brings pushes to the hubs in their faulty guise.
  const faultyDoor = {
    ...hubs,
    name: "faulty-door",
    durableObjects: { REVOCATION_HUB: { className: "FaultyHub", useSQLite: true, scriptName: "faulty-hubs" } },
  };
  const start = (onPort) =>
    new Miniflare(
      convertV4MiniflareOptions({
        workers: [
          ...Array.from({ length: isolates }, (_, isolate) => worker(isolate)), ...(whole ? [hubs] : []), ...(isolates > 1 ? [faultyHubs, faultyDoor] : []), ...beside,
        ],
        unsafeLocalExplorer: true,
        host: "127.0.0.1",
        port: onPort,
        cf: false,
        ...(inspected && { inspectorPort: 0 }),
        logRequests: verbose,
        log: new Log(verbose ? LogLevel.DEBUG : LogLevel.WARN),
        ...(persist && { resourcePersistencePath: persist }),
        ...(logs && { handleStructuredLogs: ({ message }) => logs(message) }),
      }),
    );
  let miniflare = start(port);
  const hubOf = async (worker, name, request, init) => {
    const hubs = await miniflare.getDurableObjectNamespace("REVOCATION_HUB", worker);
    return hubs.get(hubs.idFromName(name)).fetch(`https://hub/${request}`, init);
  };
  const stop = async () => {
    await miniflare.dispose();
    for (const { temporary, folder } of Object.values(bundles)) {
      if (temporary) fs.rmSync(folder, { recursive: true, force: true });
    }
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
      hub: (name, request, init) => hubOf(HUB_WORKER, name, request, init),
      break: async (name, fault) => void (await hubOf(nameOf(1), name, "fault", { method: "PUT", body: fault })),
      inspector: async () => (await miniflare.getInspectorURL()).href,
      evictHub: (name) => miniflare.unsafeEvictDurableObject(HUB_WORKER, "RevocationHub", { name }),
      stop,
      restart: async (changes = {}) => {
        vars = { ...vars, ...changes };
        hubs.bindings = faultyDoor.bindings = vars;
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

/**
 * That secret is the hubs' alone.
 * @param {Record<string, string>} settings
 */
function withoutPushSecret(settings) {
  const { HUB_PUSH_SECRET: _, ...vars } = settings;
  return vars;
}

/** The Worker of the hubs, as the edge's bindings name it. */
export const HUB_WORKER = "countersign-hub";

/** A Worker as a deployment uploads it. */
function builtBundle(name) {
  const folder = path.join(edgeBuildDir, name);
  if (!fs.existsSync(path.join(folder, "index.js"))) {
    throw new Problem("the Workers aren't bundled", { fix: "node bin/lib/build-edge.mjs --bundle" });
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
