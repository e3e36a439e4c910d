// The edge, with traps on demand: `GET /__trap/hub` has the hub's module fail in the middle of its next push, `GET /__trap/verifier` the verifier's
// when it takes its next head. What has trapped once traps at every call.

import edge from "../../entry/index.ts";

export { RevocationHub } from "../../entry/hub.ts";

const traps = { hub: false, verifier: false };

// Only the hub's module makes dates without arguments.
const { Date: HostDate } = globalThis;
globalThis.Date = new Proxy(HostDate, {
  construct(target, args: []) {
    if (args.length === 0 && traps.hub) {
      traps.hub = false;
      throw new WebAssembly.RuntimeError("unreachable, for the test");
    }
    return new target(...args);
  },
});

const { Instance: HostInstance } = WebAssembly;
function TrappingInstance(module: WebAssembly.Module, imports: WebAssembly.Imports) {
  const instance = new HostInstance(module, imports);
  if (!("finish_head" in instance.exports)) return instance;
  let hasTrapped = false;
  const trapping = ([name, value]: [string, unknown]) => {
    if (typeof value !== "function") return [name, value];
    const call = (...args: unknown[]): unknown => {
      if (name === "finish_head" && traps.verifier) {
        traps.verifier = false;
        hasTrapped = true;
      }
      if (hasTrapped) throw new WebAssembly.RuntimeError("unreachable, for the test");
      return value(...args);
    };
    return [name, call];
  };
  return { exports: Object.fromEntries(Object.entries(instance.exports).map(trapping)) };
}
Object.assign(WebAssembly, { Instance: TrappingInstance });

export default {
  fetch(request: Request, env: never, ctx: ExecutionContext): Response | Promise<Response> {
    const [, what] = /^\/__trap\/(hub|verifier)$/.exec(new URL(request.url).pathname) ?? [];
    if (what === undefined) return edge.fetch(request as never, env, ctx);
    traps[what as keyof typeof traps] = true;
    return new Response("set");
  },
};
