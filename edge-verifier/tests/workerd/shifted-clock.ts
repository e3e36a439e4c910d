// A host whose clock is ahead by CLOCK_SHIFT_MS.

import { env as host } from "cloudflare:workers";

const { CLOCK_SHIFT_MS = "0" } = host as { readonly CLOCK_SHIFT_MS?: string };
const realNow = Date.now.bind(Date);
if (CLOCK_SHIFT_MS !== "0") {
  const now = () => realNow() + Number(CLOCK_SHIFT_MS);
  // `new Date()` too: what is compiled from Rust asks that way.
  globalThis.Date = new Proxy(Date, {
    construct: (target, args: []) => (args.length === 0 ? new target(now()) : new target(...args)),
    get: (target, name) => (name === "now" ? now : Reflect.get(target, name)),
  });
}

export {};
