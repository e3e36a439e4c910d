//! `/api/v1/agents/{agent_id}/credentials`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::{Extension, Json};
use countersign_shared::{AgentId, CredentialId, Jwk};
use serde::Serialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, ToSchema};

use super::agents::{IDEMPOTENCY_KEY_DESCRIPTION, agent_id, authenticate};
use super::conditional;
use super::error::ApiError;
use super::idempotency::{self, Answer, Call, Working};
use super::json::{self, Fields, Read, text};
use super::list::{self, ListBody, Query};
use super::openapi;
use crate::app::App;
use crate::clock;
use crate::domain::audit::Origin;
use crate::domain::client_secret::{BcryptHash, ClientSecret};
use crate::domain::credential::{
    Credential, CredentialKind, CredentialStatus, DEFAULT_OVERLAP_SECONDS, MAX_AHEAD, MAX_NAME_CHARACTERS,
    MAX_OVERLAP_SECONDS,
};
use crate::domain::scope;
use crate::keys::client_jwk;
use crate::management::credentials::{self, Made, Material, New, Patch, Rotation};
use crate::storage::Database;

/// Makes a credential for an agent. A secret is shown in this answer and never again.
#[utoipa::path(
    post,
    path = "/api/v1/agents/{agent_id}/credentials",
    tag = "credentials",
    operation_id = "createCredential",
    security(("bearer" = ["credentials:write"])),
    params(
        ("agent_id" = String, Path, format = Uuid, description = "Whose credential."),
        ("Idempotency-Key" = Option<String>, Header, description = IDEMPOTENCY_KEY_DESCRIPTION, min_length = 1, max_length = 255),
    ),
    request_body = CredentialRequest,
    responses(
        (status = 201, description = "It is made.", body = MadeBody, headers(
            ("Location" = String, description = "Its URL."),
            ("ETag" = String, description = "Its revision."),
            ("Idempotency-Replayed" = Option<String>, description = "`true`: this answer was given before."),
        )),
        (status = 403, description = "INSUFFICIENT_SCOPE SCOPE_ESCALATION"),
        (status = 404, description = "AGENT_NOT_FOUND"),
        (status = 409, description = "AGENT_NOT_ACTIVE CREDENTIAL_LIMIT_REACHED IDEMPOTENCY_KEY_IN_USE"),
    )
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Answer, ApiError> {
    let caller = authenticate(&app, request.headers(), &origin).await?;
    caller.require(scope::CREDENTIALS_WRITE)?;
    let agent = agent_id(path)?;
    let call = Call::read(request).await?;
    let new = new_credential(call.fields()?)?;
    let answer = idempotency::once(&app, &caller, &call, async |transaction: &mut Working| {
        let made = credentials::add(transaction, &app.secrets, &caller, agent, &new, &origin).await?;
        let id = made.credential.credential_id;
        let location = format!("{}/api/v1/agents/{agent}/credentials/{id}", app.issuer_url.as_str());
        let etag = conditional::etag(made.credential.revision);
        Ok(Answer::created(&MadeBody::new(&made))?.with(&LOCATION, location).with(&ETAG, etag))
    });
    let answer = answer.await?;
    // The other replicas hear of it; here the next request finds it.
    app.clients.agent_changed(agent);
    Ok(answer)
}

/// The credentials of an agent, in the order in which they were made; never a secret or a hash.
#[utoipa::path(
    get,
    path = "/api/v1/agents/{agent_id}/credentials",
    tag = "credentials",
    operation_id = "listCredentials",
    security(("bearer" = ["credentials:read"])),
    params(
        ("agent_id" = String, Path, format = Uuid, description = "Whose credentials."),
        CredentialsQuery,
    ),
    responses(
        (status = 200, description = "A page of them.", body = ListBody<CredentialBody>),
        (status = 404, description = "AGENT_NOT_FOUND"),
    )
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<ListBody<CredentialBody>>, ApiError> {
    let caller = authenticate(&app, &headers, &origin).await?;
    caller.require(scope::CREDENTIALS_READ)?;
    let agent = agent_id(path)?;
    let mut query = Query::read(&uri);
    let status = query.word("status", CredentialStatus::WORDS);
    let page = query.page();
    let (status, page) = query.finish((status, page))?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    let listed = credentials::list(&mut transaction, &caller, agent, status, &page).await?;
    Ok(list::answer(listed, |credential| CredentialBody::from(&credential)))
}

