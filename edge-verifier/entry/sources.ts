// Where an isolate at Cloudflare learns what is revoked: hubs by their binding, objects from KV.

import { type HubNamespace, type HubPlan, type Place, hubsInOrder } from "./hubs.ts";
import type { HeadSource, ObjectStore } from "./revocations.ts";

/** How long KV may answer from a location's cache. */
const KV_CACHE_SECONDS = 60;

/** What is used of a Workers KV namespace. */
export interface ObjectNamespace {
  get(key: string, options: { type: "arrayBuffer"; cacheTtl: number }): Promise<ArrayBuffer | null>;
}

/** The hubs in the order in which an isolate asks them; `place`: where its requests come from. */
export function boundHubs(namespace: HubNamespace, plan: HubPlan, place: Place): HeadSource[] {
  return hubsInOrder(namespace, plan, place, draw()).map((hub) => ({
    name: hub.name,
    fetch: (question, init) => hub.fetch(`https://hub/head?${question}`, init),
  }));
}

export function boundObjects(namespace: ObjectNamespace): ObjectStore {
  // KV caches that there is nothing, too: the shortest time it takes, so that an early look doesn't spoil many later ones.
  return { name: "KV", get: (name) => namespace.get(`base/${name}`, { type: "arrayBuffer", cacheTtl: KV_CACHE_SECONDS }) };
}

/** A random number from 0 to 1. */
function draw(): number {
  return (crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) / 2 ** 32;
}
