//! Public keys as others see them.

use aws_lc_rs::digest::{SHA256, digest};
use countersign_shared::{Jwk, KeySet, PublicKey, base64url};

use super::KeyError;

/// The SHA-256 thumbprint of a key (RFC 7638); `required` are its required members, in lexicographic order, without white space.
pub fn thumbprint(required: &str) -> String {
    base64url::encode(digest(&SHA256, required.as_bytes()).as_ref())
}

/// The kid that a key must have: its thumbprint.
pub(super) fn kid_of(key: &Jwk) -> String {
    let encode = base64url::encode;
    match key.public() {
        PublicKey::Rsa { n, e } => {
            thumbprint(&format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(e), encode(n)))
        }
        PublicKey::P256 { x, y } => {
            thumbprint(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, encode(x), encode(y)))
        }
        PublicKey::Ed25519 { x } => {
            thumbprint(&format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(x)))
        }
    }
}

/// kid and JWK of an RSA key; `n` and `e` in base64url.
pub(super) fn rsa_jwk(algorithm: &str, n: &str, e: &str) -> (String, String) {
    let kid = thumbprint(&format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#));
    let jwk = format!(r#"{{"kty":"RSA","use":"sig","alg":"{algorithm}","kid":"{kid}","n":"{n}","e":"{e}"}}"#);
    (kid, jwk)
}

/// kid and JWK of an Ed25519 key (RFC 8037 §2); `x` in base64url.
pub(super) fn ed25519_jwk(x: &str) -> (String, String) {
    let kid = thumbprint(&format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
    let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":"{kid}","x":"{x}"}}"#);
    (kid, jwk)
}

/// kid and JWK of a key on P-256 (RFC 7518 §6.2.1); `x` and `y` in base64url.
pub(super) fn p256_jwk(x: &str, y: &str) -> (String, String) {
    let kid = thumbprint(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#));
    let jwk = format!(
        r#"{{"kty":"EC","crv":"P-256","use":"sig","alg":"ES256","kid":"{kid}","x":"{x}","y":"{y}"}}"#
    );
    (kid, jwk)
}

/// The size of an RSA key's modulus in bits; `None` for other keys.
pub fn rsa_bits(key: &Jwk) -> Option<u32> {
    match key.public() {
        // The first byte isn't zero (countersign-shared, `jwk`).
        PublicKey::Rsa { n, .. } => u32::try_from(n.len())
            .ok()
            .map(|bytes| bytes * 8 - n.first().map_or(0, |first| first.leading_zeros())),
        PublicKey::P256 { .. } | PublicKey::Ed25519 { .. } => None,
    }
}

/// A JWK Set (RFC 7517 §5), as the document and as the keys in it.
pub struct Jwks {
    /// The JSON document.
    pub document: String,
    /// Its strong entity tag, with quotes (RFC 9110 §8.8.3).
    pub etag: String,
    /// What the verification core reads from it: the edge reads the same.
    pub keys: KeySet,
}

impl Jwks {
    pub(super) fn new<'a>(jwks: impl Iterator<Item = &'a str>) -> Result<Self, KeyError> {
        let document = format!(r#"{{"keys":[{}]}}"#, jwks.collect::<Vec<_>>().join(","));
        let keys = KeySet::parse(document.as_bytes())
            .map_err(|error| KeyError::Unusable(format!("the public keys can't be published: {error}")))?;
        let etag = format!("\"{}\"", base64url::encode(&digest(&SHA256, document.as_bytes()).as_ref()[..16]));
        Ok(Self { document, etag, keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7638 §3.1.
    #[test]
    fn the_rfc_s_thumbprint() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs\
                 tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajr\
                 n1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        assert_eq!(rsa_jwk("RS256", n, "AQAB").0, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    /// RFC 8037 §A.3.
    #[test]
    fn the_okp_thumbprint() {
        let (kid, _) = ed25519_jwk("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
