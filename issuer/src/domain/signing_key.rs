//! Signing keys, as they are kept.

use countersign_shared::Algorithm;
use time::OffsetDateTime;

use super::text_enum;

/// How long, in seconds, a verifier may rely on a revocation head at most: what its key signs lives no longer.
pub const HEAD_SECONDS: u32 = 300;

text_enum! {
    /// What a key signs. One that signs tokens never signs heads, nor the other way round.
    pub enum Purpose {
        /// Access tokens.
        Token = "token",
        /// Revocation heads.
        Revocation = "revocation",
    }
}

text_enum! {
    /// Where a key stands in its life: [`KeyState::may_become`] says how it goes on.
    pub enum KeyState {
        /// Published, not signing yet.
        Pending = "pending",
        /// Signing.
        Active = "active",
        /// Verifying only.
        Retiring = "retiring",
        /// Of the past.
        Retired = "retired",
    }
}

impl KeyState {
    /// Whether a key goes from here to `next`. One that is `revoked` may skip the time in which it only verifies. The database refuses
    /// all else as well (`migrations/20261121130000_key_lifecycle.sql`).
    pub const fn may_become(self, next: Self, revoked: bool) -> bool {
        match (self, next) {
            (Self::Pending, Self::Active | Self::Retired)
            | (Self::Active, Self::Retiring)
            | (Self::Retiring, Self::Retired) => true,
            (Self::Active, Self::Retired) => revoked,
            _ => false,
        }
    }
}

/// A value under its data key, and the data key under the master key (`keys/envelope.rs`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Which master key; `None` where it was sealed before rows said so.
    pub master_key_id: Option<String>,
    /// The sealed data key.
    pub data_key: Vec<u8>,
    /// The sealed value.
    pub value: Vec<u8>,
}

/// A signing key at rest. The times are what issuers go by, the state follows them.
#[derive(Debug, Clone)]
pub struct KeyRecord {
    /// RFC 7638 thumbprint; of an imported key, what the system that it comes from called it.
    pub kid: String,
    /// What it signs.
    pub purpose: Purpose,
    /// How.
    pub algorithm: Algorithm,
    /// Where it stands.
    pub state: KeyState,
    /// The public members, as JSON.
    pub public_jwk: String,
    /// Whether only its public part is kept: it verifies what another system has signed.
    pub public_only: bool,
    /// PKCS#8, sealed; of a key of which only the public part is kept, that part.
    pub sealed: Sealed,
    /// `None` before it is stored.
    pub created_at: Option<OffsetDateTime>,
    /// It signs from then on; `None`: no instant was named yet.
    pub activates_at: Option<OffsetDateTime>,
    /// It signs up to then; `None`: no successor was named yet.
    pub signs_until: Option<OffsetDateTime>,
    /// The longest, in seconds, that anything signed with it lives.
    pub longest_lifetime: u32,
    /// It is verified with until then, computed by the database; `None` as [`Self::signs_until`].
    pub retires_at: Option<OffsetDateTime>,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
    /// Why.
    pub revocation_reason: Option<String>,
}

impl KeyRecord {
    /// Whether it signs at `now`, as far as its times say: a later key of its algorithm goes before it.
    pub fn signs_at(&self, now: OffsetDateTime) -> bool {
        self.state != KeyState::Retired
            && self.activates_at.is_some_and(|from| from <= now)
            && self.signs_until.is_none_or(|until| now < until)
    }

    /// Whether it waits for its time to sign.
    pub fn is_scheduled(&self) -> bool {
        self.state == KeyState::Pending && self.activates_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [KeyState; 4] = [KeyState::Pending, KeyState::Active, KeyState::Retiring, KeyState::Retired];

    #[test]
    fn a_life_goes_forward_only() {
        let legal = |revoked| {
            let pairs = ALL.into_iter().flat_map(|from| ALL.map(|to| (from, to)));
            pairs.filter(|(from, to)| from.may_become(*to, revoked)).collect::<Vec<_>>()
        };
        let usual = [
            (KeyState::Pending, KeyState::Active),
            (KeyState::Pending, KeyState::Retired),
            (KeyState::Active, KeyState::Retiring),
            (KeyState::Retiring, KeyState::Retired),
        ];
        assert_eq!(legal(false), usual);
        let mut with_revocation = usual.to_vec();
        with_revocation.insert(3, (KeyState::Active, KeyState::Retired));
        assert_eq!(legal(true), with_revocation);
    }
}
