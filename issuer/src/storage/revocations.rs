//! `revocations`, and what else decides whether a token is alive.

use std::collections::HashSet;

use countersign_shared::verify::Revocation;
use countersign_shared::{AgentId, Claims, Coordinate, CredentialId, Jti, Shard, TenantId, UnixTime};
use sqlx::postgres::PgConnection;
use tracing::Instrument as _;
use uuid::Uuid;

use super::{Database, StorageError, Transaction, outbox};
use crate::domain::limit::TenantRates;
use crate::traces::step;

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

/// What it takes to look up a token's state.
#[derive(Debug, Clone)]
pub struct Subject {
    jti: Jti,
    credential: CredentialId,
    agent: AgentId,
    tenant: TenantId,
    kid: String,
    issued_at: UnixTime,
}

impl From<&Claims> for Subject {
    fn from(claims: &Claims) -> Self {
        Self {
            jti: claims.jti,
            credential: claims.credential,
            agent: claims.subject,
            tenant: claims.tenant,
            kid: claims.key_id.clone(),
            issued_at: claims.issued_at,
        }
    }
}

/// Looks up the states of tokens, in their order.
pub async fn live_states(database: &Database, tokens: &[Subject]) -> Result<Vec<LiveState>, StorageError> {
    fn column<T>(tokens: &[Subject], of: impl Fn(&Subject) -> T) -> Vec<T> {
        tokens.iter().map(of).collect()
    }
    // Row by row and by primary keys, whatever the planner thinks of the tables' sizes: `offset 0` and scalar subqueries keep it from reading all of one.
    let rows = sqlx::query!(
        r#"select (select true from revocations r where r.jti = token.jti) is not null as "revoked!",
                  coalesce(greatest(
                      (select r.not_before from not_before_rules r where r.level = 0 and r.subject = ''),
                      (select r.not_before from not_before_rules r where r.level = 1 and r.subject = uuid_send(token.tenant_id)),
                      (select r.not_before from not_before_rules r where r.level = 2 and r.subject = uuid_send(token.agent_id)),
                      (select r.not_before from not_before_rules r where r.level = 3 and r.subject = uuid_send(token.credential_id)),
                      (select r.not_before from not_before_rules r where r.level = 4 and r.subject = token.kid)
                  ) >= token.issued_at, false) as "superseded!",
                  coalesce(tenant.is_platform, false) as "tenant_is_platform!",
                  tenant.requests_per_minute as "requests_per_minute?",
                  tenant.client_requests_per_minute as "client_requests_per_minute?",
                  coalesce(tenant.status = 'active', false)
                      and coalesce((select a.status = 'active' from agents a where a.tenant_id = token.tenant_id and a.agent_id = token.agent_id), false)
                      and coalesce((
                          select c.status = 'active' from credentials c
                          where c.tenant_id = token.tenant_id and c.agent_id = token.agent_id and c.credential_id = token.credential_id
                      ), false) as "holders_active!"
           from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bytea[], $6::bigint[]) with ordinality
                as token (jti, credential_id, agent_id, tenant_id, kid, issued_at, place)
           left join lateral (
               select t.is_platform, t.status, t.requests_per_minute, t.client_requests_per_minute
               from tenants t where t.tenant_id = token.tenant_id offset 0
           ) tenant on true
           order by place"#,
        &column(tokens, |token| token.jti.as_uuid()),
        &column(tokens, |token| token.credential.0),
        &column(tokens, |token| token.agent.0),
        &column(tokens, |token| token.tenant.0),
        &column(tokens, |token| token.kid.as_bytes().to_vec()),
        &column(tokens, |token| token.issued_at.0),
    )
    .fetch_all(&database.installation)
    .instrument(step!("database statement", what = "tokens' states"))
    .await?;
    let states = rows.into_iter().map(|row| {
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
        LiveState { verdict, tenant_is_platform: row.tenant_is_platform, rates }
    });
    Ok(states.collect())
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
