//! The publisher's side of the database: leadership, `revocation_outbox`, `publisher_state`.
//!
//! Everything here runs on one connection of the leader's own. It holds the advisory lock, so when it breaks the lock is gone, and
//! with it every statement that an unseated leader might still try.

use std::time::Duration;

use countersign_shared::{Coordinate, Serial, Shard};
use sqlx::Acquire as _;
use sqlx::postgres::PgListener;

use super::{Database, StorageError};

/// What wakes the leader.
pub const CHANNEL: &str = "countersign_outbox";
/// Rows sequenced in one transaction.
const BATCH: i64 = 20_000;
/// A statement that takes longer means that the connection is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for the one that may read all there is.
const LONG_PATIENCE: Duration = Duration::from_secs(90);

/// A connection that wants to be the leader's, or is.
pub struct Leadership {
    connection: PgListener,
}

/// Where publication stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Raised after a restore from backup.
    pub epoch: u64,
    /// Of the newest change.
    pub seq: u64,
    /// Of the base object in force, with its digest.
    pub base: Option<(u64, [u8; 32])>,
}

/// A revocation with its place in the order of publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub seq: u64,
    /// What is revoked.
    pub coordinate: Coordinate,
}

impl Leadership {
    /// Connects, and listens for what is queued.
    pub async fn open(database: &Database) -> Result<Self, StorageError> {
        bounded(async {
            let mut connection = PgListener::connect_with(&database.dedicated()).await?;
            connection.eager_reconnect(false); // a new connection would be without the lock
            connection.listen(CHANNEL).await?;
            Ok(Self { connection })
        })
        .await
    }

    /// Whether this process is the leader now. Ask again later if not.
    pub async fn acquire(&mut self) -> Result<bool, StorageError> {
        let acquired = sqlx::query_scalar!(
            r#"select pg_try_advisory_lock(hashtextextended('countersign publisher', 0)) as "acquired!""#
        );
        bounded(async { Ok(acquired.fetch_one(&mut self.connection).await?) }).await
    }

    /// Returns when something was queued. An error means that the connection, and so the lock, is gone.
    pub async fn woken(&mut self) -> Result<(), StorageError> {
        match self.connection.try_recv().await? {
            Some(_) => Ok(()),
            None => Err(StorageError::Unavailable(sqlx::Error::WorkerCrashed)),
        }
    }

    /// Forgets the notifications that came so far: what they announced is about to be read.
    pub fn drain(&mut self) {
        while self.connection.next_buffered().is_some() {}
    }

    /// Where publication stands.
    pub async fn position(&mut self) -> Result<Position, StorageError> {
        bounded(async {
            let row = sqlx::query!("select epoch, seq, base_seq, base_sha256 from publisher_state")
                .fetch_one(&mut self.connection)
                .await?;
            position(row.epoch, row.seq, row.base_seq, row.base_sha256)
        })
        .await
    }

    /// Gives committed rows that have none their `seq`, in one transaction, and returns them with the position after them. A row that is
    /// committed later gets a later `seq`, whenever its transaction began: nothing is skipped.
    pub async fn sequence(&mut self) -> Result<(Position, Vec<Entry>), StorageError> {
        bounded(async {
            let waiting = sqlx::query_scalar!(
                r#"select exists (select from revocation_outbox where seq is null) as "waiting!""#
            );
            if !waiting.fetch_one(&mut self.connection).await? {
                let row = sqlx::query!("select epoch, seq, base_seq, base_sha256 from publisher_state")
                    .fetch_one(&mut self.connection)
                    .await?;
                return Ok((position(row.epoch, row.seq, row.base_seq, row.base_sha256)?, Vec::new()));
            }

            let mut transaction = self.connection.begin().await?;
            let state = sqlx::query!("select seq from publisher_state for update")
                .fetch_one(&mut *transaction)
                .await?;
            let rows = sqlx::query!(
                r#"update revocation_outbox o set seq = $1 + fresh.place
                   from (
                       select outbox_id, row_number() over (order by outbox_id) as place
                       from revocation_outbox where seq is null
                       order by outbox_id limit $2
                   ) fresh
                   where o.outbox_id = fresh.outbox_id
                   returning o.seq as "seq!", o.shard, o.serial"#,
                state.seq,
                BATCH,
            )
            .fetch_all(&mut *transaction)
            .await?;
            let newest = rows.iter().map(|row| row.seq).max().unwrap_or(state.seq);
            let row = sqlx::query!(
                "update publisher_state set seq = $1 returning epoch, seq, base_seq, base_sha256",
                newest
            )
            .fetch_one(&mut *transaction)
            .await?;
            transaction.commit().await?;
            let entries = rows
                .into_iter()
                .map(|row| entry(row.seq, row.shard, row.serial))
                .collect::<Result<_, _>>()?;
            Ok((position(row.epoch, row.seq, row.base_seq, row.base_sha256)?, entries))
        })
        .await
    }

