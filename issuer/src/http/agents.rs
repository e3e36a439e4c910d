//! `/api/v1/agents`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::{Extension, Json};
use countersign_shared::oauth::is_scope_token;
use countersign_shared::{AgentId, TenantId};
use serde::Serialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, ToSchema};

use super::conditional;
use super::error::ApiError;
use super::idempotency::{self, Answer, Call, Working};
use super::json::{self, Fields, Read, set, strings, text, word};
use super::list::{self, ListBody, Query};
use super::openapi;
use crate::app::App;
use crate::domain::agent::{
    Agent, AgentFilter, AgentPatch, AgentStatus, AgentType, DeploymentEnv, MAX_EMAIL_CHARACTERS,
    MAX_METADATA, MetadataPatch, NewAgent, is_email,
};
use crate::domain::audit::Origin;
use crate::domain::scope::{self, Scopes};
use crate::domain::transition::Transition;
use crate::management::agents;
use crate::management::caller::Caller;
use crate::storage::Database;

/// Registers an agent in the caller's tenant.
#[utoipa::path(
    post,
    path = "/api/v1/agents",
    tag = "agents",
    operation_id = "createAgent",
    security(("bearer" = ["agents:write"])),
    params(("Idempotency-Key" = Option<String>, Header, description = IDEMPOTENCY_KEY_DESCRIPTION, min_length = 1, max_length = 255)),
    request_body = NewAgentBody,
    responses(
        (status = 201, description = "It is registered.", body = AgentBody, headers(
            ("Location" = String, description = "Its URL."),
            ("ETag" = String, description = "Its revision."),
            ("Idempotency-Replayed" = Option<String>, description = "`true`: this answer was given before."),
        )),
        (status = 403, description = "INSUFFICIENT_SCOPE SCOPE_ESCALATION"),
        (status = 409, description = "AGENT_ALREADY_EXISTS AGENT_LIMIT_REACHED PLATFORM_SCOPE_RESERVED IDEMPOTENCY_KEY_IN_USE"),
    )
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Answer, ApiError> {
    let caller = authenticate(&app, request.headers(), &origin).await?;
    caller.require(scope::AGENTS_WRITE)?;
    let call = Call::read(request).await?;
    let profile = new_agent(call.fields()?)?;
    idempotency::once(&app, &caller, &call, async |transaction: &mut Working| {
        let agent = agents::create(transaction, &caller, &profile, &origin).await?;
        let location = format!("{}/api/v1/agents/{}", app.issuer_url.as_str(), agent.agent_id);
        let revision = agent.revision;
        let answer = Answer::created(&AgentBody::from(agent))?;
        Ok(answer.with(&LOCATION, location).with(&ETAG, conditional::etag(revision)))
    })
    .await
}

/// The agents of the caller's tenant, in the order in which they were registered.
#[utoipa::path(
    get,
    path = "/api/v1/agents",
    tag = "agents",
    operation_id = "listAgents",
    security(("bearer" = ["agents:read"])),
    params(AgentsQuery),
    responses(
        (status = 200, description = "A page of them.", body = ListBody<AgentBody>),
    )
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<ListBody<AgentBody>>, ApiError> {
    let caller = authenticate(&app, &headers, &origin).await?;
    caller.require(scope::AGENTS_READ)?;
    let mut query = Query::read(&uri);
    let filter = AgentFilter {
        email: query.text("email", MAX_EMAIL_CHARACTERS),
        agent_type: query.word("agent_type", AgentType::WORDS),
        deployment_env: query.word("deployment_env", DeploymentEnv::WORDS),
        status: query.word("status", AgentStatus::WORDS),
        owner: query.text("owner", MAX_OWNER_CHARACTERS),
    };
    let page = query.page();
    let (filter, page) = query.finish((filter, page))?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    let listed = agents::list(&mut transaction, &caller, &filter, &page).await?;
    Ok(list::answer(listed, AgentBody::from))
}

/// One agent.
#[utoipa::path(
    get,
    path = "/api/v1/agents/{agent_id}",
    tag = "agents",
    operation_id = "readAgent",
    security(("bearer" = ["agents:read"])),
    params(
        ("agent_id" = Uuid, Path, description = "Which agent."),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of what the client has."),
    ),
    responses(
        (status = 200, description = "The agent.", body = AgentBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 304, description = "It is in the revision that the client has."),
        (status = 404, description = "AGENT_NOT_FOUND"),
    )
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = authenticate(&app, &headers, &origin).await?;
    caller.require(scope::AGENTS_READ)?;
    let agent = agent_id(path)?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    let agent = agents::find(&mut transaction, &caller, agent).await?;
    conditional::read(&headers, agent.revision, AgentBody::from(agent))
}

