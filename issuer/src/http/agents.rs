//! `/api/v1/agents`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use countersign_shared::oauth::is_scope_token;
use countersign_shared::{AgentId, TenantId};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use time::OffsetDateTime;

use super::error::ApiError;
use super::json::{Fields, Read, set, strings, text, word};
use crate::app::App;
use crate::domain::agent::{Agent, AgentType, DeploymentEnv, MAX_EMAIL_CHARACTERS, NewAgent, is_email};
use crate::domain::audit::Origin;
use crate::domain::scope::{self, Scopes};
use crate::management::agents;
use crate::management::caller::Caller;

/// `POST /api/v1/agents`.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    let caller = authenticate(&app, request.headers(), &origin).await?;
    caller.require(scope::AGENTS_WRITE)?;
    let profile = new_agent(Fields::read(request).await?)?;
    let agent = agents::create(&app, &caller, &profile, &origin).await?;
    let location = format!("{}/api/v1/agents/{}", app.issuer_url.as_str(), agent.agent_id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(AgentBody::from(agent))))
}

/// `GET /api/v1/agents/{agent_id}`.
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let caller = authenticate(&app, &headers, &origin).await?;
    caller.require(scope::AGENTS_READ)?;
    let agent = agents::find(&app, &caller, agent_id(path)?).await?;
    Ok(Json(AgentBody::from(agent)))
}

/// The caller of the management API, by its bearer token (RFC 6750 §2.1: the header only).
pub(super) async fn authenticate(
    app: &App,
    headers: &HeaderMap,
    origin: &Origin,
) -> Result<Caller, ApiError> {
    let mut values = headers.get_all(axum::http::header::AUTHORIZATION).iter();
    let token = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
        }),
        _ => None,
    };
    Ok(Caller::authenticate(app, token, origin).await?)
}

/// The path's agent id.
pub(super) fn agent_id(path: Result<Path<String>, PathRejection>) -> Result<AgentId, ApiError> {
    let id = path.ok().and_then(|Path(text)| text.parse().ok());
    id.ok_or(ApiError::Malformed("agent_id in the path is not a UUID in lower-case hyphenated form."))
}

fn new_agent(mut fields: Fields) -> Result<NewAgent, ApiError> {
    let email = fields.required("email", email);
    let agent_type = fields.required("agent_type", word::<AgentType>(AgentType::WORDS));
    let version = fields.required("version", text(64));
    let capabilities = fields.optional("capabilities", set(64, text(128))).unwrap_or_default();
    let owner = fields.required("owner", text(128));
    let deployment_env = fields.required("deployment_env", word::<DeploymentEnv>(DeploymentEnv::WORDS));
    let scopes = fields.optional("scopes", scopes).unwrap_or_default();
    let metadata = fields.optional("metadata", strings(32)).unwrap_or_default();
    let required = email.zip(agent_type).zip(version).zip(owner).zip(deployment_env);
    fields.finish(required.map(|((((email, agent_type), version), owner), deployment_env)| NewAgent {
        email,
        agent_type,
        version,
        capabilities,
        owner,
        deployment_env,
        scopes,
        metadata,
    }))
}

fn email(value: Value) -> Read<String> {
    match value {
        Value::String(text) if is_email(&text) => Ok(text),
        _ => Err(format!("must be an email address of at most {MAX_EMAIL_CHARACTERS} characters")),
    }
}

/// A token can carry them all, and verifiers take tokens of up to 8 KiB.
const MAX_SCOPES_BYTES: usize = 4000;

fn scopes(value: Value) -> Read<Scopes> {
    let scopes: Scopes = set(64, scope_token)(value)?.into_iter().collect();
    if scopes.to_string().len() > MAX_SCOPES_BYTES {
        return Err(format!("must have at most {MAX_SCOPES_BYTES} characters together"));
    }
    Ok(scopes)
}

fn scope_token(value: Value) -> Read<String> {
    match value {
        Value::String(text) if text.len() <= 128 && is_scope_token(&text) => Ok(text),
        _ => {
            Err("must be a scope of 1 to 128 printable ASCII characters without space, `\"` and `\\`"
                .to_owned())
        }
    }
}

/// An agent as it is shown.
#[derive(Serialize)]
struct AgentBody {
    agent_id: AgentId,
    tenant_id: TenantId,
    email: String,
    agent_type: &'static str,
    version: String,
    capabilities: Vec<String>,
    owner: String,
    deployment_env: &'static str,
    scopes: Vec<String>,
    metadata: BTreeMap<String, String>,
    status: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

impl From<Agent> for AgentBody {
    fn from(agent: Agent) -> Self {
        let Agent { agent_id, tenant_id, profile, status, created_at, updated_at } = agent;
        Self {
            agent_id,
            tenant_id,
            email: profile.email,
            agent_type: profile.agent_type.as_str(),
            version: profile.version,
            capabilities: profile.capabilities,
            owner: profile.owner,
            deployment_env: profile.deployment_env.as_str(),
            scopes: profile.scopes.iter().map(str::to_owned).collect(),
            metadata: profile.metadata,
            status: status.as_str(),
            created_at: created_at.truncate_to_second(),
            updated_at: updated_at.truncate_to_second(),
        }
    }
}
