//! Lists: query parameters, read one by one so that everything wrong is said at once, and cursors.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::Json;
use axum::http::Uri;
use countersign_shared::base64url;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::error::{ApiError, FieldProblem};
use super::json::Read;
use crate::domain::page::{Listed, Page, Position};

/// The query parameters that nobody has asked for yet, and what was wrong with the others.
pub(super) struct Query {
    parameters: BTreeMap<String, String>,
    problems: Vec<FieldProblem>,
}

impl Query {
    /// Reads the query of `uri`.
    pub(super) fn read(uri: &Uri) -> Self {
        let mut query = Self { parameters: BTreeMap::new(), problems: Vec::new() };
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if query.parameters.insert(name.to_string(), value.into_owned()).is_some() {
                query.problem(&name, "comes twice".to_owned());
            }
        }
        query
    }

    /// A parameter that may be absent; `read` takes its value or says what is wrong with it.
    pub(super) fn optional<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Read<T>) -> Option<T> {
        let value = self.parameters.remove(name)?;
        read(&value).map_err(|problem| self.problem(name, problem)).ok()
    }

    /// A parameter that is one of the words of `T`.
    pub(super) fn word<T: FromStr>(&mut self, name: &str, words: &'static [&'static str]) -> Option<T> {
        self.optional(name, |text| text.parse().map_err(|_| format!("must be one of {}", words.join(", "))))
    }

    /// A parameter of 1 to `max` characters, none of them a control character.
    pub(super) fn text(&mut self, name: &str, max: usize) -> Option<String> {
        self.optional(name, |text| {
            if (1..=max).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
                Ok(text.to_owned())
            } else {
                Err(format!("must have 1 to {max} characters, none of them a control character"))
            }
        })
    }

    /// `limit` and `cursor`.
    pub(super) fn page(&mut self) -> Page {
        let limit = self.optional("limit", |text| {
            let limit = text.parse().ok().filter(|limit| (1..=Page::MAX_LIMIT).contains(limit));
            limit.ok_or_else(|| format!("must be a whole number from 1 to {}", Page::MAX_LIMIT))
        });
        let after = self.optional("cursor", |text| {
            decode(text).ok_or_else(|| "must be a `next_cursor` of this list".to_owned())
        });
        Page { limit: limit.unwrap_or(Page::DEFAULT_LIMIT), after }
    }

    fn problem(&mut self, name: &str, problem: String) {
        // An unknown name may be anything: as much of it as serves.
        self.problems.push(FieldProblem { field: name.chars().take(64).collect(), problem });
    }

    /// `value`, if nothing was wrong and nothing is left over.
    pub(super) fn finish<T>(mut self, value: T) -> Result<T, ApiError> {
        for name in std::mem::take(&mut self.parameters).into_keys().take(100) {
            self.problem(&name, "is not a parameter of this request".to_owned());
        }
        if self.problems.is_empty() { Ok(value) } else { Err(ApiError::Validation(self.problems)) }
    }
}

/// A page as it is shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListBody<T> {
    /// In the order of the list.
    items: Vec<T>,
    /// What to send as `cursor` for the next page; null: this is the last.
    next_cursor: Option<String>,
}

impl<T> ListBody<T> {
    /// Each entry made into what is shown of it.
    pub(crate) fn new<U>(listed: Listed<U>, show: impl FnMut(U) -> T) -> Self {
        let next_cursor = listed.next.as_ref().map(encode);
        Self { items: listed.items.into_iter().map(show).collect(), next_cursor }
    }
}

impl<T> ListBody<T> {
    /// What to send as `cursor` for the next page.
    pub(crate) fn next_cursor(&self) -> Option<&str> {
        self.next_cursor.as_deref()
    }
}

/// The answer to a list request.
pub(super) fn answer<T, U>(listed: Listed<U>, show: impl FnMut(U) -> T) -> Json<ListBody<T>> {
    Json(ListBody::new(listed, show))
}

/// What a cursor begins with. Another form of it gets another number.
const CURSOR_VERSION: u8 = 1;

/// base64url of: version (1 byte) ‖ microseconds since the epoch (8, big-endian) ‖ UUID (16).
pub(crate) fn encode(position: &Position) -> String {
    let micros = position.at.unix_timestamp_nanos().div_euclid(1000);
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    let bytes = [&[CURSOR_VERSION][..], &micros.to_be_bytes(), position.id.as_bytes()].concat();
    base64url::encode(&bytes)
}

pub(crate) fn decode(cursor: &str) -> Option<Position> {
    let bytes = base64url::decode(cursor.as_bytes())?;
    let (micros, id) = bytes.strip_prefix(&[CURSOR_VERSION])?.split_at_checked(8)?;
    let micros = i64::from_be_bytes(micros.try_into().ok()?);
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()?;
    // What we made lies in these; not every other time is one of Postgres's.
    if !(1970..=9999).contains(&at.year()) {
        return None;
    }
    Some(Position { at, id: Uuid::from_bytes(id.try_into().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn cursors_come_back_as_they_went() {
        let position =
            Position { at: datetime!(2026-11-21 07:00:00.123456 UTC), id: Uuid::from_bytes([7; 16]) };
        let cursor = encode(&position);
        assert_eq!(decode(&cursor), Some(position));
        for wrong in ["", "AQ", &cursor[1..], &format!("{cursor}A"), &cursor.replacen('A', "B", 1), "%"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn everything_wrong_with_a_query_is_said() {
        let uri: Uri = "/x?limit=0&cursor=zz&owner=&status=no&status=no&what=1".parse().unwrap();
        let mut query = Query::read(&uri);
        let page = query.page();
        query.text("owner", 10);
        query.word::<crate::domain::agent::AgentStatus>("status", &["yes"]);
        let Err(ApiError::Validation(problems)) = query.finish(page) else { panic!("it passed") };
        let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["status", "limit", "cursor", "owner", "status", "what"]);
    }

    #[test]
    fn without_parameters_it_is_the_first_page() {
        let mut query = Query::read(&"/x".parse().unwrap());
        let page = query.page();
        assert_eq!(query.finish(page).unwrap(), Page { limit: 50, after: None });
    }
}
