//! What `countersign doctor` asks besides.

use time::OffsetDateTime;

use super::{Database, StorageError};

/// How the audit log is.
#[derive(Debug, Clone)]
pub struct Audit {
    /// The database's clock.
    pub now: OffsetDateTime,
    /// When the oldest event happened that isn't in a chain.
    pub oldest_queued: Option<OffsetDateTime>,
    /// How many weeks there are.
    pub weeks: u64,
    /// What they take on disk, with their indexes.
    pub bytes: u64,
    /// What the largest of them takes.
    pub largest_week: u64,
}

/// The database's clock.
pub async fn now(database: &Database) -> Result<OffsetDateTime, StorageError> {
    let now = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#);
    Ok(now.fetch_one(&database.installation).await?)
}

/// The base object in force, by its SHA-256.
pub async fn base(database: &Database) -> Result<Option<Vec<u8>>, StorageError> {
    let base = sqlx::query_scalar!("select base_sha256 from publisher_state");
    Ok(base.fetch_one(&database.installation).await?)
}

/// Looks at the audit log.
pub async fn audit(database: &Database) -> Result<Audit, StorageError> {
    let row = sqlx::query!(
        r#"select clock_timestamp() as "now!", (select occurred_at from audit_queue order by queue_id limit 1) as oldest_queued,
                  count(*) as "weeks!", coalesce(sum(bytes), 0)::bigint as "bytes!", coalesce(max(bytes), 0) as "largest!"
           from (select pg_total_relation_size(inhrelid) as bytes from pg_inherits where inhparent = 'audit_events'::regclass) as week"#
    )
    .fetch_one(&database.installation)
    .await?;
    Ok(Audit {
        now: row.now,
        oldest_queued: row.oldest_queued,
        weeks: row.weeks.cast_unsigned(),
        bytes: row.bytes.cast_unsigned(),
        largest_week: row.largest.cast_unsigned(),
    })
}
