//! Public keys (RFC 7517), checked when they come in so that nothing has to be checked when they are used.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
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
    /// A point on P-256.
    P256 {
        /// x coordinate, big-endian.
        x: [u8; 32],
        /// y coordinate, big-endian.
        y: [u8; 32],
    },
    /// An Ed25519 public key: canonical, and not of small order. One in two such texts is no point; the host's primitive takes no signature by it.
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
        Self::from_value(&Value::Object(object), &[])?.ok_or(JwkError::Empty)
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

    /// `None`: a key of a kind that isn't ours to use, to be skipped (RFC 7517 §5). One without `alg` is for the one algorithm among `unnamed` that goes with its type.
    fn from_value(value: &Value<'_>, unnamed: &[Algorithm]) -> Result<Option<Self>, JwkError> {
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
        // A key without `kid`, or with no one algorithm, is one that a token could not name unambiguously.
        let Some(kid) = text("kid")? else { return Ok(None) };
        let kty = text("kty")?;
        let curve = text("crv")?;
        let algorithm = if let Some(alg) = text("alg")? {
            Algorithm::from_name(alg)
        } else {
            let goes_with = |algorithm: &&Algorithm| match algorithm {
                Algorithm::Rs256 | Algorithm::Ps256 => kty == Some("RSA"),
                Algorithm::Es256 => kty == Some("EC") && curve == Some("P-256"),
                Algorithm::EdDsa => kty == Some("OKP") && curve == Some("Ed25519"),
            };
            let mut fitting = unnamed.iter().filter(goes_with);
            fitting.next().copied().filter(|_| fitting.next().is_none())
        };
        let Some(algorithm) = algorithm else { return Ok(None) };
        if kid.is_empty() || kid.len() > MAX_KID_BYTES {
            return Err(JwkError::Kid);
        }

        let kty = kty.ok_or(JwkError::Malformed)?;
        let public = match (algorithm, kty, curve) {
            (Algorithm::Rs256 | Algorithm::Ps256, "RSA", None) => rsa(object)?,
            (Algorithm::Es256, "EC", Some("P-256")) => {
                let (x, y) = (coordinate(object, "x")?, coordinate(object, "y")?);
                if !points::is_on_p256(&x, &y) {
                    return Err(JwkError::Point);
                }
                PublicKey::P256 { x, y }
            }
            (Algorithm::EdDsa, "OKP", Some("Ed25519")) => {
                let x = coordinate(object, "x")?;
                if !points::may_be_ed25519(&x) {
                    return Err(JwkError::Point);
                }
                PublicKey::Ed25519 { x }
            }
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

/// Keys that aren't sound, each with its `kid` (empty where it has none) and why.
pub type Refused = Vec<(String, JwkError)>;

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
        let (set, refused) = Self::collect(object, &Algorithm::ALL, &[])?;
        match refused.first() {
            Some((_, error)) => Err(*error),
            None if set.keys.is_empty() => Err(JwkError::Empty),
            None => Ok(set),
        }
    }

    /// The sound keys for one of `algorithms`, and what isn't sound, with its `kid`. `unnamed`: as to [`Jwk::from_value`].
    fn collect(
        object: &Object<'_>,
        algorithms: &[Algorithm],
        unnamed: &[Algorithm],
    ) -> Result<(Self, Refused), JwkError> {
        let values = object.get("keys").and_then(Value::as_array).ok_or(JwkError::Malformed)?;
        let (mut set, mut refused) = (Self::default(), Vec::new());
        for value in values {
            let error = match Jwk::from_value(value, unnamed) {
                Ok(Some(key)) if algorithms.contains(&key.algorithm) => {
                    if set.position(&key.kid).is_none() {
                        set.keys.push(key);
                        continue;
                    }
                    JwkError::DuplicateKid
                }
                Ok(_) => continue,
                Err(error) => error,
            };
            let kid = value.as_object().and_then(|key| key.get("kid")).and_then(Value::as_str);
            refused.push((kid.unwrap_or_default().to_owned(), error));
        }
        Ok((set, refused))
    }

    /// Reads the JWK Set of another issuer, for tokens with one of `algorithms`. Its owner has other readers than us: keys that aren't sound are left out, each with its `kid`
    /// and why, and don't take the sound ones with them; so are those for another algorithm, without a word. Of several with one `kid` the first one counts. An error where no
    /// key is left.
    pub fn parse_foreign(jwks: &[u8], algorithms: &[Algorithm]) -> Result<(Self, Refused), JwkError> {
        if jwks.len() > MAX_JWKS_BYTES {
            return Err(JwkError::TooLarge);
        }
        let object = Object::parse(jwks).map_err(|_| JwkError::Malformed)?;
        let (set, refused) = Self::collect(&object, algorithms, algorithms)?;
        match refused.first() {
            _ if !set.keys.is_empty() => Ok((set, refused)),
            Some((_, error)) => Err(*error),
            None => Err(JwkError::Empty),
        }
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

/// Public points. Nothing here is secret, so nothing needs to take the same time always.
mod points {
    /// A number of 256 bits, the least significant word first.
    type Number = [u64; 4];

    /// The prime of P-256 (NIST SP 800-186 §3.2.1.3).
    const P256_PRIME: Number = [0xffff_ffff_ffff_ffff, 0x0000_0000_ffff_ffff, 0, 0xffff_ffff_0000_0001];
    /// The coefficient b of P-256.
    const P256_B: Number =
        [0x3bce_3c3e_27d2_604b, 0x651d_06b0_cc53_b0f6, 0xb3eb_bd55_7698_86bc, 0x5ac6_35d8_aa3a_93e7];
    /// 2²⁵⁵ − 19 (RFC 8032 §5.1).
    const ED25519_PRIME: Number =
        [0xffff_ffff_ffff_ffed, 0xffff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff, 0x7fff_ffff_ffff_ffff];
    /// The y coordinates of the eight points of small order: 0, 1 and −1, and those of the points of order 8.
    const ED25519_SMALL: [Number; 5] = [
        [0, 0, 0, 0],
        [1, 0, 0, 0],
        [0xffff_ffff_ffff_ffec, 0xffff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff, 0x7fff_ffff_ffff_ffff],
        [0xb027_b2c2_8f95_e826, 0xf098_eff2_89f4_c345, 0x3933_c6d3_05ac_dfd5, 0x05fc_536d_8802_38b1],
        [0x4fd8_4d3d_706a_17c7, 0x0f67_100d_760b_3cba, 0xc6cc_392c_fa53_202a, 0x7a03_ac92_77fd_c74e],
    ];

    /// Whether y² = x³ − 3x + b, both coordinates in their one spelling. The cofactor is 1, so that is all there is to a point.
    pub(super) fn is_on_p256(x: &[u8; 32], y: &[u8; 32]) -> bool {
        let (x, y) = (number(x), number(y));
        if !is_less(&x, &P256_PRIME) || !is_less(&y, &P256_PRIME) {
            return false;
        }
        let cube = times(&times(&x, &x), &x);
        let thrice = plus(&plus(&x, &x), &x);
        plus(&times(&y, &y), &thrice) == plus(&cube, &P256_B)
    }

    /// Whether a y coordinate (little-endian, its last bit the sign of x) is in its one spelling and of no point of small order.
    pub(super) fn may_be_ed25519(encoded: &[u8; 32]) -> bool {
        let mut bytes = *encoded;
        bytes.reverse();
        bytes[0] &= 0x7f;
        let y = number(&bytes);
        is_less(&y, &ED25519_PRIME) && !ED25519_SMALL.contains(&y)
    }

    fn number(bytes: &[u8; 32]) -> Number {
        let (words, _) = bytes.as_chunks::<8>();
        core::array::from_fn(|place| u64::from_be_bytes(words[3 - place]))
    }

    fn is_less(a: &Number, b: &Number) -> bool {
        a.iter().rev().lt(b.iter().rev())
    }

    /// Modulo the prime of P-256, as the next one. Once in the edge's module, not once for each use.
    #[inline(never)]
    fn plus(a: &Number, b: &Number) -> Number {
        let mut carry = false;
        let sum: Number = core::array::from_fn(|place| {
            let (sum, first) = a[place].overflowing_add(b[place]);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            carry = first || second;
            sum
        });
        if !carry && is_less(&sum, &P256_PRIME) {
            return sum;
        }
        let mut borrow = false;
        core::array::from_fn(|place| {
            let (rest, first) = sum[place].overflowing_sub(P256_PRIME[place]);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            borrow = first || second;
            rest
        })
    }

    /// Bit by bit: it happens three times for each key that comes.
    #[inline(never)]
    fn times(a: &Number, b: &Number) -> Number {
        let mut product = [0; 4];
        for bit in (0..256).rev() {
            product = plus(&product, &product);
            if a[bit / 64] >> (bit % 64) & 1 == 1 {
                product = plus(&product, b);
            }
        }
        product
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
    /// Coordinates that are no point of the curve, or one of small order, by which anybody could sign.
    Point,
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
            Self::Point => "a key is no point of its curve, or one of small order",
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

    const P256: (&str, &str) = // RFC 7515 §A.3
        ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");

    fn ec(x: &str, y: &str) -> Result<KeySet, JwkError> {
        set(&format!(r#"{{"kid":"a","alg":"ES256","kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#))
    }

    #[test]
    fn points_are_on_their_curve_and_of_full_order() {
        let (x, y) = P256;
        assert!(ec(x, y).is_ok());
        // RFC 7517 §A.1
        assert!(
            ec("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM")
                .is_ok()
        );
        let zero = base64url::encode(&[0; 32]);
        let prime = "_____wAAAAEAAAAAAAAAAAAAAAD_______________8";
        for (x, y) in [(y, x), (x, x), (x, &zero), (&zero, &zero), (&zero, y), (prime, y), (x, prime)] {
            assert_eq!(ec(x, y), Err(JwkError::Point), "{x} {y}");
        }
        let okp = |y: [u8; 32]| {
            let x = base64url::encode(&y);
            set(&format!(r#"{{"kid":"a","alg":"EdDSA","kty":"OKP","crv":"Ed25519","x":"{x}"}}"#))
        };
        let number = |first: u8, rest: u8, last: u8| {
            let mut bytes = [rest; 32];
            (bytes[0], bytes[31]) = (first, last);
            bytes
        };
        for (y, what) in [
            (number(0, 0, 0), "0"),
            (number(0, 0, 0x80), "0, the other x"),
            (number(1, 0, 0), "1, the neutral element"),
            (number(1, 0, 0x80), "1, with a sign"),
            (number(0xec, 0xff, 0x7f), "−1"),
            (number(0xed, 0xff, 0x7f), "p, which is 0 again"),
            (number(0xee, 0xff, 0x7f), "p + 1"),
            (number(0xff, 0xff, 0xff), "the largest text"),
            (
                *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
                "of order 8",
            ),
            (
                *b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\xfa",
                "of order 8, the other one",
            ),
        ] {
            assert_eq!(okp(y), Err(JwkError::Point), "{what}");
        }
    }

    /// Any key that another library makes is a point.
    #[test]
    fn takes_every_generated_p256_key() {
        use aws_lc_rs::rand::SystemRandom;
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
        for _ in 0..50 {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
            let mut point = pair.public_key().as_ref()[1..].to_vec();
            let spelled =
                |point: &[u8]| ec(&base64url::encode(&point[..32]), &base64url::encode(&point[32..]));
            assert!(spelled(&point).is_ok());
            point[63] ^= 1;
            assert_eq!(spelled(&point), Err(JwkError::Point));
        }
    }

    #[test]
    fn of_a_foreign_set_the_sound_keys_count() {
        let (x, y) = P256;
        let read = |keys: &str, algorithms: &[Algorithm]| {
            KeySet::parse_foreign(format!(r#"{{"keys":[{keys}]}}"#).as_bytes(), algorithms)
        };
        let keys = format!(
            r#"{{"kid":"named","alg":"EdDSA",{ED25519}}}, {{"kid":"unnamed",{ED25519}}}, {{"kid":"named","alg":"EdDSA",{ED25519}}},
               {{"kid":"private","d":"AA",{ED25519}}}, {{"kid":"oct","kty":"oct","alg":"HS256","k":"AAAA"}},
               {{"kid":"off","kty":"EC","crv":"P-256","x":"{x}","y":"{x}"}}, {{"kid":"ec","kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}},
               {{"kid":"e","kty":"RSA","alg":"RS256","n":"AA","e":"Aw"}}, {{"kid":"enc","use":"enc",{ED25519}}}, {{{ED25519}}}, {{"kid":"p521","kty":"EC","crv":"P-521"}}"#
        );
        let (set, refused) = read(&keys, &[Algorithm::EdDsa, Algorithm::Es256]).unwrap();
        assert_eq!(set.keys().iter().map(Jwk::kid).collect::<Vec<_>>(), ["named", "unnamed", "ec"]);
        let refused: Vec<_> = refused.iter().map(|(kid, error)| (kid.as_str(), *error)).collect();
        assert_eq!(
            refused,
            [
                ("named", JwkError::DuplicateKid),
                ("private", JwkError::PrivateMaterial),
                ("oct", JwkError::PrivateMaterial),
                ("off", JwkError::Point),
                ("e", JwkError::Size),
            ]
        );
        let (set, _) = read(&keys, &[Algorithm::Es256]).unwrap();
        assert_eq!(set.keys().iter().map(Jwk::kid).collect::<Vec<_>>(), ["ec"]);
        // An RSA key without `alg` is for either of two, so for none.
        let n = base64url::encode(&[0xaa; 255].into_iter().chain([1]).collect::<Vec<_>>());
        let rsa = format!(r#"{{"kid":"rsa","kty":"RSA","n":"{n}","e":"AQAB"}}"#);
        assert!(read(&rsa, &[Algorithm::Rs256, Algorithm::EdDsa]).is_ok());
        assert_eq!(read(&rsa, &[Algorithm::Rs256, Algorithm::Ps256]), Err(JwkError::Empty));
        assert_eq!(
            read(r#"{"kid":"oct","kty":"oct","k":"AAAA"}"#, &Algorithm::ALL),
            Err(JwkError::PrivateMaterial)
        );
        assert_eq!(KeySet::parse_foreign(b"[]", &Algorithm::ALL), Err(JwkError::Malformed));
        assert_eq!(
            KeySet::parse_foreign(&vec![b' '; MAX_JWKS_BYTES + 1], &Algorithm::ALL),
            Err(JwkError::TooLarge)
        );
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
