//! How publishing goes, for who asks: everybody may know how current the edge is, the platform's administrators the rest.

use countersign_shared::UnixTime;
use time::{Duration, OffsetDateTime};

use super::ManagementError;
use super::caller::Caller;
use crate::clock;
use crate::domain::publication::{Report, SinkReport};
use crate::domain::scope::{AUDIT_READ, TENANTS_READ};
use crate::storage::Database;
use crate::storage::publication::{self, Publication};

/// A leader that hasn't said anything for so long isn't there; changes that wait for longer are late.
const PATIENCE: Duration = Duration::seconds(5);

/// How publishing goes.
#[derive(Debug, Clone)]
pub struct Status {
    /// In a word.
    pub state: State,
    /// The newest instant as of which the edge was told what is revoked.
    pub as_of: Option<OffsetDateTime>,
    /// For how long the oldest change that isn't at the edge has waited.
    pub lag: Duration,
    /// Changes that aren't there.
    pub lag_rows: u64,
    /// When the leader said it.
    pub reported_at: Option<OffsetDateTime>,
    /// What it said.
    pub report: Option<Report>,
    /// When every listener had been sent the position that the report says.
    pub acknowledged_at: Option<OffsetDateTime>,
}

/// How publishing goes, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// What is revoked is at the edge in a moment.
    Current,
    /// Changes wait.
    Behind,
    /// No issuer publishes.
    NotRunning,
}

impl State {
    /// Every word.
    pub const WORDS: &[&str] = &["current", "behind", "not_running"];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Behind => "behind",
            Self::NotRunning => "not_running",
        }
    }
}

/// The status, and whether the caller may know all of it: figures of the whole installation say something of other tenants.
pub async fn look(database: &Database, caller: &Caller) -> Result<(Status, bool), ManagementError> {
    caller.require(AUDIT_READ)?;
    let status = Status::of(publication::find(database).await?);
    Ok((status, caller.require(TENANTS_READ).is_ok()))
}

impl Status {
    /// Of what the database knows.
    pub fn of(found: Publication) -> Self {
        let Publication { now, said, acknowledged_at, waiting, waiting_since } = found;
        let waited = waiting_since.map_or(Duration::ZERO, |since| (now - since).max(Duration::ZERO));
        let (reported_at, report) = said.unzip();
        let heads = report.as_ref().and_then(Report::heads).filter(|heads| heads.lag_rows > 0);
        let silent = reported_at.map(|at| now - at);
        let underway = heads.map_or(Duration::ZERO, |heads: &SinkReport| {
            Duration::milliseconds(heads.lag_ms.cast_signed()) + silent.unwrap_or_default()
        });
        let lag = waited.max(underway);
        let failing = report.as_ref().is_some_and(|report| {
            let late = |sink: &SinkReport| sink.failing_since.is_some_and(|since| now - since > PATIENCE);
            report.heads().is_some_and(late)
        });
        let state = if silent.is_none_or(|silent| silent > PATIENCE) {
            State::NotRunning
        } else if lag > PATIENCE || failing {
            State::Behind
        } else {
            State::Current
        };
        let as_of = report.as_ref().and_then(|report| report.as_of);
        Self {
            state,
            as_of: as_of.map(|as_of| clock::timestamp(UnixTime(as_of))),
            lag,
            lag_rows: waiting + heads.map_or(0, |heads| heads.lag_rows),
            reported_at,
            report,
            acknowledged_at,
        }
    }
}
