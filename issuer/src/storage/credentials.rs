//! `credentials`, and the one query behind client authentication.

use countersign_shared::{AgentId, CredentialId, TenantId};
use time::OffsetDateTime;

use super::{Database, StorageError, Transaction};
use crate::domain::agent::{AgentStatus, AgentType};
use crate::domain::credential::{Credential, CredentialStatus};
use crate::domain::scope::Scopes;
use crate::domain::tenant::{ResourceServer, TenantStatus};

/// Adds a credential of which `secret_hash` is kept.
pub async fn insert(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent: AgentId,
    credential: CredentialId,
    secret_hash: &[u8],
    expires_at: Option<OffsetDateTime>,
) -> Result<Credential, StorageError> {
    let row = sqlx::query!(
        "insert into credentials (credential_id, tenant_id, agent_id, secret_hash, expires_at) values ($1, $2, $3, $4, $5)
         returning status, created_at, expires_at",
        credential.0,
        tenant.0,
        agent.0,
        secret_hash,
        expires_at,
    )
    .fetch_one(&mut **transaction)
    .await?;
    let status: CredentialStatus =
        row.status.parse().map_err(StorageError::row("credentials", credential))?;
    let (created_at, expires_at) = (row.created_at, row.expires_at);
    Ok(Credential { credential_id: credential, agent_id: agent, status, created_at, expires_at })
}

/// Everything about a client that its authentication and a token for it need.
pub struct Client {
    /// The agent.
    pub agent_id: AgentId,
    /// Its tenant.
    pub tenant_id: TenantId,
    /// What it does.
    pub agent_type: AgentType,
    /// Whether it may.
    pub status: AgentStatus,
    /// Whether its tenant may.
    pub tenant_status: TenantStatus,
    /// All it may ask for.
    pub scopes: Scopes,
    /// Its live credentials, with the hashes of their secrets.
    pub credentials: Vec<(CredentialId, Vec<u8>)>,
    /// The resource server that was asked for, if the tenant has it.
    pub resource_server: Option<ResourceServer>,
}

/// The client `agent`, its credentials that are live at `now`, and of its tenant's resource servers `resource` (without it: the default).
pub async fn find_client(
    database: &Database,
    agent: AgentId,
    resource: Option<&str>,
    now: OffsetDateTime,
) -> Result<Option<Client>, StorageError> {
    let row = sqlx::query!(
        // Aggregates make one row whether or not they find any. With outer joins, which columns sqlx takes to be nullable would depend
        // on the planner's mood.
        r#"select a.tenant_id, a.agent_type, a.status, a.scopes, t.status as tenant_status,
                  c.credential_ids, c.secret_hashes, r.identifier, r.token_lifetime_seconds
           from agents a
           join tenants t using (tenant_id)
           cross join lateral (
               select array_agg(credential_id) as credential_ids, array_agg(secret_hash) as secret_hashes
               from credentials
               where agent_id = a.agent_id and status = 'active' and (expires_at is null or expires_at > $3)
           ) c
           cross join lateral (
               select min(identifier) as identifier, min(token_lifetime_seconds) as token_lifetime_seconds
               from resource_servers
               where tenant_id = a.tenant_id and case when $2::text is null then is_default else identifier = $2 end
           ) r
           where a.agent_id = $1"#,
        agent.0,
        resource,
        now,
    )
    .fetch_optional(&database.pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let problem = StorageError::row("agents", agent);
    let ids = row.credential_ids.unwrap_or_default().into_iter().map(CredentialId);
    let resource_server = row.identifier.map(|identifier| ResourceServer {
        identifier,
        token_lifetime: row.token_lifetime_seconds.and_then(|seconds| seconds.try_into().ok()),
    });
    Ok(Some(Client {
        agent_id: agent,
        tenant_id: TenantId(row.tenant_id),
        agent_type: row.agent_type.parse().map_err(&problem)?,
        status: row.status.parse().map_err(&problem)?,
        tenant_status: row.tenant_status.parse().map_err(&problem)?,
        scopes: row.scopes.into_iter().collect(),
        credentials: ids.zip(row.secret_hashes.unwrap_or_default()).collect(),
        resource_server,
    }))
}
