//! `server_secrets`.

use super::{Database, StorageError, Transaction};
use crate::domain::signing_key::Sealed;

/// Adds a secret, unless there is one of that name.
pub async fn insert_if_missing(
    transaction: &mut Transaction,
    name: &str,
    sealed: &Sealed,
) -> Result<(), StorageError> {
    sqlx::query!(
        "insert into server_secrets (name, sealed_data_key, sealed_value, master_key_id) values ($1, $2, $3, $4) on conflict do nothing",
        name,
        sealed.data_key,
        sealed.value,
        sealed.master_key_id,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// The secret of that name.
pub async fn find(database: &Database, name: &str) -> Result<Option<Sealed>, StorageError> {
    let row = sqlx::query!(
        "select sealed_data_key, sealed_value, master_key_id from server_secrets where name = $1",
        name
    )
    .fetch_optional(&database.installation)
    .await?;
    Ok(row.map(|row| Sealed {
        master_key_id: row.master_key_id,
        data_key: row.sealed_data_key,
        value: row.sealed_value,
    }))
}
