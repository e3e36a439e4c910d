// The measuring part of bin/bench edge, under a Node that miniflare takes: node edge-run.mjs ROUNDS TOKENS. Prints versions as JSON, then a line for
// each figure: work, metric, unit, numbers.

import crypto from "node:crypto";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { spawn } from "node:child_process";

import { EMPTY_BASE, FakeIssuer, jti, sha256 } from "../../../edge-verifier/tests/fake-issuer.mjs";
import { bundleEntry, wranglerConfig } from "../edge.mjs";
import { request, until } from "../http.mjs";
import { edgeBuildDir, root } from "../paths.mjs";
import { freePort } from "../ports.mjs";
import { loadRevocationWasm } from "../revocation-wasm.mjs";

const AUDIENCE = "https://api.example";
const OURS = "countersign";
const ALGORITHMS = /** @type {const} */ (["RS256", "ES256", "EdDSA"]);
/** How many tokens are shown again and again, and how often in a round. */
const REPEATED = 500;
const REPETITIONS = 100;
/** The sample's size: a million revoked. */
const LIVE = 100_000_000;
const ONE_IN = 100;

const [rounds, tokenCount] = process.argv.slice(2).map(Number);

/** CPU time that all threads of a process have taken, in ns. */
function cpuNanos(pid) {
  let sum = 0;
  for (const task of fs.readdirSync(`/proc/${pid}/task`)) {
    try {
      sum += Number(fs.readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ")[0]);
    } catch {
      // The thread ended while we looked.
    }
  }
  return sum;
}

/**
 * Runs a module entry in a workerd of its own, with nothing in front of it.
 * @returns {Promise<{pid: number, url: string, stop: () => Promise<void>}>}
 */
async function startWorkerd(entry) {
  const { folder } = await bundleEntry(entry);
  const port = await freePort();
  const { compatibilityDate, compatibilityFlags } = wranglerConfig();
  const modules = fs.readdirSync(folder).map((name) => `(name = "${name}", ${name.endsWith(".wasm") ? "wasm" : "esModule"} = embed "${name}")`);
  // The entry is the first.
  modules.sort((a, b) => Number(b.includes('"index.js"')) - Number(a.includes('"index.js"')));
  fs.writeFileSync(path.join(folder, "config.capnp"), `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .main)],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")],
);
const main :Workerd.Worker = (
  modules = [${modules.join(", ")}],
  compatibilityDate = "${compatibilityDate}",
  bindings = [(name = "LOADER", workerLoader = (id = "cold"))],
  compatibilityFlags = [${compatibilityFlags.filter((flag) => flag !== "nodejs_compat").map((flag) => `"${flag}"`).join(", ")}],
);
`);
  const program = (await import("workerd")).default.default;
  const child = spawn(program, ["serve", "--experimental", path.join(folder, "config.capnp")], { stdio: ["ignore", "ignore", "inherit"] });
  const stop = async () => {
    child.kill();
    if (child.exitCode === null && child.signalCode === null) await new Promise((resolve) => child.once("exit", resolve));
    fs.rmSync(folder, { recursive: true, force: true });
  };
  const url = `http://127.0.0.1:${port}`;
  const answers = await until(async () => child.exitCode !== null || (await request(`${url}/none`)).status === 200, { timeoutMs: 20_000 });
  if (!answers || child.exitCode !== null || child.pid === undefined) {
    await stop();
    throw new Error("workerd doesn't answer");
  }
  return { pid: child.pid, url, stop };
}

const print = (work, metric, unit, numbers) => process.stdout.write(`${work}\t${metric}\t${unit}\t${numbers.join(" ")}\n`);
const b64 = (data) => Buffer.from(data).toString("base64url");

function keyFor(algorithm) {
  const kid = `bench-${algorithm}`;
  const pair = {
    RS256: () => crypto.generateKeyPairSync("rsa", { modulusLength: 2048 }),
    ES256: () => crypto.generateKeyPairSync("ec", { namedCurve: "P-256" }),
    EdDSA: () => crypto.generateKeyPairSync("ed25519"),
  }[algorithm]();
  return { kid, algorithm, ...pair, jwk: { ...pair.publicKey.export({ format: "jwk" }), kid, alg: algorithm, use: "sig" } };
}

/** Tokens as the issuer makes them (docs/reference/formats.md), of serials that the sample doesn't revoke. */
function makeTokens({ kid, algorithm, privateKey }, issuer, count, isRevoked) {
  const now = Math.floor(Date.now() / 1000);
  const exp = now + 86_000;
  const header = b64(JSON.stringify({ alg: algorithm, typ: "at+jwt", kid }));
  return Array.from({ length: count }, () => {
    let serial = crypto.randomInt(LIVE);
    while (isRevoked(serial)) serial = crypto.randomInt(LIVE);
    const agent = crypto.randomUUID();
    const claims = {
      iss: issuer, sub: agent, client_id: agent, aud: AUDIENCE, iat: now, exp, jti: jti({ shard: Math.floor(exp / 3600), serial: BigInt(serial) }),
      scope: "orders:read orders:write", tenant_id: crypto.randomUUID(), credential_id: crypto.randomUUID(), agent_type: "orchestrator",
    };
    const input = `${header}.${b64(JSON.stringify(claims))}`;
    const signature = algorithm === "EdDSA" ? crypto.sign(null, Buffer.from(input), privateKey)
      : crypto.sign("sha256", Buffer.from(input), algorithm === "ES256" ? { key: privateKey, dsaEncoding: "ieee-p1363" } : privateKey);
    return `${input}.${b64(signature)}`;
  });
}

/** @returns {Promise<any>} */
async function post(url, body) {
  const response = await fetch(url, { method: "POST", body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  return response.json();
}

/** Runs one contestant over tokens; throws unless all hold. @returns CPU µs of the process, and µs inside, each by verification */
async function measure(edge, name, tokens, repetitions = 1) {
  await post(`${edge.url}/provide`, { tokens, repetitions });
  const before = cpuNanos(edge.pid);
  const { held, ms } = await post(`${edge.url}/run`, name);
  const cpu = cpuNanos(edge.pid) - before;
  const count = tokens.length * repetitions;
  if (held !== count) throw new Error(`${name} took ${held} of ${count} tokens`);
  return { cpu: cpu / count / 1000, inside: (ms * 1000) / count };
}

/** So many connections stay open, each with one request under way: a server that waits for the next one after each answer would mostly be measured waking up. */
const CONNECTIONS = 32;

/** Requests from a client that costs as little as can be: prepared bytes on open connections. @returns CPU µs of workerd by request */
async function requests(edge, pid, name, tokens) {
  const { hostname, port } = new URL(edge.url);
  const asked = tokens.map((token) => `GET /${encodeURIComponent(name)} HTTP/1.1\r\nHost: ${hostname}\r\nAuthorization: Bearer ${token}\r\n\r\n`);
  const sockets = await Promise.all(Array.from({ length: CONNECTIONS }, () => open(hostname, Number(port))));
  let next = 0;
  const client = (socket) =>
    new Promise((resolve, reject) => {
      let answer = "";
      const ask = () => (next < asked.length ? socket.write(asked[next++]) : resolve(undefined));
      socket.on("error", reject).on("close", () => reject(new Error("workerd closed the connection")));
      socket.on("data", (data) => {
        answer += data;
        const head = answer.indexOf("\r\n\r\n");
        if (head < 0) return;
        const length = Number(/\r\ncontent-length: (\d+)/i.exec(answer)?.[1]);
        if (Number.isNaN(length)) return reject(new Error(`an answer without a length: ${answer}`));
        if (answer.length < head + 4 + length) return;
        if (!answer.startsWith("HTTP/1.1 200")) return reject(new Error(`${name} answered ${answer}`));
        answer = "";
        ask();
      });
      ask();
    });
  const before = cpuNanos(pid);
  await Promise.all(sockets.map(client));
  const took = cpuNanos(pid) - before;
  for (const socket of sockets) socket.removeAllListeners().destroy();
  return took / tokens.length / 1000;
}

/** @returns {Promise<import("node:net").Socket>} */
function open(host, port) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host, port, noDelay: true }, () => resolve(socket.removeListener("error", reject)));
    socket.setEncoding("latin1").once("error", reject);
  });
}

