//! `/api/v1/audit`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Uri};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use countersign_shared::AgentId;
use data_encoding::HEXLOWER;
use futures_util::stream;
use serde::Serialize;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use super::agents::authenticate;
use super::error::ApiError;
use super::json::Read;
use super::list::{self, ListBody, Query};
use crate::app::App;
use crate::audit::caught_up;
use crate::domain::audit::{Action, Filter, INSTALLATION, Origin, Outcome, Sealed, TargetType};
use crate::domain::scope;
use crate::limits::places::Place;
use crate::management::ManagementError;
use crate::management::audit;
use crate::management::caller::Caller;
use crate::storage::{Database, StorageError};

/// Events read at once for an export: what it holds in memory.
pub(crate) const EXPORT_PAGE: i64 = 500;
/// For how long one may take; a client that reads more slowly gets what it has read.
pub(crate) const EXPORT_PATIENCE: Duration = Duration::from_mins(10);

/// `GET /api/v1/audit`.
#[utoipa::path(
    get, path = "/api/v1/audit", tag = "audit", operation_id = "listAuditEvents",
    summary = "List audit events, the newest first",
    params(
        ("from" = Option<String>, Query, format = DateTime, description = "Not before this (RFC 3339)."),
        ("to" = Option<String>, Query, format = DateTime, description = "Before this (RFC 3339)."),
        ("actor" = Option<String>, Query, format = Uuid, description = "Who did it: an agent's id."),
        ("action" = Option<String>, Query, description = "What was done, e.g. `agent.created`."),
        ("target_type" = Option<String>, Query, description = "To what kind of thing, e.g. `agent`."),
        ("target_id" = Option<String>, Query, description = "To which one."),
        ("outcome" = Option<String>, Query, description = "`success` or `failure`."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "How many; 50 without it."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    security(("bearer" = ["audit:read"])),
    responses(
        (status = 200, description = "The events.", body = ListBody<EventBody>),
        (status = 400, description = "VALIDATION_ERROR"),
    ),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let caller = authenticate(&app, &headers, &origin).await?;
    caller.require(scope::AUDIT_READ)?;
    let mut query = Query::read(&uri);
    let (filter, page) = (filter(&mut query), query.page());
    let (filter, page) = query.finish((filter, page))?;
    caught_up(&app.database).await?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    let listed = audit::list(&mut transaction, &caller, &filter, &page).await?;
    drop(transaction);
    let next = listed.next;
    let items = listed.items.into_iter().map(EventBody::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(list::answer(crate::domain::page::Listed { items, next }, |item| item))
}

/// `GET /api/v1/audit/{event_id}`.
#[utoipa::path(
    get, path = "/api/v1/audit/{event_id}", tag = "audit", operation_id = "getAuditEvent",
    summary = "Read an audit event",
    params(("event_id" = String, Path, format = Uuid, description = "The event's id, in lower case.")),
    security(("bearer" = ["audit:read"])),
    responses(
        (status = 200, description = "The event.", body = EventBody),
        (status = 404, description = "AUDIT_EVENT_NOT_FOUND"),
    ),
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let caller = authenticate(&app, &headers, &origin).await?;
    caller.require(scope::AUDIT_READ)?;
    // An agent's id has the same form.
    let AgentId(event) = path
        .ok()
        .and_then(|Path(text)| text.parse().ok())
        .ok_or(ApiError::Malformed("event_id in the path is not a UUID in lower-case hyphenated form."))?;
    caught_up(&app.database).await?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    let event = audit::find(&mut transaction, &caller, event).await?;
    Ok(Json(EventBody::try_from(event)?))
}

/// `GET /api/v1/audit/export`.
#[utoipa::path(
    get, path = "/api/v1/audit/export", tag = "audit", operation_id = "exportAuditEvents",
    summary = "Export audit events, the newest first, one JSON object a line",
    params(
        ("from" = Option<String>, Query, format = DateTime, description = "Not before this (RFC 3339)."),
        ("to" = Option<String>, Query, format = DateTime, description = "Before this (RFC 3339)."),
        ("actor" = Option<String>, Query, format = Uuid, description = "Who did it: an agent's id."),
        ("action" = Option<String>, Query, description = "What was done, e.g. `agent.created`."),
        ("target_type" = Option<String>, Query, description = "To what kind of thing, e.g. `agent`."),
        ("target_id" = Option<String>, Query, description = "To which one."),
        ("outcome" = Option<String>, Query, description = "`success` or `failure`."),
    ),
    security(("bearer" = ["audit:read"])),
    responses(
        (status = 200, description = "The events, all of them.", body = EventBody, content_type = "application/x-ndjson"),
        (status = 400, description = "VALIDATION_ERROR"),
        (status = 503, description = "SERVICE_UNAVAILABLE"),
    ),
)]
pub(super) async fn export(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let caller = authenticate(&app, &headers, &origin).await?;
    caller.require(scope::AUDIT_READ)?;
    let mut query = Query::read(&uri);
    let filter = filter(&mut query);
    let filter = query.finish(filter)?;
    let place = app.audit.exports.take(caller.tenant());
    let place = place.ok_or_else(|| ApiError::Unavailable("enough exports are under way already".into()))?;
    caught_up(&app.database).await?;
    let mut transaction = app.database.begin_as(caller.tenant()).await?;
    audit::begin_export(&mut transaction, &caller, &filter, &origin).await?;
    Database::commit(transaction).await?;

    let deadline = Instant::now() + EXPORT_PATIENCE;
    let mut export = Export {
        app,
        caller,
        filter,
        lines: VecDeque::new(),
        before: None,
        over: false,
        deadline,
        _place: place,
    };
    // The first part before the answer begins: what goes wrong until then is an error like any other.
    export.read().await?;
    let lines = stream::try_unfold(export, |mut export| async move {
        let chunk = export.next().await?;
        Ok::<_, std::io::Error>(chunk.map(|chunk| (chunk, export)))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)))
}