/// One credential.
#[utoipa::path(
    get,
    path = "/api/v1/agents/{agent_id}/credentials/{credential_id}",
    tag = "credentials",
    operation_id = "readCredential",
    security(("bearer" = ["credentials:read"])),
    params(
        ("agent_id" = String, Path, format = Uuid, description = "Whose credential."),
        ("credential_id" = String, Path, format = Uuid, description = "Which credential."),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of what the client has."),
    ),
    responses(
        (status = 200, description = "The credential.", body = CredentialBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 304, description = "It is in the revision that the client has."),
        (status = 404, description = "AGENT_NOT_FOUND CREDENTIAL_NOT_FOUND"),
    )
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = authenticate(&app, &headers, &origin).await?;
    caller.require(scope::CREDENTIALS_READ)?;
    let (agent, credential) = ids(path)?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    let credential = credentials::find(&mut transaction, &caller, agent, credential).await?;
    conditional::read(&headers, credential.revision, CredentialBody::from(&credential))
}

/// Changes a live credential's name and end, by a JSON merge patch (RFC 7396).
#[utoipa::path(
    patch,
    path = "/api/v1/agents/{agent_id}/credentials/{credential_id}",
    tag = "credentials",
    operation_id = "updateCredential",
    security(("bearer" = ["credentials:write"])),
    params(
        ("agent_id" = String, Path, format = Uuid, description = "Whose credential."),
        ("credential_id" = String, Path, format = Uuid, description = "Which credential."),
        ("If-Match" = String, Header, description = "The `ETag` of what was read, or `*`."),
    ),
    request_body(content(
        (CredentialPatchRequest = "application/merge-patch+json"),
        (CredentialPatchRequest = "application/json"),
    )),
    responses(
        (status = 200, description = "The credential as it is now.", body = CredentialBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 403, description = "INSUFFICIENT_SCOPE SCOPE_ESCALATION"),
        (status = 404, description = "AGENT_NOT_FOUND CREDENTIAL_NOT_FOUND"),
        (status = 409, description = "CREDENTIAL_NOT_ACTIVE"),
    )
)]
pub(super) async fn update(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let caller = authenticate(&app, request.headers(), &origin).await?;
    caller.require(scope::CREDENTIALS_WRITE)?;
    let (agent, credential) = ids(path)?;
    let expected = conditional::required(request.headers())?;
    let body = json::read_body(request, &["application/merge-patch+json", "application/json"]).await?;
    let changes = patch(Fields::parse(&body)?)?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    let credential =
        credentials::update(&mut transaction, &caller, agent, credential, &changes, &expected, &origin)
            .await?;
    Database::commit(transaction).await?;
    app.clients.agent_changed(agent);
    Ok(conditional::tagged(credential.revision, CredentialBody::from(&credential)))
}

