//! `idempotency_keys`: answers of creating requests, to be given again.

use countersign_shared::{AgentId, TenantId};

use sqlx::postgres::PgConnection;

use super::{StorageError, Transaction};

/// How long a request waits for another with the same key, in milliseconds.
pub(crate) const PATIENCE: &str = "2000";

/// What there is under a key.
pub enum Claim {
    /// Nothing: the key is now this transaction's.
    New,
    /// The sealed answer to an earlier request, and that request's fingerprint.
    Answered {
        /// SHA-256.
        fingerprint: Vec<u8>,
        /// Ciphertext.
        sealed: Vec<u8>,
    },
    /// Another request that isn't answered yet.
    Busy,
}

/// Takes the key for this transaction, unless somebody has it. What has expired doesn't count. Waits for a transaction that has taken it and is
/// still under way, but not for long; after [`Claim::Busy`] there is nothing more to be done in this one.
pub async fn claim(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent: AgentId,
    key: &str,
    fingerprint: &[u8],
) -> Result<Claim, StorageError> {
    let claimed = sqlx::query!(
        // The setting is made before the row is inserted, which is what waits.
        "insert into idempotency_keys as k (tenant_id, agent_id, key, fingerprint)
         select $1, $2, $3, $4 where set_config('lock_timeout', $5, true) is not null
         on conflict (tenant_id, agent_id, key) do update
         set fingerprint = excluded.fingerprint, sealed_answer = null, expires_at = excluded.expires_at
         where k.expires_at <= now()",
        tenant.0,
        agent.0,
        key,
        fingerprint,
        PATIENCE,
    )
    .execute(&mut **transaction)
    .await;
    match claimed {
        Ok(done) if done.rows_affected() == 1 => return Ok(Claim::New),
        Ok(_) => {}
        Err(error) if is_lock_timeout(&error) => return Ok(Claim::Busy),
        Err(error) => return Err(error.into()),
    }
    let row = sqlx::query!(
        "select fingerprint, sealed_answer from idempotency_keys where tenant_id = $1 and agent_id = $2 and key = $3",
        tenant.0,
        agent.0,
        key,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    // Gone between the two statements: it had expired, and the next attempt will find the place free.
    let answered = row.and_then(|row| Some((row.fingerprint, row.sealed_answer?)));
    Ok(answered.map_or(Claim::Busy, |(fingerprint, sealed)| Claim::Answered { fingerprint, sealed }))
}

/// Keeps the answer under a key that this transaction has claimed.
pub async fn complete(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent: AgentId,
    key: &str,
    sealed: &[u8],
) -> Result<(), StorageError> {
    sqlx::query!(
        "update idempotency_keys set sealed_answer = $4 where tenant_id = $1 and agent_id = $2 and key = $3",
        tenant.0,
        agent.0,
        key,
        sealed,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// PostgreSQL documentation, appendix A: `lock_not_available`.
fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("55P03"))
}

/// Forgets up to `limit` of the answers that are no longer given; how many.
pub async fn sweep(connection: &mut PgConnection, limit: i64) -> Result<u64, StorageError> {
    let swept = sqlx::query!(
        "delete from idempotency_keys where (tenant_id, agent_id, key) in (
             select tenant_id, agent_id, key from idempotency_keys where expires_at <= now()
             order by expires_at limit $1 for update skip locked)",
        limit,
    )
    .execute(connection)
    .await?;
    Ok(swept.rows_affected())
}
