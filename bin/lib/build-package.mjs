// Builds the npm package of the verifier, from the sources of the edge:
//
//   node bin/lib/build-package.mjs           edge-verifier/build/package/, as it is published
//   node bin/lib/build-package.mjs --pack    and edge-verifier/build/countersign-verifier-VERSION.tgz

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

import { buildEdge } from "./build-edge.mjs";
import { modernNode, nodeEnv } from "./npm.mjs";
import { line, printFailure } from "./output.mjs";
import { edgeBuildDir, root, shown, toolsDir } from "./paths.mjs";
import { run } from "./processes.mjs";

const source = path.join(root, "edge-verifier", "package");
const out = path.join(edgeBuildDir, "package");

/** Builds it, of the edge's modules as they were built last. @returns {Promise<string>} the folder */
export async function buildPackage() {
  fs.rmSync(out, { recursive: true, force: true });
  fs.mkdirSync(out, { recursive: true });
  for (const name of ["package.json", "README.md"]) fs.copyFileSync(path.join(source, name), path.join(out, name));
  fs.copyFileSync(path.join(root, "LICENSE"), path.join(out, "LICENSE"));
  fs.copyFileSync(path.join(edgeBuildDir, "verifier", "countersign_edge_verifier_bg.wasm"), path.join(out, "verifier.wasm"));
  await scripts();
  await types();
  return out;
}

async function scripts() {
  const esbuild = await import("esbuild");
  await esbuild.build({
    entryPoints: Object.fromEntries(["node", "worker", "hono"].map((name) => [name, path.join(source, "src", `${name}.ts`)])),
    outdir: out,
    bundle: true,
    splitting: true,
    chunkNames: "[name]-[hash]",
    format: "esm",
    // What Node 20 and workerd both have.
    target: "es2022",
    external: ["cloudflare:*", "node:*"],
    logLevel: "error",
    // Whoever uses the package has it compiled by their own bundler, or by wrangler.
    plugins: [
      {
        name: "wasm",
        setup: (build) => build.onResolve({ filter: /\.wasm$/ }, () => ({ path: "./verifier.wasm", external: true })),
      },
    ],
  });
}

/** Declarations, of what the public ones name. */
async function types() {
  const folder = path.join(out, "types");
  const config = path.join(out, "tsconfig.json");
  const compilerOptions = { noEmit: false, declaration: true, emitDeclarationOnly: true, rootDir: "../..", outDir: "types", typeRoots: [path.join(root, "node_modules", "@types")] };
  fs.writeFileSync(config, JSON.stringify({
    extends: path.join(root, "tsconfig.json"),
    compilerOptions: { ...compilerOptions, types: [path.join(root, "node_modules", "@cloudflare", "workers-types")] },
    include: [],
    files: ["node.ts", "hono.ts", "modules.d.ts"].map((name) => path.join(source, "src", name)).concat(path.join(root, "edge-verifier", "entry", "modules.d.ts")),
  }));
  const tsc = path.join(root, "node_modules", "typescript", "bin", "tsc");
  await run(modernNode(), [tsc, "--project", config], { log: path.join(toolsDir, "build-package.log"), failure: "the package's types can't be made" });
  fs.rmSync(config);
  const all = /** @type {string[]} */ (fs.readdirSync(folder, { recursive: true })).filter((name) => name.endsWith(".d.ts"));
  const imports = (text) => [...text.matchAll(/(?<=(?:from|import\()\s*")(\.[^"]*)\.ts(?=")/g)].map(([, name]) => `${name}.d.ts`);
  const needed = new Set();
  const visit = (name) => {
    if (needed.has(name)) return;
    needed.add(name);
    for (const other of imports(fs.readFileSync(path.join(folder, name), "utf8"))) visit(path.join(path.dirname(name), other));
  };
  for (const entry of ["node", "hono"]) visit(path.join("package", "src", `${entry}.d.ts`));
  for (const name of all) {
    const file = path.join(folder, name);
    if (!needed.has(name)) fs.rmSync(file);
    // Sources are imported by their own names here; there, the files are JavaScript's declarations.
    else fs.writeFileSync(file, fs.readFileSync(file, "utf8").replaceAll(/((?:from|import\()\s*"\.[^"]*)\.ts(?=")/g, "$1.js"));
  }
}

/** Packs what `buildPackage` made. @returns {Promise<string>} the file */
export async function packPackage() {
  const { stdout } = await run("npm", ["pack", "--json", "--pack-destination", edgeBuildDir], {
    cwd: out, env: nodeEnv(), log: path.join(toolsDir, "npm-pack.log"), failure: "npm couldn't pack the package",
  });
  const packed = JSON.parse(stdout.slice(stdout.search(/^[[{]/m)));
  const { filename } = Array.isArray(packed) ? packed[0] : Object.values(packed)[0];
  return path.join(edgeBuildDir, filename);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  try {
    const started = Date.now();
    await buildEdge();
    line("ok", "package", shown(await buildPackage()), Date.now() - started);
    if (process.argv.includes("--pack")) line("ok", "packed", shown(await packPackage()), Date.now() - started);
  } catch (error) {
    printFailure(error);
    process.exitCode = 1;
  }
}
