// What benchmarks are told on the command line.

import { Problem } from "../output.mjs";

/**
 * @param {string} name of the option
 * @param {string} text what was given
 * @param {number} least
 * @param {number} most
 * @throws {Problem} unless it is a whole number between these
 */
export function wholeNumber(name, text, least, most) {
  const value = Number(text);
  if (!(Number.isInteger(value) && value >= least && value <= most)) throw new Problem(`--${name} must be a whole number from ${least} to ${most}`);
  return value;
}
