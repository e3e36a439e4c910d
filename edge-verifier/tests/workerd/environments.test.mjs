// What a deployment would upload, in each environment; and the commands of docs/guides/deploy-edge.md that need no account.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { test } from "node:test";
import { issuerProgram } from "../../../bin/lib/issuer.mjs";
import { nodeEnv, wranglerCommand } from "../../../bin/lib/npm.mjs";
import { root } from "../../../bin/lib/paths.mjs";

const HUB = "edge-verifier/hub/wrangler.toml";
const EDGE = "wrangler.toml";

function run(command, args, env) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] });
    let text = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (text += data));
    child.once("close", (status) => resolve({ status, text }));
  });
}

/** A dry run; what it says, and the names of the files. */
async function upload(config, environment) {
  const folder = mkdtempSync(join(tmpdir(), "countersign-upload-"));
  try {
    const { command, args, env } = wranglerCommand(["deploy", "--dry-run", "--env", environment, "--config", config, "--outdir", folder]);
    const { status, text } = await run(command, args, env);
    assert.equal(status, 0, text);
    assert.doesNotMatch(text, /WARNING/, text);
    return { text, files: readdirSync(folder) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

for (const environment of ["dev", "staging", "production"]) {
  test(`the environment ${environment}`, async () => {
    const hub = await upload(HUB, environment);
    assert.match(hub.text, /env\.REVOCATION_HUB \(RevocationHub\) /);
    const edge = await upload(EDGE, environment);
    // The edge's hubs are those of its own environment.
    assert.match(edge.text, new RegExp(`env\\.REVOCATION_HUB \\(RevocationHub, defined in countersign-hub-${environment}\\)`));
    assert.match(edge.text, new RegExp(`env\\.HUB_DOOR \\(countersign-hub-${environment}\\)`));
    assert.match(edge.text, new RegExp(`env\\.REVOCATION_OBJECTS \\(countersign-revocation-objects-${environment}\\)`));
    assert.match(edge.text, /env\.FORWARD_AUTHORIZATION \("false"\)/);
    for (const { files } of [hub, edge]) assert.equal(files.filter((name) => name.endsWith(".wasm")).length, 1, files.join());
  });
}

test("the guide's commands that need no account", async () => {
  const guide = readFileSync(join(root, "docs", "guides", "deploy-edge.md"), "utf8");
  const blocks = [...guide.matchAll(/^```bash\n([\s\S]*?)^```$/gm)].map(([, block]) => block);
  const said = [];
  const folder = mkdtempSync(join(tmpdir(), "countersign-guide-"));
  try {
    const env = nodeEnv();
    const path = [dirname(await issuerProgram()), env.PATH].join(delimiter);
    for (const block of blocks) {
      const { status, text } = await run("bash", ["-e", "-o", "pipefail", "-c", block], { ...env, PATH: path, TMPDIR: folder, CI: "true", WRANGLER_SEND_METRICS: "false" });
      assert.equal(status, 0, `${block}\n${text}`);
      said.push(text);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const [upload, policy] = said;
  assert.equal(said.length, 2, "both Workers, and a policy");
  assert.match(upload, /RevocationHub, defined in countersign-hub-production/);
  assert.match(policy, /orders:read/, "what GET /orders/7 needs");
});
