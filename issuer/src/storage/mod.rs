//! The only SQL there is. One Postgres, no abstraction over it.
//!
//! Queries are checked against the schema when they are compiled (`migrations/README.md`). Whatever fails is one of two things: the
//! database couldn't be reached, which passes, or something is wrong.

pub mod agents;
pub mod audit;
pub mod backup;
pub mod changes;
pub mod clients;
pub mod credential_uses;
pub mod credentials;
pub mod figures;
pub mod idempotency;
pub mod inspection;
pub mod jobs;
pub mod limits;
pub mod live_tokens;
pub mod maintenance;
pub mod not_before;
pub mod outbox;
pub mod publication;
pub mod resource_servers;
pub mod revocations;
pub mod schema;
pub mod sealed;
pub mod serials;
pub mod server_secrets;
pub mod signing_keys;
pub mod status_lists;
pub mod tenants;
mod transaction;
pub mod used_assertions;

use std::fmt;
use std::time::Duration;

use countersign_shared::TenantId;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Postgres};
use tokio::time::Instant;
use tracing::{Instrument as _, warn};

use crate::config;
use crate::domain::UnknownWord;
use crate::traces::step;

pub use transaction::Transaction;

/// How long a request waits for a connection.
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one statement may run, in milliseconds: the server ends it.
pub(crate) const STATEMENT_TIMEOUT: &str = "4000";
/// The same for those who do the installation's own work.
pub(crate) const LONG_STATEMENT_TIMEOUT: &str = "60000";
/// A connection idle for longer is tried before it is used: the server may have been restarted meanwhile.
const TRY_AFTER_IDLE: Duration = Duration::from_secs(1);

/// The database.
///
/// Row-level security confines every transaction to one tenant (`migrations/20261121110000_tenants_confined.sql`): the one that
/// [`Database::begin_as`] names. What belongs to no tenant, or comes before it is known whose it is, goes through `installation`.
#[derive(Clone)]
pub struct Database {
    /// Sees nothing until a transaction names its tenant.
    confined: PgPool,
    /// Sees every tenant: for client authentication, the publisher, keys, jobs. Never for what a caller asks about.
    installation: PgPool,
    options: PgConnectOptions,
}

/// The setting that row-level security goes by.
const TENANT_SETTING: &str = "countersign.tenant";
/// Its value on connections that see every tenant.
const EVERY_TENANT: &str = "*";

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
        let confined = pool(config.pool_size, options.clone());
        let options = options.options([(TENANT_SETTING, EVERY_TENANT)]);
        let installation = pool(config.pool_size, options.clone());
        Ok(Self { confined, installation, options })
    }

    /// Begins a transaction that sees, and can change, what is `tenant`'s and nothing else.
    pub async fn begin_as(&self, tenant: TenantId) -> Result<Transaction, StorageError> {
        // One round trip. A UUID has no characters that would need quoting.
        let begin = format!("begin; set local {TENANT_SETTING} = '{}'", tenant.0);
        Transaction::begin(&self.confined, Some(begin), self).await
    }

    /// Begins a transaction that sees every tenant: for the installation's own work and the platform administrator's.
    pub async fn begin_installation(&self) -> Result<Transaction, StorageError> {
        Transaction::begin(&self.installation, None, self).await
    }

    /// Refuses a role that row-level security doesn't bind.
    pub async fn require_confinement(&self) -> Result<(), Unconfined> {
        let role = sqlx::query!(
            r#"select rolname as "name!", rolsuper or rolbypassrls as "bypasses!" from pg_roles where rolname = current_user"#
        );
        let role =
            role.fetch_one(&self.installation).await.map_err(|error| Unconfined::Unknown(error.into()))?;
        if role.bypasses { Err(Unconfined::Role(role.name)) } else { Ok(()) }
    }

    /// A connection that sees every tenant. To wait for one is a step of its own.
    async fn connection(&self) -> Result<PoolConnection<Postgres>, StorageError> {
        Ok(self.installation.acquire().instrument(step!("database connection")).await?)
    }

    /// Commits it.
    pub async fn commit(transaction: Transaction) -> Result<(), StorageError> {
        transaction.commit().await
    }

    /// A pool of one connection, for who needs it to be theirs alone.
    pub(crate) fn dedicated(&self) -> PgPool {
        // Reading all entries may take longer than a request may; and a lock must not outlive a leader whose host vanished.
        let options = self.options.clone().options([
            ("statement_timeout", LONG_STATEMENT_TIMEOUT),
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

    /// A pool of one connection with a request's patience, for who takes many requests' work together.
    fn single(&self) -> PgPool {
        pool(1, self.options.clone())
    }

    /// Of each pool its name, how many connections are open, and how many of them are unused.
    pub fn connections(&self) -> [(&'static str, u32, u32); 2] {
        [("tenant", &self.confined), ("installation", &self.installation)]
            .map(|(name, pool)| (name, pool.size(), u32::try_from(pool.num_idle()).unwrap_or(u32::MAX)))
    }

    /// Closes every connection, once it is back.
    pub async fn close(&self) {
        tokio::join!(self.confined.close(), self.installation.close());
    }
}

fn pool(size: u32, options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(size)
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
        .connect_lazy_with(options)
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

impl Unreachable {
    /// What is wrong, without what to do.
    pub fn found(&self) -> String {
        format!("PostgreSQL at {} {}", self.address, self.cause)
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: start it, or correct DATABASE_URL", self.found())
    }
}

impl std::error::Error for Unreachable {}

/// The role that `DATABASE_URL` names isn't fit for serving.
#[derive(Debug)]
pub enum Unconfined {
    /// Row-level security doesn't bind it.
    Role(String),
    /// That can't be told.
    Unknown(StorageError),
}

impl fmt::Display for Unconfined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(role) => write!(
                f,
                "the role `{role}` in DATABASE_URL bypasses row-level security, which keeps tenants apart: use one that is neither superuser \
                 nor BYPASSRLS, and owns the database"
            ),
            Self::Unknown(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Unconfined {}

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

    /// The same once more: several may wait for one statement.
    pub(crate) fn again(&self) -> Self {
        let cause = sqlx::Error::InvalidArgument(match self {
            Self::Unavailable(error) | Self::Refused(error) => error.to_string(),
            Self::Row { .. } => self.to_string(),
        });
        match self {
            Self::Unavailable(_) => Self::Unavailable(cause),
            Self::Refused(_) | Self::Row { .. } => Self::Refused(cause),
        }
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
            // failure; a standby; a lock that wasn't free; and a database that takes no connections, as while another takes its place.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class))
                    || matches!(&*code, "25006" | "55P03" | "55000")
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
