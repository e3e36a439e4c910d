//! Checking secrets against imported bcrypt hashes. That is slow on purpose, and anybody may ask for it: so it has one CPU and no more, and few
//! may wait for it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use countersign_shared::TenantId;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::domain::client_secret::BcryptHash;
use crate::limits::places::Places;

/// Requests that may be at it, the one that is checked included: of one tenant and of all.
pub(crate) const PLACES: (usize, usize) = (2, 8);
/// How long a request waits for its turn.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Too many at once.
#[derive(Debug)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many imported secrets are being checked")
    }
}

impl std::error::Error for Busy {}

/// The queue for the CPU.
pub struct Imported {
    places: Places,
    turn: Arc<Semaphore>,
}

impl Default for Imported {
    fn default() -> Self {
        Self { places: Places::new(PLACES.0, PLACES.1), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Imported {
    /// The place in `hashes`, a client's of `tenant`, of one of `secret`.
    pub async fn find(
        &self,
        tenant: TenantId,
        secret: &str,
        hashes: Vec<BcryptHash>,
    ) -> Result<Option<usize>, Busy> {
        let _place = self.places.take(tenant).ok_or(Busy)?;
        let turn = timeout(PATIENCE, self.turn.clone().acquire_owned()).await.map_err(|_| Busy)?;
        let turn = turn.map_err(|_| Busy)?;
        let secret = Zeroizing::new(secret.to_owned());
        let checking = tokio::task::spawn_blocking(move || {
            let found = hashes.iter().position(|hash| hash.is_of(&secret));
            drop(turn); // here: the work goes on when the request is gone
            found
        });
        checking.await.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_is_turned_away() {
        let imported = Imported::default();
        let hash = |secret| BcryptHash::parse(&bcrypt::hash(secret, 4).unwrap()).unwrap();
        let hashes = vec![hash("one"), hash("two")];
        let tenant = |n: u8| format!("00000000-0000-4000-8000-{n:012}").parse().unwrap();
        assert_eq!(imported.find(tenant(1), "two", hashes.clone()).await.unwrap(), Some(1));
        assert_eq!(imported.find(tenant(1), "three", hashes.clone()).await.unwrap(), None);
        let flood = (0..100).map(|_| imported.find(tenant(1), "two", hashes.clone()));
        let other = imported.find(tenant(2), "one", hashes.clone());
        let (outcomes, other) = tokio::join!(futures_util::future::join_all(flood), other);
        assert_eq!(other.unwrap(), Some(0), "another tenant's flood");
        let answered = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Some(1)))).count();
        assert!((1..=PLACES.0).contains(&answered), "{answered}");
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 100 - answered);
    }
}
