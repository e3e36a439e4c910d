//! HTTP: from bytes to calls and back, one file for each resource. Contract: `docs/reference/http-api.md`.

mod agents;
mod body;
mod context;
mod credentials;
mod error;
mod health;
mod introspect;
mod json;
mod oauth;
mod revoke;
mod server;
mod token;
mod wellknown;

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};

pub use server::serve;

use crate::app::App;
use error::ApiError;
use oauth::OauthFailure;

/// The public API.
pub fn public(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/api/v1/agents", post(agents::create))
        .route("/api/v1/agents/{agent_id}", get(agents::read))
        .route("/api/v1/agents/{agent_id}/credentials", post(credentials::create))
        .route("/oauth2/v1/token", post(token::issue))
        .route("/oauth2/v1/introspect", post(introspect::introspect))
        .route("/oauth2/v1/revoke", post(revoke::revoke))
        .route("/api/v1/token", post(token::issue))
        .route("/api/v1/token/introspect", post(introspect::introspect))
        .route("/api/v1/token/revoke", post(revoke::revoke))
        .route("/.well-known/jwks.json", get(wellknown::jwks))
        .route(wellknown::METADATA_PATH, get(wellknown::metadata))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready));
    // RFC 8414 §3.1: for an issuer with a path the well-known part goes in front of it.
    if !app.issuer_url.path().is_empty() {
        let path = format!("{}{}", wellknown::METADATA_PATH, app.issuer_url.path());
        router = router.route(&path, get(wellknown::metadata));
    }
    finish(router, app)
}

/// The probes, for the operator's eyes.
pub fn admin(app: Arc<App>) -> Router {
    let router = Router::new().route("/livez", get(health::health)).route("/readyz", get(health::ready));
    finish(router, app)
}

fn finish(router: Router<Arc<App>>, app: Arc<App>) -> Router {
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(context::enter))
        .with_state(app)
}

/// Whether a path belongs to OAuth, whose errors look different (RFC 6749 §5.2).
fn is_oauth(path: &str) -> bool {
    path.starts_with("/oauth2/") || path == "/api/v1/token" || path.starts_with("/api/v1/token/")
}

async fn not_found(request: Request) -> Response {
    if is_oauth(request.uri().path()) {
        return oauth::problem(StatusCode::NOT_FOUND, "invalid_request", "There is no such endpoint");
    }
    ApiError::NotFound.into_response()
}

/// axum adds `Allow`.
async fn method_not_allowed(method: Method, request: Request) -> Response {
    if is_oauth(request.uri().path()) {
        return oauth::problem(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request",
            "The endpoint takes POST only",
        );
    }
    ApiError::MethodNotAllowed(method).into_response()
}

/// What a request gets that ran into `error` outside of any handler.
fn respond(error: ApiError, path: &str) -> Response {
    if !is_oauth(path) {
        return error.into_response();
    }
    match error {
        ApiError::Unavailable(cause) => {
            OauthFailure(crate::grants::OauthError::Unavailable(cause)).into_response()
        }
        other => OauthFailure(crate::grants::OauthError::Server(other.to_string())).into_response(),
    }
}
