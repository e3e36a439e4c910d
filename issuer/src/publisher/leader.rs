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
            Self::Superseded => f.write_str("the hub holds a head that this database didn't make"),
        }
    }
}

impl Task {
    /// Until `stopping`.
    pub(super) async fn run(self, mut stopping: watch::Receiver<bool>) {
        tokio::select! {
            () = self.work() => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    }

    async fn work(&self) {
        loop {
            let Err(ended) = self.serve().await;
            warn!("the publisher starts over: {ended}");
            self.app.publisher.set_role(Role::Disconnected);
            sleep(RETRY).await;
        }
    }

    /// Follows until it leads, leads until the connection breaks.
    async fn serve(&self) -> Result<std::convert::Infallible, Ended> {
        let mut leadership = Leadership::open(&self.app.database).await?;
        while !leadership.acquire().await? {
            self.app.publisher.set_role(Role::Follower);
            sleep(RETRY).await;
        }
        self.app.publisher.set_role(Role::Leader);
        info!("this process publishes revocations");
        Term::begin(self, leadership).await?.lead().await
    }
}
