//! From a committed revocation to what the edge holds. The stand-in verifies every head as the real hub does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_shared::revocation::hex;
use countersign_shared::{Algorithm, Coordinate, Jti, Jwk, KeySet, Serial, Shard, UnixTime};
use serde_json::Value;

use crate::support::cli::Cli;
use crate::support::edge::{Edge, Mood, read_directory, revocation_keys};
use crate::support::issuer::{claims, part};
use crate::support::proxy::{Line, Proxy};
use crate::support::{Issuer, TestDatabase, eventually};

fn jti(token: &str) -> Jti {
    claims(token)["jti"].as_str().unwrap().parse().unwrap()
}

async fn start() -> (Edge, Issuer) {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let edge = Edge::start(&database.url).await;
    let issuer = Issuer::start_on(database.into(), administrator, |cli| edge.configure(cli)).await;
    eventually("a first head", 5, async || edge.revoked_set()).await;
    (edge, issuer)
}

async fn another(edge: &Edge, issuer: &Issuer) -> Issuer {
    Issuer::start_on(issuer.database.clone(), issuer.administrator.clone(), |cli| edge.configure(cli)).await
}

async fn publisher(issuer: &Issuer) -> Value {
    issuer.ready().await.1["checks"]["publisher"].clone()
}

/// Revokes a new token; its jti.
async fn revoke_one(issuer: &Issuer) -> Jti {
    let token = issuer.token(&issuer.administrator).await;
    issuer.revoke(&issuer.administrator, &token).await;
    jti(&token)
}

#[tokio::test]
async fn a_revocation_is_at_the_edge_at_once() {
    let (edge, issuer) = start().await;
    let mut times = Vec::new();
    for _ in 0..5 {
        // After a quiet time nothing waits to be coalesced.
        tokio::time::sleep(Duration::from_millis(250)).await;
        let (token, other) =
            (issuer.token(&issuer.administrator).await, issuer.token(&issuer.administrator).await);
        issuer.revoke(&issuer.administrator, &token).await;
        times.push(edge.refuses(jti(&token)).await);
        assert!(!edge.revoked_set().unwrap().contains(jti(&other).coordinate()), "no other token");
    }
    times.sort_unstable();
    println!("committed to at the edge: {times:?}");
    assert!(times[2] < Duration::from_millis(100), "{times:?}");
    let state = publisher(&issuer).await;
    assert_eq!(
        (&state["status"], &state["role"], &state["lag_seqs"]),
        (&"ok".into(), &"leader".into(), &0.into())
    );
}

#[tokio::test]
async fn a_heartbeat_says_that_nothing_changed() {
    let (edge, issuer) = start().await;
    revoke_one(&issuer).await;
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let heads = edge.heads();
    let last = &heads[heads.len() - 1];
    let same: Vec<_> =
        heads.iter().filter(|received| received.head.position() == last.head.position()).collect();
    assert!((3..=5).contains(&same.len()), "one a second: {}", same.len());
    for pair in same.windows(2) {
        assert!((900..1500).contains(&(pair[1].at - pair[0].at).as_millis()));
        assert!(pair[1].head.as_of > pair[0].head.as_of);
        assert_eq!(pair[1].head.fresh_until, pair[1].head.as_of.plus(300));
    }
    edge.expect_sound();
}

#[tokio::test]
async fn many_at_once_go_out_together() {
    let (edge, issuer) = start().await;
    let tokens = futures_util::future::join_all((0..150).map(|_| issuer.token(&issuer.administrator))).await;
    let before = edge.heads().len();
    let started = Instant::now();
    futures_util::future::join_all(tokens.iter().map(|token| issuer.revoke(&issuer.administrator, token)))
        .await;
    for token in &tokens {
        edge.refuses(jti(token)).await;
    }
    let pushes = edge.heads().len() - before;
    let most = started.elapsed().as_millis() / 100 + 2;
    assert!(pushes as u128 <= most, "{pushes} pushes in {:?}", started.elapsed());
    let position = edge.heads().last().unwrap().head.position();
    let sequenced: i64 = issuer.database.value("select count(distinct seq) from revocation_outbox").await;
    assert_eq!((sequenced, position.0), (150, 1));
}

