// The door in front of the hubs: lets the issuer through, and brings what it pushes to every hub.

import { problem } from "../entry/answers.ts";
import { type Hub, allHubs, readHubPlan } from "../entry/hubs.ts";
import { alarm } from "../entry/refresh.ts";
import { hasSecret } from "../entry/secrets.ts";
import type { HubEnv } from "./settings.ts";

/** None is longer (MAX_HEAD_BYTES in shared/src/revocation/head.rs, MAX_KEY_STATEMENT_BYTES in shared/src/key_statement.rs). */
const MAX_KIB = { head: 256, keys: 96 };
/** How long a hub may take. The issuer gives up a push after 3 s. */
const PUSH_WAIT_MS = 2_000;

/** `PUT …/head` and `…/keys`, for who shows the push secret. What it brings, the hubs check. */
export async function push(what: keyof typeof MAX_KIB, request: Request, env: HubEnv): Promise<Response> {
  if (request.method !== "PUT") {
    return problem(405, "method_not_allowed", "The hub takes heads and key statements by PUT.", { allow: "PUT" });
  }
  if (!env.HUB_PUSH_SECRET) return problem(503, "misconfigured", "HUB_PUSH_SECRET is not set.");
  if (!(await hasSecret(request, env.HUB_PUSH_SECRET))) {
    return problem(401, "unauthorized", "The push secret is missing or wrong.", { "www-authenticate": "Bearer" });
  }
  if (Number(request.headers.get("content-length") ?? Infinity) > MAX_KIB[what] * 1024) {
    return problem(413, "payload_too_large", `What is pushed here has at most ${MAX_KIB[what]} KiB and says its length.`);
  }
  const problems: string[] = [];
  const hubs = allHubs(env.REVOCATION_HUB, readHubPlan(env, problems));
  if (problems.length > 0) return problem(503, "misconfigured", `${problems.join("; ")}.`);
  const body = await request.arrayBuffer();
  return together(await Promise.all(hubs.map((hub) => pushTo(hub, what, body))));
}

/** What a hub said to a push; `status` 0: nothing. */
interface Said {
  readonly hub: string;
  readonly status: number;
  readonly body: Record<string, unknown>;
}

async function pushTo(hub: Hub, what: string, body: ArrayBuffer): Promise<Said> {
  try {
    const signal = AbortSignal.timeout(PUSH_WAIT_MS);
    const response = await hub.fetch(`https://hub/${what}`, { method: "PUT", body, signal });
    return { hub: hub.name, status: response.status, body: await response.json<Record<string, unknown>>() };
  } catch (error) {
    return { hub: hub.name, status: 0, body: { message: error instanceof Error ? error.message : String(error) } };
  }
}

/**
 * One answer of all hubs. They have taken it when each of them has. One that is ahead, or refuses, decides; one that fails makes the issuer try
 * again, which does no harm to those that have it.
 */
function together(said: readonly Said[]): Response {
  const [only] = said;
  const answer = (status: number, body: unknown) =>
    Response.json(body, { status, headers: { "cache-control": "no-store" } });
  if (only !== undefined && said.length === 1 && only.status > 0) return answer(only.status, only.body);

  const refusals = said.filter(({ status }) => status >= 400 && status < 500);
  if (refusals.length > 0) {
    const [first = refusals[0]] = refusals.filter(({ status }) => status === 409).sort((a, b) => -compare(a.body["details"], b.body["details"]));
    return answer(first?.status ?? 400, { ...first?.body, hub: first?.hub });
  }
  const failing = said.filter(({ status }) => status !== 200);
  if (failing.length > 0) {
    const failures = failing.map(({ hub, status, body }) => ({ hub, status, message: body["message"] }));
    for (const { hub, message } of failures) alarm("hub_failed", `${hub}: ${String(message)}`);
    const message = `${said.length - failing.length} of ${said.length} hubs have taken it`;
    return answer(503, { code: "HUBS_INCOMPLETE", message, details: { hubs: said.length, failing: failures } });
  }
  return answer(200, merged(said.map(({ body }) => body)));
}

interface Taken {
  readonly keys?: object | null;
  readonly listeners?: { readonly count: number; readonly epoch: number; readonly seq: number };
}

/** All took the same. They hold the keys that the one holds that has the oldest, and their isolates were told what the last of them was told. */
function merged(bodies: readonly Taken[]): Taken {
  const [first = {}] = bodies;
  const together: Taken = { ...first };
  if (first.keys !== undefined) {
    const keys = bodies.map((body) => body.keys ?? null).sort(compare);
    Object.assign(together, { keys: keys[0] });
  }
  const listeners = bodies.map((body) => body.listeners).filter((heard) => heard !== undefined);
  if (listeners.length > 0) {
    const [behind] = [...listeners].sort(compare);
    Object.assign(together, { listeners: { ...behind, count: listeners.reduce((sum, { count }) => sum + count, 0) } });
  }
  return together;
}

/** By epoch, then by seq or version; what has none comes first. */
function compare(one: unknown, other: unknown): number {
  const [a, b] = [one, other].map((value) => {
    const { epoch = -1, seq, version } = (value ?? {}) as { epoch?: number; seq?: number; version?: number };
    return [epoch, seq ?? version ?? -1] as const;
  }) as [readonly [number, number], readonly [number, number]];
  return a[0] - b[0] || a[1] - b[1];
}
