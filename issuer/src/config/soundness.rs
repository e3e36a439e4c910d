//! What production refuses: secrets that were never made, but copied or typed.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use reqwest::Url;

use super::sources::Reader;
use super::values::Environment;

/// Found in a secret, they say that it was to be replaced. In lower case.
const PLACEHOLDERS: [&str; 8] =
    ["changeme", "change-me", "change_me", "placeholder", "replace", "example", "your-", "insecure"];
/// The passwords that images, guides and people in a hurry have for databases. In lower case.
const DEFAULT_PASSWORDS: [&str; 12] = [
    "postgres",
    "password",
    "passw0rd",
    "secret",
    "countersign",
    "admin",
    "root",
    "redis",
    "test",
    "12345678",
    "123456",
    "default",
];
/// Random text of a secret's length has more different characters than this: of 16 hexadecimal digits one in a million has five.
const FEW_CHARACTERS: usize = 6;
/// Of 32 random bytes more than this are different ones, all but always.
const FEW_BYTES: usize = 16;

/// Looks at the secrets that `serve` was given, once more: what is wrong with reading them was said before.
pub(super) fn check(reader: &mut Reader<'_>, environment: Environment) {
    if environment == Environment::Development {
        return;
    }
    for (name, shortest) in
        [("HUB_PUSH_SECRET", 16), ("KV_API_TOKEN", 0), ("ADMIN_TOKEN", 0), ("METRICS_SECRET", 0)]
    {
        if let Some(secret) = reader.peek(name)
            && is_made_up(secret.expose(), shortest)
        {
            reader.problem(format!(
                "{name} is an example or too simple, which production doesn't take: make one with `openssl rand -base64 32`"
            ));
        }
    }
    for name in ["MASTER_KEY", "NEW_MASTER_KEY"] {
        if let Some(key) = reader.peek(name)
            && BASE64.decode(key.expose().as_bytes()).is_ok_and(|key| is_not_random(&key))
        {
            reader.problem(format!(
                "{name} isn't random, which production doesn't take: make one with `openssl rand -base64 32`. A database that is sealed under \
                 it is moved to that by `countersign keys rewrap`"
            ));
        }
    }
    for name in ["DATABASE_URL", "REDIS_URL"] {
        if let Some(url) = reader.peek(name)
            && let Ok(url) = url.expose().parse::<Url>()
            && url.password().is_some_and(is_default_password)
        {
            reader.problem(format!("the password in {name} is one that everybody tries first, which production doesn't take: give the server another one"));
        }
    }
}

fn is_made_up(secret: &str, shortest: usize) -> bool {
    let lower = secret.to_ascii_lowercase();
    secret.chars().count() < shortest
        || secret.chars().collect::<BTreeSet<_>>().len() < FEW_CHARACTERS
        || PLACEHOLDERS.iter().any(|placeholder| lower.contains(placeholder))
        || DEFAULT_PASSWORDS.contains(&lower.as_str())
}

/// Whether a key's bytes are text, or a few bytes again and again.
fn is_not_random(key: &[u8]) -> bool {
    key.len() == 32
        && (key.iter().all(|byte| matches!(byte, b' '..=b'~'))
            || key.iter().collect::<BTreeSet<_>>().len() <= FEW_BYTES)
}

fn is_default_password(password: &str) -> bool {
    let lower = password.to_ascii_lowercase();
    DEFAULT_PASSWORDS.contains(&lower.as_str())
        || PLACEHOLDERS.iter().any(|placeholder| lower.contains(placeholder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_openssl_makes_is_taken() {
        for secret in [
            "8Jm0w3m7bq0o6v1f6Hh1oTqk3zXy5c9d2e4f7a8b1c0=",
            "0f8e2d7c6b5a49382716055f4e3d2c1b",
            "ugc3xFTv8KdZ2n5rQy7w",
        ] {
            assert!(!is_made_up(secret, 16), "{secret}");
        }
        for secret in [
            "changeme-changeme-changeme",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "short",
            "your-token-here-1234567",
        ] {
            assert!(is_made_up(secret, 16), "{secret}");
        }
    }

    #[test]
    fn keys_are_bytes_and_not_text() {
        assert!(is_not_random(b"a key that somebody has typed in"));
        assert!(is_not_random(&[0; 32]));
        let repeated: Vec<u8> = (0..32).map(|place| 128 + place % 16).collect();
        assert!(is_not_random(&repeated));
        let spread: Vec<u8> = (0..32_u8).map(|place| place.wrapping_mul(37).wrapping_add(11)).collect();
        assert!(!is_not_random(&spread));
    }
}
