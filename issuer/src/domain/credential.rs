//! Credentials: what an agent authenticates with.

use countersign_shared::{AgentId, CredentialId};
use time::OffsetDateTime;

use super::text_enum;

text_enum! {
    /// Whether a credential authenticates.
    pub enum CredentialStatus {
        /// It does, until it expires.
        Active = "active",
        /// It doesn't.
        Revoked = "revoked",
    }
}

/// A credential, without its secret: that isn't kept.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its id, also in the tokens obtained with it.
    pub credential_id: CredentialId,
    /// Whose it is.
    pub agent_id: AgentId,
    /// Whether it authenticates.
    pub status: CredentialStatus,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// From when on it no longer authenticates.
    pub expires_at: Option<OffsetDateTime>,
}
