// The edge as it is, on a host whose clock is wrong, whose KV fails or whose hub is gone, as faults.test.mjs says.

import { env as host } from "cloudflare:workers";
import "./shifted-clock.ts";
import edge from "../../entry/index.ts";
import type { Env } from "../../entry/settings.ts";

interface Faults extends Env {
  /** Where it is said how KV and the hub are now: `{"kv": "…", "hub": "…"}`. */
  readonly MOODS_URL: string;
}

const { MOODS_URL } = host as Faults;
async function mood(of: "kv" | "hub"): Promise<string> {
  return ((await (await fetch(MOODS_URL)).json()) as Record<string, string>)[of] ?? "is well";
}

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

/** An answer of the hub, which breaks off when it is gone. */
function broken(response: Response): Response {
  const breaking = new TransformStream<Uint8Array, Uint8Array>({
    async transform(chunk, controller) {
      if ((await mood("hub")) === "is gone") controller.error(new Error("the Durable Object is gone"));
      else controller.enqueue(chunk);
    },
  });
  return new Response(response.body?.pipeThrough(breaking) ?? null, response);
}

/** A function of `target` in place of its own. */
function withFunction<T extends object>(target: T, name: string, replacement: (...args: never[]) => unknown): T {
  return new Proxy(target, {
    get(target, asked) {
      if (asked === name) return replacement;
      const value: unknown = Reflect.get(target, asked);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

function faulty(env: Faults): Faults {
  const { REVOCATION_OBJECTS: objects, REVOCATION_HUB: hub } = env;
  const reach = (stub: DurableObjectStub) =>
    withFunction(stub, "fetch", async (...args: Parameters<DurableObjectStub["fetch"]>) => {
      if ((await mood("hub")) === "is gone") throw new Error("the Durable Object can't be reached");
      return broken(await stub.fetch(...args));
    });
  return {
    ...env,
    REVOCATION_OBJECTS: withFunction(objects, "get", (name: string, options: KVNamespaceGetOptions<"arrayBuffer">) => read(objects, name, options)),
    REVOCATION_HUB: withFunction(hub, "get", (...args: Parameters<DurableObjectNamespace["get"]>) => reach(hub.get(...args))),
  };
}

export default {
  fetch(request: Request, env: Faults, ctx: ExecutionContext): Promise<Response> {
    return edge.fetch(request as never, faulty(env), ctx) as Promise<Response>;
  },
};
