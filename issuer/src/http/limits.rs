//! Limits as clients see them: headers on every answer of a limited endpoint, and refusals.

use axum::extract::Request;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use countersign_shared::{AgentId, TenantId};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::catalogue::Code;
use super::error::ApiError;
use super::is_oauth;
use super::oauth::{self, OauthFailure};
use crate::app::App;
use crate::clock;
use crate::domain::audit::{Action, Event, Origin};
use crate::domain::limit::{Endpoint, Standing};
use crate::domain::redaction::redacted;
use crate::failures::Concerns;
use crate::grants::OauthError;
use crate::limits::{Limited, RateLimited, meter};
use crate::management::ManagementError;
use crate::storage::StorageError;

/// As they have been in use for long, without a standard: limit, what is left of it, and the Unix time at which that changes.
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// draft-ietf-httpapi-ratelimit-headers-10: structured fields, with durations for times.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Counts a request by where it comes from, before anything is done for it (at OAuth's endpoints: before anything but reading it), and tells how it stands
/// with the limits that it met.
pub(super) async fn count(app: &App, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let Some(endpoint) = endpoint(path).filter(|_| request.method() != Method::OPTIONS) else {
        return next.run(request).await;
    };
    let oauth = is_oauth(path);
    let changing = !matches!(*request.method(), Method::GET | Method::HEAD);
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let origin = request.extensions().get::<Origin>().cloned().unwrap_or_default();
    let address = origin.client_ip.map(|ip| app.limits.of_address(ip));
    let answering = async {
        // OAuth's endpoints ask for it with what else they ask, in one go; for requests that don't get as far it is asked here.
        if oauth {
            let response = next.run(request).await;
            let counted = app.limits.from_address().await;
            return counted.map_or_else(|limited| refuse(limited, oauth), |()| response);
        }
        match app.limits.from_address().await {
            Ok(()) => next.run(request).await,
            Err(limited) => refuse(limited, oauth),
        }
    };
    let (mut response, metered) = meter::metered(endpoint, address, answering).await;
    tell(response.headers_mut(), &metered.standings);
    if let (Some(caller), Some(code)) = (metered.caller, response.extensions().get::<Code>())
        && is_attempt(changing, response.status())
        && let Err(error) =
            Box::pin(write_down(app, caller, &attempted(&method, &uri), code.as_str(), &origin)).await
    {
        return ApiError::from(error).into_response(); // what can't be written down isn't answered
    }
    response
}

/// Whether an answer is written down that refuses something: to who may not do it or, where they would have changed something, because it isn't there
/// for them, isn't in a state for it, or was changed meanwhile. What can't be read was no attempt at anything.
fn is_attempt(changing: bool, status: StatusCode) -> bool {
    let of_state =
        matches!(status, StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED);
    status == StatusCode::FORBIDDEN || changing && of_state
}

/// What was asked, by method and path, ids and all; what was a secret in the wrong place is not.
fn attempted(method: &Method, uri: &Uri) -> String {
    let path: Vec<_> = uri.path().split('/').map(redacted).collect();
    format!("{method} {}", path.join("/").chars().take(256).collect::<String>())
}

/// What was refused to whom: their administrators want to know who tries what.
async fn write_down(
    app: &App,
    (tenant, agent): (TenantId, AgentId),
    asked: &str,
    code: &'static str,
    origin: &Origin,
) -> Result<(), StorageError> {
    let event = Event::failed(Action::ManagementRefused, code, origin)
        .with(json!({ "reason": code, "attempted": asked }));
    let event = Event { tenant: Some(tenant), actor: Some(agent), ..event };
    app.failures.record(&app.audit, Concerns::Known, event).await
}

/// The class of a path; `None`: without limits, as probes and what verifiers fetch.
fn endpoint(path: &str) -> Option<Endpoint> {
    match path {
        "/oauth2/v1/token" | "/api/v1/token" => Some(Endpoint::Token),
        "/oauth2/v1/introspect" | "/api/v1/token/introspect" => Some(Endpoint::Introspect),
        "/oauth2/v1/revoke" | "/api/v1/token/revoke" => Some(Endpoint::Revoke),
        _ => path.starts_with("/api/").then_some(Endpoint::Management),
    }
}

fn refuse(limited: RateLimited, oauth: bool) -> Response {
    if oauth {
        OauthFailure(OauthError::Limited(Limited::Rate(limited))).into_response()
    } else {
        ApiError::from(ManagementError::RateLimited(limited)).into_response()
    }
}

/// The policies of all limits that the request met, and how it stands with the tightest.
fn tell(headers: &mut HeaderMap, standings: &[Standing]) {
    let Some(tightest) = standings.iter().min_by_key(|standing| standing.remaining) else { return };
    let Standing { kind, limit, remaining, reset_in } = *tightest;
    headers.reserve(16); // with those that every answer gets after these
    headers.insert(X_LIMIT, limit.into());
    headers.insert(X_REMAINING, remaining.into());
    headers.insert(X_RESET, (clock::millis() + reset_in).div_ceil(1000).into());
    let policies: Vec<String> =
        standings.iter().map(|Standing { kind, limit, .. }| format!("\"{kind}\";q={limit};w=60")).collect();
    let state = format!("\"{kind}\";r={remaining};t={}", reset_in.div_ceil(1000));
    for (name, value) in [(RATE_LIMIT, state), (RATE_LIMIT_POLICY, policies.join(", "))] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}

/// Which limit it was.
pub(super) fn details(limited: &RateLimited) -> Value {
    json!({ "limit_of": limited.standing.kind, "limit": limited.standing.limit })
}

/// What an OAuth client gets that ran into a limit: the error in OAuth's form, with the code from the catalogue.
pub(super) fn refusal(limited: &Limited) -> Response {
    let (code, word, details, retry_after) = match limited {
        Limited::Rate(limited) => (
            Code::RateLimitExceeded,
            "temporarily_unavailable",
            details(limited),
            Some(limited.retry_after()),
        ),
        Limited::LockedOut(locked_out) => {
            (Code::ClientLockedOut, "invalid_client", json!({}), Some(locked_out.retry_after()))
        }
        Limited::Quota(used_up) => {
            let resets_at = used_up.resets_at.format(&Rfc3339).unwrap_or_default();
            let details = json!({ "quota": used_up.quota, "used": used_up.used, "resets_at": resets_at });
            (Code::FreeTierLimitExceeded, "access_denied", details, None)
        }
    };
    let mut response = oauth::coded(word, code, &limited.to_string(), &details);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_attempted_is_named_without_secrets() {
        let asked = |path: &str| attempted(&Method::DELETE, &path.parse().unwrap());
        let plain = "/api/v1/agents/9b83f8ea-1ad4-42d0-9bba-cdd6f3faeda3";
        assert_eq!(asked(plain), format!("DELETE {plain}"));
        let secret = asked("/api/v1/agents/csk_hqau5m2kq7x3vqdi3rnigmz3f5b/suspend");
        assert!(!secret.contains("csk_") && secret.ends_with("/suspend"), "{secret}");
        assert_eq!(asked(&format!("/api/{}", "a".repeat(300))).len(), "DELETE ".len() + 256);
    }
}
