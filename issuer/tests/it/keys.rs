//! The life of signing keys.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use countersign_issuer::keys::check_signature;
use countersign_shared::{KeySet, Signature, base64url};
use serde_json::{Value, json};
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinHandle;

use crate::support::cli::Cli;
use crate::support::issuer::part;
use crate::support::{Client, Issuer, TestDatabase, eventually};

fn kid_of(token: &str) -> String {
    part(token, 0)["kid"].as_str().unwrap().to_owned()
}

fn time(value: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(value.as_str().unwrap(), &Rfc3339).unwrap()
}

/// The CLI's answer in JSON; it succeeds.
fn json_of(cli: &Cli, arguments: &[&str]) -> Value {
    let said = cli.run(&[arguments, &["--json"]].concat()).expect_success();
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The keys of tokens, each with its state.
async fn states(database: &TestDatabase) -> BTreeMap<String, String> {
    let rows: Value = database
        .value(
            "select coalesce(jsonb_object_agg(kid, state), '{}') from signing_keys where purpose = 'token'",
        )
        .await;
    rows.as_object()
        .unwrap()
        .iter()
        .map(|(kid, state)| (kid.clone(), state.as_str().unwrap().to_owned()))
        .collect()
}

async fn jwks(issuer: &Issuer) -> KeySet {
    let body = issuer.get("/.well-known/jwks.json").send().await.unwrap().bytes().await.unwrap();
    KeySet::parse(&body).unwrap()
}

fn has(keys: &KeySet, kid: &str) -> bool {
    keys.keys().iter().any(|key| key.kid() == kid)
}

/// Whether `keys` has the key of `token`, and that has signed it.
fn verifies(keys: &KeySet, token: &str) -> bool {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let signature = base64url::decode(signature.as_bytes()).unwrap();
    let kid = kid_of(token);
    let key = keys.keys().iter().find(|key| key.kid() == kid);
    key.is_some_and(|key| check_signature(key, input.as_bytes(), &signature) == Signature::Valid)
}

async fn another(issuer: &Issuer, change: impl FnOnce(Cli) -> Cli) -> Issuer {
    Issuer::start_on(issuer.database.clone(), issuer.administrator.clone(), change).await
}

/// A token, and when it was asked for and there.
async fn timed(issuer: &Issuer, client: &Client) -> (OffsetDateTime, String, OffsetDateTime) {
    let sent = OffsetDateTime::now_utc();
    let token = issuer.token(client).await;
    (sent, token, OffsetDateTime::now_utc())
}

#[tokio::test]
async fn replicas_switch_at_one_instant_to_a_key_that_everybody_knows() {
    let settings = |cli: Cli| cli.env("JWKS_MAX_AGE_SECONDS", "2");
    let here = Issuer::start_with(settings).await;
    let there = another(&here, settings).await;
    let client = here.new_client(&["orders:read"]).await;
    let cached = here.get("/.well-known/jwks.json").send().await.unwrap();
    assert_eq!(cached.headers()["cache-control"], "public, max-age=2");
    let old = kid_of(&here.token(&client).await);

    let cli = Cli::new(&here.database.url);
    // The installation has promised five minutes before, by default.
    here.database.execute("update key_state set jwks_max_age_seconds = 2").await;
    let before = OffsetDateTime::now_utc();
    let rotated = json_of(&cli, &["keys", "rotate"]);
    let new = rotated["key"]["kid"].as_str().unwrap().to_owned();
    let switch = time(&rotated["key"]["signs_from"]);
    assert!(switch - before >= time::Duration::seconds(7), "{rotated}");
    assert_eq!((&rotated["key"]["state"], &rotated["predecessor"]["kid"]), (&json!("pending"), &json!(old)));
    // 900 seconds of life, 30 of skew.
    assert_eq!(time(&rotated["predecessor"]["verifies_until"]) - switch, time::Duration::seconds(930));

    // Every verifier has fetched the keys in the last two seconds.
    let mut fetched = vec![(OffsetDateTime::now_utc(), jwks(&there).await)];
    let mut used = BTreeMap::<String, u32>::new();
    while OffsetDateTime::now_utc() < switch + Duration::from_secs(2) {
        for issuer in [&here, &there] {
            let (sent, token, got) = timed(issuer, &client).await;
            let kid = kid_of(&token);
            if got < switch {
                assert_eq!(kid, old, "{sent} {got} {switch}");
            } else if sent >= switch {
                assert_eq!(kid, new, "{sent} {got} {switch}");
            }
            let kept = fetched.iter().rev().find(|(at, _)| *at <= got - Duration::from_secs(2));
            let kept = kept.unwrap_or(&fetched[0]);
            assert!(verifies(&kept.1, &token), "at {got}, by the keys of {}", kept.0);
            *used.entry(kid).or_default() += 1;
            fetched.push((OffsetDateTime::now_utc(), jwks(issuer).await));
        }
    }
    assert!(used.len() == 2 && used.values().all(|count| *count > 10), "{used:?}");
    eventually("the states follow", 3, async || {
        let states = states(&here.database).await;
        (states[&old] == "retiring" && states[&new] == "active").then_some(())
    })
    .await;
    // What was signed before holds, and is verified with the published key.
    assert!(has(&jwks(&here).await, &old) && has(&jwks(&there).await, &new));
    let actions = ["key.generated", "key.scheduled", "key.activated"];
    for action in actions {
        assert_eq!(here.database.audit(action).await.last().unwrap()["target"], json!(new), "{action}");
    }
    assert_eq!(here.database.audit("key.retiring").await[0]["target"], json!(old));

    // Its last token has expired: here the clock is moved.
    here.database
        .execute(&format!(
            "update signing_keys set signs_until = signs_until - interval '1 hour' where kid = '{old}'"
        ))
        .await;
    for issuer in [&here, &there] {
        eventually("the old key is gone", 3, async || (!has(&jwks(issuer).await, &old)).then_some(())).await;
    }
    assert_eq!(states(&here.database).await[&old], "retired");
    assert_eq!(here.database.audit("key.retired").await[0]["target"], json!(old));
}

#[tokio::test]
async fn the_database_refuses_what_must_not_happen() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let make = async |kid: &str, state: &str| {
        database
            .execute(&format!(
                "insert into signing_keys (kid, purpose, algorithm, state, public_jwk, sealed_data_key, sealed_private, activates_at,
                                           longest_lifetime_seconds)
                 values ('{kid}', 'token', 'ES256', 'pending', '', '', '', null, 60)"
            ))
            .await;
        let way: &[&str] = match state {
            "pending" => &[],
            "active" => &["state = 'active', activates_at = now()"],
            "retiring" => &["state = 'active', activates_at = now()", "state = 'retiring'"],
            _ => &["state = 'retired'"],
        };
        for step in way {
            database.execute(&format!("update signing_keys set {step} where kid = '{kid}'")).await;
        }
    };
    let attempt = async |kid: &str, change: &str| {
        let sql = format!("update signing_keys set {change} where kid = '{kid}'");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&database.pool)
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let all = ["pending", "active", "retiring", "retired"];
    let legal = [("pending", "active"), ("active", "retiring"), ("pending", "retired")];
    for from in all {
        for to in all.into_iter().filter(|to| *to != from) {
            make("k", from).await;
            let done = attempt("k", &format!("state = '{to}', activates_at = now()")).await;
            assert_eq!(done.is_ok(), legal.contains(&(from, to)), "{from} to {to}: {done:?}");
            database.execute("delete from signing_keys where kid = 'k'").await;
        }
    }
    // Retiring, it is verified with until its last token has expired; unless it is revoked, or an operator says so.
    for (change, legal) in [
        ("state = 'retired'", false),
        ("state = 'retired', signs_until = now() - interval '89 seconds'", false),
        ("state = 'retired', retired_early = true", true),
        ("state = 'retired', revoked_at = now(), revocation_reason = 'stolen'", true),
        ("state = 'retired', revoked_at = now()", false),
        ("revoked_at = now(), revocation_reason = 'stolen'", false),
        ("longest_lifetime_seconds = 59", false),
        ("longest_lifetime_seconds = 61", true),
    ] {
        make("k", "retiring").await;
        assert_eq!(attempt("k", change).await.is_ok(), legal, "{change}");
        database.execute("delete from signing_keys where kid = 'k'").await;
    }
    make("k", "retiring").await;
    attempt("k", "signs_until = now() - interval '91 seconds'").await.unwrap();
    attempt("k", "state = 'retired'").await.unwrap();
    // An active one may be revoked; that is for good.
    make("revoked", "active").await;
    attempt("revoked", "state = 'retired'").await.unwrap_err();
    attempt("revoked", "state = 'retired', revoked_at = now(), revocation_reason = 'stolen'").await.unwrap();
    attempt("revoked", "revoked_at = null, revocation_reason = null").await.unwrap_err();
    // Not before its time, one at a time, one successor at a time.
    make("first", "active").await;
    make("second", "pending").await;
    attempt("second", "state = 'active', activates_at = null").await.unwrap_err();
    attempt("second", "state = 'active', activates_at = now()").await.unwrap_err();
    attempt("second", "activates_at = now() + interval '1 hour'").await.unwrap();
    make("third", "pending").await;
    attempt("third", "activates_at = now() + interval '2 hours'").await.unwrap_err();
    attempt("first", "state = 'retiring'").await.unwrap();
    attempt("second", "state = 'active'").await.unwrap_err();
    attempt("second", "state = 'active', activates_at = now()").await.unwrap();
}

