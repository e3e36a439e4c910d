//! Managing tenants, agents and credentials: the same for HTTP and the command line.

pub mod agents;
pub mod audit;
pub mod bootstrap;
pub mod caller;
pub mod credentials;
pub mod maintenance;
pub mod publication;
pub mod recovery;
pub mod resource_servers;
pub mod revocations;
pub mod tenants;
pub mod unlock;

use std::fmt;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use countersign_shared::Refusal;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::agent::MAX_METADATA;
use crate::domain::revision::Expected;
use crate::domain::scope::Scopes;
use crate::limits::RateLimited;
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
    /// Not in the caller's tenant.
    CredentialNotFound,
    /// Not one that was issued to the caller's tenant.
    TokenNotFound,
    /// There is none, or it isn't the caller's to know.
    TenantNotFound,
    /// There is none.
    KeyNotFound,
    /// Not among the events that the caller may see.
    AuditEventNotFound,
    /// The email is taken in the tenant.
    AgentAlreadyExists,
    /// The agent may do nothing, so it gets no credential.
    AgentNotActive,
    /// A field holds what only the database could refuse.
    Field {
        /// Its name.
        field: &'static str,
        /// What is wrong with it: "must …".
        problem: &'static str,
    },
    /// Another tenant has the name.
    TenantAlreadyExists,
    /// It was ended for good.
    TenantDecommissioned,
    /// The platform's own tenant can't be ended.
    PlatformTenant,
    /// Not in the caller's tenant.
    ResourceServerNotFound,
    /// The identifier, or one that looks like it, is taken.
    ResourceServerAlreadyExists,
    /// The tenant has had as many identifiers as it may.
    ResourceServerLimitReached,
    /// The tenant doesn't have the identifier, or has a resource server with it.
    IdentifierInUse,
    /// The credential is revoked or has expired: it stays as it is.
    CredentialNotActive,
    /// The agent has this many live credentials (of the kind), which is all it may have.
    CredentialLimitReached(i64),
    /// The credential was rotated, and what it was before is good until then.
    RotationInProgress(OffsetDateTime),
    /// The agent is beyond every change.
    AgentDecommissioned,
    /// The agent has these management scopes, and the caller doesn't: it isn't the caller's to change.
    BeyondCaller(Scopes),
    /// Only agents of the platform's tenant may have these.
    PlatformScopes(Scopes),
    /// An agent doesn't do this to itself.
    AgentIsCaller,
    /// The tenant has as many agents as it may have.
    AgentLimitReached(i32),
    /// An agent's metadata would have too many members.
    TooMuchMetadata,
    /// What is to be changed isn't in the revision that the caller knows.
    PreconditionFailed,
    /// The caller makes too many requests.
    RateLimited(RateLimited),
    /// The database.
    Storage(StorageError),
    /// The system has no randomness.
    Randomness,
}

impl From<RateLimited> for ManagementError {
    fn from(limited: RateLimited) -> Self {
        Self::RateLimited(limited)
    }
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
            Self::CredentialNotFound => f.write_str("no such credential"),
            Self::TokenNotFound => f.write_str("no such token"),
            Self::TenantNotFound => f.write_str("no such tenant"),
            Self::KeyNotFound => f.write_str("no such key"),
            Self::AuditEventNotFound => f.write_str("no such audit event"),
            Self::AgentAlreadyExists => f.write_str("the email is taken"),
            Self::AgentNotActive => f.write_str("the agent is not active"),
            Self::Field { field, problem } => write!(f, "{field} {problem}"),
            Self::TenantAlreadyExists => f.write_str("a tenant has that name already"),
            Self::TenantDecommissioned => f.write_str("the tenant was decommissioned, and stays so"),
            Self::PlatformTenant => {
                f.write_str("this is the platform's own tenant: it can't be suspended or decommissioned")
            }
            Self::ResourceServerNotFound => f.write_str("no such resource server"),
            Self::ResourceServerAlreadyExists => {
                f.write_str("the identifier is taken, or one that is easily taken for it")
            }
            Self::ResourceServerLimitReached => write!(
                f,
                "the tenant has had {} identifiers already, the deleted ones included",
                resource_servers::MAX_IDENTIFIERS
            ),
            Self::IdentifierInUse => f.write_str(
                "the tenant doesn't have this identifier, or still has a resource server with it, or with one that looks like it",
            ),
            Self::CredentialNotActive => f.write_str("the credential is revoked or has expired"),
            Self::CredentialLimitReached(limit) => {
                write!(f, "the agent may have {limit} such credentials, and has them")
            }
            Self::RotationInProgress(_) => f.write_str("the credential is being rotated already"),
            Self::AgentDecommissioned => f.write_str("the agent is decommissioned, which is final"),
            Self::BeyondCaller(scopes) => write!(f, "the agent holds {scopes}, which the caller does not"),
            Self::PlatformScopes(scopes) => {
                write!(f, "only agents of the platform's tenant may have {scopes}")
            }
            Self::AgentIsCaller => {
                f.write_str("an agent can't suspend or decommission itself, nor change its own scopes")
            }
            Self::AgentLimitReached(max) => write!(f, "the tenant may have {max} agents, and has them"),
            Self::TooMuchMetadata => write!(f, "metadata may have at most {MAX_METADATA} members"),
            Self::PreconditionFailed => f.write_str("it was changed since it was read"),
            Self::RateLimited(limited) => limited.fmt(f),
            Self::Storage(error) => error.fmt(f),
            Self::Randomness => f.write_str("the system has no randomness"),
        }
    }
}

impl std::error::Error for ManagementError {}

/// Whether what is in `revision` may be changed by who expects it to be as `expected`; `None`: whatever it is.
fn require_revision(expected: Option<&Expected>, revision: i64) -> Result<(), ManagementError> {
    if expected.is_none_or(|expected| expected.admits(revision)) {
        Ok(())
    } else {
        Err(ManagementError::PreconditionFailed)
    }
}

/// A random UUID (RFC 9562 §5.4).
fn new_id() -> Result<Uuid, Unspecified> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}
