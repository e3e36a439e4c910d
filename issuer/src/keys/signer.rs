//! Making signatures with aws-lc-rs: constant time, unlike the `rsa` crate's private-key operations (RUSTSEC-2023-0071), which are
//! not used.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use countersign_shared::{Algorithm, base64url};
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::aws_lc;
use tokio::sync::Semaphore;

use super::KeyError;

/// A private key and what its signatures say about themselves.
pub struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    private: Private,
}

/// jsonwebtoken's backend parses an RSA key anew for every signature and throws away what aws-lc precomputes: 1.29 ms for one
/// of 2048 bits, against 0.26 ms with a key pair that is held. So RSA keys are held here.
enum Private {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Other(EncodingKey, jsonwebtoken::Algorithm),
}

impl SigningKey {
    /// From PKCS#8 DER.
    pub fn from_pkcs8(kid: &str, algorithm: Algorithm, der: &[u8]) -> Result<Self, KeyError> {
        let unusable =
            || KeyError::Unusable(format!("signing key {kid} opens, but is not a key of its algorithm"));
        // Several backends may be compiled in: say which, else signing would panic. Once is enough.
        _ = aws_lc::DEFAULT_PROVIDER.install_default();
        let rsa = || RsaKeyPair::from_pkcs8(der).map_err(|_| unusable());
        let private = match algorithm {
            Algorithm::Rs256 => Private::Rsa(rsa()?, &RSA_PKCS1_SHA256),
            Algorithm::Ps256 => Private::Rsa(rsa()?, &RSA_PSS_SHA256),
            Algorithm::Es256 => Private::Other(EncodingKey::from_ec_der(der), jsonwebtoken::Algorithm::ES256),
            Algorithm::EdDsa => Private::Other(EncodingKey::from_ed_der(der), jsonwebtoken::Algorithm::EdDSA),
        };
        let key = Self { kid: kid.to_owned(), algorithm, private };
        key.sign("JWT", b"{}").map_err(|_| unusable())?; // better now than at the first request
        Ok(key)
    }

    /// The key's id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The JWS compact serialization (RFC 7515 §3.1) of `payload`. `typ` is free of quotes and backslashes.
    pub fn sign(&self, typ: &str, payload: &[u8]) -> Result<String, SignError> {
        let header = format!(r#"{{"alg":"{}","kid":"{}","typ":"{typ}"}}"#, self.algorithm.as_str(), self.kid);
        let input = format!("{}.{}", base64url::encode(header.as_bytes()), base64url::encode(payload));
        let signature = match &self.private {
            Private::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &SystemRandom::new(), input.as_bytes(), &mut signature)
                    .map_err(|_| SignError::Failed)?;
                base64url::encode(&signature)
            }
            Private::Other(key, algorithm) => jsonwebtoken::crypto::sign(input.as_bytes(), key, *algorithm)
                .map_err(|_| SignError::Failed)?,
        };
        Ok(format!("{input}.{signature}"))
    }

    /// Whether a signature takes long enough to hold up other requests on an async thread: RSA a quarter of a
    /// millisecond, the others 20 to 60 µs.
    const fn is_slow(&self) -> bool {
        matches!(self.private, Private::Rsa(..))
    }
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

/// A signing key for async callers: slow signatures are made on blocking threads, as many at a time, of all keys together, as `cpus` has permits.
#[derive(Clone)]
pub struct Signer {
    key: Arc<SigningKey>,
    cpus: Arc<Semaphore>,
}

impl Signer {
    pub(super) fn new(key: SigningKey, cpus: Arc<Semaphore>) -> Self {
        Self { key: Arc::new(key), cpus }
    }

    /// The key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// As [`SigningKey::sign`].
    pub async fn sign(&self, typ: &'static str, payload: Vec<u8>) -> Result<String, SignError> {
        if !self.key.is_slow() {
            return self.key.sign(typ, &payload);
        }
        let permit = self.cpus.clone().acquire_owned().await.map_err(|_| SignError::Failed)?;
        let key = self.key.clone();
        let signing = tokio::task::spawn_blocking(move || {
            let jws = key.sign(typ, &payload);
            drop(permit);
            jws
        });
        signing.await.map_err(|_| SignError::Failed)?
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
