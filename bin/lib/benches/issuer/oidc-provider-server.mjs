// oidc-provider as its documentation sets it up, for machines' tokens: node oidc-provider-server.mjs FILE, which holds port, clients and private keys.
// A process of its own, that is measured.

import fs from "node:fs";

import Provider from "oidc-provider";

const { port, clients, jwks, resources } = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));

/** Its own adapter for memory forgets all but the last thousand entries. This one forgets none before its time; asking it costs next to nothing. */
const entries = new Map();
class Adapter {
  constructor(name) {
    this.name = name;
  }

  async upsert(id, payload) {
    entries.set(`${this.name}:${id}`, payload);
  }

  async find(id) {
    return entries.get(`${this.name}:${id}`);
  }

  async consume(id) {
    entries.get(`${this.name}:${id}`).consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    entries.delete(`${this.name}:${id}`);
  }

  async findByUid() {}

  async findByUserCode() {}

  async revokeByGrantId() {}
}

const provider = new Provider(`http://127.0.0.1:${port}`, {
  adapter: Adapter,
  clients,
  jwks,
  clientAuthMethods: ["client_secret_basic", "private_key_jwt"],
  scopes: ["orders:read", "orders:write"],
  ttl: { ClientCredentials: 3600 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: (_, resource) => ({
        scope: "orders:read orders:write", audience: resource, accessTokenTTL: 3600, accessTokenFormat: "jwt", jwt: { sign: { alg: resources[resource] } },
      }),
    },
  },
});
provider.on("server_error", (_, error) => console.error(error));
provider.listen(port, "127.0.0.1");
