//! What is at rest: sealed under the master key, bound to its row, moved to another master key while issuers run.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{AssertSqlSafe, Executor as _};

use crate::support::cli::Cli;
use crate::support::softhsm::Token;
use crate::support::{Issuer, MASTER_KEY, TestDatabase, eventually};

const NEW_MASTER_KEY: &str = "jjBul8ICZrzs83n1BlR44EYr81ybPomJm6M79Ec1458=";
/// The ids of `MASTER_KEY` and of that one, by another implementation of HMAC-SHA-256.
const OLD_ID: &str = "local:542be967352bd9f9";
const NEW_ID: &str = "local:f314deefc74ec4cc";

fn old_only(cli: Cli) -> Cli {
    cli
}

fn both(cli: Cli) -> Cli {
    cli.env("NEW_MASTER_KEY", NEW_MASTER_KEY)
}

fn new_only(cli: Cli) -> Cli {
    cli.env("MASTER_KEY", NEW_MASTER_KEY)
}

/// Under which master keys rows are, with how many of them.
async fn under(database: &TestDatabase) -> Vec<(Option<String>, i64)> {
    sqlx::query_as(
        "select master_key_id, count(*) from (select master_key_id from signing_keys union all select master_key_id from server_secrets) sealed
         group by master_key_id order by 1",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap()
}

/// A bootstrapped database with all of its rows.
async fn complete() -> (TestDatabase, crate::support::Client) {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    Cli::new(&database.url).run(&["bootstrap"]).expect_success();
    (database, administrator)
}

#[tokio::test]
async fn what_is_done_to_sealed_rows_is_refused() {
    const DAMAGED: &str = "was changed or moved";
    let (database, _) = complete().await;
    let attempts: &[(&str, &str, &str)] = &[
        (
            "a key's sealed columns in another key's row",
            "update signing_keys r set sealed_data_key = t.sealed_data_key, sealed_private = t.sealed_private
             from signing_keys t where r.purpose = 'revocation' and t.purpose = 'token'",
            DAMAGED,
        ),
        (
            "the sealed values of two keys exchanged",
            "update signing_keys r set sealed_private = t.sealed_private from signing_keys t where r.kid <> t.kid",
            DAMAGED,
        ),
        (
            "the data keys of two keys exchanged",
            "update signing_keys r set sealed_data_key = t.sealed_data_key from signing_keys t where r.kid <> t.kid",
            DAMAGED,
        ),
        (
            "a secret's sealed columns in another secret's row",
            "update server_secrets r set sealed_data_key = t.sealed_data_key, sealed_value = t.sealed_value
             from server_secrets t where r.name = 'client_secret_pepper' and t.name = 'jti_tag_key'",
            DAMAGED,
        ),
        (
            "a sealed value cut short",
            "update signing_keys set sealed_private = substring(sealed_private for length(sealed_private) - 1) where purpose = 'token'",
            DAMAGED,
        ),
        (
            "a data key cut short",
            "update signing_keys set sealed_data_key = substring(sealed_data_key for 20) where purpose = 'token'",
            DAMAGED,
        ),
        ("a sealed value emptied", "update server_secrets set sealed_value = ''", DAMAGED),
        ("a data key emptied", "update server_secrets set sealed_data_key = ''", DAMAGED),
        (
            "a bit of a sealed value",
            "update signing_keys set sealed_private = set_byte(sealed_private, 40, get_byte(sealed_private, 40) # 1) where purpose = 'revocation'",
            DAMAGED,
        ),
        (
            "a bit of a data key",
            "update signing_keys set sealed_data_key = set_byte(sealed_data_key, 15, get_byte(sealed_data_key, 15) # 128) where purpose = 'token'",
            DAMAGED,
        ),
        (
            "the version byte",
            "update signing_keys set sealed_data_key = set_byte(sealed_data_key, 0, 2) where purpose = 'token'",
            DAMAGED,
        ),
        (
            "another's name on the master key",
            "update signing_keys set master_key_id = 'local:0123456789abcdef' where purpose = 'token'",
            "they were sealed under local:0123456789abcdef",
        ),
        (
            "the public key of another in a row",
            "update signing_keys r set public_jwk = replace(t.public_jwk, t.kid, r.kid), algorithm = t.algorithm
             from signing_keys t where r.purpose = 'revocation' and t.purpose = 'token'",
            DAMAGED,
        ),
        (
            "a row under another kid",
            "update signing_keys set kid = 'mine', public_jwk = replace(public_jwk, kid, 'mine') where purpose = 'token'",
            DAMAGED,
        ),
        (
            "a token key used for heads",
            "update signing_keys set purpose = 'revocation', state = 'retiring' where purpose = 'token';
             update signing_keys set purpose = 'token' where state = 'active'",
            DAMAGED,
        ),
    ];
    database
        .execute(
            "create table kept_keys as table signing_keys; create table kept_secrets as table server_secrets",
        )
        .await;
    let cli = Cli::new(&database.url);
    for (attempt, sql, refusal) in attempts {
        database.execute(sql).await;
        let said = cli.run(&["serve"]).expect_failure();
        assert!(said.contains(refusal), "{attempt}: {said}");
        database
            .execute("delete from signing_keys; insert into signing_keys table kept_keys; delete from server_secrets; insert into server_secrets table kept_secrets")
            .await;
    }
    cli.run(&["keys", "export-public", "--purpose", "token"]).expect_success();
}

#[tokio::test]
async fn a_wrong_master_key_is_named_with_the_right_one() {
    let (database, _) = complete().await;
    let cli = Cli::new(&database.url);
    let rows: i64 = database.value("select count(*) from server_secrets").await;
    assert_eq!(under(&database).await, [(Some(OLD_ID.to_owned()), rows + 2)]);
    for arguments in [&["serve"] as &[_], &["bootstrap"], &["keys", "export-public", "--purpose", "token"]] {
        let said = new_only(cli.clone()).run(arguments).expect_failure();
        let (start, end) = (
            "MASTER_KEY does not open the keys in this database: it is local:",
            format!(", and they were sealed under {OLD_ID}; set it to that one"),
        );
        assert!(said.starts_with(start) && said.ends_with(&end), "{said}");
    }
    // A row from before rows had names.
    database
        .execute(
            "update server_secrets set master_key_id = null; update signing_keys set master_key_id = null",
        )
        .await;
    cli.run(&["keys", "export-public", "--purpose", "token"]).expect_success();
    let said = new_only(cli).run(&["serve"]).expect_failure();
    assert!(said.ends_with("; set it to the one that they were sealed under"), "{said}");
}

#[tokio::test]
async fn everything_moves_to_another_master_key_while_issuers_run() {
    let (database, administrator) = complete().await;
    let database = Arc::new(database);
    let cli = Cli::new(&database.url);
    let first = Issuer::start_on(database.clone(), administrator.clone(), both).await;
    let second = Issuer::start_on(database.clone(), administrator.clone(), both).await;
    let client = first.new_client(&["orders:read"]).await;
    let before = first.token(&client).await;

    // Tokens are issued all the time.
    let stop = Arc::new(AtomicBool::new(false));
    let issuing = tokio::spawn({
        let (stop, client) = (stop.clone(), client.clone());
        async move {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                for issuer in [&first, &second] {
                    issuer.token(&client).await;
                    count += 1;
                }
            }
            (first, second, count)
        }
    });
    // One row moved, then an issuer starts, with both keys.
    let stuck = Stuck::at(&database, 1).await;
    stuck.interrupt(&both(cli.clone())).await;
    assert_eq!(under(&database).await.len(), 2);
    let third = Issuer::start_on(database.clone(), administrator.clone(), both).await;
    assert!(third.is_active(&client, &before).await);
    // What is made from now on is under the new one: here a secret that was lost.
    database.execute("delete from server_secrets where name = 'idempotency_seal_key'").await;
    both(cli.clone()).run(&["bootstrap"]).expect_success();
    let made: String =
        database.value("select master_key_id from server_secrets where name = 'idempotency_seal_key'").await;
    assert_eq!(made, NEW_ID);

    let text = both(cli.clone()).run(&["keys", "rewrap"]).expect_success();
    assert!(text.starts_with(&format!("moved 3 rows from {OLD_ID} to {made}\n")), "{text}");
    assert!(text.contains("without NEW_MASTER_KEY"), "{text}");
    assert_eq!(under(&database).await, [(Some(made.clone()), 5)]);
    stop.store(true, Ordering::Relaxed);
    let (first, second, count) = issuing.await.unwrap();
    assert!(count > 4, "{count}");

    let events = database.audit("master_key.replaced").await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&events[0]["to"], &events[0]["rows"], &events[0]["failed"]),
        (&made.clone().into(), &3.into(), &0.into())
    );

    // Nobody needs the old one any more.
    let fourth = Issuer::start_on(database.clone(), administrator, new_only).await;
    for issuer in [&first, &second, &third, &fourth] {
        let token = fourth.token(&client).await;
        assert!(issuer.is_active(&client, &token).await && issuer.is_active(&client, &before).await);
    }
    let said = old_only(cli.clone()).run(&["serve"]).expect_failure();
    assert!(said.ends_with(&format!("they were sealed under {made}; set it to that one")), "{said}");
    let again = both(cli.clone()).run(&["keys", "rewrap", "--json"]).expect_success();
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again, serde_json::json!({ "from": [], "to": made, "rows": 0, "failed": 0 }));
    assert_eq!(database.audit("master_key.replaced").await.len(), 1);

    let said = cli.clone().run(&["keys", "rewrap"]);
    assert_eq!(said.code(), Some(78));
    assert!(said.stderr().contains("NEW_MASTER_KEY environment variable is required"), "{}", said.stderr());
    let said = cli.env("NEW_MASTER_KEY", MASTER_KEY).run(&["keys", "rewrap"]);
    assert!(said.stderr().contains("NEW_MASTER_KEY is MASTER_KEY"), "{}", said.stderr());
}