/** How much longer the Worker as it is deployed takes than an empty one from being loaded to its first answer, the verifier's module instantiated. */
async function coldStarts(edge) {
  const folder = path.join(edgeBuildDir, "worker");
  const code = Object.fromEntries(
    fs.readdirSync(folder).filter((name) => /\.(js|wasm)$/.test(name)).map((name) => {
      const bytes = fs.readFileSync(path.join(folder, name));
      return [name, name.endsWith(".wasm") ? { wasm: bytes.toString("base64") } : { js: bytes.toString() }];
    }),
  );
  const settings = {
    ISSUER_URL: "https://issuer.example", AUDIENCE, UPSTREAM_URL: "https://upstream.example", REVOCATION_KEYS: JSON.stringify(new FakeIssuer().headJwks()),
    HUB_PUSH_SECRET: "of the benchmark, thirty-two characters", CLOCK_LEEWAY_SECONDS: "5", FORWARD_AUTHORIZATION: "false",
  };
  const ours = { code, env: settings, path: "/" };
  const empty = { code: { "index.js": { js: "export default { fetch: () => new Response(null, { status: 401 }) };" } }, env: {}, path: "/" };
  const took = collect(["ours", "empty"]);
  for (let round = 0; round < 3 + Math.max(rounds, 9); round++) {
    for (const [name, worker] of Object.entries({ ours, empty })) {
      const ms = await post(`${edge.url}/start`, worker);
      if (round >= 3) took[name].push(ms);
    }
  }
  print("cold start", "beside an empty Worker's", "ms", took.ours.map((ms, round) => ms - took.empty[round]));
  for (const [name, numbers] of Object.entries(took)) print("cold start", name, "ms", numbers);
}

