//! A database that the release before has used goes on being used: nothing is lost, and what worked works. What that release left is in `tests/fixtures`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Executor as _};

use crate::support::cli::Cli;
use crate::support::edge::{read_directory, revocation_keys};
use crate::support::{Client, Issuer, TestDatabase, eventually};

/// The newest migration of the release before.
const BEFORE: i64 = 20_261_121_151_000;
/// What a release leaves empty in the time that a test has.
const EMPTY: [&str; 1] = ["audit_checkpoints"];

fn fixture(extension: &str) -> String {
    std::fs::read_to_string(format!("tests/fixtures/{BEFORE}.{extension}")).unwrap()
}

/// Migrated as far as the release before, and with what it had.
pub(crate) async fn used_before(database: &TestDatabase) -> Value {
    let mut migrator = Migrator::new(Path::new("../migrations")).await.unwrap();
    migrator.migrations.to_mut().retain(|migration| migration.version <= BEFORE);
    let as_issuer = PgPool::connect(&database.url).await.unwrap();
    migrator.run(&as_issuer).await.unwrap();
    let facts: Value = serde_json::from_str(&fixture("json")).unwrap();
    for week in facts["weeks"].as_array().unwrap() {
        let add = format!("select audit_add_partition(to_date('{}', 'YYYYMMDD'))", week.as_str().unwrap());
        as_issuer.execute(AssertSqlSafe(add)).await.unwrap();
    }
    as_issuer.close().await;
    // As a restore does it: no triggers, and without the rows that migrations made.
    let mut connection = database.pool.acquire().await.unwrap();
    connection.execute("set session_replication_role = replica").await.unwrap();
    connection
        .execute("delete from publisher_state; delete from publisher_report; delete from key_state")
        .await
        .unwrap();
    connection.execute(AssertSqlSafe(fixture("sql"))).await.unwrap();
    connection.execute("set session_replication_role = default").await.unwrap();
    facts
}

/// Each table's columns.
async fn columns(database: &TestDatabase) -> BTreeMap<String, String> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select relname::text, string_agg(quote_ident(attname), ', ' order by attnum)
         from pg_class join pg_attribute on attrelid = pg_class.oid
         where relkind in ('r', 'p') and not relispartition and relnamespace = 'public'::regnamespace
         and attnum > 0 and not attisdropped and relname <> '_sqlx_migrations' group by relname",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    rows.into_iter().collect()
}

/// How many rows each table has, and a digest of them.
async fn content(
    database: &TestDatabase,
    tables: &BTreeMap<String, String>,
) -> BTreeMap<String, (i64, String)> {
    let mut content = BTreeMap::new();
    for (table, columns) in tables {
        let query = format!(
            "select count(*), md5(coalesce(string_agg(text, ' ' order by text), '')) from (select row({columns})::text as text from {table}) rows"
        );
        let found = sqlx::query_as(AssertSqlSafe(query)).fetch_one(&database.pool).await.unwrap();
        content.insert(table.clone(), found);
    }
    content
}

fn status(cli: &Cli) -> Value {
    serde_json::from_str(&cli.run(&["migrate", "status", "--json"]).expect_success()).unwrap()
}

fn states(status: &Value) -> BTreeMap<i64, String> {
    let state = |migration: &Value| {
        (migration["version"].as_i64().unwrap(), migration["state"].as_str().unwrap().to_owned())
    };
    status["migrations"].as_array().unwrap().iter().map(state).collect()
}

#[tokio::test]
async fn a_database_of_the_release_before_goes_on() {
    let database = TestDatabase::empty().await;
    let facts = used_before(&database).await;
    let cli = Cli::new(&database.url);
    let tables = columns(&database).await;
    let before = content(&database, &tables).await;
    for (table, (rows, _)) in &before {
        assert_eq!(
            *rows == 0,
            EMPTY.contains(&table.as_str()),
            "{table}: the fixture has to have some of everything"
        );
    }
    let seq: i64 = database.value("select seq from publisher_state").await;
    let found = status(&cli);
    assert_eq!(found["up_to_date"], false);
    for (version, state) in states(&found) {
        assert_eq!(state, if version <= BEFORE { "applied" } else { "pending" }, "{version}");
    }
    let said = cli.run(&["serve"]).expect_failure();
    assert_eq!(said, "the database schema is not up to date: run: countersign migrate");

    // As replicas do that start together.
    let migrating: Vec<_> = (0..3)
        .map(|_| cli.clone())
        .map(|cli| std::thread::spawn(move || cli.run(&["migrate"]).expect_success()))
        .collect();
    let said: Vec<String> = migrating.into_iter().map(|run| run.join().unwrap()).collect();
    assert_eq!(said.iter().filter(|said| said.contains("applied")).count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|said| *said == "the schema is up to date\n").count(), 2);
    assert_eq!(status(&cli)["up_to_date"], true);
    assert_eq!(content(&database, &tables).await, before, "every row is as it was");

    let of = |who: &str| {
        let text = |name: &str| facts[who][name].as_str().unwrap_or_default().to_owned();
        Client {
            tenant: facts["second"]["tenant_id"].as_str().unwrap().into(),
            id: text("client_id"),
            secret: text("client_secret"),
        }
    };
    let mut administrator = of("administrator");
    administrator.tenant = facts["administrator"]["tenant_id"].as_str().unwrap().into();
    let published = std::env::temp_dir().join(format!("{}-upgraded", database.name));
    let directory = published.to_str().unwrap().to_owned();
    let keys = revocation_keys(&database.url);
    let issuer = Issuer::start_on(Arc::new(database), administrator.clone(), |cli| {
        cli.env("PUBLISHER_DIRECTORY", &directory)
    })
    .await;
    assert!(issuer.is_active(&administrator, &issuer.token(&administrator).await).await);
    let token = issuer.token(&of("working")).await;
    issuer.revoke(&of("working"), &token).await;
    assert!(!issuer.is_active(&administrator, &token).await);
    let form = [("grant_type", "client_credentials")];
    assert_eq!(issuer.oauth("token", &of("suspended"), &form).await.status(), 401);
    let (head, _) = eventually("heads count on", 10, async || {
        read_directory(&published, &keys).filter(|(head, _)| head.seq > seq.cast_unsigned())
    })
    .await;
    assert_eq!(head.epoch, 1);
    issuer.database.sealed().await;
    cli.run(&["audit", "verify"]).expect_success();
    cli.run(&["jobs", "run", "--all"]).expect_success();
    std::fs::remove_dir_all(published).unwrap();
}

