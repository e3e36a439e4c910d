//! `/api/v1/resource-servers`: the APIs that the tenant's tokens are for (RFC 8707).

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::{Extension, Json};
use countersign_shared::{AgentId, Algorithm, TenantId};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};
use uuid::Uuid;

use super::agents::{IDEMPOTENCY_KEY_DESCRIPTION, authenticate};
use super::conditional;
use super::error::ApiError;
use super::idempotency::{self, Answer, Call, Working};
use super::json::{Fields, Read, boolean, or_null, read_body, text, whole};
use super::list::{self, ListBody, Query};
use super::openapi;
use crate::app::App;
use crate::config::Identifier;
use crate::domain::audit::Origin;
use crate::domain::resource_server::{NewResourceServer, RegisteredResourceServer, ResourceServerProfile};
use crate::domain::scope;
use crate::domain::tenant::{MAX_LIFETIME_SECONDS, MAX_NAME_CHARACTERS};
use crate::management::resource_servers;
use crate::storage::Database;

/// `POST /api/v1/resource-servers`.
#[utoipa::path(
    post, path = "/api/v1/resource-servers", tag = "resource servers", operation_id = "createResourceServer",
    summary = "Register a resource server",
    description = "Its identifier is what stands in the `aud` of its tokens, compared byte for byte (RFC 8707). It is one tenant's in the whole installation, with those that are easily taken for it (case, slashes at the end), and stays that tenant's when the resource server is deleted.",
    params(("Idempotency-Key" = Option<String>, Header, description = IDEMPOTENCY_KEY_DESCRIPTION, min_length = 1, max_length = 255)),
    request_body = NewResourceServerBody,
    security(("bearer" = ["resource_servers:write"])),
    responses(
        (status = 201, description = "The resource server.", body = ResourceServerBody,
         headers(("Location" = String, description = "The resource server's URL."), ("ETag" = String, description = "Of this revision."))),
        (status = 403, description = "INSUFFICIENT_SCOPE"),
        (status = 409, description = "RESOURCE_SERVER_ALREADY_EXISTS, RESOURCE_SERVER_LIMIT_REACHED, IDEMPOTENCY_KEY_IN_USE"),
        (status = 422, description = "IDEMPOTENCY_KEY_REUSED"),
    ),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Answer, ApiError> {
    let caller = authenticate(&app, request.headers(), &origin).await?;
    caller.require(scope::RESOURCE_SERVERS_WRITE)?;
    let call = Call::read(request).await?;
    let new = new_resource_server(call.fields()?)?;
    idempotency::once(&app, &caller, &call, async |transaction: &mut Working| {
        let created = resource_servers::create(transaction, &app.issuer_url, &caller, &new, &origin).await?;
        let (issuer, id) = (app.issuer_url.as_str(), created.resource_server_id);
        Ok(Answer::created(&ResourceServerBody::from(&created))?
            .with(&LOCATION, format!("{issuer}/api/v1/resource-servers/{id}"))
            .with(&ETAG, conditional::etag(created.revision)))
    })
    .await
}

/// `GET /api/v1/resource-servers`.
#[utoipa::path(
    get, path = "/api/v1/resource-servers", tag = "resource servers", operation_id = "listResourceServers",
    summary = "List the resource servers",
    description = "In the order they were registered.",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "How many at most; 50 without it."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    security(("bearer" = ["resource_servers:read"])),
    responses(
        (status = 200, description = "A page of them.", body = ListBody<ResourceServerBody>),
        (status = 400, description = "VALIDATION_ERROR"),
        (status = 403, description = "INSUFFICIENT_SCOPE"),
    ),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<ListBody<ResourceServerBody>>, ApiError> {
    let caller = authenticate(&app, &headers, &origin).await?;
    caller.require(scope::RESOURCE_SERVERS_READ)?;
    let mut query = Query::read(&uri);
    let page = query.page();
    let page = query.finish(page)?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    let listed = resource_servers::list(&mut transaction, &caller, page).await?;
    Ok(list::answer(listed, ResourceServerBody::from))
}

