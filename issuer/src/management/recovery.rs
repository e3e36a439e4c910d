//! After the database was restored from a backup: it lacks what was revoked since, and would issue serials again that were issued before.

use countersign_shared::UnixTime;
use countersign_shared::revocation::Level;
use serde_json::json;

use crate::clock;
use crate::domain::audit::{Action, Event, Origin};
use crate::storage::not_before::{self, REPLICA_LAG_SECONDS};
use crate::storage::{Database, StorageError, audit, outbox, serials, signing_keys};

/// The longest life of any token, in seconds.
const LONGEST_LIFETIME: i64 = 86_400;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Heads have it from now on: above every one that any earlier state of this database can have had.
    pub epoch: u64,
    /// Every token that was issued up to then has ended.
    pub ended_up_to: UnixTime,
}

/// Makes a restored database one that edges believe, in one transaction: nothing of it holds by half.
///
/// - Every token issued so far ends. Which of them were revoked after the backup was made isn't known any more, so none can be let live.
/// - Serials are taken far beyond those that the backup knows of, so that none is issued twice.
/// - The keys' version rises likewise, so that no issuer takes what it has read before for what there is.
/// - The epoch rises, to the time at least: above that of heads that are at an edge from a recovery which this backup doesn't know of either.
pub async fn recover(database: &Database, reason: &str) -> Result<Recovered, StorageError> {
    let origin = Origin::default();
    let mut transaction = database.begin_installation().await?;
    let now = clock::now();
    let ended_up_to = now.plus(REPLICA_LAG_SECONDS);
    let epoch = outbox::raise_epoch(&mut transaction, now).await?;
    signing_keys::jump_version(&mut transaction, now).await?;
    serials::skip(&mut transaction, now, now.plus(LONGEST_LIFETIME)).await?;
    not_before::end_tokens(&mut transaction, None, Level::Global, &[], ended_up_to).await?;
    let event = Event::of_installation(Action::Recovered, &origin)
        .with(json!({ "reason": reason, "epoch": epoch, "issued_up_to": ended_up_to.0 }));
    audit::record_in(&mut transaction, &event).await?;
    Database::commit(transaction).await?;
    Ok(Recovered { epoch, ended_up_to })
}
