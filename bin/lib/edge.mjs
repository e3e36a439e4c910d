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
 * Runs the bundled Worker (`node bin/lib/build-edge.mjs --bundle`) in miniflare, in workerd, with its Durable Object, its
 * KV namespace and Cloudflare's KV API for it. Needs Node ≥ 22.12.
 * @param {{vars: Record<string, string>, entry?: string, whole?: boolean, port?: number, persist?: string, verbose?: boolean}} options
 *   `vars`: the Worker's variables, by `EdgeSettings`; `entry`: another module entry, bundled here; without hub and namespace unless it is `whole`;
 *   `port` 0 or absent: any free one; `persist`: a folder that keeps what is stored, for tests that restart the edge
 * @returns {Promise<{url: string, kvApiBase: string, kvNamespaceId: string, stop: () => Promise<void>, restart: (changes?: Record<string, string>) => Promise<void>}>}
 *   `restart`: a new workerd at the same address, with what `persist` kept; `changes` to the variables
 */
export async function startEdge({ vars, entry, whole = entry === undefined, port = 0, persist, verbose = false }) {
  const { Log, LogLevel, Miniflare, convertV4MiniflareOptions } = await import("miniflare");
  const bundle = entry ? await bundleEntry(entry) : wholeBundle();
  const wasm = fs.readdirSync(bundle.folder).filter((name) => name.endsWith(".wasm"));
  const { compatibilityDate, compatibilityFlags } = wranglerConfig();
  const start = (onPort) =>
    new Miniflare(
      convertV4MiniflareOptions({
        name: "countersign-edge",
        modulesRoot: bundle.folder,
        modules: [
          { type: "ESModule", path: path.join(bundle.folder, "index.js") },
          ...wasm.map((name) => ({ type: /** @type {const} */ ("CompiledWasm"), path: path.join(bundle.folder, name) })),
        ],
        compatibilityDate,
        compatibilityFlags,
        bindings: !whole ? vars : { CLOCK_LEEWAY_SECONDS: "5", FORWARD_AUTHORIZATION: "false", ...vars },
        ...(whole && {
          durableObjects: { REVOCATION_HUB: { className: "RevocationHub", useSQLite: true } },
          kvNamespaces: { REVOCATION_OBJECTS: KV_NAMESPACE_ID },
        }),
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
