//! Making signatures with aws-lc-rs: constant time, unlike the `rsa` crate's private-key operations (RUSTSEC-2023-0071), which are
//! not used.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use countersign_shared::Algorithm;
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc;

use super::KeyError;
use super::queue::SigningQueue;

/// A private key and what its signatures say about themselves.
pub struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    private: Private,
}

/// jsonwebtoken's backend parses a key anew for every signature and throws away what aws-lc precomputes: with RSA of 2048 bits 1.29 ms against
/// 0.26 ms with a key pair that is held. So key pairs are held here.
enum Private {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// From PKCS#8 DER.
    pub fn from_pkcs8(kid: &str, algorithm: Algorithm, der: &[u8]) -> Result<Self, KeyError> {
        let unusable =
            || KeyError::Unusable(format!("signing key {kid} opens, but is not a key of its algorithm"));
        let rsa = || RsaKeyPair::from_pkcs8(der);
        let p256 = || EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der);
        let private = match algorithm {
            Algorithm::Rs256 => rsa().map(|pair| Private::Rsa(pair, &RSA_PKCS1_SHA256)),
            Algorithm::Ps256 => rsa().map(|pair| Private::Rsa(pair, &RSA_PSS_SHA256)),
            Algorithm::Es256 => p256().map(Private::P256),
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8(der).map(Private::Ed25519),
        };
        let key = Self { kid: kid.to_owned(), algorithm, private: private.map_err(|_| unusable())? };
        // Better now than at the first request.
        if key.sign("JWT", b"{}").is_ok_and(|jws| key.holds(&jws)) { Ok(key) } else { Err(unusable()) }
    }

    /// Whether a signature of this key's holds, as jsonwebtoken sees it: it knows nothing of how it was made.
    fn holds(&self, jws: &str) -> bool {
        // Several backends may be compiled in: say which, else verifying would panic. Once is enough.
        _ = aws_lc::DEFAULT_PROVIDER.install_default();
        let Some((input, signature)) = jws.rsplit_once('.') else { return false };
        let (key, algorithm) = match (&self.private, self.algorithm) {
            (Private::Rsa(pair, _), algorithm) => {
                let public = pair.public_key();
                let [modulus, exponent] = [public.modulus(), public.exponent()]
                    .map(|number| number.big_endian_without_leading_zero().to_vec());
                let algorithm = match algorithm {
                    Algorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
                    _ => jsonwebtoken::Algorithm::RS256,
                };
                (DecodingKey::from_rsa_raw_components(&modulus, &exponent), algorithm)
            }
            (Private::P256(pair), _) => {
                (DecodingKey::from_ec_der(pair.public_key().as_ref()), jsonwebtoken::Algorithm::ES256)
            }
            (Private::Ed25519(pair), _) => {
                (DecodingKey::from_ed_der(pair.public_key().as_ref()), jsonwebtoken::Algorithm::EdDSA)
            }
        };
        jsonwebtoken::crypto::verify(signature, input.as_bytes(), &key, algorithm).unwrap_or(false)
    }

    /// The key's id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The JWS compact serialization (RFC 7515 §3.1) of `payload`. `typ` is free of quotes and backslashes.
    pub fn sign(&self, typ: &str, payload: &[u8]) -> Result<String, SignError> {
        let header = format!(r#"{{"alg":"{}","kid":"{}","typ":"{typ}"}}"#, self.algorithm.as_str(), self.kid);
        let encoded = |bytes: usize| BASE64URL_NOPAD.encode_len(bytes);
        let length =
            encoded(header.len()) + encoded(payload.len()) + encoded(self.private.signature_bytes()) + 2;
        let mut jws = String::with_capacity(length);
        BASE64URL_NOPAD.encode_append(header.as_bytes(), &mut jws);
        jws.push('.');
        BASE64URL_NOPAD.encode_append(payload, &mut jws);
        let failed = |_| SignError::Failed;
        match &self.private {
            Private::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &SystemRandom::new(), jws.as_bytes(), &mut signature).map_err(failed)?;
                append(&mut jws, &signature);
            }
            Private::P256(pair) => {
                let signature = pair.sign(&SystemRandom::new(), jws.as_bytes()).map_err(failed)?;
                append(&mut jws, signature.as_ref());
            }
            Private::Ed25519(pair) => {
                let signature = pair.try_sign(jws.as_bytes()).map_err(failed)?;
                append(&mut jws, signature.as_ref());
            }
        }
        Ok(jws)
    }

    /// Whether a signature takes long enough to hold up other requests on an async thread: RSA a quarter of a
    /// millisecond, the others 20 to 60 µs.
    const fn is_slow(&self) -> bool {
        matches!(self.private, Private::Rsa(..))
    }
}

