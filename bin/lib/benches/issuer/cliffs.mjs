// What happens when too much is asked: how somebody fares who asks for a token every few milliseconds, alone and beside a flood.

import crypto from "node:crypto";
import http from "node:http";
import net from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { request } from "../../http.mjs";
import { Problem, task } from "../../output.mjs";
import { run } from "../../processes.mjs";
import { quantile } from "../load.mjs";
import { ask, cpuOf, memoryOf } from "./contestants.mjs";
import { adminToken, makeClients, tokenRequest } from "./ours.mjs";
import { sum } from "./rounds.mjs";
import { load, writeRequests } from "./wrk.mjs";

/** Those who ask beside the floods, and in none of them. */
const BYSTANDERS = 20;
/** Their pause after each answer, in ms. */
const PAUSE = 5;
/** Five wrong secrets lock a client out, as they do where nobody says otherwise; 10,000 idle connections are fewer than may be open. */
const SETTINGS = { LOCKOUT_ATTEMPTS: "5", MAX_CONNECTIONS: "20000" };
const FLOODING_TENANT = { requests_per_minute: 60, clients: 20 };

/**
 * @param {import("./rounds.mjs").Bench} bench
 * @param {Awaited<ReturnType<typeof import("./ours.mjs").startOurs>>} ours
 * @param {{idleConnections: number, seconds: number}} options
 */
export async function measureCliffs(bench, ours, { idleConnections, seconds }) {
  const { figures, program, dir } = bench;
  await task("floods", async (progress) => {
    await ours.restart(SETTINGS);
    const bystanders = ours.clients.slice(0, BYSTANDERS);
    const others = ours.clients.slice(BYSTANDERS);
    const flooding = await floodingTenant(ours);
    const alone = async (work) => {
      progress(`${work}: alone`);
      return watch({ url: ours.url, clients: bystanders, seconds });
    };
    const beside = async (work, requests, connections, before) => {
      progress(work);
      const file = path.join(dir, "secrets", "requests-flood");
      writeRequests(file, requests);
      const spent = cpuOf(ours);
      const [outcome, seen] = await Promise.all([
        load({ program, url: ours.url, file, connections, seconds }),
        // While all of its connections are there.
        sleep(200).then(() => watch({ url: ours.url, clients: bystanders, seconds: seconds - 0.4 })),
      ]);
      const after = cpuOf(ours);
      const cpu = Object.fromEntries(Object.entries(after).map(([part, micros]) => [part, (micros - spent[part]) / (outcome.answered + seen.count)]));
      note(figures, work, before, seen);
      figures.add(work, "CPU an answer, bystander's included", "µs", sum(cpu));
      figures.add(work, "answers a second", "/s", outcome.answered / outcome.seconds);
      figures.add(work, "p50 of the flood's", "ms", outcome.p50);
      figures.add(work, "p99 of the flood's", "ms", outcome.p99);
      for (const [status, count] of Object.entries(outcome.statuses)) figures.add(work, `answered ${status}`, "%", (100 * count) / outcome.answered);
      figures.add(work, "connections failed, answers that took over 10 s", "of all", Object.values(outcome.errors).reduce((all, count) => all + count, 0));
      return outcome;
    };

    // Caches are filled before anything is looked at.
    const tokens = others.map((client) => tokenRequest(client, "ES256"));
    await beside("overload, warm-up", tokens, 64, await alone("overload, warm-up"));
    for (const { work, metric } of [...figures.all.values()]) if (work === "overload, warm-up") figures.all.delete(`${work}\n${metric}`);

    const rates = {};
    for (const connections of [64, 512, 1024]) {
      const work = `overload, ${connections} connections`;
      const outcome = await beside(work, tokens, connections, await alone(work));
      rates[connections] = (outcome.statuses[200] ?? 0) / outcome.seconds;
      if (connections > 64) figures.add(work, "tokens a second, of those at 64 connections", "×", rates[connections] / rates[64]);
    }
    const wrong = (client, place, all) => tokenRequest({ ...client, secret: all[(place + 1) % all.length].secret }, "ES256");
    await beside("flood of wrong secrets", others.map(wrong), 64, await alone("flood of wrong secrets"));
    // A few, who soon are locked out.
    await beside("flood of wrong secrets, locked out", others.slice(0, 20).map(wrong), 64, await alone("flood of wrong secrets, locked out"));
    await beside("one tenant floods", flooding.map((client) => tokenRequest(client, "ES256", flooding.resource)), 64, await alone("one tenant floods"));
    await idle({ figures, ours, bystanders, count: idleConnections, seconds, progress });
    return { result: "measured" };
  });
}