#[tokio::test]
async fn a_slow_transaction_is_not_skipped() {
    let (edge, issuer) = start().await;
    let shard = Shard::new(500_000).unwrap();
    let slow = Coordinate { shard, serial: Serial::new(7).unwrap() };
    // Its row comes first, its commit last.
    let mut transaction = issuer.database.pool.begin().await.unwrap();
    sqlx::query("insert into revocation_outbox (shard, serial) values (500000, 7)")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let quick = revoke_one(&issuer).await;
    edge.refuses(quick).await;
    assert!(!edge.revoked_set().unwrap().contains(slow));
    transaction.commit().await.unwrap();
    eventually("the slow one, by the poll: nobody notified", 5, async || {
        edge.revoked_set().filter(|set| set.contains(slow))
    })
    .await;
    assert!(edge.revoked_set().unwrap().contains(quick.coordinate()));
    edge.expect_sound();
}

#[tokio::test]
async fn what_was_revoked_while_nobody_published_is_published_later() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let edge = Edge::start(&database.url).await;
    let database = Arc::new(database);
    let mut silent = Issuer::start_on(database.clone(), administrator.clone(), |cli| cli).await;
    let revoked = revoke_one(&silent).await;
    assert_eq!(silent.stop().code(), Some(0));
    let issuer = Issuer::start_on(database, administrator, |cli| edge.configure(cli)).await;
    edge.refuses(revoked).await;
    drop(issuer);
}

#[tokio::test]
async fn a_kill_between_commit_and_push_loses_nothing() {
    let (edge, mut issuer) = start().await;
    let first = revoke_one(&issuer).await;
    edge.refuses(first).await;
    edge.set_hub(Mood::Slow);
    let second = revoke_one(&issuer).await;
    issuer.kill();
    edge.set_hub(Mood::Fine);
    let before = edge.heads().last().unwrap().head.position();
    let issuer = another(&edge, &issuer).await;
    edge.refuses(second).await;
    assert!(edge.revoked_set().unwrap().contains(first.coordinate()));
    assert!(edge.heads().last().unwrap().head.position() > before, "it never goes back");
    drop(issuer);
}

#[tokio::test]
async fn a_restart_does_not_go_back_nor_count_on_for_nothing() {
    let (edge, mut issuer) = start().await;
    edge.refuses(revoke_one(&issuer).await).await;
    for _ in 0..3 {
        issuer.stop();
        let before = edge.heads().len();
        issuer = another(&edge, &issuer).await;
        eventually("a head of the new process", 5, async || (edge.heads().len() > before).then_some(()))
            .await;
    }
    // Each may make a new base of what came since; there is nothing more to make after the first time.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let settled = edge.heads().last().unwrap().head.clone();
    issuer.stop();
    let before = edge.heads().len();
    let _issuer = another(&edge, &issuer).await;
    eventually("a head of the new process", 5, async || (edge.heads().len() > before + 1).then_some(()))
        .await;
    let head = edge.heads().last().unwrap().head.clone();
    assert_eq!((head.position(), head.base), (settled.position(), settled.base));
    edge.expect_sound();
}

#[tokio::test]
async fn a_failing_hub_is_tried_until_it_works() {
    let (edge, issuer) = start().await;
    edge.set_hub(Mood::Failing);
    let revoked = revoke_one(&issuer).await;
    let attempts = edge.attempts();
    let state = eventually("it shows", 12, async || {
        let state = publisher(&issuer).await;
        (state["status"] == "degraded").then_some(state)
    })
    .await;
    assert!(state["lag_ms"].as_u64().unwrap() > 4000 && state["lag_seqs"].as_u64().unwrap() >= 1, "{state}");
    assert_eq!(state["failing_sinks"], serde_json::json!(["hub"]));
    let attempts = edge.attempts() - attempts;
    assert!((4..40).contains(&attempts), "backoff: {attempts} attempts in 5 s");
    assert!(issuer.get("/ready").send().await.unwrap().status().is_success(), "it can still issue");
    edge.set_hub(Mood::Fine);
    edge.refuses(revoked).await;
    eventually("it shows that all is well", 5, async || {
        (publisher(&issuer).await["status"] == "ok").then_some(())
    })
    .await;
    let log = issuer.whole_log().await;
    assert!(
        log.contains("publishing fails, trying on: it answered 500")
            && log.contains("publishing works again")
    );
    assert_eq!(log.matches("publishing fails").count(), 1, "said once, not with every attempt");
}

