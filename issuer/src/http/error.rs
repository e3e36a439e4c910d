//! The error envelope: `{"code", "message", "details"}`.

use std::fmt;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use countersign_shared::{Refusal, oauth};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use tracing::{error, warn};

use super::bounds::{BODY_BYTES, TARGET_BYTES};
use super::catalogue::Code;
use super::{limits, maintenance};
use crate::domain::agent::MAX_METADATA;
use crate::maintenance::Mode;
use crate::management::ManagementError;
use crate::storage::StorageError;

/// Seconds after which a client may try again when the database is lost.
pub(super) const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("2");

/// After which one who was turned away may try again because there was too much to do.
pub(super) const OVERLOADED_SECONDS: u64 = 1;
/// And because of maintenance.
pub(super) const MAINTENANCE_SECONDS: u64 = 30;

/// What is wrong with one field of a body.
#[derive(Debug)]
pub(super) struct FieldProblem {
    pub(super) field: String,
    pub(super) problem: String,
}

/// Every way in which a request other than an OAuth request fails.
#[derive(Debug)]
pub(super) enum ApiError {
    Malformed(&'static str),
    Validation(Vec<FieldProblem>),
    UriTooLong,
    PayloadTooLarge,
    UnsupportedMediaType,
    PreconditionRequired,
    IdempotencyKeyReused,
    IdempotencyKeyInUse,
    NotFound,
    StatusListNotFound,
    NotAcceptable,
    HistoryNotKept,
    /// As many requests are in the works as may be.
    Overloaded,
    Maintenance(Mode),
    MethodNotAllowed(Method),
    OperatorTokenRequired,
    AccessRefused,
    Management(ManagementError),
    /// The text is for the log.
    Unavailable(String),
    /// The text is for the log.
    Internal(String),
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        ManagementError::from(error).into()
    }
}

impl From<ManagementError> for ApiError {
    fn from(error: ManagementError) -> Self {
        match error {
            ManagementError::Storage(StorageError::Unavailable(_)) => Self::Unavailable(error.to_string()),
            ManagementError::Storage(StorageError::Refused(_) | StorageError::Row { .. })
            | ManagementError::Randomness => Self::Internal(error.to_string()),
            answerable => Self::Management(answerable),
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(cause) | Self::Internal(cause) => f.write_str(cause),
            other => write!(f, "{other:?}"),
        }
    }
}

pub(super) struct Answer {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) details: Value,
    challenge: Option<String>,
    pub(super) retry_after: Option<u64>,
}

impl Answer {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: json!({}), challenge: None, retry_after: None }
    }
}

impl ApiError {
    /// For people at the command line: of fields, which and why.
    pub(super) fn in_words(self) -> String {
        let Self::Validation(problems) = self else { return self.answer().message };
        let problems: Vec<String> =
            problems.iter().map(|FieldProblem { field, problem }| format!("{field} {problem}")).collect();
        problems.join("; ")
    }

