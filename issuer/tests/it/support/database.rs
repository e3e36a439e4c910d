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
    pub(crate) name: String,
    /// For the issuer's role.
    pub(crate) url: String,
    /// The superuser's: sees and may everything.
    pub(crate) pool: PgPool,
}

impl TestDatabase {
    /// Empty: not even migrated.
    pub(crate) async fn empty() -> Self {
        let name = fresh_name();
        role().await;
        server(&format!("create database {name} owner {ROLE}")).await;
        Self::open(name)
    }

    /// Migrated and bootstrapped, with its administrator.
    pub(crate) async fn bootstrapped() -> (Self, Client) {
        let template = template().await;
        let name = fresh_name();
        server(&format!("create database {name} template {} strategy file_copy owner {ROLE}", template.name))
            .await;
        let database = Self::open(name);
        // Else the copies would mint the same jtis, and mark them as revoked in the Redis that they share.
        database.execute("delete from server_secrets where name = 'jti_tag_key'").await;
        (database, template.administrator.clone())
    }

    fn open(name: String) -> Self {
        let url = url_of(&name, ROLE);
        let pool = PgPool::connect_lazy(&url_of(&name, "")).unwrap();
        Self { name, url, pool }
    }

    /// For another role; for the superuser if that is empty.
    pub(crate) fn url_as(&self, role: &str) -> String {
        url_of(&self.name, role)
    }

    /// Makes a role that can log in, with the superuser's password.
    pub(crate) async fn create_role(&self, role: &str, options: &str) {
        let url: reqwest::Url = required("TEST_DATABASE_URL").parse().unwrap();
        let password = url.password().unwrap_or_default();
        self.execute(&format!("create role {role} login {options} password '{password}'")).await;
    }

    /// Runs a statement.
    pub(crate) async fn execute(&self, sql: &str) {
        self.pool.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    /// As a later release leaves it, whose migration is 99991231000000, "what is to come". `works`: it says that this release works on it.
    pub(crate) async fn migrated_by_a_later_release(&self, works: bool) {
        self.execute(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
             values (99991231000000, 'what is to come', true, '', 0) on conflict do nothing",
        )
        .await;
        if !works {
            self.execute("update schema_compatibility set compatible_from = 99991231000000").await;
        }
    }

    /// The one value of a query.
    pub(crate) async fn value<T>(&self, sql: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.pool).await.unwrap()
    }

    /// The `details` of audit events with that action, sealed or not, oldest first.
    pub(crate) async fn audit(&self, action: &str) -> Vec<Value> {
        sqlx::query_scalar(
            "select details::jsonb || jsonb_build_object(
                 'outcome', outcome, 'tenant', nullif(tenant_id, '00000000-0000-0000-0000-000000000000'), 'actor', actor_agent_id,
                 'target', target_id, 'request', request_id)
             from (select event_id, action, details, outcome, tenant_id, actor_agent_id, target_id, request_id from audit_events
                   union all
                   select event_id, action, details, outcome, tenant_id, actor_agent_id, target_id, request_id from audit_queue) event
             where action = $1 order by event_id",
        )
        .bind(action)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    /// Waits until every audit event is in its chain.
    pub(crate) async fn sealed(&self) {
        super::eventually("the audit queue is empty", 10, async || {
            self.execute("select pg_notify('countersign_audit', '')").await;
            (self.value::<i64>("select count(*) from audit_queue").await == 0).then_some(())
        })
        .await;
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
        // One that was built lately may be another checkout's, at work on the same server.
        let lately = built - 24 * 3600 * 1_000_000_000;
        for old in
            old.iter().filter(|old| old[PREFIX.len()..].parse().is_ok_and(|built: u128| built < lately))
        {
            connection
                .execute(AssertSqlSafe(format!("drop database if exists {old} with (force)")))
                .await
                .unwrap();
        }
        role().await;
        connection.execute(AssertSqlSafe(format!("create database {name} owner {ROLE}"))).await.unwrap();
        let cli = Cli::new(&url_of(&name, ROLE));
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

/// What the issuer under test runs as: row-level security doesn't bind the superuser.
const ROLE: &str = "countersign";

/// Makes the role, if the server has none; its password is the superuser's.
async fn role() {
    let url: reqwest::Url = required("TEST_DATABASE_URL").parse().unwrap();
    let password = url.password().unwrap_or_default();
    let sql = format!(
        "do $role$ begin
             perform pg_advisory_xact_lock(hashtext('countersign role'));
             if not exists (select from pg_roles where rolname = '{ROLE}') then
                 create role {ROLE} login password '{password}';
             end if;
         end $role$"
    );
    server(&sql).await;
}

/// The database's URL for `role`; for the superuser if that is empty.
fn url_of(name: &str, role: &str) -> String {
    static SERVER: OnceLock<String> = OnceLock::new();
    let server = SERVER.get_or_init(|| required("TEST_DATABASE_URL"));
    let mut url: reqwest::Url = server.parse().unwrap();
    url.set_path(name);
    if !role.is_empty() {
        url.set_username(role).unwrap();
    }
    url.to_string()
}

/// Runs a statement on the server, outside of any test's database.
async fn server(sql: &str) {
    let options = PgConnectOptions::from_str(&required("TEST_DATABASE_URL")).unwrap();
    let mut connection = options.connect().await.unwrap();
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
    connection.close().await.unwrap();
}
