//! The error envelope: `{"code", "message", "details"}`.

use std::fmt;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use countersign_shared::{Refusal, oauth};
use serde_json::{Value, json};
use tracing::{error, warn};

use crate::management::ManagementError;
use crate::storage::StorageError;

/// Seconds after which a client may try again when the database is lost.
pub(super) const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("2");

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
    PayloadTooLarge,
    UnsupportedMediaType,
    NotFound,
    MethodNotAllowed(Method),
    Management(ManagementError),
    /// The text is for the log.
    Unavailable(String),
    /// The text is for the log.
    Internal(String),
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

struct Answer {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Value,
    challenge: Option<String>,
}

impl Answer {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: json!({}), challenge: None }
    }
}

impl ApiError {
    fn answer(&self) -> Answer {
        match self {
            Self::Malformed(problem) => Answer::new(StatusCode::BAD_REQUEST, "MALFORMED_REQUEST", *problem),
            Self::Validation(problems) => {
                let fields: Vec<Value> = problems
                    .iter()
                    .map(|FieldProblem { field, problem }| json!({ "field": field, "problem": problem }))
                    .collect();
                let message = "Some fields are unknown, missing or wrong; details.fields names each.";
                let answer = Answer::new(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", message);
                Answer { details: json!({ "fields": fields }), ..answer }
            }
            Self::PayloadTooLarge => {
                let message = "The request body is over 64 KiB.";
                Answer::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
            }
            Self::UnsupportedMediaType => {
                let message = "The body must be JSON, with the header Content-Type: application/json.";
                Answer::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", message)
            }
            Self::NotFound => {
                Answer::new(StatusCode::NOT_FOUND, "NOT_FOUND", "There is nothing at this path.")
            }
            Self::MethodNotAllowed(method) => {
                let message =
                    format!("This path doesn't take {method}; the header Allow says what it takes.");
                Answer::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
            }
            Self::Management(error) => management_answer(error),
            Self::Unavailable(_) => {
                let message = "The service is temporarily unavailable; try again shortly.";
                Answer::new(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", message)
            }
            Self::Internal(_) => internal(),
        }
    }
}

fn internal() -> Answer {
    let message = "Something went wrong on our side; the log has the cause under this request's id.";
    Answer::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", message)
}

fn management_answer(error: &ManagementError) -> Answer {
    match error {
        ManagementError::Unauthenticated(refusal) => {
            let message = match refusal {
                None => "A bearer token for the issuer is required.".to_owned(),
                Some(refusal) => format!("{}.", refusal.description()),
            };
            let answer = Answer::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message);
            Answer { challenge: Some(oauth::challenge(None, refusal.as_ref(), None)), ..answer }
        }
        ManagementError::InsufficientScope(scope) => {
            let message = format!("The token lacks the scope {scope}.");
            let answer = Answer::new(StatusCode::FORBIDDEN, "INSUFFICIENT_SCOPE", message);
            let challenge = oauth::challenge(None, Some(&Refusal::InsufficientScope), Some(scope));
            Answer { details: json!({ "required_scope": scope }), challenge: Some(challenge), ..answer }
        }
        ManagementError::ScopeEscalation(scopes) => {
            let message = "Management scopes that the token doesn't hold can't be handed out.";
            let answer = Answer::new(StatusCode::FORBIDDEN, "SCOPE_ESCALATION", message);
            Answer { details: json!({ "scopes": scopes.iter().collect::<Vec<_>>() }), ..answer }
        }
        ManagementError::AgentNotFound => {
            Answer::new(StatusCode::NOT_FOUND, "AGENT_NOT_FOUND", "There is no such agent in this tenant.")
        }
        ManagementError::AgentAlreadyExists => {
            let message = "An agent of this tenant has the email already.";
            Answer::new(StatusCode::CONFLICT, "AGENT_ALREADY_EXISTS", message)
        }
        ManagementError::AgentNotActive => {
            let message = "The agent is not active, so it gets no credential.";
            Answer::new(StatusCode::CONFLICT, "AGENT_NOT_ACTIVE", message)
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
        let Answer { status, code, message, details, challenge } = self.answer();
        let body = Json(json!({ "code": code, "message": message, "details": details }));
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        if let Some(challenge) = challenge.and_then(|challenge| HeaderValue::from_str(&challenge).ok()) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}