#[tokio::test]
async fn no_head_before_its_base() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let edge = Edge::start(&database.url).await;
    edge.set_kv(Mood::Failing);
    let issuer = Issuer::start_on(database.into(), administrator, |cli| edge.configure(cli)).await;
    let revoked = revoke_one(&issuer).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(edge.heads().is_empty(), "nothing to name yet");
    edge.set_kv(Mood::Fine);
    edge.refuses(revoked).await;

    // Later a failing store only makes the delta grow.
    edge.set_kv(Mood::Failing);
    edge.refuses(revoke_one(&issuer).await).await;
}

#[tokio::test]
async fn a_long_delta_becomes_a_base() {
    let (edge, issuer) = start().await;
    let first = edge.heads().last().unwrap().head.clone();
    let (shard, count) =
        (Shard::of_expiry(UnixTime(time::OffsetDateTime::now_utc().unix_timestamp())).unwrap(), 30_000);
    let queue = format!(
        "insert into revocation_outbox (shard, serial) select {}, n * 1000 from generate_series(0, {}) n",
        shard.get(),
        count - 1
    );
    issuer.database.execute(&queue).await;
    let last = Coordinate { shard, serial: Serial::new((count - 1) * 1000).unwrap() };
    eventually("all of it in a new base", 15, async || {
        let head = edge.heads().last()?.head.clone();
        (head.base != first.base && head.delta.len() < 100 && edge.revoked_set()?.contains(last))
            .then_some(())
    })
    .await;
    let set = edge.revoked_set().unwrap();
    for serial in (0..count * 1000).step_by(500) {
        let coordinate = Coordinate { shard, serial: Serial::new(serial).unwrap() };
        assert_eq!(set.contains(coordinate), serial % 1000 == 0, "{serial}");
    }
    edge.expect_sound();
}

/// A base for each revocation: what came before them is long ago.
async fn new_base(edge: &Edge, issuer: &mut Issuer) -> String {
    let before = edge.heads().last().unwrap().head.base;
    edge.refuses(revoke_one(issuer).await).await;
    issuer.stop();
    *issuer = another(edge, issuer).await;
    let base = async || edge.heads().last().map(|last| last.head.base).filter(|base| *base != before);
    format!("base/{}", hex(&eventually("a new base", 5, base).await))
}

#[tokio::test]
async fn objects_that_no_head_can_refer_to_are_deleted() {
    let (edge, mut issuer) = start().await;
    let first = format!("base/{}", hex(&edge.heads().last().unwrap().head.base));
    let second = new_base(&edge, &mut issuer).await;
    // One that a leader stored who died before a head named it.
    issuer
        .database
        .execute("insert into published_objects (place, sha256) values ('kv namespace', decode(repeat('ab', 32), 'hex'))")
        .await;
    let third = new_base(&edge, &mut issuer).await;
    assert!([&first, &second, &third].iter().all(|name| edge.objects().contains(name)));
    let superseded = "select count(*) from published_objects where superseded_at is not null";
    assert_eq!(issuer.database.value::<i64>(superseded).await, 3);

    // Almost long enough is not enough; then the store fails for a while.
    let back = "update published_objects set superseded_at = superseded_at - interval '3900 seconds'";
    issuer.database.execute(back).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!([&first, &second, &third].iter().all(|name| edge.objects().contains(name)));
    edge.set_kv(Mood::Failing);
    edge.pretend_later(3970);
    issuer
        .database
        .execute("update published_objects set superseded_at = superseded_at - interval '70 seconds'")
        .await;
    eventually("it is tried", 20, async || {
        issuer.log().contains("old base objects can't be deleted").then_some(())
    })
    .await;
    assert_eq!(issuer.database.value::<i64>("select count(*) from published_objects").await, 4);
    edge.set_kv(Mood::Fine);
    eventually("they are deleted", 25, async || (edge.objects() == [third.clone()]).then_some(())).await;
    eventually("and forgotten", 5, async || {
        (issuer.database.value::<i64>("select count(*) from published_objects").await == 1).then_some(())
    })
    .await;

    // Never the one in force, whatever the table says.
    let wrong = "update published_objects set superseded_at = now() - interval '1 day'";
    issuer.database.execute(wrong).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(edge.objects(), [third]);
    edge.expect_sound();
}

