// Starting WebAssembly modules made with `wasm-bindgen --target bundler`.

/** What wasm-bindgen writes beside a module. */
interface Glue {
  __wbg_set_wasm(exports: WebAssembly.Exports): void;
}

/** A new instance of `module`, which is called `name`. */
export function instantiate<Exports>(name: string, module: WebAssembly.Module, glue: Glue): Exports {
  const instance = new WebAssembly.Instance(module, { [`./${name}_bg.js`]: { ...glue } });
  glue.__wbg_set_wasm(instance.exports);
  (instance.exports["__wbindgen_start"] as (() => void) | undefined)?.();
  return instance.exports as Exports;
}
