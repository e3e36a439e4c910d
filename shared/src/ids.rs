//! Identifiers. Each is a type of its own, parsed once where it enters, with one accepted spelling.

use core::fmt;
use core::str::FromStr;

use uuid::Uuid;

use crate::time::UnixTime;

/// The text isn't a UUID in its canonical spelling (RFC 9562 §4: 36 characters, hyphenated; here lower-case only).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidId;

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a UUID in lower-case hyphenated form")
    }
}

impl core::error::Error for InvalidId {}

/// `Uuid::parse_str` also takes braces, URNs, upper case and bare hex: several spellings of one id.
fn parse_canonical(text: &str) -> Result<Uuid, InvalidId> {
    let text = text.as_bytes();
    if text.len() != 36 {
        return Err(InvalidId);
    }
    let mut value = 0_u128;
    for (position, &character) in text.iter().enumerate() {
        match (position, character) {
            (8 | 13 | 18 | 23, b'-') => {}
            (8 | 13 | 18 | 23, _) => return Err(InvalidId),
            (_, b'0'..=b'9') => value = value << 4 | u128::from(character - b'0'),
            (_, b'a'..=b'f') => value = value << 4 | u128::from(character - b'a' + 10),
            _ => return Err(InvalidId),
        }
    }
    Ok(Uuid::from_u128(value))
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[cfg_attr(feature = "serde", serde(transparent))]
        pub struct $name(pub Uuid);

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_canonical(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a UUID in lower-case hyphenated form")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    };
}

uuid_id! {
    /// A tenant: owns agents, confines every query.
    TenantId
}
uuid_id! {
    /// An agent; also its OAuth `client_id` and the `sub` of its tokens.
    AgentId
}
uuid_id! {
    /// A credential of an agent.
    CredentialId
}

/// The hour in which a token expires: `exp / 3600`, 24 bits (until the year 3883). Revoked serials are kept per shard,
/// and a shard whose tokens have all expired is dropped whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u32);

impl Shard {
    /// Length of a shard in seconds.
    pub const SECONDS: i64 = 3600;

    const LIMIT: u32 = 1 << 24;

    /// The shard of that number; `None` from 2²⁴ on.
    pub const fn new(number: u32) -> Option<Self> {
        if number < Self::LIMIT { Some(Self(number)) } else { None }
    }

    /// The shard of a token that expires at `exp`; `None` before 1970 and after 3883.
    pub fn of_expiry(exp: UnixTime) -> Option<Self> {
        u32::try_from(exp.0.div_euclid(Self::SECONDS)).ok().and_then(Self::new)
    }

    /// The shard's number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The first instant at which every token of this shard has expired.
    pub const fn ends_at(self) -> UnixTime {
        UnixTime((self.0 as i64 + 1) * Self::SECONDS)
    }
}

/// A token's number within its [`Shard`]: 36 bits, used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(u64);

impl Serial {
    /// Serials are below this.
    pub const LIMIT: u64 = 1 << 36;

    /// The serial of that number; `None` from [`Self::LIMIT`] on.
    pub const fn new(number: u64) -> Option<Self> {
        if number < Self::LIMIT { Some(Self(number)) } else { None }
    }

    /// The serial's number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Where a token stands in the revoked set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coordinate {
    /// The expiry shard.
    pub shard: Shard,
    /// The number within it.
    pub serial: Serial,
}

/// The `jti` of our own tokens: a UUIDv8 (RFC 9562 §5.8) that carries its [`Coordinate`] and a 62-bit tag by which the
/// issuer knows it as its own. Layout: `docs/reference/formats.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Jti(Uuid);

impl Jti {
    const VERSION: u128 = 8 << 76;
    const VARIANT: u128 = 2 << 62;
    const TAG_MASK: u64 = (1 << 62) - 1;

    /// The jti at `coordinate`; of `tag` the low 62 bits count.
    pub const fn new(coordinate: Coordinate, tag: u64) -> Self {
        let Coordinate { shard: Shard(shard), serial: Serial(serial) } = coordinate;
        let high = (shard as u128) << 104 | ((serial >> 12) as u128) << 80 | ((serial & 0xfff) as u128) << 64;
        Self(Uuid::from_u128(high | Self::VERSION | Self::VARIANT | (tag & Self::TAG_MASK) as u128))
    }

    /// The jti in `uuid`; `None` unless version and variant say UUIDv8.
    pub const fn from_uuid(uuid: Uuid) -> Option<Self> {
        let bits = uuid.as_u128();
        if bits & (0xf << 76) == Self::VERSION && bits & (3 << 62) == Self::VARIANT {
            Some(Self(uuid))
        } else {
            None
        }
    }

    /// The token's place in the revoked set.
    pub const fn coordinate(self) -> Coordinate {
        let bits = self.0.as_u128();
        let high = (bits >> 80) as u64 & 0xff_ffff;
        let low = (bits >> 64) as u64 & 0xfff;
        Coordinate { shard: Shard((bits >> 104) as u32), serial: Serial(high << 12 | low) }
    }

    /// The authentication tag, in the low 62 bits.
    #[expect(clippy::cast_possible_truncation, reason = "masked to its width")]
    pub const fn tag(self) -> u64 {
        self.0.as_u128() as u64 & Self::TAG_MASK
    }

    /// The jti as a plain UUID.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl FromStr for Jti {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        parse_canonical(text).and_then(|uuid| Self::from_uuid(uuid).ok_or(InvalidId))
    }
}

impl fmt::Display for Jti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_jti_keeps_its_coordinate(shard in 0_u32..1 << 24, serial in 0..Serial::LIMIT, tag in 0_u64..1 << 62) {
            let coordinate = Coordinate { shard: Shard(shard), serial: Serial(serial) };
            let jti = Jti::new(coordinate, tag);
            prop_assert_eq!(jti.as_uuid().get_version_num(), 8);
            prop_assert_eq!(jti.as_uuid().get_variant(), uuid::Variant::RFC4122);
            prop_assert_eq!(jti.coordinate(), coordinate);
            prop_assert_eq!(jti.tag(), tag);
            prop_assert_eq!(jti.to_string().parse(), Ok(jti));
        }
    }

    #[test]
    fn the_documented_layout() {
        let coordinate = Coordinate { shard: Shard(0x07_9a31), serial: Serial(0x1_2345_6789) };
        let jti = Jti::new(coordinate, 0x0fed_cba9_8765_4321);
        assert_eq!(jti.to_string(), "079a3112-3456-8789-8fed-cba987654321");
    }

    #[test]
    fn one_spelling_only() {
        for text in [
            "079A3112-3456-8789-8fed-cba987654321",
            "079a3112345687898fedcba987654321",
            "{079a3112-3456-8789-8fed-cba987654321}",
            "079a3112-3456-4789-8fed-cba987654321",
            "079a3112-3456-8789-cfed-cba987654321",
            "079a3112-3456-8789-8fed-cba98765432",
            "079a3112-3456-8789-8fed-cba9876543211",
            "079a3112-3456-8789-8fed_cba987654321",
            "",
        ] {
            assert_eq!(text.parse::<Jti>(), Err(InvalidId), "{text:?}");
        }
    }

    #[test]
    fn shards_cover_their_hour() {
        let shard = Shard::of_expiry(UnixTime(7199)).unwrap();
        assert_eq!((shard.get(), shard.ends_at()), (1, UnixTime(7200)));
        assert_eq!(Shard::of_expiry(UnixTime(-1)), None);
        assert_eq!(Shard::of_expiry(UnixTime(i64::MAX)), None);
    }
}
