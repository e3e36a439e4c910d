//! Writing down failed authentications, boundedly.
//!
//! Anybody can fail to authenticate, as often as they like, and the audit log keeps everything for ever. So only so many a minute get a row
//! of their own; the others are counted, and the next row says how many there were: none is lost, and none costs disk.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::json;

use crate::domain::audit::Event;
use crate::storage::{Database, StorageError, audit};

/// Of whom a failure tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concerns {
    /// An agent of ours: one that exists, or that a token we signed is about.
    Known,
    /// Nobody we know.
    Nobody,
}

/// What may still be written.
pub struct Failures {
    known: Mutex<Budget>,
    nobody: Mutex<Budget>,
}

impl Default for Failures {
    fn default() -> Self {
        Self { known: Mutex::new(Budget::new(600.0)), nobody: Mutex::new(Budget::new(60.0)) }
    }
}

impl Failures {
    /// Writes `event` down, or counts it.
    pub async fn record(
        &self,
        database: &Database,
        concerns: Concerns,
        mut event: Event<'_>,
    ) -> Result<(), StorageError> {
        let budget = match concerns {
            Concerns::Known => &self.known,
            Concerns::Nobody => &self.nobody,
        };
        let taken = budget.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        let Some(uncounted) = taken else { return Ok(()) };
        if uncounted > 0 {
            event.details["more_before"] = json!(uncounted);
        }
        audit::record(database, &event).await
    }
}

/// A token bucket that fills up in a minute.
struct Budget {
    per_minute: f64,
    left: f64,
    filled: Instant,
    /// Events since the last one that was written.
    passed_over: u64,
}

impl Budget {
    fn new(per_minute: f64) -> Self {
        Self { per_minute, left: per_minute, filled: Instant::now(), passed_over: 0 }
    }

    /// If there is something left: how many came before that got nothing.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let minutes = now.saturating_duration_since(self.filled).as_secs_f64() / 60.0;
        self.left = (self.left + minutes * self.per_minute).min(self.per_minute);
        self.filled = now;
        if self.left < 1.0 {
            self.passed_over += 1;
            return None;
        }
        self.left -= 1.0;
        Some(std::mem::take(&mut self.passed_over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_is_counted_and_a_minute_later_there_is_room_again() {
        let mut budget = Budget::new(60.0);
        let start = budget.filled;
        let written = (0..1000).filter(|_| budget.take(start).is_some()).count();
        assert_eq!(written, 60);
        assert_eq!(budget.take(start + Duration::from_secs(2)), Some(940));
        assert_eq!(budget.take(start + Duration::from_secs(2)), Some(0));
        assert_eq!(budget.take(start + Duration::from_secs(2)), None);
    }
}
