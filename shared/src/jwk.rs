//! Public keys (RFC 7517), checked when they come in so that nothing has to be checked when they are used.

use core::fmt;

use crate::algorithm::Algorithm;
use crate::base64url;
use crate::json::{Object, Value};

/// The longest JWKS that is read, in bytes.
pub const MAX_JWKS_BYTES: usize = 64 * 1024;
/// The longest `kid`, in bytes.
pub const MAX_KID_BYTES: usize = 128;

/// The public part of a signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// RSA: modulus and exponent, big-endian without leading zeros; 2048 to 4096 bits, exponent 65537.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// A point on P-256. That it lies on the curve is checked by the host's import.
    P256 {
        /// x coordinate, big-endian.
        x: [u8; 32],
        /// y coordinate, big-endian.
        y: [u8; 32],
    },
    /// An Ed25519 public key.
    Ed25519 {
        /// The encoded point (RFC 8032 §5.1.5).
        x: [u8; 32],
    },
}

/// A verification key: its id, the one algorithm it is good for, and its public part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    kid: String,
    algorithm: Algorithm,
    public: PublicKey,
}

impl Jwk {
    /// Reads one JWK, which must be a usable signature key.
    pub fn parse(jwk: &[u8]) -> Result<Self, JwkError> {
        if jwk.len() > MAX_JWKS_BYTES {
            return Err(JwkError::TooLarge);
        }
        let object = Object::parse(jwk).map_err(|_| JwkError::Malformed)?;
        Self::from_value(&Value::Object(object))?.ok_or(JwkError::Empty)
    }