#[tokio::test]
async fn while_no_base_can_be_stored_heads_go_on() {
    let (edge, issuer) = start().await;
    let first = edge.heads().last().unwrap().head.base;
    edge.set_kv(Mood::Failing);
    let shard = Shard::of_expiry(UnixTime(time::OffsetDateTime::now_utc().unix_timestamp())).unwrap();
    for batch in 0..4_u64 {
        let queue = format!(
            "insert into revocation_outbox (shard, serial) select {}, n * 200 from generate_series({}, {}) n",
            shard.get(),
            batch * 10_000,
            batch * 10_000 + 9_999
        );
        issuer.database.execute(&queue).await;
        let last = Serial::new((batch * 10_000 + 9_999) * 200).unwrap();
        let held = || edge.revoked_set().filter(|set| set.contains(Coordinate { shard, serial: last }));
        eventually("it is in the delta", 5, async || held()).await;
    }
    let head = edge.heads().last().unwrap().head.clone();
    assert_eq!(head.base, first);
    assert!(head.delta.len() > 70_000, "{}", head.delta.len());
    edge.set_kv(Mood::Fine);
    eventually("a base of all that", 20, async || {
        let head = edge.heads().last()?.head.clone();
        (head.base != first && head.delta.len() < 100).then_some(())
    })
    .await;
    for n in (0..40_000 * 200).step_by(100) {
        let coordinate = Coordinate { shard, serial: Serial::new(n).unwrap() };
        assert_eq!(edge.revoked_set().unwrap().contains(coordinate), n % 200 == 0, "{n}");
    }
    edge.expect_sound();
}

#[tokio::test]
async fn shards_of_the_past_are_left_out() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let edge = Edge::start(&database.url).await;
    let now = UnixTime(time::OffsetDateTime::now_utc().unix_timestamp());
    let (past, present) = (Shard::of_expiry(now.plus(-3 * 3600)).unwrap(), Shard::of_expiry(now).unwrap());
    database
        .execute(&format!(
            "insert into revocation_outbox (shard, serial) values ({}, 1), ({}, 2)",
            past.get(),
            present.get()
        ))
        .await;
    let mut issuer = Issuer::start_on(database.into(), administrator, |cli| edge.configure(cli)).await;
    let [past, present] = [(past, 1), (present, 2)]
        .map(|(shard, serial)| Coordinate { shard, serial: Serial::new(serial).unwrap() });
    eventually("the present one", 5, async || edge.revoked_set().filter(|set| set.contains(present))).await;
    issuer.stop();
    let _issuer = another(&edge, &issuer).await;
    eventually("a base without the past", 5, async || edge.revoked_set().filter(|set| !set.contains(past)))
        .await;
    assert!(edge.revoked_set().unwrap().contains(present));
    edge.expect_sound();
}

#[tokio::test]
async fn an_edge_that_forgot_gets_its_base_again() {
    let (edge, issuer) = start().await;
    let revoked = revoke_one(&issuer).await;
    edge.refuses(revoked).await;
    edge.set_hub(Mood::Failing);
    edge.forget_objects();
    assert!(edge.revoked_set().is_none());
    tokio::time::sleep(Duration::from_millis(2500)).await;
    edge.set_hub(Mood::Fine);
    edge.refuses(revoked).await;
}

#[tokio::test]
async fn one_publishes_and_another_takes_over() {
    let (edge, mut leader) = start().await;
    let follower = another(&edge, &leader).await;
    eventually("it follows", 5, async || (publisher(&follower).await["role"] == "follower").then_some(()))
        .await;
    // Whoever takes the revocation, the leader is woken.
    let revoked = revoke_one(&follower).await;
    assert!(edge.refuses(revoked).await < Duration::from_millis(500));

    leader.kill();
    let revoked = revoke_one(&follower).await;
    let took = edge.refuses(revoked).await;
    println!("taken over in {took:?}");
    assert!(took < Duration::from_secs(4));
    assert_eq!(publisher(&follower).await["role"], "leader");
}

