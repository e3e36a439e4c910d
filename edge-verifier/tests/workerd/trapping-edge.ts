// The edge, with a trap on demand: `GET /__trap/verifier` has the verifier's module fail when it takes its next head; `/__trap/hub` is trapping-hub.ts's.
// What has trapped once traps at every call.

import edge from "../../entry/index.ts";
import type { Env } from "../../entry/settings.ts";

let isSet = false;

const { Instance: HostInstance } = WebAssembly;
function TrappingInstance(module: WebAssembly.Module, imports: WebAssembly.Imports) {
  const instance = new HostInstance(module, imports);
  if (!("finish_head" in instance.exports)) return instance;
  let hasTrapped = false;
  const trapping = ([name, value]: [string, unknown]) => {
    if (typeof value !== "function") return [name, value];
    const call = (...args: unknown[]): unknown => {
      if (name === "finish_head" && isSet) {
        isSet = false;
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
  fetch(request: Request, env: Env, ctx: ExecutionContext): Response | Promise<Response> {
    switch (new URL(request.url).pathname) {
      case "/__trap/hub":
        return env.HUB_DOOR.fetch(request);
      case "/__trap/verifier":
        isSet = true;
        return new Response("set");
      default:
        return edge.fetch(request as never, env, ctx);
    }
  },
};