    pub(super) fn answer(&self) -> Answer {
        match self {
            Self::Malformed(problem) => Answer::new(Code::MalformedRequest, *problem),
            Self::Validation(problems) => {
                let fields: Vec<Value> = problems
                    .iter()
                    .map(|FieldProblem { field, problem }| json!({ "field": field, "problem": problem }))
                    .collect();
                let message = "Some fields are unknown, missing or wrong; details.fields names each.";
                let answer = Answer::new(Code::ValidationError, message);
                Answer { details: json!({ "fields": fields }), ..answer }
            }
            Self::UriTooLong => {
                let message = format!("The path and query are over {} KiB.", TARGET_BYTES / 1024);
                Answer::new(Code::UriTooLong, message)
            }
            Self::PayloadTooLarge => {
                let message = format!("The request body is over {} KiB.", BODY_BYTES / 1024);
                Answer::new(Code::PayloadTooLarge, message)
            }
            Self::UnsupportedMediaType => {
                let message = "The body must be JSON, with the header Content-Type: application/json, or with PATCH \
                               application/merge-patch+json.";
                Answer::new(Code::UnsupportedMediaType, message)
            }
            Self::PreconditionRequired => {
                let message = "The header If-Match is required: the ETag of what was read, or `*`.";
                Answer::new(Code::PreconditionRequired, message)
            }
            Self::IdempotencyKeyReused => {
                let message = "This Idempotency-Key was used for another request.";
                Answer::new(Code::IdempotencyKeyReused, message)
            }
            Self::IdempotencyKeyInUse => {
                let message =
                    "Another request with this Idempotency-Key is still under way; try again shortly.";
                Answer::new(Code::IdempotencyKeyInUse, message)
            }
            Self::NotFound => Answer::new(Code::NotFound, "There is nothing at this path."),
            Self::StatusListNotFound => {
                Answer::new(Code::StatusListNotFound, "No token that may be alive refers to this list.")
            }
            Self::NotAcceptable => {
                let message =
                    "Status lists are application/statuslist+jwt, which the header Accept excludes.";
                Answer::new(Code::NotAcceptable, message)
            }
            Self::HistoryNotKept => {
                let message =
                    "How a status list was at another time isn't kept; ask without the parameter time.";
                Answer::new(Code::HistoryNotKept, message)
            }
            Self::MethodNotAllowed(method) => {
                let message =
                    format!("This path doesn't take {method}; the header Allow says what it takes.");
                Answer::new(Code::MethodNotAllowed, message)
            }
            Self::OperatorTokenRequired => {
                let message = "The admin listener's token is required: Authorization: Bearer.";
                let answer = Answer::new(Code::OperatorTokenRequired, message);
                Answer { challenge: Some("Bearer".to_owned()), ..answer }
            }
            Self::AccessRefused => {
                Answer::new(Code::AccessRefused, "This isn't for who asks, or not from there.")
            }
            Self::Overloaded => {
                let message = "The issuer has as many requests in the works as it takes; try again shortly.";
                Answer { retry_after: Some(OVERLOADED_SECONDS), ..Answer::new(Code::Overloaded, message) }
            }
            Self::Maintenance(mode) => {
                let message = match &mode.reason {
                    Some(reason) => format!("Nothing can be changed during maintenance: {reason}"),
                    None => "Nothing can be changed during maintenance.".to_owned(),
                };
                let answer = Answer::new(Code::Maintenance, message);
                Answer { details: maintenance::body(mode), retry_after: Some(MAINTENANCE_SECONDS), ..answer }
            }
            Self::Management(error) => management_answer(error),
            Self::Unavailable(_) => {
                let message = "The service is temporarily unavailable; try again shortly.";
                Answer::new(Code::ServiceUnavailable, message)
            }
            Self::Internal(_) => internal(),
        }
    }
}

fn internal() -> Answer {
    let message = "Something went wrong on our side; the log has the cause under this request's id.";
    Answer::new(Code::InternalError, message)
}

/// Text from inside, as a message of its own.
fn sentence(text: &impl fmt::Display) -> String {
    let text = text.to_string();
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), characters.as_str()))
}