/// Changes an agent, by a JSON merge patch (RFC 7396). An agent that loses scopes loses its tokens.
#[utoipa::path(
    patch,
    path = "/api/v1/agents/{agent_id}",
    tag = "agents",
    operation_id = "updateAgent",
    security(("bearer" = ["agents:write"])),
    params(
        ("agent_id" = Uuid, Path, description = "Which agent."),
        ("If-Match" = String, Header, description = "The `ETag` of what was read, or `*`."),
    ),
    request_body(content(
        (AgentPatchBody = "application/merge-patch+json"),
        (AgentPatchBody = "application/json"),
    )),
    responses(
        (status = 200, description = "The agent as it is now.", body = AgentBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 403, description = "INSUFFICIENT_SCOPE SCOPE_ESCALATION"),
        (status = 404, description = "AGENT_NOT_FOUND"),
        (status = 409, description = "AGENT_ALREADY_EXISTS AGENT_DECOMMISSIONED AGENT_IS_CALLER PLATFORM_SCOPE_RESERVED"),
    )
)]
pub(super) async fn update(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let caller = authenticate(&app, request.headers(), &origin).await?;
    caller.require(scope::AGENTS_WRITE)?;
    let agent = agent_id(path)?;
    let expected = conditional::required(request.headers())?;
    let body = json::read_body(request, &["application/merge-patch+json", "application/json"]).await?;
    let changes = patch(Fields::parse(&body)?)?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    let agent = agents::update(&mut transaction, &caller, agent, &changes, &expected, &origin).await?;
    Database::commit(transaction).await?;
    Ok(conditional::tagged(agent.revision, AgentBody::from(agent)))
}

/// Suspends an agent: it gets no tokens, and those it has end. Where it is suspended already nothing happens.
#[utoipa::path(
    post,
    path = "/api/v1/agents/{agent_id}/suspend",
    tag = "agents",
    operation_id = "suspendAgent",
    security(("bearer" = ["agents:write"])),
    params(
        ("agent_id" = Uuid, Path, description = "Which agent."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what was read."),
    ),
    responses(
        (status = 200, description = "The agent as it is now.", body = AgentBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 403, description = "INSUFFICIENT_SCOPE SCOPE_ESCALATION"),
        (status = 404, description = "AGENT_NOT_FOUND"),
        (status = 409, description = "AGENT_DECOMMISSIONED AGENT_IS_CALLER"),
    )
)]
pub(super) async fn suspend(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    change_status(&app, &origin, path, &headers, Transition::Suspend).await
}

/// Lets a suspended agent act again. Tokens that it had before stay ended. Where it is active nothing happens.
#[utoipa::path(
    post,
    path = "/api/v1/agents/{agent_id}/reactivate",
    tag = "agents",
    operation_id = "reactivateAgent",
    security(("bearer" = ["agents:write"])),
    params(
        ("agent_id" = Uuid, Path, description = "Which agent."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what was read."),
    ),
    responses(
        (status = 200, description = "The agent as it is now.", body = AgentBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 403, description = "INSUFFICIENT_SCOPE SCOPE_ESCALATION"),
        (status = 404, description = "AGENT_NOT_FOUND"),
        (status = 409, description = "AGENT_DECOMMISSIONED"),
    )
)]
pub(super) async fn reactivate(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    change_status(&app, &origin, path, &headers, Transition::Reactivate).await
}

/// Decommissions an agent: finally, and its tokens end. It can still be read. Where it is decommissioned already nothing happens.
#[utoipa::path(
    delete,
    path = "/api/v1/agents/{agent_id}",
    tag = "agents",
    operation_id = "decommissionAgent",
    security(("bearer" = ["agents:write"])),
    params(
        ("agent_id" = Uuid, Path, description = "Which agent."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what was read."),
    ),
    responses(
        (status = 200, description = "The agent as it stays.", body = AgentBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 403, description = "INSUFFICIENT_SCOPE SCOPE_ESCALATION"),
        (status = 404, description = "AGENT_NOT_FOUND"),
        (status = 409, description = "AGENT_IS_CALLER"),
    )
)]
pub(super) async fn decommission(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    change_status(&app, &origin, path, &headers, Transition::Decommission).await
}

