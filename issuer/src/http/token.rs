//! `POST /oauth2/v1/token`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, PRAGMA};
use axum::response::IntoResponse;
use axum::{Extension, Json};

use super::oauth::{Form, OauthFailure, invalid};
use crate::app::App;
use crate::domain::audit::Origin;
use crate::domain::scope::Scopes;
use crate::grants::OauthError;
use crate::grants::client_credentials::{self, Request as Grant};

pub(super) async fn issue(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<impl IntoResponse, OauthFailure> {
    let mut form = Form::read(request).await?;
    match form.take("grant_type").as_deref() {
        None => return Err(invalid("grant_type is required")),
        Some("client_credentials") => {}
        Some(_) => return Err(OauthError::UnsupportedGrantType.into()),
    }
    let grant = read_grant(&mut form)?;
    let issued = client_credentials::issue(&app, &form.client, grant, &origin).await?;
    // Both, for caches of either age (RFC 6749 §5.1).
    Ok(([(CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")], Json(issued)))
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
