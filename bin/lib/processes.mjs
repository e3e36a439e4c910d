// Starting and, above all, ending processes. Every long-lived child leads a process group of its own, so that a Ctrl-C in the
// terminal reaches only us and we end the children in order. They are ended by id: the group, and whatever of
// the child's descendants left the group. A record on disk lets the next run end what a killed one left behind.

import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { Problem } from "./output.mjs";
import { shown } from "./paths.mjs";

/**
 * @typedef {{pid: number, parent: number, group: number, session: number, started: string}} ProcessInfo
 *   `started` tells a process from a later one with the same id
 */

/** All live processes of this machine (zombies are dead). @returns {Map<number, ProcessInfo>} */
export function processTable() {
  const table = new Map();
  if (fs.existsSync("/proc/self/stat")) {
    for (const name of fs.readdirSync("/proc")) {
      if (!/^\d+$/.test(name)) continue;
      try {
        const stat = fs.readFileSync(`/proc/${name}/stat`, "utf8");
        // The command is in parentheses and may hold anything; the fields proper come after the last one.
        const [state, parent, group, session, ...rest] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
        if (state === "Z" || state === "X") continue;
        table.set(Number(name), {
          pid: Number(name), parent: Number(parent), group: Number(group), session: Number(session), started: rest[15],
        });
      } catch {
        // It ended while we looked.
      }
    }
    return table;
  }
  const { stdout } = spawnSync("ps", ["-A", "-o", "pid=,ppid=,pgid=,sess=,stat=,lstart="], { encoding: "utf8" });
  for (const row of (stdout ?? "").split("\n")) {
    const [pid, parent, group, , state, ...started] = row.trim().split(/\s+/);
    if (!pid || state?.startsWith("Z")) continue;
    // `sess` is an address on macOS; the group stands in for it.
    table.set(Number(pid), {
      pid: Number(pid), parent: Number(parent), group: Number(group), session: Number(group), started: started.join(" "),
    });
  }
  return table;
}

/** Who `pid` is now, for telling it from a later process with the same id; undefined if it doesn't live. */
export function identity(pid) {
  return processTable().get(pid)?.started;
}

/** The process, its group and its descendants: a leader may be dead while its group lives. */
function family(leader, table) {
  const members = new Set();
  for (const info of table.values()) if (info.pid === leader || info.group === leader) members.add(info.pid);
  for (let grown = true; grown; ) {
    grown = false;
    for (const info of table.values()) {
      if (!members.has(info.pid) && members.has(info.parent)) {
        members.add(info.pid);
        grown = true;
      }
    }
  }
  return [...members].map((pid) => table.get(pid)).filter((info) => info !== undefined);
}

function signal(pid, name) {
  try {
    process.kill(pid, name);
  } catch {
    // Already gone, which is what was wanted.
  }
}

/** Those of `infos` that still live, being the same processes. */
function survivors(infos) {
  const table = processTable();
  return infos.filter((info) => table.get(info.pid)?.started === info.started);
}

/**
 * Ends a child with all that it started: `stopSignal` to the child, TERM to whatever outlives it, then KILL.
 * @param {number} leader its pid, which is also its group
 * @param {{stopSignal?: NodeJS.Signals, graceMs?: number}} [options]
 */
export async function endFamily(leader, { stopSignal = "SIGTERM", graceMs = 8_000 } = {}) {
  const members = family(leader, processTable());
  if (members.length === 0) return;
  signal(leader, stopSignal);
  const deadline = Date.now() + graceMs;
  const gone = async (infos, until) => {
    for (;;) {
      const left = survivors(infos);
      if (left.length === 0 || Date.now() >= until) return left;
      await sleep(25);
    }
  };
  await gone(members.filter((info) => info.pid === leader), deadline);
  // Members that came after the first look belong too.
  const known = new Map([...members, ...family(leader, processTable())].map((info) => [`${info.pid} ${info.started}`, info]));
  let left = await gone([...known.values()], Math.min(deadline, Date.now() + 500));
  for (const info of left) signal(info.pid, "SIGTERM");
  left = await gone(left, Math.min(deadline, Date.now() + 2_000));
  for (const info of left) signal(info.pid, "SIGKILL");
  await gone(left, Date.now() + 2_000);
}

