// bin/dev as a person meets it: on ports and with a state directory of its own, against everything real.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { request, until } from "../lib/http.mjs";
import { root } from "../lib/paths.mjs";
import { freePort } from "../lib/ports.mjs";
import { processTable } from "../lib/processes.mjs";

/** bin/dev with an environment of its own, and what it prints. */
class Dev {
  constructor(args, { state, ports }, more = {}) {
    const { DATABASE_URL, REDIS_URL, MASTER_KEY, ...inherited } = process.env;
    void DATABASE_URL, REDIS_URL, MASTER_KEY;
    this.text = "";
    this.child = spawn(path.join(root, "bin", "dev"), args, {
      env: {
        ...inherited,
        COUNTERSIGN_STATE_DIR: state,
        PORT: String(ports.issuer),
        ADMIN_ADDRESS: `127.0.0.1:${ports.admin}`,
        EDGE_PORT: String(ports.edge),
        ...more,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [this.child.stdout, this.child.stderr]) stream.on("data", (data) => (this.text += data));
    this.exit = new Promise((resolve) => this.child.once("close", (status) => resolve(status)));
  }

  async printed(pattern, timeoutMs) {
    const seen = await until(async () => pattern.test(this.text) || this.child.exitCode !== null, { timeoutMs, everyMs: 20 });
    assert.ok(seen && pattern.test(this.text), `no ${pattern} in:\n${this.text}`);
  }
}

const freePorts = async () => ({ issuer: await freePort(), admin: await freePort(), edge: await freePort() });

/** Live processes that name the state directory or lead back to `pid`. */
function remaining(place, pid) {
  const found = [];
  for (const info of processTable().values()) {
    let command = "";
    try {
      command = fs.readFileSync(`/proc/${info.pid}/cmdline`, "utf8").replaceAll("\0", " ");
    } catch {
      continue;
    }
    if (info.pid === pid || command.includes(place.state) || Object.values(place.ports).some((port) => command.includes(`:${port} `))) found.push(`${info.pid} ${command}`);
  }
  return found;
}

const isTaken = (port) =>
  new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", () => resolve(true));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(false)));
  });

async function assertNothingRemains(place, pid) {
  const gone = await until(async () => remaining(place, pid).length === 0, { timeoutMs: 3_000 });
  assert.ok(gone, `still there: ${remaining(place, pid).join("\n")}`);
  for (const [name, port] of Object.entries(place.ports)) assert.equal(await isTaken(port), false, `the ${name}'s port`);
  assert.equal(fs.existsSync(path.join(place.state, "lock")), false, "the lock");
}

let folder;
before(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "countersign-dev-"));
  // Postgres, run by another user, must get there.
  fs.chmodSync(folder, 0o755);
});
after(() => fs.rmSync(folder, { recursive: true, force: true }));

test("--once walks through everything, twice, and leaves nothing behind", async () => {
  const place = { state: path.join(folder, "once"), ports: await freePorts() };
  for (const [round, bootstrapped] of [["first", "administrator made"], ["second", "bootstrapped before"]]) {
    const dev = new Dev(["--once"], place);
    assert.equal(await dev.exit, 0, `the ${round} run:\n${dev.text}`);
    assert.match(dev.text, new RegExp(bootstrapped));
    assert.match(dev.text, /Every step did what it should/);
    assert.doesNotMatch(dev.text, /✗/);
    assert.match(dev.text, /revoked to refused +median .*, worst /);
    await assertNothingRemains(place, dev.child.pid);
  }
  const secrets = path.join(place.state, "secrets");
  for (const name of fs.readdirSync(secrets)) {
    assert.equal(fs.statSync(path.join(secrets, name)).mode & 0o077, 0, `${name} can be read by others`);
  }
});

