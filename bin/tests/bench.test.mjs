// bin/bench issuer: that it runs to its end, cleans up, and has a figure for everything that it says it measures. Not what the figures are: this is a
// debug build, and a machine with other work.

import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";

import { root } from "../lib/paths.mjs";
import { run } from "../lib/processes.mjs";

const state = fs.mkdtempSync(path.join(os.tmpdir(), "countersign-bench-"));
after(() => fs.rmSync(state, { recursive: true, force: true }));

/** @param {string[]} args */
const bench = (args) => run(path.join(root, "bin", "bench"), args, { cwd: root, env: { ...process.env, COUNTERSIGN_STATE_DIR: state }, allowFailure: true });

test("bin/bench issuer measures all that it has targets for, beside oidc-provider", { timeout: 900_000 }, async () => {
  const { status, stdout, stderr } = await bench(["issuer", "--quick", "--debug", "--json", "--clients", "40", "--tokens", "300", "--peers", "oidc-provider"]);
  assert.equal(status, 0, stderr);
  const { rows, versions, notes } = JSON.parse(stdout);
  for (const { work, metric, value, unit } of rows) assert.ok(Number.isFinite(value) && value >= 0, `${work}: ${metric} is ${value} ${unit}`);
  const targets = rows.filter(({ target }) => target).map(({ work, metric }) => `${work}: ${metric}`);
  const tokens = ["ES256", "EdDSA", "RS256"].map((algorithm) => `token by secret, ${algorithm}`);
  assert.deepEqual(targets.sort(), [
    ...tokens.map((work) => `${work}: issuer's CPU apart from the signature`),
    ...tokens.slice(0, 2).map((work) => `${work}: CPU, oidc-provider / countersign`),
    "token by secret, RS256: issuer's CPU / bare signature",
    "token by secret, ES256, below saturation: p99 / p50, countersign",
    "introspection of active tokens: CPU, oidc-provider / countersign",
    "introspection of revoked tokens: CPU, oidc-provider / countersign",
    "memory: idle, issuer", "memory: after 300 tokens, issuer", "start: to ready, with the database up, issuer", "flat: CPU a token, after 300 / after none",
  ].sort());
  // A debug build on a busy machine may be overloaded, and say so; nothing is answered otherwise than it should be.
  for (const note of notes) {
    const [, answers] = /: answers (\{.*\}), errors /.exec(note) ?? [];
    for (const answer of Object.keys(JSON.parse(answers ?? "{}"))) assert.match(answer, /^(200|201|401|503)$/, note);
  }
  // A flood of wrong secrets is refused, and so is a tenant that asks too often; nobody else is.
  const of = (work, metric) => rows.find((row) => row.work === work && row.metric === metric)?.value;
  assert.equal(of("flood of wrong secrets, locked out", "answered 200"), undefined);
  assert.ok(of("one tenant floods", "answered 429") > 0, "the tenant that floods is limited");
  for (const work of ["flood of wrong secrets, locked out", "one tenant floods"]) assert.ok(of(work, "bystander refused") < 50, work);
  assert.match(versions["oidc-provider"], /^\d+\.\d+\.\d+$/);
  assert.deepEqual(fs.existsSync(path.join(state, "bench", "processes.json")), false, "nothing is left running");
});

test("bin/bench issuer says what it doesn't know", async () => {
  for (const [args, said] of /** @type {[string[], RegExp][]} */ ([
    [["--only", "everything"], /--only knows start, works/], [["--peers", "keycloak"], /--peers knows oidc-provider/], [["--rounds", "0"], /--rounds must be a whole number/],
  ])) {
    const { status, stderr } = await bench(["issuer", ...args]);
    assert.notEqual(status, 0);
    assert.match(stderr, said);
  }
});
