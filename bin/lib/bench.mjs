// bin/bench: one benchmark by its name. Each lies in benches/ and returns rows; what all have in common is here: arguments, set-up,
// the machine's description, the table and the JSON object.

import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

import * as edge from "./benches/edge.mjs";
import * as issuer from "./benches/issuer.mjs";
import * as revocation from "./benches/revocation.mjs";
import * as scale from "./benches/scale.mjs";
import { refuseUsage, runCommand } from "./lifecycle.mjs";
import { Problem, bold, dim, duration, green, heading, red, say, toStandardError } from "./output.mjs";
import { stateDir } from "./paths.mjs";

/**
 * @typedef {object} Row one figure
 * @property {string} work what was done
 * @property {string} metric what was measured of it
 * @property {number} value
 * @property {string} unit
 * @property {string} [target] what it should be, as `≤ 1.10` or `≥ 10`
 * @property {boolean} [met]
 * @property {string} [spread] of the rounds that `value` is the median of
 */

/**
 * @typedef {object} Bench
 * @property {string} what in one line
 * @property {import("node:util").ParseArgsConfig["options"]} options
 * @property {string} help of the options
 * @property {(context: {processes: import("./processes.mjs").Processes, dir: string, values: Record<string, any>}) => Promise<{rows: Row[], versions: Record<string, string>, notes: string[]}>} run
 */

/** @type {Record<string, Bench>} */
const BENCHES = { edge, issuer, revocation, scale };

const HELP = `bin/bench: runs a benchmark. What it compares runs side by side, in turns, on servers of its own.

  bin/bench NAME [--json]   one benchmark; --json prints one object and nothing else on standard output
  bin/bench --help          this text

${Object.entries(BENCHES).map(([name, { what, help }]) => `  ${name.padEnd(10)}${what}\n${help}`).join("\n")}
The status is 0 when it ran, whether or not targets were met: see \`met\`.
`;

const [name, ...rest] = process.argv.slice(2);
if (name === undefined || name === "--help" || name === "-h") {
  process.stdout.write(HELP);
  process.exit(name === undefined ? 2 : 0);
}
const bench = Object.hasOwn(BENCHES, name) ? BENCHES[name] : refuseUsage("bin/bench", `there is no benchmark ${name}`);
/** @type {Record<string, any>} */
let values = {};
try {
  ({ values } = parseArgs({ args: rest, options: { json: { type: "boolean" }, help: { type: "boolean", short: "h" }, ...bench.options } }));
} catch (error) {
  refuseUsage("bin/bench", error.message);
}
if (values.help) {
  process.stdout.write(HELP);
  process.exit(0);
}
if (values.json) toStandardError();

function machine() {
  const [cpu] = os.cpus();
  return {
    cpu: cpu?.model.trim() ?? "unknown", cores: os.availableParallelism(), memory_gb: Math.round(os.totalmem() / 2 ** 30),
    os: `${os.type()} ${os.release()} ${os.arch()}`,
  };
}

function table(rows) {
  heading(`${name}: ratios first`);
  const ordered = [...rows.filter((row) => row.target), ...rows.filter((row) => !row.target)];
  const width = Math.max(...ordered.map((row) => `${row.work}: ${row.metric}`.length));
  for (const row of ordered) {
    const verdict = row.target === undefined ? "" : row.met ? green(`  target ${row.target}: met`) : red(`  target ${row.target}: missed`);
    const figure = `${row.value} ${row.unit}`.padStart(14);
    say(`  ${`${row.work}: ${row.metric}`.padEnd(width)}  ${bold(figure)}${row.spread ? dim(`  ${row.spread}`) : ""}${verdict}`);
  }
}

await runCommand({ name: "bin/bench", dir: path.join(stateDir, "bench") }, async ({ processes }) => {
  const started = Date.now();
  const { rows, versions, notes } = await bench.run({ processes, dir: path.join(stateDir, "bench"), values });
  if (rows.length === 0) throw new Problem("the benchmark measured nothing");
  table(rows);
  for (const note of notes) say(dim(`  ${note}`));
  say(dim(`  in ${duration(Date.now() - started)}`));
  if (values.json) process.stdout.write(`${JSON.stringify({ bench: name, machine: machine(), versions, rows, notes }, null, 2)}\n`);
  return 0;
});
