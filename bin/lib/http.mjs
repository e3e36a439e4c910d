// Small helpers for talking to our own servers.

import { setTimeout as sleep } from "node:timers/promises";

/** The headers of RFC 6749 §2.3.1: id and secret, form-encoded, then Basic. */
export function basic(clientId, clientSecret) {
  const encode = (part) => encodeURIComponent(part).replaceAll("%20", "+");
  return { authorization: `Basic ${Buffer.from(`${encode(clientId)}:${encode(clientSecret)}`).toString("base64")}` };
}

/**
 * One request; the body is read to its end, so that the connection can be used again.
 * @param {string} url
 * @param {{method?: string, headers?: Record<string, string>, form?: Record<string, string>, json?: unknown, timeoutMs?: number}} [options]
 * @returns {Promise<{status: number, headers: Headers, text: string, body: any}>} `body`: the parsed JSON, if it is JSON
 */
export async function request(url, { method, headers = {}, form, json, timeoutMs = 10_000 } = {}) {
  const response = await fetch(url, {
    method: method ?? (form || json !== undefined ? "POST" : "GET"),
    headers: json === undefined ? headers : { "content-type": "application/json", ...headers },
    body: form ? new URLSearchParams(form) : json === undefined ? undefined : JSON.stringify(json),
    redirect: "manual",
    signal: AbortSignal.timeout(timeoutMs),
  });
  const text = await response.text();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    body = undefined;
  }
  return { status: response.status, headers: response.headers, text, body };
}

/**
 * Asks until `check` gives something true.
 * @template T
 * @param {() => Promise<T>} check a throw counts as "not yet"
 * @param {{timeoutMs: number, everyMs?: number, signal?: AbortSignal}} options
 * @returns {Promise<T | undefined>} undefined when the time is over
 */
export async function until(check, { timeoutMs, everyMs = 50, signal }) {
  const end = performance.now() + timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    try {
      const value = await check();
      if (value) return value;
    } catch (error) {
      if (signal?.aborted) throw error;
    }
    if (performance.now() >= end) return undefined;
    await sleep(everyMs, undefined, { signal });
  }
}
