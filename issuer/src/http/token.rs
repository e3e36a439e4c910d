//! `POST /oauth2/v1/token`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, PRAGMA};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::oauth::{Form, OauthFailure, invalid};
use super::openapi;
use crate::app::App;
use crate::domain::audit::Origin;
use crate::domain::scope::Scopes;
use crate::grants::OauthError;
use crate::grants::client_credentials::{self, Issued, Request as Grant};
use crate::metrics;

/// The form of a token request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: the form is read parameter by parameter")]
pub(super) struct TokenForm {
    /// `client_credentials`.
    #[schema(schema_with = grant_type)]
    grant_type: String,
    /// The API to call (RFC 8707); without it, the tenant's default resource server.
    #[schema(schema_with = openapi::parameter)]
    resource: Option<String>,
    /// The older name of `resource`.
    #[schema(schema_with = openapi::parameter)]
    audience: Option<String>,
    /// What to do there, separated by spaces; without it, all that the agent may.
    #[schema(schema_with = openapi::parameter)]
    scope: Option<String>,
    /// A shorter life than usual, in seconds.
    #[schema(nullable = false, minimum = 1, maximum = 86_400)]
    expires_in: Option<u32>,
    /// With `client_secret`, instead of the header `Authorization`.
    #[schema(schema_with = openapi::parameter)]
    client_id: Option<String>,
    /// With `client_id`, instead of the header `Authorization`.
    #[schema(schema_with = openapi::parameter)]
    client_secret: Option<String>,
}

fn grant_type() -> RefOr<Schema> {
    openapi::word(&["client_credentials"])
}

#[utoipa::path(
    post, path = "/oauth2/v1/token", tag = "oauth", operation_id = "issueToken",
    summary = "Issue a token",
    description = "The client credentials grant (RFC 6749 §4.4) with resource indicators (RFC 8707).",
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    security(("client" = []), ()),
    responses(
        (status = 200, description = "A token.", body = Issued, headers(("pragma" = String, description = "`no-cache`"))),
        (status = 400, description = "invalid_request unauthorized_client unsupported_grant_type invalid_scope invalid_target"),
        (status = 403, description = "access_denied"),
    ),
)]
pub(super) async fn issue(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<impl IntoResponse, OauthFailure> {
    let issued = answer(&app, &origin, request).await;
    metrics::token_request(match &issued {
        Ok(_) => "issued",
        Err(OauthFailure(error)) => error.word(),
    });
    // Both, for caches of either age (RFC 6749 §5.1).
    Ok(([(CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")], Json(issued?)))
}

async fn answer(app: &App, origin: &Origin, request: Request) -> Result<Issued, OauthFailure> {
    let mut form = Form::read(request).await?;
    match form.take("grant_type").as_deref() {
        None => return Err(invalid("grant_type is required")),
        Some("client_credentials") => {}
        Some(_) => return Err(OauthError::UnsupportedGrantType.into()),
    }
    let grant = read_grant(&mut form)?;
    Ok(client_credentials::issue(app, &form.client, grant, origin).await?)
}

fn read_grant(form: &mut Form) -> Result<Grant, OauthFailure> {
    let resource = match (form.take("resource"), form.take("audience")) {
        (Some(resource), Some(audience)) if resource != audience => {
            return Err(invalid("resource and audience differ; they mean the same, so send one"));
        }
        (resource, audience) => resource.or(audience),
    };
    let scope = form.take("scope").map(|text| Scopes::parse(&text)).transpose();
    let scope = scope.map_err(|_| OauthError::InvalidScope("scope is malformed".into()))?;
    let expires_in = form.take("expires_in").map(|text| text.parse()).transpose();
    let expires_in = expires_in.map_err(|_| invalid("expires_in must be a whole number of seconds"))?;
    Ok(Grant { resource, scope, expires_in })
}