    /// Sequenced entries after `after`, up to and including `up_to`, of all shards or those from `oldest` on.
    pub async fn entries(
        &mut self,
        after: u64,
        up_to: u64,
        oldest: Option<Shard>,
    ) -> Result<Vec<Entry>, StorageError> {
        let rows = sqlx::query!(
            r#"select seq as "seq!", shard, serial from revocation_outbox where seq > $1 and seq <= $2 and shard >= $3"#,
            after.cast_signed(),
            up_to.cast_signed(),
            oldest.map_or(0, |shard| shard.get().cast_signed()),
        )
        .fetch_all(&mut self.connection);
        let rows =
            tokio::time::timeout(LONG_PATIENCE, rows).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        rows.into_iter().map(|row| entry(row.seq, row.shard, row.serial)).collect()
    }

    /// Puts the base object `sha256`, of the entries up to `base_seq`, in force. That changes the head's content, so it takes a `seq`.
    pub async fn set_base(&mut self, base_seq: u64, sha256: [u8; 32]) -> Result<Position, StorageError> {
        bounded(async {
            let row = sqlx::query!(
                "update publisher_state set seq = seq + 1, base_seq = $1, base_sha256 = $2
                 returning epoch, seq, base_seq, base_sha256",
                base_seq.cast_signed(),
                sha256.as_slice(),
            )
            .fetch_one(&mut self.connection)
            .await?;
            position(row.epoch, row.seq, row.base_seq, row.base_sha256)
        })
        .await
    }
}

async fn bounded<T>(work: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
    let outcome = tokio::time::timeout(PATIENCE, work).await;
    outcome.unwrap_or(Err(StorageError::Unavailable(sqlx::Error::PoolTimedOut)))
}

fn position(
    epoch: i64,
    seq: i64,
    base_seq: Option<i64>,
    base_sha256: Option<Vec<u8>>,
) -> Result<Position, StorageError> {
    let base = match (base_seq, base_sha256.map(TryInto::try_into)) {
        (None, None) => None,
        (Some(seq), Some(Ok(sha256))) => Some((seq.cast_unsigned(), sha256)),
        _ => {
            let problem = "base_seq and base_sha256 don't go together".to_owned();
            return Err(StorageError::Row { table: "publisher_state", id: "true".into(), problem });
        }
    };
    Ok(Position { epoch: epoch.cast_unsigned(), seq: seq.cast_unsigned(), base })
}

fn entry(seq: i64, shard: i32, serial: i64) -> Result<Entry, StorageError> {
    match (Shard::new(shard.cast_unsigned()), Serial::new(serial.cast_unsigned())) {
        (Some(shard), Some(serial)) => {
            Ok(Entry { seq: seq.cast_unsigned(), coordinate: Coordinate { shard, serial } })
        }
        _ => Err(StorageError::Row {
            table: "revocation_outbox",
            id: format!("with seq {seq}"),
            problem: "its coordinate is out of range".into(),
        }),
    }
}
