//! Managing tenants, agents and credentials: the same for HTTP and the command line.

pub mod agents;
pub mod bootstrap;
pub mod caller;
pub mod credentials;

use std::fmt;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use countersign_shared::Refusal;
use uuid::Uuid;

use crate::domain::scope::Scopes;
use crate::storage::StorageError;

/// Why something isn't done.
#[derive(Debug)]
pub enum ManagementError {
    /// The caller isn't authenticated; `None`: it sent no token.
    Unauthenticated(Option<Refusal>),
    /// The caller's token lacks this scope.
    InsufficientScope(&'static str),
    /// These management scopes aren't the caller's to hand out.
    ScopeEscalation(Scopes),
    /// Not in the caller's tenant.
    AgentNotFound,
    /// The email is taken in the tenant.
    AgentAlreadyExists,
    /// The agent may do nothing, so it gets no credential.
    AgentNotActive,
    /// The database.
    Storage(StorageError),
    /// The system has no randomness.
    Randomness,
}

impl From<StorageError> for ManagementError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<Unspecified> for ManagementError {
    fn from(_: Unspecified) -> Self {
        Self::Randomness
    }
}

impl fmt::Display for ManagementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthenticated(None) => f.write_str("no token"),
            Self::Unauthenticated(Some(refusal)) => refusal.fmt(f),
            Self::InsufficientScope(scope) => write!(f, "the token lacks {scope}"),
            Self::ScopeEscalation(scopes) => write!(f, "the caller does not hold {scopes}"),
            Self::AgentNotFound => f.write_str("no such agent"),
            Self::AgentAlreadyExists => f.write_str("the email is taken"),
            Self::AgentNotActive => f.write_str("the agent is not active"),
            Self::Storage(error) => error.fmt(f),
            Self::Randomness => f.write_str("the system has no randomness"),
        }
    }
}

impl std::error::Error for ManagementError {}

/// A random UUID (RFC 9562 §5.4).
fn new_id() -> Result<Uuid, Unspecified> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}
