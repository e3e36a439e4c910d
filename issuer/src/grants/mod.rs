//! What a client may have: authentication, and the one grant there is so far.

pub mod client_auth;
pub mod client_credentials;
pub mod imported;
pub mod introspection;
pub mod revocation;

use std::fmt;

use crate::keys::{KeyError, SignError};
use crate::limits::{FailureError, Limited, LockedOut, QuotaError};
use crate::storage::StorageError;
use crate::tokens::mint::MintError;
use crate::tokens::serials::SerialError;

/// Why an OAuth request gets no for an answer (RFC 6749 §5.2, RFC 8707 §2, RFC 7009 §2.2.1).
#[derive(Debug)]
pub enum OauthError {
    /// A parameter is missing, repeated or malformed; says which.
    InvalidRequest(String),
    /// Client authentication failed. Never says how.
    InvalidClient,
    /// The client may not do this; says what.
    UnauthorizedClient(&'static str),
    /// No such grant.
    UnsupportedGrantType,
    /// The scope isn't the agent's to ask for.
    InvalidScope(String),
    /// No such resource server.
    InvalidTarget(String),
    /// One too many.
    Limited(Limited),
    /// The database can't be reached.
    Unavailable(String),
    /// Ours; the text is for the log.
    Server(String),
}

impl OauthError {
    /// What it is, in a word: for metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::UnauthorizedClient(_) => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope(_) => "invalid_scope",
            Self::InvalidTarget(_) => "invalid_target",
            Self::Limited(Limited::Rate(_)) => "rate_limited",
            Self::Limited(Limited::LockedOut(_)) => "locked_out",
            Self::Limited(Limited::Quota(_)) => "quota_used_up",
            Self::Unavailable(_) => "unavailable",
            Self::Server(_) => "server_error",
        }
    }

    pub(crate) fn invalid_request(problem: impl Into<String>) -> Self {
        Self::InvalidRequest(problem.into())
    }
}

impl From<Limited> for OauthError {
    fn from(limited: Limited) -> Self {
        Self::Limited(limited)
    }
}

impl From<FailureError> for OauthError {
    fn from(error: FailureError) -> Self {
        match error {
            FailureError::LockedOut(locked_out) => locked_out.into(),
            FailureError::Storage(error) => error.into(),
        }
    }
}

impl From<LockedOut> for OauthError {
    fn from(locked_out: LockedOut) -> Self {
        Self::Limited(Limited::LockedOut(locked_out))
    }
}

impl From<QuotaError> for OauthError {
    fn from(error: QuotaError) -> Self {
        match error {
            QuotaError::UsedUp(used_up) => Self::Limited(Limited::Quota(used_up)),
            QuotaError::Storage(error) => error.into(),
        }
    }
}

impl From<StorageError> for OauthError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Unavailable(_) => Self::Unavailable(error.to_string()),
            StorageError::Refused(_) | StorageError::Row { .. } => Self::Server(error.to_string()),
        }
    }
}

impl From<SerialError> for OauthError {
    fn from(error: SerialError) -> Self {
        match error {
            SerialError::Storage(error) => error.into(),
            SerialError::Exhausted | SerialError::Randomness(_) => Self::Server(error.to_string()),
        }
    }
}

impl From<MintError> for OauthError {
    fn from(error: MintError) -> Self {
        match error {
            MintError::Serial(error) => error.into(),
            MintError::Ended | MintError::ClockAhead => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<SignError> for OauthError {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Keys(KeyError::Storage(error)) => error.into(),
            SignError::NoKey => Self::Unavailable(error.to_string()),
            SignError::Failed | SignError::Keys(_) => Self::Server(error.to_string()),
        }
    }
}

impl fmt::Display for OauthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidRequest(text)
            | Self::InvalidScope(text)
            | Self::InvalidTarget(text)
            | Self::Unavailable(text)
            | Self::Server(text) => f.write_str(text),
            Self::Limited(limited) => limited.fmt(f),
            Self::UnauthorizedClient(text) => f.write_str(text),
            Self::InvalidClient => f.write_str("client authentication failed"),
            Self::UnsupportedGrantType => f.write_str("the grant type is not supported"),
        }
    }
}

impl std::error::Error for OauthError {}
