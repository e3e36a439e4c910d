//! `/api/v1/tenants`, the platform's, and `/api/v1/tenant`, the caller's own.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::{Extension, Json};
use countersign_shared::{AgentId, CredentialId, TenantId};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, ToSchema};

use super::agents::{IDEMPOTENCY_KEY_DESCRIPTION, authenticate, email};
use super::conditional;
use super::error::ApiError;
use super::idempotency::{self, Answer, Call, Working};
use super::json::{Fields, Read, or_null, read_body, text, whole, word};
use super::list::{self, ListBody, Query};
use super::openapi;
use super::resource_servers::{PATCH_TYPES, ResourceServerBody, default_resource_server};
use crate::app::App;
use crate::domain::audit::Origin;
use crate::domain::scope;
use crate::domain::tenant::{Limits, MAX_NAME_CHARACTERS, Plan, Tenant, TenantProfile, TenantStatus};
use crate::domain::transition::Transition;
use crate::management::caller::Caller;
use crate::management::tenants::{self, Administrator, Created, NewAdministrator, NewTenant};
use crate::storage::Database;
use crate::storage::tenants::Filter;

/// `POST /api/v1/tenants`.
#[utoipa::path(
    post, path = "/api/v1/tenants", tag = "tenants", operation_id = "createTenant",
    summary = "Make a tenant",
    description = "With its first administrator and its default resource server, if these are given: all of it or nothing. The administrator's secret is shown this once.",
    params(("Idempotency-Key" = Option<String>, Header, description = IDEMPOTENCY_KEY_DESCRIPTION, min_length = 1, max_length = 255)),
    request_body = NewTenantBody,
    security(("bearer" = ["tenants:write"])),
    responses(
        (status = 201, description = "The tenant.", body = CreatedTenantBody,
         headers(("Location" = String, description = "The tenant's URL."), ("ETag" = String, description = "Of this revision."))),
        (status = 403, description = "INSUFFICIENT_SCOPE"),
        (status = 409, description = "TENANT_ALREADY_EXISTS, RESOURCE_SERVER_ALREADY_EXISTS, IDEMPOTENCY_KEY_IN_USE"),
        (status = 422, description = "IDEMPOTENCY_KEY_REUSED"),
    ),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Answer, ApiError> {
    let caller = platform(&app, request.headers(), &origin, scope::TENANTS_WRITE).await?;
    let call = Call::read(request).await?;
    let new = new_tenant(call.fields()?)?;
    let transaction = app.database.begin_installation().await?;
    idempotency::once_in(&app, transaction, &caller, &call, async |transaction: &mut Working| {
        let created =
            tenants::create(transaction, &app.secrets, &app.issuer_url, &caller, &new, &origin).await?;
        let (issuer, id) = (app.issuer_url.as_str(), created.tenant.tenant_id);
        Ok(Answer::created(&CreatedTenantBody::from(&created))?
            .with(&LOCATION, format!("{issuer}/api/v1/tenants/{id}"))
            .with(&ETAG, conditional::etag(created.tenant.revision)))
    })
    .await
}

/// `GET /api/v1/tenants`.
#[utoipa::path(
    get, path = "/api/v1/tenants", tag = "tenants", operation_id = "listTenants",
    summary = "List the tenants",
    description = "In the order they were made.",
    params(TenantsQuery),
    security(("bearer" = ["tenants:read"])),
    responses(
        (status = 200, description = "A page of them.", body = ListBody<TenantBody>),
        (status = 400, description = "VALIDATION_ERROR"),
        (status = 403, description = "INSUFFICIENT_SCOPE"),
    ),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<ListBody<TenantBody>>, ApiError> {
    platform(&app, &headers, &origin, scope::TENANTS_READ).await?;
    let mut query = Query::read(&uri);
    let filter =
        Filter { status: query.word("status", TenantStatus::WORDS), plan: query.word("plan", Plan::WORDS) };
    let page = query.page();
    let (filter, page) = query.finish((filter, page))?;
    let mut transaction = app.database.begin_installation().await?;
    let listed = tenants::list(&mut transaction, filter, page).await?;
    Ok(list::answer(listed, TenantBody::from))
}

