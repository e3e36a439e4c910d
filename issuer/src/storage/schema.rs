//! The schema: bringing it up to date, and refusing to run on another.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use sqlx::migrate::{Migrate as _, MigrateError, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use time::OffsetDateTime;

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
    let mut connection = database.installation.acquire().await.map_err(StorageError::from)?;
    let rows = applied(&mut connection).await?;
    let applied = rows.into_iter().filter(|row| row.success).map(|row| (row.version, row.checksum)).collect();
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
/// other. Nothing is applied to a schema that is newer than this binary, or was altered.
pub async fn migrate(database: &Database) -> Result<Migrated, NotMigrated> {
    // Not from the pool: its statement timeout is for requests.
    let options = database.options.clone().options([("statement_timeout", "0")]);
    let mut connection = options.connect().await.map_err(StorageError::from)?;
    // Held until the connection is closed: the table of migrations itself is made under it.
    connection.lock().await?;
    connection.ensure_migrations_table(&MIGRATIONS.table_name).await?;
    let before = applied(&mut connection).await?;
    if let Some(half) = before.iter().find(|migration| !migration.success) {
        return Err(NotMigrated::Half(half.version));
    }
    let known = before.iter().map(|migration| (migration.version, migration.checksum.clone())).collect();
    match compare(&known) {
        Ok(()) | Err(Mismatch::Behind) => {}
        Err(mismatch) => return Err(NotMigrated::Mismatch(mismatch)),
    }
    MIGRATIONS.run(&mut connection).await?;
    _ = tokio::time::timeout(Duration::from_secs(1), connection.close()).await;
    let new = MIGRATIONS.iter().filter(|migration| !known.contains_key(&migration.version));
    Ok(Migrated {
        applied: new.map(|migration| format!("{} {}", migration.version, migration.description)).collect(),
    })
}

/// Why the schema wasn't brought up to date.
#[derive(Debug)]
pub enum NotMigrated {
    /// It isn't one that this binary goes on from.
    Mismatch(Mismatch),
    /// That migration, which has no transaction, was broken off.
    Half(i64),
    /// One failed, and left nothing behind.
    Failed(MigrateError),
}

impl fmt::Display for NotMigrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch(mismatch) => mismatch.fmt(f),
            Self::Half(version) => write!(
                f,
                "migration {version} has no transaction, and was broken off: see what of migrations/{version}_*.sql is there and undo it, then \
                 delete its row in _sqlx_migrations"
            ),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NotMigrated {}

impl From<MigrateError> for NotMigrated {
    fn from(error: MigrateError) -> Self {
        Self::Failed(error)
    }
}

impl From<StorageError> for NotMigrated {
    fn from(error: StorageError) -> Self {
        Self::Mismatch(Mismatch::Storage(error))
    }
}

/// How a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It was applied.
    Applied,
    /// It wasn't.
    Pending,
    /// It was applied, and this binary doesn't know it.
    Unknown,
    /// It was applied in another form than this binary has it.
    Altered,
    /// It has no transaction, and was broken off.
    Half,
}

impl State {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Unknown => "unknown",
            Self::Altered => "altered",
            Self::Half => "broken off",
        }
    }
}

/// A migration, in the database or in this binary.
#[derive(Debug, Clone)]
pub struct Known {
    /// When it was written, as a number.
    pub version: i64,
    /// What it does, in a few words.
    pub description: String,
    /// How it stands.
    pub state: State,
    /// When it was applied.
    pub applied_at: Option<OffsetDateTime>,
}

/// Every migration that the database or this binary knows, by version.
pub async fn migrations(database: &Database) -> Result<Vec<Known>, StorageError> {
    let mut connection = database.installation.acquire().await?;
    let mut known: BTreeMap<i64, Known> = MIGRATIONS
        .iter()
        .map(|migration| {
            let (version, description) = (migration.version, migration.description.to_string());
            (version, Known { version, description, state: State::Pending, applied_at: None })
        })
        .collect();
    for row in applied(&mut connection).await? {
        let mut ours = MIGRATIONS.iter().filter(|migration| migration.version == row.version);
        let state = match ours.next() {
            _ if !row.success => State::Half,
            None => State::Unknown,
            Some(migration) if *migration.checksum == *row.checksum => State::Applied,
            Some(_) => State::Altered,
        };
        let (version, description) = (row.version, row.description);
        known.insert(version, Known { version, description, state, applied_at: Some(row.installed_on) });
    }
    Ok(known.into_values().collect())
}

/// The newest migration that this binary knows.
pub fn newest() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

#[derive(sqlx::FromRow)]
struct Row {
    version: i64,
    description: String,
    checksum: Vec<u8>,
    success: bool,
    installed_on: OffsetDateTime,
}

/// What the table of migrations has; nothing where there is none.
async fn applied(connection: &mut PgConnection) -> Result<Vec<Row>, StorageError> {
    // Not `query!`: the table is sqlx's, and may not be there.
    let rows = sqlx::query_as(
        "select version, description, checksum, success, installed_on from _sqlx_migrations order by version",
    );
    match rows.fetch_all(connection).await {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Ok(Vec::new()),
        rows => Ok(rows?),
    }
}
