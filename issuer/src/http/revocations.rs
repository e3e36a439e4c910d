//! `POST /api/v1/revocations`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::{Extension, Json};
use countersign_shared::{AgentId, CredentialId, Jti, TenantId};
use serde::Serialize;
use serde_json::Value;
use std::str::FromStr;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};
use uuid::Uuid;

use super::agents::authenticate;
use super::error::ApiError;
use super::json::{Fields, Read, text};
use super::openapi;
use crate::app::App;
use crate::clock;
use crate::domain::audit::Origin;
use crate::domain::scope::TOKENS_REVOKE;
use crate::management::ManagementError;
use crate::management::caller::Caller;
use crate::management::revocations::{self, Ended, Subject};
use crate::storage::Database;
use crate::tokens::check;
use crate::tokens::revoke::{self, Became, MOST_AT_ONCE};

const NOT_A_UUID: &str = "must be a UUID in lower-case hyphenated form";

/// Whose tokens are taken back: exactly one member; beside `everything` there is `reason`.
#[derive(ToSchema)]
#[schema(min_properties = 1, max_properties = 2)]
#[expect(dead_code, reason = "a schema: the body is read member by member")]
pub(super) struct RevocationRequest {
    /// One token of the caller's tenant.
    #[schema(nullable = false, max_length = 8192)]
    token: Option<String>,
    /// One token of the caller's tenant, by its id.
    #[schema(nullable = false)]
    jti: Option<Uuid>,
    /// Every token of this agent.
    #[schema(nullable = false)]
    agent_id: Option<Uuid>,
    /// Every token obtained with this credential.
    #[schema(nullable = false)]
    credential_id: Option<Uuid>,
    /// Every token of this tenant; another than the caller's takes `tenants:write` too.
    #[schema(nullable = false)]
    tenant_id: Option<Uuid>,
    /// These tokens, by their ids: those that are of the caller's tenant.
    #[schema(nullable = false, min_items = 1, max_items = 1000)]
    jtis: Option<Vec<Uuid>>,
    /// Every token signed with this key, in all tenants; takes `tenants:write` too.
    #[schema(nullable = false, max_length = 255)]
    key_id: Option<String>,
    /// `true`: every token of every tenant, with `reason`; takes `tenants:write` too.
    #[schema(nullable = false)]
    everything: Option<bool>,
    /// Why, for the audit log; with `everything` only.
    #[schema(nullable = false, max_length = 500)]
    reason: Option<String>,
}

/// What was ended.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct RevocationAnswer {
    /// The one token.
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// Every token issued up to this instant.
    #[serde(skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    issued_up_to: Option<OffsetDateTime>,
    /// The tokens of `jtis`, in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<OneOfMany>>,
}

/// What became of one of `jtis`.
#[derive(Serialize, ToSchema)]
pub(super) struct OneOfMany {
    /// As it was sent.
    jti: Uuid,
    /// `revoked`: it is now; `already_revoked`: it was before; `expired`: it needs no revocation; `not_found`: it is no token of the caller's tenant.
    #[schema(schema_with = became)]
    status: &'static str,
}

fn became() -> RefOr<Schema> {
    openapi::word(Became::WORDS)
}

/// Takes one token back, up to 1,000 of them, or all that an agent, a credential, a tenant or a key has obtained so far. When the answer arrives, that is committed; every
/// edge refuses them about a second later.
#[utoipa::path(
    post,
    path = "/api/v1/revocations",
    tag = "oauth",
    operation_id = "endTokens",
    summary = "Take tokens back",
    request_body = RevocationRequest,
    security(("bearer" = ["tokens:revoke"])),
    responses(
        (status = 200, description = "They are revoked.", body = RevocationAnswer),
        (status = 404, description = "TOKEN_NOT_FOUND AGENT_NOT_FOUND CREDENTIAL_NOT_FOUND TENANT_NOT_FOUND KEY_NOT_FOUND")
    )
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Json<RevocationAnswer>, ApiError> {
    let caller = authenticate(&app, request.headers(), &origin).await?;
    caller.require(TOKENS_REVOKE)?;
    let subject = match read(Fields::read(request).await?)? {
        Asked::For(subject) => subject,
        Asked::Many(ids) => return many(&app, &caller, &ids, &origin).await,
        Asked::Token(token) => {
            let claims = check::to_be_revoked(&app, &token).ok();
            let claims = claims.filter(|claims| claims.tenant == caller.tenant());
            Subject::Token(claims.ok_or(ManagementError::TokenNotFound)?.jti)
        }
    };
    let mut transaction = revocations::begin(&app.database, &caller, &subject).await?;
    let ended = revocations::revoke(&mut transaction, &app.secrets, &caller, &subject, &origin).await?;
    Database::commit(transaction).await?;
    Ok(Json(match ended {
        Ended::Token(jti) => {
            revoke::mark(&app, &[jti]).await;
            RevocationAnswer { jti: Some(jti.to_string()), ..RevocationAnswer::default() }
        }
        Ended::UpTo(time, holder) => {
            // Whoever asks for a token next, here, is issued one that the rule doesn't end: not only when the announcement has arrived.
            if let Some(agent) = holder {
                app.clients.agent_changed(agent);
            }
            if let Subject::Tenant(tenant) = subject {
                app.clients.tenant_changed(tenant);
            }
            if let Subject::Everything { .. } = subject {
                app.clients.all_changed();
            }
            RevocationAnswer { issued_up_to: Some(clock::timestamp(time)), ..RevocationAnswer::default() }
        }
    }))
}