/// Gives a live credential a new secret, shown in this answer and never again, or a new key. The old one stays good for the overlap.
#[utoipa::path(
    post,
    path = "/api/v1/agents/{agent_id}/credentials/{credential_id}/rotate",
    tag = "credentials",
    operation_id = "rotateCredential",
    security(("bearer" = ["credentials:write"])),
    params(
        ("agent_id" = String, Path, format = Uuid, description = "Whose credential."),
        ("credential_id" = String, Path, format = Uuid, description = "Which credential."),
        ("Idempotency-Key" = Option<String>, Header, description = IDEMPOTENCY_KEY_DESCRIPTION, min_length = 1, max_length = 255),
    ),
    request_body = RotationRequest,
    responses(
        (status = 200, description = "It is rotated.", body = MadeBody, headers(
            ("ETag" = String, description = "Its revision."),
            ("Idempotency-Replayed" = Option<String>, description = "`true`: this answer was given before."),
        )),
        (status = 403, description = "INSUFFICIENT_SCOPE SCOPE_ESCALATION"),
        (status = 404, description = "AGENT_NOT_FOUND CREDENTIAL_NOT_FOUND"),
        (status = 409, description = "AGENT_NOT_ACTIVE CREDENTIAL_NOT_ACTIVE ROTATION_IN_PROGRESS IDEMPOTENCY_KEY_IN_USE"),
    )
)]
pub(super) async fn rotate(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Answer, ApiError> {
    let caller = authenticate(&app, request.headers(), &origin).await?;
    caller.require(scope::CREDENTIALS_WRITE)?;
    let (agent, credential) = ids(path)?;
    let call = Call::read(request).await?;
    let rotation = rotation(call.fields()?)?;
    let answer = idempotency::once(&app, &caller, &call, async |transaction: &mut Working| {
        let made =
            credentials::rotate(transaction, &app.secrets, &caller, agent, credential, &rotation, &origin)
                .await?;
        let etag = conditional::etag(made.credential.revision);
        Ok(Answer::ok(&MadeBody::new(&made))?.with(&ETAG, etag))
    });
    let answer = answer.await?;
    app.clients.agent_changed(agent);
    Ok(answer)
}

/// Revokes a credential, which is final, and ends every token obtained with it. Where it is revoked already nothing happens.
#[utoipa::path(
    post,
    path = "/api/v1/agents/{agent_id}/credentials/{credential_id}/revoke",
    tag = "credentials",
    operation_id = "revokeCredential",
    security(("bearer" = ["credentials:write"])),
    params(
        ("agent_id" = String, Path, format = Uuid, description = "Whose credential."),
        ("credential_id" = String, Path, format = Uuid, description = "Which credential."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what was read."),
    ),
    responses(
        (status = 200, description = "The credential as it stays.", body = CredentialBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 403, description = "INSUFFICIENT_SCOPE SCOPE_ESCALATION"),
        (status = 404, description = "AGENT_NOT_FOUND CREDENTIAL_NOT_FOUND"),
    )
)]
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = authenticate(&app, &headers, &origin).await?;
    caller.require(scope::CREDENTIALS_WRITE)?;
    let (agent, credential) = ids(path)?;
    let expected = conditional::expected(&headers)?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    let credential =
        credentials::revoke(&mut transaction, &caller, agent, credential, expected.as_ref(), &origin).await?;
    Database::commit(transaction).await?;
    app.clients.agent_changed(agent);
    Ok(conditional::tagged(credential.revision, CredentialBody::from(&credential)))
}

/// The same as revoking it: a credential's row stays, for who looks at the audit log.
#[utoipa::path(
    delete,
    path = "/api/v1/agents/{agent_id}/credentials/{credential_id}",
    tag = "credentials",
    operation_id = "deleteCredential",
    security(("bearer" = ["credentials:write"])),
    params(
        ("agent_id" = String, Path, format = Uuid, description = "Whose credential."),
        ("credential_id" = String, Path, format = Uuid, description = "Which credential."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what was read."),
    ),
    responses(
        (status = 200, description = "The credential as it stays.", body = CredentialBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 403, description = "INSUFFICIENT_SCOPE SCOPE_ESCALATION"),
        (status = 404, description = "AGENT_NOT_FOUND CREDENTIAL_NOT_FOUND"),
    )
)]
pub(super) async fn delete(
    app: State<Arc<App>>,
    origin: Extension<Origin>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    revoke(app, origin, path, headers).await
}

fn ids(path: Result<Path<(String, String)>, PathRejection>) -> Result<(AgentId, CredentialId), ApiError> {
    let ids = path.ok().and_then(|Path((agent, credential))| agent.parse().ok().zip(credential.parse().ok()));
    ids.ok_or(ApiError::Malformed(
        "agent_id or credential_id in the path is not a UUID in lower-case hyphenated form.",
    ))
}

