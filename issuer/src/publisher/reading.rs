//! The first base of a term: all that was ever revoked and still matters, read from the database.

use std::sync::Arc;

use countersign_shared::revocation::FormatError;
use tokio::sync::mpsc;

use super::artifacts::{BaseObject, Gathering};
use crate::storage::outbox::{self, Cutoff};
use crate::storage::{Database, StorageError};

/// Why there is no new base.
#[derive(Debug)]
pub(super) enum NotMade {
    Storage(StorageError),
    /// What was made before isn't readable.
    Format(FormatError),
    /// The thread that made it is gone, which takes a panic.
    Interrupted,
}

impl std::fmt::Display for NotMade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::Format(error) => error.fmt(f),
            Self::Interrupted => f.write_str("it was interrupted"),
        }
    }
}

/// Of every entry up to `covers`. Rows become part of the set as they come: what is in memory is the set, and a few thousand rows. It is a connection of its own
/// that they come by: heads go out meanwhile.
pub(super) async fn read_all(
    database: Database,
    covers: u64,
    matter: Cutoff,
) -> Result<Arc<BaseObject>, NotMade> {
    let (rows, mut arriving) = mpsc::channel(2);
    let newest = async move { outbox::each_that_matters(&database, covers, matter, rows).await };
    let gathered = tokio::task::spawn_blocking(move || {
        let mut gathering = Gathering::new(matter);
        while let Some(entries) = arriving.blocking_recv() {
            gathering.add(&entries);
        }
        gathering
    });
    let newest = newest.await.map_err(NotMade::Storage)?;
    let gathering = gathered.await.map_err(|_| NotMade::Interrupted)?;
    let made = tokio::task::spawn_blocking(move || gathering.finish(newest, covers)).await;
    made.map_err(|_| NotMade::Interrupted)?.map(Arc::new).map_err(NotMade::Format)
}

/// Of `old` and what came since.
pub(super) async fn extend(
    old: Arc<BaseObject>,
    entries: Vec<outbox::Entry>,
    covers: u64,
    matter: Cutoff,
) -> Result<Arc<BaseObject>, NotMade> {
    let made = tokio::task::spawn_blocking(move || old.with(&entries, covers, matter)).await;
    made.map_err(|_| NotMade::Interrupted)?.map(Arc::new).map_err(NotMade::Format)
}