#[tokio::test]
async fn a_revoked_key_is_refused_everywhere_and_another_signs_at_once() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&["orders:read"]).await;
    let introspector = &issuer.administrator;
    let token = issuer.token(&client).await;
    let old = kid_of(&token);
    assert!(issuer.is_active(introspector, &token).await);

    let cli = Cli::new(&issuer.database.url);
    let revoked = json_of(&cli, &["keys", "revoke", &old, "--reason", "the host was taken over"]);
    let new = revoked["key"]["kid"].as_str().unwrap();
    assert_eq!(
        (&revoked["predecessor"]["state"], &revoked["key"]["state"]),
        (&json!("retired"), &json!("active"))
    );
    assert_eq!(
        revoked["warnings"].as_array().unwrap().len(),
        1,
        "others may still have the old JWK Set: {revoked}"
    );
    eventually("another signs", 2, async || (kid_of(&issuer.token(&client).await) == new).then_some(()))
        .await;
    let keys = jwks(&issuer).await;
    assert!(!has(&keys, &old) && has(&keys, new));
    assert!(!issuer.is_active(introspector, &token).await);
    // The edges hear of it by a rule without end: who has the key can write any `iat`.
    let rule: i64 = issuer
        .database
        .value(&format!(
            "select not_before from revocation_outbox where rule_level = 4 and rule_subject = convert_to('{old}', 'UTF8')"
        ))
        .await;
    assert_eq!(rule, 253_402_300_799);
    let event = &issuer.database.audit("key.revoked").await[0];
    assert_eq!((&event["target"], &event["reason"]), (&json!(old), &json!("the host was taken over")));
    let said = cli.run(&["keys", "revoke", &old, "--reason", "again"]).expect_failure();
    assert_eq!(said, "the key is revoked already");
    let list = json_of(&cli, &["keys", "list"]);
    let listed = list["keys"].as_array().unwrap().iter().find(|key| key["kid"] == json!(old)).unwrap();
    assert_eq!(listed["revocation_reason"], "the host was taken over");

    // With a successor under way, that one is promoted.
    let next = json_of(&cli, &["keys", "rotate"])["key"]["kid"].clone();
    let revoked = json_of(&cli, &["keys", "revoke", new, "--reason", "again"]);
    assert_eq!(revoked["key"]["kid"], next);
    eventually("it signs", 2, async || (json!(kid_of(&issuer.token(&client).await)) == next).then_some(()))
        .await;
    // And a successor that is revoked is none any more.
    let third = json_of(&cli, &["keys", "rotate"])["key"]["kid"].clone();
    let revoked = json_of(&cli, &["keys", "revoke", third.as_str().unwrap(), "--reason", "mislaid"]);
    assert_eq!(revoked.get("key"), None);
    assert_eq!(json!(kid_of(&issuer.token(&client).await)), next);
    let ends: i64 = issuer
        .database
        .value("select count(*) from signing_keys where state = 'active' and signs_until is not null")
        .await;
    assert_eq!(ends, 0, "the one that signs goes on");
}

/// Else a key would be published that no issuer can open, and none would sign any more.
#[tokio::test]
async fn a_wrong_master_key_makes_no_keys() {
    let issuer = Issuer::start().await;
    let cli =
        Cli::new(&issuer.database.url).env("MASTER_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=");
    let kid = kid_of(&issuer.token(&issuer.administrator).await);
    for arguments in
        [&["keys", "rotate"][..], &["keys", "generate"], &["keys", "revoke", &kid, "--reason", "x"]]
    {
        let said = cli.run(arguments).expect_failure();
        assert!(said.starts_with("MASTER_KEY does not open the keys"), "{arguments:?}: {said}");
    }
    let keys: i64 = issuer.database.value("select count(*) from signing_keys where state <> 'active'").await;
    assert_eq!(keys, 0);
}

