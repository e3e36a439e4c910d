//! Strict base64url (RFC 4648 §5): no padding, no white space, no non-zero trailing bits. One value has one spelling.
//!
//! That matters beyond tidiness: a decoder that forgives gives an attacker several spellings of one token, and every
//! table keyed by the token's text can then be walked around.

use alloc::string::String;
use alloc::vec::Vec;

const INVALID: u8 = 0xff;

const DECODE: [u8; 256] = {
    let alphabet = ALPHABET;
    let mut table = [INVALID; 256];
    let mut value = 0_u8;
    while value < 64 {
        table[alphabet[value as usize] as usize] = value;
        value += 1;
    }
    table
};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Decodes `text`; `None` where it isn't the canonical encoding of any byte string.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let mut quads = text.chunks_exact(4);
    for quad in &mut quads {
        let [a, b, c, d] = [quad[0], quad[1], quad[2], quad[3]].map(|c| DECODE[usize::from(c)]);
        if (a | b | c | d) > 63 {
            return None;
        }
        bytes.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]);
    }
    match *quads.remainder() {
        [] => {}
        [a, b] => {
            let [a, b] = [a, b].map(|c| DECODE[usize::from(c)]);
            if (a | b) > 63 || b & 0x0f != 0 {
                return None;
            }
            bytes.push(a << 2 | b >> 4);
        }
        [a, b, c] => {
            let [a, b, c] = [a, b, c].map(|c| DECODE[usize::from(c)]);
            if (a | b | c) > 63 || c & 0x03 != 0 {
                return None;
            }
            bytes.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2]);
        }
        _ => return None,
    }
    Some(bytes)
}

/// Encodes `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(group >> (18 - 6 * position) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};
    use proptest::prelude::*;

    #[test]
    fn rfc_4648_section_10() {
        for (bytes, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("fooba", "Zm9vYmE")]
        {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(bytes.as_bytes()));
        }
    }

    #[test]
    fn refuses_every_other_spelling() {
        for text in
            ["Zg==", "Zh", "Zm9", "Zm8=", "Zm9v\n", " Zm9v", "Zm9v ", "Z", "Zm9vY", "Zm+v", "Zm/v", "Zm9v\0"]
        {
            assert_eq!(decode(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_decodes_is_what_encodes(text in "[A-Za-z0-9_=+/ -]{0,40}") {
            if let Some(bytes) = decode(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }

        #[test]
        fn agrees_with_an_independent_implementation(bytes: Vec<u8>) {
            let theirs = data_encoding::BASE64URL_NOPAD.encode(&bytes);
            prop_assert_eq!(&encode(&bytes), &theirs);
            prop_assert_eq!(decode(theirs.as_bytes()), Some(bytes));
        }
    }
}
