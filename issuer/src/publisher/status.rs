//! How publishing goes, for `/ready`.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::domain::publication;

/// A sink that fails for longer makes the issuer degraded; so does being without a leader's connection.
const TOLERANCE: Duration = Duration::from_secs(5);

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
    /// What the leader says.
    report: publication::Report,
    /// For how long the oldest change hadn't reached the edge, and when that was.
    lag: Option<(Duration, Instant)>,
    /// Sinks that fail, with since when.
    failing: Vec<(&'static str, Instant)>,
}

impl State {
    fn lag(&self) -> Duration {
        self.lag.map_or(Duration::ZERO, |(lag, then)| lag + then.elapsed())
    }
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

    pub(super) fn set_report(
        &self,
        report: publication::Report,
        lag: Duration,
        failing: Vec<(&'static str, Instant)>,
    ) {
        self.update(|state| {
            state.report = report;
            state.lag = (!lag.is_zero()).then(|| (lag, Instant::now()));
            state.failing = failing;
        });
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// For metrics: `None` where nothing is published; inside, of the leader only, for how long the oldest change hadn't reached the edge, and what it says.
    pub fn leading(&self) -> Option<Option<(Duration, publication::Report)>> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.role {
            Role::Disabled => None,
            Role::Disconnected | Role::Follower => Some(None),
            Role::Leader => Some(Some((state.lag(), state.report.clone()))),
        }
    }

    /// How it stands now.
    pub fn report(&self) -> Report {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lag = state.lag();
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
                let heads = state.report.heads();
                let sinks: serde_json::Map<String, Value> = state
                    .report
                    .sinks
                    .iter()
                    .map(|sink| {
                        (sink.sink.clone(), json!({ "lag_ms": sink.lag_ms, "lag_rows": sink.lag_rows }))
                    })
                    .collect();
                let body = json!({
                    "status": status, "role": "leader", "seq": state.report.seq, "lag_ms": lag_ms,
                    "lag_seqs": heads.map_or(0, |heads| heads.lag_rows), "failing_sinks": failing, "sinks": sinks,
                });
                (stuck, body)
            }
        };
        Report { failing: stuck, body }
    }
}
