//! Maintenance: what changes something is turned away, with a reason and a time to come back; tokens too, if that is chosen. What takes something back
//! goes on in any case, and so does what tells whether something holds.
//!
//! There are two switches: one in the database, for every issuer and beyond restarts ([`crate::management::maintenance`]), and one in each process, at its
//! admin listener, for when the database is what is being worked on. A process is in maintenance while either is on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::app::App;
use crate::storage::maintenance as storage;

/// The longest reason, in characters.
pub const LONGEST_REASON: usize = 200;
/// How often the database is asked without having announced anything: who heard nothing may have missed something.
const LOOK: Duration = Duration::from_secs(5);
/// How soon again while it doesn't answer.
const RETRY: Duration = Duration::from_millis(500);

const OFF: u8 = 0;
const CHANGES: u8 = 1;
const TOKENS: u8 = 2;

/// What maintenance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    /// No tokens are issued either.
    pub tokens: bool,
    /// Why, for whoever is turned away.
    pub reason: Option<String>,
    /// Since when.
    pub since: OffsetDateTime,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It changes something, and gives nobody less than before.
    Change,
    /// It asks for a token.
    Token,
}

/// Whether this process is in maintenance.
#[derive(Default)]
pub struct Maintenance {
    /// What is turned away, without a lock for those who aren't.
    refused: AtomicU8,
    switches: Mutex<Switches>,
    changed: Notify,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Switches {
    everywhere: Option<Mode>,
    here: Option<Mode>,
}

impl Switches {
    /// What both make together: the process's own words come first.
    fn mode(&self) -> Option<Mode> {
        let (here, everywhere) = (self.here.as_ref(), self.everywhere.as_ref());
        let first = here.or(everywhere)?;
        Some(Mode {
            tokens: [here, everywhere].into_iter().flatten().any(|mode| mode.tokens),
            reason: [here, everywhere].into_iter().flatten().find_map(|mode| mode.reason.clone()),
            since: [here, everywhere]
                .into_iter()
                .flatten()
                .map(|mode| mode.since)
                .min()
                .unwrap_or(first.since),
        })
    }
}

impl Maintenance {
    /// As the database says at the start.
    pub fn new(everywhere: Option<Mode>) -> Self {
        let maintenance = Self::default();
        maintenance.set_everywhere(everywhere);
        maintenance
    }

    /// Why a request is turned away, if it is.
    pub fn refuses(&self, purpose: Purpose) -> Option<Mode> {
        let refused = self.refused.load(Ordering::Relaxed);
        let is_refused = match purpose {
            Purpose::Change => refused != OFF,
            Purpose::Token => refused == TOKENS,
        };
        if is_refused { self.mode() } else { None }
    }

    /// Whether and how this process is in maintenance.
    pub fn mode(&self) -> Option<Mode> {
        self.switches().mode()
    }

    /// The process's own switch.
    pub fn here(&self) -> Option<Mode> {
        self.switches().here.clone()
    }

    /// The installation's, as it was last read.
    pub fn everywhere(&self) -> Option<Mode> {
        self.switches().everywhere.clone()
    }

    /// Turns the process's own switch.
    pub fn set_here(&self, mode: Option<Mode>) {
        self.set(|switches| switches.here = mode);
    }

    fn set_everywhere(&self, mode: Option<Mode>) {
        self.set(|switches| switches.everywhere = mode);
    }

    fn set(&self, turn: impl FnOnce(&mut Switches)) {
        let mut switches = self.switches();
        let before = switches.mode();
        turn(&mut switches);
        let now = switches.mode();
        let refused = match &now {
            None => OFF,
            Some(mode) if mode.tokens => TOKENS,
            Some(_) => CHANGES,
        };
        self.refused.store(refused, Ordering::Relaxed);
        drop(switches);
        match &now {
            _ if now == before => {}
            Some(Mode { tokens, reason, .. }) => {
                warn!(tokens, reason, "in maintenance: what changes something is turned away");
            }
            None => info!("no longer in maintenance"),
        }
    }

    fn switches(&self) -> MutexGuard<'_, Switches> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database may say something else now.
    pub fn changed(&self) {
        self.changed.notify_one();
    }
}

/// Starts following the database, until `stopping`. While it doesn't answer, what it said last goes on.
pub fn start(app: &Arc<App>, mut stopping: watch::Receiver<bool>) {
    let app = app.clone();
    tokio::spawn(async move {
        let following = async {
            let mut pause = LOOK;
            loop {
                _ = timeout(pause, app.maintenance.changed.notified()).await;
                pause = match storage::read(&app.database).await {
                    Ok(mode) => {
                        app.maintenance.set_everywhere(mode);
                        LOOK
                    }
                    Err(error) => {
                        debug!("whether the installation is in maintenance can't be read: {error}");
                        RETRY
                    }
                };
            }
        };
        tokio::select! {
            () = following => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(tokens: bool, reason: Option<&str>, since: i64) -> Mode {
        let since = OffsetDateTime::from_unix_timestamp(since).unwrap();
        Mode { tokens, reason: reason.map(str::to_owned), since }
    }

    #[test]
    fn either_switch_is_enough() {
        let maintenance = Maintenance::default();
        assert_eq!(maintenance.refuses(Purpose::Change), None);
        maintenance.set_everywhere(Some(mode(true, Some("upgrade"), 1)));
        maintenance.set_here(Some(mode(false, None, 2)));
        assert_eq!(maintenance.mode(), Some(mode(true, Some("upgrade"), 1)));
        maintenance.set_everywhere(None);
        assert_eq!(maintenance.refuses(Purpose::Token), None);
        assert_eq!(maintenance.refuses(Purpose::Change), Some(mode(false, None, 2)));
        maintenance.set_here(None);
        assert_eq!(maintenance.refuses(Purpose::Change), None);
    }
}
