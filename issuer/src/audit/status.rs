//! How sealing goes, for `/ready`.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Being without the sealer's connection for longer makes the issuer degraded.
const TOLERANCE: Duration = Duration::from_secs(5);
/// So is having more to seal than can be sealed, for longer.
const LONGEST_BACKLOG: Duration = Duration::from_mins(1);

/// Shared between the sealer's task and the probes.
#[derive(Default)]
pub(super) struct Status(Mutex<State>);

#[derive(Default)]
struct State {
    failing_since: Option<Instant>,
    backlog_since: Option<Instant>,
}

impl Status {
    /// It leads or follows.
    pub(super) fn works(&self) {
        self.update(|state| state.failing_since = None);
    }

    /// It can't reach the database, or can't seal.
    pub(super) fn fails(&self) {
        self.update(|state| {
            state.failing_since.get_or_insert_with(Instant::now);
        });
    }

    /// It has sealed some; whether there is more.
    pub(super) fn sealed(&self, more: bool) {
        self.update(|state| {
            if more {
                state.backlog_since.get_or_insert_with(Instant::now);
            } else {
                state.backlog_since = None;
            }
        });
    }

    pub(super) fn is_failing(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let longer = |since: Option<Instant>, than| since.is_some_and(|since| since.elapsed() > than);
        longer(state.failing_since, TOLERANCE) || longer(state.backlog_since, LONGEST_BACKLOG)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
