// Guides that run: a Markdown file's `sh` blocks, one after the other in one shell, and what each printed in the `text` block after it.
//
//   node bin/lib/guide.mjs FILE…    runs them against a system of their own and writes what they print into the files

import { spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { issuerEnv, issuerProgram } from "./issuer.mjs";
import { startSystem } from "./testing.mjs";

/** One `sh` block and the `text` block after it, if there is one. */
const BLOCK = /^```sh\n([\s\S]*?)^```\n(?:\n```text\n([\s\S]*?)^```\n)?/gm;

/**
 * Runs a guide's blocks.
 * @param {string} markdown
 * @param {Awaited<ReturnType<typeof startSystem>>} system
 * @returns {Promise<{recorded: string[], printed: string[], markdown: string}>} for each block what the file says and what it printed, both without
 *   what differs from run to run; `markdown`: the file with what they printed
 */
export async function runGuide(markdown, system) {
  const blocks = [...markdown.matchAll(BLOCK)].map(([, commands, output = ""]) => ({ commands, output }));
  const variables = { ADMIN_CLIENT_ID: system.admin.clientId, ADMIN_CLIENT_SECRET: system.admin.clientSecret };
  const outputs = (await inOneShell(blocks.map(({ commands }) => commands), system, variables)).map(replaceable());
  let place = 0;
  const written = markdown.replaceAll(BLOCK, (_, commands) => {
    const output = outputs[place++];
    return `\`\`\`sh\n${commands}\`\`\`\n${output ? `\n\`\`\`text\n${output}\`\`\`\n` : ""}`;
  });
  return { recorded: blocks.map(({ output }) => output), printed: outputs, markdown: written };
}

/** A block with its fence: what comes after the backticks, and what is in it. */
const FENCED = /^```([^\n]*)\n([\s\S]*?)^```$/gm;

/** What a reader would have to replace before it runs: an ellipsis, `<name>`, `YOUR_…`. */
const PLACEHOLDER = /…|<[a-z][a-z _-]*>|\b(?:YOUR|THE|MY|SOME)_[A-Z]/;

/**
 * A page's commands: those of its `sh` blocks run anywhere, those of its `sh cloud` blocks need a Cloudflare account.
 * @param {string} markdown
 * @returns {{blocks: string[], commands: number, cloud: number}}
 * @throws where a command has a placeholder, or hides in a block of another name
 */
export function pageCommands(markdown) {
  const page = { blocks: /** @type {string[]} */ ([]), commands: 0, cloud: 0 };
  for (const [, kind, text] of markdown.matchAll(FENCED)) {
    if (["bash", "shell", "console", ""].includes(kind)) throw new Error(`a block of commands is called "${kind}", so nobody runs it:\n${text}`);
    if (kind !== "sh" && kind !== "sh cloud") continue;
    const placeholder = PLACEHOLDER.exec(text);
    if (placeholder) throw new Error(`a command has the placeholder ${placeholder[0]}:\n${text}`);
    const commands = text.replaceAll("\\\n", " ").split("\n").filter((row) => /^[^\s#]/.test(row) && !/^(?:done|fi|esac|}|\))/.test(row)).length;
    if (kind === "sh") page.blocks.push(text);
    page[kind === "sh" ? "commands" : "cloud"] += commands;
  }
  return page;
}

/**
 * Runs a page's `sh` blocks, one after the other in one shell; a command that fails ends it.
 * @param {string} markdown
 * @param {Awaited<ReturnType<typeof startSystem>>} system
 * @param {Record<string, string>} variables what the page's commands find in the environment, beside the issuer's settings
 * @returns {Promise<{commands: number, cloud: number}>} how many ran, and how many are left to those with an account
 * @throws the block that failed and what it printed
 */
export async function runPage(markdown, system, variables) {
  const { blocks, commands, cloud } = pageCommands(markdown);
  if (blocks.length > 0) await inOneShell(blocks, system, variables);
  return { commands, cloud };
}

async function inOneShell(blocks, system, variables) {
  const folder = path.join(system.dir, "guide");
  fs.mkdirSync(folder, { recursive: true });
  const mark = `--- ${crypto.randomUUID()} ---`;
  const script = blocks.map((commands) => `${commands}\necho '${mark}'\n`).join("");
  const { settings } = system.issuer;
  const child = spawn("bash", ["-e", "-o", "pipefail", "-s"], {
    cwd: folder,
    env: {
      ...issuerEnv(settings),
      PATH: `${path.dirname(await issuerProgram(settings.profile))}:${process.env.PATH}`,
      ISSUER: system.issuer.url, EDGE: system.edge.url, ...variables,
    },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (text += data));
  child.stdin.end(script);
  const status = await new Promise((resolve) => child.once("close", resolve));
  const outputs = text.split(`${mark}\n`);
  if (status !== 0) throw new Error(`block ${outputs.length} of the guide failed:\n${blocks[outputs.length - 1]}\nprinted:\n${outputs.at(-1)}`);
  return outputs.slice(0, -1);
}

/** Replaces what differs from run to run; the same id by the same stand-in throughout. */
function replaceable() {
  const ids = new Map();
  const standIn = (id) => {
    if (!ids.has(id)) ids.set(id, `${String(ids.size + 1).padStart(8, "0")}-0000-4000-8000-000000000000`);
    return ids.get(id);
  };
  return (text) =>
    text
      .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, standIn)
      .replaceAll(/eyJ[\w-]+\.[\w-]+\.[\w-]+/g, "eyJ…")
      .replaceAll(/csk_\w+/g, "csk_…")
      .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, "2026-11-21T12:00:00Z")
      .replaceAll(/\b1[789]\d{8}\b/g, "1795262400")
      .replaceAll(/127\.0\.0\.1:\d+/g, "127.0.0.1:3000")
      .replaceAll(/\b\d{3,4} characters/g, "823 characters");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const system = await startSystem();
  try {
    for (const file of process.argv.slice(2)) {
      const { markdown } = await runGuide(fs.readFileSync(file, "utf8"), system);
      fs.writeFileSync(file, markdown);
      console.log(`written: ${file}`);
    }
  } finally {
    await system.stop();
  }
}
