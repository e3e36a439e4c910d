//! A transaction, and what has to be looked at once it is committed.

use std::ops::{Deref, DerefMut};

use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Postgres};
use tracing::Instrument as _;

use super::not_before::{self, HolderEnded};
use super::{Database, StorageError};
use crate::traces::step;

/// A transaction under way; dropped, it is rolled back.
pub struct Transaction {
    inner: sqlx::Transaction<'static, Postgres>,
    /// Where a rule is written again if the commit takes long.
    installation: PgPool,
    /// Whose tokens it ends together with what lets them have new ones.
    pub(super) ended: Vec<HolderEnded>,
}

impl Transaction {
    /// Begins on `pool`, with `statements` where these differ from `begin`.
    pub(super) async fn begin(
        pool: &PgPool,
        statements: Option<String>,
        database: &Database,
    ) -> Result<Self, StorageError> {
        // With the wait for a connection.
        let span = step!("database begin");
        let inner = match statements {
            Some(statements) => pool.begin_with(AssertSqlSafe(statements)).instrument(span).await?,
            None => pool.begin().instrument(span).await?,
        };
        Ok(Self { inner, installation: database.installation.clone(), ended: Vec::new() })
    }

    /// Commits it. When that took so long that a token could have been issued meanwhile which a rule of this transaction was to end and doesn't,
    /// the rule is written again; an error says that nothing is sure.
    pub(super) async fn commit(self) -> Result<(), StorageError> {
        self.inner.commit().instrument(step!("database commit")).await?;
        not_before::after_commit(&self.installation, &self.ended).await
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.inner
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.inner
    }
}
