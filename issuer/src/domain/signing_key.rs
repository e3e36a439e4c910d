//! Signing keys, as they are kept.

use countersign_shared::Algorithm;
use time::OffsetDateTime;

use super::text_enum;

text_enum! {
    /// What a key signs. One that signs tokens never signs heads, nor the other way round.
    pub enum Purpose {
        /// Access tokens.
        Token = "token",
        /// Revocation heads.
        Revocation = "revocation",
    }
}

text_enum! {
    /// Where a key stands in its life.
    pub enum KeyState {
        /// Published, not signing yet.
        Pending = "pending",
        /// Signing.
        Active = "active",
        /// Verifying only.
        Retiring = "retiring",
        /// Of the past.
        Retired = "retired",
    }
}

/// A value under its data key, and the data key under the master key (`keys/envelope.rs`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sealed {
    /// The sealed data key.
    pub data_key: Vec<u8>,
    /// The sealed value.
    pub value: Vec<u8>,
}

/// A signing key at rest.
#[derive(Debug, Clone)]
pub struct KeyRecord {
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// What it signs.
    pub purpose: Purpose,
    /// How.
    pub algorithm: Algorithm,
    /// Whether it does.
    pub state: KeyState,
    /// The public members, as JSON.
    pub public_jwk: String,
    /// PKCS#8, sealed.
    pub sealed: Sealed,
    /// `None` before it is stored.
    pub created_at: Option<OffsetDateTime>,
}