#[tokio::test]
async fn commands_say_what_follows() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let cli = Cli::new(&database.url);
    let active: String = database.value("select kid from signing_keys where purpose = 'token'").await;
    let said = cli.run(&["keys", "retire", &active]).expect_failure();
    assert!(said.starts_with("it signs: rotate to another key first"), "{said}");
    assert!(cli.run(&["keys", "retire", "nobody's"]).expect_failure().starts_with("there is no such key"));

    // One that was made before, and published for long enough, signs at once.
    let made = json_of(&cli, &["keys", "generate"])["key"].clone();
    assert_eq!(
        (&made["state"], &made["signs_from"], &made["bits"]),
        (&json!("pending"), &json!(null), &json!(2048))
    );
    database
        .execute(
            "update signing_keys set created_at = created_at - interval '1 hour' where state = 'pending'",
        )
        .await;
    let rotated = cli.run(&["keys", "rotate"]).expect_success();
    assert!(
        rotated.starts_with(&format!(
            "key {} (RS256 2048, tokens) is published\nit signs from ",
            made["kid"].as_str().unwrap()
        )),
        "{rotated}"
    );
    assert!(
        rotated.contains(&format!("the old key {active} signs until then and verifies until ")),
        "{rotated}"
    );
    let soon: bool = database
        .value("select activates_at < now() + interval '3 seconds' from signing_keys where state = 'pending'")
        .await;
    assert!(soon, "{rotated}");
    // Its time is put off, so that it doesn't come while the rest is tried.
    database
        .execute(
            "with later as (select now() + interval '1 hour' as at)
             update signing_keys set activates_at = case state when 'pending' then at else activates_at end,
                                     signs_until = case state when 'active' then at end
             from later where purpose = 'token'",
        )
        .await;
    // The same once more is the same rotation.
    assert_eq!(json_of(&cli, &["keys", "rotate"])["key"]["kid"], made["kid"]);
    let given_up = json_of(&cli, &["keys", "retire", made["kid"].as_str().unwrap()]);
    assert_eq!(given_up["predecessor"]["state"], "retired");
    let end: Option<bool> =
        database.value(&format!("select signs_until is null from signing_keys where kid = '{active}'")).await;
    assert_eq!(end, Some(true), "the old one goes on");

    let at_once = cli.run(&["keys", "rotate", "--now"]).expect_success();
    assert!(
        at_once.contains(" (now)") && at_once.contains("WARNING: whoever keeps the JWK Set"),
        "{at_once}"
    );
    assert_eq!(states(&database).await[&active], "retiring");
    let said = cli.run(&["keys", "retire", &active]).expect_failure();
    assert!(said.starts_with("tokens that it signed may be alive until "), "{said}");
    cli.run(&["keys", "retire", &active, "--now"]).expect_success();
    assert_eq!(states(&database).await[&active], "retired");

    let said = cli.run(&["keys", "rotate", "--algorithm", "ES256"]).expect_failure();
    assert!(said.contains("set TOKEN_SIGNING_ALGORITHM"), "{said}");
    // Of heads the edges have to know the key first.
    let said = cli.run(&["keys", "rotate", "--purpose", "revocation"]).expect_failure();
    assert!(said.contains("REVOCATION_KEYS of every edge"), "{said}");
    let heads: String = database.value("select kid from signing_keys where purpose = 'revocation'").await;
    assert!(
        cli.run(&["keys", "revoke", &heads, "--reason", "stolen"])
            .expect_failure()
            .contains("REVOCATION_KEYS")
    );
    let generated = cli.run(&["keys", "generate", "--purpose", "revocation"]).expect_success();
    assert!(generated.contains("set REVOCATION_KEYS of every edge"), "{generated}");
    let exported: Value = serde_json::from_str(
        &cli.run(&["keys", "export-public", "--purpose", "revocation"]).expect_success(),
    )
    .unwrap();
    assert_eq!(exported["keys"].as_array().unwrap().len(), 2);
    let rotated = json_of(&cli, &["keys", "rotate", "--purpose", "revocation", "--now"]);
    assert_eq!((&rotated["key"]["state"], &rotated["predecessor"]["kid"]), (&json!("active"), &json!(heads)));
    assert_eq!(rotated["warnings"].as_array().unwrap().len(), 1);
}

/// A key whose time has come signs, though nobody has written that it is active yet: it isn't given up as one that never signed.
#[tokio::test]
async fn a_key_whose_time_has_come_is_not_retired() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let cli = Cli::new(&database.url);
    let next = json_of(&cli, &["keys", "rotate"])["key"]["kid"].as_str().unwrap().to_owned();
    for change in [
        "update signing_keys set signs_until = now() where state = 'active' and purpose = 'token'",
        "update signing_keys set activates_at = now() where state = 'pending'",
    ] {
        database.execute(change).await;
    }
    let said = cli.run(&["keys", "retire", &next, "--now"]).expect_failure();
    assert!(said.starts_with("it signs: rotate to another key first"), "{said}");
    assert_eq!(states(&database).await[&next], "pending");
    // What is to sign only later is given up.
    database
        .execute("update signing_keys set activates_at = now() + interval '1 minute' where state = 'pending'")
        .await;
    cli.run(&["keys", "retire", &next]).expect_success();
}

/// However often keys are made and rotated, the JWK Set can be read.
#[tokio::test]
async fn so_many_keys_are_published_and_no_more() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    // Before it starts: it plans the switch of algorithms at once.
    forget_max_age(&database).await;
    let eddsa = |cli: Cli| quick(cli).env("TOKEN_SIGNING_ALGORITHM", "EdDSA");
    let issuer = Issuer::start_on(database.into(), administrator, eddsa).await;
    let client = issuer.new_client(&["orders:read"]).await;
    let cli = Cli::new(&issuer.database.url);
    let usual = "select token_algorithm from key_state";
    eventually("EdDSA signs", 20, async || {
        (issuer.database.value::<String>(usual).await == "EdDSA").then_some(())
    })
    .await;
    let generate = ["keys", "generate", "--algorithm", "ES256"];
    for _ in 0..4 {
        cli.run(&generate).expect_success();
    }
    let said = cli.run(&generate).expect_failure();
    assert!(
        said.starts_with("4 token keys for ES256 wait to be rotated to, and there can't be more"),
        "{said}"
    );
    for _ in 0..7 {
        cli.run(&["keys", "rotate", "--now"]).expect_success();
    }
    for refused in [&["keys", "rotate", "--now"][..], &["keys", "rotate"], &["keys", "generate"]] {
        let said = cli.run(refused).expect_failure();
        assert!(said.starts_with("8 token keys for EdDSA are published, and there can't be more"), "{said}");
    }
    // In an emergency there is room.
    let signs = kid_of(&issuer.token(&client).await);
    let successor = json_of(&cli, &["keys", "revoke", &signs, "--reason", "stolen"])["key"].clone();
    assert_eq!(successor["state"], "active");
    eventually("the new one signs", 3, async || {
        (kid_of(&issuer.token(&client).await) == successor["kid"]).then_some(())
    })
    .await;
    // One that is given up makes room for another.
    let retiring = "select kid from signing_keys where purpose = 'token' and algorithm = 'EdDSA' and state = 'retiring' limit 1";
    let retiring: String = issuer.database.value(retiring).await;
    cli.run(&["keys", "retire", &retiring, "--now"]).expect_success();
    cli.run(&["keys", "generate"]).expect_success();
    assert!(verifies(&jwks(&issuer).await, &issuer.token(&client).await));
}