#[tokio::test]
async fn a_leader_that_lost_its_connection_starts_over() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let edge = Edge::start(&database.url).await;
    let (proxy, url) = Proxy::before(&database.url, Line::Open).await;
    let database = Arc::new(database);
    let configure = |cli| edge.configure(cli);
    let cut_off = Issuer::start_on(database.clone(), administrator.clone(), |cli| {
        configure(cli).env("DATABASE_URL", &url)
    })
    .await;
    eventually("it leads", 5, async || (publisher(&cut_off).await["role"] == "leader").then_some(())).await;
    let other = Issuer::start_on(database, administrator, configure).await;
    proxy.set(Line::Cut);
    let revoked = revoke_one(&other).await;
    edge.refuses(revoked).await;
    assert_eq!(publisher(&cut_off).await["role"], "disconnected");
    proxy.set(Line::Open);
    eventually("it follows now", 8, async || (publisher(&cut_off).await["role"] == "follower").then_some(()))
        .await;
    edge.expect_sound();
}

#[tokio::test]
async fn a_hub_ahead_of_the_database_raises_the_alarm() {
    let (edge, issuer) = start().await;
    edge.set_hub(Mood::Ahead(1_000_000));
    revoke_one(&issuer).await;
    let line = issuer.logged("it looks restored from a backup").await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["level"], &line["hub_epoch"], &line["hub_seq"]),
        (&"ERROR".into(), &1.into(), &1_000_000.into())
    );
    eventually("it shows", 12, async || (publisher(&issuer).await["status"] == "degraded").then_some(()))
        .await;

    // The operator's answer.
    edge.set_hub(Mood::Fine);
    let before = issuer.token(&issuer.administrator).await;
    let serials = "select max(next_serial) from serial_shards";
    let leased: i64 = issuer.database.value(serials).await;
    let recover = ["recover", "--restored-from-backup", "--reason", "a test", "--json"];
    let said: Value =
        serde_json::from_str(&Cli::new(&issuer.database.url).run(&recover).expect_success()).unwrap();
    let epoch = said["epoch"].as_u64().unwrap();
    assert!(epoch > 1_700_000_000, "above that of any recovery before: {epoch}");
    assert!(!issuer.is_active(&issuer.administrator, &before).await, "it may have been revoked");
    let revoked = revoke_one(&issuer).await;
    edge.refuses(revoked).await;
    let heads = edge.heads();
    assert_eq!(heads.last().unwrap().head.epoch, epoch);
    let now: i64 = issuer.database.value(serials).await;
    assert!(now >= leased + (1 << 27), "{leased} {now}: no serial is issued twice");
    // Not by an issuer that holds a lease from before either.
    eventually("it has heard", 5, async || {
        let serial = jti(&issuer.token(&issuer.administrator).await).coordinate().serial.get();
        (serial >= 1 << 27).then_some(())
    })
    .await;
    let version: i64 = issuer.database.value("select version from key_state").await;
    assert!(version > 1_700_000_000, "no issuer knows it with other keys: {version}");
    let row = &issuer.database.audit("system.recovered").await[0];
    assert_eq!((&row["reason"], &row["epoch"]), (&"a test".into(), &epoch.into()));
    // And again: each time above the last.
    let said: Value =
        serde_json::from_str(&Cli::new(&issuer.database.url).run(&recover).expect_success()).unwrap();
    assert!(said["epoch"].as_u64().unwrap() > epoch);
    let half = Cli::new(&issuer.database.url).run(&["recover", "--reason", "a test"]);
    assert_eq!(half.code(), Some(2), "{}", half.stderr());
}

