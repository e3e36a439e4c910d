//! What tokens are signed with, and for how long with one key.

use std::str::FromStr;

use countersign_shared::Algorithm;
use time::Duration;

use super::sources::Reader;

/// How the installation signs.
#[derive(Debug, Clone, Copy)]
pub struct Signing {
    /// What tokens are signed with where their resource server doesn't say.
    pub token_algorithm: Algorithm,
    /// The size of new RSA keys.
    pub rsa_bits: u32,
    /// How long a key signs before another takes its place; `None`: until an operator says so.
    pub rotation: Option<Duration>,
    /// How long others may keep the JWK Set, in seconds.
    pub jwks_max_age: u32,
}

impl Signing {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let expected = "one of RS256, PS256, ES256, EdDSA";
        let Named(token_algorithm) =
            reader.parsed("TOKEN_SIGNING_ALGORITHM", Named(Algorithm::Rs256), expected);
        let RsaBits(rsa_bits) =
            reader.parsed("TOKEN_SIGNING_RSA_BITS", RsaBits(2048), "one of 2048, 3072, 4096");
        let days = reader.integer("KEY_ROTATION_DAYS", 30, 0..=3650, " days");
        let jwks_max_age = reader.integer("JWKS_MAX_AGE_SECONDS", 300, 0..=86_400, " seconds");
        let rotation = (days > 0).then(|| Duration::days(days.into()));
        Self { token_algorithm, rsa_bits, rotation, jwks_max_age }
    }
}

struct Named(Algorithm);

impl FromStr for Named {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Algorithm::from_name(text).map(Self).ok_or(())
    }
}

struct RsaBits(u32);

impl FromStr for RsaBits {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "2048" => Ok(Self(2048)),
            "3072" => Ok(Self(3072)),
            "4096" => Ok(Self(4096)),
            _ => Err(()),
        }
    }
}