/// An export under way. Each part is a transaction of its own: it may take long, and holds nothing up. New events are newer than all that is left.
struct Export {
    app: Arc<App>,
    caller: Caller,
    filter: Filter,
    lines: VecDeque<Sealed>,
    before: Option<Uuid>,
    over: bool,
    deadline: Instant,
    _place: Place,
}

impl Export {
    async fn read(&mut self) -> Result<(), ManagementError> {
        let mut transaction = self.app.database.begin_as(self.caller.tenant()).await?;
        let rows =
            audit::export(&mut transaction, &self.caller, &self.filter, self.before, EXPORT_PAGE).await?;
        self.over = i64::try_from(rows.len()).is_ok_and(|count| count < EXPORT_PAGE);
        self.before = rows.last().map(|row| row.entry.event_id);
        self.lines = rows.into();
        Ok(())
    }

    /// The next part; an error cuts the answer off, which its reader notices.
    async fn next(&mut self) -> Result<Option<String>, std::io::Error> {
        if Instant::now() > self.deadline {
            return Err(std::io::Error::other("the export took too long"));
        }
        if self.lines.is_empty() && !self.over {
            self.read().await.map_err(std::io::Error::other)?;
        }
        let rows = std::mem::take(&mut self.lines);
        if rows.is_empty() {
            return Ok(None);
        }
        rows.into_iter().map(line).collect::<Result<String, _>>().map(Some)
    }
}

/// An event as a line of an export.
pub(crate) fn line(row: Sealed) -> Result<String, std::io::Error> {
    let body = EventBody::try_from(row).map_err(std::io::Error::other)?;
    Ok(format!("{}\n", serde_json::to_string(&body)?))
}

/// The parameters that say which events.
fn filter(query: &mut Query) -> Filter {
    Filter {
        from: query.optional("from", instant),
        to: query.optional("to", instant),
        actor: query.optional("actor", |text| {
            text.parse().map_err(|_| "must be a UUID in lower-case hyphenated form".to_owned())
        }),
        action: query.word("action", Action::WORDS),
        target_type: query.word("target_type", TargetType::WORDS),
        target_id: query.text("target_id", 200),
        outcome: query.word("outcome", Outcome::WORDS),
    }
}

/// An instant between the years 1970 and 9999.
pub(crate) fn instant(text: &str) -> Read<OffsetDateTime> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok();
    // At the ends of the calendar not every offset has a time in UTC.
    let time = time.and_then(|time| time.checked_to_offset(UtcOffset::UTC));
    time.filter(|time| (1970..=9999).contains(&time.year()))
        .ok_or_else(|| "must be a time such as 2026-11-21T07:00:00Z (RFC 3339)".to_owned())
}

/// An event as it is shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventBody {
    /// Sorts as `occurred_at` does.
    #[schema(format = Uuid)]
    pub(crate) event_id: String,
    /// Its place in its tenant's chain.
    pub(crate) seq: i64,
    /// Null: the installation's own.
    #[schema(format = Uuid)]
    pub(crate) tenant_id: Option<String>,
    /// To the microsecond.
    #[schema(format = DateTime)]
    pub(crate) occurred_at: String,
    /// When it was put into the chain.
    #[schema(format = DateTime)]
    pub(crate) recorded_at: String,
    /// The agent that did it; null: the operator, the installation itself, or somebody who couldn't say who they are.
    #[schema(format = Uuid)]
    pub(crate) actor: Option<String>,
    pub(crate) action: String,
    pub(crate) outcome: String,
    pub(crate) target_type: Option<String>,
    pub(crate) target_id: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) client_ip: Option<String>,
    pub(crate) user_agent: Option<String>,
    /// What else is known of it.
    #[schema(value_type = Object)]
    pub(crate) details: Value,
    /// SHA-256 over it and the event before it, in hexadecimal digits.
    pub(crate) hash: String,
}

impl TryFrom<Sealed> for EventBody {
    type Error = StorageError;

    fn try_from(row: Sealed) -> Result<Self, StorageError> {
        let Sealed { entry, seq, recorded_at, hash } = row;
        let details = serde_json::from_str(&entry.details).map_err(|error| StorageError::Row {
            table: "audit_events",
            id: entry.event_id.to_string(),
            problem: format!("its details are no JSON: {error}"),
        })?;
        Ok(Self {
            event_id: entry.event_id.to_string(),
            seq,
            tenant_id: (entry.tenant_id != INSTALLATION).then(|| entry.tenant_id.to_string()),
            occurred_at: micros(entry.occurred_at),
            recorded_at: micros(recorded_at),
            actor: entry.actor.map(|actor| actor.to_string()),
            action: entry.action,
            outcome: entry.outcome,
            target_type: entry.target_type,
            target_id: entry.target_id,
            request_id: entry.request_id,
            client_ip: entry.client_ip,
            user_agent: entry.user_agent,
            details,
            hash: HEXLOWER.encode(&hash),
        })
    }
}

/// RFC 3339 with six digits after the second.
fn micros(time: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    // Fails for years of five digits only, which Postgres has and nobody lives in.
    time.to_offset(UtcOffset::UTC).format(&format).unwrap_or_default()
}
