//! `resource_servers`, and `identifier_owners`: whose an identifier is.
//!
//! Whoever changes a tenant's resource servers holds the tenant's row (`tenants::find_locked`): there is one default at most, and a bound on their number.

use countersign_shared::{AgentId, Algorithm, TenantId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StorageError, Transaction};
use crate::domain::page::Page;
use crate::domain::resource_server::{
    NewResourceServer, RegisteredResourceServer, ResourceServerProfile, lookalikes,
};

/// Makes `identifier`, and all that look like it, the tenant's. Whether it is: no, where another tenant was first.
pub async fn own(
    transaction: &mut Transaction,
    tenant: TenantId,
    identifier: &str,
) -> Result<bool, StorageError> {
    let lookalikes = lookalikes(identifier);
    // What a concurrent transaction inserts is waited for. Another tenant's row can't be seen, nor told from none.
    let inserted = sqlx::query!(
        "insert into identifier_owners (lookalikes, tenant_id) values ($1, $2) on conflict do nothing",
        lookalikes,
        tenant.0,
    )
    .execute(&mut **transaction)
    .await?;
    if inserted.rows_affected() > 0 {
        return Ok(true);
    }
    let owned = sqlx::query_scalar!(
        r#"select exists (select from identifier_owners where lookalikes = $1 and tenant_id = $2) as "owned!""#,
        lookalikes,
        tenant.0,
    );
    Ok(owned.fetch_one(&mut **transaction).await?)
}

/// How many identifiers are the tenant's.
pub async fn count_owned(transaction: &mut Transaction, tenant: TenantId) -> Result<i64, StorageError> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from identifier_owners where tenant_id = $1"#,
        tenant.0
    );
    Ok(count.fetch_one(&mut **transaction).await?)
}

