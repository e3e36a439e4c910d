// libfaketime, for a process whose clock steps in a test.

import fs from "node:fs";

import { findOrInstall } from "./packages.mjs";

/** @returns {string | undefined} the library's file */
function find() {
  const folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib", "/opt/homebrew/lib"];
  return folders.map((folder) => `${folder}/faketime/libfaketime.so.1`).find((file) => fs.existsSync(file));
}

/**
 * The library that is to be preloaded, installed by the system's package manager where it is missing and we are root.
 * @param {{log: string, progress?: (status: string) => void}} options
 * @returns {Promise<string>}
 * @throws {Problem} when it is missing and can't be installed
 */
export function requireFakeTime({ log, progress }) {
  const packages = { "apt-get": ["libfaketime"], dnf: ["libfaketime"], apk: ["libfaketime"], brew: ["libfaketime"] };
  return findOrInstall(find, { what: "libfaketime", packages, log, progress });
}
