//! What the OAuth endpoints have in common: form parameters, client authentication as it is sent, errors as RFC 6749 §5.2 has them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use serde_json::{Value, json};
use tracing::{error, warn};

use super::body::{self, BodyError};
use super::bounds::BODY_BYTES;
use super::catalogue::{Code, OauthCode};
use super::error::{Answer, ApiError, RETRY_AFTER_SECONDS};
use super::limits;
use crate::config::Secret;
use crate::domain::redaction::redacted;
use crate::grants::OauthError;
use crate::grants::client_auth::Presented;

/// The parameters of a request, and who it says it is from.
pub(super) struct Form {
    parameters: BTreeMap<String, String>,
    pub(super) client: Presented,
}

impl Form {
    /// Reads the body of `request` and its client authentication.
    pub(super) async fn read(request: Request) -> Result<Self, OauthFailure> {
        let (parts, body) = request.into_parts();
        if !body::is_media_type(&parts.headers, "application/x-www-form-urlencoded") {
            let problem =
                "the body must be a form, with the header Content-Type: application/x-www-form-urlencoded";
            return Err(invalid(problem));
        }
        let bytes = body::read(body).await.map_err(|error| match error {
            BodyError::TooLarge => invalid(&format!("the body is over {} KiB", BODY_BYTES / 1024)),
            BodyError::Incomplete => invalid("the body did not arrive whole"),
        })?;
        let mut parameters = parameters(&bytes)?;
        let client = client(&parts.headers, &mut parameters)?;
        Ok(Self { parameters, client })
    }

    /// The parameter `name`; sent empty counts as not sent (RFC 6749 §3.1).
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.parameters.remove(name)
    }
}

fn parameters(body: &[u8]) -> Result<BTreeMap<String, String>, OauthFailure> {
    let mut parameters = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(body) {
        if value.chars().any(char::is_control) {
            return Err(invalid("a parameter has control characters"));
        }
        if parameters.insert(name.to_string(), value.to_string()).is_none() {
            continue;
        }
        return Err(match &*name {
            // RFC 8707 §2 allows several; a token of ours is for one.
            "resource" => OauthFailure(OauthError::InvalidTarget("one resource for each token".into())),
            _ => invalid("a parameter comes twice"),
        });
    }
    parameters.retain(|_, value| !value.is_empty());
    Ok(parameters)
}

/// The one type of assertion that there is (RFC 7523 §2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Client authentication by the header, by the form or by an assertion, never two of them (RFC 6749 §2.3).
fn client(headers: &HeaderMap, parameters: &mut BTreeMap<String, String>) -> Result<Presented, OauthFailure> {
    let (id, secret) = (parameters.remove("client_id"), parameters.remove("client_secret"));
    let assertion = (parameters.remove("client_assertion_type"), parameters.remove("client_assertion"));
    let mut authorizations = headers.get_all(AUTHORIZATION).iter();
    let (header, None) = (authorizations.next(), authorizations.next()) else {
        return Err(invalid("the header Authorization comes twice"));
    };
    match (header, secret, assertion) {
        (Some(_), Some(_), _) => Err(invalid("the client authenticates by header and by form; use one")),
        (Some(_), _, (_, Some(_))) | (_, Some(_), (_, Some(_))) => {
            Err(invalid("the client authenticates by an assertion and by a secret; use one"))
        }
        (_, _, (Some(_), None)) => Err(invalid("client_assertion is required with client_assertion_type")),
        (None, None, (None, Some(_))) => {
            Err(invalid("client_assertion_type is required with client_assertion"))
        }
        (None, None, (Some(kind), Some(assertion))) => Ok(if kind == ASSERTION_TYPE {
            Presented::Assertion { client_id: id, assertion: Secret::new(assertion) }
        } else {
            Presented::Unreadable
        }),
        (Some(header), None, (None, None)) => match (basic(header), id) {
            // What can't be read is an attempt that failed too, and is written down as one.
            (None, _) => Ok(Presented::Unreadable),
            (Some((client_id, _)), Some(id)) if id != client_id => {
                Err(invalid("client_id is not the client that the header names"))
            }
            (Some((client_id, secret)), _) => Ok(Presented::Secret { client_id, secret }),
        },
        (None, secret, (None, None)) => Ok(Presented::Secret {
            client_id: id.unwrap_or_default(),
            secret: Secret::new(secret.unwrap_or_default()),
        }),
    }
}

