// wrangler gives a .wasm import as a compiled module.
declare module "*.wasm" {
  const module: WebAssembly.Module;
  export default module;
}

// What is used of Node's crypto, which workerd has (nodejs_compat). Node's own types don't go with those of Workers.
declare module "node:crypto" {
  export interface KeyObject {
    readonly type: "public";
  }
  export function createPublicKey(input: { readonly key: JsonWebKey; readonly format: "jwk" }): KeyObject;
  /** `algorithm`: the digest; null where the key's kind has its own (Ed25519). */
  export function verify(algorithm: string | null, data: Uint8Array, key: KeyObject, signature: Uint8Array): boolean;
}
