// What was measured, until it is rows: each figure with a value for each round, its median and quartiles, and what it should be.

import { median, quantile } from "../load.mjs";

/** What each figure must be. */
const TARGETS = [
  { work: /^token by secret, (ES256|EdDSA)$/, metric: "CPU, oidc-provider / countersign", least: 10 },
  { work: /^token by secret, (ES256|EdDSA|RS256)$/, metric: "issuer's CPU apart from the signature", most: 60 },
  { work: "token by secret, RS256", metric: "issuer's CPU / bare signature", most: 1.25 },
  { work: "introspection of active tokens", metric: "CPU, oidc-provider / countersign", least: 10 },
  { work: "introspection of revoked tokens", metric: "CPU, oidc-provider / countersign", least: 10 },
  { work: /^token by secret, ES256, below saturation$/, metric: "p99 / p50, countersign", most: 4 },
  { work: "memory", metric: "idle, issuer", most: 40 },
  { work: "memory", metric: /^after [\d,]+ tokens, issuer$/, most: 60 },
  { work: "start", metric: "to ready, with the database up, issuer", most: 300 },
  { work: "flat", metric: /^CPU a token, after [\d,]+ \/ after none$/, most: 1.05 },
];

const matches = (pattern, text) => (pattern instanceof RegExp ? pattern.test(text) : pattern === text);

/** Four digits at most, and no more than are known. */
const rounded = (value) => Number(value.toPrecision(value >= 1000 ? 4 : 3));

export class Figures {
  constructor() {
    /** @type {Map<string, {work: string, metric: string, unit: string, values: number[]}>} */
    this.all = new Map();
    /** @type {string[]} */
    this.notes = [];
  }

  /** Adds a round's value. */
  add(work, metric, unit, value) {
    const key = `${work}\n${metric}`;
    const figure = this.all.get(key) ?? { work, metric, unit, values: /** @type {number[]} */ ([]) };
    figure.values.push(value);
    this.all.set(key, figure);
  }

  /** @returns {number[]} by round */
  values(work, metric) {
    return this.all.get(`${work}\n${metric}`)?.values ?? [];
  }

  /** @returns {number} */
  median(work, metric) {
    return median(this.values(work, metric));
  }

  /** @returns {import("../../bench.mjs").Row[]} */
  rows() {
    return [...this.all.values()].map(({ work, metric, unit, values }) => {
      const middle = median(values);
      const sorted = [...values].sort((a, b) => a - b);
      const spread = values.length > 1 ? { spread: `quartiles ${rounded(quantile(sorted, 0.25))}–${rounded(quantile(sorted, 0.75))}` } : {};
      const row = { work, metric, value: rounded(middle), unit, ...spread };
      const target = TARGETS.find((target) => matches(target.work, work) && matches(target.metric, metric));
      if (!target) return row;
      const { most, least } = target;
      return most === undefined ? { ...row, target: `≥ ${least}`, met: middle >= least } : { ...row, target: `≤ ${most}`, met: middle <= most };
    });
  }
}
