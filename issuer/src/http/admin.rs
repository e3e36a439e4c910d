//! The admin listener: probes for whoever watches the process, and for operators with the token what they do to it while it runs.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HeaderName, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use tracing::warn;

use super::error::ApiError;
use super::json::Fields;
use super::{health, maintenance, metrics};
use crate::app::App;
use crate::config::{LogLevel, Secret};
use crate::domain::audit::Origin;
use crate::telemetry::Logs;

/// Browsers send it with every request, and no page may leave it out.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who may use the admin listener for more than probes.
#[derive(Clone)]
pub struct Operators {
    /// What they show; without it, whoever reaches the listener.
    pub token: Option<Secret>,
    /// Whether they may read metrics.
    pub metrics: bool,
    /// Whose level they may change.
    pub logs: Arc<Logs>,
}

pub(super) fn routes(operators: Operators) -> Router<Arc<App>> {
    let mut guarded = Router::new()
        .route("/shutdown", post(shutdown))
        .route("/maintenance", get(maintenance::show).post(maintenance::switch))
        .route("/log-level", get(log_level).put(set_log_level))
        .layer(Extension(operators.logs.clone()));
    if operators.metrics {
        guarded = guarded.route("/metrics", metrics::route());
    }
    let guarded = guarded.route_layer(middleware::from_fn_with_state(operators, guard));
    let readiness = Extension(Arc::<health::LastReadiness>::default());
    let ready = get(health::ready).layer(readiness);
    Router::new().route("/livez", get(health::health)).route("/readyz", ready).merge(guarded)
}

/// Lets operators through. A page in a browser on the same machine, which reaches the loopback too, is none.
async fn guard(State(operators): State<Operators>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if headers.contains_key(ORIGIN) || headers.contains_key(FETCH_SITE) {
        return ApiError::AccessRefused.into_response();
    }
    let shown = shows(headers, operators.token.as_ref());
    if shown {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Origin>().and_then(|origin| origin.client_ip);
    warn!(peer = peer.map(|peer| peer.to_string()), "the admin listener was asked without its token");
    ApiError::OperatorTokenRequired.into_response()
}

/// Whether the bearer token is `expected`, if there is one to show. In constant time.
fn shows(headers: &HeaderMap, expected: Option<&Secret>) -> bool {
    let Some(expected) = expected else { return true };
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Some((scheme, token)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
        return false;
    };
    scheme.eq_ignore_ascii_case("Bearer")
        && verify_slices_are_equal(token.trim().as_bytes(), expected.expose().as_bytes()).is_ok()
}

/// Begins a stop, as SIGTERM does.
async fn shutdown(State(app): State<Arc<App>>, Extension(origin): Extension<Origin>) -> Response {
    let peer = origin.client_ip.map(|peer| peer.to_string());
    warn!(peer, "asked to stop at the admin listener");
    app.lifecycle.stop("POST /shutdown");
    (StatusCode::ACCEPTED, Json(json!({ "status": "stopping" }))).into_response()
}

/// What is logged now.
async fn log_level(Extension(logs): Extension<Arc<Logs>>) -> Json<Value> {
    Json(json!({ "level": logs.level().0.as_str() }))
}

/// Changes it: `{"level": "DEBUG"}`.
async fn set_log_level(
    Extension(logs): Extension<Arc<Logs>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::read(request).await?;
    let level = fields.required("level", |value| {
        let level = value.as_str().and_then(|text| text.parse::<LogLevel>().ok());
        level.ok_or_else(|| "must be ERROR, WARN, INFO, DEBUG or TRACE".to_owned())
    });
    let level = fields.finish(level)?;
    let before = logs.level().0;
    let peer = origin.client_ip.map(|peer| peer.to_string());
    let say = || warn!(peer, before = before.as_str(), now = level.0.as_str(), "the log's level was changed");
    // While it can be seen.
    if level.0 < tracing::Level::WARN {
        say();
    }
    logs.set_level(level).map_err(|error| ApiError::Internal(error.to_string()))?;
    if level.0 >= tracing::Level::WARN {
        say();
    }
    Ok(Json(json!({ "level": level.0.as_str() })))
}