impl Private {
    fn signature_bytes(&self) -> usize {
        match self {
            Self::Rsa(pair, _) => pair.public_modulus_len(),
            Self::P256(_) | Self::Ed25519(_) => 64,
        }
    }
}

fn append(jws: &mut String, signature: &[u8]) {
    jws.push('.');
    BASE64URL_NOPAD.encode_append(signature, jws);
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Why something isn't signed.
#[derive(Debug)]
pub enum SignError {
    /// The key was checked when it was loaded, so this is a fault of ours.
    Failed,
    /// No key signs at this moment.
    NoKey,
    /// Which key it is to be isn't known for sure.
    Keys(KeyError),
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str("signing failed"),
            Self::NoKey => f.write_str("no key signs at this moment"),
            Self::Keys(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SignError {}

/// A signing key for async callers: slow signatures are made elsewhere ([`SigningQueue`]).
#[derive(Clone)]
pub struct Signer {
    key: Arc<SigningKey>,
    queue: Arc<SigningQueue>,
}

impl Signer {
    pub(super) fn new(key: SigningKey, queue: Arc<SigningQueue>) -> Self {
        Self { key: Arc::new(key), queue }
    }

    /// The key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// As [`SigningKey::sign`].
    pub async fn sign(&self, typ: &'static str, payload: Vec<u8>) -> Result<String, SignError> {
        if self.key.is_slow() {
            self.queue.sign(Arc::clone(&self.key), typ, payload).await
        } else {
            self.key.sign(typ, &payload)
        }
    }
}

/// No tests: measurements, which `cargo test` leaves out.
#[cfg(all(test, feature = "measurements"))]
mod measurements {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::keys::generate::generate;

    const KINDS: [(Algorithm, u32); 8] = [
        (Algorithm::Rs256, 2048),
        (Algorithm::Rs256, 3072),
        (Algorithm::Rs256, 4096),
        (Algorithm::Ps256, 2048),
        (Algorithm::Ps256, 3072),
        (Algorithm::Ps256, 4096),
        (Algorithm::Es256, 0),
        (Algorithm::EdDsa, 0),
    ];

    fn quartiles(mut times: Vec<Duration>) -> [Duration; 3] {
        times.sort_unstable();
        [1, 2, 3].map(|quarter| times[times.len() * quarter / 4])
    }

    /// Where the line lies between signing here and signing on a blocking thread: the table in `docs/design.md`.
    /// `cargo test -p countersign-issuer --release --features measurements --lib what_a_signature_takes -- --nocapture`
    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_signature_takes() {
        let mut hops = Vec::new();
        for _ in 0..2000 {
            let began = Instant::now();
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            hops.push(began.elapsed());
        }
        println!("to a blocking thread and back: {:?}", quartiles(hops));
        let claims = vec![b'a'; 500];
        for (algorithm, bits) in KINDS {
            let made = generate(algorithm, bits).await.unwrap();
            let key = SigningKey::from_pkcs8(&made.kid, algorithm, &made.private).unwrap();
            let times = (0..1000).map(|_| {
                let began = Instant::now();
                key.sign("at+jwt", &claims).unwrap();
                began.elapsed()
            });
            println!(
                "{} {bits}: {:?}, slow: {}",
                algorithm.as_str(),
                quartiles(times.collect()),
                key.is_slow()
            );
        }
    }
}
