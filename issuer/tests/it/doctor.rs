//! What the doctor finds, and what it says to do. Whatever is broken here it names, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::support::cli::Cli;
use crate::support::edge::{Edge, Mood, with_issuer};
use crate::support::{Issuer, TestDatabase, eventually, required};

struct Examined {
    code: Option<i32>,
    status: String,
    /// By what was looked at: verdict, and what was found and what to do.
    findings: BTreeMap<String, (String, String)>,
}

impl Examined {
    fn of(cli: &Cli) -> Self {
        let ran = cli.run(&["doctor", "--json"]);
        let said: Value = serde_json::from_str(&ran.stdout()).unwrap_or_else(|_| panic!("{}", ran.stderr()));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let findings = said["findings"].as_array().unwrap().iter().map(|finding| {
            assert_eq!(finding["verdict"] == "ok", finding["todo"].is_null(), "{finding}");
            let words = format!("{}. {}", text(&finding["found"]), text(&finding["todo"]));
            (text(&finding["check"]), (text(&finding["verdict"]), words))
        });
        Self { code: ran.code(), status: text(&said["status"]), findings: findings.collect() }
    }

    /// That these aren't well, with these words, and everything else is.
    fn expect(&self, expected: &[(&str, &str, &str)]) {
        for (check, (verdict, words)) in &self.findings {
            match expected.iter().find(|(name, ..)| name == check) {
                Some((_, wanted, part)) => {
                    assert_eq!((verdict.as_str(), words.contains(part)), (*wanted, true), "{check}: {words}");
                }
                None => assert_eq!(verdict, "ok", "{check}: {words}"),
            }
        }
        for (check, ..) in expected {
            assert!(self.findings.contains_key(*check), "{check}: {:?}", self.findings);
        }
        let has_failed = expected.iter().any(|(_, verdict, _)| *verdict == "failure");
        let (code, status) = match expected {
            [] => (0, "ok"),
            _ if has_failed => (2, "failure"),
            _ => (1, "warning"),
        };
        assert_eq!((self.code, self.status.as_str()), (Some(code), status));
    }
}

fn settings(edge: &Edge, issuer: &Issuer) -> Cli {
    edge.configure(Cli::new(&issuer.database.url)).env("REDIS_URL", &required("TEST_REDIS_URL"))
}

/// The jobs have been done, and publication goes.
async fn settled(cli: &Cli) {
    let mut examined = Examined::of(cli);
    for _ in 0..80 {
        if examined.code == Some(0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        examined = Examined::of(cli);
    }
    examined.expect(&[]);
}

/// By as much as an issuer goes by.
#[tokio::test]
async fn a_clock_by_which_nothing_is_decided_is_a_failure() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let name = &database.name;
    database.execute(&format!("create schema fake; grant usage on schema fake to public; alter database {name} set search_path = fake, pg_catalog, public")).await;
    for (ahead, verdict, words) in [
        ("-0.7 s", "warning", "ms ahead of the database's"),
        ("-2 s", "failure", "ms ahead of the database's: an issuer here decides nothing"),
        ("1 s", "warning", "ms behind the database's. keep"),
        ("2 s", "failure", "ms behind the database's: an issuer here decides nothing"),
    ] {
        database.execute(&format!("create or replace function fake.clock_timestamp() returns timestamptz language sql as $$ select pg_catalog.clock_timestamp() + interval '{ahead}' $$")).await;
        let examined = Examined::of(&Cli::new(&database.url));
        let (found, said) = &examined.findings["clock"];
        assert_eq!((found.as_str(), said.contains(words)), (verdict, true), "{ahead}: {said}");
    }
}

