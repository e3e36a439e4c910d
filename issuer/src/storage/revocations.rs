//! `revocations`, and what else decides whether a token is alive.

use countersign_shared::{AgentId, Claims, Jti, TenantId};

use super::{Database, StorageError, Transaction, outbox};

/// What became of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// It is new, and in the outbox.
    Now,
    /// It was there.
    Before,
}

/// Revokes `jti` and queues that for publication, in one statement. The publisher is woken when the transaction commits.
pub async fn insert(
    transaction: &mut Transaction,
    tenant: TenantId,
    by: AgentId,
    jti: Jti,
) -> Result<Revoked, StorageError> {
    let coordinate = jti.coordinate();
    let new = sqlx::query_scalar!(
        r#"with revoked as (
               insert into revocations (jti, tenant_id, revoked_by) values ($1, $2, $3)
               on conflict do nothing returning jti
           ), queued as (
               insert into revocation_outbox (shard, serial) select $4, $5 from revoked returning outbox_id
           )
           select count(pg_notify($6, '')) > 0 as "new!" from queued"#,
        jti.as_uuid(),
        tenant.0,
        by.0,
        coordinate.shard.get().cast_signed(),
        coordinate.serial.get().cast_signed(),
        outbox::CHANNEL,
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok(if new { Revoked::Now } else { Revoked::Before })
}

/// What the database says about a token whose signature holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveState {
    /// Its jti was revoked.
    pub revoked: bool,
    /// Its agent, credential and tenant are active and belong together.
    pub holders_active: bool,
}

/// Looks up the state of the token with these claims.
pub async fn live_state(database: &Database, claims: &Claims) -> Result<LiveState, StorageError> {
    let row = sqlx::query!(
        r#"select exists (select from revocations where jti = $1) as "revoked!",
                  exists (
                      select from credentials c join agents a using (tenant_id, agent_id) join tenants t using (tenant_id)
                      where credential_id = $2 and agent_id = $3 and tenant_id = $4
                      and c.status = 'active' and a.status = 'active' and t.status = 'active'
                  ) as "holders_active!""#,
        claims.jti.as_uuid(),
        claims.credential.0,
        claims.subject.0,
        claims.tenant.0,
    )
    .fetch_one(&database.pool)
    .await?;
    Ok(LiveState { revoked: row.revoked, holders_active: row.holders_active })
}
