//! What clients and verifiers discover: keys (RFC 7517) and metadata (RFC 8414).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use countersign_shared::Algorithm;
use serde::Serialize;
use utoipa::ToSchema;

use super::status_lists;
use crate::app::App;
use crate::clock;
use crate::domain::scope;

pub(super) const METADATA_PATH: &str = "/.well-known/oauth-authorization-server";

/// How long verifiers may keep the keys. A new key is published for at least as long before it signs (`keys/schedule.rs`).
fn cacheable(app: &App) -> String {
    format!("public, max-age={}", app.jwks_max_age)
}

/// Whether `If-None-Match` names `etag` (RFC 9110 §13.1.2: weak comparison, a list, or `*`).
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(',')).map(str::trim);
    known.any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "oauth", operation_id = "getKeys",
    summary = "The keys that tokens are signed with",
    description = "A JWK Set (RFC 7517 §5). May be kept for as long as `Cache-Control` says.",
    params(("if-none-match" = Option<String>, Header, description = "The `ETag` of an earlier answer.")),
    responses(
        (status = 200, description = "The keys.", body = KeySet,
            headers(("etag" = String, description = "Of this content."), ("cache-control" = String))),
        (status = 304, description = "They are still those of `If-None-Match`.",
            headers(("etag" = String, description = "Of this content."), ("cache-control" = String))),
    ),
)]
pub(super) async fn jwks(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let current = app.keys.is_fresh();
    let keys = app.keys.current();
    let jwks = &keys.tokens.published;
    // While the database is away, another issuer may have published a key that this one doesn't know: whoever kept this set would meet it unprepared.
    let cacheable = if current { cacheable(&app) } else { "no-cache".to_owned() };
    let validators = [(CACHE_CONTROL, cacheable), (ETAG, jwks.etag.clone())];
    if is_known(&headers, &jwks.etag) {
        return (StatusCode::NOT_MODIFIED, validators).into_response();
    }
    (validators, [(CONTENT_TYPE, "application/json")], jwks.document.clone()).into_response()
}

/// A JWK Set.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: the document is made when the keys are loaded")]
pub(super) struct KeySet {
    /// JWKs (RFC 7517 §4).
    keys: Vec<Key>,
}

/// A public key (RFC 7517 §4); further members are those of its type (RFC 7518 §6).
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: the document is made when the keys are loaded")]
pub(super) struct Key {
    kty: String,
    kid: String,
    alg: String,
    r#use: String,
}

/// What clients discover (RFC 8414 §2).
#[derive(Serialize, ToSchema)]
pub(super) struct Metadata {
    #[schema(format = "uri")]
    issuer: String,
    #[schema(format = "uri")]
    token_endpoint: String,
    #[schema(format = "uri")]
    introspection_endpoint: String,
    #[schema(format = "uri")]
    revocation_endpoint: String,
    #[schema(format = "uri")]
    jwks_uri: String,
    /// Where the URIs of all status lists are (draft-ietf-oauth-status-list-21 §9.1).
    #[schema(format = "uri")]
    status_list_aggregation_endpoint: String,
    #[schema(format = "uri")]
    service_documentation: String,
    scopes_supported: Vec<&'static str>,
    /// What access tokens are signed with, now or by what is planned already. Not a registered member: RFC 8414 §2 lets there be others.
    access_token_signing_alg_values_supported: Vec<&'static str>,
    /// Required, and empty: there is no authorization endpoint.
    response_types_supported: Vec<&'static str>,
    grant_types_supported: Vec<&'static str>,
    token_endpoint_auth_methods_supported: Vec<&'static str>,
    token_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    introspection_endpoint_auth_methods_supported: Vec<&'static str>,
    introspection_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    revocation_endpoint_auth_methods_supported: Vec<&'static str>,
    revocation_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
}

#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "oauth", operation_id = "getMetadata",
    summary = "What this authorization server can do",
    description = "RFC 8414.",
    responses((status = 200, description = "The metadata.", body = Metadata, headers(("cache-control" = String)))),
)]
pub(super) async fn metadata(State(app): State<Arc<App>>) -> impl IntoResponse {
    let issuer = app.issuer_url.as_str();
    let methods = || vec!["client_secret_basic", "client_secret_post", "private_key_jwt"];
    let signed_with = app.keys.current().token_algorithms_at(clock::precise());
    let signed_with = signed_with.into_iter().map(Algorithm::as_str).collect();
    // Of assertions.
    let algorithms = || Algorithm::ALL.map(Algorithm::as_str).to_vec();
    let metadata = Metadata {
        issuer: issuer.to_owned(),
        token_endpoint: format!("{issuer}/oauth2/v1/token"),
        introspection_endpoint: format!("{issuer}/oauth2/v1/introspect"),
        revocation_endpoint: format!("{issuer}/oauth2/v1/revoke"),
        jwks_uri: format!("{issuer}/.well-known/jwks.json"),
        status_list_aggregation_endpoint: format!("{issuer}{}", status_lists::PATH),
        service_documentation: format!("{issuer}/docs"),
        scopes_supported: scope::MANAGEMENT.to_vec(),
        access_token_signing_alg_values_supported: signed_with,
        response_types_supported: Vec::new(),
        grant_types_supported: vec!["client_credentials"],
        token_endpoint_auth_methods_supported: methods(),
        token_endpoint_auth_signing_alg_values_supported: algorithms(),
        introspection_endpoint_auth_methods_supported: methods(),
        introspection_endpoint_auth_signing_alg_values_supported: algorithms(),
        revocation_endpoint_auth_methods_supported: methods(),
        revocation_endpoint_auth_signing_alg_values_supported: algorithms(),
    };
    ([(CACHE_CONTROL, cacheable(&app))], Json(metadata))
}
