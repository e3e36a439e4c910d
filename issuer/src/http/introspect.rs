//! `POST /oauth2/v1/introspect` (RFC 7662 §2).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use super::oauth::{Form, OauthFailure, invalid};
use super::openapi;
use crate::app::App;
use crate::domain::audit::Origin;
use crate::grants::introspection;

/// The form of an introspection request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: the form is read parameter by parameter")]
pub(super) struct IntrospectionForm {
    /// What to look at: any text.
    #[schema(schema_with = openapi::required_parameter)]
    token: String,
    /// Taken and not needed: there is one kind of token (RFC 7662 §2.1).
    #[schema(schema_with = openapi::parameter)]
    token_type_hint: Option<String>,
    /// With `client_secret`, instead of the header `Authorization`.
    #[schema(schema_with = openapi::parameter)]
    client_id: Option<String>,
    /// With `client_id`, instead of the header `Authorization`.
    #[schema(schema_with = openapi::parameter)]
    client_secret: Option<String>,
}

/// What a token is worth right now. Only `active` where it is worth nothing, or nothing that the caller may know.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: the answer is made from the claims")]
pub(super) struct Introspection {
    active: bool,
    #[schema(nullable = false)]
    iss: Option<String>,
    #[schema(nullable = false, value_type = Option<String>, format = Uuid)]
    sub: Option<String>,
    #[schema(nullable = false, value_type = Option<String>, format = Uuid)]
    client_id: Option<String>,
    /// One, or several.
    #[schema(nullable = false, schema_with = audience)]
    aud: Option<String>,
    /// Separated by spaces.
    #[schema(nullable = false)]
    scope: Option<String>,
    /// Seconds since 1970-01-01T00:00:00Z.
    #[schema(nullable = false)]
    iat: Option<i64>,
    /// Seconds since 1970-01-01T00:00:00Z.
    #[schema(nullable = false)]
    exp: Option<i64>,
    #[schema(nullable = false, value_type = Option<String>, format = Uuid)]
    jti: Option<String>,
    /// `Bearer`.
    #[schema(nullable = false)]
    token_type: Option<String>,
    #[schema(nullable = false, value_type = Option<String>, format = Uuid)]
    tenant_id: Option<String>,
    #[schema(nullable = false, value_type = Option<String>, format = Uuid)]
    credential_id: Option<String>,
    #[schema(nullable = false)]
    agent_type: Option<String>,
}

fn audience() -> RefOr<Schema> {
    let one = || ObjectBuilder::new().schema_type(Type::String);
    OneOfBuilder::new().item(one()).item(ArrayBuilder::new().items(RefOr::from(Schema::from(one())))).into()
}

#[utoipa::path(
    post, path = "/oauth2/v1/introspect", tag = "oauth", operation_id = "introspectToken",
    summary = "Introspect a token",
    description = "RFC 7662. Unknown, foreign, expired and revoked tokens are all `{\"active\": false}`; a lost database is 503.",
    request_body(content = IntrospectionForm, content_type = "application/x-www-form-urlencoded"),
    security(("client" = []), ()),
    responses((status = 200, description = "What it is worth right now.", body = Introspection)),
)]
pub(super) async fn introspect(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<impl IntoResponse, OauthFailure> {
    let mut form = Form::read(request).await?;
    let token = form.take("token").ok_or_else(|| invalid("token is required"))?;
    let answer = introspection::introspect(&app, &form.client, &token, &origin).await?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)))
}
