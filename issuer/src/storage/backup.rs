//! What a backup has to know of the database, and a restore to change in it. Not `query!`: a backup may be of an older schema, a restore begins without one.

use std::collections::BTreeMap;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Postgres};
use time::OffsetDateTime;

use super::{Database, StorageError};

/// Where what was there is kept while a backup takes its place.
const ASIDE: &str = "countersign_before_restore";

/// What is so at one instant.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The instant, by the database's clock.
    pub at: OffsetDateTime,
    /// The database's name.
    pub database: String,
    /// The server's version.
    pub server_version: String,
    /// Its first part.
    pub server_major: u32,
    /// The newest migration.
    pub schema: i64,
    /// Where publication stands.
    pub epoch: u64,
    /// The newest change.
    pub seq: u64,
    /// The names of the master keys that sealed rows are under.
    pub master_keys: Vec<String>,
    /// How many rows each table has.
    pub rows: BTreeMap<String, u64>,
}

/// One instant of the database, for as long as it is held.
pub struct Snapshot {
    connection: PoolConnection<Postgres>,
    id: String,
    facts: Facts,
}

impl Snapshot {
    /// Takes it.
    pub async fn open(database: &Database) -> Result<Self, StorageError> {
        let mut connection = database.dedicated().acquire().await?;
        sqlx::raw_sql("begin isolation level repeatable read read only; set local statement_timeout = 0")
            .execute(&mut *connection)
            .await?;
        let (id, at, database, server_version, server_major): (String, OffsetDateTime, String, String, i32) = sqlx::query_as(
            "select pg_export_snapshot(), now(), current_database()::text, current_setting('server_version'),
                    current_setting('server_version_num')::integer / 10000",
        )
        .fetch_one(&mut *connection)
        .await?;
        let schema: i64 = sqlx::query_scalar("select max(version) from _sqlx_migrations where success")
            .fetch_one(&mut *connection)
            .await?;
        let (epoch, seq): (i64, i64) =
            sqlx::query_as("select epoch, seq from publisher_state").fetch_one(&mut *connection).await?;
        // By way of JSON: in the oldest schemas rows didn't name their master key.
        let master_keys: Vec<String> = sqlx::query_scalar(
            "select distinct key from (
                 select to_jsonb(k) ->> 'master_key_id' as key from signing_keys k
                 union select to_jsonb(s) ->> 'master_key_id' from server_secrets s
             ) named where key is not null order by key",
        )
        .fetch_all(&mut *connection)
        .await?;
        let rows = count_rows(&mut connection).await?;
        let facts = Facts {
            at,
            database,
            server_version,
            server_major: server_major.unsigned_abs(),
            schema,
            epoch: epoch.cast_unsigned(),
            seq: seq.cast_unsigned(),
            master_keys,
            rows,
        };
        Ok(Self { connection, id, facts })
    }

    /// By which another session sees the same.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is so then.
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Lets go of it.
    pub async fn close(self) {
        _ = self.connection.detach().close().await;
    }
}

async fn count_rows(connection: &mut PgConnection) -> Result<BTreeMap<String, u64>, StorageError> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class
         where relkind in ('r', 'p') and not relispartition and relnamespace = 'public'::regnamespace order by relname",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut rows = BTreeMap::new();
    for table in tables {
        let quoted = table.replace('"', "\"\"");
        let count: i64 =
            sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from public.\"{quoted}\"")))
                .fetch_one(&mut *connection)
                .await?;
        rows.insert(table, count.cast_unsigned());
    }
    Ok(rows)
}

/// The database that a backup is restored into.
pub struct Target {
    connection: PoolConnection<Postgres>,
}

impl Target {
    /// Connects.
    pub async fn open(database: &Database) -> Result<Self, StorageError> {
        let mut connection = database.dedicated().acquire().await?;
        // Dropping a large database's tables takes its time; waiting for somebody who uses them doesn't.
        sqlx::raw_sql(
            "set statement_timeout = 0; set lock_timeout = '10s'; set client_min_messages = warning",
        )
        .execute(&mut *connection)
        .await?;
        Ok(Self { connection })
    }

    /// The first part of the server's version.
    pub async fn server_major(&mut self) -> Result<u32, StorageError> {
        let major: i32 = sqlx::query_scalar("select current_setting('server_version_num')::integer / 10000")
            .fetch_one(&mut *self.connection)
            .await?;
        Ok(major.unsigned_abs())
    }

    /// How many tables there are, and whether some are left of a restore that was broken off.
    pub async fn tables(&mut self) -> Result<(u64, bool), StorageError> {
        let (tables, aside): (i64, bool) = sqlx::query_as(
            "select count(*), coalesce(bool_or(nspname = $1), false) from pg_class join pg_namespace n on n.oid = relnamespace
             where relkind in ('r', 'p', 'v', 'm', 'S', 'f') and nspname !~ '^pg_' and nspname <> 'information_schema'",
        )
        .bind(ASIDE)
        .fetch_one(&mut *self.connection)
        .await?;
        Ok((tables.cast_unsigned(), aside))
    }

    /// How many connections of issuers and their commands there are, besides this one.
    pub async fn users(&mut self) -> Result<u64, StorageError> {
        let users: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and application_name = 'countersign' and pid <> pg_backend_pid()",
        )
        .fetch_one(&mut *self.connection)
        .await?;
        Ok(users.cast_unsigned())
    }

    /// Takes all that is there out of the way, and makes room.
    pub async fn set_aside(&mut self) -> Result<(), StorageError> {
        self.run(&format!("alter schema public rename to {ASIDE}; {ROOM}")).await
    }

    /// Brings it back, in the place of what came.
    pub async fn put_back(&mut self) -> Result<(), StorageError> {
        self.run(&format!("drop schema public cascade; alter schema {ASIDE} rename to public")).await
    }

    /// Deletes what was set aside.
    pub async fn forget(&mut self) -> Result<(), StorageError> {
        self.run(&format!("drop schema {ASIDE} cascade")).await
    }

    /// Deletes what came.
    pub async fn clear(&mut self) -> Result<(), StorageError> {
        self.run(&format!("drop schema public cascade; {ROOM}")).await
    }

    /// How many rows each table has.
    pub async fn rows(&mut self) -> Result<BTreeMap<String, u64>, StorageError> {
        count_rows(&mut self.connection).await
    }

    /// Several statements, all or none.
    async fn run(&mut self, statements: &str) -> Result<(), StorageError> {
        let mut transaction = self.connection.begin().await?;
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }
}

/// An empty schema as PostgreSQL makes it.
const ROOM: &str = "create schema public; grant usage on schema public to public; alter schema public owner to pg_database_owner";
