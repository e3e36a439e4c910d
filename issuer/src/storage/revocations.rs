//! `revocations`, and what else decides whether a token is alive.

use std::collections::HashSet;

use countersign_shared::verify::Revocation;
use countersign_shared::{AgentId, Claims, Coordinate, Jti, Shard, TenantId};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{Database, StorageError, Transaction, outbox};
use crate::domain::limit::TenantRates;

/// Revokes `jtis`, in ascending order and each once, and queues those that weren't revoked before for publication, in one statement; they are
/// what is returned. The publisher is woken when the transaction commits.
pub async fn insert(
    transaction: &mut Transaction,
    tenant: TenantId,
    by: Option<AgentId>,
    jtis: &[Jti],
) -> Result<HashSet<Jti>, StorageError> {
    if jtis.is_empty() {
        return Ok(HashSet::new());
    }
    let (mut ids, mut shards, mut serials) = (Vec::new(), Vec::new(), Vec::new());
    for jti in jtis {
        let Coordinate { shard, serial } = jti.coordinate();
        ids.push(jti.as_uuid());
        shards.push(shard.get().cast_signed());
        serials.push(serial.get().cast_signed());
    }
    let new = sqlx::query_scalar!(
        r#"with asked as (
               select * from unnest($1::uuid[], $2::integer[], $3::bigint[]) as asked (jti, shard, serial)
           ), revoked as (
               insert into revocations (jti, tenant_id, revoked_by) select jti, $4, $5 from asked
               on conflict do nothing returning jti
           ), queued as (
               insert into revocation_outbox (shard, serial) select shard, serial from asked join revoked using (jti) returning outbox_id
           ), woken as (
               select count(pg_notify($6, '')) from (select from queued limit 1) as first
           )
           select jti as "jti!" from revoked cross join woken"#,
        &ids,
        &shards,
        &serials,
        tenant.0,
        by.map(|agent| agent.0),
        outbox::CHANNEL,
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(new.into_iter().filter_map(Jti::from_uuid).collect())
}

/// What the database says about a token whose signature holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveState {
    /// Whether it was revoked, or ended by a not-before rule or the end of whom it belongs to.
    pub verdict: Revocation,
    /// Its tenant is the platform's.
    pub tenant_is_platform: bool,
    /// Its tenant's limits on requests.
    pub rates: TenantRates,
}

/// Looks up the state of the token with these claims.
pub async fn live_state(database: &Database, claims: &Claims) -> Result<LiveState, StorageError> {
    let row = sqlx::query!(
        r#"select exists (select from revocations where jti = $1) as "revoked!",
                  exists (
                      select from not_before_rules r
                      join (values (0::smallint, ''::bytea), (1, $5), (2, $6), (3, $7), (4, $8)) as of (level, subject) using (level, subject)
                      where r.not_before >= $9
                  ) as "superseded!",
                  exists (select from tenants where tenant_id = $4 and is_platform) as "tenant_is_platform!",
                  (select requests_per_minute from tenants where tenant_id = $4) as requests_per_minute,
                  (select client_requests_per_minute from tenants where tenant_id = $4) as client_requests_per_minute,
                  exists (
                      select from credentials c join agents a using (tenant_id, agent_id) join tenants t using (tenant_id)
                      where credential_id = $2 and agent_id = $3 and tenant_id = $4
                      and c.status = 'active' and a.status = 'active' and t.status = 'active'
                  ) as "holders_active!""#,
        claims.jti.as_uuid(),
        claims.credential.0,
        claims.subject.0,
        claims.tenant.0,
        claims.tenant.0.as_bytes().as_slice(),
        claims.subject.0.as_bytes().as_slice(),
        claims.credential.0.as_bytes().as_slice(),
        claims.key_id.as_bytes(),
        claims.issued_at.0,
    )
    .fetch_one(&database.installation)
    .await?;
    let verdict = if row.revoked {
        Revocation::Revoked
    } else if row.superseded || !row.holders_active {
        Revocation::Superseded
    } else {
        Revocation::Clear
    };
    let rates = TenantRates {
        tenant: row.requests_per_minute.map(i32::cast_unsigned),
        client: row.client_requests_per_minute.map(i32::cast_unsigned),
    };
    Ok(LiveState { verdict, tenant_is_platform: row.tenant_is_platform, rates })
}

/// Whether `agent` is what one of these resource servers of its tenant authenticates as.
pub async fn is_audience(
    database: &Database,
    tenant: TenantId,
    agent: AgentId,
    audience: &[String],
) -> Result<bool, StorageError> {
    let found = sqlx::query_scalar!(
        r#"select exists (
               select from resource_servers where tenant_id = $1 and agent_id = $2 and identifier = any($3)
           ) as "found!""#,
        tenant.0,
        agent.0,
        audience,
    );
    Ok(found.fetch_one(&database.installation).await?)
}

/// Forgets up to `limit` revocations of tokens that expired before `past`; how many. A jti begins with its shard (docs/reference/formats.md), so they are
/// those before the first that one of this shard can have.
pub async fn sweep(connection: &mut PgConnection, past: Shard, limit: i64) -> Result<u64, StorageError> {
    let first = Uuid::from_u128(u128::from(past.get()) << 104);
    let swept = sqlx::query!(
        "delete from revocations where jti = any(array(
             select jti from revocations where jti < $1 order by jti limit $2 for update skip locked))",
        first,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(swept.rows_affected())
}
