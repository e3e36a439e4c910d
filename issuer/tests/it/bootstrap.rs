//! `migrate`, `bootstrap`, `keys`: what an operator runs before and beside `serve`.

use std::path::Path;

use countersign_issuer::domain::scope::MANAGEMENT;
use serde_json::Value;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgPool;

use crate::support::cli::Cli;
use crate::support::{AUDIENCE, Client, TestDatabase};

const OTHER_MASTER_KEY: &str = "jjBul8ICZrzs83n1BlR44EYr81ybPomJm6M79Ec1458=";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn makes_everything_once() {
    let database = TestDatabase::empty().await;
    let cli = Cli::new(&database.url);
    let migrated = cli.run(&["migrate"]).expect_success();
    assert!(
        migrated.lines().count() >= 4 && migrated.lines().all(|line| line.starts_with("applied 2026")),
        "{migrated}"
    );
    assert_eq!(cli.run(&["migrate"]).expect_success(), "the schema is up to date\n");

    let first = json(
        &cli.run(&["bootstrap", "--json", "--tenant", "Ours", "--email", "root@example.com"])
            .expect_success(),
    );
    let names: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(names, ["client_id", "client_secret", "tenant_id"]);
    let client = Client::from_json(&first);
    assert_eq!(client.secret.len(), 63);
    let made: (String, String, Vec<String>, String) = sqlx::query_as(
        "select t.name, a.email, a.scopes, r.identifier from tenants t join agents a using (tenant_id) join resource_servers r using (tenant_id)",
    )
    .fetch_one(&database.pool)
    .await
    .unwrap();
    let scopes = MANAGEMENT.map(String::from).to_vec();
    assert_eq!(made, ("Ours".into(), "root@example.com".into(), scopes, AUDIENCE.into()));
    let platform: bool = database.value("select is_platform from tenants").await;
    assert!(platform, "its administrator manages the tenants that come later");
    assert_eq!(database.audit("system.bootstrapped").await.len(), 1);

    let again = json(&cli.run(&["bootstrap", "--json"]).expect_success());
    assert_eq!((&again["client_id"], &again["tenant_id"]), (&first["client_id"], &first["tenant_id"]));
    assert_eq!(again["client_secret"], Value::Null);
    let text = cli.run(&["bootstrap"]).expect_success();
    assert!(text.starts_with("nothing to do") && !text.contains("csk_"), "{text}");
    let counts: (i64, i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from tenants), (select count(*) from agents), (select count(*) from credentials), (select count(*) from signing_keys)",
    )
    .fetch_one(&database.pool)
    .await
    .unwrap();
    assert_eq!(counts, (1, 1, 1, 2));
}

#[tokio::test]
async fn goes_on_where_an_older_version_bootstrapped() {
    const OLD: i64 = 20_261_121_090_000;
    let database = TestDatabase::empty().await;
    let cli = Cli::new(&database.url);
    // As the older version left it: its schema, and what its bootstrap made.
    let mut migrator = Migrator::new(Path::new("../migrations")).await.unwrap();
    migrator.migrations.to_mut().retain(|migration| migration.version <= OLD);
    let as_issuer = PgPool::connect(&database.url).await.unwrap();
    migrator.run(&as_issuer).await.unwrap();
    let made: (String, String) = sqlx::query_as(
        "with t as (insert into tenants (tenant_id, name) values (gen_random_uuid(), 'Old') returning tenant_id),
         r as (insert into resource_servers (resource_server_id, tenant_id, identifier, is_default)
               select gen_random_uuid(), tenant_id, $1, true from t),
         a as (insert into agents (agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes, metadata)
               select gen_random_uuid(), tenant_id, 'root@old.example', 'custom', '1', '{}', 'Old', 'production',
                      '{agents:read,agents:write,credentials:write,tokens:introspect,tokens:revoke}', '{}' from t
               returning tenant_id, agent_id)
         select tenant_id::text, agent_id::text from a",
    )
    .bind(AUDIENCE)
    .fetch_one(&as_issuer)
    .await
    .unwrap();
    as_issuer.close().await;

    cli.run(&["migrate"]).expect_success();
    let said = json(&cli.run(&["bootstrap", "--json"]).expect_success());
    assert_eq!(
        (&said["tenant_id"], &said["client_id"]),
        (&Value::from(made.0.clone()), &Value::from(made.1))
    );
    assert_eq!(said["client_secret"], Value::Null);
    let scopes: Vec<String> = database.value("select scopes from agents").await;
    assert_eq!(scopes, MANAGEMENT, "its administrator is the platform's now");
    // The identifier from before is its own, with those that look like it.
    let tenant = json(&cli.run(&["tenants", "create", "--name", "New", "--json"]).expect_success());
    let alike = format!("{AUDIENCE}/");
    let create = ["resource-servers", "create", &alike, "--tenant"];
    let refused = cli.run(&[&create[..], &[tenant["tenant_id"].as_str().unwrap()]].concat()).expect_failure();
    assert_eq!(refused, "the identifier is taken, or one that is easily taken for it");
    cli.run(&[&create[..], &[&made.0]].concat()).expect_success();
}

