//! `signing_keys`.

use countersign_shared::Algorithm;

use super::{Database, StorageError, Transaction};
use crate::domain::signing_key::{KeyRecord, Purpose, Sealed};

/// Holds up every other process that would make keys, until the transaction ends.
pub async fn lock(transaction: &mut Transaction) -> Result<(), StorageError> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('countersign keys', 0))")
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Whether a key signs for `purpose`.
pub async fn has_active(transaction: &mut Transaction, purpose: Purpose) -> Result<bool, StorageError> {
    let found = sqlx::query_scalar!(
        r#"select exists (select from signing_keys where purpose = $1 and state = 'active') as "found!""#,
        purpose.as_str(),
    );
    Ok(found.fetch_one(&mut **transaction).await?)
}

/// Whether `kid` is a key of tokens.
pub async fn signs_tokens(transaction: &mut Transaction, kid: &str) -> Result<bool, StorageError> {
    let found = sqlx::query_scalar!(
        r#"select exists (select from signing_keys where kid = $1 and purpose = 'token') as "found!""#,
        kid,
    );
    Ok(found.fetch_one(&mut **transaction).await?)
}

/// Adds a key.
pub async fn insert(transaction: &mut Transaction, key: &KeyRecord) -> Result<(), StorageError> {
    sqlx::query!(
        "insert into signing_keys (kid, purpose, algorithm, state, public_jwk, sealed_data_key, sealed_private)
         values ($1, $2, $3, $4, $5, $6, $7)",
        key.kid,
        key.purpose.as_str(),
        key.algorithm.as_str(),
        key.state.as_str(),
        key.public_jwk,
        key.sealed.data_key,
        key.sealed.value,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Every key, oldest first.
pub async fn list(database: &Database) -> Result<Vec<KeyRecord>, StorageError> {
    let rows = sqlx::query!(
        "select kid, purpose, algorithm, state, public_jwk, sealed_data_key, sealed_private, created_at
         from signing_keys order by created_at, kid"
    )
    .fetch_all(&database.installation)
    .await?;
    let records = rows.into_iter().map(|row| {
        let problem = StorageError::row("signing_keys", row.kid.clone());
        let algorithm = Algorithm::from_name(&row.algorithm).ok_or_else(|| StorageError::Row {
            table: "signing_keys",
            id: row.kid.clone(),
            problem: format!("`{}` is no algorithm", row.algorithm),
        })?;
        let (purpose, state) = (row.purpose.parse().map_err(&problem)?, row.state.parse().map_err(&problem)?);
        Ok(KeyRecord {
            purpose,
            state,
            algorithm,
            public_jwk: row.public_jwk,
            sealed: Sealed { data_key: row.sealed_data_key, value: row.sealed_private },
            created_at: Some(row.created_at),
            kid: row.kid,
        })
    });
    records.collect()
}
