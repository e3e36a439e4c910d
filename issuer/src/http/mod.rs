//! HTTP: from bytes to calls and back, one file for each resource. Contract: `docs/reference/http-api.md`.
//!
//! A route is registered by its handler alone, `.routes(routes!(agents::create))`; several methods of one path together,
//! `.routes(routes!(agents::create, agents::list))`. Path and method are those of the handler's `#[utoipa::path]`, so that the description at
//! `/openapi.json` ([`openapi`]) can't miss one. Of errors the annotation names only the handler's own, by their codes; what any request may get
//! (401, 413, 429, 503 and so on) is added there.

mod admin;
pub(crate) mod agents;
pub(crate) mod audit;
mod body;
pub mod bounds;
pub mod catalogue;
mod conditional;
mod context;
mod cors;
pub(crate) mod credentials;
mod docs;
mod error;
pub(crate) mod health;
mod idempotency;
mod introspect;
mod json;
mod limits;
pub(crate) mod list;
pub(crate) mod maintenance;
mod metrics;
mod oauth;
mod openapi;
mod patient;
mod protect;
pub(crate) mod resource_servers;
mod revocation_status;
mod revocations;
mod revoke;
mod server;
mod status_lists;
pub(crate) mod tenants;
mod token;
mod trace_context;
mod unlock;
mod wellknown;
mod works;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use utoipa_axum::router::UtoipaMethodRouterExt as _;
use utoipa_axum::routes;

pub use admin::Operators;
pub use server::{Connections, serve};
pub use works::Works;

use crate::app::App;
use crate::config::{AllowedOrigins, Guard};
use catalogue::OauthCode;
use error::ApiError;
use oauth::OauthFailure;
use openapi::{Routes, alias};

/// The public API.
///
/// With `metrics`, these too, for whom it lets in: they aren't part of the API's description.
pub fn public(app: Arc<App>, allowed_origins: AllowedOrigins, metrics: Option<Guard>) -> Router {
    let description = docs::Description::default();
    let mut described = routes(&description);
    // RFC 8414 §3.1: for an issuer with a path the well-known part goes in front of it.
    if !app.issuer_url.path().is_empty() {
        let path = format!("{}{}", wellknown::METADATA_PATH, app.issuer_url.path());
        described = described.routes(alias(&path, routes!(wellknown::metadata)));
    }
    let (mut router, api) = described.into_parts();
    if let Some(guard) = metrics {
        router = router.route("/metrics", metrics::guarded(guard));
    }
    description.is(&openapi::describe(&api, app.issuer_url.path()));
    finish(router, app, allowed_origins)
}

/// All of them; what their `description` is comes out when they are put together.
fn routes(description: &docs::Description) -> Routes {
    let readiness = Extension(Arc::<health::LastReadiness>::default());
    Routes::default()
        .routes(routes!(agents::create, agents::list))
        .routes(routes!(agents::read, agents::update, agents::decommission))
        .routes(routes!(agents::suspend))
        .routes(routes!(agents::reactivate))
        .routes(routes!(unlock::unlock))
        .routes(routes!(credentials::create, credentials::list))
        .routes(routes!(credentials::read, credentials::update, credentials::delete))
        .routes(routes!(credentials::rotate))
        .routes(routes!(credentials::revoke))
        .routes(routes!(revocations::create))
        .routes(routes!(revocation_status::read))
        .routes(routes!(audit::list))
        .routes(routes!(audit::export))
        .routes(routes!(audit::read))
        .routes(routes!(tenants::read_own))
        .routes(routes!(tenants::create, tenants::list))
        .routes(routes!(tenants::read, tenants::update, tenants::decommission))
        .routes(routes!(tenants::suspend))
        .routes(routes!(tenants::reactivate))
        .routes(routes!(tenants::add_administrator))
        .routes(routes!(resource_servers::create, resource_servers::list))
        .routes(routes!(resource_servers::read, resource_servers::update, resource_servers::delete))
        .routes(routes!(token::issue))
        .routes(routes!(introspect::introspect))
        .routes(routes!(revoke::revoke))
        .routes(alias("/api/v1/token", routes!(token::issue)))
        .routes(alias("/api/v1/token/introspect", routes!(introspect::introspect)))
        .routes(alias("/api/v1/token/revoke", routes!(revoke::revoke)))
        .routes(routes!(wellknown::jwks))
        .routes(routes!(wellknown::metadata))
        .routes(routes!(status_lists::list))
        .routes(routes!(status_lists::read))
        .routes(routes!(health::health))
        .routes(routes!(health::ready).layer(readiness.clone()))
        .routes(alias("/health/ready", routes!(health::ready)).layer(readiness))
        .routes(routes!(docs::document).layer(Extension(description.clone())))
        .routes(routes!(docs::page))
}

