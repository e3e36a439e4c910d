//! `credential_uses`: when credentials were last used.

use countersign_shared::{CredentialId, TenantId, UnixTime};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Database, StorageError};
use crate::clock;

/// A use of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which.
    pub credential: CredentialId,
    /// When.
    pub at: UnixTime,
}

/// Writes `uses`, of different credentials, in one statement. A time never goes back.
pub async fn write(database: &Database, mut uses: Vec<Use>) -> Result<(), StorageError> {
    // In order: replicas that write the same rows must not wait for each other in a circle.
    uses.sort_unstable_by_key(|used| used.credential);
    let credentials: Vec<Uuid> = uses.iter().map(|used| used.credential.0).collect();
    let tenants: Vec<Uuid> = uses.iter().map(|used| used.tenant.0).collect();
    let times: Vec<OffsetDateTime> = uses.iter().map(|used| clock::timestamp(used.at)).collect();
    sqlx::query!(
        "insert into credential_uses as u (credential_id, tenant_id, last_used_at)
         select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[])
         on conflict (credential_id) do update set last_used_at = excluded.last_used_at where u.last_used_at < excluded.last_used_at",
        &credentials,
        &tenants,
        &times,
    )
    .execute(&database.installation)
    .await?;
    Ok(())
}
