//! Group commit: the events of all requests that wait at one moment are one insert and one commit.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;
use tracing::{Instrument as _, warn};

use crate::storage::audit::{Record, Writer};
use crate::storage::{Database, StorageError};
use crate::traces::errand;

/// Events that wait for the writer; who comes when it is full waits to hand in.
pub(crate) const WAITING: usize = 4096;
/// Events of one insert.
pub(crate) const BATCH: usize = 512;
/// How long one may take: less than a request's deadline, so that its answer says why.
pub(crate) const PATIENCE: Duration = Duration::from_millis(3500);

struct Pending {
    record: Record,
    written: oneshot::Sender<Result<(), StorageError>>,
}

/// Where events are handed in.
pub(super) struct Inbox(mpsc::Sender<Pending>);

impl Inbox {
    /// Returns when `record` is committed.
    pub(super) async fn write(&self, record: Record) -> Result<(), StorageError> {
        let stopped = || StorageError::Unavailable(sqlx::Error::PoolClosed);
        let (written, answer) = oneshot::channel();
        self.0.send(Pending { record, written }).await.map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// Starts the task, which ends when it is `stopping` and everything handed in is written.
pub(super) fn start(database: &Database, stopping: watch::Receiver<bool>) -> (Inbox, JoinHandle<()>) {
    let (sender, inbox) = mpsc::channel(WAITING);
    (Inbox(sender), tokio::spawn(run(Writer::open(database), inbox, stopping)))
}

async fn run(writer: Writer, mut inbox: mpsc::Receiver<Pending>, mut stopping: watch::Receiver<bool>) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let taken = tokio::select! {
            taken = inbox.recv_many(&mut batch, BATCH) => taken,
            () = stop(&mut stopping), if !inbox.is_closed() => {
                inbox.close();
                continue;
            }
        };
        if taken == 0 {
            break;
        }
        // Who is about to hand in, too, goes first: a commit costs as much for one event as for all that there are.
        yield_now().await;
        while batch.len() < BATCH
            && let Ok(pending) = inbox.try_recv()
        {
            batch.push(pending);
        }
        write(&writer, &mut batch).instrument(errand!("audit write")).await;
    }
    writer.close().await;
}

async fn stop(stopping: &mut watch::Receiver<bool>) {
    _ = stopping.wait_for(|stop| *stop).await;
}

/// Writes all of `batch`, and tells everybody.
async fn write(writer: &Writer, batch: &mut Vec<Pending>) {
    let (records, waiting): (Vec<Record>, Vec<_>) =
        batch.drain(..).map(|Pending { record, written }| (record, written)).unzip();
    match attempt(writer, &records).await {
        Ok(()) => {
            for written in waiting {
                _ = written.send(Ok(()));
            }
        }
        // One that the database refuses must not take the others with it.
        Err(StorageError::Refused(_)) if records.len() > 1 => {
            for (record, written) in records.iter().zip(waiting) {
                _ = written.send(attempt(writer, std::slice::from_ref(record)).await);
            }
        }
        Err(error) => {
            warn!(events = records.len(), "audit events can't be written: {error}");
            for written in waiting {
                _ = written.send(Err(error.again()));
            }
        }
    }
}

async fn attempt(writer: &Writer, records: &[Record]) -> Result<(), StorageError> {
    let writing = pin!(writer.write(records)); // in its place: it is large
    let outcome = timeout(PATIENCE, writing).await;
    outcome.unwrap_or(Err(StorageError::Unavailable(sqlx::Error::PoolTimedOut)))
}
