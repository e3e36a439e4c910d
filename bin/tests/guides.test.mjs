// Every guide, run as it stands.

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

for (const name of fs.readdirSync(folder).filter((file) => file.endsWith(".md"))) {
  test(`docs/guides/${name} prints what it says`, async () => {
    const { recorded, printed } = await runGuide(fs.readFileSync(path.join(folder, name), "utf8"), system);
    assert.ok(recorded.length > 5, "blocks were found");
    assert.deepEqual(printed, recorded, `to record it anew: node bin/lib/guide.mjs docs/guides/${name}`);
  });
}
