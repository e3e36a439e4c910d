// How KV and the hub are now, as faults.test.mjs says.

import { env as host } from "cloudflare:workers";

/** Where it is said: `{"kv": "…", "hub": "…"}`. */
const { MOODS_URL } = host as { readonly MOODS_URL: string };

export async function mood(of: "kv" | "hub"): Promise<string> {
  return ((await (await fetch(MOODS_URL)).json()) as Record<string, string>)[of] ?? "is well";
}

/** The hubs, of which none answers when they are gone. */
export function faultyHubs(hubs: DurableObjectNamespace): DurableObjectNamespace {
  const reach = (stub: DurableObjectStub) =>
    withFunction(stub, "fetch", async (...args: Parameters<DurableObjectStub["fetch"]>) => {
      if ((await mood("hub")) === "is gone") throw new Error("the Durable Object can't be reached");
      return broken(await stub.fetch(...args));
    });
  return withFunction(hubs, "get", (...args: Parameters<DurableObjectNamespace["get"]>) => reach(hubs.get(...args)));
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
export function withFunction<T extends object>(target: T, name: string, replacement: (...args: never[]) => unknown): T {
  return new Proxy(target, {
    get(target, asked) {
      if (asked === name) return replacement;
      const value: unknown = Reflect.get(target, asked);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
