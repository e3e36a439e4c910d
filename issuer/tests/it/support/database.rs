//! A database for each test, copied from a template that was migrated and bootstrapped once.

use std::str::FromStr as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use super::cli::{BINARY, Cli};
use super::{Client, required};

/// A database of the test's own, dropped with it.
pub(crate) struct TestDatabase {
    name: String,
    pub(crate) url: String,
    pub(crate) pool: PgPool,
}

impl TestDatabase {
    /// Empty: not even migrated.
    pub(crate) async fn empty() -> Self {
        let name = fresh_name();
        server(&format!("create database {name}")).await;
        Self::open(name)
    }

    /// Migrated and bootstrapped, with its administrator.
    pub(crate) async fn bootstrapped() -> (Self, Client) {
        let template = template().await;
        let name = fresh_name();
        server(&format!("create database {name} template {} strategy file_copy", template.name)).await;
        let database = Self::open(name);
        // Else the copies would mint the same jtis, and mark them as revoked in the Redis that they share.
        database.execute("delete from server_secrets where name = 'jti_tag_key'").await;
        (database, template.administrator.clone())
    }

    fn open(name: String) -> Self {
        let url = url_of(&name);
        let pool = PgPool::connect_lazy(&url).unwrap();
        Self { name, url, pool }
    }

    /// Runs a statement.
    pub(crate) async fn execute(&self, sql: &str) {
        self.pool.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    /// The one value of a query.
    pub(crate) async fn value<T>(&self, sql: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.pool).await.unwrap()
    }

    /// The `details` of audit rows with that action, oldest first.
    pub(crate) async fn audit(&self, action: &str) -> Vec<Value> {
        sqlx::query_scalar("select details || jsonb_build_object('outcome', outcome, 'tenant', tenant_id, 'actor', actor_agent_id,
                            'target', target_id, 'request', request_id) from audit_events where action = $1 order by audit_event_id")
            .bind(action)
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let name = self.name.clone();
        // Dropping isn't async, and the test's runtime may be on its way out.
        _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server(&format!("drop database if exists {name} with (force)")));
        })
        .join();
    }
}

struct Template {
    name: String,
    administrator: Client,
}

/// Made by the first test of the first process that finds none for this very binary. Its administrator is written in its comment.
async fn template() -> &'static Template {
    static TEMPLATE: tokio::sync::OnceCell<Template> = tokio::sync::OnceCell::const_new();
    TEMPLATE.get_or_init(make_template).await
}

async fn make_template() -> Template {
    const PREFIX: &str = "countersign_it_template_";
    let built = std::fs::metadata(BINARY).unwrap().modified().unwrap();
    let built = built.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let name = format!("{PREFIX}{built}");

    let mut connection =
        PgConnectOptions::from_str(&required("TEST_DATABASE_URL")).unwrap().connect().await.unwrap();
    connection.execute("select pg_advisory_lock(hashtext('countersign test template'))").await.unwrap();
    let comment: Option<String> = sqlx::query_scalar(
        "select shobj_description(oid, 'pg_database') from pg_database where datname = $1",
    )
    .bind(&name)
    .fetch_optional(&mut connection)
    .await
    .unwrap()
    .flatten();
    let administrator = if let Some(comment) = comment {
        comment
    } else {
        let old: Vec<String> =
            sqlx::query_scalar("select datname::text from pg_database where starts_with(datname, $1)")
                .bind(PREFIX)
                .fetch_all(&mut connection)
                .await
                .unwrap();
        for old in old {
            connection
                .execute(AssertSqlSafe(format!("drop database if exists {old} with (force)")))
                .await
                .unwrap();
        }
        connection.execute(AssertSqlSafe(format!("create database {name}"))).await.unwrap();
        let cli = Cli::new(&url_of(&name));
        cli.run(&["migrate"]).expect_success();
        let administrator = cli.run(&["bootstrap", "--json"]).expect_success();
        connection
            .execute(AssertSqlSafe(format!("comment on database {name} is '{}'", administrator.trim())))
            .await
            .unwrap();
        administrator
    };
    connection.close().await.unwrap();
    let administrator: Value = serde_json::from_str(&administrator).unwrap();
    Template { name, administrator: Client::from_json(&administrator) }
}

fn fresh_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("countersign_it_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn url_of(name: &str) -> String {
    static SERVER: OnceLock<String> = OnceLock::new();
    let server = SERVER.get_or_init(|| required("TEST_DATABASE_URL"));
    let mut url: reqwest::Url = server.parse().unwrap();
    url.set_path(name);
    url.to_string()
}

/// Runs a statement on the server, outside of any test's database.
async fn server(sql: &str) {
    let options = PgConnectOptions::from_str(&required("TEST_DATABASE_URL")).unwrap();
    let mut connection = options.connect().await.unwrap();
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
    connection.close().await.unwrap();
}
