//! The schema: bringing it up to date, and refusing to run on one that isn't fit for this binary.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use sqlx::migrate::{Migrate as _, MigrateError, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use time::OffsetDateTime;
use tracing::warn;

use super::{Database, StorageError};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// A schema on which this binary works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It is the one that it was made for.
    Exact,
    /// It has this migration, the newest there is, which the binary doesn't know, and says that the binary works nevertheless.
    Newer(i64),
}

/// Why this binary doesn't work on the schema.
#[derive(Debug)]
pub enum Mismatch {
    /// Migrations are missing.
    Behind,
    /// It has this migration, which this binary doesn't know, and isn't for binaries that old.
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
                "the database schema is newer than this binary (migration {version}), and too new for it: run the version that made it, or a newer one"
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

/// Whether this binary works on the schema: it is the one that the binary was made for, or a newer one that says so.
pub async fn check(database: &Database) -> Result<Fit, Mismatch> {
    let mut connection = database.installation.acquire().await.map_err(StorageError::from)?;
    let rows = applied(&mut connection).await?;
    let applied = rows.into_iter().filter(|row| row.success).map(|row| (row.version, row.checksum)).collect();
    compare(&mut connection, &applied).await
}

/// The same; a newer schema is worth a line in the log.
pub async fn require(database: &Database) -> Result<(), Mismatch> {
    if let Fit::Newer(version) = check(database).await? {
        warn!(
            version,
            newest_known = newest(),
            "the database schema is newer than this binary, and works with it: run the version that made it, as soon as that is rolled out"
        );
    }
    Ok(())
}

async fn compare(connection: &mut PgConnection, applied: &BTreeMap<i64, Vec<u8>>) -> Result<Fit, Mismatch> {
    let unknown = applied.keys().rfind(|version| !MIGRATIONS.version_exists(**version)).copied();
    let mut is_behind = false;
    for migration in MIGRATIONS.iter() {
        match applied.get(&migration.version) {
            None => is_behind = true,
            Some(checksum) if *checksum != *migration.checksum => {
                return Err(Mismatch::Altered(migration.version));
            }
            Some(_) => {}
        }
    }
    match unknown {
        None if is_behind => Err(Mismatch::Behind),
        None => Ok(Fit::Exact),
        // It has what this binary doesn't know and lacks what it does: the two have gone apart.
        Some(version) if is_behind => Err(Mismatch::Ahead(version)),
        Some(version) if MIGRATIONS.version_exists(compatible_from(connection).await?) => {
            Ok(Fit::Newer(version))
        }
        Some(version) => Err(Mismatch::Ahead(version)),
    }
}

/// The newest migration of the oldest release that works on the schema.
async fn compatible_from(connection: &mut PgConnection) -> Result<i64, StorageError> {
    // Not `query!`: this is asked of schemas that aren't this binary's.
    let row = sqlx::query_scalar("select compatible_from from schema_compatibility");
    Ok(row.fetch_one(connection).await?)
}

/// What `migrate` did.
#[derive(Debug)]
pub struct Migrated {
    /// The migrations it applied, as "version description".
    pub applied: Vec<String>,
    /// The newest migration, where that is one that this binary doesn't know.
    pub newer: Option<i64>,
}

/// Applies what is missing, each migration in a transaction of its own. Replicas may do this at once: an advisory lock lets one after the
/// other. Nothing is applied to a schema that is newer than this binary, or was altered; newer is no failure where this binary works on it.
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
    match compare(&mut connection, &known).await {
        Ok(Fit::Exact) | Err(Mismatch::Behind) => {}
        // A replica that is started again while the release after it is rolled out may migrate first, and has nothing to do.
        Ok(Fit::Newer(version)) => return Ok(Migrated { applied: Vec::new(), newer: Some(version) }),
        Err(mismatch) => return Err(NotMigrated::Mismatch(mismatch)),
    }
    MIGRATIONS.run(&mut connection).await?;
    _ = tokio::time::timeout(Duration::from_secs(1), connection.close()).await;
    let new = MIGRATIONS.iter().filter(|migration| !known.contains_key(&migration.version));
    Ok(Migrated {
        applied: new.map(|migration| format!("{} {}", migration.version, migration.description)).collect(),
        newer: None,
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
