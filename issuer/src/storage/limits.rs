//! `quota_usage`, and what replicas tell each other about limits.

use countersign_shared::{AgentId, TenantId, UnixTime};
use sqlx::postgres::PgConnection;

use super::{Database, StorageError, Transaction, changes};
use crate::domain::limit::{Month, Network};

/// The largest allowance. Half a second's worth of a busy process, and no more than that is lost if it is killed.
const LARGEST: i64 = 256;
/// An allowance is at most this part of what is left, so that several processes get to share the rest.
const PART: i64 = 16;

/// What came of asking for an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// So many tokens may be issued: they count as used, until some are given back.
    Granted(u64),
    /// Nothing is left.
    UsedUp,
}

/// Takes some of what is left of `tenant`'s `quota` in `month`: less, the less is left, and one by one at the end. One conditional update, so
/// all processes together never get more than the quota.
pub async fn take_allowance(
    database: &Database,
    tenant: TenantId,
    month: Month,
    quota: u64,
) -> Result<Allowance, StorageError> {
    let quota = i64::try_from(quota).unwrap_or(i64::MAX);
    let taken = sqlx::query_scalar!(
        r#"insert into quota_usage as q (tenant_id, month, granted, last_allowance)
           select $1, $2, first, first from (select greatest(1, least($4::bigint, $3::bigint / $5::bigint)) as first) as a where $3 > 0
           on conflict (tenant_id, month) do update
               set last_allowance = greatest(1, least($4, ($3 - q.granted) / $5)),
                   granted = q.granted + greatest(1, least($4, ($3 - q.granted) / $5))
               where q.granted < $3
           returning last_allowance"#,
        tenant.0,
        month.first_day(),
        quota,
        LARGEST,
        PART,
    )
    .fetch_optional(&database.installation)
    .await?;
    Ok(taken.map_or(Allowance::UsedUp, |taken| Allowance::Granted(taken.cast_unsigned())))
}

/// Gives back what is left of an allowance. Not to be tried again when it fails: it may have succeeded, and what is given back twice would be
/// issued twice.
pub async fn give_back(
    database: &Database,
    tenant: TenantId,
    month: Month,
    left: u64,
) -> Result<(), StorageError> {
    sqlx::query!(
        "update quota_usage set granted = granted - $3 where tenant_id = $1 and month = $2 and granted >= $3",
        tenant.0,
        month.first_day(),
        i64::try_from(left).unwrap_or(i64::MAX),
    )
    .execute(&database.installation)
    .await?;
    Ok(())
}

/// How much of `month`'s quota was handed out.
pub async fn granted(database: &Database, tenant: TenantId, month: Month) -> Result<u64, StorageError> {
    let granted = sqlx::query_scalar!(
        "select granted from quota_usage where tenant_id = $1 and month = $2",
        tenant.0,
        month.first_day()
    );
    let granted = granted.fetch_optional(&database.installation).await?;
    Ok(granted.unwrap_or_default().cast_unsigned())
}

/// How many months a quota's use is kept after its own.
const MONTHS_KEPT: i32 = 12;

/// Forgets up to `limit` uses of months more than a year before that of `now`; how many.
pub async fn sweep(connection: &mut PgConnection, now: UnixTime, limit: i64) -> Result<u64, StorageError> {
    let swept = sqlx::query!(
        "delete from quota_usage where ctid = any(array(
             select ctid from quota_usage where month < $1::date - $2 * interval '1 month' limit $3 for update skip locked))",
        Month::of(now).first_day(),
        f64::from(MONTHS_KEPT),
        limit,
    )
    .execute(connection)
    .await?;
    Ok(swept.rows_affected())
}

/// The tenant of `agent`, whichever it is: for the operator.
pub async fn tenant_of(
    transaction: &mut Transaction,
    agent: AgentId,
) -> Result<Option<TenantId>, StorageError> {
    let tenant = sqlx::query_scalar!("select tenant_id from agents where agent_id = $1", agent.0);
    Ok(tenant.fetch_optional(&mut **transaction).await?.map(TenantId))
}

/// What one process tells all, itself included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announcement {
    /// The client is no longer locked out; from there, or from anywhere.
    Unlock(AgentId, Option<Network>),
    /// Somebody needs what others hold of the tenant's quota.
    Recall(TenantId),
}

/// The kinds of announcements that [`Announcement`] is.
pub const KINDS: [&str; 2] = [UNLOCK, RECALL];
const UNLOCK: &str = "unlock";
const RECALL: &str = "quota";

impl Announcement {
    /// As [`changes`] has it: a kind and an id.
    fn parts(self) -> (&'static str, String) {
        match self {
            Self::Unlock(client, None) => (UNLOCK, client.to_string()),
            Self::Unlock(client, Some(network)) => (UNLOCK, format!("{client}@{network}")),
            Self::Recall(tenant) => (RECALL, tenant.to_string()),
        }
    }

    /// `None` for what isn't one.
    pub fn parse(kind: &str, id: &str) -> Option<Self> {
        match kind {
            UNLOCK => match id.split_once('@') {
                None => Some(Self::Unlock(id.parse().ok()?, None)),
                Some((id, network)) => Some(Self::Unlock(id.parse().ok()?, Some(network.parse().ok()?))),
            },
            RECALL => Some(Self::Recall(id.parse().ok()?)),
            _ => None,
        }
    }
}

/// Announces an unlock when the transaction commits.
pub async fn announce_unlock(
    transaction: &mut Transaction,
    client: AgentId,
    network: Option<Network>,
) -> Result<(), StorageError> {
    let (kind, id) = Announcement::Unlock(client, network).parts();
    changes::announce(&mut **transaction, kind, &id).await
}

/// Asks every process for what it holds of the tenant's quota and doesn't use.
pub async fn recall(database: &Database, tenant: TenantId) -> Result<(), StorageError> {
    let (kind, id) = Announcement::Recall(tenant).parts();
    changes::announce(&database.installation, kind, &id).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_read_as_they_are_written() {
        let id = "01234567-89ab-cdef-0123-456789abcdef";
        let (client, tenant) = (id.parse().unwrap(), id.parse().unwrap());
        let networks = ["192.0.2.1", "2001:db8::1"].map(|ip| Some(Network::of(ip.parse().unwrap())));
        let announcements = [
            Announcement::Unlock(client, None),
            Announcement::Unlock(client, networks[0]),
            Announcement::Unlock(client, networks[1]),
            Announcement::Recall(tenant),
        ];
        for announcement in announcements {
            let (kind, id) = announcement.parts();
            assert!(KINDS.contains(&kind));
            assert_eq!(Announcement::parse(kind, &id), Some(announcement));
        }
        for (kind, id) in
            [("", ""), ("agent", id), ("unlock", "x"), ("unlock", ""), ("unlock", &format!("{id}@x"))]
        {
            assert_eq!(Announcement::parse(kind, id), None, "{kind}:{id}");
        }
    }
}