/// Gives up the tenant's `identifier` and those that look like it. Whether it had it, and has no resource server with any of them.
pub async fn disown(
    transaction: &mut Transaction,
    tenant: TenantId,
    identifier: &str,
) -> Result<bool, StorageError> {
    let deleted = sqlx::query!(
        "delete from identifier_owners where lookalikes = $1 and tenant_id = $2
         and not exists (select from resource_servers where tenant_id = $2 and lower(rtrim(identifier, '/')) = $1)",
        lookalikes(identifier),
        tenant.0,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(deleted.rows_affected() > 0)
}

/// Registers one whose identifier is the tenant's. `None`: the tenant has registered it before.
pub async fn insert(
    transaction: &mut Transaction,
    tenant: TenantId,
    id: Uuid,
    server: &NewResourceServer,
) -> Result<Option<RegisteredResourceServer>, StorageError> {
    let ResourceServerProfile { name, token_lifetime, is_default, agent_id, signing_algorithm, status_list } =
        &server.profile;
    let row = sqlx::query_as!(
        Row,
        "insert into resource_servers (resource_server_id, tenant_id, identifier, name, token_lifetime_seconds, is_default, agent_id,
                                        signing_algorithm, status_list)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (identifier) do nothing
         returning resource_server_id, tenant_id, identifier, name, token_lifetime_seconds, is_default, agent_id, signing_algorithm, status_list, revision,
                   created_at, updated_at",
        id,
        tenant.0,
        server.identifier.as_str(),
        name.as_deref(),
        token_lifetime.map(u32::cast_signed),
        is_default,
        agent_id.map(|agent| agent.0),
        signing_algorithm.map(Algorithm::as_str),
        status_list,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(row.map(Into::into))
}

/// The resource server, if it is the tenant's.
pub async fn find(
    transaction: &mut Transaction,
    tenant: TenantId,
    id: Uuid,
) -> Result<Option<RegisteredResourceServer>, StorageError> {
    let row = sqlx::query_as!(
        Row,
        "select resource_server_id, tenant_id, identifier, name, token_lifetime_seconds, is_default, agent_id, signing_algorithm, status_list, revision,
                created_at, updated_at
         from resource_servers where tenant_id = $1 and resource_server_id = $2",
        tenant.0,
        id,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(row.map(Into::into))
}

/// The rows of a page of the tenant's, in the order they were registered.
pub async fn list(
    transaction: &mut Transaction,
    tenant: TenantId,
    page: &Page,
) -> Result<Vec<RegisteredResourceServer>, StorageError> {
    let rows = sqlx::query_as!(
        Row,
        "select resource_server_id, tenant_id, identifier, name, token_lifetime_seconds, is_default, agent_id, signing_algorithm, status_list, revision,
                created_at, updated_at
         from resource_servers
         where tenant_id = $1 and ($2::timestamptz is null or (created_at, resource_server_id) > ($2, $3))
         order by created_at, resource_server_id limit $4",
        tenant.0,
        page.after.map(|after| after.at),
        page.after.map(|after| after.id),
        page.rows(),
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Writes what is said of it.
pub async fn update(
    transaction: &mut Transaction,
    tenant: TenantId,
    id: Uuid,
    profile: &ResourceServerProfile,
) -> Result<RegisteredResourceServer, StorageError> {
    let ResourceServerProfile { name, token_lifetime, is_default, agent_id, signing_algorithm, status_list } =
        profile;
    let row = sqlx::query_as!(
        Row,
        "update resource_servers
         set name = $3, token_lifetime_seconds = $4, is_default = $5, agent_id = $6, signing_algorithm = $7, status_list = $8, revision = revision + 1, updated_at = now()
         where tenant_id = $1 and resource_server_id = $2
         returning resource_server_id, tenant_id, identifier, name, token_lifetime_seconds, is_default, agent_id, signing_algorithm, status_list, revision,
                   created_at, updated_at",
        tenant.0,
        id,
        name.as_deref(),
        token_lifetime.map(u32::cast_signed),
        is_default,
        agent_id.map(|agent| agent.0),
        signing_algorithm.map(Algorithm::as_str),
        status_list,
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok(row.into())
}

/// Takes away from the tenant's default that it is one. Its id, if there was one.
pub async fn clear_default(
    transaction: &mut Transaction,
    tenant: TenantId,
) -> Result<Option<Uuid>, StorageError> {
    let cleared = sqlx::query_scalar!(
        "update resource_servers set is_default = false, revision = revision + 1, updated_at = now()
         where tenant_id = $1 and is_default returning resource_server_id",
        tenant.0,
    );
    Ok(cleared.fetch_optional(&mut **transaction).await?)
}

/// Removes it. Its identifier stays the tenant's.
pub async fn delete(transaction: &mut Transaction, tenant: TenantId, id: Uuid) -> Result<(), StorageError> {
    sqlx::query!(
        "delete from resource_servers where tenant_id = $1 and resource_server_id = $2",
        tenant.0,
        id
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

struct Row {
    resource_server_id: Uuid,
    tenant_id: Uuid,
    identifier: String,
    name: Option<String>,
    token_lifetime_seconds: Option<i32>,
    is_default: bool,
    agent_id: Option<Uuid>,
    signing_algorithm: Option<String>,
    status_list: bool,
    revision: i64,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl From<Row> for RegisteredResourceServer {
    fn from(row: Row) -> Self {
        Self {
            resource_server_id: row.resource_server_id,
            tenant_id: TenantId(row.tenant_id),
            identifier: row.identifier,
            profile: ResourceServerProfile {
                name: row.name,
                token_lifetime: row.token_lifetime_seconds.map(i32::cast_unsigned), // the table has none below one
                is_default: row.is_default,
                agent_id: row.agent_id.map(AgentId),
                // The table has no other.
                signing_algorithm: row.signing_algorithm.as_deref().and_then(Algorithm::from_name),
                status_list: row.status_list,
            },
            revision: row.revision,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}
