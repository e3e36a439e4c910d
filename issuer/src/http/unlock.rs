//! `POST /api/v1/agents/{agent_id}/unlock`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use utoipa::ToSchema;

use super::agents::{agent_id, authenticate};
use super::error::ApiError;
use super::json::Fields;
use crate::app::App;
use crate::domain::audit::Origin;
use crate::domain::limit::Network;
use crate::domain::scope;
use crate::management::unlock;
use crate::storage::Database;

/// From where an agent may authenticate again.
#[derive(ToSchema)]
#[expect(dead_code, reason = "what the body looks like; it is read field by field")]
pub(super) struct UnlockBody {
    /// The address; of an IPv6 address, its /64. From everywhere without it.
    #[schema(example = "203.0.113.7")]
    ip: Option<String>,
}

/// Lets an agent authenticate again that was locked out after too many failures.
#[utoipa::path(
    post,
    path = "/api/v1/agents/{agent_id}/unlock",
    tag = "agents",
    params(("agent_id" = String, Path, format = Uuid)),
    request_body = UnlockBody,
    security(("bearer" = ["agents:write"])),
    responses(
        (status = 204, description = "It may, in every replica; also where it wasn't locked out"),
        (status = 400, description = "MALFORMED_REQUEST, VALIDATION_ERROR"),
        (status = 401, description = "UNAUTHORIZED"),
        (status = 403, description = "INSUFFICIENT_SCOPE"),
        (status = 404, description = "AGENT_NOT_FOUND"),
        (status = 413, description = "PAYLOAD_TOO_LARGE"),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE"),
        (status = 429, description = "RATE_LIMIT_EXCEEDED"),
        (status = 500, description = "INTERNAL_ERROR"),
        (status = 503, description = "SERVICE_UNAVAILABLE"),
    )
)]
pub(super) async fn unlock(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    let caller = authenticate(&app, request.headers(), &origin).await?;
    caller.require(scope::AGENTS_WRITE)?;
    let agent = agent_id(path)?;
    let mut fields = Fields::read(request).await?;
    let ip = fields.optional("ip", |value| {
        let ip = value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
        ip.ok_or_else(|| "must be an IP address".to_owned())
    });
    let network = fields.finish(Some(ip))?.map(Network::of);

    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    unlock::unlock(&mut transaction, &caller, agent, network, &origin).await?;
    // The commit announces it to the other replicas; here it holds when the answer is there.
    app.limits
        .unlock(agent, network)
        .await
        .map_err(|_| ApiError::Unavailable("Redis, which holds the lockouts, can't be reached".to_owned()))?;
    Database::commit(transaction).await?;
    Ok(StatusCode::NO_CONTENT)
}
