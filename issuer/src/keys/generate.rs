//! New key pairs.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use countersign_shared::base64url;
use rsa::pkcs8::EncodePrivateKey as _;
use rsa::rand_core::OsRng;
use rsa::traits::PublicKeyParts as _;
use rsa::{RsaPrivateKey, RsaPublicKey};
use zeroize::Zeroizing;

use super::KeyError;
use super::public::{ed25519_jwk, rsa_jwk};

/// A key pair on its way into the database.
pub(super) struct Generated {
    /// PKCS#8 DER.
    pub(super) private: Zeroizing<Vec<u8>>,
    /// RFC 7638 thumbprint.
    pub(super) kid: String,
    /// The public members, as JSON.
    pub(super) public_jwk: String,
}

/// An RSA key of 2048 bits, exponent 65537. Takes a second or so: not for an async thread.
pub(super) fn rsa_2048() -> Result<Generated, KeyError> {
    let failed =
        |error: &dyn std::fmt::Display| KeyError::Unusable(format!("no RSA key could be made: {error}"));
    let private = RsaPrivateKey::new(&mut OsRng, 2048).map_err(|error| failed(&error))?;
    let public = RsaPublicKey::from(&private);
    let der = private.to_pkcs8_der().map_err(|error| failed(&error))?;
    let (n, e) = (public.n().to_bytes_be(), public.e().to_bytes_be());
    let (kid, public_jwk) = rsa_jwk("RS256", &base64url::encode(&n), &base64url::encode(&e));
    Ok(Generated { private: der.to_bytes(), kid, public_jwk })
}

/// An Ed25519 key (RFC 8032).
pub(super) fn ed25519() -> Result<Generated, KeyError> {
    let failed = || KeyError::Unusable("no Ed25519 key could be made".into());
    let pair = Ed25519KeyPair::generate().map_err(|_| failed())?;
    let der = pair.to_pkcs8().map_err(|_| failed())?;
    let (kid, public_jwk) = ed25519_jwk(&base64url::encode(pair.public_key().as_ref()));
    Ok(Generated { private: Zeroizing::new(der.as_ref().to_vec()), kid, public_jwk })
}