/// All in one transaction; what is found is revoked, whatever the others are.
async fn many(
    app: &App,
    caller: &Caller,
    ids: &[Uuid],
    origin: &Origin,
) -> Result<Json<RevocationAnswer>, ApiError> {
    let (tenant, actor) = (caller.tenant(), caller.agent());
    let mut transaction = app.database.begin_as(tenant).await?;
    let became = revoke::revoke_many_in(&mut transaction, &app.secrets, tenant, actor, ids, origin).await?;
    Database::commit(transaction).await?;
    let revoked = ids.iter().zip(&became).filter(|(_, became)| **became != Became::NotFound);
    let revoked: Vec<Jti> = revoked.filter_map(|(id, _)| Jti::from_uuid(*id)).collect();
    revoke::mark(app, &revoked).await;
    let results = ids.iter().zip(became);
    let results = results.map(|(jti, became)| OneOfMany { jti: *jti, status: became.as_str() });
    Ok(Json(RevocationAnswer { results: Some(results.collect()), ..RevocationAnswer::default() }))
}

enum Asked {
    For(Subject),
    Many(Vec<Uuid>),
    Token(String),
}

fn read(mut fields: Fields) -> Result<Asked, ApiError> {
    let reason = fields.optional("reason", text(500));
    let has_reason = reason.is_some();
    let everything = fields.optional("everything", |value| match (value.as_bool(), reason) {
        (Some(true), Some(reason)) => Ok(Asked::For(Subject::Everything { reason })),
        (Some(true), None) => Err("takes `reason` beside it".to_owned()),
        _ => Err("must be true".to_owned()),
    });
    let takes_reason = everything.is_some();
    let asked: Vec<Asked> = [
        fields.optional("token", text(8192)).map(Asked::Token),
        fields.optional("jti", |value| id::<Jti>(&value)).map(|jti| Asked::For(Subject::Token(jti))),
        fields.optional("agent_id", |value| id::<AgentId>(&value)).map(|id| Asked::For(Subject::Agent(id))),
        fields
            .optional("credential_id", |value| id::<CredentialId>(&value))
            .map(|id| Asked::For(Subject::Credential(id))),
        fields
            .optional("tenant_id", |value| id::<TenantId>(&value))
            .map(|id| Asked::For(Subject::Tenant(id))),
        fields.optional("key_id", text(255)).map(|kid| Asked::For(Subject::Key(kid))),
        fields.list("jtis", MOST_AT_ONCE, any_id).map(Asked::Many),
        everything,
    ]
    .into_iter()
    .flatten()
    .collect();
    let asked = fields.finish(Some(asked))?;
    if has_reason && !takes_reason {
        return Err(ApiError::Malformed("reason goes with everything only."));
    }
    <[Asked; 1]>::try_from(asked).map(|[asked]| asked).map_err(|_| {
        ApiError::Malformed(
            "The body takes exactly one of token, jti, jtis, agent_id, credential_id, tenant_id, key_id and everything.",
        )
    })
}

fn id<T: FromStr>(value: &Value) -> Read<T> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| NOT_A_UUID.to_owned())
}

/// A UUID that may be of any kind: what isn't one of our jtis is not found, rather than a mistake that stops the others.
#[expect(clippy::needless_pass_by_value, reason = "as all readers of fields")]
fn any_id(value: Value) -> Read<Uuid> {
    let text = value.as_str().unwrap_or_default();
    let parsed = revoke::canonical(text);
    parsed.ok_or_else(|| NOT_A_UUID.to_owned())
}
