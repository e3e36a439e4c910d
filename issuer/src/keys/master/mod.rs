//! The key that seals all others: where it is kept, and which one it is during a move from one to another.

mod local;
mod pkcs11;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

pub use local::LocalKey;
pub use pkcs11::{TokenKey, TokenSettings};

/// A 256-bit data key.
pub(super) type DataKey = Zeroizing<[u8; 32]>;

/// Encrypts data keys under a key of its own, which it may keep where nobody can read it.
///
/// What it makes is: version (1 byte, 1) ‖ nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes), AES-256-GCM. Calls may block for as long as a device takes.
pub trait KeyEncryption: Send + Sync {
    /// Names the key; no secret. Every row that is sealed under it has this name.
    fn id(&self) -> &str;

    /// Encrypts `data_key`, bound to `associated_data`.
    fn wrap(&self, data_key: &DataKey, associated_data: &[u8]) -> Result<Vec<u8>, WrapError>;

    /// Decrypts what [`KeyEncryption::wrap`] made with the same `associated_data`.
    fn unwrap(&self, wrapped: &[u8], associated_data: &[u8]) -> Result<DataKey, UnwrapError>;
}

/// Why a data key can't be wrapped: says what is wrong with the provider.
#[derive(Debug)]
pub struct WrapError(pub String);

/// Why a wrapped data key doesn't open.
#[derive(Debug)]
pub enum UnwrapError {
    /// It was wrapped by another key or for another place, or it was changed.
    Refused,
    /// The provider can't say: what is wrong with it.
    Unavailable(String),
}

/// The master key in use; while everything is re-sealed under another one (`countersign keys rewrap`), that one too.
pub struct MasterKey {
    current: Box<dyn KeyEncryption>,
    next: Option<Box<dyn KeyEncryption>>,
    /// Whether the move has begun: from then on, everything new is sealed under `next`.
    moving: AtomicBool,
}

impl MasterKey {
    /// `next`: the one to move to, if a move is under way or planned.
    pub fn new(current: Box<dyn KeyEncryption>, next: Option<Box<dyn KeyEncryption>>) -> Self {
        Self { current, next, moving: AtomicBool::new(false) }
    }

    /// What new values are sealed under.
    pub fn sealing(&self) -> &dyn KeyEncryption {
        match &self.next {
            Some(next) if self.moving.load(Ordering::Relaxed) => next.as_ref(),
            _ => self.current.as_ref(),
        }
    }

    /// The one to move to.
    pub fn next(&self) -> Option<&dyn KeyEncryption> {
        self.next.as_deref()
    }

    /// Those that may open a row that was sealed under `id`; a row from before rows had names of master keys may be under any.
    pub(super) fn candidates(&self, id: Option<&str>) -> impl Iterator<Item = &dyn KeyEncryption> {
        let all = [Some(self.current.as_ref()), self.next.as_deref()].into_iter().flatten();
        all.filter(move |key| id.is_none_or(|id| id == key.id()))
    }

    /// The ids of those that are known, for messages.
    pub(super) fn ids(&self) -> String {
        match &self.next {
            None => self.current.id().to_owned(),
            Some(next) => format!("{} and {}", self.current.id(), next.id()),
        }
    }

    /// Whoever has seen a row under the next key knows that the move has begun.
    pub(super) fn seen(&self, id: &str) {
        if self.next.as_ref().is_some_and(|next| next.id() == id) {
            self.moving.store(true, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("ids", &self.ids()).finish_non_exhaustive()
    }
}