/** A long-lived child. */
export class Child {
  /** @param {{name: string, process: import("node:child_process").ChildProcess, log: string, stopSignal: NodeJS.Signals}} parts */
  constructor({ name, process: child, log, stopSignal }) {
    this.name = name;
    this.process = child;
    this.pid = /** @type {number} */ (child.pid);
    this.log = log;
    this.stopSignal = stopSignal;
    this.stopping = false;
    /** How it ended: undefined while it lives. @type {string | undefined} */
    this.ended = undefined;
    /** Settles when it has ended. @type {Promise<string>} */
    this.exit = new Promise((resolve) => {
      child.once("exit", (code, killedBy) => {
        this.ended = killedBy ? `was ended by ${killedBy}` : `exited with status ${code}`;
        resolve(this.ended);
      });
      child.once("error", (error) => {
        this.ended = `could not be started: ${error.message}`;
        resolve(this.ended);
      });
    });
  }

  /** The failure to report when it wasn't meant to end. */
  problem() {
    return new Problem(`${this.name} ${this.ended ?? "doesn't answer"}`, { log: this.log, fix: `see ${shown(this.log)}` });
  }

  async stop() {
    this.stopping = true;
    await endFamily(this.pid, { stopSignal: this.stopSignal });
  }
}

/** The long-lived children of this run. */
export class Processes {
  /** @param {string} dir where the record of what runs and the logs are kept */
  constructor(dir) {
    this.record = path.join(dir, "processes.json");
    this.logs = path.join(dir, "logs");
    /** @type {Child[]} */
    this.children = [];
    /** @type {(child: Child) => void} */
    this.onUnexpectedExit = () => {};
    this.stopped = false;
  }

  /**
   * Starts a child; its output goes to a log file of its name.
   * @param {string} name
   * @param {string} command
   * @param {string[]} args never secrets: every user of the machine can read them
   * @param {{env?: NodeJS.ProcessEnv, cwd?: string, uid?: number, gid?: number, stopSignal?: NodeJS.Signals}} [options]
   */
  start(name, command, args, { env = process.env, cwd, uid, gid, stopSignal = "SIGTERM" } = {}) {
    if (this.stopped) throw new Problem(`${name} isn't started: stopping`);
    fs.mkdirSync(this.logs, { recursive: true });
    const log = path.join(this.logs, `${name.replaceAll(/[^a-z0-9-]+/gi, "-")}.log`);
    const output = fs.openSync(log, "w", 0o600);
    const child = new Child({
      name, log, stopSignal,
      process: spawn(command, args, { cwd, env, uid, gid, detached: true, stdio: ["ignore", output, output] }),
    });
    fs.closeSync(output);
    if (child.pid !== undefined) this.children.push(child);
    this.#save();
    child.exit.then(() => {
      if (!child.stopping) this.onUnexpectedExit(child);
    });
    return child;
  }

  /** Ends one child. */
  async stop(child) {
    await child.stop();
    this.children = this.children.filter((other) => other !== child);
    this.#save();
  }

  /** Ends all, the last started first, since each leans on those before it. */
  async stopAll() {
    this.stopped = true;
    for (const child of this.children) child.stopping = true;
    for (const child of this.children.reverse()) await child.stop();
    this.children = [];
    fs.rmSync(this.record, { force: true });
  }

  /** Ends all at once and without asking. */
  kill() {
    this.stopped = true;
    const table = processTable();
    for (const child of this.children) {
      child.stopping = true;
      for (const info of family(child.pid, table)) signal(info.pid, "SIGKILL");
    }
    fs.rmSync(this.record, { force: true });
  }

