//! The publisher's side of the database: leadership, `revocation_outbox`, `publisher_state`.
//!
//! Everything here runs on one connection of the leader's own. It holds the advisory lock, so when it breaks the lock is gone, and
//! with it every statement that an unseated leader might still try.

use std::time::Duration;

use countersign_shared::revocation::{Level, Rule};
use countersign_shared::{Coordinate, Serial, Shard, UnixTime};
use futures_util::TryStreamExt as _;
use sqlx::Acquire as _;
use sqlx::postgres::{PgConnection, PgListener};
use tokio::sync::mpsc;

use super::jobs::Past;
use super::{Database, StorageError, Transaction};

/// What wakes the leader.
pub const CHANNEL: &str = "countersign_outbox";
/// Rows sequenced in one transaction, at most.
pub const BATCH: usize = 10_000;
/// Rows that are handed on together when all are read.
const AT_ONCE: usize = 8192;
/// A statement that takes longer means that the connection is lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The same for those that may read all there is; for the first row of it.
pub(crate) const LONG_PATIENCE: Duration = Duration::from_secs(90);

/// A connection that wants to be the leader's, or is.
pub struct Leadership {
    pub(super) connection: PgListener,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub seq: u64,
    /// What is revoked.
    pub revoked: Revoked,
}

