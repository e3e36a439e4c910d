//! Client secrets: ours (format: `docs/reference/formats.md`), and hashes of those that come from other systems.

use std::fmt;
use std::ops::RangeInclusive;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hmac, rand};
use data_encoding::{BASE32_NOPAD, Encoding};
use zeroize::Zeroizing;

const PREFIX: &str = "csk_";
const RANDOM_BYTES: usize = 32;
const RANDOM_CHARACTERS: usize = 52;
const CHARACTERS: usize = 63;

/// A client secret: 256 random bits with a prefix, by which scanners know it, and a checksum.
#[derive(Clone)]
pub struct ClientSecret(Zeroizing<String>);

/// Not a secret of ours: mistyped, truncated, or something else.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidSecret;

impl ClientSecret {
    /// A new one.
    pub fn generate() -> Result<Self, Unspecified> {
        let mut random = Zeroizing::new([0; RANDOM_BYTES]);
        rand::fill(&mut *random)?;
        Ok(Self::from_random(&random))
    }

    fn from_random(random: &[u8; RANDOM_BYTES]) -> Self {
        // Sized at once: growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(CHARACTERS));
        text.push_str(PREFIX);
        base32().encode_append(random, &mut text);
        base32().encode_append(&crc32(random).to_be_bytes(), &mut text);
        Self(text)
    }

    /// Checks form and checksum. That says nothing about whether it is anyone's.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let body = text.strip_prefix(PREFIX).ok_or(InvalidSecret)?.as_bytes();
        if text.len() != CHARACTERS {
            return Err(InvalidSecret);
        }
        let (random, checksum) = body.split_at(RANDOM_CHARACTERS);
        let random = Zeroizing::new(base32().decode(random).map_err(|_| InvalidSecret)?);
        let checksum = base32().decode(checksum).map_err(|_| InvalidSecret)?;
        if checksum == crc32(&random).to_be_bytes() {
            Ok(Self(Zeroizing::new(text.to_owned())))
        } else {
            Err(InvalidSecret)
        }
    }

    /// Whether `text` was meant to be one of ours.
    pub fn is_mistyped(text: &str) -> bool {
        text.starts_with(PREFIX) && Self::parse(text).is_err()
    }

    /// What is stored of it. A plain HMAC is enough: nobody guesses 256 random bits, and a slow hash would let anyone keep the
    /// token endpoint busy.
    pub fn hash(&self, pepper: &hmac::Key) -> hmac::Tag {
        hash(pepper, &self.0)
    }

    /// The secret itself, for the one response that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("csk_[redacted]")
    }
}

/// What is stored of the secret `text`, ours or imported.
pub fn hash(pepper: &hmac::Key, text: &str) -> hmac::Tag {
    hmac::sign(pepper, text.as_bytes())
}

/// The bcrypt hash of a secret that another system made: `$2a$`, `$2b$` or `$2y$`, the cost within [`Self::COSTS`].
#[derive(Clone, PartialEq, Eq)]
pub struct BcryptHash(String);

impl BcryptHash {
    /// The costs that are taken. At 14 a check takes a CPU about a second.
    pub const COSTS: RangeInclusive<u32> = 4..=14;
    /// The longest secret that is checked, in bytes: of a longer one bcrypt would look at this much, and the rest be anything.
    pub const MAX_SECRET_BYTES: usize = 72;

    /// Checks the form; `None` where it isn't one that we take.
    pub fn parse(text: &str) -> Option<Self> {
        let known = ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix));
        let cost = text.parse::<bcrypt::HashParts>().ok().map(|parts| parts.get_cost())?;
        // Sixty characters: salt and hash behind the prefix and a cost of two digits.
        (known && text.len() == 60 && Self::COSTS.contains(&cost)).then(|| Self(text.to_owned()))
    }

    /// Whether it is the hash of `secret`. Takes long, on purpose: not on an async thread.
    pub fn is_of(&self, secret: &str) -> bool {
        // bcrypt ends at a NUL or goes round, so that several secrets would have one hash.
        secret.len() <= Self::MAX_SECRET_BYTES
            && !secret.chars().any(char::is_control)
            && bcrypt::verify(secret, &self.0).unwrap_or(false)
    }

    /// As it was imported, for the database.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BcryptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$2_[redacted]")
    }
}

/// RFC 4648 §6, in lower case only.
fn base32() -> &'static Encoding {
    use std::sync::LazyLock;
    static ENCODING: LazyLock<Encoding> = LazyLock::new(|| {
        let mut specification = BASE32_NOPAD.specification();
        specification.symbols.make_ascii_lowercase();
        // The alphabet is a valid one in either case.
        specification.encoding().unwrap_or(BASE32_NOPAD)
    });
    &ENCODING
}

/// CRC-32 of ISO-HDLC: that of zip and PNG.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_crc() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn the_documented_format() {
        let secret = ClientSecret::from_random(&[0; 32]);
        assert_eq!(secret.expose(), format!("csk_{}defflli", "a".repeat(52)));
        assert_eq!(secret.expose().len(), 63);
        assert!(ClientSecret::parse(secret.expose()).is_ok());
        assert_eq!(format!("{secret:?}"), "csk_[redacted]");
    }

    #[test]
    fn refuses_mistyped_and_foreign_ones() {
        let secret = ClientSecret::generate().unwrap();
        let text = secret.expose();
        for place in 0..text.len() {
            let mut mistyped = text.as_bytes().to_vec();
            mistyped[place] = if mistyped[place] == b'b' { b'c' } else { b'b' };
            let mistyped = String::from_utf8(mistyped).unwrap();
            assert_eq!(ClientSecret::parse(&mistyped).unwrap_err(), InvalidSecret, "character {place}");
        }
        for other in
            ["", "csk_", &text[..62], &format!("{text}a"), &text.to_uppercase(), "ä".repeat(31).as_str()]
        {
            assert_eq!(ClientSecret::parse(other).unwrap_err(), InvalidSecret, "{other}");
        }
    }

    #[test]
    fn bcrypt_hashes_of_bounded_cost_only() {
        let hash = bcrypt::hash("the secret", 4).unwrap();
        for prefix in ["$2a$", "$2b$", "$2y$"] {
            let hash = BcryptHash::parse(&hash.replace("$2b$", prefix)).unwrap();
            assert!(hash.is_of("the secret") && !hash.is_of("the secret ") && !hash.is_of(""));
            assert_eq!(format!("{hash:?}"), "$2_[redacted]");
        }
        for other in [
            "",
            "$2b$04$",
            &hash.replace("$2b$", "$2x$"),
            &hash.replace("$04$", "$15$"),
            &hash.replace("$04$", "$03$"),
            &hash[..59],
            &format!("{hash}a"),
        ] {
            assert!(BcryptHash::parse(other).is_none(), "{other}");
        }
        let long = "a".repeat(72);
        let hash = BcryptHash::parse(&bcrypt::hash(&long, 4).unwrap()).unwrap();
        assert!(hash.is_of(&long) && !hash.is_of(&format!("{long}b")), "bcrypt itself sees no difference");
        let hash = BcryptHash::parse(&bcrypt::hash("a", 4).unwrap()).unwrap();
        assert!(!hash.is_of("a\0a"), "nor here");
    }
}
