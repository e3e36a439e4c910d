//! Writing down failed authentications, boundedly.
//!
//! Anybody can fail to authenticate, as often as they like, and the audit log keeps everything for ever. So only so many a minute get a row
//! of their own; the others are counted, and the next row says how many there were: none is lost, and none costs disk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::json;

use crate::audit::Audit;
use crate::domain::audit::Event;
use crate::storage::StorageError;

/// Of whom a failure tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concerns {
    /// An agent of ours: one that exists, or that a token we signed is about.
    Known,
    /// Nobody we know.
    Nobody,
}

/// Rows a minute that concern one tenant, or one client whose tenant isn't known yet: nobody uses up another's.
const OF_ONE: f64 = 120.0;
/// Rows a minute that concern anybody known, together.
const OF_ALL_KNOWN: f64 = 6000.0;
/// Rows a minute that concern nobody known.
const OF_NOBODY: f64 = 60.0;
/// Budgets kept at once; those that are full again make room for others.
const MAX_BUDGETS: usize = 10_000;

/// What may still be written.
pub struct Failures {
    each: Mutex<HashMap<String, Budget>>,
    known: Mutex<Budget>,
    nobody: Mutex<Budget>,
}

impl Default for Failures {
    fn default() -> Self {
        let budget = |per_minute| Mutex::new(Budget::new(per_minute));
        Self { each: Mutex::default(), known: budget(OF_ALL_KNOWN), nobody: budget(OF_NOBODY) }
    }
}

impl Failures {
    /// Writes `event` down, or counts it.
    pub async fn record(
        &self,
        audit: &Audit,
        concerns: Concerns,
        mut event: Event<'_>,
    ) -> Result<(), StorageError> {
        let now = Instant::now();
        let taken = match concerns {
            Concerns::Known => self.take_known(whom(&event), now),
            Concerns::Nobody => self.nobody.lock().unwrap_or_else(PoisonError::into_inner).take(now),
        };
        let Some(uncounted) = taken else { return Ok(()) };
        if uncounted > 0 {
            event.details["more_before"] = json!(uncounted);
        }
        audit.record(&event).await
    }

    fn take_known(&self, whom: String, now: Instant) -> Option<u64> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if each.len() >= MAX_BUDGETS && !each.contains_key(&whom) {
            each.retain(|_, budget| !budget.is_full(now));
        }
        let has_room = each.len() < MAX_BUDGETS || each.contains_key(&whom);
        // Where even that makes no room, the budget of all has to do.
        let own = if has_room {
            each.entry(whom).or_insert_with(|| Budget::new(OF_ONE)).take(now)
        } else {
            Some(0)
        };
        let all = own.and_then(|_| self.known.lock().unwrap_or_else(PoisonError::into_inner).take(now));
        all.and(own)
    }
}

/// Whose budget an event is written from.
fn whom(event: &Event<'_>) -> String {
    match (event.tenant, event.actor, &event.target) {
        (Some(tenant), ..) => tenant.to_string(),
        (None, Some(agent), _) => agent.to_string(),
        (None, None, Some((_, id))) => id.clone(),
        (None, None, None) => String::new(),
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

    /// Whether nothing was taken lately, and nothing is to be told.
    fn is_full(&self, now: Instant) -> bool {
        let minutes = now.saturating_duration_since(self.filled).as_secs_f64() / 60.0;
        self.passed_over == 0 && self.left + minutes * self.per_minute >= self.per_minute
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
    fn nobody_uses_up_another_s() {
        let failures = Failures::default();
        let now = Instant::now();
        let written = (0..1000).filter(|_| failures.take_known("one".into(), now).is_some()).count();
        assert_eq!(written, 120);
        assert_eq!(failures.take_known("another".into(), now), Some(0));
    }

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