/// What an entry revokes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// The one token there.
    Token(Coordinate),
    /// All that the rule ends.
    UpTo(Rule),
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

    /// The database's time: all who lead in turn go by the same clock.
    pub async fn now(&mut self) -> Result<UnixTime, StorageError> {
        bounded(async {
            let now = sqlx::query_scalar!(
                r#"select floor(extract(epoch from clock_timestamp()))::bigint as "now!""#
            );
            Ok(UnixTime(now.fetch_one(&mut self.connection).await?))
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
            let rows = sqlx::query_as!(
                Row,
                r#"update revocation_outbox o set seq = $1 + fresh.place
                   from (
                       select outbox_id, row_number() over (order by outbox_id) as place
                       from revocation_outbox where seq is null
                       order by outbox_id limit $2
                   ) fresh
                   where o.outbox_id = fresh.outbox_id
                   returning o.seq as "seq!", o.shard, o.serial, o.rule_level, o.rule_subject, o.not_before"#,
                state.seq,
                i64::try_from(BATCH).unwrap_or(i64::MAX),
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
            let entries = rows.into_iter().map(Entry::try_from).collect::<Result<_, _>>()?;
            Ok((position(row.epoch, row.seq, row.base_seq, row.base_sha256)?, entries))
        })
        .await
    }

    /// Sequenced entries after `after`, up to and including `up_to`, whether or not they still matter.
    pub async fn entries(&mut self, after: u64, up_to: u64) -> Result<Vec<Entry>, StorageError> {
        let rows = sqlx::query_as!(
            Row,
            r#"select seq as "seq!", shard, serial, rule_level, rule_subject, not_before from revocation_outbox
               where seq > $1 and seq <= $2"#,
            after.cast_signed(),
            up_to.cast_signed(),
        )
        .fetch_all(&mut self.connection);
        let rows =
            tokio::time::timeout(LONG_PATIENCE, rows).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        rows.into_iter().map(Entry::try_from).collect()
    }

    /// Puts the base object `sha256`, of the entries up to `base_seq`, in force. That changes the head's content, so it takes a `seq`. From now on no other object is
    /// named by a new head.
    pub async fn set_base(&mut self, base_seq: u64, sha256: [u8; 32]) -> Result<Position, StorageError> {
        bounded(async {
            let row = sqlx::query!(
                "with superseded as (
                     update published_objects set superseded_at = now() where superseded_at is null and sha256 <> $2
                 )
                 update publisher_state set seq = seq + 1, base_seq = $1, base_sha256 = $2
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

/// Sends all sequenced entries up to `up_to` that still `matter` to `rows`, some thousands at a time and in no order, and returns the seq of the newest entry up to
/// there, whether or not it matters. It is a connection of its own that they come by: what has a seq doesn't change any more.
pub async fn each_that_matters(
    database: &Database,
    up_to: u64,
    matter: Cutoff,
    rows: mpsc::Sender<Vec<Entry>>,
) -> Result<u64, StorageError> {
    let pool = database.dedicated();
    let mut connection = pool.acquire().await?;
    // As many as there are, and no faster than they are taken. A connection that is lost is noticed below.
    sqlx::query!("set statement_timeout = 0").execute(&mut *connection).await?;
    let newest =
        sqlx::query_scalar!("select max(seq) from revocation_outbox where seq <= $1", up_to.cast_signed());
    let newest = newest.fetch_one(&mut *connection).await?.unwrap_or(0);
    let mut arriving = sqlx::query_as!(
        Row,
        r#"select seq as "seq!", shard, serial, rule_level, rule_subject, not_before from revocation_outbox
           where seq <= $1 and (shard >= $2 or not_before >= $3)"#,
        up_to.cast_signed(),
        matter.shard.get().cast_signed(),
        matter.not_before.0,
    )
    .fetch(&mut *connection);
    let mut entries = Vec::with_capacity(AT_ONCE);
    loop {
        let row = tokio::time::timeout(LONG_PATIENCE, arriving.try_next()).await;
        let row = row.map_err(|_| sqlx::Error::PoolTimedOut)??;
        let is_last = row.is_none();
        entries.extend(row.map(Entry::try_from).transpose()?);
        if (is_last || entries.len() == AT_ONCE)
            && rows.send(std::mem::replace(&mut entries, Vec::with_capacity(AT_ONCE))).await.is_err()
        {
            return Err(StorageError::Unavailable(sqlx::Error::WorkerCrashed));
        }
        if is_last {
            return Ok(newest.cast_unsigned());
        }
    }
}

/// Forgets up to `limit` entries that no longer matter to anybody; how many.
///
/// Those are entries of tokens and rules long past. What came after the base in force stays, whatever it is: heads carry it, and one position has one
/// content. So does the newest entry up to there, for a base has its seq in it (`each_that_matters`). One that never got a number can go: nobody was told of it,
/// and nobody need be any more.
pub async fn sweep(connection: &mut PgConnection, past: &Past, limit: i64) -> Result<u64, StorageError> {
    let swept = sqlx::query!(
        "with published as (
             select coalesce(base_seq, 0) as up_to,
                    (select max(seq) from revocation_outbox where seq <= coalesce(base_seq, 0)) as newest
             from publisher_state
         )
         delete from revocation_outbox where outbox_id = any(array(
             (select outbox_id from revocation_outbox, published
              where shard < $1 and (seq is null or seq <= up_to and seq <> newest)
              order by shard, seq limit $3 for update of revocation_outbox skip locked)
         ) || array(
             (select outbox_id from revocation_outbox, published
              where not_before < $2 and (seq is null or seq <= up_to and seq <> newest)
              order by not_before limit $3 for update of revocation_outbox skip locked)))",
        past.shard.get().cast_signed(),
        past.not_before.0,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(swept.rows_affected())
}

/// Raises the epoch, to `at_least` if that is higher, and returns it.
pub async fn raise_epoch(transaction: &mut Transaction, at_least: UnixTime) -> Result<u64, StorageError> {
    let epoch = sqlx::query_scalar!(
        "update publisher_state set epoch = greatest(epoch + 1, $1) returning epoch",
        at_least.0
    );
    Ok(epoch.fetch_one(&mut **transaction).await?.cast_unsigned())
}

pub(super) async fn bounded<T>(
    work: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, StorageError> {
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

/// Up to where entries no longer matter, because every token that they could end has expired.
#[derive(Debug, Clone, Copy)]
pub struct Cutoff {
    /// The oldest shard that does.
    pub shard: Shard,
    /// The earliest rule that does.
    pub not_before: UnixTime,
}

struct Row {
    seq: i64,
    shard: Option<i32>,
    serial: Option<i64>,
    rule_level: Option<i16>,
    rule_subject: Option<Vec<u8>>,
    not_before: Option<i64>,
}

impl TryFrom<Row> for Entry {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        let revoked = match (row.shard, row.serial, row.rule_level, row.rule_subject, row.not_before) {
            (Some(shard), Some(serial), None, None, None) => {
                let (shard, serial) =
                    (Shard::new(shard.cast_unsigned()), Serial::new(serial.cast_unsigned()));
                shard.zip(serial).map(|(shard, serial)| Revoked::Token(Coordinate { shard, serial }))
            }
            (None, None, Some(level), Some(subject), Some(not_before)) => {
                let level = u8::try_from(level).ok().and_then(Level::from_number);
                let rule = level.map(|level| Rule::new(level, subject, UnixTime(not_before)));
                rule.and_then(Result::ok).map(Revoked::UpTo)
            }
            _ => None,
        };
        let seq = row.seq;
        revoked.map(|revoked| Self { seq: seq.cast_unsigned(), revoked }).ok_or_else(|| StorageError::Row {
            table: "revocation_outbox",
            id: format!("with seq {seq}"),
            problem: "it is neither a serial nor a rule, or out of range".into(),
        })
    }
}
