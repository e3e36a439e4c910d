//! Where the master key is kept, and the one to move to.

use super::sources::Reader;
use crate::keys::{KeyEncryption, LocalKey, MasterKey, TokenKey, TokenSettings};

/// Begins the names of the next master key's settings.
const NEW: &str = "NEW_";
/// PKCS #11 2.40 §3.2: a token's label has 32 bytes.
const MAX_TOKEN_LABEL: usize = 32;
const MAX_KEY_LABEL: usize = 64;

/// The master key, and the next one where it is given.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<MasterKey> {
    let current = provider(reader, "");
    if !is_given(reader) {
        return Some(MasterKey::new(current?, None));
    }
    let next = provider(reader, NEW);
    let (current, next) = current.zip(next)?;
    if current.id() == next.id() {
        reader.problem(format!(
            "{NEW}MASTER_KEY is MASTER_KEY ({}): leave it out once it is in use, or give another one",
            next.id()
        ));
        return None;
    }
    Some(MasterKey::new(current, Some(next)))
}

/// The same, where the next one must be there.
pub(super) fn read_both(reader: &mut Reader<'_>) -> Option<MasterKey> {
    if !is_given(reader) {
        reader.problem(format!(
            "{NEW}MASTER_KEY environment variable is required: the master key to move to, as {NEW}MASTER_KEY, {NEW}MASTER_KEY_FILE or with {NEW}MASTER_KEY_PROVIDER=pkcs11"
        ));
    }
    read(reader)
}

fn is_given(reader: &Reader<'_>) -> bool {
    ["NEW_MASTER_KEY", "NEW_MASTER_KEY_FILE", "NEW_MASTER_KEY_PROVIDER"]
        .iter()
        .any(|name| reader.text(name).is_some())
}

fn provider(reader: &mut Reader<'_>, prefix: &str) -> Option<Box<dyn KeyEncryption>> {
    let name = format!("{prefix}MASTER_KEY_PROVIDER");
    match reader.text(&name) {
        None | Some("local") => local(reader, prefix).map(|key| Box::new(key) as Box<dyn KeyEncryption>),
        Some("pkcs11") => token(reader, prefix).map(|key| Box::new(key) as Box<dyn KeyEncryption>),
        Some(other) => {
            reader.problem(format!("{name} must be `local` or `pkcs11`, not `{other}`"));
            None
        }
    }
}

fn local(reader: &mut Reader<'_>, prefix: &str) -> Option<LocalKey> {
    let name = format!("{prefix}MASTER_KEY");
    let text = reader.required_key_material(
        &name,
        "set it to the base64 of 32 random bytes, e.g. of `openssl rand -base64 32`, and keep it safe",
    )?;
    let key = LocalKey::from_base64(text.expose());
    if key.is_none() {
        reader.problem(format!(
            "{name} must be the base64 of 32 bytes: make one with `openssl rand -base64 32`"
        ));
    }
    key
}

/// What the next one's settings don't say is as with the current one.
fn token(reader: &mut Reader<'_>, prefix: &str) -> Option<TokenKey> {
    let unused = format!("{prefix}MASTER_KEY");
    if reader.text(&unused).is_some() || reader.text(&format!("{unused}_FILE")).is_some() {
        reader.problem(format!("{unused} is set, and {unused}_PROVIDER is `pkcs11`: remove one of them"));
    }
    let module =
        required(reader, prefix, "PKCS11_MODULE", "set it to the path of the token's PKCS#11 module");
    let token = required(reader, prefix, "PKCS11_TOKEN_LABEL", "set it to the token's label");
    let key =
        required(reader, prefix, "PKCS11_KEY_LABEL", "set it to the label of an AES-256 key in the token");
    let pin = match reader.key_material(&format!("{prefix}PKCS11_PIN")) {
        Some(pin) => Some(pin),
        None => reader.required_key_material("PKCS11_PIN", "set it to the PIN of the token's user"),
    };
    let mut label = |name: &str, text: Option<&str>, longest: usize, without: &[char]| {
        let text = text?;
        let sound = (1..=longest).contains(&text.len())
            && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
            && !text.contains(without);
        if !sound {
            let without = if without.is_empty() { "" } else { ", without a slash" };
            reader.problem(format!(
                "{prefix}{name} must have 1 to {longest} printable ASCII characters{without}"
            ));
        }
        sound.then(|| text.to_owned())
    };
    let token = label("PKCS11_TOKEN_LABEL", token, MAX_TOKEN_LABEL, &['/']);
    let key = label("PKCS11_KEY_LABEL", key, MAX_KEY_LABEL, &[]);
    let (((module, token), key), pin) = module.zip(token).zip(key).zip(pin)?;
    Some(TokenKey::new(TokenSettings { module: module.into(), token, key, pin }))
}

fn required<'s>(reader: &mut Reader<'s>, prefix: &str, name: &str, fix: &str) -> Option<&'s str> {
    match reader.text(&format!("{prefix}{name}")) {
        Some(text) => Some(text),
        None => reader.required(name, fix),
    }
}
