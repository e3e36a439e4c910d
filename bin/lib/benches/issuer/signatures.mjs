// What a signature costs by itself: issuer/examples/signature-cost.rs, with the library that the issuer signs with.

import path from "node:path";

import { Problem } from "../../output.mjs";
import { toolsDir } from "../../paths.mjs";
import { run } from "../../processes.mjs";
import { cargo, targetDir } from "../../rust.mjs";

/**
 * @param {(status: string) => void} progress
 * @param {string} profile cargo's
 */
export async function buildSignatures(progress, profile) {
  const { compiled } = await cargo(["build", "-p", "countersign-issuer", "--example", "signature-cost", "--profile", profile], {
    log: path.join(toolsDir, "build-signature-cost.log"), failure: "the measurement of signatures doesn't compile", progress,
  });
  return { result: compiled ? `compiled (${compiled} crates)` : "up to date" };
}

/**
 * @param {number} ms how long to sign with each algorithm
 * @param {string} profile of the build
 * @param {number} copies so many processes do that at once
 * @returns {Promise<Record<string, number>>} CPU of one signature in µs, by algorithm; the copies' mean
 */
export async function bareSignatures(ms, profile, copies) {
  const program = path.join(await targetDir(), profile === "dev" ? "debug" : profile, "examples", "signature-cost");
  const outputs = await Promise.all(Array.from({ length: copies }, () => run(program, [String(ms)], { failure: "signatures couldn't be measured" })));
  /** @type {Record<string, number>} */
  const costs = {};
  for (const { stdout } of outputs) {
    for (const [algorithm, nanos] of stdout.trim().split("\n").map((line) => line.split(" "))) {
      if (!(Number(nanos) > 0)) throw new Problem(`the measurement of signatures printed: ${stdout}`);
      costs[algorithm] = (costs[algorithm] ?? 0) + Number(nanos) / 1000 / copies;
    }
  }
  return costs;
}
