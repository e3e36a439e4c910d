//! The leader's task: wait for the lock, then turn what is queued into heads for as long as the lock is held.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::sinks::Sink;
use super::status::Role;
use super::term::Term;
use crate::app::App;
use crate::outage::Outage;
use crate::storage::StorageError;
use crate::storage::outbox::Leadership;

/// How often a follower tries for the lock, and a broken connection is opened again.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Task {
    pub(super) app: Arc<App>,
    pub(super) doors: Doors,
    /// A place that gets the same, and that nothing waits for.
    pub(super) mirror: Option<Doors>,
}

/// The ways into a place.
pub(super) struct Doors {
    pub(super) objects: Arc<dyn Sink>,
    pub(super) heads: Arc<dyn Sink>,
    pub(super) keys: Arc<dyn Sink>,
}

/// Why a term ended.
#[derive(Debug)]
pub(super) enum Ended {
    Storage(StorageError),
    /// A courier is gone, which takes a panic.
    Courier,
    /// The hub holds another history: see `Term::confirm`.
    Superseded,
    /// The process stops, and the edge didn't take the last head in time.
    OutOfTime,
}

impl From<StorageError> for Ended {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::Courier => f.write_str("a courier is gone"),
            Self::OutOfTime => f.write_str("the edge didn't take it in time"),
            Self::Superseded => f.write_str("the hub holds a head that this database didn't make"),
        }
    }
}

impl Task {
    /// Until `stopping`; then what is queued goes out first.
    pub(super) async fn run(self, mut stopping: watch::Receiver<bool>) {
        let mut outage = Outage::new("the publisher starts over:", "the publisher works again");
        loop {
            let Err(ended) = self.serve(&mut stopping, &mut outage).await else { return };
            if *stopping.borrow() {
                return warn!("what was revoked last isn't published before the stop: {ended}");
            }
            outage.fails(ended);
            self.app.publisher.set_role(Role::Disconnected);
            tokio::select! {
                () = sleep(RETRY) => {}
                () = stopped(&mut stopping) => return,
            }
        }
    }

    /// Follows until it leads, leads until the connection breaks or the process stops.
    async fn serve(&self, stopping: &mut watch::Receiver<bool>, outage: &mut Outage) -> Result<(), Ended> {
        let term = tokio::select! {
            term = self.follow(outage) => term?,
            () = stopped(stopping) => return Ok(()),
        };
        term.lead(stopping).await
    }

    async fn follow(&self, outage: &mut Outage) -> Result<Term<'_>, Ended> {
        let mut leadership = Leadership::open(&self.app.database).await?;
        while !leadership.acquire().await? {
            self.app.publisher.set_role(Role::Follower);
            outage.works();
            sleep(RETRY).await;
        }
        self.app.publisher.set_role(Role::Leader);
        info!("this process publishes revocations");
        let term = Term::begin(self, leadership).await?;
        outage.works();
        Ok(term)
    }
}

/// Returns when the process stops.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // Without a sender nobody is left to ask for it, nor to wait.
    _ = stopping.wait_for(|stop| *stop).await;
}
