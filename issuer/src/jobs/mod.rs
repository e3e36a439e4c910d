//! What has to be done from time to time: removing what nobody needs any more.
//!
//! Each job is done by one process at a time, whoever comes first when it is due ([`storage::Turn`] is the lock, and `job_runs` says when that is); one that dies lets
//! go of it with its connection. A job removes some thousand rows a statement, each a transaction of its own, so nobody waits long for a lock of its, and
//! after a minute it lets the others have their turn. What every job is for, and what it must leave, is in [`Job`].

mod runner;

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use crate::config::AuditRetention;
use crate::domain::text_enum;
use crate::metrics;
use crate::storage::jobs::{self as storage, Outcome, Past, Turn};
use crate::storage::{
    Database, StorageError, audit, idempotency, limits, outbox, revocations, serials, status_lists,
    used_assertions,
};

pub use runner::{Jobs, start};

/// Rows that are removed in one statement.
const BATCH: i64 = 2000;
/// What is left to others between two.
const PAUSE: Duration = Duration::from_millis(20);
/// A run ends after this, and goes on when the other jobs have had their turn.
const RUN: Duration = Duration::from_mins(1);
/// One that failed is tried again after this.
const RETRY: Duration = Duration::from_mins(1);

text_enum! {
    /// A job. They are done in this order.
    pub enum Job {
        /// Client assertions that have ended: they can't be used again, recorded or not.
        UsedAssertions = "used-assertions",
        /// Answers kept for `Idempotency-Key` that are no longer given.
        IdempotencyKeys = "idempotency-keys",
        /// What status lists know of tokens that have expired.
        StatusTokens = "status-tokens",
        /// Revocations of tokens that have expired. Introspection answers `active: false` without them.
        Revocations = "revocations",
        /// Entries of the publisher's outbox that are in the base, or came to nobody, and end only tokens that have expired.
        Outbox = "outbox",
        /// Up to where serials were leased, in hours in which no token expires any more.
        Serials = "serials",
        /// How much of its quota a tenant used, in months more than a year ago.
        Quotas = "quotas",
        /// Weeks of the audit log that are past `AUDIT_RETENTION_DAYS`.
        Audit = "audit",
    }
}

impl Job {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::UsedAssertions,
        Self::IdempotencyKeys,
        Self::StatusTokens,
        Self::Revocations,
        Self::Outbox,
        Self::Serials,
        Self::Quotas,
        Self::Audit,
    ];

    /// What it removes.
    pub const fn removes(self) -> &'static str {
        match self {
            Self::UsedAssertions => "assertions of clients that have ended",
            Self::IdempotencyKeys => "answers for Idempotency-Key that are no longer given",
            Self::StatusTokens => "expired tokens of status lists",
            Self::Revocations => "revocations of expired tokens",
            Self::Outbox => "published entries of expired tokens and rules",
            Self::Serials => "serial leases of expired shards",
            Self::Quotas => "monthly use of more than a year ago",
            Self::Audit => "weeks of the audit log past AUDIT_RETENTION_DAYS",
        }
    }

    /// How often it is done.
    pub const fn every(self) -> Duration {
        match self {
            // Each lives for minutes, and there may be as many as token requests.
            Self::UsedAssertions => Duration::from_mins(1),
            _ => Duration::from_hours(1),
        }
    }

    /// Removes one batch; how much, and whether there may be more.
    async fn batch(
        self,
        connection: &mut PgConnection,
        past: &Past,
        retention: AuditRetention,
    ) -> Result<(u64, bool), StorageError> {
        let removed = match self {
            Self::UsedAssertions => used_assertions::sweep(connection, past.now, BATCH).await?,
            Self::IdempotencyKeys => idempotency::sweep(connection, BATCH).await?,
            Self::StatusTokens => status_lists::sweep(connection, past.now, BATCH).await?,
            Self::Revocations => revocations::sweep(connection, past.shard, BATCH).await?,
            Self::Outbox => outbox::sweep(connection, past, BATCH).await?,
            Self::Serials => serials::sweep(connection, past.shard, BATCH).await?,
            Self::Quotas => limits::sweep(connection, past.now, BATCH).await?,
            Self::Audit => {
                let mut transaction = connection.begin().await?;
                let pruned = audit::prune(&mut transaction, retention.days).await?;
                transaction.commit().await?;
                if let Some(dropped) = &pruned {
                    let (partition, events) = (dropped.partition.as_str(), dropped.events);
                    info!(partition, events, "audit events dropped by age");
                }
                return Ok((pruned.is_some().into(), pruned.is_some()));
            }
        };
        Ok((removed, removed >= BATCH.unsigned_abs()))
    }
}

/// Does `job`, as much of it as there is time for. `None`: somebody else is at it, or it isn't time for it and `only_if_due` is set.
pub async fn run(
    database: &Database,
    job: Job,
    retention: AuditRetention,
    only_if_due: bool,
) -> Result<Option<Outcome>, StorageError> {
    let Some(mut turn) = Turn::take(database, job.as_str(), only_if_due).await? else { return Ok(None) };
    let began = Instant::now();
    let mut outcome = Outcome { removed: 0, complete: false, failure: None };
    if let Err(error) = work(&mut turn, job, retention, began, &mut outcome).await {
        outcome.failure = Some(error.to_string());
    }
    let took = began.elapsed();
    metrics::job_finished(job.as_str(), took, outcome.failure.is_none());
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let (removed, complete) = (outcome.removed, outcome.complete);
    match &outcome.failure {
        // The runner says it.
        Some(_) => {}
        None if removed > 0 => info!(job = job.as_str(), removed, complete, took_ms, "cleaned up"),
        None => debug!(job = job.as_str(), removed, complete, took_ms, "nothing to clean up"),
    }
    let again = match (&outcome.failure, complete) {
        (Some(_), _) => RETRY,
        (None, true) => job.every(),
        (None, false) => Duration::ZERO,
    };
    // If the connection is what failed, this fails too, and the run stays without an end: it is due at once, for whoever has a connection.
    turn.finish(&outcome, again).await?;
    Ok(Some(outcome))
}

async fn work(
    turn: &mut Turn,
    job: Job,
    retention: AuditRetention,
    began: Instant,
    outcome: &mut Outcome,
) -> Result<(), StorageError> {
    let Some(past) = turn.past().await? else {
        outcome.complete = true;
        return Ok(());
    };
    loop {
        let (removed, more) = job.batch(turn.connection(), &past, retention).await?;
        outcome.removed += removed;
        outcome.complete = !more;
        if outcome.complete || began.elapsed() > RUN {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
}

/// The last run of each job; `None` of one that nobody has done yet.
pub async fn last_runs(database: &Database) -> Result<Vec<(Job, Option<storage::Run>)>, StorageError> {
    let mut runs = storage::runs(database).await?;
    let mut of = |job: Job| {
        let place = runs.iter().position(|run| run.name == job.as_str());
        (job, place.map(|place| runs.swap_remove(place)))
    };
    Ok(Job::ALL.into_iter().map(&mut of).collect())
}
