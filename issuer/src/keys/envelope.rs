//! Envelope encryption: each value under a data key of its own, each data key under the master key ([`super::master`]). Both AES-256-GCM with a
//! random nonce, both bound to the row they stand in, so that ciphertext moved to another row doesn't open. The row also names the master
//! key, so that a wrong one shows as such.
//!
//! A sealed part is: version (1 byte, 1) ‖ nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes).

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::MasterKey;
use super::master::{DataKey, UnwrapError, WrapError};
use crate::domain::signing_key::Sealed;

pub(super) const VERSION: u8 = 1;
pub(super) const NONCE_BYTES: usize = 12;

/// Where a sealed value stands.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The table.
    pub table: &'a str,
    /// What the value is for.
    pub purpose: &'a str,
    /// The row's key.
    pub id: &'a str,
}

/// Which of the two parts is bound.
#[derive(Debug, Clone, Copy)]
enum Part {
    DataKey,
    Value,
}

impl Context<'_> {
    /// None of the names contains a NUL, so the parts can't run into each other.
    fn associated_data(&self, part: Part) -> Vec<u8> {
        let part = match part {
            Part::DataKey => "data key",
            Part::Value => "value",
        };
        let Self { table, purpose, id } = self;
        format!("countersign envelope v1\0{part}\0{table}\0{purpose}\0{id}").into_bytes()
    }
}

/// Why a value can't be sealed: says what failed.
#[derive(Debug)]
pub struct SealError(pub String);

impl SealError {
    fn cryptography() -> Self {
        Self("the system's cryptography failed".to_owned())
    }
}

impl From<WrapError> for SealError {
    fn from(WrapError(problem): WrapError) -> Self {
        Self(problem)
    }
}

/// Why a sealed value doesn't open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// It was sealed under a master key that isn't known here: its id, where the row says it.
    MasterKey(Option<String>),
    /// The master key is the one that the row names, and its data key doesn't open: it was changed or moved.
    DataKey,
    /// The data key does, the value doesn't: it was changed or moved.
    Value,
    /// What keeps the master key can't be reached: says why.
    Unavailable(String),
}

/// Seals `value` for the place `context`.
pub fn seal(master: &MasterKey, context: &Context<'_>, value: &[u8]) -> Result<Sealed, SealError> {
    let mut data_key = Zeroizing::new([0; 32]);
    rand::fill(&mut *data_key).map_err(|_| SealError::cryptography())?;
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, &*data_key).map_err(|_| SealError::cryptography())?;
    let value = seal_part(&cipher, Aad::from(context.associated_data(Part::Value)), value)?;
    let key = master.sealing();
    let data_key = key.wrap(&data_key, &context.associated_data(Part::DataKey))?;
    Ok(Sealed { master_key_id: Some(key.id().to_owned()), data_key, value })
}

/// Opens what [`seal`] made for the same place.
pub fn open(
    master: &MasterKey,
    context: &Context<'_>,
    sealed: &Sealed,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let data_key = unwrap(master, context, sealed)?;
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, &*data_key).map_err(|_| OpenError::DataKey)?;
    let value = Aad::from(context.associated_data(Part::Value));
    open_part(&cipher, value, &sealed.value).ok_or(OpenError::Value)
}

/// `sealed` with its data key under the next master key. The value stays as it is, and is opened to see that it is sound.
pub fn rewrap(master: &MasterKey, context: &Context<'_>, sealed: &Sealed) -> Result<Sealed, RewrapError> {
    let next = master.next().ok_or_else(|| SealError("there is no next master key".to_owned()))?;
    open(master, context, sealed)?;
    let data_key = unwrap(master, context, sealed)?;
    let data_key = next.wrap(&data_key, &context.associated_data(Part::DataKey)).map_err(SealError::from)?;
    Ok(Sealed { master_key_id: Some(next.id().to_owned()), data_key, value: sealed.value.clone() })
}

/// Why a data key isn't under the next master key yet.
#[derive(Debug)]
pub enum RewrapError {
    /// It doesn't open.
    Open(OpenError),
    /// It opens, and can't be sealed again.
    Seal(SealError),
}

