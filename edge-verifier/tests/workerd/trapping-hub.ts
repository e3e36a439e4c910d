// The hubs, with a trap on demand: `GET /__trap/hub` has their module fail in the middle of its next push.

import hub from "../../hub/index.ts";
import type { HubEnv } from "../../hub/settings.ts";

export { RevocationHub } from "../../hub/index.ts";

let isSet = false;

// Only the module makes dates without arguments.
const { Date: HostDate } = globalThis;
globalThis.Date = new Proxy(HostDate, {
  construct(target, args: []) {
    if (args.length === 0 && isSet) {
      isSet = false;
      throw new WebAssembly.RuntimeError("unreachable, for the test");
    }
    return new target(...args);
  },
});

export default {
  fetch(request: Request, env: HubEnv): Response | Promise<Response> {
    if (new URL(request.url).pathname !== "/__trap/hub") return hub.fetch(request as never, env);
    isSet = true;
    return new Response("set");
  },
};
