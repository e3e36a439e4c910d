//! What metrics say of the database's content.

use super::{Database, StorageError};
use crate::domain::limit::Month;

/// More rows than this aren't counted: the figure says that there are too many, and costs no more the more there are.
const COUNTED: i64 = 100_000;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Changes in the outbox that have no place in the order of publication yet; 100,000 at most.
    pub outbox: i64,
    /// Audit events that aren't in their chain yet; 100,000 at most.
    pub audit_queue: i64,
    /// For how long the oldest of them has waited, in seconds.
    pub audit_queue_age: f64,
    /// Tenants that have used four fifths of their quota of the month, or more.
    pub tenants_near_quota: i64,
    /// Those of them that have used all of it.
    pub tenants_at_quota: i64,
}

/// Looks. `free_tier` is the quota of the free plan.
pub async fn read(database: &Database, month: Month, free_tier: u64) -> Result<Figures, StorageError> {
    let figures = sqlx::query_as!(
        Figures,
        r#"with usage as (
               select used.granted, coalesce(tenant.monthly_token_quota, $3) as quota
               from quota_usage used join tenants tenant using (tenant_id)
               where used.month = $2 and (tenant.monthly_token_quota is not null or tenant.plan = 'free')
           )
           select
               (select count(*) from (select from revocation_outbox where seq is null limit $1) waiting) as "outbox!",
               (select count(*) from (select from audit_queue limit $1) queued) as "audit_queue!",
               coalesce((select greatest(extract(epoch from clock_timestamp() - occurred_at), 0)::float8
                         from audit_queue order by queue_id limit 1), 0) as "audit_queue_age!",
               (select count(*) from usage where granted >= quota * 0.8) as "tenants_near_quota!",
               (select count(*) from usage where granted >= quota) as "tenants_at_quota!""#,
        COUNTED,
        month.first_day(),
        i64::try_from(free_tier).unwrap_or(i64::MAX),
    );
    Ok(figures.fetch_one(&database.installation).await?)
}
