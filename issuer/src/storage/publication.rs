//! `published_objects`: what lies in which store. `publisher_report`: how publishing goes.

use countersign_shared::Coordinate;
use countersign_shared::revocation::Level;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::outbox::{Leadership, bounded};
use super::{Database, StorageError};
use crate::domain::publication::Report;

impl Leadership {
    /// Remembers that the object lies in the store `place`, or will in a moment.
    pub async fn remember_object(&mut self, place: &str, sha256: [u8; 32]) -> Result<(), StorageError> {
        bounded(async {
            sqlx::query!(
                "insert into published_objects (place, sha256) values ($1, $2)
                 on conflict (place, sha256) do update set superseded_at = null",
                place,
                sha256.as_slice(),
            )
            .execute(&mut self.connection)
            .await?;
            Ok(())
        })
        .await
    }

    /// Up to `limit` objects in `place` that no head has named for `seconds`, those longest ago first. Never the one in force.
    pub async fn objects_due(
        &mut self,
        place: &str,
        seconds: u64,
        limit: usize,
    ) -> Result<Vec<[u8; 32]>, StorageError> {
        bounded(async {
            let rows = sqlx::query_scalar!(
                "select sha256 from published_objects
                 where place = $1 and superseded_at < now() - $2 * interval '1 second'
                 and sha256 is distinct from (select base_sha256 from publisher_state)
                 order by superseded_at limit $3",
                place,
                f64::from(u32::try_from(seconds).unwrap_or(u32::MAX)),
                i64::try_from(limit).unwrap_or(i64::MAX),
            )
            .fetch_all(&mut self.connection)
            .await?;
            rows.into_iter()
                .map(|sha256| {
                    sha256.try_into().map_err(|_| StorageError::Row {
                        table: "published_objects",
                        id: place.to_owned(),
                        problem: "sha256 has not 32 bytes".into(),
                    })
                })
                .collect()
        })
        .await
    }

    /// Forgets objects that are gone from `place`.
    pub async fn forget_objects(&mut self, place: &str, gone: &[[u8; 32]]) -> Result<(), StorageError> {
        let gone: Vec<&[u8]> = gone.iter().map(<[u8; 32]>::as_slice).collect();
        bounded(async {
            sqlx::query!(
                "delete from published_objects where place = $1 and sha256 = any($2)",
                place,
                &gone as _,
            )
            .execute(&mut self.connection)
            .await?;
            Ok(())
        })
        .await
    }
}

/// Says how publishing goes. `acknowledged`: the listeners have been sent more than when it was said last. A crash may lose it: nobody waits for the disk.
pub async fn say(database: &Database, report: &Report, acknowledged: bool) -> Result<(), StorageError> {
    bounded(async {
        let mut transaction = database.installation.begin().await?;
        sqlx::query!("set local synchronous_commit = off").execute(&mut *transaction).await?;
        sqlx::query!(
            "update publisher_report set reported_at = clock_timestamp(), report = $1,
                 acknowledged_at = case when $2 then clock_timestamp() else acknowledged_at end",
            Json(report) as _,
            acknowledged,
        )
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    })
    .await
}

/// How publishing goes, as far as the database knows. Times are by its clock.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Now.
    pub now: OffsetDateTime,
    /// What the leader said last and when; `None` where none ever did.
    pub said: Option<(OffsetDateTime, Report)>,
    /// When every listener had been sent what the report says.
    pub acknowledged_at: Option<OffsetDateTime>,
    /// Changes that nobody has taken up yet, counted up to [`MAX_WAITING`].
    pub waiting: u64,
    /// Since when the oldest of them waits.
    pub waiting_since: Option<OffsetDateTime>,
}

/// Waiting changes are counted up to here.
pub const MAX_WAITING: u64 = 100_000;

/// Looks it up.
pub async fn find(database: &Database) -> Result<Publication, StorageError> {
    let row = sqlx::query!(
        r#"select clock_timestamp() as "now!", reported_at, report as "report: Json<Report>", acknowledged_at,
                  waiting.count as "waiting!", waiting.since
           from publisher_report,
                (select count(*), min(queued_at) as since
                 from (select queued_at from revocation_outbox where seq is null limit $1) as unnumbered) as waiting"#,
        MAX_WAITING.cast_signed(),
    )
    .fetch_one(&database.installation)
    .await?;
    Ok(Publication {
        now: row.now,
        said: row.reported_at.zip(row.report.map(|report| report.0)),
        acknowledged_at: row.acknowledged_at,
        waiting: row.waiting.cast_unsigned(),
        waiting_since: row.since,
    })
}

/// A change that was queued.
#[derive(Debug, Clone, Copy)]
pub struct Queued {
    /// By which to ask for it again.
    pub outbox_id: i64,
    /// Its place in the order; `None` while nobody has taken it up.
    pub seq: Option<u64>,
}

/// The entry that revokes the token there.
pub async fn queued_token(database: &Database, token: Coordinate) -> Result<Option<Queued>, StorageError> {
    let row = sqlx::query!(
        "select outbox_id, seq from revocation_outbox where shard = $1 and serial = $2 order by outbox_id limit 1",
        token.shard.get().cast_signed(),
        token.serial.get().cast_signed(),
    )
    .fetch_optional(&database.installation)
    .await?;
    Ok(row.map(|row| Queued { outbox_id: row.outbox_id, seq: row.seq.map(i64::cast_unsigned) }))
}

/// The first entry that ends the subject's tokens up to `not_before`, at least.
pub async fn queued_rule(
    database: &Database,
    level: Level,
    subject: &[u8],
    not_before: i64,
) -> Result<Option<Queued>, StorageError> {
    let row = sqlx::query!(
        "select outbox_id, seq from revocation_outbox
         where not_before >= $1 and rule_level = $2 and rule_subject = $3 order by outbox_id limit 1",
        not_before,
        i16::from(level as u8),
        subject,
    )
    .fetch_optional(&database.installation)
    .await?;
    Ok(row.map(|row| Queued { outbox_id: row.outbox_id, seq: row.seq.map(i64::cast_unsigned) }))
}

/// The place in the order of the entry with this id.
pub async fn seq_of(database: &Database, outbox_id: i64) -> Result<Option<u64>, StorageError> {
    let seq = sqlx::query_scalar!("select seq from revocation_outbox where outbox_id = $1", outbox_id);
    Ok(seq.fetch_optional(&database.installation).await?.flatten().map(i64::cast_unsigned))
}
