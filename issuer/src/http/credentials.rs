//! `/api/v1/agents/{agent_id}/credentials`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use countersign_shared::{AgentId, CredentialId};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::agents::{agent_id, authenticate};
use super::error::ApiError;
use super::json::{Fields, Read};
use crate::app::App;
use crate::clock;
use crate::domain::audit::Origin;
use crate::domain::scope;
use crate::management::credentials;

/// `POST /api/v1/agents/{agent_id}/credentials`.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    let caller = authenticate(&app, request.headers(), &origin).await?;
    caller.require(scope::CREDENTIALS_WRITE)?;
    let agent = agent_id(path)?;
    let mut fields = Fields::read(request).await?;
    let expires_at = fields.optional("expires_at", |value| future(&value));
    let expires_at = fields.finish(Some(expires_at))?;

    let (credential, secret) = credentials::create(&app, &caller, agent, expires_at, &origin).await?;
    let body = CredentialBody {
        credential_id: credential.credential_id,
        client_id: credential.agent_id,
        client_secret: secret.expose(),
        status: credential.status.as_str(),
        created_at: credential.created_at.truncate_to_second(),
        expires_at: credential.expires_at,
    };
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// How far ahead a credential may expire.
const MAX_AHEAD: time::Duration = time::Duration::days(3660);

fn future(value: &Value) -> Read<OffsetDateTime> {
    let time = value.as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    // At the ends of the calendar not every offset has a time in UTC.
    let time = time.and_then(|time| time.checked_to_offset(time::UtcOffset::UTC));
    let time = time.ok_or("must be a time as in RFC 3339, e.g. 2027-01-01T00:00:00Z")?.truncate_to_second();
    let now = clock::timestamp(clock::now());
    if time > now && time - now <= MAX_AHEAD {
        Ok(time)
    } else {
        Err("must lie in the future, by ten years at most".to_owned())
    }
}

/// A credential as it is shown: once.
#[derive(Serialize)]
struct CredentialBody<'a> {
    credential_id: CredentialId,
    client_id: AgentId,
    client_secret: &'a str,
    status: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
}