/// What the installation was about to sign with is given up while no issuer runs: the next one signs on as before, and plans anew.
#[tokio::test]
async fn an_algorithm_whose_key_is_given_up_is_not_switched_to() {
    let mut issuer = Issuer::start().await;
    let (database, administrator) = (issuer.database.clone(), issuer.administrator.clone());
    let client = issuer.new_client(&["orders:read"]).await;
    let es256 = |cli: Cli| cli.env("TOKEN_SIGNING_ALGORITHM", "ES256");
    let pending = "select min(kid) from signing_keys where algorithm = 'ES256' and state = 'pending' and activates_at is not null";
    let next = "select next_token_algorithm from key_state";
    for (command, more) in [("retire", &[][..]), ("revoke", &["--reason", "stolen"][..])] {
        issuer.stop();
        issuer = Issuer::start_on(database.clone(), administrator.clone(), es256).await;
        eventually("a switch is planned", 10, async || database.value::<Option<String>>(next).await).await;
        let kid: String = database.value(pending).await;
        issuer.stop();
        Cli::new(&database.url).run(&[&["keys", command, &kid], more].concat()).expect_success();
        assert_eq!(database.value::<Option<String>>(next).await, None, "{command}");
        // Also where the row says so still, from before commands saw to it.
        database
            .execute("update key_state set next_token_algorithm = 'ES256', next_token_from = now() - interval '1 second'")
            .await;
        issuer = Issuer::start_on(database.clone(), administrator.clone(), es256).await;
        let planned =
            eventually("another is planned", 10, async || database.value::<Option<String>>(pending).await);
        assert_ne!(planned.await, kid);
        assert_eq!(part(&issuer.token(&client).await, 0)["alg"], "RS256");
        let states: String =
            database.value("select token_algorithm || ' ' || (select state from signing_keys where algorithm = 'RS256' and purpose = 'token' and signs_until is null) from key_state").await;
        assert_eq!(states, "RS256 active");
    }
}

/// Two issuers, one of which lets its JWK Set be kept for longer: while it runs new keys wait for that, whoever leads, and nothing is written to say so but rarely.
#[tokio::test]
async fn the_longest_max_age_counts_while_its_issuer_runs() {
    let shorter = Issuer::start_with(|cli| cli.env("JWKS_MAX_AGE_SECONDS", "4")).await;
    let database = shorter.database.clone();
    let mut longer = another(&shorter, |cli| cli.env("JWKS_MAX_AGE_SECONDS", "8")).await;
    database.execute("update key_state set jwks_max_age_seconds = 8").await; // it was bootstrapped with more
    let stated = "select jwks_max_age_seconds || ' ' || version from key_state";
    let at = "select (extract(epoch from jwks_max_age_stated_at) * 1000)::bigint from key_state";
    let (before, said): (String, i64) = (database.value(stated).await, database.value(at).await);
    assert!(before.starts_with("8 "), "{before}");
    eventually("it is said again", 10, async || (database.value::<i64>(at).await > said).then_some(())).await;
    assert_eq!(database.value::<String>(stated).await, before, "and that is no change");
    // As if nobody had said it for nearly long enough; it is said again before.
    database.execute("update key_state set jwks_max_age_stated_at = now() - interval '64 seconds'").await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(database.value::<String>(stated).await, before);
    longer.stop();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(database.value::<String>(stated).await, before, "what it handed out is kept still");
    database.execute("update key_state set jwks_max_age_stated_at = now() - interval '69 seconds'").await;
    eventually("it is taken back", 10, async || {
        database.value::<String>(stated).await.starts_with("4 ").then_some(())
    })
    .await;
}

/// Tells the installation that nobody keeps a JWK Set for longer than an issuer started with `JWKS_MAX_AGE_SECONDS=0` says: else it would have to wait.
async fn forget_max_age(database: &TestDatabase) {
    database.execute("update key_state set jwks_max_age_seconds = 0").await;
}

fn quick(cli: Cli) -> Cli {
    cli.env("JWKS_MAX_AGE_SECONDS", "0")
}

#[tokio::test]
async fn a_key_is_rotated_when_its_time_is_over() {
    let issuer = Issuer::start_with(|cli| quick(cli).env("KEY_ROTATION_DAYS", "10")).await;
    let client = issuer.new_client(&["orders:read"]).await;
    let database = &issuer.database;
    forget_max_age(database).await;
    let old = kid_of(&issuer.token(&client).await);
    let age = async |interval: &str| {
        database
            .execute(&format!(
                "update signing_keys set activates_at = now() - interval '{interval}' where kid = '{old}'"
            ))
            .await;
    };
    age("10 days - 1 minute").await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(states(database).await.len(), 1, "not yet");
    // Its end is a quarter of a minute from now: the next key is published before.
    age("10 days - 5 seconds").await;
    let pending = "select kid || ' ' || extract(epoch from activates_at - now()) from signing_keys where state = 'pending'";
    let (new, left) = eventually("a successor", 10, async || {
        let found: Vec<String> = sqlx::query_scalar(pending).fetch_all(&database.pool).await.unwrap();
        found
            .first()
            .and_then(|found| found.split_once(' '))
            .map(|(kid, left)| (kid.to_owned(), left.parse::<f64>().unwrap()))
    })
    .await;
    assert!((3.0..=6.5).contains(&left), "{left}");
    eventually("it is published", 1, async || has(&jwks(&issuer).await, &new).then_some(())).await;
    assert_eq!(kid_of(&issuer.token(&client).await), old);
    eventually("it signs", 8, async || (kid_of(&issuer.token(&client).await) == new).then_some(())).await;
    eventually("and is active", 2, async || (states(database).await[&new] == "active").then_some(())).await;

    // Never by itself, where that is set.
    let other = Issuer::start_with(|cli| quick(cli).env("KEY_ROTATION_DAYS", "0")).await;
    other.database.execute("update signing_keys set activates_at = now() - interval '9 years'").await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(states(&other.database).await.len(), 1);
}

