// Programs of Python's that tests check with, each in an environment of its own in the project's tools.

import fs from "node:fs";
import path from "node:path";

import { Problem } from "./output.mjs";
import { toolsDir } from "./paths.mjs";
import { run } from "./processes.mjs";

const FIX = "install Python ≥ 3.9 with venv and pip (Debian: apt-get install python3-venv) and run bin/test again";

/**
 * @typedef {object} Environment
 * @property {string} name what it is for, first of its packages
 * @property {string} folder its name in the project's tools
 * @property {string[]} packages all of them with their versions, so that every machine tests with the same
 */

/** @param {Environment} environment */
const placesOf = ({ folder }) => ({ root: path.join(toolsDir, folder), stamp: path.join(toolsDir, folder, ".installed"), bin: path.join(toolsDir, folder, "bin") });

/** @param {Environment} environment */
function isThere(environment) {
  const { stamp } = placesOf(environment);
  return fs.existsSync(stamp) && fs.readFileSync(stamp, "utf8") === environment.packages.join(" ");
}

/**
 * Makes an environment on first use.
 * @param {Environment} environment
 * @param {(status: string) => void} [progress]
 * @returns {Promise<{installed: boolean, bin: string}>} `installed`: just now; `bin`: where its programs are
 * @throws {Problem} when there is no Python to install it for, or no network
 */
export async function ensureEnvironment(environment, progress = () => {}) {
  const { name, folder, packages } = environment;
  const { root, stamp, bin } = placesOf(environment);
  if (isThere(environment)) return { installed: false, bin };
  const log = path.join(toolsDir, `${folder}-install.log`);
  fs.mkdirSync(toolsDir, { recursive: true });
  fs.rmSync(root, { recursive: true, force: true });
  progress("making an environment");
  await run("python3", ["-m", "venv", root], { log, failure: `python3 can't make an environment for ${name}`, fix: FIX });
  progress("installing");
  await run(path.join(bin, "python"), ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--no-deps", ...packages], {
    log, failure: `pip couldn't install ${name}`, fix: `check the network (log: ${log}); ${FIX}`,
  });
  fs.writeFileSync(stamp, packages.join(" "));
  return { installed: true, bin };
}

/** PyJWT: a test verifies with it what the issuer signs, because others will. */
const PYJWT = { name: "PyJWT", folder: "python", packages: ["PyJWT==2.15.1", "cryptography==50.0.2", "cffi==2.1.1", "pycparser==3.12"] };

/**
 * A Python that has PyJWT.
 * @returns {string}
 * @throws {Problem} when there is none
 */
export function pythonWithPyJwt() {
  if (!isThere(PYJWT)) throw new Problem("PyJWT isn't installed in the project's tools", { fix: FIX });
  return path.join(placesOf(PYJWT).bin, "python");
}

/**
 * @param {(status: string) => void} [progress]
 * @returns {Promise<{installed: boolean, version: string}>}
 * @throws {Problem} as `ensureEnvironment` does
 */
export async function ensurePyJwt(progress) {
  const { installed } = await ensureEnvironment(PYJWT, progress);
  return { installed, version: PYJWT.packages[0].split("==")[1] };
}
