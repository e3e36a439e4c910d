//! New key pairs.

use countersign_shared::{Algorithm, base64url};
use ed25519_dalek::SigningKey as Ed25519Key;
use rsa::pkcs8::{EncodePrivateKey, SecretDocument};
use rsa::rand_core::OsRng;
use rsa::traits::PublicKeyParts as _;
use rsa::{RsaPrivateKey, RsaPublicKey};
use zeroize::Zeroizing;

use super::KeyError;
use super::public::{ed25519_jwk, p256_jwk, rsa_jwk};

/// A key pair on its way into the database.
pub(super) struct Generated {
    /// PKCS#8 DER.
    pub(super) private: Zeroizing<Vec<u8>>,
    /// RFC 7638 thumbprint.
    pub(super) kid: String,
    /// How it signs.
    pub(super) algorithm: Algorithm,
    /// The public members, as JSON.
    pub(super) public_jwk: String,
    /// Whether it comes from elsewhere.
    pub(super) imported: bool,
}

/// A new key for `algorithm`; `rsa_bits` is the size of its modulus where that is RSA. That can take seconds, so it is done beside the async threads.
pub(super) async fn generate(algorithm: Algorithm, rsa_bits: u32) -> Result<Generated, KeyError> {
    let work = tokio::task::spawn_blocking(move || match algorithm {
        Algorithm::Rs256 | Algorithm::Ps256 => rsa(algorithm, rsa_bits),
        Algorithm::Es256 => p256(),
        Algorithm::EdDsa => ed25519(),
    });
    work.await.map_err(|_| KeyError::Unusable("key generation was interrupted".into()))?
}

/// With the exponent 65537.
fn rsa(algorithm: Algorithm, bits: u32) -> Result<Generated, KeyError> {
    let private = RsaPrivateKey::new(&mut OsRng, bits as usize).map_err(|error| failed(algorithm, &error))?;
    let public = RsaPublicKey::from(&private);
    let (n, e) = (public.n().to_bytes_be(), public.e().to_bytes_be());
    let (kid, public_jwk) = rsa_jwk(algorithm.as_str(), &base64url::encode(&n), &base64url::encode(&e));
    Ok(Generated {
        private: pkcs8(algorithm, &private)?.to_bytes(),
        kid,
        algorithm,
        public_jwk,
        imported: false,
    })
}

fn p256() -> Result<Generated, KeyError> {
    let algorithm = Algorithm::Es256;
    let private = p256::SecretKey::random(&mut OsRng);
    let point = p256::EncodedPoint::from(private.public_key());
    let coordinates = point.x().zip(point.y()).ok_or_else(|| failed(algorithm, &"it has no coordinates"))?;
    let (kid, public_jwk) = p256_jwk(&base64url::encode(coordinates.0), &base64url::encode(coordinates.1));
    Ok(Generated {
        private: pkcs8(algorithm, &private)?.to_bytes(),
        kid,
        algorithm,
        public_jwk,
        imported: false,
    })
}

/// RFC 8032 §5.1.5.
fn ed25519() -> Result<Generated, KeyError> {
    let algorithm = Algorithm::EdDsa;
    let private = Ed25519Key::generate(&mut OsRng);
    let (kid, public_jwk) = ed25519_jwk(&base64url::encode(private.verifying_key().as_bytes()));
    Ok(Generated {
        private: pkcs8(algorithm, &private)?.to_bytes(),
        kid,
        algorithm,
        public_jwk,
        imported: false,
    })
}

fn pkcs8(algorithm: Algorithm, private: &impl EncodePrivateKey) -> Result<SecretDocument, KeyError> {
    private.to_pkcs8_der().map_err(|error| failed(algorithm, &error))
}

fn failed(algorithm: Algorithm, error: &dyn std::fmt::Display) -> KeyError {
    KeyError::Unusable(format!("no {} key could be made: {error}", algorithm.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{SigningKey, check_signature};
    use countersign_shared::{Jwk, Signature};

    /// What the one library made the other signs with, and what it signed holds.
    #[tokio::test]
    async fn every_algorithm_s_keys_sign() {
        for (algorithm, bits) in
            [(Algorithm::Rs256, 2048), (Algorithm::Ps256, 3072), (Algorithm::Es256, 0), (Algorithm::EdDsa, 0)]
        {
            let made = generate(algorithm, bits).await.unwrap();
            let jwk = Jwk::parse(made.public_jwk.as_bytes()).unwrap();
            assert_eq!((jwk.kid(), jwk.algorithm()), (&*made.kid, algorithm));
            let key = SigningKey::from_pkcs8(&made.kid, algorithm, &made.private).unwrap();
            let jws = key.sign("JWT", b"{}").unwrap();
            let (input, signature) = jws.rsplit_once('.').unwrap();
            let signature = base64url::decode(signature.as_bytes()).unwrap();
            assert_eq!(
                check_signature(&jwk, input.as_bytes(), &signature),
                Signature::Valid,
                "{algorithm:?}"
            );
        }
    }
}
