//! Credentials: what an agent authenticates with.

use std::fmt;

use countersign_shared::{AgentId, CredentialId, Jwk};
use time::OffsetDateTime;

use super::client_secret::BcryptHash;
use super::text_enum;

text_enum! {
    /// What a credential is.
    pub enum CredentialKind {
        /// A secret that the issuer made.
        ClientSecret = "client_secret",
        /// A public key, whose private key signs assertions (`private_key_jwt`).
        PublicKey = "public_key",
        /// The hash of a secret that another system made; from its first use on it is a `client_secret` as any other.
        BcryptHash = "bcrypt_hash",
    }
}

text_enum! {
    /// Whether a credential authenticates.
    pub enum CredentialStatus {
        /// It does, until it expires.
        Active = "active",
        /// Not any more: its time is over.
        Expired = "expired",
        /// Not any more: it was taken back.
        Revoked = "revoked",
    }
}

/// The longest name, in characters.
pub const MAX_NAME_CHARACTERS: usize = 100;
/// How many live credentials an agent may have: with each of them a secret is compared at every authentication.
pub const MAX_LIVE: i64 = 20;
/// How many of them may be bcrypt hashes that weren't used yet: each may take a second to check.
pub const MAX_LIVE_BCRYPT: i64 = 3;
/// The longest overlap of a rotation, in seconds: 30 days.
pub const MAX_OVERLAP_SECONDS: u32 = 2_592_000;
/// The usual one: a day.
pub const DEFAULT_OVERLAP_SECONDS: u32 = 86_400;
/// The furthest that a credential may expire.
pub const MAX_AHEAD: time::Duration = time::Duration::days(3660);

/// A credential as it may be shown: without its secret, which isn't kept, and without the hash of it.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its id, also in the tokens obtained with it.
    pub credential_id: CredentialId,
    /// Whose it is.
    pub agent_id: AgentId,
    /// What it is.
    pub kind: CredentialKind,
    /// What its owner calls it.
    pub name: Option<String>,
    /// Whether it authenticated when it was looked up.
    pub status: CredentialStatus,
    /// The key, as JSON; of public keys only.
    pub public_jwk: Option<String>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
    /// From when on it no longer authenticates.
    pub expires_at: Option<OffsetDateTime>,
    /// When it last authenticated, to the minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// When it was last rotated.
    pub rotated_at: Option<OffsetDateTime>,
    /// Until when what it was before is good too; `None`: no rotation is under way.
    pub previous_until: Option<OffsetDateTime>,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
    /// Counts its changes.
    pub revision: i64,
}

/// What a proof is checked against.
#[derive(Clone, PartialEq, Eq)]
pub enum Verifier {
    /// The HMAC of a secret under the pepper.
    Secret(Vec<u8>),
    /// The hash of an imported secret.
    Bcrypt(BcryptHash),
    /// A public key.
    Key(Box<Jwk>),
}

impl Verifier {
    /// The kind of a credential with this.
    pub const fn kind(&self) -> CredentialKind {
        match self {
            Self::Secret(_) => CredentialKind::ClientSecret,
            Self::Bcrypt(_) => CredentialKind::BcryptHash,
            Self::Key(_) => CredentialKind::PublicKey,
        }
    }
}

/// Hashes are nobody's to see.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().as_str())
    }
}

/// A public key as a JWK (RFC 7517): the public members, with `alg`, `kid` and `use`.
pub fn jwk_document(key: &Jwk) -> String {
    let kid = serde_json::Value::from(key.kid());
    format!(r#"{{"use":"sig","kid":{kid},{}"#, &key.to_json()[1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwk_comes_back_as_it_went() {
        let jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","alg":"EdDSA","kid":"a \"b\" ü"}"#;
        let key = Jwk::parse(jwk.as_bytes()).unwrap();
        assert_eq!(Jwk::parse(jwk_document(&key).as_bytes()).unwrap(), key);
    }
}
