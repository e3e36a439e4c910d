// SoftHSM, a PKCS#11 token in software, for the tests of a master key that is kept in one. Each test has a token of its own, in a folder of its own.

import fs from "node:fs";
import path from "node:path";

import { Problem } from "./output.mjs";
import { run } from "./processes.mjs";

/** What the tests call by name. */
const PROGRAMS = ["softhsm2-util", "pkcs11-tool", "openssl"];

const MODULES = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm.so", "/usr/local/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so"];

const INSTALLERS = [
  { program: "apt-get", commands: [["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "softhsm2", "opensc", "openssl"]] },
  { program: "dnf", commands: [["dnf", "install", "-y", "-q", "softhsm", "opensc", "openssl"]] },
  { program: "apk", commands: [["apk", "add", "--quiet", "softhsm", "opensc", "openssl"]] },
];

/** @param {string} name */
function isOnPath(name) {
  return (process.env.PATH ?? "").split(path.delimiter).some((folder) => folder && fs.existsSync(path.join(folder, name)));
}

/** @returns {string | undefined} the module's path, where all that the tests need is there */
export function findSoftHsm() {
  return PROGRAMS.every(isOnPath) ? MODULES.find((file) => fs.existsSync(file)) : undefined;
}

/**
 * The module, installed by the system's package manager where something is missing and we are root.
 * @param {{log: string, progress?: (status: string) => void}} options
 * @returns {Promise<string>}
 * @throws {Problem} when it is missing and can't be installed
 */
export async function requireSoftHsm({ log, progress = () => {} }) {
  const found = findSoftHsm();
  if (found) return found;
  const installer = INSTALLERS.find(({ program }) => isOnPath(program));
  const command = installer ? installer.commands.slice(-1)[0].join(" ").replace(" -qq", "") : "brew install softhsm opensc, or the like";
  const fix = `install SoftHSM, OpenSC and OpenSSL: ${process.getuid?.() === 0 ? "" : "sudo "}${command}`;
  if (!installer || process.getuid?.() !== 0) throw new Problem("the tests need SoftHSM, pkcs11-tool and openssl", { fix });
  progress(`installing it with ${installer.program}`);
  for (const [program, ...args] of installer.commands) {
    await run(program, args, {
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" }, log,
      failure: `the tests need SoftHSM, pkcs11-tool and openssl, and ${installer.program} couldn't install them`, fix,
    });
  }
  const installed = findSoftHsm();
  if (!installed) throw new Problem(`${installer.program} installed SoftHSM, but its module isn't where it is looked for`, { fix: `it is looked for at ${MODULES.join(", ")}` });
  return installed;
}
