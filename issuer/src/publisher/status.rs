//! How publishing goes, for `/ready`.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A sink that fails for longer makes the issuer degraded; so does being without a leader's connection.
const TOLERANCE: Duration = Duration::from_secs(5);
/// Changes whose way is followed one by one.
const MAX_WAITING: usize = 1000;

/// What this process does about publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Role {
    /// Nothing: no sinks are configured.
    #[default]
    Disabled,
    /// It can't reach the database.
    Disconnected,
    /// Another process leads.
    Follower,
    /// It leads.
    Leader,
}

/// Shared between the leader's task and the probes.
#[derive(Default)]
pub struct Status(Mutex<State>);

#[derive(Default)]
struct State {
    role: Role,
    /// The newest change, and the newest one that the edge has.
    seq: u64,
    delivered_seq: u64,
    /// Changes on their way, with since when.
    waiting: VecDeque<(u64, Instant)>,
    /// Sinks that fail, with since when.
    failing: Vec<(&'static str, Instant)>,
}

/// What `/ready` says about it.
pub struct Report {
    /// Whether somebody should look.
    pub failing: bool,
    /// For the response.
    pub body: Value,
}

impl Status {
    pub(super) fn set_role(&self, role: Role) {
        self.update(|state| {
            if state.role != role {
                *state = State { role, ..State::default() };
            }
        });
    }

    pub(super) fn set_seq(&self, seq: u64) {
        self.update(|state| {
            // The oldest are those that count.
            if seq > state.seq.max(state.delivered_seq) && state.waiting.len() < MAX_WAITING {
                state.waiting.push_back((seq, Instant::now()));
            }
            state.seq = seq;
        });
    }

    pub(super) fn set_delivered(&self, seq: u64) {
        self.update(|state| {
            state.delivered_seq = seq;
            while state.waiting.pop_front_if(|(waiting, _)| *waiting <= seq).is_some() {}
        });
    }

    pub(super) fn set_failing(&self, failing: Vec<(&'static str, Instant)>) {
        self.update(|state| state.failing = failing);
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// How it stands now.
    pub fn report(&self) -> Report {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lag = state.waiting.front().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let lag_ms = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        let failing: Vec<&str> = state.failing.iter().map(|(sink, _)| *sink).collect();
        let (stuck, body) = match state.role {
            Role::Disabled => (false, json!({ "status": "disabled" })),
            Role::Disconnected => (true, json!({ "status": "degraded", "role": "disconnected" })),
            Role::Follower => (false, json!({ "status": "ok", "role": "follower" })),
            Role::Leader => {
                let long = state.failing.iter().any(|(_, since)| since.elapsed() > TOLERANCE);
                let stuck = long || lag > TOLERANCE;
                let status = if stuck { "degraded" } else { "ok" };
                let lag_seqs = state.seq.saturating_sub(state.delivered_seq);
                let body = json!({
                    "status": status, "role": "leader", "seq": state.seq, "lag_ms": lag_ms, "lag_seqs": lag_seqs,
                    "failing_sinks": failing,
                });
                (stuck, body)
            }
        };
        Report { failing: stuck, body }
    }
}