    /// The key id, as it stands in a token's header.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The algorithm: it belongs to the key, a token cannot choose it (RFC 8725 §3.1).
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public part.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key as a minimal JWK: `alg` and the public members, what a host's import needs.
    pub fn to_json(&self) -> String {
        let alg = self.algorithm.as_str();
        match &self.public {
            PublicKey::Rsa { n, e } => {
                let (n, e) = (base64url::encode(n), base64url::encode(e));
                format!(r#"{{"kty":"RSA","alg":"{alg}","n":"{n}","e":"{e}"}}"#)
            }
            PublicKey::P256 { x, y } => {
                let (x, y) = (base64url::encode(x), base64url::encode(y));
                format!(r#"{{"kty":"EC","alg":"{alg}","crv":"P-256","x":"{x}","y":"{y}"}}"#)
            }
            PublicKey::Ed25519 { x } => {
                let x = base64url::encode(x);
                format!(r#"{{"kty":"OKP","alg":"{alg}","crv":"Ed25519","x":"{x}"}}"#)
            }
        }
    }

    /// The key as it is published: a JWK with `kid` and `use` (RFC 7517 §4).
    #[cfg(feature = "builder")]
    pub fn to_public_json(&self) -> String {
        let minimal = self.to_json();
        let members = minimal.trim_start_matches('{');
        format!(r#"{{"kid":{},"use":"sig",{members}"#, crate::json::quoted(&self.kid))
    }

    /// `None`: a key of a kind that isn't ours to use, to be skipped (RFC 7517 §5).
    fn from_value(value: &Value<'_>) -> Result<Option<Self>, JwkError> {
        let object = value.as_object().ok_or(JwkError::Malformed)?;
        let text = |name| object.get(name).map(|value| value.as_str().ok_or(JwkError::Malformed)).transpose();

        if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|private| object.get(private).is_some()) {
            return Err(JwkError::PrivateMaterial);
        }
        if text("use")?.is_some_and(|usage| usage != "sig") {
            return Ok(None);
        }
        if let Some(operations) = object.get("key_ops") {
            let operations = operations.as_array().ok_or(JwkError::Malformed)?;
            if !operations.iter().any(|operation| operation.as_str() == Some("verify")) {
                return Ok(None);
            }
        }
        // A key without `kid` or `alg` is one that a token could not name unambiguously.
        let (Some(kid), Some(alg)) = (text("kid")?, text("alg")?) else { return Ok(None) };
        let Some(algorithm) = Algorithm::from_name(alg) else { return Ok(None) };
        if kid.is_empty() || kid.len() > MAX_KID_BYTES {
            return Err(JwkError::Kid);
        }

        let kty = text("kty")?.ok_or(JwkError::Malformed)?;
        let curve = text("crv")?;
        let public = match (algorithm, kty, curve) {
            (Algorithm::Rs256 | Algorithm::Ps256, "RSA", None) => rsa(object)?,
            (Algorithm::Es256, "EC", Some("P-256")) => {
                PublicKey::P256 { x: coordinate(object, "x")?, y: coordinate(object, "y")? }
            }
            (Algorithm::EdDsa, "OKP", Some("Ed25519")) => PublicKey::Ed25519 { x: coordinate(object, "x")? },
            _ => return Err(JwkError::WrongType),
        };
        Ok(Some(Self { kid: kid.to_owned(), algorithm, public }))
    }
}

fn member(object: &Object<'_>, name: &str) -> Result<Vec<u8>, JwkError> {
    object
        .get(name)
        .and_then(Value::as_str)
        .and_then(|text| base64url::decode(text.as_bytes()))
        .ok_or(JwkError::Malformed)
}

fn coordinate(object: &Object<'_>, name: &str) -> Result<[u8; 32], JwkError> {
    member(object, name)?.try_into().map_err(|_| JwkError::Size)
}

fn rsa(object: &Object<'_>) -> Result<PublicKey, JwkError> {
    let (n, e) = (member(object, "n")?, member(object, "e")?);
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    // Leading zeros would give one key several spellings (RFC 7518 §6.3.1.1).
    if n.first() == Some(&0) || !(2048..=4096).contains(&bits) || n.last().is_some_and(|last| last & 1 == 0) {
        return Err(JwkError::Size);
    }
    if e != [1, 0, 1] {
        return Err(JwkError::Exponent);
    }
    Ok(PublicKey::Rsa { n, e })
}

/// The keys of one issuer for one purpose, by `kid`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<Jwk>,
}

impl KeySet {
    /// Reads a JWK Set (RFC 7517 §5). Keys meant for something else are skipped; one that claims to be usable and isn't
    /// sound refuses the whole set, because a set half of which is broken is not what its owner meant to publish.
    pub fn parse(jwks: &[u8]) -> Result<Self, JwkError> {
        if jwks.len() > MAX_JWKS_BYTES {
            return Err(JwkError::TooLarge);
        }
        Self::from_object(&Object::parse(jwks).map_err(|_| JwkError::Malformed)?)
    }

    pub(crate) fn from_object(object: &Object<'_>) -> Result<Self, JwkError> {
        let values = object.get("keys").and_then(Value::as_array).ok_or(JwkError::Malformed)?;
        let mut keys: Vec<Jwk> = Vec::with_capacity(values.len());
        for value in values {
            let Some(key) = Jwk::from_value(value)? else { continue };
            if keys.iter().any(|other| other.kid == key.kid) {
                return Err(JwkError::DuplicateKid);
            }
            keys.push(key);
        }
        if keys.is_empty() { Err(JwkError::Empty) } else { Ok(Self { keys }) }
    }

    /// The keys, in the order of the set.
    pub fn keys(&self) -> &[Jwk] {
        &self.keys
    }

    /// Takes up those of `others` whose `kid` none of these has.
    pub fn add_missing(&mut self, others: Self) {
        for key in others.keys {
            if self.position(&key.kid).is_none() {
                self.keys.push(key);
            }
        }
    }

    /// The place of the key called `kid`.
    pub(crate) fn position(&self, kid: &str) -> Option<usize> {
        self.keys.iter().position(|key| key.kid == kid)
    }
}

/// Why a JWK Set is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwkError {
    /// Over [`MAX_JWKS_BYTES`].
    TooLarge,
    /// Not strict JSON, or a member of the wrong type.
    Malformed,
    /// A private or symmetric key: it must not be here, and whoever published it should hear of it.
    PrivateMaterial,
    /// `kid` is empty or over [`MAX_KID_BYTES`].
    Kid,
    /// Two keys with one `kid`.
    DuplicateKid,
    /// `kty` or `crv` doesn't go with `alg`.
    WrongType,
    /// A modulus or coordinate of a refused size.
    Size,
    /// An RSA exponent other than 65537.
    Exponent,
    /// No usable key.
    Empty,
}

impl fmt::Display for JwkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the JWK Set is over 64 KiB",
            Self::Malformed => "the JWK Set is not well-formed (RFC 7517)",
            Self::PrivateMaterial => "the JWK Set contains private or symmetric key material",
            Self::Kid => "a key's kid is empty or over 128 bytes",
            Self::DuplicateKid => "two keys have the same kid",
            Self::WrongType => "a key's kty or crv does not go with its alg",
            Self::Size => "an RSA modulus is not of 2048 to 4096 bits, or a coordinate is not of 32 bytes",
            Self::Exponent => "an RSA exponent is not 65537",
            Self::Empty => "the JWK Set has no usable signature key (kid, alg and use=sig)",
        })
    }
}

