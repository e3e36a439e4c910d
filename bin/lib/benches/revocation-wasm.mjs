// What revoked sets cost in WebAssembly, under V8: run by revocation.mjs in a process of its own, with the objects that the native part wrote.
// Prints a line for each figure, as the native part does.

import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";

import { loadRevocationWasm } from "../revocation-wasm.mjs";

const [dir, roundsText, exactText] = process.argv.slice(2);
const rounds = Number(roundsText);
const exact = Number(exactText);
const wasm = await loadRevocationWasm();
const LOOKUPS = 2_000_000;
const FOREIGN = 200_000;

const report = (work, metric, unit, values) => process.stdout.write(`${work}\t${metric}\t${unit}\t${values.join(" ")}\n`);
const read = (name) => fs.readFileSync(path.join(dir, name));

/** CPU time of `work` in milliseconds, and what it gave. */
function timed(work) {
  const before = process.cpuUsage();
  const result = work();
  const { user, system } = process.cpuUsage(before);
  return { result, ms: (user + system) / 1000 };
}

function loaded(name) {
  wasm.put(read(name));
  if (!wasm.load()) throw new Error(`${name} is refused in wasm`);
}

const inRounds = (work) => Array.from({ length: rounds }, (_, round) => work(round));

// Ten million of 100 million, as exactness has it.
loaded("exact-10.base");
const nanoseconds = (universe) => inRounds((round) => (timed(() => wasm.look_up(universe, LOOKUPS, round)).ms * 1e6) / LOOKUPS);
// The first rounds let V8 compile what is hot anew.
const [, , loop, all] = [-exact, exact, -exact, exact].map(nanoseconds);
const revoked = `${exact / 1e7} M revoked, 10% of live`;
report(`Elias–Fano, ${revoked}`, "look-up, wasm", "ns", all);
report(`Elias–Fano, ${revoked}`, "… of which the loop around it", "ns", loop);

const million = read("million.base");
wasm.put(million);
wasm.load();
report("Elias–Fano, 1 M revoked, 10% of live", "look-up, wasm", "ns", nanoseconds(1e7));
const loads = inRounds(() => {
  wasm.put(million);
  const began = performance.now();
  if (!wasm.load()) throw new Error("million.base is refused in wasm");
  return performance.now() - began;
});
report("Elias–Fano, 1 M revoked, 10% of live", "load, wasm, without the digest", "ms", loads);
const digests = [];
for (let round = 0; round < rounds; round++) {
  const began = performance.now();
  await crypto.subtle.digest("SHA-256", million);
  digests.push(performance.now() - began);
}
report("Elias–Fano, 1 M revoked, 10% of live", "its digest, by the host", "ms", digests);

for (const oneIn of [10, 100, 1000]) {
  loaded(`exact-${oneIn}.base`);
  const [rejects, accepts, right] = wasm.wrong(0, exact, oneIn);
  if (!(right > exact / oneIn / 2)) throw new Error("nothing was revoked");
  const work = `Elias–Fano, ${exact / 1e6} M serials, one by one`;
  report(work, `false rejects at ${100 / oneIn}%, wasm`, "", [rejects]);
  report(work, `false accepts at ${100 / oneIn}%, wasm`, "", [accepts]);
}

// As a cold isolate does it: an instance of its own, whose code V8 hasn't optimised.
const cold = [];
for (let round = 0; round < rounds; round++) {
  const fresh = await loadRevocationWasm();
  fresh.put(million);
  const began = performance.now();
  const sound = fresh.load();
  cold.push(performance.now() - began);
  if (!sound) throw new Error("million.base is refused in a fresh instance");
}
report("Elias–Fano, 1 M revoked, 10% of live", "load in a fresh instance, wasm, without the digest", "ms", cold);

if (!wasm.load_filter(read("foreign.filter"))) throw new Error("foreign.filter is refused in wasm");
const work = "split-block Bloom, 1 M foreign tokens";
const missed = FOREIGN - wasm.suspected(0, FOREIGN, 1);
report(work, "missed, wasm", "", [missed]);
const once = inRounds(() => timed(() => wasm.suspected(1_000_000, 1_000_000 + FOREIGN, 1)).ms);
const more = inRounds(() => timed(() => wasm.suspected(1_000_000, 1_000_000 + FOREIGN, 11)).ms);
report(work, "look-up, wasm", "ns", more.map((ms, round) => ((ms - once[round]) * 1e6) / FOREIGN / 10));