  /**
   * Ends what an earlier run, itself killed, left behind.
   * @param {(name: string) => void} onEnded
   */
  async endLeftovers(onEnded) {
    /** @type {{name: string, pid: number, started: string, stopSignal: NodeJS.Signals}[]} */
    let entries = [];
    try {
      entries = JSON.parse(fs.readFileSync(this.record, "utf8"));
    } catch {
      return;
    }
    for (const { name, pid, started, stopSignal } of entries.reverse()) {
      const table = processTable();
      const leader = table.get(pid);
      // With the leader gone, only members of the very session that it led are ours.
      const ours = leader ? leader.started === started : family(pid, table).some((info) => info.session === pid);
      if (!ours) continue;
      await endFamily(pid, { stopSignal });
      onEnded(name);
    }
    fs.rmSync(this.record, { force: true });
  }

  #save() {
    const table = processTable();
    const entries = this.children.flatMap(({ name, pid, stopSignal }) => {
      const started = table.get(pid)?.started;
      return started === undefined ? [] : [{ name, pid, started, stopSignal }];
    });
    fs.mkdirSync(path.dirname(this.record), { recursive: true });
    fs.writeFileSync(this.record, JSON.stringify(entries));
  }
}

/** Commands that run to their end, so that an interrupt can end them too. @type {Set<import("node:child_process").ChildProcess>} */
const commands = new Set();
let refusing = false;

/** Ends the commands under way, compilers and installers, and lets no others start. */
export async function stopCommands() {
  refusing = true;
  await Promise.all([...commands].map((child) => child.pid && endFamily(child.pid, { graceMs: 3_000 })));
}

/**
 * Runs a command to its end.
 * @param {string} command
 * @param {string[]} args
 * @param {{cwd?: string, env?: NodeJS.ProcessEnv, uid?: number, gid?: number, log?: string, input?: string, show?: boolean,
 *   onText?: (text: string) => void, failure?: string, fix?: string, allowFailure?: boolean}} [options]
 *   `log`: all output goes there too; `show`: and to the screen; `failure`: the one line if it fails
 * @returns {Promise<{status: number, stdout: string, stderr: string}>}
 */
export function run(command, args, options = {}) {
  const { cwd, env = process.env, uid, gid, log, input, show, onText, failure, fix, allowFailure } = options;
  return new Promise((resolve, reject) => {
    if (refusing) throw new Problem(`${command} isn't run: stopping`);
    if (log) fs.mkdirSync(path.dirname(log), { recursive: true });
    const file = log ? fs.openSync(log, "w", 0o600) : undefined;
    const child = spawn(command, args, { cwd, env, uid, gid, detached: true, stdio: ["pipe", "pipe", "pipe"] });
    commands.add(child);
    /** @type {{stdout: Buffer[], stderr: Buffer[]}} */
    const collected = { stdout: [], stderr: [] };
    for (const name of /** @type {const} */ (["stdout", "stderr"])) {
      child[name].on("data", (/** @type {Buffer} */ data) => {
        collected[name].push(data);
        if (file !== undefined) fs.writeSync(file, data);
        if (show) process[name].write(data);
        onText?.(data.toString("utf8"));
      });
    }
    child.stdin.on("error", () => {});
    child.stdin.end(input ?? "");
    const finish = () => {
      commands.delete(child);
      if (file !== undefined) fs.closeSync(file);
    };
    child.once("error", (error) => {
      finish();
      reject(new Problem(failure ?? `${command} can't be run: ${error.message}`, { fix, cause: error }));
    });
    child.once("close", (code, killedBy) => {
      finish();
      const stdout = Buffer.concat(collected.stdout).toString("utf8");
      const stderr = Buffer.concat(collected.stderr).toString("utf8");
      const status = code ?? 128;
      if (status === 0 || allowFailure) return resolve({ status, stdout, stderr });
      const how = killedBy ? `was ended by ${killedBy}` : `exited with status ${status}`;
      const last = stderr.trim().split("\n").at(-1);
      reject(new Problem(failure ?? `${command} ${args[0] ?? ""} ${how}${!log && last ? `: ${last}` : ""}`, { fix, log }));
    });
  });
}
