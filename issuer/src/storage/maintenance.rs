//! `maintenance`: one row while the installation is in it. A trigger tells every issuer when that changes.

use sqlx::PgExecutor;

use super::{Database, StorageError, Transaction};
use crate::maintenance::Mode;

/// What it announces (`storage/changes.rs`).
pub const CHANGED: &str = "maintenance";

/// How it stands; `None`: no maintenance.
pub async fn read(database: &Database) -> Result<Option<Mode>, StorageError> {
    find(&database.installation).await
}

/// The same within a transaction, in which nobody else changes it meanwhile.
pub async fn read_for_change(transaction: &mut Transaction) -> Result<Option<Mode>, StorageError> {
    sqlx::query!("lock table maintenance in share row exclusive mode").execute(&mut **transaction).await?;
    find(&mut **transaction).await
}

async fn find(executor: impl PgExecutor<'_>) -> Result<Option<Mode>, StorageError> {
    let mode = sqlx::query_as!(Mode, "select tokens, reason, since from maintenance");
    Ok(mode.fetch_optional(executor).await?)
}

/// Begins it, or changes what it is; since when it is stays.
pub async fn begin(transaction: &mut Transaction, mode: &Mode) -> Result<(), StorageError> {
    sqlx::query!(
        "insert into maintenance (tokens, reason, since) values ($1, $2, $3)
         on conflict (only_row) do update set tokens = excluded.tokens, reason = excluded.reason",
        mode.tokens,
        mode.reason,
        mode.since,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Ends it.
pub async fn end(transaction: &mut Transaction) -> Result<(), StorageError> {
    sqlx::query!("delete from maintenance").execute(&mut **transaction).await?;
    Ok(())
}