#[tokio::test]
async fn a_newer_schema_says_which_binaries_work_on_it() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let cli = Cli::new(&database.url);
    database.migrated_by_a_later_release(true).await;
    // The release after this one is being rolled out, and an issuer of this one was killed: it comes back.
    let said = cli.run(&["migrate"]).expect_success();
    assert_eq!(
        said,
        "the schema is newer than this binary (migration 99991231000000), and works with it: nothing to do\n"
    );
    let found = status(&cli);
    assert_eq!((&found["up_to_date"], &found["works"]), (&false.into(), &true.into()));
    let text = cli.run(&["migrate", "status"]).expect_success();
    assert!(text.ends_with("the schema is newer than this binary, by 1, and works with it\n"), "{text}");
    let mut issuer = Issuer::start_on(Arc::new(database), administrator, |cli| cli).await;
    let line = issuer.logged("the database schema is newer than this binary, and works with it").await;
    assert!(line.contains("WARN") && line.contains("99991231000000"), "{line}");
    let client = issuer.new_client(&["orders:read"]).await;
    issuer.token(&client).await;
    assert_eq!(issuer.ready().await.1["checks"]["migrations"]["status"], "ahead");

    // One that took away what this one needs. Who runs on it isn't sent requests any more.
    let database = issuer.database.clone();
    database.migrated_by_a_later_release(false).await;
    eventually("it isn't ready", 5, async || {
        (issuer.ready().await.1["checks"]["migrations"]["status"] == "too_new").then_some(())
    })
    .await;
    assert_eq!(issuer.ready().await.0, 503);
    issuer.stop();
    let refused = "the database schema is newer than this binary (migration 99991231000000), and too new for it: run the version that made it, or a newer one";
    for command in ["serve", "migrate"] {
        assert_eq!(cli.run(&[command]).expect_failure(), refused, "{command}");
    }
    assert_eq!(cli.run(&["keys", "list"]).expect_failure(), refused);
    assert_eq!(status(&cli)["works"], false);

    // It says that this one works, but lacks what this one has: the two have gone apart.
    database.execute("update schema_compatibility set compatible_from = 20261121210000").await;
    assert!(status(&cli)["works"].as_bool().unwrap());
    database.execute("delete from _sqlx_migrations where version = 20261121210000").await;
    assert_eq!(cli.run(&["serve"]).expect_failure(), refused);
}

#[tokio::test]
async fn another_binary_s_schema_is_left_alone() {
    let database = TestDatabase::empty().await;
    let cli = Cli::new(&database.url);
    assert!(states(&status(&cli)).values().all(|state| state == "pending"), "nothing is there yet");
    cli.run(&["migrate"]).expect_success();
    database.migrated_by_a_later_release(false).await;
    let said = cli.run(&["migrate"]).expect_failure();
    assert_eq!(
        said,
        "the database schema is newer than this binary (migration 99991231000000), and too new for it: run the version that made it, or a newer one"
    );
    let found = status(&cli);
    assert_eq!(
        (&found["up_to_date"], &states(&found)[&99_991_231_000_000]),
        (&false.into(), &"unknown".to_owned())
    );
    let text = cli.run(&["migrate", "status"]).expect_success();
    assert!(
        text.ends_with(
            "the schema is newer than this binary, by 1: run the version that made it, or a newer one\n"
        ),
        "{text}"
    );
    assert!(text.contains("what is to come"));

    database.execute("update _sqlx_migrations set success = false where version = 99991231000000").await;
    let said = cli.run(&["migrate"]).expect_failure();
    assert!(said.starts_with("migration 99991231000000 has no transaction, and was broken off"), "{said}");
    assert_eq!(states(&status(&cli))[&99_991_231_000_000], "broken off");

    database.execute("delete from _sqlx_migrations where version = 99991231000000").await;
    database.execute("update _sqlx_migrations set checksum = '' where version = (select min(version) from _sqlx_migrations)").await;
    let said = cli.run(&["migrate"]).expect_failure();
    assert!(said.contains("was applied in another form"), "{said}");
    assert_eq!(states(&status(&cli)).values().filter(|state| *state == "altered").count(), 1);
}
