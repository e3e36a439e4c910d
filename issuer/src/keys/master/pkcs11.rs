//! A master key inside a PKCS#11 token (OASIS PKCS #11 2.40), such as an HSM: data keys go in and come out, the key itself never does.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::rand;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::{AuthPin, Ulong};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;
use zeroize::Zeroizing;

use super::super::envelope::{NONCE_BYTES, VERSION};
use super::{DataKey, KeyEncryption, UnwrapError, WrapError};
use crate::config::Secret;

const TAG_BYTES: usize = 16;

/// Where the key is.
#[derive(Debug, Clone)]
pub struct TokenSettings {
    /// The module: a shared library of the token's maker.
    pub module: PathBuf,
    /// `CKA_LABEL` of the token: printable ASCII, no slash.
    pub token: String,
    /// `CKA_LABEL` of the AES key in it: printable ASCII.
    pub key: String,
    /// The user's PIN.
    pub pin: Secret,
}

/// An AES-256 key in a token. Connects when it is first used, and again when the connection was lost.
pub struct TokenKey {
    settings: TokenSettings,
    id: String,
    state: Mutex<State>,
}

enum State {
    Closed,
    Open(Session, ObjectHandle),
    /// The PIN was refused. It isn't tried again: a token locks itself after a few attempts.
    PinRefused,
}

impl TokenKey {
    /// Doesn't connect yet.
    pub fn new(settings: TokenSettings) -> Self {
        let id = format!("pkcs11:{}/{}", settings.token, settings.key);
        Self { settings, id, state: Mutex::new(State::Closed) }
    }

    /// Does `work` with the key; anew on a fresh connection where the one that is there fails.
    fn with_key<T>(
        &self,
        work: impl Fn(&Session, ObjectHandle) -> Result<T, Error>,
    ) -> Result<Result<T, Error>, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(session, key) = &*state {
            match work(session, *key) {
                Err(error) if !is_refusal(&error) => *state = State::Closed,
                done => return Ok(done),
            }
        }
        let (session, key) = self.connect(&mut state)?;
        let done = work(&session, key);
        *state = State::Open(session, key);
        Ok(done)
    }

    fn connect(&self, state: &mut State) -> Result<(Session, ObjectHandle), String> {
        let TokenSettings { module, token, key, pin } = &self.settings;
        let pin_refused =
            || format!("the PKCS#11 token `{token}` refuses PKCS11_PIN: correct it, and restart");
        if matches!(state, State::PinRefused) {
            return Err(pin_refused());
        }
        let failed = |doing: &str, error: &Error| format!("{doing} failed: {}", shown(error));
        let context = context(module)?;
        let listing = |error| failed(&format!("listing the tokens of {}", module.display()), &error);
        let mut slots = context.get_slots_with_initialized_token().map_err(listing)?;
        slots.retain(|slot| context.get_token_info(*slot).is_ok_and(|info| info.label() == token));
        let [slot] = slots.as_slice() else {
            let count = if slots.is_empty() { "no token" } else { "several tokens" };
            return Err(format!(
                "{} has {count} labelled `{token}`: see PKCS11_TOKEN_LABEL",
                module.display()
            ));
        };
        let session = context
            .open_ro_session(*slot)
            .map_err(|error| failed(&format!("opening the PKCS#11 token `{token}`"), &error))?;
        match session.login(UserType::User, Some(&AuthPin::new(pin.expose().into()))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(Error::Pkcs11(
                RvError::PinIncorrect | RvError::PinLocked | RvError::PinLenRange | RvError::PinInvalid,
                _,
            )) => {
                *state = State::PinRefused;
                return Err(pin_refused());
            }
            Err(error) => return Err(failed(&format!("logging in to the PKCS#11 token `{token}`"), &error)),
        }
        let wanted = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Label(key.clone().into_bytes()),
        ];
        let finding = |error| failed(&format!("looking for the key `{key}` in the token `{token}`"), &error);
        let found = session.find_objects(&wanted).map_err(finding)?;
        let [handle] = found.as_slice() else {
            let count = if found.is_empty() { "no AES key" } else { "several AES keys" };
            return Err(format!(
                "the PKCS#11 token `{token}` has {count} labelled `{key}`: see PKCS11_KEY_LABEL"
            ));
        };
        let length = session.get_attributes(*handle, &[AttributeType::ValueLen]).map_err(finding)?;
        if !length.iter().any(|value| matches!(value, Attribute::ValueLen(bytes) if **bytes == 32)) {
            return Err(format!("the key `{key}` in the PKCS#11 token `{token}` must have 256 bits"));
        }
        Ok((session, *handle))
    }

    fn encrypt(&self, data_key: &DataKey, associated_data: &[u8]) -> Result<Vec<u8>, String> {
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).map_err(|_| "the system has no randomness".to_owned())?;
        let encrypted = self.with_key(|session, key| {
            let mut nonce = nonce;
            let parameters = GcmParams::new(&mut nonce, associated_data, tag_bits())?;
            // The nonce is read after the call, since a token may insist on one of its own.
            let mechanism = Mechanism::AesGcm(parameters);
            let text = session.encrypt(&mechanism, key, &**data_key)?;
            drop(mechanism);
            Ok((nonce, text))
        })?;
        let (nonce, text) =
            encrypted.map_err(|error| format!("{}: encrypting failed: {}", self.id, shown(&error)))?;
        let mut wrapped = Vec::with_capacity(1 + NONCE_BYTES + text.len());
        wrapped.push(VERSION);
        wrapped.extend_from_slice(&nonce);
        wrapped.extend_from_slice(&text);
        Ok(wrapped)
    }

    fn decrypt(&self, wrapped: &[u8], associated_data: &[u8]) -> Result<DataKey, Failure> {
        let parts = wrapped.strip_prefix(&[VERSION]).and_then(|rest| rest.split_first_chunk::<NONCE_BYTES>());
        let (nonce, text) = parts.ok_or(Failure::Refused)?;
        let mut data_key = Zeroizing::new([0; 32]);
        if text.len() != data_key.len() + TAG_BYTES {
            return Err(Failure::Refused);
        }
        let decrypted = self.with_key(|session, key| {
            let mut nonce = *nonce;
            let parameters = GcmParams::new(&mut nonce, associated_data, tag_bits())?;
            session.decrypt(&Mechanism::AesGcm(parameters), key, text).map(Zeroizing::new)
        });
        match decrypted.map_err(Failure::Unavailable)? {
            Ok(opened) if opened.len() == data_key.len() => {
                data_key.copy_from_slice(&opened);
                Ok(data_key)
            }
            Ok(_) => Err(Failure::Refused),
            Err(error) if is_refusal(&error) => Err(Failure::Refused),
            Err(error) => Err(Failure::Unclear(error)),
        }
    }
}

