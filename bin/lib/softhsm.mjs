// SoftHSM, a PKCS#11 token in software, for the tests of a master key that is kept in one. Each test has a token of its own, in a folder of its own.

import fs from "node:fs";

import { findOrInstall, findProgram } from "./packages.mjs";

/** What the tests call by name. */
const PROGRAMS = ["softhsm2-util", "pkcs11-tool", "openssl"];

const MODULES = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm.so", "/usr/local/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so"];

/** @returns {string | undefined} the module's path, where all that the tests need is there */
export function findSoftHsm() {
  return PROGRAMS.every(findProgram) ? MODULES.find((file) => fs.existsSync(file)) : undefined;
}

/**
 * The module, installed by the system's package manager where something is missing and we are root.
 * @param {{log: string, progress?: (status: string) => void}} options
 * @returns {Promise<string>}
 * @throws {Problem} when it is missing and can't be installed
 */
export function requireSoftHsm({ log, progress }) {
  const packages = ["softhsm2", "opensc", "openssl"];
  const others = ["softhsm", "opensc", "openssl"];
  return findOrInstall(findSoftHsm, { what: "SoftHSM, pkcs11-tool and openssl", packages: { "apt-get": packages, dnf: others, apk: others, brew: others }, log, progress });
}
