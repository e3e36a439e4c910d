//! Maintenance as callers meet it, and the process's own switch at the admin listener.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::{Extension, Json};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use tokio::time::timeout;
use tracing::warn;

use super::error::ApiError;
use super::is_oauth;
use super::json::Fields;
use crate::app::App;
use crate::clock;
use crate::domain::audit::Origin;
use crate::maintenance::{LONGEST_REASON, Mode, Purpose};
use crate::management::maintenance::{begun, ended};

/// How long who switches waits for it to be written down. It may be, later: that isn't known then.
const RECORD_PATIENCE: Duration = Duration::from_secs(1);

/// What ends something is never turned away: maintenance must not keep a stolen credential alive.
const ENDS: [(Method, &str); 7] = [
    (Method::POST, "/api/v1/revocations"),
    (Method::POST, "/api/v1/agents/{agent_id}/suspend"),
    (Method::DELETE, "/api/v1/agents/{agent_id}"),
    (Method::POST, "/api/v1/agents/{agent_id}/credentials/{credential_id}/revoke"),
    (Method::DELETE, "/api/v1/agents/{agent_id}/credentials/{credential_id}"),
    (Method::POST, "/api/v1/tenants/{tenant_id}/suspend"),
    (Method::DELETE, "/api/v1/tenants/{tenant_id}"),
];

/// Turns away what maintenance turns away.
pub(super) fn check(app: &App, request: &Request) -> Result<(), ApiError> {
    match purpose(request).and_then(|purpose| app.maintenance.refuses(purpose)) {
        Some(mode) => Err(ApiError::Maintenance(mode)),
        None => Ok(()),
    }
}

/// What a request is for; `None`: what goes on in any case.
fn purpose(request: &Request) -> Option<Purpose> {
    let route = request.extensions().get::<MatchedPath>()?.as_str();
    let method = request.method();
    match route {
        "/oauth2/v1/token" | "/api/v1/token" => (method == Method::POST).then_some(Purpose::Token),
        _ if is_oauth(route) || !route.starts_with("/api/") => None,
        _ if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) => None,
        _ if ENDS.iter().any(|(ending, path)| ending == method && *path == route) => None,
        _ => Some(Purpose::Change),
    }
}

/// How it stands: of the process, of its own switch, of the installation's.
pub(super) async fn show(State(app): State<Arc<App>>) -> Json<Value> {
    Json(status(&app))
}

fn status(app: &App) -> Value {
    let maintenance = &app.maintenance;
    json!({
        "on": maintenance.mode().is_some(),
        "process": maintenance.here().as_ref().map(body),
        "everywhere": maintenance.everywhere().as_ref().map(body),
    })
}

/// A mode as it is shown.
pub(super) fn body(mode: &Mode) -> Value {
    let since = mode.since.format(&Rfc3339).unwrap_or_default();
    json!({ "tokens": mode.tokens, "reason": mode.reason, "since": since })
}

/// Turns the process's own switch: `{"on": true, "tokens": false, "reason": "…"}`. It is turned even where that can't be written down: the database may be
/// what is being worked on.
pub(super) async fn switch(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::read(request).await?;
    let bool = |value: Value| value.as_bool().ok_or_else(|| "must be true or false".to_owned());
    let on = fields.required("on", bool);
    let tokens = fields.optional("tokens", bool).unwrap_or_default();
    let reason = fields.optional("reason", |value| match value {
        Value::String(text) => check_reason(&text).map(|()| text),
        _ => Err("must be text".to_owned()),
    });
    let mode = fields.finish(on)?.then(|| Mode { tokens, reason, since: clock::precise() });
    let event = match &mode {
        Some(mode) => begun(mode, "process", &origin),
        None => ended("process", &origin),
    };
    app.maintenance.set_here(mode);
    // It has switched, so it says so, in the time that an answer may take.
    let problem = match timeout(RECORD_PATIENCE, app.audit.record(&event)).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("it took too long".to_owned()),
    };
    if let Some(problem) = &problem {
        warn!("maintenance was switched, which couldn't be written down: {problem}");
    }
    let mut status = status(&app);
    status["recorded"] = json!(problem.is_none());
    Ok(Json(status))
}

/// What is wrong with a reason.
pub(crate) fn check_reason(text: &str) -> Result<(), String> {
    if (1..=LONGEST_REASON).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(format!("must have 1 to {LONGEST_REASON} characters, no control characters"))
    }
}