#[tokio::test]
async fn a_restored_database_numbers_nothing_before_the_hub_agrees() {
    let (edge, mut issuer) = start().await;
    issuer.stop();
    edge.set_hub(Mood::Ahead(1_000_000));
    let issuer = another(&edge, &issuer).await;
    let revoked = revoke_one(&issuer).await;
    issuer.logged("it looks restored from a backup").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let numbered: i64 = issuer.database.value("select count(seq) from revocation_outbox").await;
    assert_eq!(numbered, 0, "else it would count past the hub and be believed");
    issuer.database.execute("update publisher_state set epoch = epoch + 1").await;
    edge.set_hub(Mood::Fine);
    edge.refuses(revoked).await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_an_edge_that_is_away() {
    let (edge, mut issuer) = start().await;
    edge.set_hub(Mood::Slow);
    revoke_one(&issuer).await;
    let started = Instant::now();
    assert_eq!(issuer.stop().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(2));
    let waiting: i64 = issuer.database.value("select count(*) from revocation_outbox").await;
    assert_eq!(waiting, 1, "it is in the outbox");
}

#[tokio::test]
async fn the_keys_are_at_the_edge_before_they_sign() {
    let (edge, issuer) = start().await;
    let cli = edge.configure(Cli::new(&issuer.database.url));
    let published = async || {
        let jwks = issuer.get("/.well-known/jwks.json").send().await.unwrap().bytes().await.unwrap();
        KeySet::parse(&jwks).unwrap()
    };
    let first = eventually("a key statement", 5, async || edge.keys().pop()).await;
    assert_eq!(first.keys, published().await);
    let named = async || edge.heads().last().unwrap().head.keys;
    eventually("heads name it", 5, async || (named().await == Some(first.version)).then_some(())).await;

    let rotated: Value =
        serde_json::from_str(&cli.run(&["keys", "rotate", "--json"]).expect_success()).unwrap();
    assert_eq!(rotated["key"]["state"], "pending", "it doesn't sign for minutes");
    let kids = |keys: &KeySet| keys.keys().iter().map(|key| key.kid().to_owned()).collect::<Vec<_>>();
    let kid = |place: &str| rotated[place]["kid"].as_str().unwrap().to_owned();
    let second = eventually("the new key", 2, async || {
        edge.keys().pop().filter(|statement| kids(&statement.keys).contains(&kid("key")))
    })
    .await;
    assert!(kids(&second.keys).contains(&kid("predecessor")) && second.version > first.version);
    eventually("heads name that", 2, async || (named().await >= Some(second.version)).then_some(())).await;

    // A hub that has lost them gets them again, with nothing having changed.
    edge.forget_keys();
    let again = eventually("once more", 5, async || edge.keys().pop()).await;
    assert_eq!(again.keys, second.keys);

    // A revoked key is gone from the next statement, and its successor is in it.
    let args = ["keys", "revoke", &kid("predecessor"), "--reason", "a test", "--json"];
    cli.run(&args).expect_success();
    let third = eventually("without it", 2, async || {
        edge.keys().pop().filter(|statement| !kids(&statement.keys).contains(&kid("predecessor")))
    })
    .await;
    assert_eq!(third.keys, published().await);
    assert!(third.keys.keys().iter().all(|key: &Jwk| key.algorithm() == Algorithm::Rs256));
    edge.expect_sound();
}

#[tokio::test]
async fn a_raised_epoch_makes_a_new_key_statement() {
    let (edge, issuer) = start().await;
    let first = eventually("a key statement", 5, async || edge.keys().pop()).await;
    issuer.database.execute("update publisher_state set epoch = epoch + 1").await;
    let second = eventually("one of the new epoch", 5, async || {
        edge.keys().pop().filter(|statement| statement.epoch == first.epoch + 1)
    })
    .await;
    assert_eq!(second.keys, first.keys);
    eventually("heads name it", 5, async || {
        let head = edge.heads().last().unwrap().head.clone();
        (head.epoch == second.epoch && head.keys == Some(second.version)).then_some(())
    })
    .await;
    edge.expect_sound();
}

#[tokio::test]
async fn another_leader_states_the_keys_as_the_first_did() {
    let (edge, mut issuer) = start().await;
    let first = eventually("a key statement", 5, async || edge.keys().pop()).await;
    let _other = another(&edge, &issuer).await;
    issuer.kill();
    let before = edge.heads().len();
    eventually("the other leads, and vouches for them", 10, async || {
        let heads = edge.heads();
        heads[before..].iter().any(|received| received.head.keys >= Some(first.version)).then_some(())
    })
    .await;
    assert_eq!(edge.keys().last().unwrap().keys, first.keys);
    edge.expect_sound();
}

/// A directory that isn't there yet, and is gone in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("countersign-{}-{name}", std::process::id()));
        _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn objects(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.0.join("base")).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_directory_alone_is_published_to() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let keys = revocation_keys(&database.url);
    let folder = Folder::new("alone");
    let configure = |cli: Cli| cli.env("PUBLISHER_DIRECTORY", folder.text());
    let mut issuer = Issuer::start_on(database.into(), administrator, configure).await;
    let refuses = async |jti: Jti| {
        eventually("the directory has the revocation", 10, async || {
            read_directory(&folder.0, &keys).filter(|(_, set)| set.contains(jti.coordinate()))
        })
        .await
        .0
    };
    let first = refuses(revoke_one(&issuer).await).await;
    let later = eventually("a heartbeat", 5, async || {
        read_directory(&folder.0, &keys).filter(|(head, _)| head.as_of > first.as_of)
    })
    .await;
    assert_eq!(later.0.position(), first.position());
    assert_eq!(publisher(&issuer).await["status"], "ok");

    // Another process goes on; what was there before stays until it is old, and what somebody left unfinished goes.
    let old = hex(&first.base);
    std::fs::write(folder.0.join("base/half.new"), "half").unwrap();
    std::fs::write(folder.0.join("base/README"), "nobody's").unwrap();
    issuer.stop();
    issuer = Issuer::start_on(issuer.database.clone(), issuer.administrator.clone(), configure).await;
    let second = eventually("a new base", 10, async || {
        read_directory(&folder.0, &keys).filter(|(head, _)| head.base != first.base)
    })
    .await
    .0;
    assert!(second.position() > first.position());
    assert!(folder.objects().contains(&old), "someone may just have read the head that names it");
    let age = |name: &str, seconds| {
        let file = std::fs::File::options().append(true).open(folder.0.join("base").join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    };
    // Not quite an hour and six minutes; but all of it for the others.
    age(&old, 3900);
    for name in ["half.new", "README", &hex(&second.base)] {
        age(name, 10_000);
    }
    eventually("tidied up", 15, async || (!folder.objects().contains(&"half.new".into())).then_some(()))
        .await;
    assert!(
        [&old, "README", &hex(&second.base)]
            .iter()
            .all(|name| folder.objects().contains(&(*name).to_owned()))
    );
    age(&old, 3970);
    eventually("the old one too", 15, async || (!folder.objects().contains(&old)).then_some(())).await;
    refuses(revoke_one(&issuer).await).await;

    // A database that went back in time doesn't overwrite what is newer.
    issuer.stop();
    issuer.database.execute("update publisher_state set seq = seq - 1").await;
    let issuer = Issuer::start_on(issuer.database.clone(), issuer.administrator.clone(), configure).await;
    issuer.logged("it looks restored from a backup").await;
}

#[tokio::test]
async fn a_directory_that_lost_its_bases_gets_another_and_no_older_head() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let keys = revocation_keys(&database.url);
    let root = std::env::temp_dir().join(format!("{}-bases", database.name));
    let directory = root.to_str().unwrap().to_owned();
    let start = async |database: Arc<TestDatabase>| {
        Issuer::start_on(database, administrator.clone(), |cli| cli.env("PUBLISHER_DIRECTORY", &directory))
            .await
    };
    let mut issuer = start(Arc::new(database)).await;
    let held = |jti: Jti| read_directory(&root, &keys).filter(|(_, set)| set.contains(jti.coordinate()));
    let first = revoke_one(&issuer).await;
    let (before, _) = eventually("it is there", 10, async || held(first)).await;
    issuer.stop();

    std::fs::remove_dir_all(root.join("base")).unwrap();
    std::fs::create_dir(root.join("base")).unwrap();
    let mut issuer = start(issuer.database.clone()).await;
    eventually("the head names one that is there", 10, async || {
        let statement = part(&std::fs::read_to_string(root.join("head.jwt")).unwrap(), 1);
        root.join("base").join(statement["base"].as_str().unwrap()).exists().then_some(())
    })
    .await;
    let second = revoke_one(&issuer).await;
    let (after, set) = eventually("it goes on", 10, async || held(second)).await;
    assert!(set.contains(first.coordinate()) && after.position() > before.position());
    issuer.stop();

    // Of another history nothing is believed, base or not.
    std::fs::remove_dir_all(root.join("base")).unwrap();
    std::fs::create_dir(root.join("base")).unwrap();
    issuer
        .database
        .execute("update revocation_outbox set seq = null; update publisher_state set seq = 1, base_seq = 0")
        .await;
    let issuer = start(issuer.database.clone()).await;
    issuer.logged("it looks restored from a backup").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(issuer.database.value::<i64>("select count(seq) from revocation_outbox").await, 0);
    std::fs::remove_dir_all(root).unwrap();
}

