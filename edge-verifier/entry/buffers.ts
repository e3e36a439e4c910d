// Text into the verifier's module and out of it. Nothing may be awaited between this and the call that it is for.

import type { VerifierExports } from "./verifier.ts";

/** Writes the input of the next call; its length in bytes. */
export function write(wasm: VerifierExports, text: string): number {
  // Three bytes are the most that UTF-8 needs for one UTF-16 code unit.
  const start = wasm.input(text.length * 3);
  return encoder.encodeInto(text, new Uint8Array(wasm.memory.buffer, start, text.length * 3)).written;
}

/** Reads the output of the last call. */
export function read(wasm: VerifierExports): string {
  return decoder.decode(new Uint8Array(wasm.memory.buffer, wasm.output_ptr(), wasm.output_len()));
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
