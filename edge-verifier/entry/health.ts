// `GET /_countersign/health`.

import type { Env } from "./settings.ts";
import { type Isolate, failed, theIsolate } from "./isolate.ts";

/** 503 until the isolate could decide about a request. */
export async function health(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
  const held = theIsolate(env, request.cf);
  if (held instanceof Response) return held;
  try {
    return await healthOf(held, ctx);
  } catch (error) {
    return failed(held, error);
  }
}

async function healthOf(held: Isolate, ctx: ExecutionContext): Promise<Response> {
  const isCurrent = (await held.revocations.ready(ctx)) !== "refuse";
  const hasKeys = await held.keys.ready(ctx);
  const head = held.verifier.head();
  const isUsable = isCurrent && head !== undefined && Date.now() / 1000 < head.freshUntil;
  const status = hasKeys && isUsable ? "ok" : head === undefined || !hasKeys ? "starting" : "stale";
  const revocations = head && { epoch: head.epoch, seq: head.seq, age_ms: held.revocations.ageMs };
  return Response.json(
    {
      status,
      keys: hasKeys ? "loaded" : "missing",
      key_statement: held.verifier.keyPosition() ?? null,
      revocations: revocations ?? null,
    },
    { status: status === "ok" ? 200 : 503, headers: { "cache-control": "no-store" } },
  );
}
