//! Clients' own key pairs, and the assertions that they sign (RFC 7523).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use countersign_shared::base64url;
use rsa::pkcs8::EncodePrivateKey as _;
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};

use super::ISSUER;

pub(crate) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A private key, and the name of the algorithm that it is for.
pub(crate) struct Key {
    pub(crate) algorithm: &'static str,
    pub(crate) jwk: Value,
    private: Private,
}

enum Private {
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl Key {
    pub(crate) fn new(algorithm: &'static str) -> Self {
        let encode = |bytes: &[u8]| base64url::encode(bytes);
        let (private, jwk) = match algorithm {
            "RS256" | "PS256" => {
                // Making one takes a second or two; one does for all tests.
                static RSA: OnceLock<rsa::RsaPrivateKey> = OnceLock::new();
                let private =
                    RSA.get_or_init(|| rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap());
                let der = private.to_pkcs8_der().unwrap();
                let pair = RsaKeyPair::from_pkcs8(der.as_bytes()).unwrap();
                let (n, e) = (encode(&private.n().to_bytes_be()), encode(&private.e().to_bytes_be()));
                (Private::Rsa(Box::new(pair)), json!({"kty": "RSA", "alg": algorithm, "n": n, "e": e}))
            }
            "ES256" => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
                let point = pair.public_key().as_ref().to_vec();
                let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
                (Private::P256(Box::new(pair)), json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}))
            }
            "EdDSA" => {
                let pair = Ed25519KeyPair::generate().unwrap();
                let x = encode(pair.public_key().as_ref());
                (Private::Ed25519(Box::new(pair)), json!({"kty": "OKP", "crv": "Ed25519", "x": x}))
            }
            other => panic!("{other}"),
        };
        Self { algorithm, jwk, private }
    }

    fn sign(&self, input: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.private {
            Private::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let encoding: &'static dyn aws_lc_rs::signature::RsaEncoding =
                    if self.algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                pair.sign(encoding, &random, input, &mut signature).unwrap();
                signature
            }
            Private::P256(pair) => pair.sign(&random, input).unwrap().as_ref().to_vec(),
            Private::Ed25519(pair) => pair.sign(input).as_ref().to_vec(),
        }
    }

    /// A JWS of exactly these.
    pub(crate) fn jws(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| base64url::encode(value.to_string().as_bytes());
        let input = format!("{}.{}", encode(header), encode(claims));
        format!("{input}.{}", base64url::encode(&self.sign(input.as_bytes())))
    }

    /// A sound assertion of `client`, new each time.
    pub(crate) fn assertion(&self, client: &str) -> String {
        self.jws(&json!({ "alg": self.algorithm }), &claims(client))
    }
}

/// The claims of a sound assertion, new each time.
pub(crate) fn claims(client: &str) -> Value {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let jti = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    json!({ "iss": client, "sub": client, "aud": ISSUER, "iat": now, "exp": now + 60, "jti": jti })
}
