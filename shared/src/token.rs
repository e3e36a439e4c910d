//! The outside of a JWS (RFC 7515 §3.1): sizes, segments, header. Nothing here is trusted yet.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::marker::PhantomData;

use crate::algorithm::Algorithm;
use crate::base64url;
use crate::json::{Object, Value};
use crate::jwk::{KeySet, PublicKey};
use crate::verify::Refusal;

/// A JWS whose shape is sound and whose key is known; checking its signature is the next thing to do. `Kind` says what it claims to be,
/// and so which `finish` can follow.
#[derive(Debug)]
pub struct Unverified<Kind> {
    key_index: usize,
    pub(crate) kid: String,
    signing_input_length: usize,
    pub(crate) payload: Vec<u8>,
    signature: Vec<u8>,
    kind: PhantomData<Kind>,
}

impl<Kind> Unverified<Kind> {
    /// Place, in the key set it was prepared with, of the key to check with.
    pub const fn key_index(&self) -> usize {
        self.key_index
    }

    /// The bytes of `jws` that the signature covers (RFC 7515 §5.2 step 8); `jws` is the text it was prepared from.
    pub fn signing_input<'t>(&self, jws: &'t [u8]) -> &'t [u8] {
        &jws[..self.signing_input_length]
    }

    /// The signature, in JWS form (ECDSA: r ‖ s, RFC 7518 §3.4).
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Splits and decodes `jws` and finds its key in `keys`, by `kid` *and* `alg`. `typ` is the media type that this kind of
    /// token must name: it keeps one kind of JWT from being taken for another (RFC 8725 §3.11).
    pub(crate) fn parse(
        jws: &[u8],
        typ: &'static str,
        keys: &KeySet,
        max_bytes: usize,
    ) -> Result<Self, Refusal> {
        Self::parse_as(jws, &Demands { types: &[typ], algorithms: &Algorithm::ALL, max_bytes }, keys)
    }

    /// The same, for who takes several types, or not every algorithm.
    pub(crate) fn parse_as(jws: &[u8], demands: &Demands<'_>, keys: &KeySet) -> Result<Self, Refusal> {
        let Unverified { key_index, kid, signing_input_length, payload, signature, .. } =
            Unverified::parse_any(jws, demands, keys)?;
        Ok(Self { key_index, kid, signing_input_length, payload, signature, kind: PhantomData })
    }
}

/// What the outside of a JWS must be.
pub(crate) struct Demands<'d> {
    /// `typ` must be one of these media types; an empty one stands for a header without `typ`.
    pub(crate) types: &'d [&'static str],
    /// `alg` must be one of these, and the key's.
    pub(crate) algorithms: &'d [Algorithm],
    /// The longest that is looked at.
    pub(crate) max_bytes: usize,
}

impl Unverified<()> {
    /// The same for every kind, once in the edge's module and not once for each.
    #[inline(never)]
    fn parse_any(jws: &[u8], demands: &Demands<'_>, keys: &KeySet) -> Result<Self, Refusal> {
        if jws.len() > demands.max_bytes {
            return Err(Refusal::TooLarge);
        }
        let (first, second) = dots(jws).ok_or(Refusal::Malformed("segments"))?;
        let header = base64url::decode(&jws[..first]).ok_or(Refusal::Malformed("header encoding"))?;
        let header = Object::parse(&header).map_err(|_| Refusal::Malformed("header"))?;

        let member = |name, problem| match header.get(name) {
            Some(Value::String(text)) => Ok(&**text),
            _ => Err(Refusal::Malformed(problem)),
        };
        let algorithm = Algorithm::from_name(member("alg", "alg")?)
            .filter(|algorithm| demands.algorithms.contains(algorithm))
            .ok_or(Refusal::UnsupportedAlgorithm)?;
        let is_of_type = if header.get("typ").is_none() && demands.types.contains(&"") {
            true
        } else {
            let typ = member("typ", "typ")?;
            demands.types.iter().any(|expected| !expected.is_empty() && is_media_type(typ, expected))
        };
        if !is_of_type {
            return Err(Refusal::WrongType);
        }
        // We understand no extension, so any that is marked critical refuses the token (RFC 7515 §4.1.11).
        if header.get("crit").is_some() {
            return Err(Refusal::CriticalExtension);
        }
        check_unused(&header)?;
        let kid = member("kid", "kid")?;
        let key_index = keys.position(kid).ok_or(Refusal::UnknownKey)?;
        let key = &keys.keys()[key_index];
        if key.algorithm() != algorithm {
            return Err(Refusal::AlgorithmMismatch);
        }

        let signature =
            base64url::decode(&jws[second + 1..]).ok_or(Refusal::Malformed("signature encoding"))?;
        let expected = match key.public() {
            PublicKey::Rsa { n, .. } => n.len(),
            PublicKey::P256 { .. } | PublicKey::Ed25519 { .. } => 64,
        };
        if signature.len() != expected {
            return Err(Refusal::Malformed("signature length"));
        }
        let payload =
            base64url::decode(&jws[first + 1..second]).ok_or(Refusal::Malformed("payload encoding"))?;
        let kid = kid.to_owned();
        Ok(Self { key_index, kid, signing_input_length: second, payload, signature, kind: PhantomData })
    }
}

/// Where the two dots of a compact JWS are; `None`: there aren't two.
pub(crate) fn dots(jws: &[u8]) -> Option<(usize, usize)> {
    let mut dots = jws.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(place, _)| place);
    match (dots.next(), dots.next(), dots.next()) {
        (Some(first), Some(second), None) => Some((first, second)),
        _ => None,
    }
}

/// Header parameters that nothing here goes by must be what their documents say all the same (RFC 7515 §4.1, RFC 7516 §4.1, RFC 8555 §6): a header
/// that another verifier would refuse to read isn't read differently here. A key that comes along (`jwk`) is refused: no issuer sends its own, and
/// proofs of possession, which do, are no access tokens (RFC 9449 §4.2).
fn check_unused(header: &Object<'_>) -> Result<(), Refusal> {
    for (name, value) in header.members() {
        let is_sound = match name {
            "jku" | "x5u" | "x5t" | "x5t#S256" | "cty" | "enc" | "zip" | "url" | "nonce" => {
                value.as_str().is_some()
            }
            "x5c" => value.as_array().is_some_and(|chain| chain.iter().all(|item| item.as_str().is_some())),
            "jwk" => false,
            _ => true,
        };
        if !is_sound {
            return Err(Refusal::Malformed("header parameter"));
        }
    }
    Ok(())
}

/// Whether `typ` names `expected`; media types are case-insensitive and may omit `application/` (RFC 7515 §4.1.9).
pub(crate) fn is_media_type(typ: &str, expected: &str) -> bool {
    const PREFIX: &str = "application/";
    let bare = match typ.get(..PREFIX.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => &typ[PREFIX.len()..],
        _ => typ,
    };
    bare.eq_ignore_ascii_case(expected)
}
