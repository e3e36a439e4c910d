//! The audit log: what was done, by whom, chained so that nobody can change it unnoticed.
//!
//! In two stages, so that chains put no lock in a request's way. An event is queued durably with what it is about: in its transaction
//! (`storage::audit::record_in`), or by [`Audit::record`], which writes down the events of many requests at once. Then one sealer among all
//! issuers ([`sealer`]) gives each its place in its tenant's chain ([`chain`]). [`verify`] walks the chains and names what doesn't fit.

pub mod chain;
mod sealer;
mod status;
pub mod verify;
pub mod walk;
pub(crate) mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::domain::audit::Event;
use crate::limits::places::Places;
use crate::storage::audit::{Record, first_queued, last_queued, wake_sealer};
use crate::storage::status_lists::Listed;
use crate::storage::{Database, StorageError};
use status::Status;

/// How long a reader waits for what was queued before it came.
const SEALING_PATIENCE: Duration = Duration::from_secs(1);
/// How often it looks.
const SEALING_POLL: Duration = Duration::from_millis(15);
/// Exports at once in a process, of one tenant and of all: each holds memory for as long as its client likes to read.
pub(crate) const MAX_EXPORTS: (usize, usize) = (2, 32);

/// The audit log of a running issuer.
pub struct Audit {
    writer: writer::Inbox,
    status: Arc<Status>,
    /// One place for each export under way.
    pub(crate) exports: Places,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Audit {
    /// Starts writer and sealer.
    pub fn start(database: &Database) -> Self {
        let (stop, stopping) = watch::channel(false);
        let status = Arc::<Status>::default();
        let (writer, writing) = writer::start(database, stopping.clone());
        let sealer = sealer::Task { database: database.clone(), status: status.clone() };
        let tasks = Mutex::new(vec![writing, tokio::spawn(sealer.run(stopping))]);
        Self { writer, status, exports: Places::new(MAX_EXPORTS.0, MAX_EXPORTS.1), stop, tasks }
    }

    /// Writes `event` down by itself. When this returns it is committed.
    pub async fn record(&self, event: &Event<'_>) -> Result<(), StorageError> {
        self.writer.write(Record::of(event)).await
    }

    /// The same for a token that was issued. Where it says where its status can be read, the list knows it when this returns.
    pub async fn record_token(&self, event: &Event<'_>, listed: Option<Listed>) -> Result<(), StorageError> {
        self.writer.write(Record::of(event).listing(listed)).await
    }

    /// Whether somebody should look at the sealer.
    pub fn is_failing(&self) -> bool {
        self.status.is_failing()
    }

    /// Writes down what requests have handed in, and ends. What isn't sealed stays in the queue for the next sealer.
    pub async fn stop(&self) {
        _ = self.stop.send(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            _ = task.await;
        }
    }
}

/// Returns once what is queued now has been sealed, so that a reader finds what it has done itself; after a second in any case.
pub async fn caught_up(database: &Database) -> Result<(), StorageError> {
    let Some(last) = last_queued(database).await? else { return Ok(()) };
    wake_sealer(database).await?;
    let deadline = Instant::now() + SEALING_PATIENCE;
    while Instant::now() < deadline {
        sleep(SEALING_POLL).await;
        match first_queued(database).await? {
            Some(first) if first <= last => {}
            _ => return Ok(()),
        }
    }
    Ok(())
}
