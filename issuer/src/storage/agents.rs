//! `agents`.

use std::collections::BTreeMap;

use countersign_shared::{AgentId, TenantId};
use sqlx::types::Json;
use sqlx::{FromRow, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StorageError, Transaction};
use crate::domain::agent::{Agent, AgentFilter, AgentStatus, AgentType, DeploymentEnv, NewAgent};
use crate::domain::page::{Listed, Page, Position};

/// What became of a new or changed agent.
pub enum Written {
    /// It is there.
    Written(Box<Agent>),
    /// Its email is taken in the tenant.
    EmailTaken,
}

/// Registers `profile` under `agent_id`.
pub async fn insert(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent_id: AgentId,
    profile: &NewAgent,
) -> Result<Written, StorageError> {
    let scopes: Vec<String> = profile.scopes.iter().map(str::to_owned).collect();
    let inserted = sqlx::query_as!(
        Row,
        r#"insert into agents (agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes, metadata)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
           returning agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes,
                     metadata as "metadata: Json<BTreeMap<String, String>>", status, created_at, updated_at, revision"#,
        agent_id.0,
        tenant.0,
        profile.email,
        profile.agent_type.as_str(),
        profile.version,
        &profile.capabilities,
        profile.owner,
        profile.deployment_env.as_str(),
        &scopes,
        Json(&profile.metadata) as _,
    )
    .fetch_one(&mut **transaction)
    .await;
    written(inserted)
}

/// Gives the agent this profile, if it is still in this revision: `None` if it isn't.
pub async fn update(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent: AgentId,
    revision: i64,
    profile: &NewAgent,
) -> Result<Option<Written>, StorageError> {
    let scopes: Vec<String> = profile.scopes.iter().map(str::to_owned).collect();
    let updated = sqlx::query_as!(
        Row,
        r#"update agents
           set email = $4, agent_type = $5, version = $6, capabilities = $7, owner = $8, deployment_env = $9, scopes = $10, metadata = $11,
               updated_at = now(), revision = revision + 1
           where tenant_id = $1 and agent_id = $2 and revision = $3 and status <> 'decommissioned'
           returning agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes,
                     metadata as "metadata: Json<BTreeMap<String, String>>", status, created_at, updated_at, revision"#,
        tenant.0,
        agent.0,
        revision,
        profile.email,
        profile.agent_type.as_str(),
        profile.version,
        &profile.capabilities,
        profile.owner,
        profile.deployment_env.as_str(),
        &scopes,
        Json(&profile.metadata) as _,
    )
    .fetch_optional(&mut **transaction)
    .await;
    updated.transpose().map(written).transpose()
}

/// Gives the agent this status, if it is still in this revision: `None` if it isn't.
pub async fn update_status(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent: AgentId,
    revision: i64,
    status: AgentStatus,
) -> Result<Option<Agent>, StorageError> {
    let row = sqlx::query_as!(
        Row,
        r#"update agents set status = $4, updated_at = now(), revision = revision + 1
           where tenant_id = $1 and agent_id = $2 and revision = $3 and status <> 'decommissioned'
           returning agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes,
                     metadata as "metadata: Json<BTreeMap<String, String>>", status, created_at, updated_at, revision"#,
        tenant.0,
        agent.0,
        revision,
        status.as_str(),
    )
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(TryInto::try_into).transpose()
}

fn written(row: Result<Row, sqlx::Error>) -> Result<Written, StorageError> {
    match row {
        Ok(row) => Ok(Written::Written(Box::new(row.try_into()?))),
        Err(error) if StorageError::violated(&error) == Some("agents_email") => Ok(Written::EmailTaken),
        Err(error) => Err(error.into()),
    }
}

