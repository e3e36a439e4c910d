//! Verifying the log: every chain, from its checkpoint to its end, in bounded memory.

use time::OffsetDateTime;
use uuid::Uuid;

use super::walk::{Finding, Kind, Walk};
use crate::domain::audit::Hash;
use crate::storage::audit::{self, ChainEnd};
use crate::storage::{Database, StorageError};

/// Rows read at once.
const PAGE: i64 = 1000;

/// One chain, verified.
#[derive(Debug)]
pub struct Verified {
    /// Whose it is; [`INSTALLATION`](crate::domain::audit::INSTALLATION): the installation's own.
    pub tenant: Uuid,
    /// How many events it has.
    pub events: u64,
    /// The last event that is gone because its time was over: what is verified comes after it.
    pub checkpoint: Option<i64>,
    /// `seq` and hash of the last event. Kept elsewhere, they show later whether the chain was rewritten as a whole.
    pub end: Option<(i64, Hash)>,
    /// What was done to it.
    pub findings: Vec<Finding>,
    /// How many findings there are besides.
    pub more: usize,
}

/// Verifies the chain of `tenant`. Events that are sealed meanwhile are verified too.
pub async fn chain(database: &Database, tenant: Uuid) -> Result<Verified, StorageError> {
    let checkpoint = audit::checkpoint(database, tenant).await?;
    let mut walk = Walk::new(checkpoint);
    let mut after: Option<(i64, OffsetDateTime)> = None;
    let end = loop {
        let rows = audit::rows_after(database, tenant, after, PAGE).await?;
        if rows.is_empty() {
            match audit::end_after(database, tenant, after).await? {
                ChainEnd::At(end) => break end,
                ChainEnd::NotYet => continue,
            }
        }
        for row in rows {
            // Rows may have been dropped since the last page.
            if walk.skips_to(&row)
                && let Some(checkpoint) = audit::checkpoint(database, tenant).await?
            {
                walk.advance(checkpoint);
            }
            after = Some((row.seq, row.recorded_at));
            walk.pass(&row);
        }
    };
    let events = walk.rows();
    let mut found = walk.finish(end);
    if events == 0
        && end.is_none()
        && checkpoint.is_none()
        && audit::ought_to_have_chain(database, tenant).await?
    {
        found.findings.push(Finding {
            kind: Kind::Removed,
            seq: 1,
            last_seq: 1,
            event_id: None,
            explanation:
                "the whole chain is gone: there is the tenant, whose making is a chain's first event"
                    .to_owned(),
        });
    }
    let checkpoint = checkpoint.map(|(seq, _)| seq);
    Ok(Verified { tenant, events, checkpoint, end, findings: found.findings, more: found.more })
}

/// The chain after that of `after`, in the order of their ids.
pub async fn next(database: &Database, after: Option<Uuid>) -> Result<Option<Uuid>, StorageError> {
    audit::next_chain(database, after).await
}