/// `GET /api/v1/resource-servers/{resource_server_id}`.
#[utoipa::path(
    get, path = "/api/v1/resource-servers/{resource_server_id}", tag = "resource servers", operation_id = "getResourceServer",
    summary = "Read a resource server",
    params(
        ("resource_server_id" = String, Path, format = Uuid, description = "The resource server's id, in lower case."),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of an earlier answer."),
    ),
    security(("bearer" = ["resource_servers:read"])),
    responses(
        (status = 200, description = "The resource server.", body = ResourceServerBody, headers(("ETag" = String, description = "Of this revision."))),
        (status = 304, description = "It is still that of `If-None-Match`."),
        (status = 403, description = "INSUFFICIENT_SCOPE"),
        (status = 404, description = "RESOURCE_SERVER_NOT_FOUND"),
    ),
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = authenticate(&app, &headers, &origin).await?;
    caller.require(scope::RESOURCE_SERVERS_READ)?;
    let id = resource_server_id(path)?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    let found = resource_servers::find(&mut transaction, &caller, id).await?;
    conditional::read(&headers, found.revision, ResourceServerBody::from(&found))
}

/// `PATCH /api/v1/resource-servers/{resource_server_id}`.
#[utoipa::path(
    patch, path = "/api/v1/resource-servers/{resource_server_id}", tag = "resource servers", operation_id = "updateResourceServer",
    summary = "Change a resource server",
    description = "All but its identifier. What isn't named stays as it is. Made the default, it takes the place of the one that was.",
    params(
        ("resource_server_id" = String, Path, format = Uuid, description = "The resource server's id, in lower case."),
        ("If-Match" = String, Header, description = "The `ETag` of the revision that is to be changed."),
    ),
    request_body(content((ResourceServerChangeBody = "application/merge-patch+json"), (ResourceServerChangeBody = "application/json"))),
    security(("bearer" = ["resource_servers:write"])),
    responses(
        (status = 200, description = "The resource server.", body = ResourceServerBody, headers(("ETag" = String, description = "Of this revision."))),
        (status = 403, description = "INSUFFICIENT_SCOPE"),
        (status = 404, description = "RESOURCE_SERVER_NOT_FOUND"),
        (status = 412, description = "PRECONDITION_FAILED"),
        (status = 428, description = "PRECONDITION_REQUIRED"),
    ),
)]
pub(super) async fn update(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let caller = authenticate(&app, request.headers(), &origin).await?;
    caller.require(scope::RESOURCE_SERVERS_WRITE)?;
    let id = resource_server_id(path)?;
    let expected = conditional::required(request.headers())?;
    let change = resource_server_change(Fields::parse(&read_body(request, PATCH_TYPES).await?)?)?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    let changed = resource_servers::update(&mut transaction, &caller, id, &expected, change, &origin).await?;
    Database::commit(transaction).await?;
    Ok(conditional::tagged(changed.revision, ResourceServerBody::from(&changed)))
}

/// `DELETE /api/v1/resource-servers/{resource_server_id}`.
#[utoipa::path(
    delete, path = "/api/v1/resource-servers/{resource_server_id}", tag = "resource servers", operation_id = "deleteResourceServer",
    summary = "Delete a resource server",
    description = "There are no more tokens for it. Those that there are live until they expire: revoke them where they must not. Its identifier stays the tenant's.",
    params(
        ("resource_server_id" = String, Path, format = Uuid, description = "The resource server's id, in lower case."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the revision that is to be deleted."),
    ),
    security(("bearer" = ["resource_servers:write"])),
    responses(
        (status = 204, description = "It is deleted."),
        (status = 403, description = "INSUFFICIENT_SCOPE"),
        (status = 404, description = "RESOURCE_SERVER_NOT_FOUND"),
        (status = 412, description = "PRECONDITION_FAILED"),
    ),
)]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let caller = authenticate(&app, &headers, &origin).await?;
    caller.require(scope::RESOURCE_SERVERS_WRITE)?;
    let id = resource_server_id(path)?;
    let expected = conditional::expected(&headers)?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    resource_servers::delete(&mut transaction, &caller, id, expected.as_ref(), &origin).await?;
    Database::commit(transaction).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A change may be declared as what it is (RFC 7396), or as any JSON.
pub(super) const PATCH_TYPES: &[&str] = &["application/json", "application/merge-patch+json"];

