//! `/metrics`: on the admin listener for operators; on the public one, where that is set, for whom its guard lets in.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use tracing::warn;

use super::bounds::Complaints;
use super::error::ApiError;
use crate::app::App;
use crate::config::Guard;
use crate::domain::audit::Origin;
use crate::metrics::{self, gauges};

const X_METRICS_SECRET: HeaderName = HeaderName::from_static("x-metrics-secret");
/// `OpenMetrics` 1.0 §"Protocol Negotiation".
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// For operators, whom somebody else has let in.
pub(super) fn route() -> MethodRouter<Arc<App>> {
    get(read)
}

/// For whom `guard` lets in.
pub(super) fn guarded(guard: Guard) -> MethodRouter<Arc<App>> {
    let door = Arc::new(Door { guard, complaints: Complaints::default() });
    get(read).route_layer(middleware::from_fn_with_state(door, check))
}

async fn read(State(app): State<Arc<App>>) -> Result<impl IntoResponse, ApiError> {
    let text = metrics::encode(&gauges::read(&app).await)
        .map_err(|error| ApiError::Internal(format!("metrics can't be written: {error}")))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text))
}

struct Door {
    guard: Guard,
    complaints: Complaints,
}

async fn check(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let ip = request.extensions().get::<Origin>().and_then(|origin| origin.client_ip);
    let let_in = match &door.guard {
        Guard::Secret(secret) => shows(request.headers(), secret.expose()),
        guard => guard.lets_in(ip),
    };
    if let_in {
        return next.run(request).await;
    }
    if door.complaints.due() {
        warn!(
            ip = ip.map(|ip| ip.to_string()),
            "/metrics was asked by somebody whom METRICS_GUARD doesn't let in"
        );
    }
    ApiError::AccessRefused.into_response()
}

/// Whether the one header is `secret`. In constant time.
fn shows(headers: &HeaderMap, secret: &str) -> bool {
    let mut values = headers.get_all(X_METRICS_SECRET).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    verify_slices_are_equal(value.as_bytes(), secret.as_bytes()).is_ok()
}
