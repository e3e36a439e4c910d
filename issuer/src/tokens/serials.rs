//! Serials: leased from the database in ranges, handed out from memory in random order, so that issuing writes no row for a serial
//! and a jti doesn't tell how many tokens there were.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError};

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use countersign_shared::{Coordinate, Serial, Shard, UnixTime};
use tokio::sync::Mutex;

use crate::storage::{Database, StorageError, serials};

/// Serials taken at a time.
pub const LEASE: usize = 4096;

type Stock = Arc<Mutex<Vec<u64>>>;

/// What this process has leased and not used.
#[derive(Default)]
pub struct Serials {
    shards: std::sync::Mutex<BTreeMap<Shard, Stock>>,
}

impl Serials {
    /// A coordinate that nobody had before, for a token that expires at `expiry`.
    pub async fn take(
        &self,
        database: &Database,
        expiry: UnixTime,
        now: UnixTime,
    ) -> Result<Coordinate, SerialError> {
        let shard = Shard::of_expiry(expiry).ok_or(SerialError::Exhausted)?;
        // Whoever comes while a lease is under way waits for that one instead of taking another.
        let stock = self.stock(shard, now);
        let mut stock = stock.lock().await;
        if stock.is_empty() {
            let leased = Box::pin(serials::lease(database, shard, LEASE as u64)).await?;
            let first = leased.ok_or(SerialError::Exhausted)?;
            *stock = shuffled(first)?;
        }
        let serial = stock.pop().and_then(Serial::new).ok_or(SerialError::Exhausted)?;
        Ok(Coordinate { shard, serial })
    }

    /// Drops what is leased: the next token takes a new lease.
    pub fn forget(&self) {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The stock of `shard`; those of shards that lie in the past are dropped.
    fn stock(&self, shard: Shard, now: UnixTime) -> Stock {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        if !shards.contains_key(&shard) {
            shards.retain(|shard, _| shard.ends_at() > now);
        }
        shards.entry(shard).or_default().clone()
    }
}

/// The serials of a lease in random order (Fisher–Yates; the bias of 2⁻⁵² is of no matter here).
fn shuffled(first: u64) -> Result<Vec<u64>, SerialError> {
    let mut serials: Vec<u64> = (first..first + LEASE as u64).collect();
    let mut random = vec![0; LEASE * 8];
    rand::fill(&mut random).map_err(SerialError::Randomness)?;
    let (random, _) = random.as_chunks::<8>();
    for (place, random) in (1..LEASE).rev().zip(random) {
        let other = u64::from_le_bytes(*random) % (place as u64 + 1);
        serials.swap(place, usize::try_from(other).unwrap_or_default());
    }
    Ok(serials)
}

/// Why there is no serial.
#[derive(Debug)]
pub enum SerialError {
    /// The database.
    Storage(StorageError),
    /// The shard's 2³⁶ serials are used up, or time has left the range of shards.
    Exhausted,
    /// The system gave no randomness.
    Randomness(Unspecified),
}

impl From<StorageError> for SerialError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl fmt::Display for SerialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::Exhausted => f.write_str("the expiry shard has no serial left"),
            Self::Randomness(_) => f.write_str("the system has no randomness"),
        }
    }
}

impl std::error::Error for SerialError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_permuted_and_whole() {
        let serials = shuffled(8192).unwrap();
        assert!(!serials.is_sorted());
        let mut sorted = serials;
        sorted.sort_unstable();
        assert_eq!(sorted, (8192..8192 + LEASE as u64).collect::<Vec<_>>());
    }
}