/// `GET /api/v1/tenants/{tenant_id}`.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}", tag = "tenants", operation_id = "getTenant",
    summary = "Read a tenant",
    params(
        ("tenant_id" = String, Path, format = Uuid, description = "The tenant's id, in lower case."),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of an earlier answer."),
    ),
    security(("bearer" = ["tenants:read"])),
    responses(
        (status = 200, description = "The tenant.", body = TenantBody, headers(("ETag" = String, description = "Of this revision."))),
        (status = 304, description = "It is still that of `If-None-Match`."),
        (status = 403, description = "INSUFFICIENT_SCOPE"),
        (status = 404, description = "TENANT_NOT_FOUND"),
    ),
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    platform(&app, &headers, &origin, scope::TENANTS_READ).await?;
    let tenant = tenant_id(path)?;
    let mut transaction = app.database.begin_installation().await?;
    let tenant = tenants::find(&mut transaction, tenant).await?;
    conditional::read(&headers, tenant.revision, TenantBody::from(tenant))
}

/// `GET /api/v1/tenant`.
#[utoipa::path(
    get, path = "/api/v1/tenant", tag = "tenants", operation_id = "getOwnTenant",
    summary = "Read one's own tenant",
    description = "With any management scope.",
    params(("If-None-Match" = Option<String>, Header, description = "The `ETag` of an earlier answer.")),
    security(
        ("bearer" = ["agents:read"]),
        ("bearer" = ["agents:write"]),
        ("bearer" = ["audit:read"]),
        ("bearer" = ["credentials:read"]),
        ("bearer" = ["credentials:write"]),
        ("bearer" = ["resource_servers:read"]),
        ("bearer" = ["resource_servers:write"]),
        ("bearer" = ["tenants:read"]),
        ("bearer" = ["tenants:write"]),
        ("bearer" = ["tokens:introspect"]),
        ("bearer" = ["tokens:revoke"]),
    ),
    responses(
        (status = 200, description = "The tenant.", body = TenantBody, headers(("ETag" = String, description = "Of this revision."))),
        (status = 304, description = "It is still that of `If-None-Match`."),
        (status = 403, description = "INSUFFICIENT_SCOPE"),
    ),
)]
pub(super) async fn read_own(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = authenticate(&app, &headers, &origin).await?;
    caller.require_any()?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    let tenant = tenants::find(&mut transaction, caller.tenant()).await?;
    conditional::read(&headers, tenant.revision, TenantBody::from(tenant))
}

/// `PATCH /api/v1/tenants/{tenant_id}`.
#[utoipa::path(
    patch, path = "/api/v1/tenants/{tenant_id}", tag = "tenants", operation_id = "updateTenant",
    summary = "Change a tenant's name, plan or limits",
    description = "What isn't named stays as it is; a limit that is null is the plan's, or the issuer's.",
    params(
        ("tenant_id" = String, Path, format = Uuid, description = "The tenant's id, in lower case."),
        ("If-Match" = String, Header, description = "The `ETag` of the revision that is to be changed."),
    ),
    request_body(content((TenantChangeBody = "application/merge-patch+json"), (TenantChangeBody = "application/json"))),
    security(("bearer" = ["tenants:write"])),
    responses(
        (status = 200, description = "The tenant.", body = TenantBody, headers(("ETag" = String, description = "Of this revision."))),
        (status = 403, description = "INSUFFICIENT_SCOPE"),
        (status = 404, description = "TENANT_NOT_FOUND"),
        (status = 409, description = "TENANT_ALREADY_EXISTS, TENANT_DECOMMISSIONED"),
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
    let caller = platform(&app, request.headers(), &origin, scope::TENANTS_WRITE).await?;
    let tenant = tenant_id(path)?;
    let expected = conditional::required(request.headers())?;
    let change = tenant_change(Fields::parse(&read_body(request, PATCH_TYPES).await?)?)?;
    let mut transaction = app.database.begin_installation().await?;
    let changed = tenants::update(&mut transaction, &caller, tenant, &expected, change, &origin).await?;
    Database::commit(transaction).await?;
    Ok(conditional::tagged(changed.revision, TenantBody::from(changed)))
}

/// `POST /api/v1/tenants/{tenant_id}/suspend`.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/suspend", tag = "tenants", operation_id = "suspendTenant",
    summary = "Suspend a tenant",
    description = "Its live tokens end, and its clients get no more until it is reactivated. One that is suspended stays so.",
    params(
        ("tenant_id" = String, Path, format = Uuid, description = "The tenant's id, in lower case."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the revision that is to be changed."),
    ),
    security(("bearer" = ["tenants:write"])),
    responses(
        (status = 200, description = "The tenant.", body = TenantBody, headers(("ETag" = String, description = "Of this revision."))),
        (status = 403, description = "INSUFFICIENT_SCOPE"),
        (status = 404, description = "TENANT_NOT_FOUND"),
        (status = 409, description = "TENANT_DECOMMISSIONED, PLATFORM_TENANT"),
        (status = 412, description = "PRECONDITION_FAILED"),
    ),
)]
pub(super) async fn suspend(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    change_status(&app, &origin, path, &headers, Transition::Suspend).await
}

