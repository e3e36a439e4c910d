//! The issuer's signature primitive for the verification core.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use countersign_shared::{Algorithm, Jwk, PublicKey, Signature};

/// Checks `signature` over `input` with `key`, by the key's own algorithm.
pub fn check_signature(key: &Jwk, input: &[u8], signature: &[u8]) -> Signature {
    let rsa = |parameters: &RsaParameters, n: &[u8], e: &[u8]| {
        RsaPublicKeyComponents { n, e }.verify(parameters, input, signature)
    };
    let outcome = match (key.algorithm(), key.public()) {
        (Algorithm::Rs256, PublicKey::Rsa { n, e }) => rsa(&RSA_PKCS1_2048_8192_SHA256, n, e),
        (Algorithm::Ps256, PublicKey::Rsa { n, e }) => rsa(&RSA_PSS_2048_8192_SHA256, n, e),
        (Algorithm::Es256, PublicKey::P256 { x, y }) => {
            let point = [&[4], x.as_slice(), y].concat(); // uncompressed (SEC 1 §2.3.3)
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(input, signature)
        }
        (Algorithm::EdDsa, PublicKey::Ed25519 { x }) => {
            UnparsedPublicKey::new(&ED25519, x).verify(input, signature)
        }
        _ => return Signature::Invalid,
    };
    if outcome.is_ok() { Signature::Valid } else { Signature::Invalid }
}