fn resource_server_id(path: Result<Path<String>, PathRejection>) -> Result<Uuid, ApiError> {
    let id = path.ok().and_then(|Path(text)| parse_id(&text));
    id.ok_or(ApiError::Malformed(
        "resource_server_id in the path is not a UUID in lower-case hyphenated form.",
    ))
}

/// `Uuid` takes several spellings of one id; this takes one.
pub(crate) fn parse_id(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok()?;
    (id.hyphenated().to_string() == text).then_some(id)
}

fn new_resource_server(mut fields: Fields) -> Result<NewResourceServer, ApiError> {
    let identifier = fields.required("identifier", identifier);
    let profile = ResourceServerProfile {
        name: fields.optional("name", text(MAX_NAME_CHARACTERS)),
        token_lifetime: fields.optional("token_lifetime_seconds", lifetime),
        is_default: fields.optional("is_default", boolean).unwrap_or(false),
        agent_id: fields.optional("agent_id", agent_id),
        signing_algorithm: fields.optional("signing_algorithm", algorithm),
        status_list: fields.optional("status_list", boolean).unwrap_or(false),
    };
    fields.finish(identifier.map(|identifier| NewResourceServer { identifier, profile }))
}

/// The one that a tenant is made with.
pub(super) fn default_resource_server(fields: &mut Fields) -> Option<NewResourceServer> {
    let identifier = fields.required("identifier", identifier);
    let name = fields.optional("name", text(MAX_NAME_CHARACTERS));
    let profile = ResourceServerProfile { name, is_default: true, ..ResourceServerProfile::default() };
    identifier.map(|identifier| NewResourceServer { identifier, profile })
}

fn resource_server_change(mut fields: Fields) -> Result<impl FnOnce(&mut ResourceServerProfile), ApiError> {
    let name = fields.present("name", or_null(text(MAX_NAME_CHARACTERS)));
    let token_lifetime = fields.present("token_lifetime_seconds", or_null(lifetime));
    let is_default = fields.present("is_default", boolean);
    let agent_id = fields.present("agent_id", or_null(agent_id));
    let signing_algorithm = fields.present("signing_algorithm", or_null(algorithm));
    let status_list = fields.present("status_list", boolean);
    fields.finish(Some(move |profile: &mut ResourceServerProfile| {
        *profile = ResourceServerProfile {
            name: name.unwrap_or_else(|| profile.name.take()),
            token_lifetime: token_lifetime.unwrap_or(profile.token_lifetime),
            is_default: is_default.unwrap_or(profile.is_default),
            agent_id: agent_id.unwrap_or(profile.agent_id),
            signing_algorithm: signing_algorithm.unwrap_or(profile.signing_algorithm),
            status_list: status_list.unwrap_or(profile.status_list),
        };
    }))
}

#[expect(clippy::needless_pass_by_value, reason = "as all readers of fields")]
fn identifier(value: Value) -> Read<Identifier> {
    let identifier = value.as_str().and_then(|text| text.parse().ok());
    identifier.ok_or_else(|| {
        format!(
            "must be 1 to {} visible ASCII characters without `#`, `,`, `\"` and `\\`",
            Identifier::MAX_BYTES
        )
    })
}

fn lifetime(value: Value) -> Read<u32> {
    whole(1, MAX_LIFETIME_SECONDS)(value)
}

#[expect(clippy::needless_pass_by_value, reason = "as all readers of fields")]
fn agent_id(value: Value) -> Read<AgentId> {
    let agent = value.as_str().and_then(|text| text.parse().ok());
    agent.ok_or_else(|| "must be a UUID in lower-case hyphenated form".to_owned())
}

#[expect(clippy::needless_pass_by_value, reason = "as all readers of fields")]
fn algorithm(value: Value) -> Read<Algorithm> {
    let algorithm = value.as_str().and_then(Algorithm::from_name);
    algorithm.ok_or_else(|| format!("must be one of {}", ALGORITHMS.join(", ")))
}

/// Their names, in the order of [`Algorithm::ALL`].
const ALGORITHMS: &[&str] = &["RS256", "PS256", "ES256", "EdDSA"];

fn algorithm_words() -> RefOr<Schema> {
    openapi::or_null(openapi::word(ALGORITHMS))
}

fn name_text() -> RefOr<Schema> {
    openapi::or_null(openapi::text(MAX_NAME_CHARACTERS).into())
}