/// `POST /api/v1/tenants/{tenant_id}/reactivate`.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/reactivate", tag = "tenants", operation_id = "reactivateTenant",
    summary = "Reactivate a suspended tenant",
    description = "Its clients get tokens again; those from before stay ended. One that is active stays so.",
    params(
        ("tenant_id" = String, Path, format = Uuid, description = "The tenant's id, in lower case."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the revision that is to be changed."),
    ),
    security(("bearer" = ["tenants:write"])),
    responses(
        (status = 200, description = "The tenant.", body = TenantBody, headers(("ETag" = String, description = "Of this revision."))),
        (status = 403, description = "INSUFFICIENT_SCOPE"),
        (status = 404, description = "TENANT_NOT_FOUND"),
        (status = 409, description = "TENANT_DECOMMISSIONED"),
        (status = 412, description = "PRECONDITION_FAILED"),
    ),
)]
pub(super) async fn reactivate(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    change_status(&app, &origin, path, &headers, Transition::Reactivate).await
}

/// `DELETE /api/v1/tenants/{tenant_id}`.
#[utoipa::path(
    delete, path = "/api/v1/tenants/{tenant_id}", tag = "tenants", operation_id = "decommissionTenant",
    summary = "Decommission a tenant, for good",
    description = "Its live tokens end, and its clients never get another. What there is of it stays to be read; its name and its identifiers stay taken.",
    params(
        ("tenant_id" = String, Path, format = Uuid, description = "The tenant's id, in lower case."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the revision that is to be decommissioned."),
    ),
    security(("bearer" = ["tenants:write"])),
    responses(
        (status = 200, description = "The tenant as it stays.", body = TenantBody, headers(("ETag" = String, description = "Of this revision."))),
        (status = 403, description = "INSUFFICIENT_SCOPE"),
        (status = 404, description = "TENANT_NOT_FOUND"),
        (status = 409, description = "PLATFORM_TENANT"),
        (status = 412, description = "PRECONDITION_FAILED"),
    ),
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
    let caller = platform(app, headers, origin, scope::TENANTS_WRITE).await?;
    let tenant = tenant_id(path)?;
    let expected = conditional::expected(headers)?;
    let mut transaction = app.database.begin_installation().await?;
    let changed =
        tenants::change_status(&mut transaction, &caller, tenant, transition, expected.as_ref(), origin)
            .await?;
    Database::commit(transaction).await?;
    Ok(conditional::tagged(changed.revision, TenantBody::from(changed)))
}