/// The agent, if it is the tenant's.
pub async fn find(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent: AgentId,
) -> Result<Option<Agent>, StorageError> {
    let row = sqlx::query_as!(
        Row,
        r#"select agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes,
                  metadata as "metadata: Json<BTreeMap<String, String>>", status, created_at, updated_at, revision
           from agents where tenant_id = $1 and agent_id = $2"#,
        tenant.0,
        agent.0,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// The agent, if it is the tenant's; until the transaction ends nobody changes it.
pub async fn find_locked(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent: AgentId,
) -> Result<Option<Agent>, StorageError> {
    let row = sqlx::query_as!(
        Row,
        r#"select agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes,
                  metadata as "metadata: Json<BTreeMap<String, String>>", status, created_at, updated_at, revision
           from agents where tenant_id = $1 and agent_id = $2 for share"#,
        tenant.0,
        agent.0,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// The same for who is going to change it: until the transaction ends nobody else does, nor takes it for granted.
pub async fn find_for_change(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent: AgentId,
) -> Result<Option<Agent>, StorageError> {
    let row = sqlx::query_as!(
        Row,
        r#"select agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes,
                  metadata as "metadata: Json<BTreeMap<String, String>>", status, created_at, updated_at, revision
           from agents where tenant_id = $1 and agent_id = $2 for no key update"#,
        tenant.0,
        agent.0,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// Whether the tenant has `limit` agents or more that aren't decommissioned.
pub async fn has_as_many(
    transaction: &mut Transaction,
    tenant: TenantId,
    limit: i32,
) -> Result<bool, StorageError> {
    let found = sqlx::query_scalar!(
        r#"select count(*) >= $2::integer as "reached!" from
           (select from agents where tenant_id = $1 and status in ('active', 'suspended') limit $2::integer) as alive"#,
        tenant.0,
        limit,
    );
    Ok(found.fetch_one(&mut **transaction).await?)
}

/// A page of the tenant's agents, by when they were registered.
pub async fn list(
    transaction: &mut Transaction,
    tenant: TenantId,
    filter: &AgentFilter,
    page: &Page,
) -> Result<Listed<Agent>, StorageError> {
    // Not `query!`: each combination of filters is a statement of its own, so that each has a plan of its own. With `$2 is null or owner = $2`
    // the one plan for all of them couldn't use an index.
    let mut query = QueryBuilder::new(
        "select agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes, metadata, status,
                created_at, updated_at, revision
         from agents where tenant_id = ",
    );
    query.push_bind(tenant.0);
    if let Some(email) = &filter.email {
        query.push(" and email_folded = lower(").push_bind(email).push(")");
    }
    for (column, value) in [
        (" and agent_type = ", filter.agent_type.map(AgentType::as_str)),
        (" and deployment_env = ", filter.deployment_env.map(DeploymentEnv::as_str)),
        (" and status = ", filter.status.map(AgentStatus::as_str)),
        (" and owner = ", filter.owner.as_deref()),
    ] {
        if let Some(value) = value {
            query.push(column).push_bind(value);
        }
    }
    if let Some(after) = page.after {
        query.push(" and (created_at, agent_id) > (").push_bind(after.at).push(", ");
        query.push_bind(after.id).push(")");
    }
    query.push(" order by created_at, agent_id limit ").push_bind(page.rows());
    let rows: Vec<Row> = query.build_query_as().fetch_all(&mut **transaction).await?;
    let agents = rows.into_iter().map(Agent::try_from).collect::<Result<Vec<Agent>, _>>()?;
    Ok(page.cut(agents, |agent| Position { at: agent.created_at, id: agent.agent_id.0 }))
}

#[derive(FromRow)]
struct Row {
    agent_id: Uuid,
    tenant_id: Uuid,
    email: String,
    agent_type: String,
    version: String,
    capabilities: Vec<String>,
    owner: String,
    deployment_env: String,
    scopes: Vec<String>,
    metadata: Json<BTreeMap<String, String>>,
    status: String,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    revision: i64,
}

impl TryFrom<Row> for Agent {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        let problem = StorageError::row("agents", row.agent_id);
        Ok(Self {
            agent_id: AgentId(row.agent_id),
            tenant_id: TenantId(row.tenant_id),
            status: row.status.parse().map_err(&problem)?,
            created_at: row.created_at,
            updated_at: row.updated_at,
            revision: row.revision,
            profile: NewAgent {
                email: row.email,
                agent_type: row.agent_type.parse().map_err(&problem)?,
                version: row.version,
                capabilities: row.capabilities,
                owner: row.owner,
                deployment_env: row.deployment_env.parse().map_err(&problem)?,
                scopes: row.scopes.into_iter().collect(),
                metadata: row.metadata.0,
            },
        })
    }
}
