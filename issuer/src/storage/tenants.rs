//! `tenants`.

use countersign_shared::{AgentId, TenantId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Database, StorageError, Transaction};
use crate::domain::page::Page;
use crate::domain::tenant::{Limits, Plan, Tenant, TenantProfile, TenantStatus};

/// Holds up every other bootstrap until the transaction ends.
pub async fn lock_bootstrap(transaction: &mut Transaction) -> Result<(), StorageError> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('countersign bootstrap', 0))")
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// The platform's tenant and its oldest agent: those that bootstrap made.
pub async fn bootstrapped(
    transaction: &mut Transaction,
) -> Result<Option<(TenantId, Option<AgentId>)>, StorageError> {
    let row = sqlx::query!(
        r#"select tenant_id,
                  (select agent_id from agents a where a.tenant_id = t.tenant_id order by a.created_at, agent_id limit 1)
                      as agent_id
           from tenants t where is_platform"#
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(row.map(|row| (TenantId(row.tenant_id), row.agent_id.map(AgentId))))
}

/// Whether there is such a tenant that the transaction may see.
pub async fn exists(transaction: &mut Transaction, tenant: TenantId) -> Result<bool, StorageError> {
    let found = sqlx::query_scalar!(
        r#"select exists (select from tenants where tenant_id = $1) as "found!""#,
        tenant.0,
    );
    Ok(found.fetch_one(&mut **transaction).await?)
}

/// What a tenant may have.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Whether its agents may have platform scopes.
    pub is_platform: bool,
    /// How many agents it may have; `None`: any number.
    pub max_agents: Option<i32>,
}

/// What the tenant may have.
pub async fn allowance(
    transaction: &mut Transaction,
    tenant: TenantId,
) -> Result<Option<Allowance>, StorageError> {
    let row = sqlx::query_as!(
        Allowance,
        "select is_platform, max_agents from tenants where tenant_id = $1",
        tenant.0
    );
    Ok(row.fetch_optional(&mut **transaction).await?)
}

/// How many agents the tenant may have. Nobody else gets this answer until the transaction ends, so that what is counted after it stays true.
pub async fn max_agents_locked(
    transaction: &mut Transaction,
    tenant: TenantId,
) -> Result<Option<i32>, StorageError> {
    let max = sqlx::query_scalar!(
        "select max_agents from tenants where tenant_id = $1 for no key update",
        tenant.0
    );
    Ok(max.fetch_optional(&mut **transaction).await?.flatten())
}

/// The platform's tenant.
pub async fn platform(database: &Database) -> Result<Option<TenantId>, StorageError> {
    let found = sqlx::query_scalar!("select tenant_id from tenants where is_platform");
    Ok(found.fetch_optional(&database.installation).await?.map(TenantId))
}

/// Whose agent or credential it is: for the operator, who may act in any tenant.
pub async fn owner(database: &Database, id: Uuid) -> Result<Option<TenantId>, StorageError> {
    let found = sqlx::query_scalar!(
        r#"select tenant_id as "tenant_id!" from agents where agent_id = $1
           union all select tenant_id from credentials where credential_id = $1"#,
        id,
    );
    Ok(found.fetch_optional(&database.installation).await?.map(TenantId))
}

/// What became of a change that needs a name of the tenant's own.
pub enum Naming<T> {
    /// It was made.
    Done(T),
    /// Another tenant has the name.
    NameTaken,
}

/// Adds a tenant.
pub async fn insert(
    transaction: &mut Transaction,
    tenant: TenantId,
    profile: &TenantProfile,
    is_platform: bool,
) -> Result<Naming<Tenant>, StorageError> {
    let TenantProfile { name, plan, limits } = profile;
    let inserted = sqlx::query_as!(
        Row,
        "insert into tenants (tenant_id, name, is_platform, plan, monthly_token_quota, requests_per_minute,
                              client_requests_per_minute, max_agents)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         returning tenant_id, name, status, is_platform, plan, monthly_token_quota, requests_per_minute,
                   client_requests_per_minute, max_agents, revision, created_at, updated_at",
        tenant.0,
        name,
        is_platform,
        plan.as_str(),
        limits.monthly_token_quota.map(u64::cast_signed),
        limits.requests_per_minute.map(u32::cast_signed),
        limits.client_requests_per_minute.map(u32::cast_signed),
        limits.max_agents.map(u32::cast_signed),
    );
    naming(inserted.fetch_one(&mut **transaction).await)
}

