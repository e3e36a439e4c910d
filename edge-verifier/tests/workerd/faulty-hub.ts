// The hubs' Worker as it is, on a host whose clock is wrong, or whose objects are gone, as faults.test.mjs says.

import "./shifted-clock.ts";
import hubs from "../../hub/index.ts";
import type { HubEnv } from "../../hub/settings.ts";
import { faultyHubs } from "./moods.ts";

export { RevocationHub } from "../../hub/index.ts";

export default {
  fetch(request: Request, env: HubEnv): Response | Promise<Response> {
    return hubs.fetch(request as never, { ...env, REVOCATION_HUB: faultyHubs(env.REVOCATION_HUB) });
  },
};
