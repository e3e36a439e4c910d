// npm's packages, and the Node that wrangler needs: the system's may be older, so npm brings one.

import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { isDeepStrictEqual } from "node:util";

import { Problem } from "./output.mjs";
import { root, stateDir, toolsDir } from "./paths.mjs";
import { run } from "./processes.mjs";

const PACKAGES = path.join(root, "node_modules");
/** wrangler's own minimum. */
const OLDEST = [22, 12];

/**
 * Installs what package-lock.json names, if that isn't what is there.
 * @returns {Promise<{installed: boolean}>}
 */
export async function ensurePackages() {
  const lock = fs.readFileSync(path.join(root, "package-lock.json"), "utf8");
  const { devDependencies, optionalDependencies } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
  const locked = JSON.parse(lock).packages[""];
  if (!isDeepStrictEqual([devDependencies, optionalDependencies], [locked.devDependencies, locked.optionalDependencies])) {
    throw new Problem("package-lock.json doesn't belong to package.json", { fix: "run npm install, and commit package-lock.json" });
  }
  const digest = crypto.createHash("sha256").update(lock).digest("hex");
  const stamp = path.join(PACKAGES, ".installed-from");
  if (fs.existsSync(stamp) && fs.readFileSync(stamp, "utf8") === digest) return { installed: false };
  // Not `npm ci`: it refuses a lock file made where the registry lacks a package for some other platform.
  await run("npm", ["install", "--no-save", "--loglevel=error"], {
    cwd: root,
    log: path.join(toolsDir, "npm-install.log"),
    failure: "npm couldn't install the packages of package-lock.json",
    fix: "check the network and run this again",
  });
  fs.writeFileSync(stamp, digest);
  return { installed: true };
}

let node;

/** @returns {string} a Node that wrangler and miniflare run on */
export function modernNode() {
  return (node ??= findNode());
}

function findNode() {
  const prefix = process.platform === "darwin" && process.arch === "arm64" ? "node-bin" : "node";
  const packaged = path.join(PACKAGES, `${prefix}-${process.platform}-${process.arch}`, "bin", "node");
  if (fs.existsSync(packaged)) return packaged;
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1])) return process.execPath;
  throw new Problem(`wrangler needs Node ≥ ${OLDEST.join(".")}; this is ${process.versions.node}, and npm has no newer one for ${process.platform}-${process.arch}`, {
    fix: `install Node ≥ ${OLDEST.join(".")}`,
  });
}

/** An environment in which `node` is the right one. */
export function nodeEnv(env = process.env) {
  return { ...env, PATH: `${path.dirname(modernNode())}${path.delimiter}${path.join(PACKAGES, ".bin")}${path.delimiter}${env.PATH ?? ""}` };
}

/**
 * How to run wrangler here: no questions, no telemetry, nothing fetched, its files in the state directory.
 * @param {string[]} args
 */
export function wranglerCommand(args) {
  return {
    command: modernNode(),
    args: [path.join(PACKAGES, "wrangler", "bin", "wrangler.js"), ...args],
    env: {
      ...nodeEnv(),
      CI: "true",
      NO_COLOR: "1",
      WRANGLER_HIDE_BANNER: "true",
      WRANGLER_SEND_METRICS: "false",
      WRANGLER_SEND_ERROR_REPORTS: "false",
      WRANGLER_NO_SKILLS_UPDATE_PROMPTS: "true",
      WRANGLER_LOG_PATH: path.join(stateDir, "logs", "wrangler-debug.log"),
      WRANGLER_CACHE_DIR: path.join(stateDir, "wrangler-cache"),
      WRANGLER_REGISTRY_PATH: path.join(stateDir, "wrangler-registry"),
      CLOUDFLARE_CF_FETCH_ENABLED: "false",
    },
  };
}
