//! Beginning and ending maintenance, for every issuer.

use serde_json::json;

use crate::domain::audit::{Action, Event, Origin};
use crate::maintenance::Mode;
use crate::storage::{Database, StorageError, audit, maintenance};

/// Begins it, or changes what it is. Every issuer hears of it when this returns, and follows within a second. Gives what is in force then.
pub async fn begin(database: &Database, mode: Mode) -> Result<Mode, StorageError> {
    let mut transaction = database.begin_installation().await?;
    let before = maintenance::read_for_change(&mut transaction).await?;
    let mode = Mode { since: before.as_ref().map_or(mode.since, |before| before.since), ..mode };
    if before.as_ref() == Some(&mode) {
        return Ok(mode);
    }
    maintenance::begin(&mut transaction, &mode).await?;
    audit::record_in(&mut transaction, &begun(&mode, "everywhere", &Origin::default())).await?;
    Database::commit(transaction).await?;
    Ok(mode)
}

/// Ends it. Whether there was any.
pub async fn end(database: &Database) -> Result<bool, StorageError> {
    let mut transaction = database.begin_installation().await?;
    if maintenance::read_for_change(&mut transaction).await?.is_none() {
        return Ok(false);
    }
    maintenance::end(&mut transaction).await?;
    audit::record_in(&mut transaction, &ended("everywhere", &Origin::default())).await?;
    Database::commit(transaction).await?;
    Ok(true)
}

/// What is written down of its beginning: `reach` is `everywhere`, or `process`.
pub fn begun<'a>(mode: &Mode, reach: &str, origin: &'a Origin) -> Event<'a> {
    let details = json!({ "reach": reach, "tokens": mode.tokens, "reason": mode.reason });
    Event::of_installation(Action::MaintenanceBegun, origin).with(details)
}

/// And of its end.
pub fn ended<'a>(reach: &str, origin: &'a Origin) -> Event<'a> {
    Event::of_installation(Action::MaintenanceEnded, origin).with(json!({ "reach": reach }))
}
