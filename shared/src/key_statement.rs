//! The issuer's keys as the edge gets them ahead of use: a JWK Set that the key of heads has signed.
//!
//! The form is that of OpenID Federation 1.0 §5.2.1 (a signed JWK Set), with a place in the order of such statements, so that an edge
//! never goes back to keys that were withdrawn. Bytes: `docs/reference/formats.md`.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

use crate::json::{Object, Value};
use crate::jwk::{JwkError, KeySet};
use crate::time::UnixTime;
use crate::token::Unverified;
use crate::verify::{Refusal, Signature};

/// The media type of a key statement. Together with a signing key that signs no tokens it keeps the two apart.
pub const KEY_STATEMENT_TYPE: &str = "jwk-set+jwt";

/// The longest key statement that is read, in bytes: room for a JWK Set of [`crate::jwk::MAX_JWKS_BYTES`] in base64url.
pub const MAX_KEY_STATEMENT_BYTES: usize = 96 * 1024;

/// What an issuer's keys are from some moment on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatement {
    /// Whose keys they are.
    pub issuer: String,
    /// That of revocation heads: raised by an operator after a restore from backup; compared before [`Self::version`].
    pub epoch: u64,
    /// +1 with every change of the keys.
    pub version: u64,
    /// When this version was made.
    pub issued_at: UnixTime,
    /// All keys that tokens may be signed with now, and those that soon may.
    pub keys: KeySet,
}

impl KeyStatement {
    /// Its place in the order of key statements: a verifier never goes back.
    pub const fn position(&self) -> (u64, u64) {
        (self.epoch, self.version)
    }

    /// First step of verification: shape and key. `keys` are those that sign heads and key statements, and nothing else.
    pub fn prepare(jws: &[u8], keys: &KeySet) -> Result<PreparedKeyStatement, Refusal> {
        PreparedKeyStatement::parse(jws, KEY_STATEMENT_TYPE, keys, MAX_KEY_STATEMENT_BYTES)
    }

    /// The payload to sign (JSON): the same statement makes the same bytes.
    #[cfg(feature = "builder")]
    pub fn payload(&self) -> String {
        let issuer = crate::json::quoted(&self.issuer);
        let keys: alloc::vec::Vec<String> =
            self.keys.keys().iter().map(crate::jwk::Jwk::to_public_json).collect();
        alloc::format!(
            r#"{{"iss":{issuer},"sub":{issuer},"iat":{},"epoch":{},"version":{},"keys":[{}]}}"#,
            self.issued_at.0,
            self.epoch,
            self.version,
            keys.join(",")
        )
    }

    fn parse(payload: &[u8], issuer: &str) -> Result<Self, KeyStatementError> {
        let object = Object::parse(payload).map_err(|_| KeyStatementError::Malformed)?;
        let text = |name| object.get(name).and_then(Value::as_str).ok_or(KeyStatementError::Malformed);
        let number = |name| object.get(name).and_then(Value::as_u64).ok_or(KeyStatementError::Malformed);
        if text("iss")? != issuer || text("sub")? != issuer {
            return Err(KeyStatementError::Refused(Refusal::WrongIssuer));
        }
        let issued_at = i64::try_from(number("iat")?).map_err(|_| KeyStatementError::Malformed)?;
        Ok(Self {
            issuer: issuer.to_owned(),
            epoch: number("epoch")?,
            version: number("version")?,
            issued_at: UnixTime(issued_at),
            keys: KeySet::from_object(&object).map_err(KeyStatementError::Keys)?,
        })
    }
}

/// A key statement whose signature is the next thing to check.
pub type PreparedKeyStatement = Unverified<KeyStatement>;

impl PreparedKeyStatement {
    /// Second step: the statement itself, which must be `issuer`'s about itself.
    pub fn finish(self, signature: Signature, issuer: &str) -> Result<KeyStatement, KeyStatementError> {
        if signature == Signature::Invalid {
            return Err(KeyStatementError::Refused(Refusal::BadSignature));
        }
        KeyStatement::parse(&self.payload, issuer)
    }
}

/// Why a key statement is refused. What was held before stays in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStatementError {
    /// As a JWS, or for its issuer.
    Refused(Refusal),
    /// The payload isn't what it must be.
    Malformed,
    /// Its keys aren't sound.
    Keys(JwkError),
}

impl fmt::Display for KeyStatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Malformed => f.write_str("the key statement's payload is malformed"),
            Self::Keys(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for KeyStatementError {}
