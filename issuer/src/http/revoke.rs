//! `POST /oauth2/v1/revoke` (RFC 7009 §2).

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use utoipa::ToSchema;

use super::oauth::{Form, OauthFailure, invalid};
use super::openapi;
use crate::app::App;
use crate::domain::audit::Origin;
use crate::grants::revocation::{self, Subject};

/// The form of a revocation request: one of `token` and `jti`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: the form is read parameter by parameter")]
pub(super) struct RevocationForm {
    /// What to revoke: any text.
    #[schema(schema_with = openapi::parameter)]
    token: Option<String>,
    /// Taken and not needed: there is one kind of token (RFC 7009 §2.1).
    #[schema(schema_with = openapi::parameter)]
    token_type_hint: Option<String>,
    /// Instead of `token`, for clients with `tokens:revoke`: the id of a token that this issuer minted.
    #[schema(schema_with = openapi::parameter)]
    jti: Option<String>,
    /// With `client_secret`, instead of the header `Authorization`.
    #[schema(schema_with = openapi::parameter)]
    client_id: Option<String>,
    /// With `client_id`, instead of the header `Authorization`.
    #[schema(schema_with = openapi::parameter)]
    client_secret: Option<String>,
}

#[utoipa::path(
    post, path = "/oauth2/v1/revoke", tag = "oauth", operation_id = "revokeToken",
    summary = "Revoke a token",
    description = "RFC 7009. What isn't a token of the caller's tenant is no token: 200, and nothing happens.",
    request_body(content = RevocationForm, content_type = "application/x-www-form-urlencoded"),
    security(("client" = []), ()),
    responses(
        (status = 200, description = "It is revoked, or there was nothing to revoke."),
        (status = 400, description = "invalid_request unauthorized_client"),
    ),
)]
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<impl IntoResponse, OauthFailure> {
    let mut form = Form::read(request).await?;
    let subject = match (form.take("token"), form.take("jti")) {
        (Some(token), None) => Subject::Token(token),
        (None, Some(jti)) => Subject::Jti(jti),
        (None, None) => return Err(invalid("token is required")),
        (Some(_), Some(_)) => return Err(invalid("token and jti can't both be sent")),
    };
    revocation::revoke(&app, &form.client, &subject, &origin).await?;
    Ok([(CACHE_CONTROL, "no-store")])
}
