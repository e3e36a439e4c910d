//! `GET /api/v1/revocations/status`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::{Extension, Json};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::agents::authenticate;
use super::error::ApiError;
use super::openapi;
use crate::app::App;
use crate::domain::audit::Origin;
use crate::domain::publication::{Figures, Listeners, SinkReport};
use crate::management::publication::{self, Status};

/// How current the edge is.
#[derive(Serialize, ToSchema)]
pub(super) struct RevocationStatus {
    /// `behind`: changes wait for more than five seconds. `not_running`: no issuer publishes.
    #[schema(schema_with = status_words)]
    status: &'static str,
    /// The newest instant as of which the edge was told what is revoked; null before it was told anything.
    #[serde(with = "time::serde::rfc3339::option")]
    as_of: Option<OffsetDateTime>,
    /// For how long the oldest change that isn't at the edge has waited.
    lag_seconds: f64,
    /// Figures of the whole installation; null without `tenants:read` in the platform's tenant.
    installation: Option<InstallationStatus>,
}

fn status_words() -> RefOr<Schema> {
    openapi::word(publication::State::WORDS)
}

/// How publishing goes.
#[derive(Serialize, ToSchema)]
struct InstallationStatus {
    /// Of the newest change; null before there was a publisher.
    epoch: Option<u64>,
    /// Likewise.
    seq: Option<u64>,
    /// Changes that aren't at the edge; those that nobody has taken up are counted up to 100,000.
    lag_rows: u64,
    /// When the leader last said what follows.
    #[serde(with = "time::serde::rfc3339::option")]
    reported_at: Option<OffsetDateTime>,
    /// The base object in force; null before the leader has made one.
    base: Option<BaseFigures>,
    /// What came since.
    delta: Option<DeltaFigures>,
    sinks: Vec<SinkStatus>,
    /// Isolates that listen to the hub; null where the hub doesn't say.
    listeners: Option<ListenersStatus>,
}

#[derive(Serialize, ToSchema)]
struct BaseFigures {
    bytes: u64,
    /// Revoked tokens in it.
    entries: u64,
    /// Not-before rules in it.
    rules: u64,
    /// Null without entries.
    bits_per_entry: Option<f64>,
}

#[derive(Serialize, ToSchema)]
struct DeltaFigures {
    bytes: u64,
    /// Revoked tokens in it.
    entries: u64,
    /// Not-before rules in it.
    rules: u64,
}

#[derive(Serialize, ToSchema)]
struct SinkStatus {
    sink: String,
    /// For how long the oldest change that isn't there has waited.
    lag_seconds: f64,
    /// Changes that aren't there.
    lag_rows: u64,
    /// When something arrived last.
    #[serde(with = "time::serde::rfc3339::option")]
    last_success_at: Option<OffsetDateTime>,
    /// Since when nothing does; null while all is well.
    #[serde(with = "time::serde::rfc3339::option")]
    failing_since: Option<OffsetDateTime>,
    /// Why not.
    error: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct ListenersStatus {
    count: u64,
    /// Of the position that every one of them was sent.
    epoch: u64,
    /// Likewise.
    seq: u64,
    /// When that was known.
    #[serde(with = "time::serde::rfc3339::option")]
    acknowledged_at: Option<OffsetDateTime>,
}

/// How current the edge's knowledge of revocations is. Any issuer answers, by what the one that publishes last said.
#[utoipa::path(
    get,
    path = "/api/v1/revocations/status",
    tag = "oauth",
    operation_id = "getRevocationStatus",
    summary = "How current the edge is",
    security(("bearer" = ["audit:read"])),
    responses((status = 200, description = "How publishing goes.", body = RevocationStatus))
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Json<RevocationStatus>, ApiError> {
    let caller = authenticate(&app, request.headers(), &origin).await?;
    let (status, all) = publication::look(&app.database, &caller).await?;
    Ok(Json(RevocationStatus {
        status: status.state.as_str(),
        as_of: status.as_of,
        lag_seconds: status.lag.as_seconds_f64(),
        installation: all.then(|| InstallationStatus::from(status)),
    }))
}

impl From<Status> for InstallationStatus {
    fn from(status: Status) -> Self {
        let Status { lag_rows, reported_at, report, acknowledged_at, .. } = status;
        let report = report.as_ref();
        Self {
            epoch: report.map(|report| report.epoch),
            seq: report.map(|report| report.seq),
            lag_rows,
            reported_at,
            base: report.and_then(|report| report.base).map(BaseFigures::from),
            delta: report.map(|report| DeltaFigures::from(report.delta)),
            sinks: report.into_iter().flat_map(|report| &report.sinks).map(SinkStatus::from).collect(),
            listeners: report.and_then(|report| report.listeners).map(|listeners| {
                let Listeners { count, epoch, seq } = listeners;
                ListenersStatus { count, epoch, seq, acknowledged_at }
            }),
        }
    }
}

impl From<Figures> for BaseFigures {
    fn from(Figures { bytes, entries, rules }: Figures) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let bits_per_entry = (entries > 0).then(|| (bytes as f64 * 800.0 / entries as f64).round() / 100.0);
        Self { bytes, entries, rules, bits_per_entry }
    }
}

impl From<Figures> for DeltaFigures {
    fn from(Figures { bytes, entries, rules }: Figures) -> Self {
        Self { bytes, entries, rules }
    }
}

impl From<&SinkReport> for SinkStatus {
    fn from(report: &SinkReport) -> Self {
        Self {
            sink: report.sink.clone(),
            lag_seconds: std::time::Duration::from_millis(report.lag_ms).as_secs_f64(),
            lag_rows: report.lag_rows,
            last_success_at: report.last_success_at,
            failing_since: report.failing_since,
            error: report.error.clone(),
        }
    }
}
