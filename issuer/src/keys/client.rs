//! Public keys that clients register.

use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use countersign_shared::{Jwk, JwkError, PublicKey};
use serde_json::{Map, Value};

use super::public::kid_of;

/// The members of a JWK that make it a private or symmetric one (RFC 7518 §6).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Reads a client's public key. `alg` may be left out where the kind of key says it (P-256, Ed25519), `kid` everywhere: it is the RFC 7638
/// thumbprint then. The error says what is wrong with it.
pub fn client_jwk(mut jwk: Map<String, Value>) -> Result<Jwk, String> {
    if PRIVATE.iter().any(|member| jwk.contains_key(*member)) {
        return Err("has private or symmetric key material: it is known here now, so make a new key pair, keep its private part to \
                    yourself and send the public members only"
            .to_owned());
    }
    if !jwk.contains_key("alg") {
        let algorithm = match jwk.get("crv").and_then(Value::as_str) {
            Some("P-256") => "ES256",
            Some("Ed25519") => "EdDSA",
            _ => return Err("must have alg: RS256, PS256, ES256 or EdDSA".to_owned()),
        };
        jwk.insert("alg".to_owned(), algorithm.into());
    }
    let named = jwk.contains_key("kid");
    if !named {
        jwk.insert("kid".to_owned(), "-".into()); // the thumbprint's place
    }
    let key = parse(&jwk)?;
    if named {
        return Ok(key);
    }
    jwk.insert("kid".to_owned(), kid_of(&key).into());
    parse(&jwk)
}

fn parse(jwk: &Map<String, Value>) -> Result<Jwk, String> {
    let text = serde_json::to_vec(jwk).map_err(|error| error.to_string())?;
    let key = Jwk::parse(&text).map_err(|error| problem(error).to_owned())?;
    // That a point is on P-256 the core has seen; whether there is one of Ed25519 takes a library that knows the curve.
    match key.public() {
        PublicKey::Ed25519 { x } if ParsedPublicKey::new(&ED25519, x).is_err() => {
            Err(problem(JwkError::Point).to_owned())
        }
        _ => Ok(key),
    }
}

/// What is wrong with a key, as the end of a sentence.
pub(super) const fn problem(error: JwkError) -> &'static str {
    match error {
        JwkError::TooLarge | JwkError::Malformed | JwkError::DuplicateKid => {
            "is not a well-formed JWK (RFC 7517)"
        }
        JwkError::PrivateMaterial => "has private or symmetric key material",
        JwkError::Kid => "has a kid that is empty or over 128 bytes",
        JwkError::WrongType => "has a kty or crv that doesn't go with its alg",
        JwkError::Size => {
            "has an RSA modulus that isn't of 2048 to 4096 bits, or a coordinate that isn't of 32 bytes"
        }
        JwkError::Point => "has a point that doesn't lie on its curve, or one of small order",
        JwkError::Exponent => "has an RSA exponent other than 65537",
        JwkError::Empty => "is not for signatures with RS256, PS256, ES256 or EdDSA (alg, use, key_ops)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(jwk: Value) -> Result<Jwk, String> {
        let Value::Object(jwk) = jwk else { panic!("{jwk}") };
        client_jwk(jwk)
    }

    #[test]
    fn fills_in_what_is_clear() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"; // RFC 8037 §A.2
        let key = read(json!({"kty": "OKP", "crv": "Ed25519", "x": x})).unwrap();
        assert_eq!(key.algorithm().as_str(), "EdDSA");
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "RFC 8037 §A.3");
        let key = read(json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "mine", "use": "sig"})).unwrap();
        assert_eq!(key.kid(), "mine");
    }

    #[test]
    fn refuses_what_is_no_public_signature_key() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        for (jwk, problem) in [
            (json!({"kty": "OKP", "crv": "Ed25519", "x": x, "d": "AA"}), "private"),
            (json!({"kty": "oct", "k": "AA", "alg": "HS256"}), "private"),
            (json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}), "must have alg"),
            (json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": "RS256"}), "2048"),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": x, "use": "enc"}), "not for signatures"),
            (json!({"kty": "EC", "crv": "P-256", "x": x, "y": x}), "lie on its curve"),
            (json!({"kty": "EC", "crv": "Ed25519", "x": x}), "go with its alg"),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": ""}), "kid"),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": 1}), "well-formed"),
        ] {
            let refused = read(jwk.clone()).unwrap_err();
            assert!(refused.contains(problem), "{jwk}: {refused}");
        }
    }
}
