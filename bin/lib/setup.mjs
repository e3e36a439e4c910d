// Everything between a fresh clone and a system that can be started, each part as a line of its own. What is there already
// isn't made again; `did` says whether there was anything to do.

import { buildEdge, describeSizes } from "./build-edge.mjs";
import { buildIssuer } from "./issuer.mjs";
import { ensurePackages, modernNode } from "./npm.mjs";
import { Problem, task } from "./output.mjs";
import { findServer } from "./postgres.mjs";
import { run } from "./processes.mjs";
import { ensurePyJwt } from "./python.mjs";
import { ensureRust, ensureWasmBindgen, requireCCompiler } from "./rust.mjs";

/** @typedef {Promise<{did: boolean, result: string}>} Part */

/** The toolchain. Everything else needs it first. */
export const setUpRust = () =>
  task("Rust", async () => {
    await requireCCompiler();
    return `${await ensureRust()}, target wasm32-unknown-unknown`;
  });

/** @returns {Part} */
export const setUpPackages = () =>
  task("npm packages", async () => {
    const { installed: did } = await ensurePackages();
    const { stdout } = await run(modernNode(), ["--version"]);
    return { did, result: `${did ? "installed" : "up to date"}; Node ${stdout.trim().slice(1)} for wrangler` };
  });

/** @returns {Part} */
export const setUpWasmBindgen = () =>
  task("wasm-bindgen", async (progress) => {
    const { version, installed: did } = await ensureWasmBindgen(progress);
    return { did, result: `${version} ${did ? "installed" : "is there"}` };
  });

/** @returns {Part} */
export const setUpIssuer = () =>
  task("issuer", async (progress) => {
    const { compiled } = await buildIssuer(progress);
    return { did: compiled > 0, result: compiled ? `compiled (${compiled} crates)` : "up to date" };
  });

/** Needs npm's packages and wasm-bindgen. @returns {Part} */
export const setUpEdge = () =>
  task("edge modules", async (progress) => {
    const { built, sizes } = await buildEdge({ progress });
    return { did: built.length > 0, result: `${built.length ? "built" : "up to date"}: ${describeSizes(sizes)}` };
  });

/** For the tests that verify with PyJWT: without it they fail, and say what to do. @returns {Part} */
export const setUpPyJwt = () =>
  task("PyJWT", async (progress) => {
    try {
      const { installed: did, version } = await ensurePyJwt(progress);
      return { did, result: `${version} ${did ? "installed" : "is there"}` };
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      return { did: false, result: `is missing: ${error.message}` };
    }
  });

/** A Postgres that can be started. */
export const setUpPostgres = () =>
  task("Postgres", async (progress) => {
    const server = await findServer(progress);
    return { ...server, result: `${server.version} ${server.packaged ? "from npm" : "on this machine"}` };
  });
