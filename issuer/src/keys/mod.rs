//! Key material: made here, sealed here, used here.
//!
//! Private parts are in memory only inside [`SigningKey`] and in the database only sealed under [`MasterKey`] ([`envelope`]).

mod client;
pub mod envelope;
mod generate;
pub mod import;
mod master;
mod provision;
mod public;
mod queue;
mod rewrap;
mod ring;
pub mod rotation;
mod schedule;
mod signer;
mod verify;

use std::fmt;

pub use client::client_jwk;
pub use master::{KeyEncryption, LocalKey, MasterKey, TokenKey, TokenSettings, UnwrapError, WrapError};
pub use provision::{ServerSecrets, load_secrets, provision};
pub use public::{Jwks, rsa_bits, thumbprint};
pub use rewrap::{Rewrapped, rewrap};
pub use ring::{Keyring, Keys, Promise, Ring};
pub use signer::{SignError, Signer, SigningKey};
pub use verify::check_signature;

use countersign_shared::Jwk;

use crate::domain::signing_key::{HEAD_SECONDS, KeyRecord, KeyState, Purpose, Sealed};
use crate::storage::{StorageError, Transaction, sealed, signing_keys};
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
        if key.kid() != record.kid || key.algorithm() != record.algorithm {
            return Err(KeyError::Damaged(record.kid.clone()));
        }
    }
    Ok(jwks)
}

/// Holds up every other process that would make keys, until the transaction ends, and sees to it that what is made is sealed under the master
/// key that is in force: the next one, once a move to it has begun.
async fn lock(transaction: &mut Transaction, master: &MasterKey) -> Result<(), KeyError> {
    signing_keys::lock(transaction).await?;
    if let Some(next) = master.next()
        && sealed::is_in_use(transaction, next.id()).await?
    {
        master.seen(next.id());
    }
    Ok(())
}

/// The private part of a key that is kept; `None` where only the public part is, and is the one that was sealed.
fn open(master: &MasterKey, record: &KeyRecord) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    let place = Place::of(record)?;
    let value = envelope::open(master, &place.context(), &record.sealed)
        .map_err(|error| KeyError::opening(error, &record.kid, master))?;
    match record.public_only {
        false => Ok(Some(value)),
        true if value.as_slice() == record.public_jwk.as_bytes() => Ok(None),
        true => Err(KeyError::Damaged(record.kid.clone())),
    }
}

/// A new key as it is to be kept: sealed, pending and without a date.
fn seal(master: &MasterKey, purpose: Purpose, generated: &Generated) -> Result<KeyRecord, KeyError> {
    let mut record = KeyRecord {
        kid: generated.kid.clone(),
        purpose,
        algorithm: generated.algorithm,
        state: KeyState::Pending,
        public_jwk: generated.public_jwk.clone(),
        public_only: generated.private.is_empty(),
        sealed: Sealed::default(),
        created_at: None,
        activates_at: None,
        signs_until: None,
        longest_lifetime: longest_lifetime(purpose, None),
        retires_at: None,
        revoked_at: None,
        revocation_reason: None,
    };
    let place = Place::of(&record)?;
    let value = if record.public_only { record.public_jwk.as_bytes() } else { generated.private.as_slice() };
    record.sealed = envelope::seal(master, &place.context(), value)?;
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

/// Where the sealed value of a signing key stands. It is bound to its kid and its public key: to the kid alone where that is the thumbprint of
/// the key (RFC 7638), and to both where another system has named it.
struct Place {
    purpose: &'static str,
    id: String,
}

impl Place {
    fn of(record: &KeyRecord) -> Result<Self, KeyError> {
        let key =
            Jwk::parse(record.public_jwk.as_bytes()).map_err(|_| KeyError::Damaged(record.kid.clone()))?;
        let thumbprint = public::kid_of(&key);
        let id = if thumbprint == record.kid {
            thumbprint
        } else {
            format!("{} {thumbprint}", record.kid) // no kid has a space
        };
        let purpose = match (record.purpose, record.public_only) {
            (Purpose::Token, true) => "token, public part",
            (Purpose::Revocation, true) => "revocation, public part",
            (purpose, false) => purpose.as_str(),
        };
        Ok(Self { purpose, id })
    }

    fn context(&self) -> envelope::Context<'_> {
        envelope::Context { table: "signing_keys", purpose: self.purpose, id: &self.id }
    }
}

/// Why keys can't be used.
#[derive(Debug)]
pub enum KeyError {
    /// The database.
    Storage(StorageError),
    /// A row was sealed under another master key.
    WrongMasterKey {
        /// That one's id, where the row says it.
        sealed_under: Option<String>,
        /// Those that were given.
        given: String,
    },
    /// What keeps the master key can't be used: says why.
    MasterKeyUnavailable(String),
    /// A sealed value was changed or moved; names the row.
    Damaged(String),
    /// No key signs for this purpose.
    NoActiveKey(Purpose),
    /// A key that opens and isn't one: says which and why.
    Unusable(String),
}

impl KeyError {
    fn opening(error: OpenError, row: &str, master: &MasterKey) -> Self {
        match error {
            OpenError::MasterKey(sealed_under) => Self::WrongMasterKey { sealed_under, given: master.ids() },
            OpenError::DataKey | OpenError::Value => Self::Damaged(row.to_owned()),
            OpenError::Unavailable(problem) => Self::MasterKeyUnavailable(problem),
        }
    }
}

impl From<SealError> for KeyError {
    fn from(SealError(problem): SealError) -> Self {
        Self::MasterKeyUnavailable(problem)
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
            Self::WrongMasterKey { sealed_under: Some(sealed_under), given } => write!(
                f,
                "MASTER_KEY does not open the keys in this database: it is {given}, and they were sealed under {sealed_under}; set it to that one"
            ),
            Self::WrongMasterKey { sealed_under: None, given } => write!(
                f,
                "MASTER_KEY does not open the keys in this database: it is {given}; set it to the one that they were sealed under"
            ),
            Self::MasterKeyUnavailable(problem) => write!(f, "the master key can't be used: {problem}"),
            Self::Damaged(row) => {
                write!(f, "the sealed value of `{row}` was changed or moved: restore that row")
            }
            Self::NoActiveKey(purpose) => {
                write!(f, "there is no active {} key: run `countersign bootstrap`", purpose.as_str())
            }
            Self::Unusable(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for KeyError {}