#[tokio::test]
async fn at_once_from_several_places_it_is_done_once() {
    let database = TestDatabase::empty().await;
    let cli = Cli::new(&database.url);
    let at_once = |arguments: &'static [&'static str]| {
        let runs: Vec<_> = (0..4)
            .map(|_| cli.clone())
            .map(|cli| std::thread::spawn(move || cli.run(arguments).expect_success()))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<String>>()
    };
    at_once(&["migrate"]);
    let bootstrapped = at_once(&["bootstrap", "--json"]);
    let secrets = bootstrapped.iter().filter(|answer| json(answer)["client_secret"].is_string()).count();
    assert_eq!(secrets, 1);
    let keys: i64 = database.value("select count(*) from signing_keys").await;
    assert_eq!(keys, 2);
}

#[tokio::test]
async fn nothing_runs_on_another_schema() {
    let database = TestDatabase::empty().await;
    let cli = Cli::new(&database.url).env("STARTUP_TIMEOUT_SECONDS", "1");
    for arguments in [&["serve"] as &[_], &["bootstrap"], &["keys", "list"]] {
        let said = cli.run(arguments).expect_failure();
        assert_eq!(said, "the database schema is not up to date: run: countersign migrate");
    }
    cli.run(&["migrate"]).expect_success();
    database.migrated_by_a_later_release(false).await;
    let said = cli.run(&["serve"]).expect_failure();
    assert!(
        said.starts_with("the database schema is newer than this binary (migration 99991231000000)"),
        "{said}"
    );
    database.execute("delete from _sqlx_migrations where version = 99991231000000").await;
    database.execute("update _sqlx_migrations set checksum = '' where version = (select min(version) from _sqlx_migrations)").await;
    assert!(cli.run(&["serve"]).expect_failure().contains("was applied in another form"));
}

#[tokio::test]
async fn a_wrong_master_key_is_said_in_one_line() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let cli = Cli::new(&database.url).env("MASTER_KEY", OTHER_MASTER_KEY);
    // Also where a part is still to be made: it must not be sealed with the wrong key.
    for arguments in [["serve"], ["bootstrap"]] {
        let said = cli.run(&arguments).expect_failure();
        assert!(said.starts_with("MASTER_KEY does not open the keys in this database"), "{said}");
    }
    let secrets: i64 = database.value("select count(*) from server_secrets").await;
    assert_eq!(secrets, 2, "the jti key was taken away with the copy of the database");
}

#[tokio::test]
async fn a_key_that_somebody_put_into_the_table_is_not_published() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let cli = Cli::new(&database.url);
    // Sealed like the real one, but with a public key of another's.
    database
        .execute(
            "insert into signing_keys (kid, purpose, algorithm, state, public_jwk, sealed_data_key, sealed_private)
             select 'mine', 'revocation', 'EdDSA', 'pending', replace(public_jwk, kid, 'mine'), sealed_data_key, sealed_private
             from signing_keys where purpose = 'revocation'",
        )
        .await;
    cli.run(&["keys", "export-public", "--purpose", "revocation"]).expect_failure();
    cli.run(&["serve"]).expect_failure();
    let altered = "update signing_keys set public_jwk = replace(public_jwk, '\"x\":\"', '\"x\":\"A') where kid <> 'mine' and purpose = 'revocation'";
    database.execute("delete from signing_keys where kid = 'mine'").await;
    cli.run(&["keys", "export-public", "--purpose", "revocation"]).expect_success();
    database.execute(altered).await;
    cli.run(&["keys", "export-public", "--purpose", "revocation"]).expect_failure();
}

#[tokio::test]
async fn shows_public_keys_and_nothing_else() {
    let database = TestDatabase::empty().await;
    let cli = Cli::new(&database.url);
    cli.run(&["migrate"]).expect_success();
    let said = cli.run(&["keys", "export-public", "--purpose", "token"]).expect_failure();
    assert_eq!(said, "there is no token key yet: run `countersign bootstrap`");
    cli.run(&["bootstrap"]).expect_success();

    let list = cli.clone().without("MASTER_KEY").run(&["keys", "list"]).expect_success();
    assert_eq!(list.lines().count(), 3, "{list}");
    for (purpose, kty, alg) in [("token", "RSA", "RS256"), ("revocation", "OKP", "EdDSA")] {
        let jwks = json(&cli.run(&["keys", "export-public", "--purpose", purpose]).expect_success());
        let keys = jwks["keys"].as_array().unwrap();
        assert_eq!((keys.len(), &keys[0]["kty"], &keys[0]["alg"]), (1, &kty.into(), &alg.into()));
        assert!(keys[0].get("d").is_none() && keys[0].get("p").is_none());
        let kid = keys[0]["kid"].as_str().unwrap();
        let line = list.lines().find(|line| line.starts_with(kid)).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[1..4], [purpose, alg, "active"]);
    }
}
