//! Whether this issuer is alone on its database, as one without a Redis has to be: what is counted in a process counts for that process only.
//!
//! The connection that hears changes (`clients/listener.rs`) holds an advisory lock for as long as it lives: with a Redis together with others, without one
//! alone. Whoever finds it held in the other way knows, and no row is left behind by a process that dies.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tracing::{info, warn};

/// What this process knows of others.
pub struct Replicas {
    /// Whether several may be at work.
    shared: bool,
    /// Whether the lock is held; `None` before that was tried.
    held: watch::Sender<Option<bool>>,
    complained: AtomicBool,
}

impl Replicas {
    /// `shared`: several may be at work.
    pub fn new(shared: bool) -> Self {
        Self { shared, held: watch::Sender::new(None), complained: AtomicBool::new(false) }
    }

    /// Whether several may be at work.
    pub const fn may_be_several(&self) -> bool {
        self.shared
    }

    /// Whether the lock could be had.
    pub fn claimed(&self, held: bool) {
        self.held.send_replace(Some(held));
        let complained = self.complained.swap(!held, Ordering::Relaxed);
        match (held, self.shared) {
            (true, _) if complained => info!("no issuer counts requests and lockouts for itself any more"),
            (true, _) => {}
            (false, _) if complained => {} // said once
            (false, true) => warn!(
                "another issuer on this database has no REDIS_URL: it counts requests and lockouts for itself, beside those that share them"
            ),
            (false, false) => warn!(
                "another issuer is at work on this database, and this one has no REDIS_URL: each counts requests and lockouts for itself"
            ),
        }
    }

    /// Whether requests and lockouts are counted in several places, as far as is known.
    pub fn count_apart(&self) -> bool {
        *self.held.borrow() == Some(false)
    }

    /// Returns once the lock is held.
    pub async fn settled(&self) {
        _ = self.held.subscribe().wait_for(|held| *held == Some(true)).await;
    }
}