#[tokio::test]
async fn a_directory_beside_the_edge_gets_the_same_and_holds_nothing_up() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let edge = Edge::start(&database.url).await;
    let keys = revocation_keys(&database.url);
    let folder = Folder::new("beside");
    // It can't be written: a file is in its place.
    std::fs::write(&folder.0, "").unwrap();
    let issuer = Issuer::start_on(database.into(), administrator, |cli| {
        edge.configure(cli).env("PUBLISHER_DIRECTORY", folder.text())
    })
    .await;
    let revoked = revoke_one(&issuer).await;
    edge.refuses(revoked).await;
    let state = eventually("it shows", 12, async || {
        let state = publisher(&issuer).await;
        (state["status"] == "degraded").then_some(state)
    })
    .await;
    assert_eq!(state["failing_sinks"], serde_json::json!(["directory", "directory_keys"]), "{state}");
    assert!(
        state["sinks"]["hub"]["lag_rows"] == 0
            && state["sinks"]["directory"]["lag_ms"].as_u64().unwrap() > 1000
    );
    std::fs::remove_file(&folder.0).unwrap();
    eventually("it catches up", 15, async || {
        read_directory(&folder.0, &keys).filter(|(_, set)| set.contains(revoked.coordinate()))
    })
    .await;
    eventually("all is well", 10, async || (publisher(&issuer).await["status"] == "ok").then_some(())).await;
    edge.expect_sound();
}

