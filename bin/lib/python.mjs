// Python's PyJWT, in an environment of its own: a test verifies with it what the issuer signs, because others will.

import fs from "node:fs";
import path from "node:path";

import { Problem } from "./output.mjs";
import { toolsDir } from "./paths.mjs";
import { run } from "./processes.mjs";

/** All of it, so that every machine tests with the same. */
const PACKAGES = ["PyJWT==2.15.1", "cryptography==50.0.2", "cffi==2.1.1", "pycparser==3.12"];
const folder = path.join(toolsDir, "python");
const python = path.join(folder, "bin", "python");
const stamp = path.join(folder, ".installed");
const FIX = "install Python ≥ 3.9 with venv and pip (Debian: apt-get install python3-venv) and run bin/test again";

const isThere = () => fs.existsSync(stamp) && fs.readFileSync(stamp, "utf8") === PACKAGES.join(" ");

/**
 * A Python that has PyJWT.
 * @returns {string}
 * @throws {Problem} when there is none
 */
export function pythonWithPyJwt() {
  if (!isThere()) throw new Problem("PyJWT isn't installed in the project's tools", { fix: FIX });
  return python;
}

/**
 * Installs it on first use.
 * @param {(status: string) => void} [progress]
 * @returns {Promise<{installed: boolean, version: string}>} `installed`: just now
 * @throws {Problem} when there is no Python to install it for, or no network
 */
export async function ensurePyJwt(progress = () => {}) {
  const version = PACKAGES[0].split("==")[1];
  if (isThere()) return { installed: false, version };
  const log = path.join(toolsDir, "python-install.log");
  fs.mkdirSync(toolsDir, { recursive: true });
  fs.rmSync(folder, { recursive: true, force: true });
  progress("making an environment");
  await run("python3", ["-m", "venv", folder], { log, failure: "python3 can't make an environment for PyJWT", fix: FIX });
  progress("installing");
  await run(python, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--no-deps", ...PACKAGES], {
    log, failure: "pip couldn't install PyJWT", fix: `check the network (log: ${log}); ${FIX}`,
  });
  fs.writeFileSync(stamp, PACKAGES.join(" "));
  return { installed: true, version };
}
