//! The schema: bringing it up to date, and refusing to run on another.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use sqlx::migrate::{Migrate as _, MigrateError, Migrator};
use sqlx::{ConnectOptions as _, Connection as _};

use super::{Database, StorageError};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// How the schema differs from the one that this binary was made for.
#[derive(Debug)]
pub enum Mismatch {
    /// Migrations are missing.
    Behind,
    /// It has a migration that this binary doesn't know.
    Ahead(i64),
    /// A migration was applied in another form.
    Altered(i64),
    /// That can't be told.
    Storage(StorageError),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind => f.write_str("the database schema is not up to date: run: countersign migrate"),
            Self::Ahead(version) => write!(
                f,
                "the database schema is newer than this binary (migration {version}): run the version that made it, or a newer one"
            ),
            Self::Altered(version) => write!(
                f,
                "migration {version} was applied in another form than this binary has it: run the version that made it"
            ),
            Self::Storage(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Mismatch {}

impl From<StorageError> for Mismatch {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Whether the schema is exactly the one that this binary was made for.
pub async fn check(database: &Database) -> Result<(), Mismatch> {
    // Not `query!`: the table is sqlx's, and may not be there.
    let applied: Result<Vec<(i64, Vec<u8>)>, _> =
        sqlx::query_as("select version, checksum from _sqlx_migrations where success")
            .fetch_all(&database.installation)
            .await;
    let applied: BTreeMap<i64, Vec<u8>> = match applied {
        Ok(rows) => rows.into_iter().collect(),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => {
            return Err(Mismatch::Behind);
        }
        Err(error) => return Err(StorageError::from(error).into()),
    };
    compare(&applied)
}

fn compare(applied: &BTreeMap<i64, Vec<u8>>) -> Result<(), Mismatch> {
    if let Some(version) = applied.keys().find(|version| !MIGRATIONS.version_exists(**version)) {
        return Err(Mismatch::Ahead(*version));
    }
    for migration in MIGRATIONS.iter() {
        match applied.get(&migration.version) {
            None => return Err(Mismatch::Behind),
            Some(checksum) if *checksum != *migration.checksum => {
                return Err(Mismatch::Altered(migration.version));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// What `migrate` did.
#[derive(Debug)]
pub struct Migrated {
    /// The migrations it applied, as "version description".
    pub applied: Vec<String>,
}

/// Applies what is missing, each migration in a transaction of its own. Replicas may do this at once: an advisory lock lets one after the
/// other.
pub async fn migrate(database: &Database) -> Result<Migrated, MigrateError> {
    // Not from the pool: its statement timeout is for requests.
    let options = database.options.clone().options([("statement_timeout", "0")]);
    let mut connection = options.connect().await?;
    // Held until the connection is closed: the table of migrations itself is made under it.
    connection.lock().await?;
    connection.ensure_migrations_table(&MIGRATIONS.table_name).await?;
    let before = connection.list_applied_migrations(&MIGRATIONS.table_name).await?;
    MIGRATIONS.run(&mut connection).await?;
    _ = tokio::time::timeout(Duration::from_secs(1), connection.close()).await;
    let new = MIGRATIONS.iter().filter(|migration| before.iter().all(|old| old.version != migration.version));
    Ok(Migrated {
        applied: new.map(|migration| format!("{} {}", migration.version, migration.description)).collect(),
    })
}