#[tokio::test]
async fn a_move_that_is_killed_at_any_row_goes_on() {
    let (database, administrator) = complete().await;
    let database = Arc::new(database);
    let cli = both(Cli::new(&database.url));
    for moved in 0..5 {
        Stuck::at(&database, moved).await.interrupt(&cli).await;
        let rows: i64 = under(&database)
            .await
            .iter()
            .filter(|(id, _)| id.as_deref() != Some(OLD_ID))
            .map(|(_, rows)| rows)
            .sum();
        assert_eq!(rows, moved);
        let issuer = Issuer::start_on(database.clone(), administrator.clone(), both).await;
        issuer.token(&administrator).await;
    }
    assert!(cli.run(&["keys", "rewrap"]).expect_success().starts_with("moved 1 rows from"));
    Issuer::start_on(database.clone(), administrator.clone(), new_only).await.token(&administrator).await;
}

#[tokio::test]
async fn a_row_that_does_not_open_stays_and_is_named() {
    let (database, _) = complete().await;
    let cli = both(Cli::new(&database.url));
    database
        .execute("update signing_keys set sealed_private = sealed_data_key where purpose = 'revocation'")
        .await;
    let kid: String = database.value("select kid from signing_keys where purpose = 'revocation'").await;
    let ran = cli.run(&["keys", "rewrap"]);
    assert!(
        ran.stdout().starts_with("moved 4 rows") && !ran.stdout().contains("Restart"),
        "{}",
        ran.stdout()
    );
    assert_eq!(ran.code(), Some(1));
    let said = ran.stderr();
    assert!(
        said.contains("1 rows stay as they are:")
            && said.contains(&format!("signing_keys `{kid}`: the sealed value of")),
        "{said}"
    );
    assert_eq!(under(&database).await.len(), 2);
}