impl From<OpenError> for RewrapError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<SealError> for RewrapError {
    fn from(error: SealError) -> Self {
        Self::Seal(error)
    }
}

fn unwrap(master: &MasterKey, context: &Context<'_>, sealed: &Sealed) -> Result<DataKey, OpenError> {
    let named = sealed.master_key_id.as_deref();
    let associated_data = context.associated_data(Part::DataKey);
    let mut known = false;
    for key in master.candidates(named) {
        known = true;
        match key.unwrap(&sealed.data_key, &associated_data) {
            Ok(data_key) => {
                master.seen(key.id());
                return Ok(data_key);
            }
            Err(UnwrapError::Refused) => {}
            Err(UnwrapError::Unavailable(problem)) => return Err(OpenError::Unavailable(problem)),
        }
    }
    Err(match named {
        Some(_) if known => OpenError::DataKey,
        other => OpenError::MasterKey(other.map(str::to_owned)),
    })
}

/// A key of the installation's, for many small values of which each stands in a row of its own.
pub struct SealKey(Zeroizing<[u8; 32]>);

impl SealKey {
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        if bytes.len() != key.len() {
            return None;
        }
        key.copy_from_slice(bytes);
        Some(Self(key))
    }

    /// Seals `value` for the place `context`.
    pub fn seal(&self, context: &Context<'_>, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let cipher =
            RandomizedNonceKey::new(&AES_256_GCM, &*self.0).map_err(|_| SealError::cryptography())?;
        seal_part(&cipher, Aad::from(context.associated_data(Part::Value)), value)
    }

    /// Opens what [`SealKey::seal`] made for the same place; `None`: it was changed or moved.
    pub fn open(&self, context: &Context<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &*self.0).ok()?;
        open_part(&cipher, Aad::from(context.associated_data(Part::Value)), sealed)
    }
}

pub(super) fn seal_part<A: AsRef<[u8]>>(
    cipher: &RandomizedNonceKey,
    aad: Aad<A>,
    plain: &[u8],
) -> Result<Vec<u8>, SealError> {
    // Sealed in place, so no copy of the plaintext is left; and never grown, which would leave one too.
    let mut text = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
    text.extend_from_slice(plain);
    let nonce = cipher.seal_in_place_append_tag(aad, &mut text).map_err(|_| SealError::cryptography())?;
    let mut part = Vec::with_capacity(1 + NONCE_BYTES + text.len());
    part.push(VERSION);
    part.extend_from_slice(nonce.as_ref());
    part.extend_from_slice(&text);
    Ok(part)
}

