//! Entity tags and what goes by them (RFC 9110 §8.8.3, §13): strong, made from the row's revision.

use axum::Json;
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use crate::domain::revision::Expected;

/// The entity tag of a revision.
pub(super) fn etag(revision: i64) -> String {
    format!("\"{revision}\"")
}

/// What `If-Match` demands; `None`: the request has none.
pub(super) fn expected(headers: &HeaderMap) -> Result<Option<Expected>, ApiError> {
    let tags = tags(headers, &IF_MATCH).map_err(|()| {
        ApiError::Malformed("If-Match is not `*` or a list of entity tags in double quotes.")
    })?;
    Ok(tags.map(|tags| match tags {
        Tags::Any => Expected::Any,
        // By strong comparison a weak tag matches nothing, and neither does one that we never made.
        Tags::Listed(tags) => {
            let ours = tags.iter().filter(|tag| !tag.weak).filter_map(|tag| {
                let revision = tag.text.parse().ok()?;
                (tag.text == i64::to_string(&revision)).then_some(revision)
            });
            Expected::OneOf(ours.collect())
        }
    }))
}

/// The same where the request must have one.
pub(super) fn required(headers: &HeaderMap) -> Result<Expected, ApiError> {
    expected(headers)?.ok_or(ApiError::PreconditionRequired)
}

/// 200 with `body` and its entity tag.
pub(super) fn tagged(revision: i64, body: impl Serialize) -> Response {
    ([(ETAG, etag(revision))], Json(body)).into_response()
}

/// The answer to a GET: [`tagged`], or 304 if the client has that revision (`If-None-Match`).
pub(super) fn read(headers: &HeaderMap, revision: i64, body: impl Serialize) -> Result<Response, ApiError> {
    let known = tags(headers, &IF_NONE_MATCH).map_err(|()| {
        ApiError::Malformed("If-None-Match is not `*` or a list of entity tags in double quotes.")
    })?;
    let fresh = match known {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::Listed(tags)) => tags.iter().any(|tag| tag.text == revision.to_string()),
    };
    if fresh {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag(revision))]).into_response());
    }
    Ok(tagged(revision, body))
}

enum Tags {
    Any,
    Listed(Vec<Tag>),
}

struct Tag {
    weak: bool,
    text: String,
}

/// The entity tags in a header, all its lines together.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, ()> {
    let mut lines = headers.get_all(name).iter().peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    let lines: Vec<&str> = lines.map(|line| line.to_str()).collect::<Result<_, _>>().map_err(|_| ())?;
    let text = lines.join(",");
    if text.trim() == "*" {
        return Ok(Some(Tags::Any));
    }
    let mut rest = text.trim();
    let mut tags = Vec::new();
    while !rest.is_empty() {
        let (weak, quoted) = match rest.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let (tag, after) = quoted.strip_prefix('"').and_then(|tag| tag.split_once('"')).ok_or(())?;
        tags.push(Tag { weak, text: tag.to_owned() });
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim_start_matches([',', ' ', '\t']),
            None if after.is_empty() => after,
            None => return Err(()),
        };
    }
    if tags.is_empty() { Err(()) } else { Ok(Some(Tags::Listed(tags))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn if_match(lines: &[&str]) -> Result<Option<Expected>, ApiError> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IF_MATCH, line.parse().unwrap());
        }
        expected(&headers)
    }

    #[test]
    fn reads_lists_of_tags() {
        for (lines, expected) in [
            (&[][..], None),
            (&["*"], Some(Expected::Any)),
            (&["\"7\""], Some(Expected::OneOf(vec![7]))),
            (&["\"7\", \"8\"", "\"9\""], Some(Expected::OneOf(vec![7, 8, 9]))),
            (&["\"a,b\",, \"8\""], Some(Expected::OneOf(vec![8]))),
            (&["W/\"7\""], Some(Expected::OneOf(vec![]))),
            (&["\"07\"", "\"+7\"", "\"\""], Some(Expected::OneOf(vec![]))),
        ] {
            assert_eq!(if_match(lines).unwrap(), expected, "{lines:?}");
        }
        for lines in [&["7"][..], &[""], &["\"7"], &["\"7\" \"8\""], &["*, \"7\""], &["w/\"7\""]] {
            assert!(if_match(lines).is_err(), "{lines:?}");
        }
    }
}