#[tokio::test]
async fn an_old_master_key_opens_nothing_after_the_move() {
    let (database, _) = complete().await;
    let cli = Cli::new(&database.url);
    database.execute("create table stolen as table signing_keys").await;
    both(cli.clone()).run(&["keys", "rewrap"]).expect_success();
    old_only(cli.clone()).run(&["serve"]).expect_failure();
    // Who has the old one, and write access, puts a row under it.
    database
        .execute("update signing_keys k set master_key_id = s.master_key_id, sealed_data_key = s.sealed_data_key from stolen s where s.kid = k.kid")
        .await;
    let said = new_only(cli.clone()).run(&["serve"]).expect_failure();
    assert!(said.contains(&format!("they were sealed under {OLD_ID}")), "{said}");
    // Where it was the operator, from a backup, it is moved like the others.
    assert!(both(cli.clone()).run(&["keys", "rewrap"]).expect_success().starts_with("moved 2 rows"));
    new_only(cli).run(&["keys", "export-public", "--purpose", "token"]).expect_success();
}

#[tokio::test]
async fn without_its_master_key_an_installation_starts_over() {
    let (database, _) = complete().await;
    let cli = new_only(Cli::new(&database.url));
    cli.run(&["bootstrap"]).expect_failure();
    database.execute("truncate signing_keys, server_secrets").await;
    cli.run(&["bootstrap"]).expect_success();
    assert_eq!(under(&database).await, [(Some(NEW_ID.to_owned()), 5)]);
}

