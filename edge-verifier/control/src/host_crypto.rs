//! The host's signature primitive. What is signed and by whom is `countersign-shared`'s business.

use countersign_shared::{Jwk, PublicKey};
use js_sys::{Array, Uint8Array};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = ["crypto", "subtle"], js_name = importKey, catch)]
    async fn import_key(
        format: &str,
        key: &Uint8Array,
        algorithm: &str,
        extractable: bool,
        usages: &Array,
    ) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(js_namespace = ["crypto", "subtle"], js_name = verify, catch)]
    async fn subtle_verify(
        algorithm: &str,
        key: &JsValue,
        signature: &Uint8Array,
        data: &Uint8Array,
    ) -> Result<JsValue, JsValue>;
}

/// Whether `signature` is `key`'s over `data`. Heads are signed with Ed25519 only: any other key says no.
pub(crate) async fn verify_ed25519(key: &Jwk, signature: &[u8], data: &[u8]) -> bool {
    let PublicKey::Ed25519 { x } = key.public() else { return false };
    let verified = async {
        let key =
            import_key("raw", &Uint8Array::from(&x[..]), "Ed25519", false, &Array::of1(&"verify".into()))
                .await?;
        subtle_verify("Ed25519", &key, &Uint8Array::from(signature), &Uint8Array::from(data)).await
    };
    verified.await.is_ok_and(|verdict: JsValue| verdict.is_truthy())
}
