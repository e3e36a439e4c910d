//! Giving queued events their places in the chains: one process at a time, as long as it holds the lock.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::info;

use super::chain;
use super::status::Status;
use crate::outage::Outage;
use crate::storage::audit::Sealing;
use crate::storage::{Database, StorageError};

/// How often a follower tries for the lock, and a broken connection is opened again.
const RETRY: Duration = Duration::from_secs(1);
/// How long events wait at most when nobody asks for them. Those who read wake the sealer; those who write don't: a notification takes a lock
/// that all of a database's commits share.
const PAUSE: Duration = Duration::from_millis(500);
/// The same after there were some: where many come, they are sealed in small parts, each of which holds up the database for a moment only.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// Events sealed in one transaction.
const BATCH: usize = 4000;

pub(super) struct Task {
    pub(super) database: Database,
    pub(super) status: Arc<Status>,
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
        let mut outage = Outage::new("the audit sealer starts over:", "the audit sealer works again");
        loop {
            let Err(error) = self.serve(&mut outage).await;
            outage.fails(error);
            self.status.fails();
            sleep(RETRY).await;
        }
    }

    /// Follows until it leads, leads until something breaks.
    async fn serve(&self, outage: &mut Outage) -> Result<Infallible, StorageError> {
        let mut sealing = Sealing::open(&self.database).await?;
        while !sealing.acquire().await? {
            self.status.works();
            outage.works();
            sleep(RETRY).await;
        }
        info!("this process seals audit events");
        loop {
            sealing.drain();
            let sealed = sealing.seal(BATCH, chain::extend).await?;
            let more = sealed == BATCH;
            self.status.works();
            outage.works();
            self.status.sealed(more);
            // Whatever came meanwhile is taken together, unless there is plenty already.
            let pause = match sealed {
                0 => PAUSE,
                BATCH => Duration::ZERO,
                _ => BUSY_PAUSE,
            };
            tokio::select! {
                woken = sealing.woken() => woken?,
                () = sleep(pause) => {}
            }
        }
    }
}