fn identifier_text() -> RefOr<Schema> {
    openapi::text(Identifier::MAX_BYTES).pattern(Some(r"^[\x21\x24-\x2b\x2d-\x5b\x5d-\x7e]+$")).into()
}

/// What a resource server is registered with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: the body is read field by field")]
pub(super) struct NewResourceServerBody {
    /// The `aud` of its tokens: visible ASCII without `#`, `,`, `"` and `\`; a URL in its canonical form.
    #[schema(schema_with = identifier_text)]
    identifier: String,
    /// For people.
    #[schema(schema_with = name_text)]
    name: Option<String>,
    /// The longest life of its tokens; the issuer's setting without it.
    #[schema(minimum = 1, maximum = 86400)]
    token_lifetime_seconds: Option<u32>,
    /// Tokens are for it where none is named.
    is_default: Option<bool>,
    /// The agent that this API itself authenticates as: it may introspect the tokens that are for it.
    #[schema(value_type = Option<String>, format = Uuid)]
    agent_id: Option<AgentId>,
    /// What its tokens are signed with, as soon as a key for that has been published for long enough; as the installation signs without it.
    #[schema(schema_with = algorithm_words)]
    signing_algorithm: Option<String>,
    /// Its tokens say in `status` where their status can be read (draft-ietf-oauth-status-list-21).
    status_list: Option<bool>,
}

/// The default resource server that a tenant is made with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: the body is read field by field")]
pub(super) struct DefaultResourceServerBody {
    /// The `aud` of its tokens: visible ASCII without `#`, `,`, `"` and `\`; a URL in its canonical form.
    #[schema(schema_with = identifier_text)]
    identifier: String,
    /// For people.
    #[schema(schema_with = name_text)]
    name: Option<String>,
}

/// What is to change.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: the body is read field by field")]
pub(super) struct ResourceServerChangeBody {
    /// Null: none.
    #[schema(schema_with = name_text)]
    name: Option<String>,
    /// Null: the issuer's setting.
    #[schema(minimum = 1, maximum = 86400)]
    token_lifetime_seconds: Option<u32>,
    #[schema(value_type = bool, required = false)]
    is_default: Option<bool>,
    /// Null: none.
    #[schema(value_type = Option<String>, format = Uuid)]
    agent_id: Option<AgentId>,
    /// Null: as the installation signs.
    #[schema(schema_with = algorithm_words)]
    signing_algorithm: Option<String>,
    #[schema(value_type = bool, required = false)]
    status_list: Option<bool>,
}

/// A resource server as it is shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct ResourceServerBody {
    #[schema(value_type = String, format = Uuid)]
    resource_server_id: Uuid,
    #[schema(value_type = String, format = Uuid)]
    tenant_id: TenantId,
    identifier: String,
    name: Option<String>,
    /// Null: the issuer's setting.
    token_lifetime_seconds: Option<u32>,
    is_default: bool,
    #[schema(value_type = Option<String>, format = Uuid)]
    agent_id: Option<AgentId>,
    /// Null: as the installation signs.
    #[schema(schema_with = algorithm_words)]
    signing_algorithm: Option<&'static str>,
    /// Its tokens say in `status` where their status can be read.
    status_list: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

impl From<&RegisteredResourceServer> for ResourceServerBody {
    fn from(server: &RegisteredResourceServer) -> Self {
        let ResourceServerProfile {
            name,
            token_lifetime,
            is_default,
            agent_id,
            signing_algorithm,
            status_list,
        } = &server.profile;
        Self {
            resource_server_id: server.resource_server_id,
            tenant_id: server.tenant_id,
            identifier: server.identifier.clone(),
            name: name.clone(),
            token_lifetime_seconds: *token_lifetime,
            is_default: *is_default,
            agent_id: *agent_id,
            signing_algorithm: signing_algorithm.map(Algorithm::as_str),
            status_list: *status_list,
            created_at: server.created_at.truncate_to_second(),
            updated_at: server.updated_at.truncate_to_second(),
        }
    }
}

impl From<RegisteredResourceServer> for ResourceServerBody {
    fn from(server: RegisteredResourceServer) -> Self {
        Self::from(&server)
    }
}