/** @param {import("./figures.mjs").Figures} figures */
function note(figures, work, before, seen) {
  // A bystander who was turned away every time has waited for nothing: there is no such figure then.
  const ratio = seen.p99 / before.p99;
  for (const [metric, unit, value] of /** @type {[string, string, number][]} */ ([
    ["bystander's p99, beside / alone", "×", ratio], ["bystander's p50", "ms", seen.p50], ["bystander's p99", "ms", seen.p99],
    ["bystander's p50, alone", "ms", before.p50], ["bystander's p99, alone", "ms", before.p99],
  ])) if (Number.isFinite(value)) figures.add(work, metric, unit, value);
  figures.add(work, "bystander refused", "%", (100 * seen.refused) / seen.count);
  if (seen.refused > 0) figures.notes.push(`${work}: the bystander was answered ${JSON.stringify(seen.statuses)}`);
}

/** Asks for tokens, one after the other. Of those that are refused the time doesn't count. */
async function watch({ url, clients, seconds }) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  /** @type {number[]} */
  const times = [];
  const statuses = {};
  let count = 0;
  const end = performance.now() + seconds * 1000;
  try {
    for (; performance.now() < end; count++) {
      const began = performance.now();
      const status = await ask(agent, url, tokenRequest(clients[count % clients.length], "ES256")).then(({ status }) => status, (error) => error.code ?? error.message);
      if (status === 200) times.push(performance.now() - began);
      statuses[status] = (statuses[status] ?? 0) + 1;
      await sleep(PAUSE);
    }
  } finally {
    agent.destroy();
  }
  times.sort((a, b) => a - b);
  const [p50, p99] = [0.5, 0.99].map((part) => (times.length > 0 ? quantile(times, part) : NaN));
  return { count, statuses, refused: count - times.length, p50, p99 };
}

/** A tenant with few requests a minute, and its clients. */
async function floodingTenant({ url, admin }) {
  const name = `Flood ${crypto.randomBytes(4).toString("hex")}`;
  const resource = `https://${name.replace(" ", "-").toLowerCase()}.example`;
  const made = await request(`${url}/api/v1/tenants`, {
    headers: { authorization: await adminToken(url, admin) },
    json: { name, plan: "paid", requests_per_minute: 1_000_000, administrator: { email: "admin@flood.example" }, default_resource_server: { identifier: resource, name: "Flood" } },
  });
  if (made.status !== 201) throw new Problem(`a second tenant couldn't be made: ${made.status} ${made.text}`);
  const { client_id: clientId, client_secret: clientSecret } = made.body.administrator;
  const clients = await makeClients({ url, token: await adminToken(url, { clientId, clientSecret }), clientCount: FLOODING_TENANT.clients, keyed: false });
  // Only now, as its clients have been made.
  const place = `${url}/api/v1/tenants/${made.body.tenant_id}`;
  const headers = { authorization: await adminToken(url, admin) };
  const { headers: seen } = await request(place, { headers });
  const changed = await request(place, {
    method: "PATCH", headers: { ...headers, "if-match": seen.get("etag") ?? "" }, json: { requests_per_minute: FLOODING_TENANT.requests_per_minute },
  });
  if (changed.status !== 200) throw new Problem(`the second tenant couldn't be limited: ${changed.status} ${changed.text}`);
  return Object.assign(clients, { resource });
}

/** Connections on which nothing is asked, and somebody who works beside them. */
async function idle({ figures, ours, bystanders, count, seconds, progress }) {
  // Half of what a process may have open is left to the other side.
  const { stdout: limit } = await run("/bin/sh", ["-c", "ulimit -n"]);
  const possible = limit.trim() === "unlimited" ? count : Math.min(count, Number(limit) - 500);
  const work = `${possible.toLocaleString("en")} idle connections`;
  progress(work);
  const before = await watch({ url: ours.url, clients: bystanders, seconds });
  const memory = memoryOf(ours.pids.issuer).now;
  const { hostname, port } = new URL(ours.url);
  /** @type {import("node:net").Socket[]} */
  const sockets = [];
  try {
    const began = performance.now();
    // Who sends no head for 15 s is closed, so all of it has to be over before. More at once than the system keeps waiting would be tried again a second later.
    while (sockets.length < possible) {
      const some = await Promise.all(Array.from({ length: Math.min(100, possible - sockets.length) }, () => open(hostname, Number(port))));
      sockets.push(...some);
    }
    figures.add(work, "opened in", "s", (performance.now() - began) / 1000);
    const seen = await watch({ url: ours.url, clients: bystanders, seconds });
    note(figures, work, before, seen);
    figures.add(work, "still open at the end", "of all", sockets.filter((socket) => !socket.destroyed && !socket.readableEnded).length);
    figures.add(work, "issuer's memory, each", "KB", ((memoryOf(ours.pids.issuer).now - memory) * 1000) / possible);
  } finally {
    for (const socket of sockets) socket.destroy();
  }
}

/** @returns {Promise<import("node:net").Socket>} */
function open(host, port) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host, port }, () => {
      socket.off("error", reject).on("error", () => {}).resume();
      resolve(socket);
    });
    socket.once("error", reject);
  });
}
