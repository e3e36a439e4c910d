//! `/status-lists`: Token Status Lists (draft-ietf-oauth-status-list-21 §8, §9), for verifiers of any make.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, VARY,
};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use countersign_shared::Shard;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::wellknown::is_known;
use crate::app::App;
use crate::keys::{KeyError, SignError};
use crate::status_lists::{self, StatusListError};

/// The path of the lists' list.
pub(super) const PATH: &str = "/status-lists";

const MEDIA_TYPE: &str = "application/statuslist+jwt";

impl From<StatusListError> for ApiError {
    fn from(error: StatusListError) -> Self {
        match error {
            StatusListError::Storage(error)
            | StatusListError::Signing(SignError::Keys(KeyError::Storage(error))) => error.into(),
            StatusListError::Signing(SignError::NoKey) => Self::Unavailable(error.to_string()),
            StatusListError::Signing(_) | StatusListError::Making(_) => Self::Internal(error.to_string()),
        }
    }
}

#[utoipa::path(
    get, path = "/status-lists/{shard}", tag = "oauth", operation_id = "getStatusList",
    summary = "Which tokens of an hour were taken back",
    description = "A Status List Token (draft-ietf-oauth-status-list-21): the list that tokens name in `status`, if their resource server has `status_list`.",
    params(
        ("shard" = u32, Path, maximum = 16_777_215, description = "The hour in which the tokens expire: `exp` divided by 3,600, rounded down."),
        ("time" = Option<i64>, Query, description = "Refused: how lists were isn't kept."),
        ("accept" = Option<String>, Header, description = "If any, one that allows `application/statuslist+jwt`."),
        ("if-none-match" = Option<String>, Header, description = "The `ETag` of an earlier answer."),
    ),
    responses(
        (status = 200, description = "The list, a JWT.", body = String, content_type = "application/statuslist+jwt",
            headers(("etag" = String, description = "Of this list."), ("cache-control" = String, description = "`max-age` is the list's `ttl`."),
                    ("vary" = String), ("content-encoding" = String, description = "`gzip`, where the request allows it."))),
        (status = 304, description = "It is still that of `If-None-Match`.",
            headers(("etag" = String, description = "Of this list."), ("cache-control" = String), ("vary" = String))),
        (status = 404, description = "STATUS_LIST_NOT_FOUND"),
        (status = 406, description = "NOT_ACCEPTABLE"),
        (status = 501, description = "HISTORY_NOT_KEPT"),
    ),
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    if query.into_iter().any(|(name, _)| name == "time") {
        return Err(ApiError::HistoryNotKept);
    }
    if quality(&headers, &ACCEPT, &[MEDIA_TYPE, "application/*", "*/*"]) == Some(false) {
        return Err(ApiError::NotAcceptable);
    }
    let shard = path.ok().and_then(|Path(text)| parse_shard(&text)).ok_or(ApiError::StatusListNotFound)?;
    let list = status_lists::read(&app, shard).await?.ok_or(ApiError::StatusListNotFound)?;

    let gzip = quality(&headers, &ACCEPT_ENCODING, &["gzip", "*"]) == Some(true);
    // Two representations, each with a tag of its own (RFC 9110 §8.8.3).
    let tags = [format!("\"{}\"", list.tag), format!("\"{}-gzip\"", list.tag)];
    let validators = [
        (ETAG, tags[usize::from(gzip)].clone()),
        (CACHE_CONTROL, cacheable(&app)),
        (VARY, "accept, accept-encoding".to_owned()),
    ];
    if tags.iter().any(|tag| is_known(&headers, tag)) {
        return Ok((StatusCode::NOT_MODIFIED, validators).into_response());
    }
    let kind = [(CONTENT_TYPE, MEDIA_TYPE)];
    Ok(if gzip {
        (validators, kind, [(CONTENT_ENCODING, "gzip")], list.gzip.clone()).into_response()
    } else {
        (validators, kind, list.jwt.clone()).into_response()
    })
}

/// Where the lists are (draft-ietf-oauth-status-list-21 §9.3).
#[derive(Serialize, ToSchema)]
pub(super) struct Aggregation {
    /// URIs of Status List Tokens.
    status_lists: Vec<String>,
}

#[utoipa::path(
    get, path = "/status-lists", tag = "oauth", operation_id = "listStatusLists",
    summary = "Where the status lists are",
    description = "Of all tokens that name one in `status` and may be alive: for verifiers that fetch lists beforehand.",
    responses((status = 200, description = "Their URIs.", body = Aggregation, headers(("cache-control" = String)))),
)]
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<impl IntoResponse, ApiError> {
    let status_lists = status_lists::uris(&app).await?;
    Ok(([(CACHE_CONTROL, cacheable(&app))], Json(Aggregation { status_lists })))
}

fn cacheable(app: &App) -> String {
    format!("public, max-age={}", app.status_lists.ttl())
}

/// One spelling of each number.
fn parse_shard(text: &str) -> Option<Shard> {
    let number: u32 = text.parse().ok()?;
    Shard::new(number).filter(|_| number.to_string() == text)
}

/// Whether a negotiation field (RFC 9110 §12.5) allows what it may call by any of `names`, the most exact first; `None`: there is no such field, or it is silent
/// about it.
fn quality(headers: &HeaderMap, field: &HeaderName, names: &[&str]) -> Option<bool> {
    let mut values = headers.get_all(field).iter().peekable();
    values.peek()?;
    let members: Vec<(String, bool)> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|member| {
            let mut parts = member.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            (name, weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0)))
        })
        .filter(|(name, _)| !name.is_empty())
        .collect();
    let found = names.iter().find_map(|name| members.iter().find(|(member, _)| member == name));
    match found {
        Some((_, allowed)) => Some(*allowed),
        // An empty field says nothing; one that names others only leaves no room for this.
        None if members.is_empty() => None,
        None => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation() {
        let accepts = |value: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(ACCEPT, value.parse().unwrap());
            }
            quality(&headers, &ACCEPT, &[MEDIA_TYPE, "application/*", "*/*"])
        };
        assert_eq!(accepts(None), None);
        assert_eq!(accepts(Some("")), None);
        for value in [
            "application/statuslist+jwt",
            "Application/StatusList+JWT",
            "application/statuslist+cwt, application/statuslist+jwt;q=0.5",
            "text/html, application/*",
            "text/html;q=0.9, */*;q=0.1",
            "*/*;q=0, application/statuslist+jwt",
        ] {
            assert_eq!(accepts(Some(value)), Some(true), "{value}");
        }
        for value in [
            "application/statuslist+cwt",
            "text/html",
            "application/statuslist+jwt;q=0, */*",
            "application/statuslist+jwt; q=0.000",
            "*/*;q=much",
        ] {
            assert_eq!(accepts(Some(value)), Some(false), "{value}");
        }
    }

    #[test]
    fn a_shard_has_one_spelling() {
        assert_eq!(parse_shard("495123").map(Shard::get), Some(495_123));
        for text in ["", "+1", "01", "1.0", "16777216", "-1", "1e3"] {
            assert_eq!(parse_shard(text), None, "{text}");
        }
    }
}
