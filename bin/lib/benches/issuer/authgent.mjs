// authgent-server from PyPI as a contestant: one uvicorn, on SQLite, as it starts by itself.

import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";

import { request, until } from "../../http.mjs";
import { Problem } from "../../output.mjs";
import { freePort } from "../../ports.mjs";
import { run } from "../../processes.mjs";
import { ensureEnvironment } from "../../python.mjs";
import { askAll } from "./contestants.mjs";
import { resourceOf } from "./ours.mjs";
import { basicOf } from "./wrk.mjs";

export const VERSION = "0.3.4";

const ENVIRONMENT = {
  name: "authgent-server", folder: "python-authgent",
  packages: [
    `authgent-server==${VERSION}`, "aiosqlite==0.22.1", "annotated-doc==0.0.7", "annotated-types==0.8.0", "anyio==4.16.0", "bcrypt==5.0.0", "certifi==2026.10.18",
    "cffi==2.1.1", "click==8.5.1", "cryptography==50.0.2", "fastapi==0.165.0", "greenlet==3.5.6", "h11==0.16.0", "httpcore==1.0.9", "httptools==0.9.0",
    "httpx==0.28.1", "idna==3.20", "Jinja2==3.1.6", "markdown-it-py==4.3.0", "MarkupSafe==3.0.4", "mdurl==0.1.2", "opentelemetry-api==1.45.2", "pycparser==3.12",
    "pydantic==2.14.3", "pydantic-settings==2.16.3", "pydantic_core==2.50.4", "Pygments==2.21.0", "PyJWT==2.15.1", "python-dotenv==1.2.4",
    "python-multipart==0.0.34", "python-ulid==4.1.0", "PyYAML==6.0.3", "rich==15.0.0", "shellingham==1.5.4", "SQLAlchemy==2.1.9", "starlette==1.10.0",
    "structlog==26.1.0", "typer==0.29.2", "typing-inspection==0.4.5", "typing_extensions==4.16.0", "uvicorn==0.54.0", "uvloop==0.23.0", "watchfiles==1.3.0",
    "websockets==17.4",
  ],
};

/** A bcrypt check takes a quarter of a second there, one after the other: more at once would only wait. */
const CONNECTIONS = 2;

/** @param {(status: string) => void} [progress] */
export const installAuthgent = (progress) => ensureEnvironment(ENVIRONMENT, progress);

/**
 * @param {{processes: import("../../processes.mjs").Processes, dir: string, clientCount: number, bin: string}} options `bin`: of its environment
 * @returns {Promise<import("./contestants.mjs").Contestant>}
 */
export async function startAuthgent({ processes, dir, clientCount, bin }) {
  const folder = path.join(dir, "authgent");
  fs.rmSync(folder, { recursive: true, force: true });
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  const database = path.join(folder, "authgent.db");
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const env = {
    PATH: process.env.PATH, HOME: folder, AUTHGENT_SECRET_KEY: crypto.randomBytes(32).toString("hex"), AUTHGENT_DATABASE_URL: `sqlite+aiosqlite:///${database}`,
    AUTHGENT_SERVER_URL: url, AUTHGENT_SIGNING_ALGORITHM: "ES256", AUTHGENT_TOKEN_RATE_LIMIT: "100000000", LANG: "C.UTF-8",
  };
  const args = ["authgent_server.app:create_app", "--factory", "--host", "127.0.0.1", "--port", String(port), "--no-access-log", "--log-level", "warning"];
  const child = processes.start("authgent-server", path.join(bin, "uvicorn"), args, { env, cwd: folder });
  const answers = await until(async () => child.ended || (await request(`${url}/.well-known/oauth-authorization-server`)).status === 200, { timeoutMs: 60_000 });
  if (!answers || child.ended) throw child.problem();
  const clients = await makeClients({ url, bin, database, clientCount });
  return { name: "authgent-server", url, pids: { server: child.pid }, works: worksOf({ url, clients }) };
}

/** One is registered; the others are copies of its row, for its hash took a quarter of a second to make. */
async function makeClients({ url, bin, database, clientCount }) {
  const answer = await request(`${url}/register`, { json: { client_name: "bench", grant_types: ["client_credentials"], scope: "orders:read orders:write", redirect_uris: [] } });
  if (answer.status !== 201) throw new Problem(`authgent-server registers no client: ${answer.status} ${answer.text}`);
  const { client_id: first, client_secret: secret } = answer.body;
  const ids = [first, ...Array.from({ length: clientCount - 1 }, () => `agnt_${crypto.randomBytes(16).toString("base64url")}`)];
  const script = `import json, sqlite3, sys
ids = json.load(sys.stdin)
db = sqlite3.connect(sys.argv[1])
columns = [row[1] for row in db.execute("pragma table_info(oauth_clients)") if row[1] != "client_id"]
row = db.execute("select " + ", ".join(columns) + " from oauth_clients where client_id = ?", ids[:1]).fetchone()
marks = ", ".join("?" * (len(columns) + 1))
db.executemany("insert into oauth_clients (client_id, " + ", ".join(columns) + ") values (" + marks + ")", [(id, *row) for id in ids[1:]])
db.commit()
`;
  await run(path.join(bin, "python"), ["-c", script, database], { input: JSON.stringify(ids), failure: "authgent-server's clients couldn't be made" });
  return ids.map((id) => ({ id, secret }));
}

/** @param {Record<string, string>} fields */
const form = (fields) => new URLSearchParams(fields).toString();

/** @returns {import("./contestants.mjs").Work[]} */
function worksOf({ url, clients }) {
  const tokenRequest = ({ id, secret }) => ({
    path: "/token", authorization: basicOf(id, secret), body: form({ grant_type: "client_credentials", resource: resourceOf("ES256") }),
  });
  const kept = {};
  /** A few: each of them costs a quarter of a second. */
  const tokens = async () => {
    const holders = clients.slice(0, 4);
    const texts = await askAll(url, holders.map(tokenRequest), { expected: 200, pick: (body) => body.access_token });
    return holders.map((holder, place) => ({ ...holder, token: texts[place] }));
  };
  const introspection = ({ token }) => ({ path: "/introspect", body: form({ token }) });
  return [
    { name: "token by secret, ES256", expected: 200, connections: CONNECTIONS, requests: async () => clients.map(tokenRequest) },
    { name: "introspection of active tokens", expected: 200, connections: 16, requests: async () => (kept.active ??= (await tokens()).map(introspection)) },
    {
      name: "introspection of revoked tokens", expected: 200, connections: 16,
      requests: async () => {
        if (kept.revoked) return kept.revoked;
        const revoked = await tokens();
        await askAll(url, revoked.map(({ id, secret, token }) => ({ path: "/revoke", authorization: basicOf(id, secret), body: form({ token }) })), { expected: 200, pick: () => undefined });
        return (kept.revoked = revoked.map(introspection));
      },
    },
    {
      name: "wrong secret", expected: 401, connections: CONNECTIONS, requests: async () => clients.map((client) => tokenRequest({ ...client, secret: `${client.secret}x` })),
    },
  ];
}
