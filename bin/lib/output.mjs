// What people see: one aligned line for each thing done, a live line while something takes long, one clear line when
// something fails. Colour and the live line only on a terminal.

import fs from "node:fs";

/** Where people read it. @type {NodeJS.WriteStream} */
let out = process.stdout;

/** From here on standard output is a program's. */
export function toStandardError() {
  out = process.stderr;
}

const terminal = Boolean(out.isTTY) && process.env.TERM !== "dumb";
const colours = terminal && !process.env.NO_COLOR;
const paint = (code) => (text) => (colours ? `\u001b[${code}m${text}\u001b[0m` : String(text));

export const bold = paint("1");
export const dim = paint("2");
export const red = paint("31");
export const green = paint("32");
export const yellow = paint("33");

// A closed pipe (`bin/dev | head`) or a vanished terminal must not kill the clean-up.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});

/** A failure that a person can act on: what happened, how to fix it, and where to read more. */
export class Problem extends Error {
  /**
   * @param {string} message one line
   * @param {{fix?: string, log?: string, cause?: unknown}} [more] `log`: a file whose last lines explain it
   */
  constructor(message, { fix, log, cause } = {}) {
    super(message, { cause });
    this.name = "Problem";
    this.fix = fix;
    this.log = log;
  }
}

/** Prints a failure: the log's last lines first, so that the clear line is what remains on the screen. */
export function printFailure(error) {
  clearLive();
  if (error instanceof Problem) {
    if (error.log) {
      const tail = lastLines(error.log, 20);
      if (tail) process.stderr.write(`${dim(`--- last lines of ${error.log}`)}\n${tail}\n${dim("---")}\n`);
    }
    process.stderr.write(`${red("error:")} ${error.message}\n`);
    if (error.fix) process.stderr.write(`${bold("fix:")} ${error.fix}\n`);
  } else {
    process.stderr.write(`${red("error:")} ${error?.stack ?? error}\n`);
  }
}

/** The last lines of a file, or "" if there are none. */
export function lastLines(file, count) {
  try {
    const text = fs.readFileSync(file, "utf8").trimEnd();
    // A carriage return is a progress bar's: only what it ended with matters.
    return text.split("\n").map((line) => line.split("\r").at(-1)).slice(-count).join("\n");
  } catch {
    return "";
  }
}

/** Milliseconds for people: `3.4 ms`, `210 ms`, `9.8 s`, `3 min 05 s`. */
export function duration(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, "0")} s`;
}

/** Prints one line, above the live one. */
export function say(text = "") {
  clearLive();
  out.write(`${text}\n`);
  drawLive();
}

/** Prints a heading. */
export function heading(text) {
  say(`\n${bold(text)}`);
}

const LABEL = 37;
const RESULT = 60;

/**
 * Prints one aligned line.
 * @param {"ok" | "failed" | "note"} kind
 * @param {string} label
 * @param {string} [result]
 * @param {number} [ms]
 */
export function line(kind, label, result = "", ms) {
  const mark = kind === "ok" ? green("✓") : kind === "failed" ? red("✗") : dim("·");
  const time = ms === undefined ? "" : duration(ms);
  const text = time ? result.padEnd(RESULT) : result;
  say(`  ${mark} ${label.padEnd(LABEL)} ${kind === "failed" ? red(text) : text}${time && `  ${time.padStart(10)}`}`.trimEnd());
}

// --- The live line: what is running now, and for how long.

const running = new Map();
let silent = false;

/** From here on tasks print nothing: what still fails fails because everything is being stopped. */
export function silenceTasks() {
  silent = true;
  clearLive();
  running.clear();
}
let drawn = false;
let ticker;
let silence = 0;

function clearLive() {
  if (drawn) out.write("\r\u001b[2K");
  drawn = false;
}

function liveText() {
  return [...running.values()]
    .map(({ label, status, started }) => `${label}${status ? ` ${status}` : ""} (${elapsed(Date.now() - started)})`)
    .join(" · ");
}

/** Whole seconds: what changes ten times a second can't be read. */
function elapsed(ms) {
  return ms < 60_000 ? `${Math.floor(ms / 1000)} s` : duration(ms);
}

function drawLive() {
  if (!terminal || silent || running.size === 0) return;
  out.write(`  … ${liveText()}`.slice(0, (out.columns || 80) - 1));
  drawn = true;
}

function tick() {
  if (silent) return;
  if (terminal) {
    clearLive();
    drawLive();
  } else if (Date.now() - silence >= 20_000) {
    // Without a terminal a line every 20 s says that it hasn't died.
    silence = Date.now();
    out.write(`  … ${liveText()}\n`);
  }
}

/**
 * Runs `work`, showing that it runs, and prints a line with its result and time.
 * @template T
 * @param {string} label
 * @param {(progress: (status: string) => void) => Promise<T>} work returns the line's result text, or an object with it in `result`
 * @returns {Promise<T>}
 */
export async function task(label, work) {
  const started = Date.now();
  const entry = { label, status: "", started };
  running.set(entry, entry);
  silence ||= started;
  ticker ??= setInterval(tick, 250);
  if (ticker.unref) ticker.unref();
  clearLive();
  drawLive();
  const finish = () => {
    running.delete(entry);
    clearLive();
    if (running.size === 0) {
      clearInterval(ticker);
      ticker = undefined;
      silence = 0;
    }
  };
  try {
    const value = await work((status) => {
      entry.status = status;
    });
    finish();
    const result = typeof value === "string" ? value : (/** @type {{result?: string}} */ (value)?.result ?? "");
    if (!silent) line("ok", label, result, Date.now() - started);
    return value;
  } catch (error) {
    finish();
    if (!silent) line("failed", label, "failed", Date.now() - started);
    throw error;
  }
}

