// The hubs' Worker: the objects that hold the newest head open to every isolate of the edge, and the door in front of them. Apart from the edge, so that
// this has no more in it than what decides about requests, and only this knows the push secret.

import { problem } from "../entry/answers.ts";
import { push } from "./push.ts";
import type { HubEnv } from "./settings.ts";

export { RevocationHub } from "./object.ts";

export default {
  async fetch(request, env): Promise<Response> {
    switch (new URL(request.url).pathname) {
      case "/_countersign/hub/head":
        return push("head", request, env);
      case "/_countersign/hub/keys":
        return push("keys", request, env);
      default:
        return problem(404, "not_found", "The hub has no such path.");
    }
  },
} satisfies ExportedHandler<HubEnv>;