#[tokio::test]
async fn another_algorithm_is_another_key_and_every_kind_verifies() {
    let mut issuer = Issuer::start_with(quick).await;
    let (database, administrator) = (issuer.database.clone(), issuer.administrator.clone());
    forget_max_age(&database).await;
    let client = issuer.new_client(&["orders:read"]).await;
    let mut before = issuer.token(&client).await;
    assert_eq!(part(&before, 0)["alg"], "RS256");
    for (algorithm, bits) in
        [("ES256", "2048"), ("PS256", "3072"), ("PS256", "4096"), ("EdDSA", "2048"), ("RS256", "2048")]
    {
        issuer.stop();
        issuer = Issuer::start_on(database.clone(), administrator.clone(), |cli| {
            quick(cli).env("TOKEN_SIGNING_ALGORITHM", algorithm).env("TOKEN_SIGNING_RSA_BITS", bits)
        })
        .await;
        let old = kid_of(&before);
        // Making a key of 4096 bits can take half a minute unoptimised.
        let token = eventually("the other algorithm signs", 120, async || {
            let token = issuer.token(&client).await;
            if kid_of(&token) == old {
                assert_eq!(part(&token, 0)["alg"], part(&before, 0)["alg"]);
                return None;
            }
            Some(token)
        })
        .await;
        assert_eq!(part(&token, 0)["alg"], algorithm);
        let keys = jwks(&issuer).await;
        assert!(verifies(&keys, &token) && verifies(&keys, &before), "{algorithm}");
        if algorithm == "PS256" {
            let signature = base64url::decode(token.rsplit_once('.').unwrap().1.as_bytes()).unwrap();
            assert_eq!((signature.len() * 8).to_string(), bits);
        }
        for token in [&token, &before] {
            assert!(issuer.is_active(&administrator, token).await, "{algorithm}");
        }
        eventually("the switch is written", 10, async || {
            let sql = "select token_algorithm from key_state where next_token_algorithm is null";
            let used: Option<String> = sqlx::query_scalar(sql).fetch_optional(&database.pool).await.unwrap();
            (used.as_deref() == Some(algorithm) && states(&database).await[&kid_of(&token)] == "active")
                .then_some(())
        })
        .await;
        // Of another algorithm it stays as it is until its time is over, for who asks for that again.
        let becomes = if part(&before, 0)["alg"] == algorithm { "retiring" } else { "active" };
        assert_eq!(states(&database).await[&old], becomes, "{algorithm}");
        eventually("discovery is true", 7, async || {
            let metadata: Value = issuer
                .get("/.well-known/oauth-authorization-server")
                .send()
                .await
                .unwrap()
                .json()
                .await
                .unwrap();
            let mut active: Vec<String> = sqlx::query_scalar(
                "select algorithm from signing_keys where purpose = 'token' and state = 'active' order by 1",
            )
            .fetch_all(&database.pool)
            .await
            .unwrap();
            let said = metadata["access_token_signing_alg_values_supported"].as_array().unwrap().clone();
            let mut said: Vec<String> = said.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
            said.sort();
            active.sort();
            (said == active && said.iter().any(|name| name == algorithm)).then_some(())
        })
        .await;
        before = token;
    }
}

#[tokio::test]
async fn a_resource_server_s_tokens_are_signed_as_it_asks() {
    let issuer = Issuer::start_with(quick).await;
    forget_max_age(&issuer.database).await;
    let client = issuer.new_client(&["orders:read"]).await;
    let token = issuer.management_token(&issuer.administrator).await;
    let other = "https://small.example";
    let made = issuer
        .post("/api/v1/resource-servers")
        .bearer_auth(&token)
        .json(&json!({ "identifier": other, "signing_algorithm": "EdDSA", "token_lifetime_seconds": 7200 }))
        .send()
        .await
        .unwrap();
    let made: Value = made.json().await.unwrap();
    assert_eq!(made["signing_algorithm"], "EdDSA", "{made}");
    let signed = async |resource: &str| {
        let granted = issuer.grant(&client, &[("resource", resource)]).await;
        let token = granted["access_token"].as_str().unwrap().to_owned();
        assert!(verifies(&jwks(&issuer).await, &token));
        part(&token, 0)["alg"].as_str().unwrap().to_owned()
    };
    // Until its key may sign, the installation's does.
    assert_eq!(signed(other).await, "RS256");
    eventually("it signs", 10, async || (signed(other).await == "EdDSA").then_some(())).await;
    assert_eq!(signed(crate::support::AUDIENCE).await, "RS256");
    // Its tokens live for longer: so do the keys that may have signed any.
    let longest: Vec<i32> =
        sqlx::query_scalar("select longest_lifetime_seconds from signing_keys where purpose = 'token'")
            .fetch_all(&issuer.database.pool)
            .await
            .unwrap();
    assert_eq!(longest, [7200, 7200]);

    let cli = Cli::new(&issuer.database.url);
    let id = made["resource_server_id"].as_str().unwrap();
    // States follow times: while its key counts as scheduled, a rotation is the one that is under way.
    eventually("its key is active", 5, async || {
        let active = "select count(*) from signing_keys where algorithm = 'EdDSA' and purpose = 'token' and state = 'active'";
        (issuer.database.value::<i64>(active).await == 1).then_some(())
    })
    .await;
    let rotated = json_of(&cli, &["keys", "rotate", "--algorithm", "EdDSA"]);
    assert_eq!(rotated["key"]["algorithm"], "EdDSA");
    let shown = json_of(&cli, &["resource-servers", "update", id, "--signing-algorithm", "default"]);
    assert_eq!(shown["signing_algorithm"], json!(null));
    eventually("that counts", 10, async || (signed(other).await == "RS256").then_some(())).await;
    // Its keys stay, whatever is set in turn: who asks for it again finds one, and none is made.
    for _ in 0..5 {
        for algorithm in ["EdDSA", "default"] {
            json_of(&cli, &["resource-servers", "update", id, "--signing-algorithm", algorithm]);
            let expected = if algorithm == "EdDSA" { "EdDSA" } else { "RS256" };
            eventually("that counts", 10, async || (signed(other).await == expected).then_some(())).await;
        }
    }
    eventually("the new one is active", 15, async || {
        (states(&issuer.database).await[rotated["key"]["kid"].as_str().unwrap()] == "active").then_some(())
    })
    .await;
    let all = "select count(*) from signing_keys where algorithm = 'EdDSA' and purpose = 'token'";
    assert_eq!(issuer.database.value::<i64>(all).await, 2);
    // When its time is over it isn't replaced.
    issuer
        .database
        .execute("update signing_keys set activates_at = activates_at - interval '30 days' where algorithm = 'EdDSA' and purpose = 'token' and state = 'active'")
        .await;
    eventually("it ends", 15, async || {
        let states = issuer.database.value::<i64>(
            "select count(*) from signing_keys where algorithm = 'EdDSA' and purpose = 'token' and state in ('pending', 'active')",
        );
        (states.await == 0).then_some(())
    })
    .await;
    assert_eq!(issuer.database.value::<i64>(all).await, 2);
    assert_eq!(signed(other).await, "RS256");
    let refused =
        issuer.http.patch(format!("{}/api/v1/resource-servers/{id}", issuer.url)).header("if-match", "*");
    let refused =
        refused.bearer_auth(&token).json(&json!({ "signing_algorithm": "HS256" })).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 400);
}

