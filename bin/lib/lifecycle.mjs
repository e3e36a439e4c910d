// How a command of bin/ begins and ends: whatever happens, a signal, a failure, a child's death, what it started is
// ended before it exits.

import { bold, dim, printFailure, red, say, silenceTasks } from "./output.mjs";
import { takeLock } from "./lock.mjs";
import { Processes, stopCommands } from "./processes.mjs";

class Interrupted extends Error {}

/**
 * Runs `main` and exits the process with the status that it returns; 1 after a failure, 130 after a signal.
 * @param {{name: string, dir: string}} command `name`: `bin/dev`; `dir`: its state, which one run at a time may use
 * @param {(context: {processes: Processes, signal: AbortSignal}) => Promise<number>} main
 * @returns {Promise<never>}
 */
export async function runCommand({ name, dir }, main) {
  const processes = new Processes(dir);
  const interrupt = new AbortController();
  let unlock = () => {};

  let signals = 0;
  for (const kind of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"])) {
    process.on(kind, () => {
      signals += 1;
      if (signals === 1) {
        silenceTasks();
        say(dim(`\n${kind === "SIGINT" ? "Ctrl-C" : kind}: stopping everything (once more: at once)`));
        interrupt.abort(new Interrupted());
      } else {
        processes.kill();
        unlock();
        process.exit(130);
      }
    });
  }
  processes.onUnexpectedExit = (child) => {
    // Whoever waits for a child to come up reports its end; later nobody else would.
    setTimeout(() => {
      if (child.stopping) return;
      silenceTasks();
      interrupt.abort(child.problem());
    }, 500).unref();
  };

  let status = 1;
  try {
    unlock = takeLock(dir, name);
    await processes.endLeftovers((child) => say(dim(`ended ${child}, left behind by a ${name} that was killed`)));
    status = await new Promise((resolve, reject) => {
      interrupt.signal.addEventListener("abort", () => reject(interrupt.signal.reason), { once: true });
      main({ processes, signal: interrupt.signal }).then(resolve, reject);
    });
  } catch (error) {
    silenceTasks();
    if (error instanceof Interrupted) status = 130;
    else printFailure(error);
  }
  await stopCommands();
  await processes.stopAll();
  unlock();
  process.exit(status);
}

/** Ends a command that was called wrongly. @returns {never} */
export function refuseUsage(name, message) {
  process.stderr.write(`${red("error:")} ${message}\n${bold("fix:")} ${name} --help\n`);
  process.exit(2);
}
