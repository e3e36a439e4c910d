//! Reading the audit log.

use serde_json::json;
use uuid::Uuid;

use super::ManagementError;
use super::caller::Caller;
use crate::domain::audit::{Action, Event, Filter, Origin, Sealed};
use crate::domain::page::{Listed, Page, Position};
use crate::storage::{Transaction, audit};

/// Events of the caller's tenant, the newest first; of the installation too where it is the platform's.
pub async fn list(
    transaction: &mut Transaction,
    caller: &Caller,
    filter: &Filter,
    page: &Page,
) -> Result<Listed<Sealed>, ManagementError> {
    let before = page.after.map(|position| position.id);
    let rows = audit::list(transaction, caller.tenant(), filter, before, page.rows()).await?;
    Ok(page.cut(rows, |row| Position { at: row.entry.occurred_at, id: row.entry.event_id }))
}

/// One of them.
pub async fn find(
    transaction: &mut Transaction,
    caller: &Caller,
    event: Uuid,
) -> Result<Sealed, ManagementError> {
    audit::find(transaction, caller.tenant(), event).await?.ok_or(ManagementError::AuditEventNotFound)
}

/// Writes down that the caller exports the events that `filter` lets through: who has them may do what they like with them.
pub async fn begin_export(
    transaction: &mut Transaction,
    caller: &Caller,
    filter: &Filter,
    origin: &Origin,
) -> Result<(), ManagementError> {
    let time = |time: Option<time::OffsetDateTime>| time.map(|time| time.to_string());
    let event = Event::done(caller.tenant(), caller.agent(), Action::AuditExported, origin).with(json!({
        "from": time(filter.from),
        "to": time(filter.to),
        "actor": filter.actor,
        "action": filter.action.map(Action::as_str),
        "target_type": filter.target_type.map(crate::domain::audit::TargetType::as_str),
        "target_id": filter.target_id,
        "outcome": filter.outcome.map(crate::domain::audit::Outcome::as_str),
    }));
    audit::record_in(transaction, &event).await?;
    Ok(())
}

/// The part of an export after the event with the id `before`, or its beginning.
pub async fn export(
    transaction: &mut Transaction,
    caller: &Caller,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Sealed>, ManagementError> {
    Ok(audit::list(transaction, caller.tenant(), filter, before, limit).await?)
}
