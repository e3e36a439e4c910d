// Programs of the system's package manager that the tests need: found, or installed where we may.

import fs from "node:fs";
import path from "node:path";

import { Problem } from "./output.mjs";
import { run } from "./processes.mjs";

/**
 * @param {string} name of a program
 * @returns {string | undefined} its file, from the PATH
 */
export function findProgram(name) {
  const folders = (process.env.PATH ?? "").split(path.delimiter).filter(Boolean);
  return folders.map((folder) => path.join(folder, name)).find((file) => fs.existsSync(file));
}

/** What each package manager is told; the last of its commands is the one to show. */
const MANAGERS = {
  "apt-get": (packages) => [["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", ...packages]],
  dnf: (packages) => [["install", "-y", "-q", ...packages]],
  apk: (packages) => [["add", "--quiet", ...packages]],
};

/**
 * What `find` finds, installed first where it finds nothing and we are root.
 * @template T
 * @param {() => T | undefined} find
 * @param {{what: string, packages: Record<keyof typeof MANAGERS | "brew", string[]>, log: string, progress?: (status: string) => void}} options
 *   `what`: in words; `packages`: their names, by package manager
 * @returns {Promise<T>}
 * @throws {Problem} when it is missing and can't be installed
 */
export async function findOrInstall(find, { what, packages, log, progress = () => {} }) {
  const found = find();
  if (found) return found;
  const manager = Object.keys(MANAGERS).find(findProgram);
  const isRoot = process.getuid?.() === 0;
  const names = packages[manager ?? "brew"];
  const command = manager ? `${manager} ${manager === "apk" ? "add" : "install"} ${names.join(" ")}` : `brew install ${names.join(" ")}, or the like`;
  const fix = `install ${isRoot ? "it" : "it as root"}: ${isRoot ? "" : "sudo "}${command}`;
  if (!manager || !isRoot) throw new Problem(`the tests need ${what}`, { fix });
  progress(`installing it with ${manager}`);
  for (const args of MANAGERS[manager](names)) {
    await run(manager, args, {
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" }, log,
      failure: `the tests need ${what}, and ${manager} couldn't install it`, fix,
    });
  }
  const installed = find();
  if (!installed) throw new Problem(`${manager} has installed ${what}, but it isn't where it is looked for`, { fix });
  return installed;
}