#[expect(clippy::too_many_lines, reason = "one arm for each error: there is nothing to take out")]
fn management_answer(error: &ManagementError) -> Answer {
    match error {
        ManagementError::Unauthenticated(refusal) => {
            let message = match refusal {
                None => "A bearer token for the issuer is required.".to_owned(),
                Some(refusal) => format!("{}.", refusal.description()),
            };
            let answer = Answer::new(Code::Unauthorized, message);
            Answer { challenge: Some(oauth::challenge(None, refusal.as_ref(), None)), ..answer }
        }
        ManagementError::InsufficientScope(scope) => {
            let message = format!("The token lacks the scope {scope}.");
            let answer = Answer::new(Code::InsufficientScope, message);
            let challenge = oauth::challenge(None, Some(&Refusal::InsufficientScope), Some(scope));
            Answer { details: json!({ "required_scope": scope }), challenge: Some(challenge), ..answer }
        }
        ManagementError::ScopeEscalation(scopes) => {
            let message = "Management scopes that the token doesn't hold can't be handed out.";
            let answer = Answer::new(Code::ScopeEscalation, message);
            Answer { details: json!({ "scopes": scopes.iter().collect::<Vec<_>>() }), ..answer }
        }
        ManagementError::AgentNotFound => {
            Answer::new(Code::AgentNotFound, "There is no such agent in this tenant.")
        }
        ManagementError::CredentialNotFound => {
            Answer::new(Code::CredentialNotFound, "There is no such credential in this tenant.")
        }
        ManagementError::TokenNotFound => {
            Answer::new(Code::TokenNotFound, "There is no such token of this tenant.")
        }
        ManagementError::KeyNotFound => Answer::new(Code::KeyNotFound, "There is no such signing key."),
        ManagementError::AuditEventNotFound => {
            Answer::new(Code::AuditEventNotFound, "There is no such audit event in this tenant.")
        }
        ManagementError::AgentAlreadyExists => {
            let message = "An agent of this tenant has the email already.";
            Answer::new(Code::AgentAlreadyExists, message)
        }
        ManagementError::BeyondCaller(scopes) => {
            let message = "The agent has management scopes that the token doesn't hold, so it can't be changed with it.";
            let answer = Answer::new(Code::ScopeEscalation, message);
            Answer { details: json!({ "scopes": scopes.iter().collect::<Vec<_>>() }), ..answer }
        }
        ManagementError::PlatformScopes(scopes) => {
            let message = "Only agents of the platform's tenant may have these scopes.";
            let answer = Answer::new(Code::PlatformScopeReserved, message);
            Answer { details: json!({ "scopes": scopes.iter().collect::<Vec<_>>() }), ..answer }
        }
        ManagementError::CredentialNotActive => Answer::new(
            Code::CredentialNotActive,
            "The credential is revoked or has expired, so it stays as it is.",
        ),
        ManagementError::CredentialLimitReached(limit) => {
            let message = format!("The agent may have {limit} such credentials, and has them.");
            let answer = Answer::new(Code::CredentialLimitReached, message);
            Answer { details: json!({ "limit": limit }), ..answer }
        }
        ManagementError::RotationInProgress(until) => {
            let message = "The credential was rotated, and what it was before is still good.";
            let until = until.truncate_to_second().format(&Rfc3339).unwrap_or_default();
            let answer = Answer::new(Code::RotationInProgress, message);
            Answer { details: json!({ "previous_expires_at": until }), ..answer }
        }
        ManagementError::AgentDecommissioned => {
            Answer::new(Code::AgentDecommissioned, "The agent is decommissioned, which is final.")
        }
        ManagementError::AgentIsCaller => {
            let message = "An agent can't suspend or decommission itself, nor change its own scopes.";
            Answer::new(Code::AgentIsCaller, message)
        }
        ManagementError::AgentLimitReached(max) => {
            let message = format!("The tenant may have {max} agents, and has them.");
            let answer = Answer::new(Code::AgentLimitReached, message);
            Answer { details: json!({ "max_agents": max }), ..answer }
        }
        ManagementError::PreconditionFailed => {
            let message = "It was changed since: its revision isn't one that If-Match names.";
            Answer::new(Code::PreconditionFailed, message)
        }
        ManagementError::TooMuchMetadata => {
            let message = "Some fields are unknown, missing or wrong; details.fields names each.";
            let answer = Answer::new(Code::ValidationError, message);
            let problem = format!("must have at most {MAX_METADATA} members, those that were there included");
            Answer { details: json!({ "fields": [{ "field": "metadata", "problem": problem }] }), ..answer }
        }
        ManagementError::AgentNotActive => {
            let message = "The agent is not active, so it gets no credential.";
            Answer::new(Code::AgentNotActive, message)
        }
        ManagementError::Field { field, problem } => {
            let message = "Some fields are unknown, missing or wrong; details.fields names each.";
            let answer = Answer::new(Code::ValidationError, message);
            Answer { details: json!({ "fields": [{ "field": field, "problem": problem }] }), ..answer }
        }
        ManagementError::TenantNotFound => Answer::new(Code::TenantNotFound, "There is no such tenant."),
        ManagementError::TenantAlreadyExists => {
            Answer::new(Code::TenantAlreadyExists, "Another tenant has the name already.")
        }
        ManagementError::TenantDecommissioned => {
            let message = "The tenant was decommissioned; nothing about it changes any more.";
            Answer::new(Code::TenantDecommissioned, message)
        }
        ManagementError::PlatformTenant => {
            let message = "The platform's own tenant can't be suspended or decommissioned.";
            Answer::new(Code::PlatformTenant, message)
        }
        ManagementError::ResourceServerNotFound => {
            let message = "There is no such resource server in this tenant.";
            Answer::new(Code::ResourceServerNotFound, message)
        }
        // Not whose it is. Only the operator comes by the second.
        ManagementError::ResourceServerAlreadyExists | ManagementError::IdentifierInUse => {
            let message = "The identifier is taken, or one that is easily taken for it.";
            Answer::new(Code::ResourceServerAlreadyExists, message)
        }
        ManagementError::ResourceServerLimitReached => {
            let message = "The tenant has registered as many identifiers as it may.";
            Answer::new(Code::ResourceServerLimitReached, message)
        }
        ManagementError::RateLimited(limited) => {
            let answer = Answer::new(Code::RateLimitExceeded, sentence(limited));
            Answer { details: limits::details(limited), retry_after: Some(limited.retry_after()), ..answer }
        }
        // Turned into Unavailable or Internal on the way here.
        ManagementError::Storage(_) | ManagementError::Randomness => internal(),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match &self {
            Self::Unavailable(cause) => warn!(cause, "service unavailable"),
            Self::Internal(cause) => error!(cause, "internal error"),
            _ => {}
        }
        let Answer { code, message, details, challenge, retry_after } = self.answer();
        let status = code.status();
        let body = Json(json!({ "code": code.as_str(), "message": message, "details": details }));
        let mut response = (status, body).into_response();
        // For who writes down what was refused.
        response.extensions_mut().insert(code);
        let headers = response.headers_mut();
        if let Some(challenge) = challenge.and_then(|challenge| HeaderValue::from_str(&challenge).ok()) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE || code == Code::IdempotencyKeyInUse {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
