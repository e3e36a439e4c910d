//! `job_runs`: whose turn a job is, and what came of it. The statements by which it does its work are with the tables that it cleans.

use std::time::Duration;

use countersign_shared::{Shard, UnixTime};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Postgres};
use time::OffsetDateTime;

use super::{Database, StorageError};
use crate::clock::{self, SLOW_CLOCKS};
use crate::domain::tenant::MAX_LIFETIME_SECONDS;

/// How much longer than it matters something is kept, in seconds: whoever reads by a cutoff of a moment ago has time to come to an end.
const MARGIN: i64 = 2 * Shard::SECONDS;
/// How long a statement of a job may take, which takes milliseconds, in milliseconds.
pub(crate) const PATIENCE: &str = "10000";
/// And how long it waits for a lock, before it gets out of the way.
pub(crate) const LOCK_PATIENCE: &str = "2000";
/// The longest text of a failure, in characters.
const LONGEST_FAILURE: usize = 500;

/// A job that is this process's to do: nobody else does it meanwhile. The lock is the connection's, and all that is done under it goes by that
/// connection: when it breaks neither goes on.
pub struct Turn {
    connection: PoolConnection<Postgres>,
    pool: PgPool,
    name: &'static str,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// So much is gone.
    pub removed: u64,
    /// Nothing is left to do.
    pub complete: bool,
    /// Why it ended before it was done.
    pub failure: Option<String>,
}

/// What is long past.
#[derive(Debug, Clone, Copy)]
pub struct Past {
    /// Every token of the shards before this one has expired.
    pub shard: Shard,
    /// Rules before this end no token that hasn't expired.
    pub not_before: UnixTime,
    /// The present.
    pub now: UnixTime,
}

impl Past {
    /// As of `now`; `None` outside the years that have shards.
    pub fn of(now: UnixTime) -> Option<Self> {
        let expired = now.plus(-SLOW_CLOCKS - MARGIN);
        let not_before = expired.plus(-i64::from(MAX_LIFETIME_SECONDS));
        Some(Self { shard: Shard::of_expiry(expired)?, not_before, now })
    }
}

/// The last run of a job.
#[derive(Debug, Clone)]
pub struct Run {
    /// Whose.
    pub name: String,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// When it ended; `None`: it hasn't, or its process died.
    pub finished_at: Option<OffsetDateTime>,
    /// What it removed.
    pub removed: u64,
    /// Nothing was left to do.
    pub complete: bool,
    /// Why it ended before it was done.
    pub failure: Option<String>,
    /// When it is due again.
    pub next_at: OffsetDateTime,
    /// Somebody is at it.
    pub running: bool,
}

impl Turn {
    /// Takes the job, if nobody has it. `only_if_due`: and if it is time for it.
    pub async fn take(
        database: &Database,
        name: &'static str,
        only_if_due: bool,
    ) -> Result<Option<Self>, StorageError> {
        let pool = database.dedicated();
        let mut connection = pool.acquire().await?;
        let settings = format!("set statement_timeout = {PATIENCE}; set lock_timeout = {LOCK_PATIENCE}");
        sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *connection).await?;
        let taken = sqlx::query_scalar!(
            r#"select pg_try_advisory_lock(hashtextextended('countersign job ' || $1, 0)) as "taken!""#,
            name,
        );
        if !taken.fetch_one(&mut *connection).await? {
            return Ok(None);
        }
        // Looked at under the lock: who had it may have done it just now.
        let begun = sqlx::query!(
            "insert into job_runs as j (name, started_at, next_at) values ($1, clock_timestamp(), clock_timestamp())
             on conflict (name) do update
             set started_at = excluded.started_at, finished_at = null, removed = 0, complete = false, failure = null
             where not $2 or j.next_at <= excluded.next_at",
            name,
            only_if_due,
        )
        .execute(&mut *connection)
        .await?;
        let turn = Self { connection, pool, name };
        if begun.rows_affected() == 1 {
            return Ok(Some(turn));
        }
        turn.end().await;
        Ok(None)
    }

    /// The connection that the work is done on.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// What is long past: by the database's clock or this process's, whichever is behind. One that is wrong keeps too much, and takes nothing too soon.
    pub async fn past(&mut self) -> Result<Option<Past>, StorageError> {
        let theirs =
            sqlx::query_scalar!(r#"select floor(extract(epoch from clock_timestamp()))::bigint as "now!""#);
        let theirs = UnixTime(theirs.fetch_one(&mut *self.connection).await?);
        Ok(Past::of(theirs.min(clock::now())))
    }

    /// Writes down what came of it, and that it is due again `again` from now.
    pub async fn finish(mut self, outcome: &Outcome, again: Duration) -> Result<(), StorageError> {
        let failure =
            outcome.failure.as_ref().map(|text| text.chars().take(LONGEST_FAILURE).collect::<String>());
        sqlx::query!(
            "update job_runs set finished_at = clock_timestamp(), removed = $2, complete = $3, failure = $4,
                 next_at = clock_timestamp() + $5 * interval '1 second'
             where name = $1",
            self.name,
            outcome.removed.cast_signed(),
            outcome.complete,
            failure,
            again.as_secs_f64(),
        )
        .execute(&mut *self.connection)
        .await?;
        self.end().await;
        Ok(())
    }

    /// Lets go of it at once.
    async fn end(self) {
        drop(self.connection);
        self.pool.close().await;
    }
}

/// Those of `names` that it is time for.
pub async fn due(database: &Database, names: &[&str]) -> Result<Vec<String>, StorageError> {
    let due = sqlx::query_scalar!(
        r#"select name as "name!" from unnest($1::text[]) with ordinality as job (name, place)
           left join job_runs j using (name)
           where j.next_at is null or j.next_at <= clock_timestamp()
           order by j.next_at nulls first, place"#,
        names as &[&str],
    );
    Ok(due.fetch_all(&database.installation).await?)
}

/// The last run of each job that ever ran.
pub async fn runs(database: &Database) -> Result<Vec<Run>, StorageError> {
    let rows = sqlx::query!(
        // PostgreSQL documentation, `pg_locks`: a lock by a 64-bit number has its halves in two columns, and 1 in the third.
        r#"select name, started_at, finished_at, removed, complete, failure, next_at, exists (
               select from pg_locks
               where locktype = 'advisory' and objsubid = 1 and granted
               and database = (select oid from pg_database where datname = current_database())
               and (classid::bigint << 32) | objid::bigint = hashtextextended('countersign job ' || name, 0)
           ) as "running!"
           from job_runs"#
    )
    .fetch_all(&database.installation)
    .await?;
    let run = rows.into_iter().map(|row| Run {
        name: row.name,
        started_at: row.started_at,
        finished_at: row.finished_at,
        removed: row.removed.cast_unsigned(),
        complete: row.complete,
        failure: row.failure,
        next_at: row.next_at,
        running: row.running,
    });
    Ok(run.collect())
}