/// The tenant, if there is one and the transaction may see it.
pub async fn find(transaction: &mut Transaction, tenant: TenantId) -> Result<Option<Tenant>, StorageError> {
    let row = sqlx::query_as!(
        Row,
        "select tenant_id, name, status, is_platform, plan, monthly_token_quota, requests_per_minute,
                client_requests_per_minute, max_agents, revision, created_at, updated_at
         from tenants where tenant_id = $1",
        tenant.0,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// The same; until the transaction ends nobody else changes it, or anything that is done under this lock.
pub async fn find_locked(
    transaction: &mut Transaction,
    tenant: TenantId,
) -> Result<Option<Tenant>, StorageError> {
    let row = sqlx::query_as!(
        Row,
        // Foreign keys take `for key share`, which this leaves free.
        "select tenant_id, name, status, is_platform, plan, monthly_token_quota, requests_per_minute,
                client_requests_per_minute, max_agents, revision, created_at, updated_at
         from tenants where tenant_id = $1 for no key update",
        tenant.0,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// Which tenants a list has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Only those with this status.
    pub status: Option<TenantStatus>,
    /// Only those with this plan.
    pub plan: Option<Plan>,
}

/// The rows of a page of tenants, in the order they were made.
pub async fn list(
    transaction: &mut Transaction,
    filter: Filter,
    page: &Page,
) -> Result<Vec<Tenant>, StorageError> {
    let rows = sqlx::query_as!(
        Row,
        "select tenant_id, name, status, is_platform, plan, monthly_token_quota, requests_per_minute,
                client_requests_per_minute, max_agents, revision, created_at, updated_at
         from tenants
         where ($1::text is null or status = $1) and ($2::text is null or plan = $2)
         and ($3::timestamptz is null or (created_at, tenant_id) > ($3, $4))
         order by created_at, tenant_id limit $5",
        filter.status.map(TenantStatus::as_str),
        filter.plan.map(Plan::as_str),
        page.after.map(|after| after.at),
        page.after.map(|after| after.id),
        page.rows(),
    )
    .fetch_all(&mut **transaction)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Writes what is said of the tenant.
pub async fn update(
    transaction: &mut Transaction,
    tenant: TenantId,
    profile: &TenantProfile,
) -> Result<Naming<Tenant>, StorageError> {
    let TenantProfile { name, plan, limits } = profile;
    let updated = sqlx::query_as!(
        Row,
        "update tenants set name = $2, plan = $3, monthly_token_quota = $4, requests_per_minute = $5,
                            client_requests_per_minute = $6, max_agents = $7, revision = revision + 1, updated_at = now()
         where tenant_id = $1
         returning tenant_id, name, status, is_platform, plan, monthly_token_quota, requests_per_minute,
                   client_requests_per_minute, max_agents, revision, created_at, updated_at",
        tenant.0,
        name,
        plan.as_str(),
        limits.monthly_token_quota.map(u64::cast_signed),
        limits.requests_per_minute.map(u32::cast_signed),
        limits.client_requests_per_minute.map(u32::cast_signed),
        limits.max_agents.map(u32::cast_signed),
    );
    naming(updated.fetch_one(&mut **transaction).await)
}

/// Writes the tenant's status.
pub async fn set_status(
    transaction: &mut Transaction,
    tenant: TenantId,
    status: TenantStatus,
) -> Result<Tenant, StorageError> {
    let row = sqlx::query_as!(
        Row,
        "update tenants set status = $2, revision = revision + 1, updated_at = now() where tenant_id = $1
         returning tenant_id, name, status, is_platform, plan, monthly_token_quota, requests_per_minute,
                   client_requests_per_minute, max_agents, revision, created_at, updated_at",
        tenant.0,
        status.as_str(),
    );
    row.fetch_one(&mut **transaction).await?.try_into()
}

fn naming(row: Result<Row, sqlx::Error>) -> Result<Naming<Tenant>, StorageError> {
    match row {
        Ok(row) => Ok(Naming::Done(row.try_into()?)),
        Err(error) if StorageError::violated(&error) == Some("tenants_name") => Ok(Naming::NameTaken),
        Err(error) => Err(error.into()),
    }
}

struct Row {
    tenant_id: Uuid,
    name: String,
    status: String,
    is_platform: bool,
    plan: String,
    monthly_token_quota: Option<i64>,
    requests_per_minute: Option<i32>,
    client_requests_per_minute: Option<i32>,
    max_agents: Option<i32>,
    revision: i64,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl TryFrom<Row> for Tenant {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        let problem = StorageError::row("tenants", row.tenant_id);
        Ok(Self {
            tenant_id: TenantId(row.tenant_id),
            profile: TenantProfile {
                name: row.name,
                plan: row.plan.parse().map_err(&problem)?,
                limits: Limits {
                    // The table has none below zero.
                    monthly_token_quota: row.monthly_token_quota.map(i64::cast_unsigned),
                    requests_per_minute: row.requests_per_minute.map(i32::cast_unsigned),
                    client_requests_per_minute: row.client_requests_per_minute.map(i32::cast_unsigned),
                    max_agents: row.max_agents.map(i32::cast_unsigned),
                },
            },
            status: row.status.parse().map_err(&problem)?,
            is_platform: row.is_platform,
            revision: row.revision,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}
