// The npm package as its users have it: installed from the packed file, on Node, in a Worker under Hono, and checked by their own tsc. Who tells it of
// revocations is a real edge.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { after, before, describe, test } from "node:test";

import { buildPackage, packPackage } from "../../../bin/lib/build-package.mjs";
import { HUB_WORKER, bundleEntry } from "../../../bin/lib/edge.mjs";
import { KV_NAMESPACE_ID } from "../../../bin/lib/issuer.mjs";
import { modernNode, nodeEnv } from "../../../bin/lib/npm.mjs";
import { root } from "../../../bin/lib/paths.mjs";
import { AUDIENCE, FakeIssuer } from "../fake-issuer.mjs";
import { startWorld, until } from "./support.mjs";

const SECRET = "a listeners' secret for tests";
const installed = (name) => path.join(root, "node_modules", name);

/** An API of Node's own, that answers with whose token it was. Says where it listens; ends when its input does. */
const NODE_API = `
  import http from "node:http";
  import { createVerifier } from "@countersign/verifier";
  const { EDGE, SECRET, ISSUER, AUDIENCE, KEYS } = process.env;
  const verifier = createVerifier({ issuer: ISSUER, audience: AUDIENCE, revocationKeys: KEYS, source: { url: EDGE, secret: SECRET } });
  const server = http.createServer(async (request, response) => {
    if (request.url === "/ready") return response.writeHead((await verifier.ready()) ? 200 : 503).end();
    const needs = request.url === "/write" ? { scopes: ["reports:write"] } : {};
    const outcome = await verifier.authenticate({ url: "http://api.example" + request.url, headers: new Headers(request.headers) }, needs);
    response.writeHead(outcome.ok ? 200 : outcome.status, outcome.challenge ? { "www-authenticate": outcome.challenge } : {}).end(JSON.stringify(outcome));
  });
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));
  process.stdin.resume().on("end", () => {
    server.close();
    server.closeAllConnections();
    verifier.close();
  });
`;

const HONO_API = `
  import { Hono } from "hono";
  import { createVerifier, type HubNamespace, type ObjectNamespace, type TokenVerifier } from "@countersign/verifier";
  import { countersign } from "@countersign/verifier/hono";
  interface Bindings { ISSUER: string; AUDIENCE: string; KEYS: string; EDGE?: string; SECRET?: string; REVOCATION_HUB: HubNamespace; REVOCATION_OBJECTS: ObjectNamespace }
  let verifier: TokenVerifier | undefined;
  const verifierOf = ({ env }: { env: Bindings }) => (verifier ??= createVerifier({
    issuer: env.ISSUER,
    audience: env.AUDIENCE,
    revocationKeys: env.KEYS,
    source: env.EDGE ? { url: env.EDGE, secret: env.SECRET ?? "" } : { hubs: env.REVOCATION_HUB, objects: env.REVOCATION_OBJECTS },
    resourceMetadata: "https://api.example/.well-known/oauth-protected-resource",
  }));
  const app = new Hono<{ Bindings: Bindings }>();
  app.use("/reports/*", countersign<Bindings>(verifierOf, { scopes: "reports:read" }));
  app.use("/write", countersign<Bindings>(verifierOf, { scopes: ["reports:write"] }));
  app.get("/reports/:id", (c) => c.json({ id: c.req.param("id"), agent: (c.var as { countersign: { identity: { agent: string } } }).countersign.identity.agent }));
  app.get("/write", (c) => c.text("written"));
  export default app;
`;

const CONSUMER = `
  import { Hono } from "hono";
  import { createVerifier, type Needs, type TokenVerifier, type Verification } from "@countersign/verifier";
  import { countersign } from "@countersign/verifier/hono";

  const verifier: TokenVerifier = createVerifier({
    issuer: "https://issuer.example", audience: ["https://api.example"], revocationKeys: { keys: [] } as object, source: { url: "https://edge.example", secret: "s" },
  });
  const needs: Needs = { scopes: "reports:read", staleness: { freshMs: 2_000 } };
  const outcome: Verification = await verifier.verify("token", needs);
  // @ts-expect-error the identity isn't there before it is known that the token holds
  outcome.identity;
  if (outcome.ok) outcome.identity.agent satisfies string;
  else outcome.challenge satisfies string | undefined;
  // @ts-expect-error there is no such need
  await verifier.verify("token", { scope: "reports:read" });
  // @ts-expect-error a source is needed
  createVerifier({ issuer: "https://issuer.example", audience: "a", revocationKeys: "" });

  const app = new Hono();
  app.get("/reports", countersign(verifier, needs), (c) => c.text(c.var.countersign.identity.agent));
`;

