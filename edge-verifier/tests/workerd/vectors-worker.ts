// A Worker for vectors.test.mjs: runs the shared vectors on the verifier as the edge loads it.

import { Verifier } from "../../entry/verifier.ts";
import { startVerifier } from "../../entry/wasm.ts";
import { runVectors } from "../vectors.mjs";

export default {
  async fetch(request: Request): Promise<Response> {
    const { vectors, revocations } = (await request.json()) as { vectors: object; revocations: object };
    const wasm = startVerifier();
    return Response.json(await runVectors(new Verifier(wasm), wasm, vectors, revocations));
  },
};
