//! A master key in this process's memory: `MASTER_KEY`.

use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use aws_lc_rs::hmac;
use data_encoding::{BASE64, HEXLOWER};
use zeroize::Zeroizing;

use super::super::envelope::{open_part, seal_part};
use super::{DataKey, KeyEncryption, UnwrapError, WrapError};

/// 256 bits from the environment or a file; wiped when dropped.
pub struct LocalKey {
    key: DataKey,
    id: String,
}

impl LocalKey {
    /// From the base64 (RFC 4648 §4) of 32 bytes.
    pub fn from_base64(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(BASE64.decode(text.as_bytes()).ok()?);
        let mut key = Zeroizing::new([0; 32]);
        if bytes.len() != key.len() {
            return None;
        }
        key.copy_from_slice(&bytes);
        // A pseudorandom function of the key: it names the key and says nothing about it.
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*key), b"countersign master key id v1");
        let id = format!("local:{}", HEXLOWER.encode(&tag.as_ref()[..8]));
        Some(Self { key, id })
    }

    fn cipher(&self) -> Option<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, &*self.key).ok()
    }
}

impl KeyEncryption for LocalKey {
    fn id(&self) -> &str {
        &self.id
    }

    fn wrap(&self, data_key: &DataKey, associated_data: &[u8]) -> Result<Vec<u8>, WrapError> {
        self.cipher()
            .and_then(|cipher| seal_part(&cipher, Aad::from(associated_data), &**data_key).ok())
            .ok_or_else(|| WrapError("the system's cryptography failed".to_owned()))
    }

    fn unwrap(&self, wrapped: &[u8], associated_data: &[u8]) -> Result<DataKey, UnwrapError> {
        let opened = self.cipher().and_then(|cipher| open_part(&cipher, Aad::from(associated_data), wrapped));
        let mut data_key = Zeroizing::new([0; 32]);
        match opened {
            Some(opened) if opened.len() == data_key.len() => data_key.copy_from_slice(&opened),
            _ => return Err(UnwrapError::Refused),
        }
        Ok(data_key)
    }
}
