//! What clients and verifiers discover: keys (RFC 7517) and metadata (RFC 8414).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::app::App;
use crate::domain::scope;

pub(super) const METADATA_PATH: &str = "/.well-known/oauth-authorization-server";

/// How long verifiers may keep the keys, in seconds. A new key must be published for at least as long before it signs.
const CACHEABLE: &str = "public, max-age=300";

pub(super) async fn jwks(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let jwks = &app.token_keys.published;
    let validators = [(CACHE_CONTROL, CACHEABLE), (ETAG, jwks.etag.as_str())];
    // RFC 9110 §13.1.2: weak comparison, a list, or `*`.
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(',')).map(str::trim);
    if known.any(|tag| tag == "*" || tag.trim_start_matches("W/") == jwks.etag) {
        return (StatusCode::NOT_MODIFIED, validators).into_response();
    }
    (validators, [(CONTENT_TYPE, "application/json")], jwks.document.clone()).into_response()
}

pub(super) async fn metadata(State(app): State<Arc<App>>) -> impl IntoResponse {
    let issuer = app.issuer_url.as_str();
    let methods = ["client_secret_basic", "client_secret_post"];
    let metadata = json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/oauth2/v1/token"),
        "introspection_endpoint": format!("{issuer}/oauth2/v1/introspect"),
        "revocation_endpoint": format!("{issuer}/oauth2/v1/revoke"),
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "scopes_supported": scope::MANAGEMENT,
        "response_types_supported": [], // required, and there is no authorization endpoint
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
    });
    ([(CACHE_CONTROL, CACHEABLE)], Json(metadata))
}
