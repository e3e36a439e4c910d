// For end-to-end tests: a whole system on free ports, with a database of its own on the Postgres that bin/test started.

import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

import { startBalancer } from "./balancer.mjs";
import { startDemoUpstream } from "./demo-upstream.mjs";
import { edgeReady, startEdge } from "./edge.mjs";
import { bootstrap, issuerUrl, migrate, revocationKeys, startIssuer } from "./issuer.mjs";
import { Problem, lastLines } from "./output.mjs";
import { createDatabase } from "./database.mjs";
import { freePort } from "./ports.mjs";
import { Processes } from "./processes.mjs";
import { startProxy } from "./proxy.mjs";

export const AUDIENCE = "https://orders.example";

/** A server's URL from the environment, where bin/test put it. */
export function testServer(name) {
  const url = process.env[name];
  if (!url) throw new Problem(`${name} isn't set`, { fix: "run these tests with bin/test, which starts the servers" });
  return url;
}

/**
 * Settings of an issuer with secrets and ports of its own.
 * @param {{databaseUrl: string, edgeUrl?: string, redisUrl?: string, more?: Record<string, string>}} options
 * @returns {Promise<import("./issuer.mjs").IssuerSettings>}
 */
export async function testIssuerSettings({ databaseUrl, edgeUrl = "http://127.0.0.1:9", redisUrl, more }) {
  return {
    databaseUrl, redisUrl, edgeUrl, more,
    masterKey: crypto.randomBytes(32).toString("base64"),
    hubPushSecret: crypto.randomBytes(32).toString("base64url"),
    port: await freePort(),
    adminAddress: `127.0.0.1:${await freePort()}`,
    audience: AUDIENCE,
  };
}

/** Tests are all from one address, and in a hurry. */
const UNLIMITED = { RATE_LIMIT_PER_IP: "1000000", RATE_LIMIT_PER_CLIENT: "1000000", RATE_LIMIT_PER_TENANT: "1000000" };

/**
 * Starts everything: a fresh database, the issuer's process, the edge in workerd, the demo upstream.
 * @param {{redis?: boolean, replicas?: number, issuer?: Record<string, string>, edge?: Record<string, string>, edgeEntry?: string, hubEntry?: string, proxied?: boolean, edgeLogs?: (message: string) => void}} [options]
 *   `redis`: with the shared Redis, instead of the in-process hot state; `replicas`: so many issuers on the one database, behind a load balancer;
 *   `issuer`, `edge`: further settings by name; `edgeEntry`, `hubEntry`: other entries of the edge and of its hubs; `proxied`: what issuers send to the edge
 *   goes through `line`, which may meddle; `edgeLogs` gets what the edge logs
 */
export async function startSystem({ redis = false, replicas = 1, issuer: more, edge: edgeVars, edgeEntry, hubEntry, proxied = false, edgeLogs } = {}) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "countersign-test-"));
  const processes = new Processes(dir);
  /** @type {(() => Promise<unknown>)[]} */
  const undo = [async () => fs.rmSync(dir, { recursive: true, force: true }), () => processes.stopAll()];
  const stop = async () => {
    while (undo.length > 0) await undo.pop()?.();
  };
  try {
    const database = await createDatabase(testServer("TEST_DATABASE_URL"), "e2e");
    undo.splice(1, 0, database.drop);
    const edgePort = await freePort();
    const edgeAddress = `http://127.0.0.1:${edgePort}`;
    const line = proxied ? await startProxy({ target: edgeAddress }) : undefined;
    if (line) undo.push(line.close);
    const settings = await testIssuerSettings({
      databaseUrl: database.url, edgeUrl: line?.url ?? edgeAddress, more: { ...UNLIMITED, ...more }, redisUrl: redis ? testServer("TEST_REDIS_URL") : undefined,
    });
    // Each has ports of its own, and everything else in common.
    const each = [settings];
    for (let n = 1; n < replicas; n++) each.push({ ...settings, port: await freePort(), adminAddress: `127.0.0.1:${await freePort()}` });
    let balancer;
    if (replicas > 1) {
      balancer = await startBalancer({ port: await freePort(), targets: each.map(({ port }) => `http://127.0.0.1:${port}`) });
      undo.push(balancer.close);
      for (const replica of each) replica.issuerUrl = balancer.url;
    }
    await migrate(settings);
    const admin = await bootstrap(settings, { dir, userDatabase: false });
    const keys = await revocationKeys(settings);
    const upstream = await startDemoUpstream();
    undo.push(upstream.close);
    const edge = await startEdge({
      port: edgePort,
      ...(edgeEntry && { entry: edgeEntry, whole: true }),
      ...(hubEntry && { hubEntry }),
      ...(edgeLogs && { logs: edgeLogs }),
      persist: path.join(dir, "edge"),
      vars: {
        ISSUER_URL: issuerUrl(settings), AUDIENCE, UPSTREAM_URL: upstream.url, REVOCATION_KEYS: keys, HUB_PUSH_SECRET: settings.hubPushSecret, ...edgeVars,
      },
    });
    undo.push(edge.stop);
    let starts = 0;
    const issuers = [];
    for (const settings of each) {
      const issuer = {
        url: issuerUrl(settings),
        settings,
        /** @type {import("./processes.mjs").Child | undefined} */
        process: undefined,
        /** As an operator would: TERM, and wait. */
        async stop() {
          if (issuer.process) await processes.stop(issuer.process);
          issuer.process = undefined;
        },
        /** As a crash would. */
        async kill() {
          issuer.process?.process.kill("SIGKILL");
          await issuer.process?.exit;
          await issuer.stop();
        },
        async start() {
          // Another log each time: a test may want to read them all.
          starts += 1;
          issuer.process = await startIssuer(processes, settings, { name: starts === 1 ? "issuer" : `issuer-${starts}` });
        },
      };
      await issuer.start();
      issuers.push(issuer);
    }
    const [issuer] = issuers;
    await edgeReady(edge.url);
    return { issuer, issuers, balancer, edge, line, upstream, admin, audience: AUDIENCE, databaseUrl: database.url, superuserUrl: database.superuserUrl, dir, stop };
  } catch (error) {
    // The log goes with its folder, and a runner shows no more than the message.
    if (error instanceof Problem && error.log) error.message += `; the end of its log:\n${lastLines(error.log, 20)}`;
    await stop();
    throw error;
  }
}
