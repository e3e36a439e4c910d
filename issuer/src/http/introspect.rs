//! `POST /oauth2/v1/introspect` (RFC 7662 §2).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use axum::{Extension, Json};

use super::oauth::{Form, OauthFailure, invalid};
use crate::app::App;
use crate::domain::audit::Origin;
use crate::grants::introspection;

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
