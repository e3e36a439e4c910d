//! `agents`.

use std::collections::BTreeMap;

use countersign_shared::{AgentId, TenantId};
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Database, StorageError, Transaction};
use crate::domain::agent::{Agent, NewAgent};

/// What became of a new agent.
pub enum Insertion {
    /// It is there.
    Inserted(Box<Agent>),
    /// Its email is taken in the tenant.
    EmailTaken,
}

/// Registers `profile` under `agent_id`.
pub async fn insert(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent_id: AgentId,
    profile: &NewAgent,
) -> Result<Insertion, StorageError> {
    let scopes: Vec<String> = profile.scopes.iter().map(str::to_owned).collect();
    let inserted = sqlx::query_as!(
        Row,
        r#"insert into agents (agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes, metadata)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
           returning agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes,
                     metadata as "metadata: Json<BTreeMap<String, String>>", status, created_at, updated_at"#,
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
    match inserted {
        Ok(row) => Ok(Insertion::Inserted(Box::new(row.try_into()?))),
        Err(error) if StorageError::violated(&error) == Some("agents_email") => Ok(Insertion::EmailTaken),
        Err(error) => Err(error.into()),
    }
}

/// The agent, if it is the tenant's.
pub async fn find(
    database: &Database,
    tenant: TenantId,
    agent: AgentId,
) -> Result<Option<Agent>, StorageError> {
    let row = sqlx::query_as!(
        Row,
        r#"select agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes,
                  metadata as "metadata: Json<BTreeMap<String, String>>", status, created_at, updated_at
           from agents where tenant_id = $1 and agent_id = $2"#,
        tenant.0,
        agent.0,
    )
    .fetch_optional(&database.pool)
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
                  metadata as "metadata: Json<BTreeMap<String, String>>", status, created_at, updated_at
           from agents where tenant_id = $1 and agent_id = $2 for share"#,
        tenant.0,
        agent.0,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(TryInto::try_into).transpose()
}

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
