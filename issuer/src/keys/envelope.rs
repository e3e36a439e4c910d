//! Envelope encryption: each value under a data key of its own, each data key under the master key. Both AES-256-GCM with a
//! random nonce, both bound to the row they stand in, so that ciphertext moved to another row doesn't open.
//!
//! A sealed part is: version (1 byte, 1) ‖ nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes).

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::MasterKey;
use crate::domain::signing_key::Sealed;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;

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
    fn associated_data(&self, part: Part) -> Aad<Vec<u8>> {
        let part = match part {
            Part::DataKey => "data key",
            Part::Value => "value",
        };
        let Self { table, purpose, id } = self;
        Aad::from(format!("countersign envelope v1\0{part}\0{table}\0{purpose}\0{id}").into_bytes())
    }
}

/// The cipher or the source of randomness failed, which neither does while the process is in order.
#[derive(Debug)]
pub struct SealError;

/// Why a sealed value doesn't open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// Its data key doesn't: another master key, or a changed or moved data key.
    DataKey,
    /// The data key does, the value doesn't: it was changed or moved.
    Value,
}

/// Seals `value` for the place `context`.
pub fn seal(master: &MasterKey, context: &Context<'_>, value: &[u8]) -> Result<Sealed, SealError> {
    let mut data_key = Zeroizing::new([0; 32]);
    rand::fill(&mut *data_key).map_err(|_| SealError)?;
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, &*data_key).map_err(|_| SealError)?;
    let value = seal_part(&cipher, context.associated_data(Part::Value), value)?;
    let master = master.cipher().ok_or(SealError)?;
    let data_key = seal_part(&master, context.associated_data(Part::DataKey), &*data_key)?;
    Ok(Sealed { data_key, value })
}

/// Opens what [`seal`] made for the same place.
pub fn open(
    master: &MasterKey,
    context: &Context<'_>,
    sealed: &Sealed,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let master = master.cipher().ok_or(OpenError::DataKey)?;
    let data_key = open_part(&master, context.associated_data(Part::DataKey), &sealed.data_key)
        .ok_or(OpenError::DataKey)?;
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, &data_key).map_err(|_| OpenError::DataKey)?;
    open_part(&cipher, context.associated_data(Part::Value), &sealed.value).ok_or(OpenError::Value)
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
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &*self.0).map_err(|_| SealError)?;
        seal_part(&cipher, context.associated_data(Part::Value), value)
    }

    /// Opens what [`SealKey::seal`] made for the same place; `None`: it was changed or moved.
    pub fn open(&self, context: &Context<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &*self.0).ok()?;
        open_part(&cipher, context.associated_data(Part::Value), sealed)
    }
}

fn seal_part(cipher: &RandomizedNonceKey, aad: Aad<Vec<u8>>, plain: &[u8]) -> Result<Vec<u8>, SealError> {
    // Sealed in place, so no copy of the plaintext is left; and never grown, which would leave one too.
    let mut text = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
    text.extend_from_slice(plain);
    let nonce = cipher.seal_in_place_append_tag(aad, &mut text).map_err(|_| SealError)?;
    let mut part = Vec::with_capacity(1 + NONCE_BYTES + text.len());
    part.push(VERSION);
    part.extend_from_slice(nonce.as_ref());
    part.extend_from_slice(&text);
    Ok(part)
}

fn open_part(cipher: &RandomizedNonceKey, aad: Aad<Vec<u8>>, part: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
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
    use data_encoding::BASE64;

    fn master(byte: u8) -> MasterKey {
        MasterKey::from_base64(&BASE64.encode(&[byte; 32])).unwrap()
    }

    const HERE: Context<'_> = Context { table: "signing_keys", purpose: "token", id: "a" };

    #[test]
    fn opens_where_it_was_sealed_and_nowhere_else() {
        let sealed = seal(&master(1), &HERE, b"private").unwrap();
        assert_eq!(open(&master(1), &HERE, &sealed).unwrap().as_slice(), b"private");

        assert_eq!(open(&master(2), &HERE, &sealed).unwrap_err(), OpenError::DataKey);
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
        let swapped = Sealed { data_key: one.data_key.clone(), value: other.value };
        assert_eq!(open(&master(1), &HERE, &swapped).unwrap_err(), OpenError::Value);

        for place in 0..one.value.len() {
            let mut changed = one.clone();
            changed.value[place] ^= 1;
            assert_eq!(open(&master(1), &HERE, &changed).unwrap_err(), OpenError::Value, "byte {place}");
        }
        for length in 0..one.value.len() {
            let cut = Sealed { data_key: one.data_key.clone(), value: one.value[..length].to_vec() };
            assert_eq!(open(&master(1), &HERE, &cut).unwrap_err(), OpenError::Value, "length {length}");
        }
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
