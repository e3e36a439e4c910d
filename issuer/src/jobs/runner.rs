//! An issuer's share of the jobs: each that is due and that nobody else is at.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{info, warn};

use super::Job;
use crate::config::AuditRetention;
use crate::storage::{Database, StorageError, jobs as storage};

/// How often it is looked whether one is due; first after this.
const LOOK: Duration = Duration::from_secs(5);

/// The jobs' task.
pub struct Jobs {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Starts it.
pub fn start(database: &Database, retention: AuditRetention) -> Jobs {
    let (stop, mut stopping) = watch::channel(false);
    let runner = Runner { database: database.clone(), retention, failing: false };
    let task = tokio::spawn(async move {
        tokio::select! {
            () = runner.work() => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    });
    Jobs { stop, task }
}

impl Jobs {
    /// Ends it, between two statements or with one that isn't committed. What is left to do is done by another issuer, or later.
    pub async fn stop(self) {
        _ = self.stop.send(true);
        _ = self.task.await;
    }
}

struct Runner {
    database: Database,
    retention: AuditRetention,
    failing: bool,
}

impl Runner {
    async fn work(mut self) {
        loop {
            sleep(LOOK).await;
            match self.round().await {
                Ok(()) if self.failing => {
                    self.failing = false;
                    info!("jobs are done again");
                }
                Ok(()) => {}
                Err(error) if self.failing => tracing::debug!("jobs aren't done: {error}"),
                Err(error) => {
                    self.failing = true;
                    warn!("jobs aren't done, trying on: {error}");
                }
            }
        }
    }

    /// Every job that is due.
    async fn round(&self) -> Result<(), StorageError> {
        let due = storage::due(&self.database, &Job::ALL.map(Job::as_str)).await?;
        for job in Job::ALL.into_iter().filter(|job| due.iter().any(|name| name == job.as_str())) {
            let Some(outcome) = super::run(&self.database, job, self.retention, true).await? else {
                continue;
            };
            if let Some(failure) = &outcome.failure {
                warn!(
                    job = job.as_str(),
                    removed = outcome.removed,
                    "a job failed, and is tried again in a minute: {failure}"
                );
            }
        }
        Ok(())
    }
}
