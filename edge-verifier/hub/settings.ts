// What an operator configures at the hubs: variables and bindings of edge-verifier/hub/wrangler.toml.

export interface HubEnv {
  /** The module reads these two: whose heads it takes. */
  readonly ISSUER_URL?: string;
  readonly REVOCATION_KEYS?: string;
  readonly HUB_PUSH_SECRET?: string;
  readonly HUB_SHARDS?: string;
  readonly HUB_REGIONS?: string;
  readonly REVOCATION_HUB: DurableObjectNamespace;
}
