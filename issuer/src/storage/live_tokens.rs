//! How many tokens live, by the audit log: there is no other trace of them.

use countersign_shared::{AgentId, CredentialId, Jti, TenantId};
use time::OffsetDateTime;

use super::{Database, StorageError};
use crate::domain::audit::event_id;
use crate::domain::tenant::MAX_LIFETIME_SECONDS;

/// Events that are looked at, the newest first.
const MOST: i64 = 50_000;

/// Which tokens are counted; no member: all of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Of {
    /// The one with this id.
    pub jti: Option<Jti>,
    /// Those of this agent.
    pub agent: Option<AgentId>,
    /// Those obtained with this credential.
    pub credential: Option<CredentialId>,
    /// Those of this tenant.
    pub tenant: Option<TenantId>,
}

/// How many tokens live: that were issued, haven't expired and weren't taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// So many.
    pub count: u64,
    /// Or more: not all events were looked at.
    pub or_more: bool,
}

/// Counts them. At `now` as the events have it, by the issuers' clocks.
pub async fn count(database: &Database, of: Of, now: OffsetDateTime) -> Result<Live, StorageError> {
    let oldest = now - time::Duration::seconds(MAX_LIFETIME_SECONDS.into());
    let row = sqlx::query!(
        r#"with issued as (
               select * from (
                   select tenant_id, event_id, occurred_at, actor_agent_id, target_id, details from audit_events
                   where tenant_id = any(select tenant_id from tenants where $1::uuid is null or tenant_id = $1)
                   and ($2::uuid is null or actor_agent_id = $2) and ($3::text is null or target_id = $3)
                   and action = 'token.issued' and event_id >= $5 and recorded_at >= $6
                   union all
                   select tenant_id, event_id, occurred_at, actor_agent_id, target_id, details from audit_queue
                   where ($1::uuid is null or tenant_id = $1)
                   and ($2::uuid is null or actor_agent_id = $2) and ($3::text is null or target_id = $3)
                   and action = 'token.issued' and event_id >= $5
               ) as events
               order by event_id desc limit $8
           )
           select count(*) as "looked_at!", count(*) filter (where
               occurred_at + (details->>'expires_in')::bigint * interval '1 second' > $7
               and ($4::text is null or details->>'credential_id' = $4)
               and not exists (select from revocations where jti = target_id::uuid)
               and not exists (
                   select from not_before_rules r
                   where (r.level = 0
                          or r.level = 1 and r.subject = uuid_send(issued.tenant_id)
                          or r.level = 2 and r.subject = uuid_send(issued.actor_agent_id)
                          or r.level = 3 and r.subject = uuid_send((details->>'credential_id')::uuid))
                   and r.not_before >= floor(extract(epoch from occurred_at)))
           ) as "live!" from issued"#,
        of.tenant.map(|tenant| tenant.0),
        of.agent.map(|agent| agent.0),
        of.jti.map(|jti| jti.to_string()),
        of.credential.map(|credential| credential.to_string()),
        event_id(oldest, [0; 8]),
        oldest,
        now,
        MOST,
    )
    .fetch_one(&database.installation)
    .await?;
    Ok(Live { count: row.live.cast_unsigned(), or_more: row.looked_at >= MOST })
}

/// Whose credential it is.
pub async fn holder(database: &Database, credential: CredentialId) -> Result<Option<AgentId>, StorageError> {
    let agent =
        sqlx::query_scalar!("select agent_id from credentials where credential_id = $1", credential.0);
    Ok(agent.fetch_optional(&database.installation).await?.map(AgentId))
}
