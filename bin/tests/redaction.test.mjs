// A whole life of a system, at its most talkative, with secrets where they belong and where they don't: nothing that anybody can read afterwards has one.

import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { after, before, test } from "node:test";

import { basic, request, until } from "../lib/http.mjs";
import { issuerEnv, issuerProgram } from "../lib/issuer.mjs";
import { Leaks } from "../lib/leaks.mjs";
import { run } from "../lib/processes.mjs";
import { startSystem, testServer } from "../lib/testing.mjs";

/** A secret that another system made, and the bcrypt hash that it had of it. */
const BCRYPT = { secret: "an old system's secret", hash: "" };

const ADMIN_TOKEN = crypto.randomBytes(32).toString("base64url");
const METRICS_SECRET = crypto.randomBytes(32).toString("base64url");
const KV_TOKEN = crypto.randomBytes(32).toString("base64url");
const OPERATOR_SECRET = crypto.randomBytes(32).toString("base64url");
const BACKUP_KEY = crypto.randomBytes(32).toString("base64");
const NEXT_MASTER_KEY = crypto.randomBytes(32).toString("base64");

const leaks = new Leaks();
let system;
let collector;
let collected = 0;

/** A collector of traces that keeps what it is sent. */
async function startCollector() {
  const server = http.createServer(async (incoming, answer) => {
    const chunks = [];
    for await (const chunk of incoming) chunks.push(chunk);
    collected += 1;
    leaks.said("traces", `${JSON.stringify(incoming.headers)}\n`);
    leaks.said("traces", Buffer.concat(chunks));
    answer.writeHead(200).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  return { url: `http://127.0.0.1:${port}`, close: () => new Promise((resolve) => server.close(resolve)) };
}

before(async () => {
  collector = await startCollector();
  system = await startSystem({
    redis: true,
    edgeLogs: (message) => leaks.said("the edge's log", message),
    edge: { OPERATOR_SECRET },
    issuer: {
      LOG_LEVEL: "TRACE", LOG_FORMAT: "json", OTLP_ENDPOINT: collector.url, ADMIN_TOKEN, METRICS_GUARD: "secret", METRICS_SECRET, KV_API_TOKEN: KV_TOKEN, LOCKOUT_ATTEMPTS: "10000",
    },
  });
  const { settings } = system.issuer;
  leaks.text("the administrator's secret", system.admin.clientSecret);
  leaks.text("ADMIN_TOKEN", ADMIN_TOKEN);
  leaks.text("METRICS_SECRET", METRICS_SECRET);
  leaks.text("KV_API_TOKEN", KV_TOKEN);
  leaks.text("OPERATOR_SECRET", OPERATOR_SECRET);
  leaks.text("HUB_PUSH_SECRET", settings.hubPushSecret);
  for (const [name, key] of Object.entries({ MASTER_KEY: settings.masterKey, NEW_MASTER_KEY: NEXT_MASTER_KEY, BACKUP_KEY })) {
    leaks.text(name, key);
    leaks.bytes(name, Buffer.from(key, "base64"));
  }
  for (const name of ["TEST_DATABASE_URL", "TEST_REDIS_URL"]) leaks.text(`the password of ${name}`, decodeURIComponent(new URL(testServer(name)).password));
});
after(async () => {
  await system?.stop();
  await collector?.close();
});

/**
 * One request, of whose answer nothing is to be seen but what it was made for: `shows` takes that, and the rest is looked through.
 * @param {string} place
 * @param {string} url
 * @param {Parameters<typeof request>[1]} [options]
 * @param {(body: any) => string | undefined} [shows]
 */
async function ask(place, url, options = {}, shows) {
  // What stands before a secret shifts its base64: the header is a form of its own.
  const [, header] = /^Basic (.+)/.exec(options.headers?.authorization ?? "") ?? [];
  if (header) leaks.ending("a header of Basic", header);
  const answer = await request(url, options);
  const shown = answer.status < 300 && shows ? shows(answer.body) : undefined;
  if (shown === undefined) leaks.said(`${place} (${answer.status})`, `${JSON.stringify([...answer.headers])}\n${answer.text}`);
  else leaks.said(`${place}'s headers`, JSON.stringify([...answer.headers]));
  return { ...answer, shown: shown ?? "" };
}

/**
 * A command of the issuer's. What it printed is looked through, but for what `shows` takes.
 * @param {string[]} args
 * @param {{more?: Record<string, string>, input?: string, status?: number, shows?: (body: any) => string}} [options]
 */
async function countersign(args, { more = {}, input, status: expected = 0, shows } = {}) {
  const { settings } = system.issuer;
  const { status, stdout, stderr } = await run(await issuerProgram(settings.profile), args, {
    env: { ...issuerEnv(settings), ...more }, allowFailure: true, input,
  });
  const name = `countersign ${args.slice(0, 2).join(" ")}`;
  leaks.said(name, stderr);
  if (!shows) leaks.said(name, stdout);
  assert.equal(status, expected, `${name}: ${stderr}`);
  return shows ? shows(JSON.parse(stdout)) : stdout;
}

const GRANT = { grant_type: "client_credentials" };
const take = (name) => (body) => leaks.token(name, body.access_token);
const issuer = (path) => `${system.issuer.url}${path}`;

/** A token by id and secret. */
const token = async (name, id, secret, form = {}) =>
  (await ask("the token endpoint", issuer("/oauth2/v1/token"), { form: { ...GRANT, ...form }, headers: basic(id, secret) }, take(name))).shown;

function assertion(name, clientId, privateKey, alg, change = {}) {
  const now = Math.floor(Date.now() / 1000);
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = { iss: clientId, sub: clientId, aud: system.issuer.url, jti: crypto.randomUUID(), iat: now, exp: now + 60, ...change };
  const signed = `${encode({ alg, typ: "JWT" })}.${encode(claims)}`;
  const signature = crypto.sign(alg === "EdDSA" ? null : "sha256", Buffer.from(signed), alg === "ES256" ? { key: privateKey, dsaEncoding: "ieee-p1363" } : privateKey);
  return leaks.token(name, `${signed}.${signature.toString("base64url")}`);
}

const asAssertion = (text) => ({ client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", client_assertion: text });

test("a whole run at TRACE: nothing says a secret or a token", async () => {
  const { settings } = system.issuer;
  BCRYPT.hash = await bcrypt(BCRYPT.secret);
  leaks.text("an imported secret", BCRYPT.secret);
  leaks.text("an imported hash", BCRYPT.hash);

  // --- Registered, with credentials of each kind.
  const management = await token("a management token", system.admin.clientId, system.admin.clientSecret, { resource: system.issuer.url });
  assert.ok(management, "the administrator has a token");
  const bearer = { authorization: `Bearer ${management}` };
  const agent = await ask("registering", issuer("/api/v1/agents"), {
    headers: bearer,
    json: { email: "whole-life@example.test", agent_type: "screener", version: "1.0.0", owner: "tests", deployment_env: "staging", scopes: ["orders:read", "tokens:introspect", "tokens:revoke"] },
  });
  assert.equal(agent.status, 201, agent.text);
  const id = agent.body.agent_id;
  const credentials = issuer(`/api/v1/agents/${id}/credentials`);
  const secretOf = (name) => (body) => leaks.text(name, body.client_secret);
  const made = await ask("a credential", credentials, { headers: { ...bearer, "idempotency-key": "once" }, json: {} }, secretOf("a client secret"));
  // The kept answer shows it again.
  const again = await ask("a credential", credentials, { headers: { ...bearer, "idempotency-key": "once" }, json: {} }, (body) => body.client_secret);
  assert.equal(again.shown, made.shown);
  assert.equal((await ask("a hash", credentials, { headers: bearer, json: { kind: "bcrypt_hash", bcrypt_hash: BCRYPT.hash } })).status, 201);
  /** @type {[string, crypto.KeyPairKeyObjectResult][]} */
  const pairs = [
    ["RS256", crypto.generateKeyPairSync("rsa", { modulusLength: 2048 })],
    ["ES256", crypto.generateKeyPairSync("ec", { namedCurve: "P-256" })],
    ["EdDSA", crypto.generateKeyPairSync("ed25519")],
  ];
  for (const [alg, { publicKey, privateKey }] of pairs) {
    const jwk = privateKey.export({ format: "jwk" });
    leaks.jwk(`the agent's ${alg} key`, jwk);
    leaks.bytes(`the agent's ${alg} key in DER`, privateKey.export({ format: "der", type: "pkcs8" }).subarray(-24));
    assert.equal((await ask("a public key", credentials, { headers: bearer, json: { kind: "public_key", public_jwk: { ...publicKey.export({ format: "jwk" }), alg } } })).status, 201);
    // By mistake the private one.
    assert.equal((await ask("a private key", credentials, { headers: bearer, json: { kind: "public_key", public_jwk: { ...jwk, alg } } })).status, 400);
  }
  const rotated = await ask("a rotation", `${credentials}/${made.body.credential_id}/rotate`, { headers: bearer, json: {} }, secretOf("a rotated secret"));
  const atTheCommandLine = await countersign(["credentials", "create", "--agent", id, "--json"], { shows: secretOf("a secret of the command line") });

  // --- Tokens, each way.
  const tokens = [];
  for (const [name, secret] of [["old", made.shown], ["rotated", rotated.shown], ["of the command line", atTheCommandLine], ["imported", BCRYPT.secret]]) {
    tokens.push(await token(`a token by the secret ${name}`, id, secret));
  }
  const byForm = await ask("the token endpoint", issuer("/oauth2/v1/token"), { form: { ...GRANT, client_id: id, client_secret: made.shown } }, take("a token by form"));
  tokens.push(byForm.shown);
  for (const [alg, { privateKey }] of pairs) {
    const text = assertion(`an assertion by ${alg}`, id, privateKey, alg);
    tokens.push((await ask("the token endpoint", issuer("/oauth2/v1/token"), { form: { ...GRANT, ...asAssertion(text) } }, take(`a token by ${alg}`))).shown);
    // Used up, expired, for somebody else.
    for (const bad of [text, assertion("an expired assertion", id, privateKey, alg, { exp: 1 }), assertion("a strange assertion", id, privateKey, alg, { aud: "https://elsewhere.example" })]) {
      assert.equal((await ask("the token endpoint", issuer("/oauth2/v1/token"), { form: { ...GRANT, ...asAssertion(bad) } })).status, 401);
    }
  }
  assert.ok(tokens.every(Boolean), `${tokens.length} tokens`);

  // --- Wrong ones, and good ones where they don't belong.
  const [good, ...others] = tokens;
  const spoiled = `${good.slice(0, -6)}AAAAAA`;
  leaks.token("a spoiled token", spoiled);
  const wrong = leaks.text("a mistyped secret", `${made.shown.slice(0, -3)}aaa`);
  const misplaced = [made.shown, good, management, ADMIN_TOKEN, settings.masterKey];
  for (const [n, secret] of [wrong, ...misplaced].entries()) {
    const encoded = encodeURIComponent(secret);
    const own = { "x-request-id": `misplaced-${n}` };
    for (const [place, url, options] of /** @type {[string, string, object][]} */ ([
      ["a wrong secret", issuer("/oauth2/v1/token"), { form: GRANT, headers: basic(id, `${secret}!`) }],
      ["a secret as the id", issuer("/oauth2/v1/token"), { form: GRANT, headers: basic(secret, secret) }],
      ["a secret as the id", issuer("/oauth2/v1/token"), { form: { ...GRANT, client_id: secret, client_secret: `${secret}!` } }],
      ["a secret in an unknown field", issuer("/oauth2/v1/token"), { form: { ...GRANT, password: secret }, headers: basic(id, made.shown) }],
      ["a secret as the grant", issuer("/oauth2/v1/token"), { form: { grant_type: secret }, headers: basic(id, made.shown) }],
      ["a secret as the scope", issuer("/oauth2/v1/token"), { form: { ...GRANT, scope: secret }, headers: basic(id, made.shown) }],
      ["a secret as the resource", issuer("/oauth2/v1/token"), { form: { ...GRANT, resource: secret }, headers: basic(id, made.shown) }],
      ["a secret as the life", issuer("/oauth2/v1/token"), { form: { ...GRANT, expires_in: secret }, headers: basic(id, made.shown) }],
      ["a secret as the assertion", issuer("/oauth2/v1/token"), { form: { ...GRANT, ...asAssertion(secret) } }],
      ["a secret in the query", issuer(`/oauth2/v1/token?client_secret=${encoded}`), { form: GRANT }],
      ["a secret in JSON", issuer("/oauth2/v1/token"), { json: { client_secret: secret } }],
      ["a secret in the query", issuer(`/api/v1/agents?access_token=${encoded}`), { headers: bearer }],
      ["a secret as a cursor", issuer(`/api/v1/agents?cursor=${encoded}&status=${encoded}&limit=${encoded}`), { headers: bearer }],
      ["a secret as the path", issuer(`/${encoded}`), {}],
      ["a secret as an agent", issuer(`/api/v1/agents/${encoded}`), { headers: bearer }],
      ["a secret as a status list", issuer(`/status-lists/${encoded}`), {}],
      ["a secret as the bearer token", issuer("/api/v1/agents"), { headers: { authorization: `Bearer ${secret}x` } }],
      ["a secret as the scheme", issuer("/api/v1/agents"), { headers: { authorization: secret } }],
      ["a secret in a wrong header", issuer("/api/v1/agents"), { headers: { ...own, "x-api-key": secret, cookie: `session=${secret}`, "if-match": `"${secret}"`, traceparent: secret, origin: `https://${secret}.example`, "x-forwarded-for": secret } }],
      ["a secret as the user agent", issuer("/oauth2/v1/token"), { form: GRANT, headers: { ...basic(id, "wrong"), "user-agent": `curl/8 ${secret}` } }],
      ["a secret as the request's id", issuer("/oauth2/v1/token"), { form: GRANT, headers: { ...basic(id, "wrong"), "x-request-id": secret.slice(0, 64) } }],
      ["a secret as a value", issuer("/api/v1/agents"), { headers: bearer, json: { email: secret, agent_type: secret, version: 5, owner: [secret], deployment_env: secret, scopes: [secret, 7] } }],
      ["a secret as an idempotency key", credentials, { headers: { ...bearer, "idempotency-key": secret.slice(0, 255) }, json: { kind: secret } }],
      ["a secret to introspect", issuer("/oauth2/v1/introspect"), { form: { token: `${secret}x` }, headers: basic(id, made.shown) }],
      ["a secret to revoke", issuer("/oauth2/v1/revoke"), { form: { token: `${secret}x`, token_type_hint: secret }, headers: basic(id, made.shown) }],
      ["a secret as a jti", issuer("/api/v1/revocations"), { headers: bearer, json: { jtis: [secret] } }],
      ["a secret as an unlock", issuer(`/api/v1/agents/${id}/unlock`), { headers: bearer, json: { ip: secret } }],
      ["metrics with another secret", issuer("/metrics"), { headers: { "x-metrics-secret": secret } }],
      ["the admin listener with another secret", `http://${settings.adminAddress}/log-level`, { headers: { authorization: `Bearer ${secret}x` } }],
      ["the admin listener with a secret as its level", `http://${settings.adminAddress}/log-level`, { method: "PUT", headers: { authorization: `Bearer ${ADMIN_TOKEN}` }, json: { level: secret } }],
      // The same at the edge.
      ["the edge's path", `${system.edge.url}/_countersign/${encoded}`, {}],
      ["the edge's query", `${system.edge.url}/reports?access_token=${encoded}`, {}],
      ["the edge's header", `${system.edge.url}/reports`, { headers: { "x-api-key": secret, cookie: secret } }],
      ["the edge's bearer token", `${system.edge.url}/reports`, { headers: { authorization: `Bearer ${secret}x` } }],
      ["the edge's scheme", `${system.edge.url}/reports`, { headers: { authorization: `Basic ${secret}` } }],
      ["the edge's pushes", `${system.edge.url}/_countersign/hub/head`, { method: "PUT", headers: { authorization: `Bearer ${secret}` }, json: secret }],
      ["the edge's status", `${system.edge.url}/_countersign/status`, { headers: { authorization: `Bearer ${secret}` } }],
    ])) {
      // What isn't known is passed over, and a token given all the same.
      const { status } = await ask(place, url, options, (body) => body?.access_token && leaks.token("a token all the same", body.access_token));
      assert.notEqual(status, 500, `${place}: ${n}`);
    }
  }
  assert.equal((await ask("the edge with a spoiled token", `${system.edge.url}/reports`, { headers: { authorization: `Bearer ${spoiled}` } })).status, 401);
  assert.equal((await ask("the edge with a management token", `${system.edge.url}/reports`, { headers: bearer })).status, 401);
  // A body that ends in the middle, and one that is no form at all.
  for (const [type, body] of [["application/json", `{"client_secret": "${made.shown}`], ["application/x-www-form-urlencoded", `client_secret=${made.shown}&client_secret=${made.shown}&%ZZ`], ["text/plain", made.shown]]) {
    for (const path of ["/oauth2/v1/token", "/api/v1/agents"]) {
      const answer = await fetch(issuer(path), { method: "POST", headers: { ...bearer, "content-type": type }, body });
      leaks.said("a broken body", await answer.text());
      assert.ok(answer.status >= 400);
    }
  }

  // --- Used at the edge, introspected, revoked.
  const passes = async (text) => (await request(`${system.edge.url}/reports`, { headers: { authorization: `Bearer ${text}` } })).status;
  assert.equal(await passes(good), 200);
  const why = await ask("the operator's question", `${system.edge.url}/_countersign/why`, { method: "POST", headers: { authorization: `Bearer ${OPERATOR_SECRET}`, "content-type": "text/plain" }, json: good });
  assert.ok(why.status < 500, why.text);
  for (const text of tokens) {
    const { status } = await ask("introspection", issuer("/oauth2/v1/introspect"), { form: { token: text }, headers: basic(id, made.shown) });
    assert.equal(status, 200);
  }
  await ask("revocation", issuer("/oauth2/v1/revoke"), { form: { token: good }, headers: basic(id, made.shown) });
  assert.equal((await ask("revocation", issuer("/api/v1/revocations"), { headers: bearer, json: { token: others[0] } })).status, 200);
  assert.ok(await until(async () => (await passes(good)) === 401, { timeoutMs: 15_000 }), "the edge refuses what was revoked");
  await ask("the edge's refusal", `${system.edge.url}/reports`, { headers: { authorization: `Bearer ${good}` } });

  // --- Keys: rotated, brought in, sealed under another master key; a backup; the doctor.
  await countersign(["keys", "rotate", "--now"]);
  const imported = crypto.generateKeyPairSync("rsa", { modulusLength: 2048 });
  leaks.jwk("an imported key", imported.privateKey.export({ format: "jwk" }));
  const pem = imported.privateKey.export({ format: "pem", type: "pkcs8" });
  leaks.text("an imported key in PEM", pem.toString().split("\n")[2]);
  await countersign(["keys", "import", "--private", "-", "--kid", "old-1", "--as", "retiring", "--verifies-until", new Date(Date.now() + 3_600_000).toISOString()], { input: pem.toString() });
  // One that isn't whole.
  await countersign(["keys", "import", "--private", "-", "--kid", "old-2"], { input: pem.toString().slice(0, 700), status: 1 });
  const both = { ...settings.more, NEW_MASTER_KEY: NEXT_MASTER_KEY };
  await restart({ more: both });
  await countersign(["keys", "rewrap"]);
  await restart({ masterKey: NEXT_MASTER_KEY, more: Object.fromEntries(Object.entries(both).filter(([name]) => name !== "NEW_MASTER_KEY")) });
  // With the one of before nothing opens any more.
  await countersign(["doctor"], { more: { MASTER_KEY: leaks.text("another master key", crypto.randomBytes(32).toString("base64")) }, status: 2 });
  const backups = path.join(system.dir, "backups");
  fs.mkdirSync(backups);
  await countersign(["backup", "--out", backups], { more: { BACKUP_KEY } });
  const [manifest] = fs.readdirSync(backups).filter((name) => name.endsWith(".json"));
  leaks.said("the backup's manifest", fs.readFileSync(path.join(backups, manifest), "utf8"));
  const sealed = path.join(backups, manifest.slice(0, -".json".length));
  leaks.said("the sealed backup", fs.readFileSync(sealed));
  await countersign(["backup", "verify", sealed], { more: { BACKUP_KEY } });
  await countersign(["backup", "verify", sealed], { more: { BACKUP_KEY: leaks.text("another backup key", crypto.randomBytes(32).toString("base64")) }, status: 1 });
  await countersign(["doctor", "--json"], { more: {}, status: (await doctor()) });
  for (const args of [["keys", "list"], ["credentials", "list", "--agent", id], ["agents", "list"], ["jobs", "list"], ["audit", "export"], ["audit", "verify"], ["migrate", "status"]]) await countersign(args);
  // Settings that can't be.
  for (const [name, value] of [["MASTER_KEY", `${settings.masterKey}?`], ["DATABASE_URL", settings.databaseUrl.replace("postgres:", "mysql:")], ["REDIS_URL", `${settings.redisUrl}/x y`], ["ADMIN_TOKEN", "short-and-secret"], ["BACKUP_KEY", `${BACKUP_KEY}?`]]) {
    const args = name === "BACKUP_KEY" ? ["backup", "--out", backups] : ["serve"];
    const { stdout, stderr } = await run(await issuerProgram(settings.profile), args, { env: { ...issuerEnv(system.issuer.settings), [name]: value, PORT: "1" }, allowFailure: true });
    leaks.said(`a bad ${name}`, stdout + stderr);
  }
  const fresh = await token("a token of another master key", id, made.shown);
  assert.ok(fresh, "tokens go on");

  // --- What others read.
  await ask("the audit export", issuer("/api/v1/audit/export"), { headers: { authorization: `Bearer ${await token("a token for audit", system.admin.clientId, system.admin.clientSecret, { resource: system.issuer.url })}` }, timeoutMs: 30_000 });
  for (const [place, url, headers] of /** @type {[string, string, Record<string, string>][]} */ ([
    ["metrics", `http://${settings.adminAddress}/metrics`, { authorization: `Bearer ${ADMIN_TOKEN}` }],
    ["metrics", issuer("/metrics"), { "x-metrics-secret": METRICS_SECRET }],
    ["the edge's metrics", `${system.edge.url}/_countersign/metrics`, { authorization: `Bearer ${OPERATOR_SECRET}` }],
    ["the edge's status", `${system.edge.url}/_countersign/status`, { authorization: `Bearer ${OPERATOR_SECRET}` }],
    ["readiness", issuer("/ready"), {}],
    ["the API's description", issuer("/openapi.json"), {}],
  ])) await ask(place, url, { headers });
  await system.issuer.kill();
  await request(`${system.edge.url}/reports`, { headers: { authorization: `Bearer ${fresh}` } });
  await system.issuer.start();
  await system.issuer.stop();
  for (const name of fs.readdirSync(path.join(system.dir, "logs"))) leaks.said(`the log ${name}`, fs.readFileSync(path.join(system.dir, "logs", name), "utf8"));

  // There is something to look through.
  assert.ok(collected > 0, "traces came");
  for (const name of ["traces", "the log issuer-log", "metrics (200)", "the audit export (200)"]) assert.ok(leaks.names.some((known) => known.replaceAll(".", "-") === name), `${name}: ${leaks.names.join(", ")}`);
  assert.ok(leaks.size > 200_000, `${leaks.size} characters`);
  assert.deepEqual(leaks.found().slice(0, 20), []);
  console.log(`redaction: ${leaks.secrets} secrets and tokens, ${leaks.size} characters of ${leaks.names.length} kinds of output, none found`);
});

/** Stops the issuer and starts it with other settings. */
async function restart(changes) {
  await system.issuer.stop();
  Object.assign(system.issuer.settings, changes);
  await system.issuer.start();
  assert.ok(await until(async () => (await request(issuer("/ready"))).status === 200, { timeoutMs: 20_000 }), "it is ready again");
}

/** What the doctor says now, by its status; it may not have made up its mind about an edge that was just restarted. */
async function doctor() {
  const { settings } = system.issuer;
  return (await run(await issuerProgram(settings.profile), ["doctor"], { env: issuerEnv(settings), allowFailure: true })).status;
}

/** A bcrypt hash, by what Postgres has for it. */
async function bcrypt(secret) {
  const { query } = await import("../lib/database.mjs");
  await query(system.superuserUrl, "create schema if not exists made; create extension if not exists pgcrypto schema made");
  const [[hash]] = await query(system.superuserUrl, `select made.crypt('${secret.replaceAll("'", "''")}', made.gen_salt('bf', 4))`);
  await query(system.superuserUrl, "drop schema made cascade");
  return hash ?? "";
}

test("the search finds a secret in each form in which it is looked for", () => {
  const secret = crypto.randomBytes(32).toString("base64url");
  const header = Buffer.from('{"alg":"RS256"}').toString("base64url");
  const token = `${header}.${Buffer.from(`{"sub":"${crypto.randomUUID()}"}`).toString("base64url")}.${crypto.randomBytes(64).toString("base64url")}`;
  const key = crypto.randomBytes(32);
  const finds = (text) => {
    const control = new Leaks();
    control.text("a secret", secret);
    control.token("a token", token);
    control.bytes("a key", key);
    control.said("a log", text);
    return control.found();
  };
  assert.deepEqual(finds(`{"level":"INFO","message":"request","header":"${header}"}`), []);
  for (const [text, whose] of [
    [secret, "a secret"], [`…${secret.slice(10)}`, "a secret"], [Buffer.from(secret).toString("base64"), "a secret in base"],
    [token, "a token"], [token.split(".")[1], "a token's payload"], [token.split(".")[2].slice(0, 30), "a token's signature"],
    [key.toString("hex"), "a key in hex"], [key.toString("hex").toUpperCase(), "a key in hex"], [key.toString("base64"), "a key in base"], [`[${[...key].join(", ")}]`, "a key as a list"],
  ]) {
    const found = finds(`{"level":"TRACE","message":"something","value":"${text}","more":"text"}`);
    assert.ok(found.some((line) => line.startsWith(whose)), `${whose}: ${found.join("; ")}`);
    assert.ok(found.every((line) => !line.includes(secret) && !line.includes(token)), "and doesn't say it again");
  }
});