pub(super) fn open_part<A: AsRef<[u8]>>(
    cipher: &RandomizedNonceKey,
    aad: Aad<A>,
    part: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, text) = part.strip_prefix(&[VERSION])?.split_at_checked(NONCE_BYTES)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut text = Zeroizing::new(text.to_vec());
    let length = cipher.open_in_place(nonce, aad, &mut text).ok()?.len();
    text.truncate(length);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeyEncryption as _, LocalKey};
    use data_encoding::BASE64;

    fn local(byte: u8) -> LocalKey {
        LocalKey::from_base64(&BASE64.encode(&[byte; 32])).unwrap()
    }

    fn master(byte: u8) -> MasterKey {
        MasterKey::new(Box::new(local(byte)), None)
    }

    const HERE: Context<'_> = Context { table: "signing_keys", purpose: "token", id: "a" };

    #[test]
    fn opens_where_it_was_sealed_and_nowhere_else() {
        let sealed = seal(&master(1), &HERE, b"private").unwrap();
        assert_eq!(open(&master(1), &HERE, &sealed).unwrap().as_slice(), b"private");

        let named = OpenError::MasterKey(Some(local(1).id().to_owned()));
        assert_eq!(open(&master(2), &HERE, &sealed).unwrap_err(), named);
        let unnamed = Sealed { master_key_id: None, ..sealed.clone() };
        assert_eq!(open(&master(1), &HERE, &unnamed).unwrap().as_slice(), b"private");
        assert_eq!(open(&master(2), &HERE, &unnamed).unwrap_err(), OpenError::MasterKey(None));
        // The name is a hint and no more: under another's it doesn't open.
        let renamed = Sealed { master_key_id: Some(local(2).id().to_owned()), ..sealed.clone() };
        assert_eq!(open(&master(2), &HERE, &renamed).unwrap_err(), OpenError::DataKey);
        for elsewhere in [
            Context { table: "server_secrets", ..HERE },
            Context { purpose: "revocation", ..HERE },
            Context { id: "b", ..HERE },
        ] {
            assert_eq!(open(&master(1), &elsewhere, &sealed).unwrap_err(), OpenError::DataKey);
        }
    }

    #[test]
    fn a_changed_or_swapped_part_does_not_open() {
        let one = seal(&master(1), &HERE, b"private").unwrap();
        let other = seal(&master(1), &HERE, b"another").unwrap();
        let swapped = Sealed { value: other.value, ..one.clone() };
        assert_eq!(open(&master(1), &HERE, &swapped).unwrap_err(), OpenError::Value);

        for place in 0..one.value.len() {
            let mut changed = one.clone();
            changed.value[place] ^= 1;
            assert_eq!(open(&master(1), &HERE, &changed).unwrap_err(), OpenError::Value, "byte {place}");
        }
        for length in 0..one.value.len() {
            let cut = Sealed { value: one.value[..length].to_vec(), ..one.clone() };
            assert_eq!(open(&master(1), &HERE, &cut).unwrap_err(), OpenError::Value, "length {length}");
        }
        for length in 0..one.data_key.len() {
            let cut = Sealed { data_key: one.data_key[..length].to_vec(), ..one.clone() };
            assert_eq!(open(&master(1), &HERE, &cut).unwrap_err(), OpenError::DataKey, "length {length}");
        }
    }

    #[test]
    fn a_rewrapped_data_key_opens_under_the_next_master_key_only() {
        let moving = MasterKey::new(Box::new(local(1)), Some(Box::new(local(2))));
        let before = seal(&moving, &HERE, b"private").unwrap();
        assert_eq!(before.master_key_id.as_deref(), Some(local(1).id()), "the move hasn't begun");
        let after = rewrap(&moving, &HERE, &before).unwrap();
        assert_eq!(after.value, before.value);
        assert!(open(&master(1), &HERE, &after).is_err() && open(&master(2), &HERE, &before).is_err());
        assert_eq!(open(&master(2), &HERE, &after).unwrap().as_slice(), b"private");
        assert_eq!(open(&moving, &HERE, &after).unwrap().as_slice(), b"private");
        let new = seal(&moving, &HERE, b"private").unwrap();
        assert_eq!(new.master_key_id.as_deref(), Some(local(2).id()), "a row of the next key was seen");
        assert!(matches!(rewrap(&master(1), &HERE, &before), Err(RewrapError::Seal(_))));

        let damaged = Sealed { value: vec![0], ..before };
        assert!(matches!(rewrap(&moving, &HERE, &damaged), Err(RewrapError::Open(OpenError::Value))));
    }

    #[test]
    fn a_seal_key_opens_where_it_was_sealed_and_nowhere_else() {
        let key = SealKey::new(&[1; 32]).unwrap();
        let sealed = key.seal(&HERE, b"answer").unwrap();
        assert_eq!(key.open(&HERE, &sealed).unwrap().as_slice(), b"answer");
        assert!(key.open(&Context { id: "b", ..HERE }, &sealed).is_none());
        assert!(SealKey::new(&[2; 32]).unwrap().open(&HERE, &sealed).is_none());
        assert!(SealKey::new(&[1; 31]).is_none());
    }

    #[test]
    fn no_two_seals_are_alike() {
        let [one, other] = [(); 2].map(|()| seal(&master(1), &HERE, b"private").unwrap());
        assert_ne!(one.value, other.value);
        assert_ne!(one.data_key, other.data_key);
    }
}
