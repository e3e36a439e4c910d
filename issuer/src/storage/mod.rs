//! The only SQL there is. One Postgres, no abstraction over it.
//!
//! Queries are checked against the schema when they are compiled (`migrations/README.md`). Whatever fails is one of two things: the
//! database couldn't be reached, which passes, or something is wrong.

pub mod agents;
pub mod audit;
pub mod credentials;
pub mod outbox;
pub mod revocations;
pub mod schema;
pub mod serials;
pub mod server_secrets;
pub mod signing_keys;
pub mod tenants;

use std::fmt;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Postgres};
use tokio::time::Instant;
use tracing::warn;

use crate::config;
use crate::domain::UnknownWord;

/// How long a request waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one statement may run, in milliseconds: the server ends it.
const STATEMENT_TIMEOUT: &str = "4000";
/// A connection idle for longer is tried before it is used: the server may have been restarted meanwhile.
const TRY_AFTER_IDLE: Duration = Duration::from_secs(1);

/// A transaction under way; dropped, it is rolled back.
pub type Transaction = sqlx::Transaction<'static, Postgres>;

/// The database.
#[derive(Clone)]
pub struct Database {
    pool: PgPool,
    options: PgConnectOptions,
}

impl Database {
    /// Connects, trying again with backoff until `config.startup_timeout` is over. Each failure is one line in the log.
    pub async fn connect(config: &config::Database) -> Result<Self, Unreachable> {
        let options = config
            .options
            .clone()
            .application_name("countersign")
            .options([("statement_timeout", STATEMENT_TIMEOUT), ("timezone", "UTC")])
            .disable_statement_logging();
        let deadline = Instant::now() + config.startup_timeout;
        let mut pause = Duration::from_millis(100);
        loop {
            let Err(cause) = try_connect(&options).await else { break };
            if Instant::now() + pause > deadline {
                return Err(Unreachable { address: config.address(), cause });
            }
            warn!(
                address = config.address(),
                retry_in_ms = pause.as_millis(),
                "PostgreSQL at {} {cause}",
                config.address()
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        let pool = PgPoolOptions::new()
            .max_connections(config.pool_size)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false) // it would cost every request a round trip
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for < TRY_AFTER_IDLE {
                        return Ok(true);
                    }
                    let answer = tokio::time::timeout(Duration::from_secs(1), connection.ping()).await;
                    Ok(matches!(answer, Ok(Ok(()))))
                })
            })
            .connect_lazy_with(options.clone());
        Ok(Self { pool, options })
    }

    /// Begins a transaction.
    pub async fn begin(&self) -> Result<Transaction, StorageError> {
        Ok(self.pool.begin().await?)
    }

    /// Commits it.
    pub async fn commit(transaction: Transaction) -> Result<(), StorageError> {
        Ok(transaction.commit().await?)
    }

    /// A pool of one connection, for who needs it to be theirs alone.
    pub(crate) fn dedicated(&self) -> PgPool {
        // Reading all entries may take longer than a request may; and a lock must not outlive a leader whose host vanished.
        let options = self.options.clone().options([
            ("statement_timeout", "60000"),
            ("tcp_keepalives_idle", "5"),
            ("tcp_keepalives_interval", "2"),
            ("tcp_keepalives_count", "3"),
        ]);
        PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options)
    }

    /// Closes every connection, once it is back.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

async fn try_connect(options: &PgConnectOptions) -> Result<(), String> {
    match tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect()).await {
        Ok(Ok(connection)) => {
            _ = connection.close().await;
            Ok(())
        }
        // The server's own words, e.g. about a wrong password. They name the user, never the password.
        Ok(Err(sqlx::Error::Database(error))) => Err(format!("refuses the connection: {}", error.message())),
        Ok(Err(sqlx::Error::Io(error))) => Err(format!("can't be reached: {error}")),
        Ok(Err(error)) => Err(format!("can't be used: {error}")),
        Err(_) => Err("doesn't answer".to_owned()),
    }
}

/// The database couldn't be reached in the time there was.
#[derive(Debug)]
pub struct Unreachable {
    address: String,
    cause: String,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, cause } = self;
        write!(f, "PostgreSQL at {address} {cause}: start it, or correct DATABASE_URL")
    }
}

impl std::error::Error for Unreachable {}

/// What the database didn't do.
#[derive(Debug)]
pub enum StorageError {
    /// It couldn't be reached, or had no time: worth another try.
    Unavailable(sqlx::Error),
    /// It refused, and would again.
    Refused(sqlx::Error),
    /// A row makes no sense; says which and why.
    Row {
        /// The table.
        table: &'static str,
        /// The row's key.
        id: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl StorageError {
    /// For a row whose word isn't one.
    fn row(table: &'static str, id: impl ToString) -> impl Fn(UnknownWord) -> Self {
        move |unknown| Self::Row { table, id: id.to_string(), problem: unknown.to_string() }
    }

    /// The unique constraint or index that refused a row.
    fn violated(error: &sqlx::Error) -> Option<&str> {
        let error = error.as_database_error()?;
        if error.is_unique_violation() { error.constraint() } else { None }
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        let passing = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_) // what a cut connection leaves half-read
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // By class (PostgreSQL documentation, appendix A): connection, resources, operator's intervention; a deadlock, a serialization
            // failure; a standby; and a lock that wasn't free.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class))
                    || matches!(&*code, "25006" | "55P03")
            }),
            _ => false,
        };
        if passing { Self::Unavailable(error) } else { Self::Refused(error) }
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(error) => write!(f, "the database is not available: {error}"),
            Self::Refused(error) => write!(f, "the database refused: {error}"),
            Self::Row { table, id, problem } => write!(f, "{table} row {id} makes no sense: {problem}"),
        }
    }
}

impl std::error::Error for StorageError {}
