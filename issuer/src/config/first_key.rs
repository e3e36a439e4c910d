//! The key of a system that is being replaced, for the first start.

use std::path::Path;

use super::secret::Secret;
use super::signing::Signing;
use super::sources::{Reader, Readers, read_secret};
use crate::keys::import::{self, Imported, Wishes};

/// `JWT_PRIVATE_KEY` and what goes with it, checked; `None` where they aren't set.
pub(super) fn read(reader: &mut Reader<'_>, signing: Signing) -> Option<Imported> {
    let private = pem(reader, "JWT_PRIVATE_KEY", Readers::OwnerAndGroup);
    let public = pem(reader, "JWT_PUBLIC_KEY", Readers::Anyone);
    let Some(private) = private else {
        if public.is_some() {
            reader.problem("JWT_PUBLIC_KEY is set, and JWT_PRIVATE_KEY isn't: set both, or take the public key in with `countersign keys import`");
        }
        return None;
    };
    let wishes = Wishes { algorithm: Some(signing.token_algorithm), kid: reader.text("JWT_KEY_ID") };
    match import::private(private.expose(), public.as_ref().map(Secret::expose), wishes) {
        Ok(imported) => Some(imported),
        Err(problem) => {
            reader.problem(format!(
                "JWT_PRIVATE_KEY, with JWT_PUBLIC_KEY, JWT_KEY_ID and TOKEN_SIGNING_ALGORITHM: {problem}"
            ));
            None
        }
    }
}

/// PEM text, in which `\n` may stand for a line's end, or the path of a file that has it.
fn pem(reader: &mut Reader<'_>, name: &str, readers: Readers) -> Option<Secret> {
    let value = match readers {
        Readers::OwnerAndGroup => reader.key_material(name)?,
        Readers::Anyone => reader.secret(name)?,
    };
    if value.expose().contains("-----BEGIN") {
        return Some(Secret::new(value.expose().replace("\\n", "\n")));
    }
    let path = Path::new(value.expose());
    match read_secret(path, readers) {
        Ok(text) => Some(text),
        // What was meant as a key must not be shown as a path.
        Err(problem) if path.is_absolute() && path.exists() => {
            reader.problem(format!("{name}: {} {problem}", path.display()));
            None
        }
        Err(_) => {
            reader.problem(format!("{name} is neither PEM (-----BEGIN …) nor the absolute path of a file"));
            None
        }
    }
}
