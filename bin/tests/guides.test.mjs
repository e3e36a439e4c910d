// Every guide with commands, run as it stands.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";

import { runGuide } from "../lib/guide.mjs";
import { root } from "../lib/paths.mjs";
import { startSystem } from "../lib/testing.mjs";

const folder = path.join(root, "docs", "guides");
let system;
before(async () => {
  system = await startSystem();
});
after(() => system?.stop());

/** Those that run have shell commands; the others say what to put where. */
const guides = fs.readdirSync(folder).map((name) => ({ name, text: fs.readFileSync(path.join(folder, name), "utf8") })).filter(({ text }) => /^```sh$/m.test(text));

test("there are guides that run", () => assert.ok(guides.length > 0));

for (const { name, text } of guides) {
  test(`docs/guides/${name} prints what it says`, async () => {
    const { recorded, printed } = await runGuide(text, system);
    assert.ok(recorded.length > 5, "blocks were found");
    assert.deepEqual(printed, recorded, `to record it anew: node bin/lib/guide.mjs docs/guides/${name}`);
  });
}
