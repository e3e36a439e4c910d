//! Moving everything that is sealed to another master key, while issuers run.
//!
//! Only data keys are sealed anew, row by row, each in a transaction of its own: wherever it stops, every row names the master key that opens
//! it, and the next run goes on. Issuers that were given both master keys open either kind.

use std::collections::BTreeSet;

use serde_json::json;

use super::envelope::{self, RewrapError};
use super::provision::secret_context;
use super::{KeyError, MasterKey, Place};
use crate::domain::audit::{Action, Event, Origin};
use crate::domain::signing_key::KeyRecord;
use crate::storage::sealed::{self, Row};
use crate::storage::{Database, audit, server_secrets, signing_keys};

/// What came of it.
pub struct Rewrapped {
    /// The master keys that rows were under, by their ids.
    pub from: BTreeSet<String>,
    /// The one that they are under now.
    pub to: String,
    /// How many were moved by this run.
    pub rows: usize,
    /// Those that couldn't be, and why.
    pub failed: Vec<(Row, KeyError)>,
}

/// Puts every row under the next master key of `master`.
pub async fn rewrap(database: &Database, master: &MasterKey) -> Result<Rewrapped, KeyError> {
    let next =
        master.next().ok_or_else(|| KeyError::MasterKeyUnavailable("there is none to move to".to_owned()))?;
    let mut done = Rewrapped { from: BTreeSet::new(), to: next.id().to_owned(), rows: 0, failed: Vec::new() };
    loop {
        // An issuer may have made another one meanwhile.
        let mut transaction = database.begin_installation().await?;
        super::lock(&mut transaction, master).await?;
        let mut rest = sealed::not_under(&mut transaction, &done.to).await?;
        rest.retain(|row| done.failed.iter().all(|(failed, _)| failed != row));
        if rest.is_empty() {
            if done.rows > 0 {
                let details = json!({ "from": done.from, "to": done.to, "rows": done.rows, "failed": done.failed.len() });
                let origin = Origin::default();
                let event = Event::of_installation(Action::MasterKeyReplaced, &origin).with(details);
                audit::record_in(&mut transaction, &event).await?;
            }
            Database::commit(transaction).await?;
            return Ok(done);
        }
        drop(transaction);
        let records = signing_keys::list(database).await?;
        for row in rest {
            match move_row(database, master, &records, &row).await {
                Ok(Some(from)) => {
                    done.rows += 1;
                    done.from.insert(from);
                }
                Ok(None) => {}
                // The others are no worse for it.
                Err(error @ (KeyError::Damaged(_) | KeyError::WrongMasterKey { .. })) => {
                    done.failed.push((row, error));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Returns the id of the master key that the row was under; `None` where it changed or went meanwhile.
async fn move_row(
    database: &Database,
    master: &MasterKey,
    records: &[KeyRecord],
    row: &Row,
) -> Result<Option<String>, KeyError> {
    let place;
    let (context, before) = match row {
        Row::SigningKey(kid) => {
            let Some(record) = records.iter().find(|record| record.kid == *kid) else { return Ok(None) };
            place = Place::of(record)?;
            (place.context(), record.sealed.clone())
        }
        Row::ServerSecret(name) => {
            let Some(sealed) = server_secrets::find(database, name).await? else { return Ok(None) };
            (secret_context(name), sealed)
        }
    };
    let after = envelope::rewrap(master, &context, &before).map_err(|error| match error {
        RewrapError::Open(error) => KeyError::opening(error, row.id(), master),
        RewrapError::Seal(error) => error.into(),
    })?;
    let mut transaction = database.begin_installation().await?;
    let moved = sealed::replace(&mut transaction, row, &before, &after).await?;
    Database::commit(transaction).await?;
    Ok(moved.then(|| before.master_key_id.unwrap_or_else(|| "not named".to_owned())))
}
