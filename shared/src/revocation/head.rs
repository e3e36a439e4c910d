//! The head: the small signed statement of what is revoked now.

use super::{Delta, FormatError};
use crate::base64url;
use crate::json::{Object, Value};
use crate::jwk::KeySet;
use crate::time::UnixTime;
use crate::token::Unverified;
use crate::verify::{Refusal, Signature};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// The media type of a head. Together with a key of its own it keeps heads and tokens apart.
pub const HEAD_TYPE: &str = "revocation-head+jwt";

/// The longest head that is read, in bytes.
pub const MAX_HEAD_BYTES: usize = 256 * 1024;

/// What is revoked as of some instant: a base object and what came since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The issuer whose tokens it is about.
    pub issuer: String,
    /// Raised by an operator after a restore from backup; compared before [`Self::seq`].
    pub epoch: u64,
    /// +1 with every change of the content.
    pub seq: u64,
    /// SHA-256 of the base object.
    pub base: [u8; 32],
    /// The encoded delta.
    pub delta: Vec<u8>,
    /// When the issuer last found nothing newer in its database.
    pub as_of: UnixTime,
    /// From here on a verifier that has heard nothing newer must not rely on it.
    pub fresh_until: UnixTime,
    /// The version of the key statement ([`crate::KeyStatement`]) that is in force with it, in the same epoch; `None` from an issuer that
    /// makes none. It is about tokens' keys and not about what is revoked, so it is no part of the content.
    pub keys: Option<u64>,
}

impl Head {
    /// Its place in the order of heads: a verifier never goes back.
    pub const fn position(&self) -> (u64, u64) {
        (self.epoch, self.seq)
    }

    /// As [`Self::position`], and among heads of one position the later news: a late heartbeat must not shorten `fresh_until`.
    pub const fn age_rank(&self) -> (u64, u64, i64) {
        (self.epoch, self.seq, self.as_of.0)
    }

    /// Whether both say that the same is revoked.
    pub fn same_content(&self, other: &Self) -> bool {
        self.base == other.base && self.delta == other.delta
    }

    /// First step of verification: shape and key. `keys` are those that sign heads, and nothing else.
    pub fn prepare(jws: &[u8], keys: &KeySet) -> Result<PreparedHead, Refusal> {
        PreparedHead::parse(jws, HEAD_TYPE, keys, MAX_HEAD_BYTES)
    }

    /// The payload to sign (JSON).
    #[cfg(feature = "builder")]
    pub fn payload(&self) -> String {
        use core::fmt::Write as _;

        let mut json = String::with_capacity(300 + self.delta.len() * 4 / 3);
        _ = write!(json, r#"{{"iss":{}"#, crate::json::quoted(&self.issuer));
        let base = hex(&self.base);
        let delta = base64url::encode(&self.delta);
        _ = write!(
            json,
            r#","epoch":{},"seq":{},"base":"{base}","delta":"{delta}","as_of":{},"fresh_until":{}"#,
            self.epoch, self.seq, self.as_of.0, self.fresh_until.0
        );
        if let Some(keys) = self.keys {
            _ = write!(json, r#","keys":{keys}"#);
        }
        json.push('}');
        json
    }

    fn parse(payload: &[u8]) -> Option<Self> {
        let object = Object::parse(payload).ok()?;
        let text = |name| object.get(name).and_then(Value::as_str);
        let number = |name| object.get(name).and_then(Value::as_u64);
        let time =
            |name| object.get(name).and_then(Value::as_i64).filter(|seconds| *seconds >= 0).map(UnixTime);
        Some(Self {
            issuer: text("iss")?.to_owned(),
            epoch: number("epoch")?,
            seq: number("seq")?,
            base: parse_hex(text("base")?)?,
            delta: base64url::decode(text("delta")?.as_bytes())?,
            as_of: time("as_of")?,
            fresh_until: time("fresh_until")?,
            // Absent is one thing, unreadable another.
            keys: match object.get("keys") {
                None => None,
                Some(version) => Some(version.as_u64()?),
            },
        })
    }
}

/// A head whose signature is the next thing to check.
pub type PreparedHead = Unverified<Head>;

impl PreparedHead {
    /// Second step: the statement itself, which must be `issuer`'s, and its delta.
    pub fn finish(self, signature: Signature, issuer: &str) -> Result<(Head, Delta), HeadError> {
        if signature == Signature::Invalid {
            return Err(HeadError::Refused(Refusal::BadSignature));
        }
        let head = Head::parse(&self.payload).ok_or(HeadError::Format(FormatError::Head))?;
        if head.issuer != issuer {
            return Err(HeadError::Refused(Refusal::WrongIssuer));
        }
        let delta = Delta::parse(&head.delta).map_err(HeadError::Format)?;
        Ok((head, delta))
    }
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// As a JWS, or for its issuer.
    Refused(Refusal),
    /// For its content.
    Format(FormatError),
}

impl core::fmt::Display for HeadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Format(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for HeadError {}

/// Lower-case hexadecimal of a digest, as it stands in heads and object names.
pub fn hex(digest: &[u8; 32]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    digest.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let nibble = |character: u8| match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut digest = [0; 32];
    if pairs.len() != digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(digest)
}
