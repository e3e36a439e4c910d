//! What replicas tell each other through Postgres: `NOTIFY` on one channel, with payloads of the form `<kind>:<id>`. Triggers send most of
//! them (`migrations/20261121116000_credentials_of_several_kinds.sql`).

use std::time::Duration;

use sqlx::PgExecutor;
use sqlx::postgres::PgListener;

use super::{Database, StorageError};

/// The channel; the triggers name it too.
const CHANNEL: &str = "countersign_changed";
/// By its text an operator finds the connection in `pg_stat_activity`.
const PING: &str =
    "select (extract(epoch from clock_timestamp()) * 1000)::bigint /* countersign hears changes */";
/// How long a connection attempt or an answer to a ping may take. Whatever takes longer counts as lost.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

/// Tells every replica, this one too; in a transaction, once it commits.
pub async fn announce(executor: impl PgExecutor<'_>, kind: &str, id: &str) -> Result<(), StorageError> {
    sqlx::query!("select pg_notify($1, $2)", CHANNEL, format!("{kind}:{id}")).execute(executor).await?;
    Ok(())
}

/// A connection of its own that hears what is announced.
pub struct Listening {
    connection: PgListener,
}

impl Listening {
    /// Connects; what is announced from now on is heard.
    pub async fn open(database: &Database) -> Result<Self, StorageError> {
        let opening = async {
            let mut connection = PgListener::connect_with(&database.dedicated()).await?;
            connection.eager_reconnect(false); // what was announced meanwhile would be missed unnoticed
            connection.listen(CHANNEL).await?;
            Ok(Self { connection })
        };
        let opened = tokio::time::timeout(PATIENCE * 4, opening).await;
        opened.unwrap_or(Err(StorageError::Unavailable(sqlx::Error::PoolTimedOut)))
    }

    /// Tries to take, for as long as the connection lasts, the lock that says whether several issuers may be at work: `shared`, or alone. Not to be asked
    /// again once it was had.
    pub async fn claim(&mut self, shared: bool) -> Result<bool, StorageError> {
        let claim = sqlx::query_scalar!(
            r#"select case when $1 then pg_try_advisory_lock_shared(place) else pg_try_advisory_lock(place) end as "held!"
               from (select hashtextextended('countersign replicas', 0) as place) lock"#,
            shared
        )
        .fetch_one(&mut self.connection);
        let answer = tokio::time::timeout(PATIENCE, claim).await;
        Ok(answer.map_err(|_| StorageError::Unavailable(sqlx::Error::PoolTimedOut))??)
    }

    /// The next payload. An error means that the connection is lost.
    pub async fn next(&mut self) -> Result<String, StorageError> {
        match self.connection.try_recv().await? {
            Some(notification) => Ok(notification.payload().to_owned()),
            None => Err(StorageError::Unavailable(sqlx::Error::WorkerCrashed)),
        }
    }

    /// The next payload of those that have arrived.
    pub fn arrived(&mut self) -> Option<String> {
        self.connection.next_buffered().map(|notification| notification.payload().to_owned())
    }

    /// Asks the server for an answer. When it is here, all that was announced before it was asked has arrived: the server sends
    /// what it holds for a session before it says that the session is ready again. The answer is the server's time, in milliseconds since
    /// 1970-01-01T00:00:00Z.
    pub async fn ping(&mut self) -> Result<i64, StorageError> {
        let ping = sqlx::query_scalar(PING).fetch_one(&mut self.connection);
        let answer = tokio::time::timeout(PATIENCE, ping).await;
        Ok(answer.map_err(|_| StorageError::Unavailable(sqlx::Error::PoolTimedOut))??)
    }
}
