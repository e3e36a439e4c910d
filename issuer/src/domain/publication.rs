//! How publishing goes, as the leader says it to everybody.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// What the publisher's leader last said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Of the newest change, as [`Self::seq`].
    pub epoch: u64,
    /// How many changes there were in all.
    pub seq: u64,
    /// The `as_of` of the newest head that arrived, in Unix time; `None` before one did.
    pub as_of: Option<i64>,
    /// The base object in force; `None` where this leader hasn't made it.
    pub base: Option<Figures>,
    /// What came since.
    pub delta: Figures,
    /// Isolates that listen to the hub; `None` from a hub that doesn't say.
    pub listeners: Option<Listeners>,
    /// Each way that something is published: that of objects, of heads, of key statements, and where there is another place besides, that of its heads and its key
    /// statements.
    pub sinks: Vec<SinkReport>,
}

impl Report {
    /// How the heads' way to the edge goes.
    pub fn heads(&self) -> Option<&SinkReport> {
        self.sinks.get(1)
    }
}

/// How large an artifact is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Its bytes.
    pub bytes: u64,
    /// Revoked tokens in it.
    pub entries: u64,
    /// Not-before rules in it.
    pub rules: u64,
}

/// Isolates that wait at the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listeners {
    /// How many.
    pub count: u64,
    /// Of the position that every one of them was sent, as [`Self::seq`].
    pub epoch: u64,
    /// Likewise.
    pub seq: u64,
}

impl Listeners {
    /// What all of them have been sent.
    pub const fn position(&self) -> (u64, u64) {
        (self.epoch, self.seq)
    }
}

/// How deliveries to a sink go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkReport {
    /// Its name.
    pub sink: String,
    /// For how long the oldest change that isn't there has waited, in milliseconds.
    pub lag_ms: u64,
    /// Changes that aren't there.
    pub lag_rows: u64,
    /// When something arrived last.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_success_at: Option<OffsetDateTime>,
    /// Since when nothing does; `None` while all is well.
    #[serde(with = "time::serde::rfc3339::option")]
    pub failing_since: Option<OffsetDateTime>,
    /// Why not.
    pub error: Option<String>,
}