describe("while it stays up", () => {
  let place;
  let dev;
  before(async () => {
    place = { state: path.join(folder, "up"), ports: await freePorts() };
    dev = new Dev([], place);
    await dev.printed(/Ctrl-C ends everything/, 120_000);
  });

  test("no command line holds a secret", () => {
    const secrets = fs.readdirSync(path.join(place.state, "secrets")).flatMap((name) =>
      fs.readFileSync(path.join(place.state, "secrets", name), "utf8").split(/[\s='"]+/).filter((word) => word.length >= 40 && !word.startsWith("{")),
    );
    assert.ok(secrets.length >= 3);
    for (const info of processTable().values()) {
      let command;
      try {
        command = fs.readFileSync(`/proc/${info.pid}/cmdline`, "utf8");
      } catch {
        continue;
      }
      for (const secret of secrets) assert.ok(!command.includes(secret), `process ${info.pid}`);
    }
  });

  test("the commands that it prints work as they are printed", () => {
    const script = dev.text.slice(dev.text.indexOf("# the administrator's credential"), dev.text.indexOf("Ctrl-C ends everything"));
    const { stdout, stderr, status } = spawnSync("bash", ["-euo", "pipefail", "-c", script], { cwd: root, encoding: "utf8" });
    assert.equal(status, 0, stderr);
    const statuses = [...stdout.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map((match) => match[1]);
    assert.deepEqual(statuses, ["200", "200", "401"], stdout);
  });

  test("a second one in the same place is refused in one line", async () => {
    const second = new Dev(["--once"], { state: place.state, ports: await freePorts() });
    assert.equal(await second.exit, 1);
    assert.match(second.text, new RegExp(`^error: bin/dev is already running here \\(process ${dev.child.pid}`, "m"));
    assert.match(second.text, /^fix: /m);
    assert.equal((await request(`http://127.0.0.1:${place.ports.issuer}/ready`)).status, 200);
  });

  for (const [what, setting] of [["issuer", "PORT"], ["admin", "ADMIN_ADDRESS"], ["edge", "EDGE_PORT"]]) {
    test(`a taken port is named, with the setting that changes it: ${setting}`, async () => {
      const other = { state: path.join(folder, `taken-${what}`), ports: { ...(await freePorts()), [what]: place.ports[what] } };
      const second = new Dev(["--once"], other);
      assert.equal(await second.exit, 1);
      assert.match(second.text, new RegExp(`^error: port ${place.ports[what]} .* is taken`, "m"));
      assert.match(second.text, new RegExp(`^fix: .*${setting}=`, "m"));
    });
  }

  test("Ctrl-C ends everything", async () => {
    dev.child.kill("SIGINT");
    assert.equal(await dev.exit, 130);
    await assertNothingRemains(place, dev.child.pid);
  });
});

test("Ctrl-C while it starts leaves nothing behind", async () => {
  const place = { state: path.join(folder, "early"), ports: await freePorts() };
  const dev = new Dev([], place);
  await dev.printed(/demo upstream/, 60_000);
  dev.child.kill("SIGINT");
  assert.equal(await dev.exit, 130);
  await assertNothingRemains(place, dev.child.pid);
});

test("a child that dies is reported with the end of its log, and everything ends", async () => {
  const place = { state: path.join(folder, "crash"), ports: await freePorts() };
  const dev = new Dev([], place);
  await dev.printed(/Ctrl-C ends everything/, 120_000);
  const { pid } = JSON.parse(fs.readFileSync(path.join(place.state, "processes.json"), "utf8")).find(({ name }) => name === "issuer");
  process.kill(pid, "SIGKILL");
  assert.equal(await dev.exit, 1);
  assert.match(dev.text, /^error: issuer was ended by SIGKILL/m);
  await assertNothingRemains(place, dev.child.pid);
});

test("what a killed one leaves behind is ended by the next", async () => {
  const place = { state: path.join(folder, "killed"), ports: await freePorts() };
  const first = new Dev([], place);
  await first.printed(/Ctrl-C ends everything/, 120_000);
  first.child.kill("SIGKILL");
  await first.exit;
  const second = new Dev(["--once"], place);
  assert.equal(await second.exit, 0, second.text);
  assert.match(second.text, /ended issuer, left behind/);
  await assertNothingRemains(place, second.child.pid);
});

test("a database that isn't there is named", async () => {
  const place = { state: path.join(folder, "nodb"), ports: await freePorts() };
  const port = await freePort();
  const dev = new Dev(["--once"], place, { DATABASE_URL: `postgres://nobody:secret@127.0.0.1:${port}/x` });
  assert.equal(await dev.exit, 1);
  assert.match(dev.text, new RegExp(`^error: Postgres at 127\\.0\\.0\\.1:${port} \\(DATABASE_URL\\)`, "m"));
  assert.doesNotMatch(dev.text, /secret@/);
  await assertNothingRemains(place, dev.child.pid);
});

test("its help and its refusal of unknown options", () => {
  const run = (...args) => spawnSync(path.join(root, "bin", "dev"), args, { encoding: "utf8" });
  assert.equal(run("--help").status, 0);
  assert.match(run("--help").stdout, /DATABASE_URL/);
  assert.equal(run("--onse").status, 2);
});