// The edge answers while the command runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_sound_installation_is_found_sound_and_each_fault_is_named() {
    let (edge, mut issuer) = with_issuer().await;
    let cli = settings(&edge, &issuer);
    settled(&cli).await;
    let examined = Examined::of(&cli);
    examined.expect(&[]);
    for check in [
        "configuration",
        "database",
        "clock",
        "migrations",
        "token keys",
        "key of heads",
        "publication",
        "jobs",
        "audit",
        "hot state",
        "edge",
        "edge's clock",
        "objects",
    ] {
        assert!(examined.findings.contains_key(check), "{check}");
    }
    assert!(
        examined.findings["token keys"].1.contains("it is rotated in 29 days")
            || examined.findings["token keys"].1.contains("in 30 days")
    );
    let text = cli.run(&["doctor"]);
    assert_eq!(text.code(), Some(0));
    assert!(text.stdout().lines().skip(1).all(|line| line.starts_with("ok ")), "{}", text.stdout());

    Examined::of(&cli.clone().env("REDIS_URL", "redis://127.0.0.1:1")).expect(&[(
        "hot state",
        "warning",
        "Redis doesn't answer. start it",
    )]);
    Examined::of(&cli.clone().env("HUB_URL", "http://127.0.0.1:1")).expect(&[(
        "edge",
        "failure",
        "doesn't answer",
    )]);
    Examined::of(&cli.clone().env("HUB_URL", &issuer.url)).expect(&[(
        "edge",
        "failure",
        "answers 404, and not as the edge does. correct HUB_URL",
    )]);
    Examined::of(&cli.clone().env("KV_API_TOKEN", "another")).expect(&[(
        "objects",
        "failure",
        "KV refuses KV_API_TOKEN",
    )]);
    let other = cli.clone().env("MASTER_KEY", "QX8qsoHq++IqXO+hq+OxXDoqeu2VpE9AAOKqlB+l9SA=");
    Examined::of(&other)
        .expect(&[("token keys", "failure", "MASTER_KEY"), ("key of heads", "failure", "MASTER_KEY")]);
    edge.forget_objects();
    Examined::of(&cli).expect(&[("objects", "failure", "isn't in KV")]);

    // One that is late, and one that fails.
    issuer.stop();
    let late = "update job_runs set next_at = now() - interval '2 hours'";
    issuer.database.execute(&format!("{late} where name = 'outbox'; update publisher_report set reported_at = now() - interval '1 minute'")).await;
    issuer
        .database
        .execute("insert into audit_queue (event_id, occurred_at, tenant_id, action, outcome, details) select gen_random_uuid(), now() - interval '2 minutes', tenant_id, 'x', 'success', '{}' from tenants")
        .await;
    edge.set_hub(Mood::Failing);
    Examined::of(&cli).expect(&[
        ("objects", "failure", "isn't in KV"),
        ("jobs", "warning", "never: outbox. see whether an issuer runs"),
        ("publication", "failure", "no issuer publishes"),
        ("edge", "failure", "it is stale, and answers requests with 503"),
        ("audit", "failure", "have waited for 12"),
    ]);
    issuer
        .database
        .execute("update signing_keys set activates_at = now() - interval '31 days' where purpose = 'token'")
        .await;
    let examined = Examined::of(&cli);
    let (verdict, words) = &examined.findings["token keys"];
    assert!(verdict == "warning" && words.contains("should have been followed 24 h ago"), "{words}");
}

// The edge answers while the command runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_is_said_to_need_recovery() {
    let (edge, issuer) = with_issuer().await;
    let cli = settings(&edge, &issuer);
    settled(&cli).await;
    edge.set_hub(Mood::Ahead(1_000_000));
    issuer.logged("it looks restored from a backup").await;
    eventually("it is said", 15, async || {
        let examined = Examined::of(&cli);
        let (verdict, words) = &examined.findings["publication"];
        (verdict == "failure" && words.contains("countersign recover")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_stands_on_what_is_missing_is_not_looked_at() {
    let database = TestDatabase::empty().await;
    let cli = Cli::new(&database.url);
    let nothing = ("hot state", "ok", "in each process");
    Examined::of(&cli).expect(&[("migrations", "failure", "run: countersign migrate")]);
    assert!(Examined::of(&cli).findings[nothing.0].1.contains(nothing.2));
    cli.run(&["migrate"]).expect_success();
    Examined::of(&cli).expect(&[
        ("token keys", "failure", "run: countersign bootstrap"),
        ("key of heads", "failure", "run: countersign bootstrap"),
        ("publication", "warning", "nothing says where to"),
        // Nobody has had the time to do them.
        ("jobs", "ok", "8 are to be done for the first time"),
    ]);
    database.execute("update _sqlx_migrations set installed_on = now() - interval '61 minutes'").await;
    let examined = Examined::of(&cli);
    let (verdict, words) = &examined.findings["jobs"];
    assert!(verdict == "warning" && words.contains("or never: used-assertions, "), "{words}");
    database.execute("insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (99991231000000, 'x', true, '', 0)").await;
    let examined = Examined::of(&cli);
    let (verdict, words) = &examined.findings["migrations"];
    assert!(verdict == "warning" && words.contains("and works with it"), "{words}");
    assert!(examined.findings.contains_key("jobs"));
    database.execute("update schema_compatibility set compatible_from = 99991231000000").await;
    Examined::of(&cli).expect(&[("migrations", "failure", "too new for it")]);
    let superuser = cli.clone().env("DATABASE_URL", &database.url_as(""));
    let examined = Examined::of(&superuser);
    assert!(examined.findings["role"].1.contains("bypasses row-level security"), "{:?}", examined.findings);

    let nowhere = Examined::of(&cli.clone().env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing"));
    nowhere.expect(&[("database", "failure", "can't be reached")]);
    let wrong = Examined::of(&cli.without("MASTER_KEY").env("PORT", "x"));
    assert_eq!((wrong.code, wrong.findings.len()), (Some(2), 1));
    assert_eq!(wrong.findings["configuration"].0, "failure");
}

#[tokio::test]
async fn a_directory_is_looked_at() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let root = std::env::temp_dir().join(format!("{}-doctor", database.name));
    let directory = root.to_str().unwrap().to_owned();
    let cli = Cli::new(&database.url).env("PUBLISHER_DIRECTORY", &directory);
    let mut issuer =
        Issuer::start_on(database.into(), administrator, |cli| cli.env("PUBLISHER_DIRECTORY", &directory))
            .await;
    settled(&cli).await;
    assert!(Examined::of(&cli).findings["directory"].1.contains("has a head of a moment ago"));
    issuer.stop();
    eventually("it is old", 15, async || {
        let examined = Examined::of(&cli);
        (examined.findings["directory"].0 == "failure").then_some(())
    })
    .await;
    std::fs::remove_dir_all(root).unwrap();
    assert!(Examined::of(&cli).findings["directory"].1.contains("No such file"));
}
