//! Hot state of one process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_shared::Jti;
use futures_util::future::{BoxFuture, ready};

use super::{Health, HotState};

/// Above this many marks the next one first clears out those that have lapsed.
const SWEEP_ABOVE: usize = 10_000;

/// Marks in memory, with the instant up to which each counts.
#[derive(Default)]
pub struct InProcess {
    revoked: Mutex<Marks>,
}

#[derive(Default)]
struct Marks {
    until: HashMap<Jti, Instant>,
    /// So that a sweep that finds nothing isn't repeated with every mark.
    sweep_above: usize,
}

impl HotState for InProcess {
    fn name(&self) -> &'static str {
        "in_process"
    }

    fn mark_revoked(&self, jti: Jti, seconds: u64) -> BoxFuture<'_, ()> {
        let now = Instant::now();
        let mut marks = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.until.len() >= marks.sweep_above.max(SWEEP_ABOVE) {
            marks.until.retain(|_, until| *until > now);
            marks.sweep_above = marks.until.len() * 2;
        }
        marks.until.insert(jti, now + Duration::from_secs(seconds));
        Box::pin(ready(()))
    }

    fn is_revoked(&self, jti: Jti) -> BoxFuture<'_, Option<bool>> {
        let marks = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        let revoked = marks.until.get(&jti).is_some_and(|until| *until > Instant::now());
        Box::pin(ready(Some(revoked)))
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(ready(Health::Ok))
    }
}
