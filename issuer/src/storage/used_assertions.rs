//! `used_assertions`: each assertion of a client counts once, on whichever replica.

use aws_lc_rs::digest::{SHA256, digest};
use countersign_shared::assertion::Assertion;
use countersign_shared::{TenantId, UnixTime};
use sqlx::postgres::PgConnection;
use tracing::Instrument as _;

use super::{Database, StorageError};
use crate::clock;
use crate::traces::step;

/// How much longer than it holds an assertion is remembered, in seconds: another replica's clock may be behind.
const MARGIN: i64 = 60;

/// Uses `assertion`; false where that was done before. One statement decides, so of two requests at once one is refused.
pub async fn take(
    database: &Database,
    tenant: TenantId,
    assertion: &Assertion,
    now: UnixTime,
) -> Result<bool, StorageError> {
    let jti_hash = digest(&SHA256, assertion.jti.as_bytes());
    let mut connection = database.connection().await?;
    let taken = sqlx::query!(
        "insert into used_assertions as u (agent_id, jti_hash, tenant_id, expires_at) values ($1, $2, $3, $4)
         on conflict (agent_id, jti_hash) do update set expires_at = excluded.expires_at where u.expires_at <= $5",
        assertion.client.0,
        jti_hash.as_ref(),
        tenant.0,
        clock::timestamp(assertion.expires_at.plus(MARGIN)),
        clock::timestamp(now),
    )
    .execute(&mut *connection)
    .instrument(step!("database statement", what = "assertion"))
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// Forgets up to `limit` of those that nobody could use any more; how many.
pub async fn sweep(connection: &mut PgConnection, now: UnixTime, limit: i64) -> Result<u64, StorageError> {
    let swept = sqlx::query!(
        "delete from used_assertions where (agent_id, jti_hash) in (
             select agent_id, jti_hash from used_assertions where expires_at <= $1
             order by expires_at limit $2 for update skip locked)",
        clock::timestamp(now),
        limit,
    )
    .execute(connection)
    .await?;
    Ok(swept.rows_affected())
}