#[tokio::test]
async fn the_master_key_may_be_in_a_token() {
    let (database, administrator) = complete().await;
    let database = Arc::new(database);
    let token = Token::new(&["master-1", "master-2"]);
    let cli = Cli::new(&database.url);

    // From MASTER_KEY into the token, while an issuer runs.
    let moving = token.configure(cli.clone(), "NEW_", "master-1");
    let running = Issuer::start_on(database.clone(), administrator.clone(), |cli| {
        token.configure(cli, "NEW_", "master-1")
    })
    .await;
    let moved = moving.env("MASTER_KEY", MASTER_KEY).run(&["keys", "rewrap"]).expect_success();
    assert!(moved.contains(&format!("from {OLD_ID} to pkcs11:countersign/master-1")), "{moved}");
    running.token(&administrator).await;
    let issuer =
        Issuer::start_on(database.clone(), administrator.clone(), |cli| token.configure(cli, "", "master-1"))
            .await;
    let token_of_now = issuer.token(&administrator).await;
    assert!(running.is_active(&administrator, &token_of_now).await);
    assert!(!issuer.whole_log().await.contains(crate::support::softhsm::PIN));

    // What was changed in its row is said to be, also where the token has one word for everything that fails.
    let in_token = token.configure(cli.clone(), "", "master-1");
    database.execute("create table kept as table signing_keys").await;
    database.execute("update signing_keys set sealed_data_key = set_byte(sealed_data_key, 20, get_byte(sealed_data_key, 20) # 1)").await;
    let said = in_token.run(&["serve"]).expect_failure();
    assert!(said.contains("was changed or moved"), "{said}");
    database.execute("delete from signing_keys; insert into signing_keys table kept").await;

    // On to another key in the token, of which only what is different is said.
    let moved = in_token
        .clone()
        .env("NEW_MASTER_KEY_PROVIDER", "pkcs11")
        .env("NEW_PKCS11_KEY_LABEL", "master-2")
        .run(&["keys", "rewrap"])
        .expect_success();
    assert!(moved.contains("to pkcs11:countersign/master-2"), "{moved}");
    let said = in_token.run(&["serve"]).expect_failure();
    assert!(
        said.contains(
            "it is pkcs11:countersign/master-1, and they were sealed under pkcs11:countersign/master-2"
        ),
        "{said}"
    );

    // And out of it again.
    let out = token.configure(cli.clone(), "", "master-2").env("NEW_MASTER_KEY", MASTER_KEY);
    out.run(&["keys", "rewrap"]).expect_success();
    cli.run(&["bootstrap"]).expect_success();
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_said_in_one_line() {
    let (database, _) = complete().await;
    let token = Token::new(&["master-1"]);
    let cli = Cli::new(&database.url);
    let moving = token.configure(cli.clone(), "NEW_", "master-1").env("MASTER_KEY", MASTER_KEY);
    moving.run(&["keys", "rewrap"]).expect_success();
    let good = token.configure(cli, "", "master-1");
    good.run(&["bootstrap"]).expect_success();
    let said = |cli: Cli| cli.run(&["serve"]).expect_failure();

    let wrong_pin = said(good.clone().env("PKCS11_PIN", "wrong-pin"));
    assert!(
        wrong_pin.ends_with("the PKCS#11 token `countersign` refuses PKCS11_PIN: correct it, and restart"),
        "{wrong_pin}"
    );
    let no_token = said(good.clone().env("PKCS11_TOKEN_LABEL", "other").env("PKCS11_KEY_LABEL", "x"));
    assert!(no_token.contains("they were sealed under pkcs11:countersign/master-1"), "{no_token}");
    let no_module = said(good.clone().env("PKCS11_MODULE", "/nonexistent.so"));
    assert!(no_module.contains("the PKCS#11 module /nonexistent.so can't be used"), "{no_module}");
    let elsewhere = Token::new(&[]);
    let no_key = said(elsewhere.configure(good.clone(), "", "master-1"));
    assert!(
        no_key.contains("the PKCS#11 token `countersign` has no AES key labelled `master-1`"),
        "{no_key}"
    );
    elsewhere.make_key("master-1", 16, 1);
    let short = said(elsewhere.configure(good.clone(), "", "master-1"));
    assert!(short.contains("must have 256 bits"), "{short}");
    elsewhere.delete_key("master-1");
    elsewhere.make_key("master-1", 32, 2);
    let another = said(elsewhere.configure(good.clone(), "", "master-1"));
    assert!(another.contains("was changed or moved"), "another key of the same name: {another}");
    elsewhere.make_key("master-1", 32, 3);
    let several = said(elsewhere.configure(good.clone(), "", "master-1"));
    assert!(several.contains("several AES keys labelled `master-1`"), "{several}");
    good.run(&["bootstrap"]).expect_success();

    let ran = good.clone().env("MASTER_KEY", MASTER_KEY).run(&["serve"]);
    assert!(
        ran.stderr().contains("MASTER_KEY is set, and MASTER_KEY_PROVIDER is `pkcs11`"),
        "{}",
        ran.stderr()
    );
    let ran = good.clone().env("PKCS11_TOKEN_LABEL", "a/b").without("PKCS11_PIN").run(&["serve"]);
    let said = ran.stderr();
    assert!(
        said.contains("PKCS11_TOKEN_LABEL must have")
            && said.contains("PKCS11_PIN environment variable is required"),
        "{said}"
    );
    let ran = good.env("MASTER_KEY_PROVIDER", "vault").run(&["serve"]);
    assert!(
        ran.stderr().contains("MASTER_KEY_PROVIDER must be `local` or `pkcs11`, not `vault`"),
        "{}",
        ran.stderr()
    );
}

/// A row that a move waits at.
struct Stuck {
    row: sqlx::Transaction<'static, sqlx::Postgres>,
    pool: sqlx::PgPool,
}

impl Stuck {
    /// The row that comes after `moved` of the five, in the order in which they are moved.
    async fn at(database: &TestDatabase, moved: i64) -> Self {
        let mut transaction = database.pool.begin().await.unwrap();
        // Not with an offset by itself: what it skips would be locked as well.
        let lock = if moved < 3 {
            format!(
                "select 1 from server_secrets where name = (select name from server_secrets order by name limit 1 offset {moved}) for update"
            )
        } else {
            let place = moved - 3;
            format!(
                "select 1 from signing_keys where kid = (select kid from signing_keys order by created_at, kid limit 1 offset {place}) for update"
            )
        };
        transaction.execute(AssertSqlSafe(lock)).await.unwrap();
        Self { row: transaction, pool: database.pool.clone() }
    }

    /// Lets a move run up to the row, and kills it there.
    async fn interrupt(self, cli: &Cli) {
        let mut command = cli.command(&["keys", "rewrap"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like 'update s%'";
        eventually("the move waits at the row", 10, async || {
            let count: i64 = sqlx::query_scalar(waiting).fetch_one(&self.pool).await.unwrap();
            (count > 0).then_some(())
        })
        .await;
        child.kill().unwrap();
        child.wait().unwrap();
        // Its server process goes on waiting until it notices; what it would do isn't committed then.
        sqlx::query("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like 'update s%'")
            .execute(&self.pool)
            .await
            .unwrap();
        self.row.rollback().await.unwrap();
    }
}
