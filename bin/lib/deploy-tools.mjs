// What checks deploy/: promtool for alerts, and Kubernetes' schemas. Neither is of the product, and neither has to be installed by hand on Debian.

import fs from "node:fs";
import path from "node:path";

import { Problem } from "./output.mjs";
import { findProgram } from "./packages.mjs";
import { toolsDir } from "./paths.mjs";
import { run } from "./processes.mjs";
import { ensureEnvironment } from "./python.mjs";

const PROMTOOL_FIX = "install Prometheus, which promtool comes with (Debian: apt-get install prometheus; brew install prometheus)";
const promtoolFolder = path.join(toolsDir, "promtool");
const packaged = path.join(promtoolFolder, "usr", "bin", "promtool");

/** @returns {string | undefined} promtool, from the PATH or the project's tools */
export function findPromtool() {
  return findProgram("promtool") ?? (fs.existsSync(packaged) ? packaged : undefined);
}

/**
 * promtool; taken out of Debian's package where it is missing. The package itself isn't installed: it would start a server, on a port that the issuer uses.
 * @param {(status: string) => void} [progress]
 * @returns {Promise<string>}
 * @throws {Problem} when it is missing and there is no package of it
 */
export async function ensurePromtool(progress = () => {}) {
  const found = findPromtool();
  if (found) return found;
  const failure = "the alerts' tests need promtool";
  if (!findProgram("apt-get") || !findProgram("dpkg-deb")) throw new Problem(failure, { fix: PROMTOOL_FIX });
  const log = path.join(toolsDir, "promtool-install.log");
  fs.rmSync(promtoolFolder, { recursive: true, force: true });
  fs.mkdirSync(promtoolFolder, { recursive: true });
  const options = { log, failure, fix: PROMTOOL_FIX, cwd: promtoolFolder };
  progress("taking it out of Debian's package");
  // The lists may be old, or not there at all; only root can bring them up to date.
  if (process.getuid?.() === 0) await run("apt-get", ["update", "-qq"], options);
  await run("apt-get", ["download", "-qq", "prometheus"], options);
  for (const name of fs.readdirSync(promtoolFolder).filter((file) => file.endsWith(".deb"))) {
    await run("dpkg-deb", ["--extract", name, "."], options);
    fs.rmSync(path.join(promtoolFolder, name));
  }
  if (!fs.existsSync(packaged)) throw new Problem("Debian's package of Prometheus has no promtool", { fix: PROMTOOL_FIX });
  // The server isn't of use here.
  fs.rmSync(path.join(promtoolFolder, "usr", "bin", "prometheus"), { force: true });
  return packaged;
}

/** Kubernetes' own schemas, and what compares with them. */
const KUBERNETES_VALIDATE = {
  name: "kubernetes-validate", folder: "kubernetes-validate",
  packages: [
    "kubernetes-validate==1.37.0", "PyYAML==6.0.3", "jsonschema==4.26.0", "jsonschema-specifications==2025.9.1", "referencing==0.37.0",
    "rpds-py==2026.9.1", "attrs==26.1.0", "typing_extensions==4.16.0", "importlib_resources==7.1.0", "packaging==26.3",
  ],
};
export const kubernetesValidate = path.join(toolsDir, KUBERNETES_VALIDATE.folder, "bin", "kubernetes-validate");

/**
 * @param {(status: string) => void} [progress]
 * @returns {Promise<string>} the program
 * @throws {Problem} when there is no Python to install it for, or no network
 */
export async function ensureKubernetesValidate(progress) {
  await ensureEnvironment(KUBERNETES_VALIDATE, progress);
  return kubernetesValidate;
}
