//! Which master key the rows of `signing_keys` and `server_secrets` are sealed under.

use super::{StorageError, Transaction};
use crate::domain::signing_key::Sealed;

/// A row that is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A signing key, by its kid.
    SigningKey(String),
    /// One of the server's secrets, by its name.
    ServerSecret(String),
}

impl Row {
    /// Its key in its table.
    pub fn id(&self) -> &str {
        match self {
            Self::SigningKey(id) | Self::ServerSecret(id) => id,
        }
    }
}

/// Whether any row is sealed under the master key `id`.
pub async fn is_in_use(transaction: &mut Transaction, id: &str) -> Result<bool, StorageError> {
    let found = sqlx::query_scalar!(
        r#"select exists (select from signing_keys where master_key_id = $1)
            or exists (select from server_secrets where master_key_id = $1) as "found!""#,
        id,
    );
    Ok(found.fetch_one(&mut **transaction).await?)
}

/// Every row that isn't sealed under the master key `id`; those that name none are among them.
pub async fn not_under(transaction: &mut Transaction, id: &str) -> Result<Vec<Row>, StorageError> {
    let names = sqlx::query_scalar!(
        "select name from server_secrets where master_key_id is distinct from $1 order by name",
        id
    );
    let kids = sqlx::query_scalar!(
        "select kid from signing_keys where master_key_id is distinct from $1 order by created_at, kid",
        id
    );
    let names = names.fetch_all(&mut **transaction).await?.into_iter().map(Row::ServerSecret);
    let kids = kids.fetch_all(&mut **transaction).await?.into_iter().map(Row::SigningKey);
    Ok(names.chain(kids).collect())
}

/// Puts a row's data key under another master key. `false` where the row isn't `before` any more.
pub async fn replace(
    transaction: &mut Transaction,
    row: &Row,
    before: &Sealed,
    after: &Sealed,
) -> Result<bool, StorageError> {
    let (id, data_key) = (after.master_key_id.as_deref(), after.data_key.as_slice());
    let done = match row {
        Row::SigningKey(kid) => {
            sqlx::query!(
                "update signing_keys set master_key_id = $1, sealed_data_key = $2 where kid = $3 and sealed_data_key = $4",
                id,
                data_key,
                kid,
                before.data_key,
            )
            .execute(&mut **transaction)
            .await?
        }
        Row::ServerSecret(name) => {
            sqlx::query!(
                "update server_secrets set master_key_id = $1, sealed_data_key = $2 where name = $3 and sealed_data_key = $4",
                id,
                data_key,
                name,
                before.data_key,
            )
            .execute(&mut **transaction)
            .await?
        }
    };
    Ok(done.rows_affected() == 1)
}
