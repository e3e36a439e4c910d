//! `serial_shards`: up to where the serials of a shard were leased.

use countersign_shared::{Serial, Shard};

use super::{Database, StorageError};

/// Takes the next `count` serials of `shard` and returns the first; `None` when there aren't that many left. Nobody else gets them, not
/// even after a crash: they are then a gap.
pub async fn lease(database: &Database, shard: Shard, count: u64) -> Result<Option<u64>, StorageError> {
    let first = sqlx::query_scalar!(
        r#"insert into serial_shards as s (shard, next_serial) values ($1, $2)
           on conflict (shard) do update set next_serial = s.next_serial + $2 where s.next_serial + $2 <= $3
           returning next_serial - $2 as "first!""#,
        shard.get().cast_signed(),
        count.cast_signed(),
        Serial::LIMIT.cast_signed(),
    )
    .fetch_optional(&database.installation)
    .await?;
    Ok(first.map(i64::cast_unsigned))
}