/// Heads go out while all rows are read, and a base is made of the one before. Prints what that takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(feature = "measurements")]
async fn what_a_term_costs() {
    let hour = time::OffsetDateTime::now_utc().unix_timestamp() / 3600;
    for rows in [300_000_u64, 10_000_000] {
        let (database, administrator) = TestDatabase::bootstrapped().await;
        let edge = Edge::start(&database.url).await;
        let issuer = Issuer::start_on(database.into(), administrator, |cli| edge.configure(cli)).await;
        eventually("a first head", 5, async || edge.revoked_set()).await;
        let (database, administrator) = (issuer.database.clone(), issuer.administrator.clone());
        drop(issuer);
        // One token in ten of three hours is revoked, all of it published by a base that the store has lost.
        database
            .execute(&format!(
                "insert into revocation_outbox (seq, shard, serial)
                 select 1000000 + n, {hour} + n % 3, n / 3 * 10 + (random() * 9)::bigint from generate_series(1, {rows}) n"
            ))
            .await;
        database.execute("update publisher_state set seq = (select max(seq) from revocation_outbox), base_seq = (select max(seq) from revocation_outbox)").await;
        database.execute("vacuum analyze revocation_outbox").await;
        edge.forget_objects();
        edge.expect_sound();

        let heads = edge.heads().len();
        let began = Instant::now();
        let issuer = Issuer::start_on(database, administrator, |cli| edge.configure(cli)).await;
        let first = eventually("a head", 30, async || edge.heads().get(heads).map(|head| head.at)).await;
        let idle = issuer.memory_kib("VmRSS");
        eventually("a base with all of them", 300, async || edge.revoked_set()).await;
        let stored = edge.heads().last().unwrap().at;
        let gap =
            edge.heads()[heads..].windows(2).map(|pair| (pair[1].at - pair[0].at, pair[0].at - began)).max();
        let base = edge.objects().iter().map(|name| edge.object_bytes(name)).max();
        println!(
            "{rows} rows: first head after {:?}, base of {base:?} bytes in force after {:?}; no longer than {gap:?} (the longest, and when) between heads; memory {idle} KiB \
             at first, {} KiB at most",
            first - began,
            stored - began,
            issuer.memory_kib("VmHWM"),
        );

        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let before = edge.heads().last().unwrap().head.clone();
            let heads = edge.heads().len();
            let began = Instant::now();
            issuer
                .database
                .execute(&format!(
                    "insert into revocation_outbox (shard, serial)
                     select {hour}, (random() * {rows} * 3)::bigint from generate_series(1, 60000)"
                ))
                .await;
            let written = began.elapsed();
            eventually("another base", 60, async || {
                let head = edge.heads().last()?.head.clone();
                (head.base != before.base).then_some(())
            })
            .await;
            let gap = edge.heads()[heads..].windows(2).map(|pair| pair[1].at - pair[0].at).max();
            println!(
                "  60,000 more: written in {written:?}, a base with them in force after {:?}; no longer than {gap:?} between heads; memory {} KiB at \
                 most",
                began.elapsed(),
                issuer.memory_kib("VmHWM"),
            );
        }
    }
}
