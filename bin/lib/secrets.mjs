// The secrets of a development system: made once, kept in the state directory, readable by its owner only.

import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";

/** Writes a file that only its owner can read, all of it or nothing. */
export function writeSecret(file, content) {
  fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
  const partial = `${file}.${process.pid}.partial`;
  fs.writeFileSync(partial, content, { mode: 0o600 });
  fs.renameSync(partial, file);
}

/**
 * The secret kept under `name`, made on first use.
 * @param {string} dir the state directory
 * @param {string} name
 * @param {BufferEncoding} [encoding] how its 32 random bytes are written
 */
export function keptSecret(dir, name, encoding = "base64url") {
  const file = path.join(dir, "secrets", name);
  try {
    return fs.readFileSync(file, "utf8").trim();
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  const secret = crypto.randomBytes(32).toString(encoding);
  writeSecret(file, `${secret}\n`);
  return secret;
}