/// `POST /api/v1/tenants/{tenant_id}/administrators`.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/administrators", tag = "tenants", operation_id = "addTenantAdministrator",
    summary = "Make another administrator of a tenant",
    description = "An agent with every management scope of its tenant, and a secret that is shown this once: for a tenant that has lost those it had.",
    params(
        ("tenant_id" = String, Path, format = Uuid, description = "The tenant's id, in lower case."),
        ("Idempotency-Key" = Option<String>, Header, description = IDEMPOTENCY_KEY_DESCRIPTION, min_length = 1, max_length = 255),
    ),
    request_body = NewAdministratorBody,
    security(("bearer" = ["tenants:write"])),
    responses(
        (status = 201, description = "The administrator.", body = AdministratorBody),
        (status = 403, description = "INSUFFICIENT_SCOPE, SCOPE_ESCALATION"),
        (status = 404, description = "TENANT_NOT_FOUND"),
        (status = 409, description = "TENANT_DECOMMISSIONED, AGENT_ALREADY_EXISTS, AGENT_LIMIT_REACHED, IDEMPOTENCY_KEY_IN_USE"),
        (status = 422, description = "IDEMPOTENCY_KEY_REUSED"),
    ),
)]
pub(super) async fn add_administrator(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Answer, ApiError> {
    let caller = platform(&app, request.headers(), &origin, scope::TENANTS_WRITE).await?;
    let tenant = tenant_id(path)?;
    let call = Call::read(request).await?;
    let mut fields = call.fields()?;
    let new = new_administrator(&mut fields);
    let new = fields.finish(new)?;
    let transaction = app.database.begin_installation().await?;
    idempotency::once_in(&app, transaction, &caller, &call, async |transaction: &mut Working| {
        let made =
            tenants::add_administrator(transaction, &app.secrets, &caller, tenant, &new, &origin).await?;
        Answer::created(&AdministratorBody::from(&made))
    })
    .await
}

/// The caller, if it is an administrator of the platform.
async fn platform(
    app: &App,
    headers: &HeaderMap,
    origin: &Origin,
    scope: &'static str,
) -> Result<Caller, ApiError> {
    let caller = authenticate(app, headers, origin).await?;
    caller.require(scope)?;
    Ok(caller)
}

fn tenant_id(path: Result<Path<String>, PathRejection>) -> Result<TenantId, ApiError> {
    let id = path.ok().and_then(|Path(text)| text.parse().ok());
    id.ok_or(ApiError::Malformed("tenant_id in the path is not a UUID in lower-case hyphenated form."))
}

fn new_tenant(mut fields: Fields) -> Result<NewTenant, ApiError> {
    let name = fields.required("name", text(MAX_NAME_CHARACTERS));
    let plan = fields.optional("plan", word::<Plan>(Plan::WORDS)).unwrap_or(Plan::Free);
    let limits = Limits {
        monthly_token_quota: fields.optional("monthly_token_quota", quota),
        requests_per_minute: fields.optional("requests_per_minute", limit),
        client_requests_per_minute: fields.optional("client_requests_per_minute", limit),
        max_agents: fields.optional("max_agents", limit),
    };
    let administrator = fields.nested("administrator", new_administrator);
    let default_resource_server = fields.nested("default_resource_server", default_resource_server);
    fields.finish(name.map(|name| NewTenant {
        profile: TenantProfile { name, plan, limits },
        administrator,
        default_resource_server,
    }))
}

fn new_administrator(fields: &mut Fields) -> Option<NewAdministrator> {
    let email = fields.required("email", email);
    let owner = fields.optional("owner", text(tenants::MAX_OWNER_CHARACTERS));
    email.map(|email| NewAdministrator { email, owner })
}

fn tenant_change(mut fields: Fields) -> Result<impl FnOnce(&mut TenantProfile), ApiError> {
    let name = fields.present("name", text(MAX_NAME_CHARACTERS));
    let plan = fields.present("plan", word::<Plan>(Plan::WORDS));
    let monthly_token_quota = fields.present("monthly_token_quota", or_null(quota));
    let requests_per_minute = fields.present("requests_per_minute", or_null(limit));
    let client_requests_per_minute = fields.present("client_requests_per_minute", or_null(limit));
    let max_agents = fields.present("max_agents", or_null(limit));
    fields.finish(Some(move |profile: &mut TenantProfile| {
        let TenantProfile { name: old_name, plan: old_plan, limits } = profile;
        *old_name = name.unwrap_or_else(|| std::mem::take(old_name));
        *old_plan = plan.unwrap_or(*old_plan);
        *limits = Limits {
            monthly_token_quota: monthly_token_quota.unwrap_or(limits.monthly_token_quota),
            requests_per_minute: requests_per_minute.unwrap_or(limits.requests_per_minute),
            client_requests_per_minute: client_requests_per_minute
                .unwrap_or(limits.client_requests_per_minute),
            max_agents: max_agents.unwrap_or(limits.max_agents),
        };
    }))
}

fn quota(value: Value) -> Read<u64> {
    whole(0, Limits::MAX_QUOTA)(value)
}

fn limit(value: Value) -> Read<u32> {
    whole(1, Limits::MAX)(value)
}

fn name_text() -> RefOr<Schema> {
    openapi::text(MAX_NAME_CHARACTERS).into()
}

fn owner_text() -> RefOr<Schema> {
    openapi::or_null(openapi::text(tenants::MAX_OWNER_CHARACTERS).into())
}

fn plan_word() -> RefOr<Schema> {
    openapi::word(Plan::WORDS)
}

fn plan_word_or_null() -> RefOr<Schema> {
    openapi::or_null(plan_word())
}

fn status_word() -> RefOr<Schema> {
    openapi::word(TenantStatus::WORDS)
}

/// Which tenants are asked for: those that are as every parameter says.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a description: the query is read parameter by parameter")]
pub(super) struct TenantsQuery {
    #[param(schema_with = status_word, required = false)]
    status: String,
    #[param(schema_with = plan_word, required = false)]
    plan: String,
    /// How many at once; 50 without it.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// What a tenant is made with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: the body is read field by field")]
pub(super) struct NewTenantBody {
    /// Unique in the installation, whatever the case of its letters.
    #[schema(schema_with = name_text)]
    name: String,
    /// `free` or `paid`; `free` without it.
    #[schema(schema_with = plan_word_or_null)]
    plan: Option<String>,
    /// Tokens a calendar month (UTC); the plan's without it.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    monthly_token_quota: Option<u64>,
    /// Requests a minute, of the tenant as a whole; the issuer's setting without it.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    requests_per_minute: Option<u32>,
    /// Requests a minute, of each of its clients; the issuer's setting without it.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    client_requests_per_minute: Option<u32>,
    /// Agents that aren't decommissioned; without it there is no limit.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    max_agents: Option<u32>,
    /// The first administrator.
    administrator: Option<NewAdministratorBody>,
    /// The API that tokens are for where none is named.
    default_resource_server: Option<super::resource_servers::DefaultResourceServerBody>,
}

/// Who is to administer a tenant.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: the body is read field by field")]
pub(super) struct NewAdministratorBody {
    /// Of the agent; unique in the tenant.
    #[schema(format = "email", min_length = 3, max_length = 254)]
    email: String,
    /// Who answers for it; the tenant's name without it.
    #[schema(schema_with = owner_text)]
    owner: Option<String>,
}

/// What is to change.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: the body is read field by field")]
pub(super) struct TenantChangeBody {
    #[schema(schema_with = name_text)]
    name: Option<String>,
    #[schema(schema_with = plan_word)]
    plan: Option<String>,
    /// Null: the plan's.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    monthly_token_quota: Option<u64>,
    /// Null: the issuer's setting.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    requests_per_minute: Option<u32>,
    /// Null: the issuer's setting.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    client_requests_per_minute: Option<u32>,
    /// Null: no limit.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    max_agents: Option<u32>,
}

/// A tenant as it is shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct TenantBody {
    #[schema(value_type = String, format = Uuid)]
    tenant_id: TenantId,
    name: String,
    #[schema(schema_with = status_word)]
    status: &'static str,
    /// Whether its administrators manage the others.
    is_platform: bool,
    #[schema(schema_with = plan_word)]
    plan: &'static str,
    /// Tokens a calendar month (UTC); null: the plan's.
    monthly_token_quota: Option<u64>,
    /// Requests a minute, of the tenant as a whole; null: the issuer's setting.
    requests_per_minute: Option<u32>,
    /// Requests a minute, of each of its clients; null: the issuer's setting.
    client_requests_per_minute: Option<u32>,
    /// Agents that aren't decommissioned; null: no limit.
    max_agents: Option<u32>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

impl From<&Tenant> for TenantBody {
    fn from(tenant: &Tenant) -> Self {
        let TenantProfile { name, plan, limits } = &tenant.profile;
        Self {
            tenant_id: tenant.tenant_id,
            name: name.clone(),
            status: tenant.status.as_str(),
            is_platform: tenant.is_platform,
            plan: plan.as_str(),
            monthly_token_quota: limits.monthly_token_quota,
            requests_per_minute: limits.requests_per_minute,
            client_requests_per_minute: limits.client_requests_per_minute,
            max_agents: limits.max_agents,
            created_at: tenant.created_at.truncate_to_second(),
            updated_at: tenant.updated_at.truncate_to_second(),
        }
    }
}

impl From<Tenant> for TenantBody {
    fn from(tenant: Tenant) -> Self {
        Self::from(&tenant)
    }
}

/// A tenant that was made just now.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedTenantBody<'a> {
    #[serde(flatten)]
    tenant: TenantBody,
    /// If one was asked for.
    administrator: Option<AdministratorBody<'a>>,
    /// If one was asked for.
    default_resource_server: Option<ResourceServerBody>,
}

impl<'a> From<&'a Created> for CreatedTenantBody<'a> {
    fn from(created: &'a Created) -> Self {
        Self {
            tenant: (&created.tenant).into(),
            administrator: created.administrator.as_ref().map(Into::into),
            default_resource_server: created.default_resource_server.as_ref().map(Into::into),
        }
    }
}

/// An administrator as it is shown: once.
#[derive(Serialize, ToSchema)]
pub(crate) struct AdministratorBody<'a> {
    #[schema(value_type = String, format = Uuid)]
    tenant_id: TenantId,
    email: &'a str,
    owner: &'a str,
    scopes: Vec<&'a str>,
    #[schema(value_type = String, format = Uuid)]
    credential_id: CredentialId,
    /// The agent's id.
    #[schema(value_type = String, format = Uuid)]
    client_id: AgentId,
    /// It can't be had again.
    client_secret: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl<'a> From<&'a Administrator> for AdministratorBody<'a> {
    fn from(administrator: &'a Administrator) -> Self {
        let Administrator { agent, credential, secret } = administrator;
        Self {
            tenant_id: agent.tenant_id,
            email: &agent.profile.email,
            owner: &agent.profile.owner,
            scopes: agent.profile.scopes.iter().collect(),
            credential_id: credential.credential_id,
            client_id: agent.agent_id,
            client_secret: secret.expose(),
            created_at: credential.created_at.truncate_to_second(),
        }
    }
}