/// `Basic` with both parts form-urlencoded first (RFC 6749 §2.3.1).
fn basic(header: &HeaderValue) -> Option<(String, Secret)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64.decode(encoded.trim().as_bytes()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((decode(id)?, Secret::new(decode(secret)?)))
}

fn decode(component: &str) -> Option<String> {
    let pair = format!("value={component}");
    let mut pairs = form_urlencoded::parse(pair.as_bytes());
    let (_, value) = pairs.next()?;
    pairs.next().is_none().then(|| value.into_owned())
}

pub(super) fn invalid(problem: &str) -> OauthFailure {
    OauthFailure(OauthError::invalid_request(problem))
}

/// An [`OauthError`] on its way out.
pub(super) struct OauthFailure(pub(super) OauthError);

impl From<OauthError> for OauthFailure {
    fn from(error: OauthError) -> Self {
        Self(error)
    }
}

impl IntoResponse for OauthFailure {
    fn into_response(self) -> Response {
        let error = self.0;
        match &error {
            OauthError::Unavailable(cause) => warn!(cause, "service unavailable"),
            OauthError::Server(cause) => error!(cause, "internal error"),
            _ => {}
        }
        let code = match &error {
            OauthError::Limited(limited) => return limits::refusal(limited),
            OauthError::InvalidRequest(_) => OauthCode::InvalidRequest,
            OauthError::InvalidClient => OauthCode::InvalidClient,
            OauthError::UnauthorizedClient(_) => OauthCode::UnauthorizedClient,
            OauthError::UnsupportedGrantType => OauthCode::UnsupportedGrantType,
            OauthError::InvalidScope(_) => OauthCode::InvalidScope,
            OauthError::InvalidTarget(_) => OauthCode::InvalidTarget,
            OauthError::Unavailable(_) => OauthCode::TemporarilyUnavailable,
            OauthError::Server(_) => OauthCode::ServerError,
        };
        let mut response = match &error {
            OauthError::Unavailable(_) => {
                problem(code, "the service is temporarily unavailable; try again shortly")
            }
            OauthError::Server(_) => problem(code, "something went wrong on our side"),
            answerable => problem(code, &answerable.to_string()),
        };
        let status = code.status();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"countersign\""));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}

/// What a client gets that is turned away before anything was looked at: the error in OAuth's form, with the code from the catalogue.
pub(super) fn turned_away(error: &ApiError) -> Response {
    let Answer { code, message, details, retry_after, .. } = error.answer();
    let mut response = coded(OauthCode::TemporarilyUnavailable.as_str(), code, &message, &details);
    response.headers_mut().insert(RETRY_AFTER, retry_after.map_or(RETRY_AFTER_SECONDS, HeaderValue::from));
    response
}

/// An error in OAuth's form, `word`, that has a code in the catalogue, too.
pub(super) fn coded(word: &str, code: Code, description: &str, details: &Value) -> Response {
    let body = json!({
        "error": word,
        "error_description": described(description),
        "code": code.as_str(),
        "details": details,
    });
    (code.status(), [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// An error response (RFC 6749 §5.2); of `description` what the RFC's alphabet allows.
pub(super) fn problem(code: OauthCode, description: &str) -> Response {
    let body = Json(json!({ "error": code.as_str(), "error_description": described(description) }));
    (code.status(), [(CACHE_CONTROL, "no-store")], body).into_response()
}

/// What the RFC's alphabet allows of `text`; of what the caller sent by mistake no secret, for clients log what they are answered.
fn described(text: &str) -> String {
    let allowed = |character: &char| matches!(character, ' '..='!' | '#'..='[' | ']'..='~');
    redacted(text).chars().filter(allowed).collect()
}