/// Nothing is half done of the keys for `EdDSA`.
async fn assert_whole(database: &TestDatabase, when: &str) {
    let broken: Vec<String> = sqlx::query_scalar(
        // A key that signs no more and has no end; one with an end that nobody follows at; one whose time it is and another's too; a key that was retired
        // while it was verified with; two announcements of one event.
        "select kid from signing_keys k where state = 'active' and signs_until is not null and purpose = 'token' and algorithm = 'EdDSA'
             and not exists (select from signing_keys s where s.algorithm = k.algorithm and s.purpose = 'token' and s.activates_at = k.signs_until)
         union all select kid from signing_keys where state = 'retired' and retires_at > now()
         union all select kid from signing_keys k where state <> 'retired' and purpose = 'token' and algorithm = 'EdDSA' and activates_at <= now()
             and exists (select from signing_keys s where s.algorithm = k.algorithm and s.purpose = k.purpose and s.state <> 'retired'
                         and s.activates_at > k.activates_at and s.activates_at <= now() and k.signs_until is null)
         union all select target_id from (select target_id, action from audit_events where action like 'key.%' and action <> 'key.scheduled'
                                          union all
                                          select target_id, action from audit_queue where action like 'key.%' and action <> 'key.scheduled') e
             group by target_id, action having count(*) > 1",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert!(broken.is_empty(), "{when}: {broken:?}");
}

/// Places in a rotation at which whoever does it can be made to stand still: after each row that is written, and when all that belongs together is committed.
struct Gates {
    here: PoolConnection<Postgres>,
    /// A connection that can hold the leadership, so that nobody has it. `None` while it waits for that.
    seat: Option<PoolConnection<Postgres>>,
}

impl Gates {
    const NAMES: [&str; 9] =
        ["made", "timed", "ends", "announced", "used", "retiring", "active", "retired", "commit"];

    async fn build(database: &TestDatabase) -> Self {
        for sql in [
            "create function gate(name text) returns void language sql as
             $$ select pg_advisory_xact_lock_shared(7000, array_position(array['made', 'timed', 'ends', 'announced', 'used', 'retiring', 'active', 'retired', 'commit'], name)) $$",
            "create function key_passes() returns trigger language plpgsql as $$ begin
                 if tg_argv[0] = 'commit' then perform gate('commit');
                 elsif tg_op = 'INSERT' then perform gate('made');
                 elsif new.state <> old.state then perform gate(new.state);
                 elsif new.activates_at is distinct from old.activates_at then perform gate('timed');
                 elsif new.signs_until is distinct from old.signs_until then perform gate('ends');
                 end if;
                 return null;
             end $$",
            "create function state_passes() returns trigger language plpgsql as $$ begin
                 if new.token_algorithm <> old.token_algorithm then perform gate('used');
                 elsif new.next_token_algorithm is distinct from old.next_token_algorithm then perform gate('announced');
                 end if;
                 return null;
             end $$",
            "create trigger key_passes after insert or update on signing_keys for each row execute function key_passes('row')",
            "create trigger state_passes after update on key_state for each row execute function state_passes()",
            "create constraint trigger key_commits after insert or update of state, activates_at, signs_until on signing_keys deferrable initially deferred
             for each row execute function key_passes('commit')",
            "create constraint trigger state_commits after update of token_algorithm, next_token_algorithm on key_state deferrable initially deferred
             for each row execute function key_passes('commit')",
        ] {
            database.execute(sql).await;
        }
        let seat = Some(database.pool.acquire().await.unwrap());
        Self { here: database.pool.acquire().await.unwrap(), seat }
    }

    fn number(name: &str) -> i32 {
        i32::try_from(Self::NAMES.iter().position(|known| *known == name).unwrap() + 1).unwrap()
    }

    async fn shut(&mut self, name: &str) {
        let shut = sqlx::query("select pg_advisory_lock(7000, $1)").bind(Self::number(name));
        shut.execute(&mut *self.here).await.unwrap();
    }

    async fn open(&mut self, name: &str) {
        let open = sqlx::query_scalar("select pg_advisory_unlock(7000, $1)").bind(Self::number(name));
        let opened: bool = open.fetch_one(&mut *self.here).await.unwrap();
        assert!(opened);
    }

    /// Whether somebody stands before it.
    async fn stopped(&mut self, name: &str) -> bool {
        let waiting = "select exists (select from pg_locks where locktype = 'advisory' and classid = 7000 and objid = $1::int::oid and not granted
                                       and database = (select oid from pg_database where datname = current_database()))";
        sqlx::query_scalar(waiting).bind(Self::number(name)).fetch_one(&mut *self.here).await.unwrap()
    }

    /// Is next to lead, before all issuers.
    async fn queue(&mut self) -> JoinHandle<PoolConnection<Postgres>> {
        let mut seat = self.seat.take().unwrap();
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *seat).await.unwrap();
        let taking = tokio::spawn(async move {
            let take = "select pg_advisory_lock(hashtextextended('countersign key rotation', 0))";
            sqlx::query(take).execute(&mut *seat).await.unwrap();
            seat
        });
        let queued =
            "select exists (select from pg_locks where pid = $1 and locktype = 'advisory' and objsubid = 1)";
        eventually("it is in the queue", 10, async || {
            let is_queued: bool =
                sqlx::query_scalar(queued).bind(pid).fetch_one(&mut *self.here).await.unwrap();
            is_queued.then_some(())
        })
        .await;
        taking
    }

    /// Lets an issuer lead.
    async fn leave(&mut self) {
        let leave = "select pg_advisory_unlock(hashtextextended('countersign key rotation', 0))";
        let left: bool =
            sqlx::query_scalar(leave).fetch_one(&mut **self.seat.as_mut().unwrap()).await.unwrap();
        assert!(left);
    }

    /// What the clock would bring about, brought about; no gate holds that up.
    async fn nudge(&mut self, statements: &[&'static str]) {
        for statement in statements {
            sqlx::query(*statement).execute(&mut *self.here).await.unwrap();
        }
    }
}

/// The clock's doing.
const SUCCESSOR_DUE: &[&str] = &[
    // A successor's time has come: its predecessor's end with it.
    "with due as (update signing_keys set activates_at = now() where state = 'pending' and purpose = 'token' and activates_at is not null returning algorithm)
     update signing_keys k set signs_until = now() from due where k.state = 'active' and k.purpose = 'token' and k.algorithm = due.algorithm",
    "update key_state set next_token_from = now() where next_token_algorithm is not null",
];
const TIME_OVER: &[&str] = &[
    "update signing_keys set activates_at = now() - interval '2 days' where state = 'active' and signs_until is null and purpose = 'token' and algorithm = 'EdDSA'",
];
const TOKENS_EXPIRED: &[&str] =
    &["update signing_keys set signs_until = signs_until - interval '2 days' where state = 'retiring'"];