enum Failure {
    Refused,
    Unavailable(String),
    /// The token says that something failed: its own working, or the check of the tag.
    Unclear(Error),
}

impl KeyEncryption for TokenKey {
    fn id(&self) -> &str {
        &self.id
    }

    fn wrap(&self, data_key: &DataKey, associated_data: &[u8]) -> Result<Vec<u8>, WrapError> {
        off_the_async_threads(|| self.encrypt(data_key, associated_data)).map_err(WrapError)
    }

    fn unwrap(&self, wrapped: &[u8], associated_data: &[u8]) -> Result<DataKey, UnwrapError> {
        off_the_async_threads(|| match self.decrypt(wrapped, associated_data) {
            Ok(data_key) => Ok(data_key),
            Err(Failure::Refused) => Err(UnwrapError::Refused),
            Err(Failure::Unavailable(problem)) => Err(UnwrapError::Unavailable(problem)),
            // Many tokens have one word for everything. If the key works, it was the tag.
            Err(Failure::Unclear(error)) => {
                let works = self
                    .encrypt(&Zeroizing::new([0; 32]), b"countersign probe")
                    .is_ok_and(|probe| self.decrypt(&probe, b"countersign probe").is_ok());
                Err(if works {
                    UnwrapError::Refused
                } else {
                    UnwrapError::Unavailable(format!("{}: decrypting failed: {}", self.id, shown(&error)))
                })
            }
        })
    }
}

/// Whether the token says that it is the ciphertext.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Pkcs11(RvError::EncryptedDataInvalid | RvError::EncryptedDataLenRange, _))
}

const fn tag_bits() -> Ulong {
    Ulong::new(8 * TAG_BYTES as u64)
}

/// The words of the standard; the library's own text quotes whole paragraphs of it.
fn shown(error: &Error) -> String {
    match error {
        Error::Pkcs11(value, function) => format!("{function:?} says {value:?}"),
        other => other.to_string(),
    }
}

/// The module, loaded and initialized once in a process (PKCS #11 2.40 §5.4).
fn context(module: &Path) -> Result<Pkcs11, String> {
    static LOADED: Mutex<Option<HashMap<PathBuf, Pkcs11>>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    if let Some(context) = loaded.get(module) {
        return Ok(context.clone());
    }
    let failed = |error: Error| {
        format!("the PKCS#11 module {} can't be used: {}; see PKCS11_MODULE", module.display(), shown(&error))
    };
    let context = Pkcs11::new(module).map_err(failed)?;
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(failed(error)),
    }
    loaded.insert(module.to_owned(), context.clone());
    Ok(context)
}

/// A token's answer may take long: the thread's other tasks move to another one meanwhile.
fn off_the_async_threads<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => block_in_place(work),
        _ => work(),
    }
}
