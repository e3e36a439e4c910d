//! Key material: made here, sealed here, used here.
//!
//! Private parts are in memory only inside [`SigningKey`] and in the database only sealed under [`MasterKey`] ([`envelope`]).

mod client;
pub mod envelope;
mod generate;
mod master;
mod provision;
mod public;
mod ring;
pub mod rotation;
mod schedule;
mod signer;
mod verify;

use std::fmt;

pub use client::client_jwk;
pub use master::MasterKey;
pub use provision::{ServerSecrets, load_secrets, provision};
pub use public::{Jwks, rsa_bits, thumbprint};
pub use ring::{Keyring, Keys, Promise, Ring};
pub use signer::{SignError, Signer, SigningKey};
pub use verify::check_signature;

use crate::domain::signing_key::{HEAD_SECONDS, KeyRecord, KeyState, Purpose};
use crate::storage::StorageError;
use envelope::{OpenError, SealError};
use generate::Generated;
use zeroize::Zeroizing;

/// The keys of `purpose` that verifiers should know: all but the retired.
///
/// A row counts only if it was sealed under the master key and its public key is the one that its kid names: write access to the database is
/// not enough to have a key of one's own trusted.
pub fn published(records: &[KeyRecord], master: &MasterKey, purpose: Purpose) -> Result<Jwks, KeyError> {
    let published = |record: &&KeyRecord| record.purpose == purpose && record.state != KeyState::Retired;
    let records: Vec<&KeyRecord> = records.iter().filter(published).collect();
    for record in &records {
        open(master, record)?;
    }
    publish(&records, purpose)
}

/// The JWK Set of `records`, each of which opens.
fn publish(records: &[&KeyRecord], purpose: Purpose) -> Result<Jwks, KeyError> {
    if records.is_empty() {
        return Err(KeyError::NoActiveKey(purpose));
    }
    let jwks = Jwks::new(records.iter().map(|record| record.public_jwk.as_str()))?;
    for (record, key) in records.iter().zip(jwks.keys.keys()) {
        if public::kid_of(key) != record.kid || key.kid() != record.kid || key.algorithm() != record.algorithm
        {
            return Err(KeyError::Damaged(record.kid.clone()));
        }
    }
    Ok(jwks)
}

/// The private part of a key that is kept.
fn open(master: &MasterKey, record: &KeyRecord) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    envelope::open(master, &signing_key_context(record), &record.sealed)
        .map_err(|error| KeyError::opening(error, &record.kid))
}

/// A new key as it is to be kept: sealed, pending and without a date.
fn seal(master: &MasterKey, purpose: Purpose, generated: &Generated) -> Result<KeyRecord, KeyError> {
    let mut record = KeyRecord {
        kid: generated.kid.clone(),
        purpose,
        algorithm: generated.algorithm,
        state: KeyState::Pending,
        public_jwk: generated.public_jwk.clone(),
        sealed: envelope::seal(
            master,
            &envelope::Context { table: "signing_keys", purpose: purpose.as_str(), id: &generated.kid },
            &generated.private,
        )
        .map_err(|_: SealError| KeyError::Unusable("sealing a new key failed".into()))?,
        created_at: None,
        activates_at: None,
        signs_until: None,
        longest_lifetime: 1,
        retires_at: None,
        revoked_at: None,
        revocation_reason: None,
    };
    record.longest_lifetime = longest_lifetime(purpose, None);
    Ok(record)
}

/// How long something signed with a new key of `purpose` may live, in seconds, where resource servers let tokens live for `longest`. The
/// issuers raise it to what they are set to ([`ring`]).
fn longest_lifetime(purpose: Purpose, longest: Option<u32>) -> u32 {
    match purpose {
        Purpose::Token => longest.unwrap_or(1),
        Purpose::Revocation => HEAD_SECONDS,
    }
}

fn signing_key_context(record: &KeyRecord) -> envelope::Context<'_> {
    envelope::Context { table: "signing_keys", purpose: record.purpose.as_str(), id: &record.kid }
}

/// Why keys can't be used.
#[derive(Debug)]
pub enum KeyError {
    /// The database.
    Storage(StorageError),
    /// `MASTER_KEY` isn't the one that the rows were sealed with.
    WrongMasterKey,
    /// A sealed value was changed or moved; names the row.
    Damaged(String),
    /// No key signs for this purpose.
    NoActiveKey(Purpose),
    /// A key that opens and isn't one: says which and why.
    Unusable(String),
}

impl KeyError {
    fn opening(error: OpenError, row: &str) -> Self {
        match error {
            OpenError::DataKey => Self::WrongMasterKey,
            OpenError::Value => Self::Damaged(row.to_owned()),
        }
    }
}

impl From<StorageError> for KeyError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::WrongMasterKey => f.write_str(
                "MASTER_KEY does not open the keys in this database: set it to the one that they were sealed with",
            ),
            Self::Damaged(row) => write!(f, "the sealed value of `{row}` was changed or moved: restore that row"),
            Self::NoActiveKey(purpose) => {
                write!(f, "there is no active {} key: run `countersign bootstrap`", purpose.as_str())
            }
            Self::Unusable(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for KeyError {}
