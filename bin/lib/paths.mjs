// Where things are. Nothing else in bin/ spells out a path of the project.

import path from "node:path";
import { fileURLToPath } from "node:url";

/** The root of the project. */
export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

/** What the commands keep between runs. COUNTERSIGN_STATE_DIR moves it, so that two systems can run side by side. */
export const stateDir = path.resolve(root, process.env.COUNTERSIGN_STATE_DIR || ".countersign");

/** Installed tools: the same for every state directory, because they are slow to make. */
export const toolsDir = path.join(root, ".countersign", "tools");

/** What build-edge.mjs makes. */
export const edgeBuildDir = path.join(root, "edge-verifier", "build");

/** `file` the way a person standing in the project would type it. */
export function shown(file) {
  const relative = path.relative(root, file);
  return relative.startsWith("..") ? file : relative || ".";
}