async fn change_status(
    app: &App,
    origin: &Origin,
    path: Result<Path<String>, PathRejection>,
    headers: &HeaderMap,
    transition: Transition,
) -> Result<Response, ApiError> {
    let caller = authenticate(app, headers, origin).await?;
    caller.require(scope::AGENTS_WRITE)?;
    let agent = agent_id(path)?;
    let expected = conditional::expected(headers)?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    let agent =
        agents::change_status(&mut transaction, &caller, agent, transition, expected.as_ref(), origin)
            .await?;
    Database::commit(transaction).await?;
    Ok(conditional::tagged(agent.revision, AgentBody::from(agent)))
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

/// What an agent is registered with, from the members of a JSON object.
fn new_agent(mut fields: Fields) -> Result<NewAgent, ApiError> {
    let email = fields.required("email", email);
    let agent_type = fields.required("agent_type", word::<AgentType>(AgentType::WORDS));
    let version = fields.required("version", text(MAX_VERSION_CHARACTERS));
    let capabilities = fields.optional("capabilities", capabilities).unwrap_or_default();
    let owner = fields.required("owner", text(MAX_OWNER_CHARACTERS));
    let deployment_env = fields.required("deployment_env", word::<DeploymentEnv>(DeploymentEnv::WORDS));
    let scopes = fields.optional("scopes", scopes).unwrap_or_default();
    let metadata = fields.optional("metadata", strings(MAX_METADATA)).unwrap_or_default();
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

/// What is to be different about an agent, from the members of a merge patch. Null empties what may be empty.
fn patch(mut fields: Fields) -> Result<AgentPatch, ApiError> {
    let patch = AgentPatch {
        email: fields.present("email", email),
        agent_type: fields.present("agent_type", word::<AgentType>(AgentType::WORDS)),
        version: fields.present("version", text(MAX_VERSION_CHARACTERS)),
        capabilities: fields.present("capabilities", or_none(capabilities)),
        owner: fields.present("owner", text(MAX_OWNER_CHARACTERS)),
        deployment_env: fields.present("deployment_env", word::<DeploymentEnv>(DeploymentEnv::WORDS)),
        scopes: fields.present("scopes", or_none(scopes)),
        metadata: fields.present("metadata", metadata_patch),
    };
    fields.finish(Some(patch))
}

/// [`new_agent`] for the command line: what is wrong is said in words.
pub(crate) fn new_agent_of(members: Map<String, Value>) -> Result<NewAgent, String> {
    new_agent(Fields::of(members)).map_err(ApiError::in_words)
}

/// [`patch`] for the command line: what is wrong is said in words.
pub(crate) fn patch_of(members: Map<String, Value>) -> Result<AgentPatch, String> {
    patch(Fields::of(members)).map_err(ApiError::in_words)
}

const MAX_VERSION_CHARACTERS: usize = 64;
const MAX_OWNER_CHARACTERS: usize = 128;

/// Null stands for nothing.
fn or_none<T: Default>(read: impl FnOnce(Value) -> Read<T>) -> impl FnOnce(Value) -> Read<T> {
    move |value| if value.is_null() { Ok(T::default()) } else { read(value) }
}

fn capabilities(value: Value) -> Read<Vec<String>> {
    set(64, text(128))(value)
}

/// Members are set, or with null removed. What the whole comes to is seen when it is applied.
fn metadata_patch(value: Value) -> Read<MetadataPatch> {
    let Value::Object(members) = value else {
        return if value.is_null() {
            Ok(MetadataPatch::Clear)
        } else {
            Err("must be an object of strings, or null".to_owned())
        };
    };
    let (removed, set): (Map<_, _>, Map<_, _>) = members.into_iter().partition(|(_, value)| value.is_null());
    let set = strings(MAX_METADATA)(Value::Object(set))?;
    let set = set.into_iter().map(|(name, value)| (name, Some(value)));
    Ok(MetadataPatch::Merge(removed.into_iter().map(|(name, _)| (name, None)).chain(set).collect()))
}

pub(super) fn email(value: Value) -> Read<String> {
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

pub(super) const IDEMPOTENCY_KEY_DESCRIPTION: &str =
    "The same request with the same key is done once, and gets the same answer again for 24 hours.";

/// Which agents are asked for: those that are as every parameter says.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a description: the query is read parameter by parameter")]
pub(super) struct AgentsQuery {
    /// Whatever the case of its letters.
    #[param(min_length = 1, max_length = 254)]
    email: Option<String>,
    #[param(schema_with = agent_type_words, required = false)]
    agent_type: String,
    #[param(schema_with = deployment_env_words, required = false)]
    deployment_env: String,
    #[param(schema_with = status_words, required = false)]
    status: String,
    #[param(schema_with = owner_text, required = false)]
    owner: String,
    /// How many at once; 50 without it.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// An agent to be registered.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: the body is read field by field")]
pub(super) struct NewAgentBody {
    /// Unique in the tenant, whatever the case of its letters.
    #[schema(format = "email", min_length = 3, max_length = 254)]
    email: String,
    #[schema(schema_with = agent_type_words)]
    agent_type: String,
    /// Its own version.
    #[schema(schema_with = version_text)]
    version: String,
    /// What it says it can do.
    #[schema(schema_with = texts)]
    capabilities: Option<Vec<String>>,
    /// Who answers for it.
    #[schema(schema_with = owner_text)]
    owner: String,
    #[schema(schema_with = deployment_env_words)]
    deployment_env: String,
    /// What it may ask for in tokens; together at most 4,000 characters.
    #[schema(schema_with = scope_tokens)]
    scopes: Option<Vec<String>>,
    /// Anything else.
    #[schema(schema_with = metadata)]
    metadata: Option<BTreeMap<String, String>>,
}

/// What is to be different about an agent (RFC 7396): what isn't there stays as it is.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: the body is read field by field")]
pub(super) struct AgentPatchBody {
    /// Unique in the tenant, whatever the case of its letters.
    #[schema(format = "email", min_length = 3, max_length = 254, required = false)]
    email: String,
    #[schema(schema_with = agent_type_words, required = false)]
    agent_type: String,
    #[schema(schema_with = version_text, required = false)]
    version: String,
    /// All of them anew; null: none.
    #[schema(schema_with = texts)]
    capabilities: Option<Vec<String>>,
    #[schema(schema_with = owner_text, required = false)]
    owner: String,
    #[schema(schema_with = deployment_env_words, required = false)]
    deployment_env: String,
    /// All of them anew; null: none.
    #[schema(schema_with = scope_tokens)]
    scopes: Option<Vec<String>>,
    /// Members to be set, or with null to be removed; null: all are removed.
    #[schema(schema_with = metadata_changes)]
    metadata: Option<BTreeMap<String, Option<String>>>,
}

fn agent_type_words() -> RefOr<Schema> {
    openapi::word(AgentType::WORDS)
}

fn deployment_env_words() -> RefOr<Schema> {
    openapi::word(DeploymentEnv::WORDS)
}

fn status_words() -> RefOr<Schema> {
    openapi::word(AgentStatus::WORDS)
}

fn version_text() -> RefOr<Schema> {
    openapi::text(MAX_VERSION_CHARACTERS).into()
}

fn owner_text() -> RefOr<Schema> {
    openapi::text(MAX_OWNER_CHARACTERS).into()
}

fn texts() -> RefOr<Schema> {
    openapi::or_null(openapi::set(64, openapi::text(128)))
}

fn scope_tokens() -> RefOr<Schema> {
    openapi::or_null(openapi::set(64, openapi::text(128).pattern(Some(r"^[\x21\x23-\x5b\x5d-\x7e]+$"))))
}

fn metadata() -> RefOr<Schema> {
    openapi::or_null(openapi::strings(MAX_METADATA))
}

fn metadata_changes() -> RefOr<Schema> {
    let value = openapi::or_null(openapi::text(512).into());
    let members = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(openapi::text(64)))
        .additional_properties(Some(AdditionalProperties::RefOr(value)));
    openapi::or_null(members.into())
}

/// An agent as it is shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentBody {
    /// Also its OAuth `client_id`.
    #[schema(value_type = String, format = Uuid)]
    agent_id: AgentId,
    #[schema(value_type = String, format = Uuid)]
    tenant_id: TenantId,
    email: String,
    #[schema(schema_with = agent_type_words)]
    agent_type: &'static str,
    version: String,
    capabilities: Vec<String>,
    owner: String,
    #[schema(schema_with = deployment_env_words)]
    deployment_env: &'static str,
    scopes: Vec<String>,
    metadata: BTreeMap<String, String>,
    #[schema(schema_with = status_words)]
    status: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

impl From<Agent> for AgentBody {
    fn from(agent: Agent) -> Self {
        let Agent { agent_id, tenant_id, profile, status, created_at, updated_at, revision: _ } = agent;
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
