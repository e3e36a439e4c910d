//! When credentials were last used: noted in memory, written in batches, never while a request waits.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use countersign_shared::{CredentialId, TenantId, UnixTime};
use moka::sync::Cache;
use tracing::warn;

use crate::storage::Database;
use crate::storage::credential_uses::{self, Use};

/// A credential's use is written at most once in this time by each process.
const PRECISION: Duration = Duration::from_mins(1);
/// Credentials noted at most. Beyond that uses go unnoted: nothing depends on them.
pub(crate) const MAX_NOTED: usize = 100_000;
/// Rows in one statement.
const BATCH: usize = 5_000;

/// Uses that are to be written, and credentials whose use was noted within the minute.
pub struct Uses {
    pending: Mutex<HashMap<CredentialId, Use>>,
    noted: Cache<CredentialId, ()>,
}

impl Default for Uses {
    fn default() -> Self {
        let noted = Cache::builder().max_capacity(MAX_NOTED as u64).time_to_live(PRECISION).build();
        Self { pending: Mutex::default(), noted }
    }
}

impl Uses {
    /// The credential was used. Noted once a minute.
    pub fn note(&self, tenant: TenantId, credential: CredentialId, at: UnixTime) {
        if self.noted.contains_key(&credential) {
            return;
        }
        self.noted.insert(credential, ());
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() < MAX_NOTED {
            pending.insert(credential, Use { tenant, credential, at });
        }
    }

    /// Writes what was noted. What can't be written is kept for the next time.
    pub(super) async fn write(&self, database: &Database) {
        let mut uses: Vec<Use> = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.drain().map(|(_, used)| used).collect()
        };
        while !uses.is_empty() {
            let batch = uses.split_off(uses.len().saturating_sub(BATCH));
            if let Err(error) = credential_uses::write(database, batch.clone()).await {
                warn!("uses of credentials aren't written yet: {error}");
                return self.keep(uses.into_iter().chain(batch));
            }
        }
    }

    fn keep(&self, uses: impl Iterator<Item = Use>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        for used in uses {
            if pending.len() < MAX_NOTED {
                pending.entry(used.credential).or_insert(used); // one noted meanwhile is newer
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn one_use_a_minute_is_noted_and_none_is_lost_that_was() {
        let uses = Uses::default();
        let (tenant, credential) = (TenantId(Uuid::nil()), CredentialId(Uuid::from_u128(1)));
        uses.note(tenant, credential, UnixTime(100));
        uses.note(tenant, credential, UnixTime(130));
        let noted: Vec<Use> = uses.pending.lock().unwrap().drain().map(|(_, used)| used).collect();
        assert_eq!(noted, [Use { tenant, credential, at: UnixTime(100) }]);
        uses.keep(noted.into_iter());
        assert_eq!(uses.pending.lock().unwrap().len(), 1);
    }
}
