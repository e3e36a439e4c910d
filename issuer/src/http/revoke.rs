//! `POST /oauth2/v1/revoke` (RFC 7009 §2).

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;

use super::oauth::{Form, OauthFailure, invalid};
use crate::app::App;
use crate::domain::audit::Origin;
use crate::grants::revocation::{self, Subject};

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
