// Which revocation hubs there are. All hold the same; several are there so that none has to tell the whole world, and so that one is near.

/** Where Cloudflare can be asked to put an object, and roughly where that is: degrees of latitude and longitude. */
const REGIONS = {
  wnam: [40, -118],
  enam: [40, -78],
  sam: [-20, -50],
  weur: [49, 4],
  eeur: [50, 24],
  apac: [20, 110],
  oc: [-30, 148],
  afr: [-5, 25],
  me: [27, 47],
} as const satisfies Record<string, readonly [number, number]>;

/** A location hint of Cloudflare's. */
export type Region = keyof typeof REGIONS;

/** Where somebody is whose coordinates aren't known, by continent. */
const CONTINENTS: Record<string, readonly [number, number]> = {
  AF: REGIONS.afr,
  AN: REGIONS.oc,
  AS: REGIONS.apac,
  EU: REGIONS.weur,
  NA: REGIONS.enam,
  OC: REGIONS.oc,
  SA: REGIONS.sam,
};

/** More objects than that make a push slow: each gets every one. */
const MAX_HUBS = 64;

/** How many hubs there are in each region. */
export interface HubPlan {
  readonly shards: number;
  /** In the operator's order; empty: wherever Cloudflare puts them. */
  readonly regions: readonly Region[];
}

/** Reads `HUB_SHARDS` and `HUB_REGIONS`; what is wrong goes into `problems`. */
export function readHubPlan(env: { HUB_SHARDS?: string; HUB_REGIONS?: string }, problems: string[]): HubPlan {
  const shards = env.HUB_SHARDS || "1";
  const named = (env.HUB_REGIONS ?? "").split(",").map((name) => name.trim()).filter((name) => name !== "");
  const regions = named.filter((name): name is Region => Object.hasOwn(REGIONS, name));
  if (regions.length !== named.length || new Set(named).size !== named.length) {
    problems.push(`HUB_REGIONS must be different ones of ${Object.keys(REGIONS).join(", ")}, comma-separated`);
  }
  if (!/^\d{1,2}$/.test(shards) || Number(shards) < 1 || Number(shards) * Math.max(1, named.length) > MAX_HUBS) {
    problems.push(`HUB_SHARDS must be a whole number from 1 on, and with all regions no more than ${MAX_HUBS} hubs`);
  }
  return { shards: Number(shards), regions };
}

/** What is used of the binding of their class. */
export interface HubNamespace {
  idFromName(name: string): unknown;
  // Cloudflare's own type asks for an id of its own, which is what `idFromName` gives.
  get(id: never, options?: { locationHint?: Region }): { fetch(url: string, init?: RequestInit): Promise<Response> };
}

/** One hub: a Durable Object. */
export class Hub {
  readonly name: string;
  readonly #namespace: HubNamespace;
  readonly #locationHint: Region | undefined;

  constructor(namespace: HubNamespace, name: string, region: Region | undefined) {
    this.#namespace = namespace;
    this.name = name;
    this.#locationHint = region;
  }

  fetch(url: string, init?: RequestInit): Promise<Response> {
    // A stub belongs to the request that made it.
    const id = this.#namespace.idFromName(this.name) as never;
    return this.#namespace.get(id, this.#locationHint && { locationHint: this.#locationHint }).fetch(url, init);
  }
}

/** The hub of a region and a shard. The first one keeps the name that the only one has: with it comes what it knows, and the others begin with that. */
function hub(namespace: HubNamespace, { regions }: HubPlan, region: number, shard: number): Hub {
  const name = regions[region];
  const isFirst = region === 0 && shard === 0;
  return new Hub(namespace, isFirst ? "global" : `${name ?? "anywhere"}/${shard}`, name);
}

/** All hubs. */
export function allHubs(namespace: HubNamespace, plan: HubPlan): Hub[] {
  const regions = Math.max(1, plan.regions.length);
  return Array.from({ length: regions * plan.shards }, (_, place) =>
    hub(namespace, plan, Math.floor(place / plan.shards), place % plan.shards),
  );
}

/** What Cloudflare says of where a request came from; all of it may be missing. */
export type Place = { readonly latitude?: unknown; readonly longitude?: unknown; readonly continent?: unknown } | undefined;

/**
 * The hubs in the order in which an isolate asks them: that of its own shard in the nearest region, in the next nearest and so on, then those of
 * the other shards. `draw`, from 0 to 1, decides the shard.
 */
export function hubsInOrder(namespace: HubNamespace, plan: HubPlan, place: Place, draw: number): Hub[] {
  const regions = Array.from({ length: Math.max(1, plan.regions.length) }, (_, region) => region);
  const here = coordinates(place);
  if (here !== undefined) {
    const away = (region: number) => distance(here, REGIONS[plan.regions[region] ?? "enam"]);
    regions.sort((one, other) => away(one) - away(other));
  }
  const own = Math.min(plan.shards - 1, Math.floor(draw * plan.shards));
  return Array.from({ length: plan.shards }, (_, step) =>
    regions.map((region) => hub(namespace, plan, region, (own + step) % plan.shards)),
  ).flat();
}

function coordinates(place: Place): readonly [number, number] | undefined {
  const { latitude, longitude, continent } = place ?? {};
  const [north, east] = [latitude, longitude].map((text) => (typeof text === "string" ? Number.parseFloat(text) : NaN));
  if (north !== undefined && east !== undefined && !Number.isNaN(north + east)) return [north, east];
  return typeof continent === "string" ? CONTINENTS[continent] : undefined;
}

/** The angle between two places as seen from the middle of the earth. */
function distance([north1, east1]: readonly [number, number], [north2, east2]: readonly [number, number]): number {
  const radians = Math.PI / 180;
  const cosine =
    Math.sin(north1 * radians) * Math.sin(north2 * radians) +
    Math.cos(north1 * radians) * Math.cos(north2 * radians) * Math.cos((east1 - east2) * radians);
  return Math.acos(Math.min(1, Math.max(-1, cosine)));
}