fn new_credential(mut fields: Fields) -> Result<New, ApiError> {
    let kind = fields.optional("kind", json::word::<CredentialKind>(CredentialKind::WORDS));
    let kind = kind.unwrap_or(CredentialKind::ClientSecret);
    let material = match kind {
        CredentialKind::ClientSecret => Some(Material::Generated),
        CredentialKind::PublicKey => fields.required("public_jwk", public_jwk).map(Material::Key),
        CredentialKind::BcryptHash => fields.required("bcrypt_hash", bcrypt_hash).map(Material::Imported),
    };
    let name = fields.optional("name", text(MAX_NAME_CHARACTERS));
    let expires_at = fields.optional("expires_at", future);
    fields.finish(material.map(|material| New { material, name, expires_at }))
}

fn patch(mut fields: Fields) -> Result<Patch, ApiError> {
    let name = fields.present("name", or_null(text(MAX_NAME_CHARACTERS)));
    let expires_at = fields.present("expires_at", or_null(future));
    fields.finish(Some(Patch { name, expires_at }))
}

fn or_null<T>(read: impl FnOnce(Value) -> Read<T>) -> impl FnOnce(Value) -> Read<Option<T>> {
    move |value| if value.is_null() { Ok(None) } else { read(value).map(Some) }
}

fn rotation(mut fields: Fields) -> Result<Rotation, ApiError> {
    let overlap_seconds = fields.optional("overlap_seconds", |value| {
        let seconds = value.as_u64().and_then(|seconds| u32::try_from(seconds).ok());
        let seconds = seconds.filter(|seconds| *seconds <= MAX_OVERLAP_SECONDS);
        seconds.ok_or_else(|| format!("must be a whole number from 0 to {MAX_OVERLAP_SECONDS}"))
    });
    let end_previous = fields
        .optional("end_previous", |value| value.as_bool().ok_or_else(|| "must be true or false".to_owned()));
    let key = fields.optional("public_jwk", public_jwk);
    fields.finish(Some(Rotation {
        overlap_seconds: overlap_seconds.unwrap_or(DEFAULT_OVERLAP_SECONDS),
        end_previous: end_previous.unwrap_or(false),
        key,
    }))
}

/// A credential to be made, for the command line: what is wrong is said in words.
pub(crate) fn new_credential_of(members: Map<String, Value>) -> Result<New, String> {
    new_credential(Fields::of(members)).map_err(in_words)
}

/// The same for a rotation.
pub(crate) fn rotation_of(members: Map<String, Value>) -> Result<Rotation, String> {
    rotation(Fields::of(members)).map_err(in_words)
}