/// The description of the public API, as JSON.
pub fn description() -> String {
    docs::text(&openapi::describe(&routes(&docs::Description::default()).into_parts().1, ""))
}

/// Probes, and what operators do to a running issuer.
pub fn admin(app: Arc<App>, operators: Operators) -> Router {
    finish(admin::routes(operators), app, AllowedOrigins::none())
}

/// What surrounds every route. Two layers, as every one that axum puts around a route costs each request half a dozen allocations.
fn finish(router: Router<Arc<App>>, app: Arc<App>, allowed_origins: AllowedOrigins) -> Router {
    let all = router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(app.clone(), receive))
        .with_state(app.clone());
    // Around the whole of it: axum adds `Allow` outside of a route's layers.
    let outside = Arc::new((app, allowed_origins));
    Router::new().fallback_service(all).layer(middleware::from_fn_with_state(outside, send))
}

/// What a request goes through before its handler sees it.
async fn receive(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    context::enter(app.limits.trusted_proxies(), request, async |request: Request| {
        if let Err(error) = protect::check(&request) {
            return respond(error, request.uri().path());
        }
        works::admit(&app, request, async |request: Request| match maintenance::check(&app, &request) {
            Ok(()) => limits::count(&app, request, next).await,
            Err(error) => respond(error, request.uri().path()),
        })
        .await
    })
    .await
}

/// What every answer is given on its way out.
async fn send(
    State(outside): State<Arc<(Arc<App>, AllowedOrigins)>>,
    request: Request,
    next: Next,
) -> Response {
    let (app, allowed_origins) = &*outside;
    let asked = cors::Asked::by(&request);
    let mut response = next.run(request).await;
    asked.share(allowed_origins, response.headers_mut());
    protect::add_policies(app, response.headers_mut());
    response
}

/// Whether a path belongs to OAuth, whose errors look different (RFC 6749 §5.2).
fn is_oauth(path: &str) -> bool {
    path.starts_with("/oauth2/") || path == "/api/v1/token" || path.starts_with("/api/v1/token/")
}

async fn not_found(request: Request) -> Response {
    if is_oauth(request.uri().path()) {
        return oauth::problem(OauthCode::NoSuchEndpoint, "There is no such endpoint");
    }
    ApiError::NotFound.into_response()
}

/// axum adds `Allow`, which is all that OPTIONS asks for (RFC 9110 §9.3.7).
async fn method_not_allowed(method: Method, request: Request) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    if is_oauth(request.uri().path()) {
        return oauth::problem(OauthCode::WrongMethod, "The endpoint takes POST only");
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
        ApiError::Overloaded | ApiError::Maintenance(_) => oauth::turned_away(&error),
        ApiError::UriTooLong => oauth::problem(OauthCode::TargetTooLong, "path and query are too long"),
        ApiError::Malformed(problem) => oauth::invalid(problem).into_response(),
        other => OauthFailure(crate::grants::OauthError::Server(other.to_string())).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// axum has no list of its routes to give, but shows it; with its fallback, which is at `/`.
    #[test]
    fn every_route_is_described() {
        let (router, api) = routes(&docs::Description::default()).into_parts();
        let shown = format!("{router:?}");
        let paths = shown.split("paths: {").nth(1).and_then(|rest| rest.split_once('}')).map(|_| ());
        assert!(paths.is_some(), "axum shows its routes in another way: {shown:.500}");
        let registered: BTreeSet<&str> = shown
            .split('"')
            .filter(|text| text.starts_with('/') && !text.contains("__private") && *text != "/")
            .collect();
        let described: BTreeSet<&str> = api.paths.paths.keys().map(String::as_str).collect();
        assert_eq!(registered, described);
    }

    /// Every code that an annotation names is one of the catalogue's: a mistyped one would be taken for prose.
    #[test]
    fn codes_that_are_named_are_there() {
        let (_, api) = routes(&docs::Description::default()).into_parts();
        let api = serde_json::to_value(&api).unwrap();
        let known: BTreeSet<&str> = catalogue::Code::ALL.iter().map(|code| code.as_str()).collect();
        for (path, item) in api["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
                    let said = answer["description"].as_str().unwrap_or_default();
                    let codes = said
                        .split([' ', ','])
                        .filter(|word| word.contains('_') && *word == word.to_ascii_uppercase());
                    for code in codes {
                        assert!(known.contains(code), "{path} {status}: {code}");
                    }
                }
            }
        }
    }
}
