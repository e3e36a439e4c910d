// The edge as it is, on a host whose clock is wrong, whose KV fails or whose hub is gone, as faults.test.mjs says.

import "./shifted-clock.ts";
import edge from "../../entry/index.ts";
import { faultyHubs, mood, withFunction } from "./moods.ts";
import type { Env } from "../../entry/settings.ts";

/** KV's read, as long as it is well. */
async function read(objects: KVNamespace, name: string, options: KVNamespaceGetOptions<"arrayBuffer">): Promise<ArrayBuffer | null> {
  const now = await mood("kv");
  switch (now) {
    case "refuses":
      throw new Error("KV GET failed: 503 Service Unavailable");
    case "has nothing":
      return null;
    case "is slow":
      await scheduler.wait(8_000);
      break;
  }
  const object = await objects.get(name, options);
  return now === "cuts off" ? (object?.slice(0, -8) ?? null) : object;
}

function faulty(env: Env): Env {
  const { REVOCATION_OBJECTS: objects, REVOCATION_HUB: hub } = env;
  return {
    ...env,
    REVOCATION_OBJECTS: withFunction(objects, "get", (name: string, options: KVNamespaceGetOptions<"arrayBuffer">) => read(objects, name, options)),
    REVOCATION_HUB: faultyHubs(hub),
  };
}

export default {
  fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    return edge.fetch(request as never, faulty(env), ctx) as Promise<Response>;
  },
};
