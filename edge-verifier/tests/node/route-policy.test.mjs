// The route policy's cases, in the module that decides at the edge; shared/tests/route_policy.rs runs the same natively.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { newExports } from "./support.mjs";

const { policies, decisions, bearers, mistakes } = JSON.parse(readFileSync(new URL("../../../shared/tests/route-policy.json", import.meta.url), "utf8"));

const wasm = newExports();
const write = (text) => {
  const bytes = new TextEncoder().encode(text);
  const start = wasm.input(bytes.length);
  new Uint8Array(wasm.memory.buffer, start, bytes.length).set(bytes);
  return bytes.length;
};
const output = () => new TextDecoder().decode(new Uint8Array(wasm.memory.buffer, wasm.output_ptr(), wasm.output_len()));
wasm.configure(write("https://issuer.example"), 5);
wasm.add_audience(write("https://orders.example"));
wasm.trust(write("https://partner.example"), 5, 1, 1);
wasm.trust_text(0, 0, write("https://partners.example"));

/** Takes the policy of that name into force. */
function load(name) {
  const { routes } = policies[name];
  assert.equal(wasm.load_policy(write(JSON.stringify(policies[name]))), routes.length, output());
}

test("decisions", () => {
  for (const [name, method, path, expected] of decisions) {
    load(name);
    const place = wasm.route(method.length, write(method + path));
    assert.equal(place === -2 ? "ambiguous" : place === -1 ? "denied" : place, expected, `${method} ${path}`);
  }
});

test("what a token needs", () => {
  for (const [name, route, bearer, expected] of bearers) {
    load(name);
    const { audience = "https://orders.example", scope = "", tenant = "33333333-3333-4333-8333-333333333333", agentType = "router", issuer = "https://issuer.example" } = bearer;
    const admitted = wasm.admits(route, write([issuer, audience, scope, tenant, agentType].join("\n")));
    assert.equal(admitted === 0 ? null : output().split("\n")[0], expected, JSON.stringify(bearer));
    if (expected === "insufficient_scope") assert.match(output(), /^Bearer error="insufficient_scope", .*scope="orders:read/m);
  }
  // Not what a route is, nor what a bearer is.
  for (const [route, text] of [[99, "https://issuer.example\na\nb\n33333333-3333-4333-8333-333333333333\nrouter"], [0, "a"], [0, "https://issuer.example\na\norders:read\nnobody"]]) {
    assert.equal(wasm.admits(route, write(text)), -1);
  }
});

test("mistakes", () => {
  load("open");
  for (const [text, place] of mistakes) {
    assert.equal(wasm.load_policy(write(text)), -1, text);
    if (place !== "") assert.ok(output().startsWith(`${place}: `), output());
  }
  const foreign = { version: 1, routes: [{ path: "/", audience: "https://other.example" }] };
  assert.equal(wasm.load_policy(write(JSON.stringify(foreign))), -1);
  assert.equal(output(), "routes[0].audience: https://other.example is not in AUDIENCE");
  const stranger = { version: 1, routes: [{ path: "/", issuers: ["https://partner.example", "https://third.example"] }] };
  assert.equal(wasm.load_policy(write(JSON.stringify(stranger))), -1);
  assert.equal(output(), "routes[0].issuers: https://third.example is not ISSUER_URL, nor in TRUSTED_ISSUERS");
  // What is in force stays.
  assert.equal(wasm.route(3, write("GET/x")), 0);
  // Other issuers' audiences are theirs to be asked for.
  const partners = { version: 1, routes: [{ path: "/", issuers: ["https://partner.example"], audience: "https://partners.example" }] };
  assert.equal(wasm.load_policy(write(JSON.stringify(partners))), 1);
});
