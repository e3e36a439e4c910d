//! `serial_shards`: up to where the serials of a shard were leased.

use countersign_shared::{Serial, Shard, UnixTime};
use sqlx::postgres::PgConnection;
use tracing::Instrument as _;

use super::{Database, StorageError, Transaction, changes};
use crate::traces::step;

/// How it is announced ([`super::changes`]) that leases taken before don't count any more.
pub const CHANGED: &str = "serials";

/// Takes the next `count` serials of `shard` and returns the first; `None` when there aren't that many left. Nobody else gets them, not
/// even after a crash: they are then a gap.
pub async fn lease(database: &Database, shard: Shard, count: u64) -> Result<Option<u64>, StorageError> {
    let mut connection = database.connection().await?;
    let first = sqlx::query_scalar!(
        r#"insert into serial_shards as s (shard, next_serial) values ($1, $2)
           on conflict (shard) do update set next_serial = s.next_serial + $2 where s.next_serial + $2 <= $3
           returning next_serial - $2 as "first!""#,
        shard.get().cast_signed(),
        count.cast_signed(),
        Serial::LIMIT.cast_signed(),
    )
    .fetch_optional(&mut *connection)
    .instrument(step!("database statement", what = "serials"))
    .await?;
    Ok(first.map(i64::cast_unsigned))
}

/// How many serials [`skip`] leaves out: more than a shard is ever given, up to 37,000 tokens a second.
const SKIPPED: i64 = 1 << 27;

/// Goes on far beyond what is known to be leased, in the shards of every token that expires between `from` and `to`; whoever holds a lease gives it up. Status
/// lists say of all serials before that their tokens have ended: which of them there were isn't known any more.
pub async fn skip(transaction: &mut Transaction, from: UnixTime, to: UnixTime) -> Result<(), StorageError> {
    let shard = |time| Shard::of_expiry(time).map_or(0, |shard| shard.get().cast_signed());
    sqlx::query!(
        "insert into serial_shards as s (shard, next_serial, status_floor) select generate_series($1::integer, $2::integer), $3, $3
         on conflict (shard) do update set next_serial = least(s.next_serial + $3, $4), status_floor = least(s.next_serial + $3, $4)",
        shard(from),
        shard(to),
        SKIPPED,
        Serial::LIMIT.cast_signed(),
    )
    .execute(&mut **transaction)
    .await?;
    changes::announce(&mut **transaction, CHANGED, "").await
}

/// Forgets up to `limit` shards before `past`, for which no token is made any more; how many.
pub async fn sweep(connection: &mut PgConnection, past: Shard, limit: i64) -> Result<u64, StorageError> {
    let swept = sqlx::query!(
        "delete from serial_shards where shard = any(array(
             select shard from serial_shards where shard < $1 order by shard limit $2 for update skip locked))",
        past.get().cast_signed(),
        limit,
    )
    .execute(connection)
    .await?;
    Ok(swept.rows_affected())
}
