// Where a request has its token, and that no way of writing a URL makes it costly to look.

import assert from "node:assert/strict";
import { test } from "node:test";

import { bearerToken } from "../../entry/bearer.ts";

const headers = new Headers({ authorization: "Bearer abc" });
const tokenIn = (query) => {
  const found = bearerToken({ url: `https://api.example/reports${query}`, headers });
  return typeof found === "string" ? found : found.status;
};

test("a token in the query is refused, however its name is written", () => {
  for (const query of ["?access_token=x", "?access_token", "?a=b&access_token=x", "?access%5Ftoken=x", "?a&%61ccess_token=x", "?a=?&acces%73_token=x", "?a=%&%61%63cess_token=x", "?&&%61ccess_token"]) {
    assert.equal(tokenIn(query), 400, query);
  }
  // Another name, as every server reads it.
  for (const query of ["", "?", "?x=access_token", "?a=b?access%5Ftoken=x", "?my%5Faccess_token=x", "?ACCESS_TOKEN=x", "?a=%61ccess_token"]) assert.equal(tokenIn(query), "abc", query);
});

test("looking takes time in proportion to the URL", () => {
  // By the square of it this would be half a minute.
  for (const query of ["?".repeat(200_000), "&?".repeat(100_000), "?&".repeat(100_000), `?${"%".repeat(200_000)}`, `?${"a".repeat(200_000)}`]) {
    const start = performance.now();
    assert.equal(tokenIn(query), "abc");
    const took = performance.now() - start;
    assert.ok(took < 2_000, `${query.slice(0, 3)}…: ${took.toFixed(0)} ms`);
  }
});
