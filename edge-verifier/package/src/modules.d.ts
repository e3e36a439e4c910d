// What is used of Node beside what workerd has. Node's own types don't go with those of Workers.
declare module "node:fs" {
  export function readFileSync(file: URL): Uint8Array;
}

interface ImportMeta {
  readonly url: string;
}
