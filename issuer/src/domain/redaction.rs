//! What callers send where it doesn't belong: a secret as the id of a request, in `User-Agent`, as a scope. What is kept or shown of such texts goes through here first.

use std::borrow::Cow;

/// What stands for a word that looks like a secret.
const REDACTED: &str = "[redacted]";
/// What 30 random bytes have in base64: keys and secrets made at random have more, ids that people put into logs less, or one case of letters.
const LONG: usize = 40;

/// Whether `word` may be a client secret, a token or an assertion, or a key or another secret in base64.
fn looks_secret(word: &str) -> bool {
    let is_random = || {
        let has = |class: fn(&u8) -> bool| word.as_bytes().iter().any(class);
        let in_base64 =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
        word.len() >= LONG
            && word.bytes().all(in_base64)
            && has(u8::is_ascii_uppercase)
            && has(u8::is_ascii_lowercase)
    };
    word.contains("csk_") || word.contains("eyJ") || is_random()
}

/// Whether there is a word in `text` that looks like a secret.
pub fn has_secret(text: &str) -> bool {
    words(text).any(looks_secret)
}

/// `text` without the words that look like secrets.
pub fn redacted(text: &str) -> Cow<'_, str> {
    if !has_secret(text) {
        return Cow::Borrowed(text);
    }
    let parts = text.split_inclusive(separates).map(|part| {
        let word = part.trim_end_matches(separates);
        if looks_secret(word) { format!("{REDACTED}{}", &part[word.len()..]) } else { part.to_owned() }
    });
    Cow::Owned(parts.collect())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(separates)
}

/// A dot separates nothing: tokens have them.
fn separates(character: char) -> bool {
    character.is_whitespace()
        || matches!(character, '"' | '\'' | '`' | ',' | ';' | '(' | ')' | '<' | '>' | '&' | '?' | ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_left_out_and_nothing_else() {
        for plain in [
            "",
            "9b83f8ea-1ad4-42d0-9bba-cdd6f3faeda3",
            "4BF92F3577B34DA6A3CE929D0E0E4736-4BF92F3577B34DA6A3CE929D0E0E4736",
            "01JD2M3W8Z0V7QK4N5X6Y9R1ST",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
            "https://orders.example/api/VersionOne/with-a-Path-that-is-longer-than-any-key",
            "orders:read orders:write",
        ] {
            assert_eq!(redacted(plain), plain);
        }
        let secret = "csk_hqau5m2kq7x3vqdi3rnigmz3f5b";
        let key = "QX8qsoHq++IqXO+hq+OxXDoqeu2VpE9AAOKqlB+l9SA=";
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.AAAA";
        for hidden in
            [secret, key, token, &format!("password={secret}"), "_e38GfLrQ-ahFnaQVeqDPaBtheRestOfIt_38GfLrQQ"]
        {
            assert_eq!(redacted(hidden), REDACTED);
            assert_eq!(redacted(&format!("curl/8 ({hidden}, x)")), format!("curl/8 ({REDACTED}, x)"));
        }
    }
}
