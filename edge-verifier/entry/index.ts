// The module entry. Paths below /_countersign/ are the verifier's own; every other request goes through the gateway.

import { problem } from "./answers.ts";
import { gateway } from "./gateway.ts";
import { health } from "./health.ts";
import { status, why } from "./operator.ts";
import type { Env } from "./settings.ts";

export default {
  async fetch(request, env, ctx): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (!pathname.startsWith("/_countersign/")) return gateway(request, env, ctx);
    switch (pathname) {
      case "/_countersign/health":
        return health(request, env, ctx);
      case "/_countersign/hub/head":
      case "/_countersign/hub/keys":
        // Theirs is the secret to check.
        return env.HUB_DOOR.fetch(request);
      case "/_countersign/why":
        return why(request, env, ctx);
      case "/_countersign/status":
        return status(request, env, ctx);
      default:
        return problem(404, "not_found", "The edge verifier has no such path.");
    }
  },
} satisfies ExportedHandler<Env>;