/// What the clock has done, the gates that one transaction passes, and how it is seen that it is committed.
const TRANSACTIONS: [(&[&str], &[&str], &str); 7] = [
    (
        &[],
        &["made", "timed", "commit"],
        "select exists (select from signing_keys where algorithm = 'EdDSA' and state = 'pending' and purpose = 'token')",
    ),
    (&[], &["announced", "commit"], "select next_token_algorithm is not null from key_state"),
    (
        SUCCESSOR_DUE,
        &["active", "commit"],
        "select exists (select from signing_keys where algorithm = 'EdDSA' and state = 'active' and purpose = 'token')",
    ),
    (
        &[],
        &["used", "commit"],
        "select token_algorithm = 'EdDSA' and next_token_algorithm is null from key_state",
    ),
    (
        TIME_OVER,
        &["made", "timed", "ends", "commit"],
        "select exists (select from signing_keys where algorithm = 'EdDSA' and state = 'pending' and purpose = 'token')",
    ),
    (
        SUCCESSOR_DUE,
        &["retiring", "active", "commit"],
        "select exists (select from signing_keys where algorithm = 'EdDSA' and state = 'retiring' and purpose = 'token')",
    ),
    (
        TOKENS_EXPIRED,
        &["retired", "commit"],
        "select exists (select from signing_keys where state = 'retired' and purpose = 'token')",
    ),
];

/// The port from which whoever holds the leadership is connected: a replica, or this test.
async fn leaders_port(database: &TestDatabase) -> Option<u16> {
    let port: Option<i32> = database
        .value(
            "select (select client_port from pg_locks join pg_stat_activity using (pid)
                     where locktype = 'advisory' and granted and objsubid = 1 and datname = current_database()
                       and (classid::bigint << 32) | objid::bigint = hashtextextended('countersign key rotation', 0))",
        )
        .await;
    port?.try_into().ok()
}

/// All that a rotation changes.
async fn rows(database: &TestDatabase) -> Value {
    database
        .value(
            "select (select jsonb_agg(jsonb_build_array(kid, state, activates_at, signs_until) order by kid) from signing_keys)
                 || (select jsonb_build_array(token_algorithm, next_token_algorithm, next_token_from) from key_state)",
        )
        .await
}

/// At each step of a rotation, and of one to another algorithm, whoever leads is killed in the middle of it, and once more while it is committed. What wasn't
/// committed has left nothing; the other goes on from there, and both sign and publish throughout.
#[tokio::test]
async fn a_leader_that_is_killed_at_any_step_is_followed_by_one_that_finishes_it() {
    let settings = |cli: Cli| {
        // Nothing comes by itself while this test looks: a key waits for more than a minute.
        cli.env("JWKS_MAX_AGE_SECONDS", "60")
            .env("TOKEN_SIGNING_ALGORITHM", "EdDSA")
            .env("KEY_ROTATION_DAYS", "1")
    };
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let database = std::sync::Arc::new(database);
    let mut gates = Gates::build(&database).await;
    gates.shut("made").await;
    gates.seat = Some(gates.queue().await.await.unwrap());
    let start = async || Issuer::start_on(database.clone(), administrator.clone(), settings).await;
    let mut replicas = [start().await, start().await];
    gates.leave().await;
    let (mut kills, mut shut) = (0, "made");
    let mut steps = TRANSACTIONS.iter().peekable();
    while let Some((nudges, names, committed)) = steps.next() {
        gates.nudge(nudges).await;
        for (place, name) in names.iter().enumerate() {
            let leader = eventually("the leader stands before the gate", 30, async || {
                let port = leaders_port(&database).await?;
                let leader = replicas.iter().position(|replica| replica.is_connected_from(port))?;
                gates.stopped(name).await.then_some(leader)
            })
            .await;
            let before = rows(&database).await;
            let seat = gates.queue().await;
            replicas[leader].kill();
            gates.seat = Some(seat.await.unwrap());
            kills += 1;
            let when = format!("killed at {name} of {names:?}");
            assert_eq!(rows(&database).await, before, "{when}");
            assert_whole(&database, &when).await;
            // The other one knows nothing of it, and signs.
            let survivor = &replicas[1 - leader];
            assert!(verifies(&jwks(survivor).await, &survivor.token(&administrator).await), "{when}");
            // The next gate before this one opens: the next leader comes so far and no further.
            let next = names.get(place + 1).or_else(|| steps.peek().map(|(_, names, _)| &names[0]));
            if let Some(next) = next {
                gates.shut(next).await;
            }
            gates.open(shut).await;
            shut = next.copied().unwrap_or_default();
            if *name == "commit" {
                // The database had all of it; who had asked isn't needed any more.
                eventually("it is committed", 10, async || {
                    database.value::<bool>(committed).await.then_some(())
                })
                .await;
                assert_whole(&database, &when).await;
            }
            replicas[leader] = start().await;
            gates.leave().await;
        }
    }
    println!("{kills} kills");
    assert_eq!(kills, 18);
    eventually("both sign with one key", 30, async || {
        assert_whole(&database, "at the end").await;
        let tokens = [replicas[0].token(&administrator).await, replicas[1].token(&administrator).await];
        let known = verifies(&jwks(&replicas[1]).await, &tokens[0])
            && verifies(&jwks(&replicas[0]).await, &tokens[1]);
        let kid = kid_of(&tokens[0]);
        (known
            && kid == kid_of(&tokens[1])
            && part(&tokens[0], 0)["alg"] == "EdDSA"
            && states(&database).await[&kid] == "active")
            .then_some(())
    })
    .await;
    let all: Vec<String> = states(&database).await.into_values().collect();
    let of = |state: &str| all.iter().filter(|one| *one == state).count();
    // RS256's, which nothing asks for any more, and two of EdDSA.
    assert_eq!((all.len(), of("active"), of("retired")), (3, 2, 1), "{all:?}");
}

/// A key that is made while a resource server is changed is kept for as long as that one's tokens live, whichever is committed first.
#[tokio::test]
async fn a_key_made_meanwhile_is_kept_for_the_longest_lifetime() {
    let (database, _) = TestDatabase::bootstrapped().await;
    // What is there already is kept for longer than that: there has been a resource server which asked for it.
    database.execute("update signing_keys set longest_lifetime_seconds = 9000 where purpose = 'token'").await;
    let mut change = database.pool.begin().await.unwrap();
    let changed =
        sqlx::query("update resource_servers set token_lifetime_seconds = 7200").execute(&mut *change).await;
    assert!(changed.unwrap().rows_affected() > 0);
    let mut rotating =
        Cli::new(&database.url).command(&["keys", "rotate"]).stdout(Stdio::null()).spawn().unwrap();
    let waiting = "select exists (select from pg_locks where locktype = 'advisory' and not granted
                                  and database = (select oid from pg_database where datname = current_database()))";
    eventually("it waits, or is through", 20, async || {
        (database.value::<bool>(waiting).await || rotating.try_wait().unwrap().is_some()).then_some(())
    })
    .await;
    change.commit().await.unwrap();
    assert!(rotating.wait().unwrap().success());
    let kept: i32 =
        database.value("select longest_lifetime_seconds from signing_keys where state = 'pending'").await;
    assert_eq!(kept, 7200);
}