describe("the package", () => {
  let world;
  let folder;
  before(async () => {
    await buildPackage();
    const packed = await packPackage();
    folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "countersign-consumer-")));
    fs.writeFileSync(path.join(folder, "package.json"), JSON.stringify({ name: "consumer", private: true, type: "module" }));
    const npm = ["install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", packed];
    execFileSync("npm", npm, { cwd: folder, env: nodeEnv(), stdio: ["ignore", "pipe", "inherit"] });
    fs.symlinkSync(installed("hono"), path.join(folder, "node_modules", "hono"));
    fs.mkdirSync(path.join(folder, "node_modules", "@types"), { recursive: true });
    for (const name of ["@types/node", "undici-types"]) fs.symlinkSync(installed(name), path.join(folder, "node_modules", name));
    fs.writeFileSync(path.join(folder, "api.mjs"), NODE_API);
    fs.writeFileSync(path.join(folder, "worker.ts"), HONO_API);
    fs.writeFileSync(path.join(folder, "consumer.ts"), CONSUMER);
  });
  after(() => fs.rmSync(folder, { recursive: true, force: true }));

  test("holds what it needs, and no sources or settings", () => {
    const inside = fs.readdirSync(path.join(folder, "node_modules", "@countersign", "verifier"));
    assert.deepEqual(inside.filter((name) => !/^chunk-\w+\.js$/.test(name)).sort(), ["LICENSE", "README.md", "hono.js", "node.js", "package.json", "types", "verifier.wasm", "worker.js"]);
  });

  test("its types are sound by themselves, and catch mistakes", () => {
    const compilerOptions = { target: "es2022", module: "nodenext", moduleResolution: "nodenext", strict: true, skipLibCheck: false, noEmit: true, types: ["node"], exactOptionalPropertyTypes: true };
    fs.writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["consumer.ts"] }));
    const tsc = [path.join(root, "node_modules", "typescript", "bin", "tsc"), "--project", folder, "--pretty", "false"];
    let said = "";
    try {
      execFileSync(modernNode(), tsc, { cwd: folder, encoding: "utf8" });
    } catch (error) {
      said = error.stdout;
    }
    // What Hono's own types lack is no fault of ours.
    assert.deepEqual(said.split("\n").filter((line) => /error/.test(line) && !/node_modules\/hono\//.test(line)), []);
  });

  test("mistakes in its options are named, all at once, and nothing secret with them", () => {
    const told = (options) => {
      const script = `import { createVerifier } from "@countersign/verifier"; try { createVerifier(${options}); console.log("made") } catch (error) { console.log(error.name, error.message) }`;
      return execFileSync(modernNode(), ["--input-type=module", "--eval", script], { cwd: folder, encoding: "utf8" }).trim();
    };
    const keys = JSON.stringify(new FakeIssuer().headJwks());
    assert.equal(told(`{ issuer: "https://i.example", audience: "a", revocationKeys: ${keys}, source: { url: "https://edge.example", secret: "s" } }`), "made");
    assert.match(told("{}"), /^TypeError issuer must be .*; audience must be .*; revocationKeys must be .*; source must have/);
    const plain = told(`{ issuer: "https://i.example", audience: [], revocationKeys: ${keys}, source: { url: "http://edge.example", secret: "hush" }, clockLeewaySeconds: -1 }`);
    assert.match(plain, /^TypeError audience must be .*; clockLeewaySeconds must be .*; source\.url is not an https URL/);
    assert.ok(!plain.includes("hush"));
    assert.match(told(`{ issuer: "https://i.example", audience: "a", revocationKeys: "soon", source: { hubs: {}, objects: {}, shards: 0 } }`), /revocationKeys must be .*; HUB_SHARDS must be/);
  });

  describe("with an edge", () => {
    before(async () => {
      world = await startWorld({ vars: { LISTENER_SECRET: SECRET } });
      await world.settle();
      world.beat();
    });
    after(() => world.stop());

    test("the edge hands on to nobody without the secret, and nothing else", async () => {
      const ask = (path, secret) => fetch(`${world.edge.url}/_countersign/${path}`, { headers: { authorization: `Bearer ${secret}` } });
      for (const path of ["feed?epoch=0&seq=0", `objects/base/${"0".repeat(64)}`]) assert.equal((await ask(path, "wrong")).status, 401, path);
      const head = await ask("feed?epoch=0&seq=0", SECRET);
      assert.equal(head.status, 200);
      assert.ok(Number(head.headers.get("x-countersign-age-ms")) >= 0);
      for (const [path, status] of [
        ["feed?epoch=x", 400], [`objects/base/${"0".repeat(64)}`, 404], ["objects/base/..%2f..%2fsecret", 404], ["objects/other", 404],
      ]) assert.equal((await ask(path, SECRET)).status, status, path);
    });

    test("on Node: valid accepted, revoked refused a moment later, and the process ends", { timeout: 60_000 }, async () => {
      const { issuer, edge } = world;
      const env = { ...nodeEnv(), EDGE: edge.url, SECRET, ISSUER: issuer.url, AUDIENCE, KEYS: JSON.stringify(issuer.headJwks()) };
      const api = spawn(modernNode(), ["api.mjs"], { cwd: folder, env, stdio: ["pipe", "pipe", "inherit"] });
      const ended = once(api, "exit");
      try {
        const [port] = await once(readline.createInterface({ input: api.stdout }), "line");
        const call = (token, path = "/reports") =>
          fetch(`http://127.0.0.1:${port}${path}`, { headers: token === undefined ? {} : { authorization: `Bearer ${token}` } });
        assert.equal((await call(undefined, "/ready")).status, 200);
        const [victim, good] = [issuer.token(), issuer.token()];
        for (const { token, claims } of [victim, good]) {
          const response = await call(token);
          assert.equal(response.status, 200);
          assert.equal((await response.json()).identity.agent, claims.sub);
        }
        assert.equal((await call(undefined)).headers.get("www-authenticate"), "Bearer");
        assert.equal((await call(`${good.token}x`)).status, 401);
        const lacking = await call(good.token, "/write");
        assert.deepEqual([lacking.status, (await lacking.json()).reason], [403, "insufficient_scope"]);
        assert.equal((await call(undefined, `/reports?access_token=${good.token}`)).status, 400);

        const revoked = issuer.head({ revoked: [victim.coordinate] });
        assert.equal((await world.push(revoked)).status, 200);
        const { elapsed, body } = await until(3_000, () => call(victim.token), ({ status }) => status === 401);
        assert.equal(JSON.parse(body).reason, "revoked");
        assert.ok(elapsed < 1_500, `${elapsed.toFixed(0)} ms`);
        assert.equal((await call(good.token)).status, 200);
      } finally {
        api.stdin.end();
        const late = setTimeout(() => api.kill("SIGKILL"), 5_000);
        const [code] = await ended;
        clearTimeout(late);
        assert.equal(code, 0, "it ended by itself");
      }
    });
  });

  for (const [how, bindings] of [
    ["the hubs' binding", (issuer) => ({ ISSUER: issuer.url, AUDIENCE, KEYS: JSON.stringify(issuer.headJwks()) })],
    ["the edge", (issuer) => ({ ISSUER: issuer.url, AUDIENCE, KEYS: JSON.stringify(issuer.headJwks()), SECRET })],
  ]) {
    test(`in a Worker under Hono, told by ${how}`, { timeout: 60_000 }, async () => {
      const bundle = await bundleEntry(path.join(folder, "worker.ts"));
      const wasm = fs.readdirSync(bundle.folder).filter((name) => name.endsWith(".wasm"));
      const world = await startWorld({
        vars: { LISTENER_SECRET: SECRET },
        beside: [(issuer, edgeUrl) => ({
          name: "hono-api",
          modulesRoot: bundle.folder,
          modules: [
            { type: "ESModule", path: path.join(bundle.folder, "index.js") },
            ...wasm.map((name) => ({ type: "CompiledWasm", path: path.join(bundle.folder, name) })),
          ],
          compatibilityDate: "2026-11-17",
          compatibilityFlags: ["nodejs_compat"],
          bindings: { ...bindings(issuer), ...(how === "the edge" && { EDGE: edgeUrl }) },
          durableObjects: { REVOCATION_HUB: { className: "RevocationHub", useSQLite: true, scriptName: HUB_WORKER } },
          kvNamespaces: { REVOCATION_OBJECTS: KV_NAMESPACE_ID },
          unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }],
        })],
      });
      try {
        await world.settle();
        world.beat();
        const { issuer } = world;
        const call = (token, path = "/reports/7") =>
          fetch(`${world.edge.others["hono-api"]}${path}`, { headers: token === undefined ? {} : { authorization: `Bearer ${token}` } });
        const [victim, good] = [issuer.token(), issuer.token()];
        for (const { token, claims } of [victim, good]) {
          const response = await call(token);
          assert.equal(response.status, 200);
          assert.deepEqual(await response.json(), { id: "7", agent: claims.sub });
        }
        const metadata = 'resource_metadata="https://api.example/.well-known/oauth-protected-resource"';
        const none = await call(undefined);
        assert.deepEqual([none.status, none.headers.get("www-authenticate"), (await none.json()).code], [401, `Bearer ${metadata}`, "unauthorized"]);
        const lacking = await call(good.token, "/write");
        assert.deepEqual([lacking.status, (await lacking.json()).code], [403, "insufficient_scope"]);
        assert.match(lacking.headers.get("www-authenticate"), /scope="reports:write", resource_metadata=/);
        assert.equal((await world.push(issuer.head({ revoked: [victim.coordinate] }))).status, 200);
        const { elapsed, body } = await until(3_000, () => call(victim.token), ({ status }) => status === 401);
        assert.equal(JSON.parse(body).code, "revoked");
        assert.ok(elapsed < 1_500, `${elapsed.toFixed(0)} ms`);
      } finally {
        await world.stop();
        fs.rmSync(bundle.folder, { recursive: true, force: true });
      }
    });
  }
});