impl core::error::Error for JwkError {}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#; // RFC 8037 §A.2

    fn set(keys: &str) -> Result<KeySet, JwkError> {
        KeySet::parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes())
    }

    #[test]
    fn takes_a_sound_key_and_skips_those_for_other_purposes() {
        let keys = set(&format!(
            r#"{{"kid":"a","alg":"EdDSA","use":"sig","key_ops":["verify"],{ED25519}}},
               {{"kid":"b","alg":"EdDSA","use":"enc",{ED25519}}},
               {{"kid":"c","alg":"ES512","kty":"EC","crv":"P-521","x":"AA","y":"AA"}},
               {{"alg":"EdDSA",{ED25519}}}, {{"kid":"d",{ED25519}}}, {{"kid":"e","alg":"EdDSA","key_ops":[],{ED25519}}}"#
        ))
        .unwrap();
        assert_eq!(keys.keys().iter().map(Jwk::kid).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn refuses_unsound_sets() {
        let rsa = |bytes: usize, first: u8, last: u8, e: &str| {
            let mut n = vec![0xaa; bytes];
            n[0] = first;
            n[bytes - 1] = last;
            format!(r#"{{"kid":"a","alg":"RS256","kty":"RSA","n":"{}","e":"{e}"}}"#, base64url::encode(&n))
        };
        assert!(set(&rsa(256, 0x80, 1, "AQAB")).is_ok());
        for (keys, error) in [
            (String::new(), JwkError::Empty),
            (rsa(256, 0x7f, 1, "AQAB"), JwkError::Size),
            (rsa(257, 0x00, 1, "AQAB"), JwkError::Size),
            (rsa(513, 0x01, 1, "AQAB"), JwkError::Size),
            (rsa(256, 0x80, 2, "AQAB"), JwkError::Size),
            (rsa(256, 0x80, 1, "Aw"), JwkError::Exponent),
            (rsa(256, 0x80, 1, "AAEAAQ"), JwkError::Exponent),
            (rsa(256, 0x80, 1, "AQAB=="), JwkError::Malformed),
            (format!(r#"{{"kid":"a","alg":"EdDSA","d":"AA",{ED25519}}}"#), JwkError::PrivateMaterial),
            (r#"{"kid":"a","alg":"HS256","kty":"oct","k":"AAAA"}"#.into(), JwkError::PrivateMaterial),
            (format!(r#"{{"kid":"a","alg":"RS256",{ED25519}}}"#), JwkError::WrongType),
            (format!(r#"{{"kid":"","alg":"EdDSA",{ED25519}}}"#), JwkError::Kid),
            (
                format!(r#"{{"kid":"a","alg":"EdDSA",{ED25519}}},{{"kid":"a","alg":"EdDSA",{ED25519}}}"#),
                JwkError::DuplicateKid,
            ),
            (r#"{"kid":"a","alg":"EdDSA","kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.into(), JwkError::Size),
            (r#"{"kid":1}"#.into(), JwkError::Malformed),
            ("1".into(), JwkError::Malformed),
        ] {
            assert_eq!(set(&keys), Err(error), "{keys}");
        }
        assert_eq!(KeySet::parse(&vec![b' '; MAX_JWKS_BYTES + 1]), Err(JwkError::TooLarge));
    }
}
