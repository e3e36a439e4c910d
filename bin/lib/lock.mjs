// One run at a time in each state directory.

import fs from "node:fs";
import path from "node:path";

import { Problem } from "./output.mjs";
import { shown } from "./paths.mjs";
import { identity } from "./processes.mjs";

/**
 * Takes the lock, also one whose owner has died.
 * @param {string} dir the state directory
 * @param {string} name the command, for the message
 * @returns {() => void} gives it back
 * @throws {Problem} when another run holds it
 */
export function takeLock(dir, name) {
  fs.mkdirSync(dir, { recursive: true });
  const lock = path.join(dir, "lock");
  const mine = `${lock}.${process.pid}`;
  const content = JSON.stringify({ pid: process.pid, started: identity(process.pid) });
  fs.writeFileSync(mine, content);
  try {
    for (;;) {
      try {
        // A link appears with its content, or not at all.
        fs.linkSync(mine, lock);
        return () => {
          if (read(lock) === content) fs.rmSync(lock, { force: true });
        };
      } catch (error) {
        if (error.code !== "EEXIST") throw error;
      }
      const theirs = read(lock);
      if (theirs === undefined) continue;
      refuseIfAlive(theirs, dir, name);
      const taken = `${mine}.stale`;
      try {
        fs.renameSync(lock, taken);
      } catch (error) {
        if (error.code === "ENOENT") continue;
        throw error;
      }
      // Between the look and the rename a third run may have put its own there: that one goes back.
      const moved = read(taken);
      if (moved !== theirs) {
        try {
          fs.linkSync(taken, lock);
        } catch {
          // A fourth was quicker; the loop meets it.
        }
      }
      fs.rmSync(taken, { force: true });
    }
  } finally {
    fs.rmSync(mine, { force: true });
  }
}

function read(file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

function refuseIfAlive(text, dir, name) {
  let owner;
  try {
    owner = JSON.parse(text);
  } catch {
    return;
  }
  if (identity(owner.pid) !== owner.started) return;
  throw new Problem(`${name} is already running here (process ${owner.pid}, state in ${shown(dir)})`, {
    fix: `stop it with Ctrl-C in its terminal or with: kill ${owner.pid}`,
  });
}