const ratios = (upper, lower) => upper.map((value, round) => value / lower[round]);
/** @param {string[]} names */
const collect = (names) => Object.fromEntries(names.map((name) => [name, /** @type {number[]} */ ([])]));

const issuer = new FakeIssuer();
issuer.url = "https://issuer.example";
const wasm = await loadRevocationWasm();
const isRevoked = (serial) => wasm.sample_revokes(serial, ONE_IN);
const shard = Math.floor((Math.floor(Date.now() / 1000) + 86_000) / 3600);
const million = Buffer.from(wasm.sample_object(shard, LIVE, ONE_IN));
const packageVersion = (name) => JSON.parse(fs.readFileSync(path.join(root, "node_modules", name, "package.json"), "utf8")).version;
const edge = await startWorkerd(path.join(root, "edge-verifier", "bench", "worker.ts"));
try {
  const { pid } = edge;
  process.stdout.write(`${JSON.stringify({
    workerd: packageVersion("workerd"), jose: packageVersion("jose"), hono: packageVersion("hono"),
    "@tsndr/cloudflare-worker-jwt": packageVersion("@tsndr/cloudflare-worker-jwt"), jsonwebtoken: "11.1.0", node: process.versions.node,
  })}\n`);
  await coldStarts(edge);
  for (const algorithm of ALGORITHMS) {
    const key = keyFor(algorithm);
    const tokens = makeTokens(key, issuer.url, tokenCount, isRevoked);
    const [head, headOfMillion] = [EMPTY_BASE, million].map((base) => issuer.head({ base: sha256(base) }));
    const contestants = await post(`${edge.url}/set-up`, {
      algorithm, issuer: issuer.url, audience: AUDIENCE, jwk: key.jwk, headJwks: JSON.stringify(issuer.headJwks()),
      sets: { [OURS]: { head, base: EMPTY_BASE.toString("base64") }, [`${OURS}, 1 M revoked`]: { head: headOfMillion, base: million.toString("base64") } },
    });
    // The slow one gets fewer.
    const few = (name) => (name.startsWith("jsonwebtoken") ? tokens.slice(0, 500) : tokens);
    const cpu = collect(contestants);
    for (const name of contestants) await measure(edge, name, few(name)); // warms the compilers up
    for (let round = 0; round < rounds; round++) {
      for (const name of contestants) cpu[name].push((await measure(edge, name, few(name))).cpu);
    }
    print(`miss, ${algorithm}`, "CPU, countersign / jose", "×", ratios(cpu[OURS], cpu.jose));
    print(`miss, ${algorithm}`, "CPU, 1 M revoked / none", "×", ratios(cpu[`${OURS}, 1 M revoked`], cpu[OURS]));
    for (const name of contestants) print(`miss, ${algorithm}`, `CPU a verification, ${name}`, "µs", cpu[name]);

    const repeated = tokens.slice(0, REPEATED);
    const inside = collect([OURS, "jose"]);
    for (let round = 0; round < rounds; round++) {
      inside[OURS].push((await measure(edge, OURS, repeated, REPETITIONS)).inside);
      inside.jose.push((await measure(edge, "jose", repeated, 4)).inside);
    }
    print(`hit, ${algorithm}`, "time, jose / countersign", "×", ratios(inside.jose, inside[OURS]));
    print(`hit, ${algorithm}`, "time a hit", "µs", inside[OURS]);

    const whole = collect(["miss", "hit", "jose", "none"]);
    for (let round = 0; round < rounds; round++) {
      whole.miss.push(await requests(edge, pid, OURS, tokens));
      whole.jose.push(await requests(edge, pid, "jose", tokens));
      await requests(edge, pid, OURS, repeated);
      whole.hit.push(await requests(edge, pid, OURS, Array.from({ length: 8 }, () => repeated).flat()));
      whole.none.push(await requests(edge, pid, "none", tokens.slice(0, 4000)));
    }
    print(`whole request, miss, ${algorithm}`, "CPU, countersign / jose", "×", ratios(whole.miss, whole.jose));
    print(`whole request, hit, ${algorithm}`, "CPU, countersign / jose", "×", ratios(whole.hit, whole.jose));
    for (const [name, numbers] of Object.entries(whole)) print(`whole request, ${algorithm}`, `CPU a request, ${name}`, "µs", numbers);
  }
} finally {
  await edge.stop();
}