/// Whoever leads is killed, again and again, at no chosen moment, while one rotation after another is under way. Each step is one transaction, so what is left
/// behind is always whole, and the next leader goes on from there.
#[tokio::test]
async fn a_leader_that_is_killed_leaves_nothing_half_done() {
    let settings =
        |cli: Cli| quick(cli).env("TOKEN_SIGNING_ALGORITHM", "EdDSA").env("KEY_ROTATION_DAYS", "1");
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let database = std::sync::Arc::new(database);
    forget_max_age(&database).await;
    let start = async || Issuer::start_on(database.clone(), administrator.clone(), settings).await;
    let mut replicas = [start().await, start().await];
    let whole = async |when: &str| assert_whole(&database, when).await;
    let (mut kills, mut leaders) = (0, 0);
    let mut seed = u64::from(std::process::id()) | 1;
    let mut rotations = 0_i64;
    // What the clock would bring about, brought about: a key's time is over, its successor's has come, its tokens have expired.
    let nudges: [&[&str]; 3] = [
        &["update signing_keys set activates_at = now() - interval '2 days' where state = 'active' and signs_until is null and purpose = 'token'"],
        &[
            "update signing_keys k set signs_until = now() from signing_keys s
             where k.state = 'active' and s.state = 'pending' and s.activates_at = k.signs_until and k.algorithm = s.algorithm",
            "update signing_keys set activates_at = now() where state = 'pending' and purpose = 'token' and activates_at is not null",
        ],
        &["update signing_keys set signs_until = signs_until - interval '2 days' where state = 'retiring'"],
    ];
    for round in 0..36 {
        let mut transaction = database.pool.begin().await.unwrap();
        for statement in nudges[round % 3] {
            sqlx::query(*statement).execute(&mut *transaction).await.unwrap();
        }
        transaction.commit().await.unwrap();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis((seed >> 33) % 1200)).await;
        let leads: i64 = database
            .value("select count(*) from pg_stat_activity where datname = current_database() and query = 'select /* countersign rotates keys */'")
            .await;
        assert!(leads <= 1, "{leads} lead");
        let leader = replicas.iter().position(|replica| replica.log().contains("this process rotates keys"));
        let victim = leader.unwrap_or(round % 2);
        leaders += usize::from(leader.is_some());
        replicas[victim].kill();
        kills += 1;
        whole(&format!("after kill {kills}")).await;
        replicas[victim] = start().await;
        rotations = database
            .value("select count(*) from signing_keys where purpose = 'token' and algorithm = 'EdDSA'")
            .await;
    }
    println!("{kills} kills, {leaders} of leaders, {rotations} keys");
    assert!(rotations >= 4 && leaders >= 15, "only {leaders} leaders were killed, {rotations} keys made");
    // Left alone, it comes to rest: one key signs, and what it signs verifies at both.
    eventually("one key signs", 30, async || {
        whole("at the end").await;
        let token = replicas[0].token(&administrator).await;
        let known = verifies(&jwks(&replicas[1]).await, &token);
        (known && part(&token, 0)["alg"] == "EdDSA" && states(&database).await[&kid_of(&token)] == "active")
            .then_some(())
    })
    .await;
}

/// A key is published when its transaction is over, not when that began.
#[tokio::test]
async fn a_commit_that_takes_long_has_the_key_wait() {
    let (database, _) = TestDatabase::bootstrapped().await;
    forget_max_age(&database).await;
    for sql in [
        "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(2.5); return null; end $$",
        "create constraint trigger slow after insert on signing_keys deferrable initially deferred for each row execute function slow()",
    ] {
        database.execute(sql).await;
    }
    let rotated = json_of(&Cli::new(&database.url), &["keys", "rotate"]);
    let left = time(&rotated["key"]["signs_from"]) - OffsetDateTime::now_utc();
    assert!(left > time::Duration::seconds(4), "{left}: {rotated}");
    assert_eq!(rotated["predecessor"]["signs_until"], rotated["key"]["signs_from"]);
    let same: bool = database
        .value("select a.signs_until = p.activates_at from signing_keys a, signing_keys p where a.state = 'active' and a.purpose = 'token' and p.state = 'pending'")
        .await;
    assert!(same);
}

/// What an issuer lets others count on holds for the keys before it says so; and what nobody says any more is forgotten when nobody can count on it.
#[tokio::test]
async fn keys_are_kept_for_what_issuers_promise() {
    let long = |cli: Cli| cli.env("TOKEN_LIFETIME_SECONDS", "7200").env("JWKS_MAX_AGE_SECONDS", "600");
    let short = |cli: Cli| cli.env("JWKS_MAX_AGE_SECONDS", "1");
    let mut issuer = Issuer::start_with(long).await;
    let (database, administrator) = (issuer.database.clone(), issuer.administrator.clone());
    let promised = async || -> (i32, i32) {
        sqlx::query_as(
            "select jwks_max_age_seconds, (select longest_lifetime_seconds from signing_keys where purpose = 'token' and state = 'active')
             from key_state",
        )
        .fetch_one(&database.pool)
        .await
        .unwrap()
    };
    assert_eq!(promised().await, (600, 7200));
    let cli = Cli::new(&database.url); // knows nothing of these settings
    let before = OffsetDateTime::now_utc();
    let rotated = json_of(&cli, &["keys", "rotate"]);
    let switch = time(&rotated["key"]["signs_from"]);
    assert!(switch - before >= time::Duration::seconds(605), "{rotated}");
    assert_eq!(time(&rotated["predecessor"]["verifies_until"]) - switch, time::Duration::seconds(7230));
    issuer.stop();

    // Tokens of two hours are still about. The JWK Sets of ten minutes are, too, for as long.
    let _short = Issuer::start_on(database.clone(), administrator.clone(), short).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(promised().await, (600, 7200));
    database
        .execute("update key_state set jwks_max_age_seconds = 3, jwks_max_age_stated_at = now() - interval '61 seconds'")
        .await;
    eventually("it is forgotten", 6, async || (promised().await == (1, 7200)).then_some(())).await;
    let _long = Issuer::start_on(database.clone(), administrator.clone(), long).await;
    assert_eq!(promised().await.0, 600);
}