fn in_words(error: ApiError) -> String {
    match error {
        ApiError::Validation(problems) => {
            let problems =
                problems.into_iter().map(|problem| format!("{} {}", problem.field, problem.problem));
            problems.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

fn public_jwk(value: Value) -> Read<Box<Jwk>> {
    match value {
        Value::Object(jwk) => client_jwk(jwk).map(Box::new),
        _ => Err("must be a JWK: an object (RFC 7517)".to_owned()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as all readers of fields")]
fn bcrypt_hash(value: Value) -> Read<BcryptHash> {
    value.as_str().and_then(BcryptHash::parse).ok_or_else(|| {
        let (least, most) = (BcryptHash::COSTS.start(), BcryptHash::COSTS.end());
        format!("must be a bcrypt hash that begins with $2a$, $2b$ or $2y$, of cost {least} to {most}")
    })
}

#[expect(clippy::needless_pass_by_value, reason = "as all readers of fields")]
fn future(value: Value) -> Read<OffsetDateTime> {
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

/// Which credentials are asked for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a description: the query is read parameter by parameter")]
pub(super) struct CredentialsQuery {
    #[param(schema_with = status_words, required = false)]
    status: String,
    /// How many at once; 50 without it.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A credential to be made.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the schema of what `new_credential` reads")]
pub(super) struct CredentialRequest {
    /// `client_secret` without it.
    #[schema(schema_with = kind_words, required = false)]
    kind: String,
    /// For `public_key`, and required there: the public members of a key for `RS256`, `PS256`, `ES256` or `EdDSA` (RFC 7517).
    #[schema(nullable)]
    public_jwk: Option<Map<String, Value>>,
    /// For `bcrypt_hash`, and required there: `$2a$`, `$2b$` or `$2y$`, of cost 4 to 14.
    #[schema(nullable, min_length = 60, max_length = 60)]
    bcrypt_hash: Option<String>,
    /// For people.
    #[schema(nullable, min_length = 1, max_length = 100)]
    name: Option<String>,
    /// By ten years at most; without it the credential doesn't expire.
    #[schema(nullable, format = DateTime)]
    expires_at: Option<String>,
}

/// What to change; what isn't named stays, null takes it away.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the schema of what `patch` reads")]
pub(super) struct CredentialPatchRequest {
    #[schema(nullable, min_length = 1, max_length = 100)]
    name: Option<String>,
    #[schema(nullable, format = DateTime)]
    expires_at: Option<String>,
}

/// How to rotate.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the schema of what `rotation` reads")]
pub(super) struct RotationRequest {
    /// How long the old secret or key stays good; a day without it.
    #[schema(nullable, maximum = 2_592_000)]
    overlap_seconds: Option<u32>,
    /// Of a rotation that is still under way, ends the older secret or key now.
    #[schema(nullable, default = false)]
    end_previous: Option<bool>,
    /// For a `public_key`, and required there: the new one.
    #[schema(nullable)]
    public_jwk: Option<Map<String, Value>>,
}

fn kind_words() -> RefOr<Schema> {
    openapi::word(CredentialKind::WORDS)
}

fn status_words() -> RefOr<Schema> {
    openapi::word(CredentialStatus::WORDS)
}

/// A credential as it is shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct CredentialBody {
    #[schema(value_type = String, format = Uuid)]
    credential_id: CredentialId,
    /// The agent.
    #[schema(value_type = String, format = Uuid)]
    client_id: AgentId,
    /// A `bcrypt_hash` becomes a `client_secret` with its first use.
    #[schema(schema_with = kind_words)]
    kind: &'static str,
    name: Option<String>,
    #[schema(schema_with = status_words)]
    status: &'static str,
    /// Of a `public_key` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_jwk: Option<Value>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    /// From when on it doesn't authenticate; null: never.
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// To the minute, and up to a quarter of one late.
    #[serde(with = "time::serde::rfc3339::option")]
    last_used_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    rotated_at: Option<OffsetDateTime>,
    /// Until when what it was before its rotation is good; null: no rotation is under way.
    #[serde(with = "time::serde::rfc3339::option")]
    previous_expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    revoked_at: Option<OffsetDateTime>,
}

impl From<&Credential> for CredentialBody {
    fn from(credential: &Credential) -> Self {
        let second = |time: Option<OffsetDateTime>| time.map(OffsetDateTime::truncate_to_second);
        let public_jwk = credential.public_jwk.as_deref().and_then(|jwk| serde_json::from_str(jwk).ok());
        Self {
            credential_id: credential.credential_id,
            client_id: credential.agent_id,
            kind: credential.kind.as_str(),
            name: credential.name.clone(),
            status: credential.status.as_str(),
            public_jwk,
            created_at: credential.created_at.truncate_to_second(),
            updated_at: credential.updated_at.truncate_to_second(),
            expires_at: second(credential.expires_at),
            last_used_at: second(credential.last_used_at),
            rotated_at: second(credential.rotated_at),
            previous_expires_at: second(credential.previous_until),
            revoked_at: second(credential.revoked_at),
        }
    }
}

/// A credential just made or rotated, with the secret that was made for it.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeBody {
    #[serde(flatten)]
    credential: CredentialBody,
    /// Shown this once; absent where the issuer made none.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
}

impl MadeBody {
    pub(crate) fn new(made: &Made) -> Self {
        let client_secret = made.secret.as_ref().map(ClientSecret::expose).map(str::to_owned);
        Self { credential: CredentialBody::from(&made.credential), client_secret }
    }
}
