//! What is of no use any more goes; everything else stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_shared::{Jti, Shard, UnixTime};
use serde_json::Value;

use crate::support::cli::Cli;
use crate::support::edge::{Edge, with_issuer};
use crate::support::issuer::claims;
use crate::support::{Issuer, TestDatabase, eventually};

const JOBS: [&str; 8] = [
    "used-assertions",
    "idempotency-keys",
    "status-tokens",
    "revocations",
    "outbox",
    "serials",
    "quotas",
    "audit",
];

fn jti(token: &str) -> Jti {
    claims(token)["jti"].as_str().unwrap().parse().unwrap()
}

/// The hour in which tokens expire that expire so many hours from now.
fn shard_in(hours: i64) -> u32 {
    let now = UnixTime(time::OffsetDateTime::now_utc().unix_timestamp());
    Shard::of_expiry(now.plus(hours * 3600)).unwrap().get()
}

/// How much each job removed.
fn run(cli: &Cli, arguments: &[&str]) -> BTreeMap<String, u64> {
    let said = cli.run(&[&["jobs", "run", "--json"], arguments].concat()).expect_success();
    let said: Value = serde_json::from_str(&said).unwrap();
    let removed = |job: &Value| (job["name"].as_str().unwrap().to_owned(), job["removed"].as_u64().unwrap());
    said["jobs"].as_array().unwrap().iter().map(removed).collect()
}

fn list(cli: &Cli) -> BTreeMap<String, Value> {
    let said: Value = serde_json::from_str(&cli.run(&["jobs", "list", "--json"]).expect_success()).unwrap();
    let jobs = said["jobs"].as_array().unwrap();
    jobs.iter().map(|job| (job["name"].as_str().unwrap().to_owned(), job.clone())).collect()
}

/// The newest of the rows that are kept of the outbox, as the position's number.
async fn outbox(database: &TestDatabase) -> Vec<Option<i64>> {
    sqlx::query_scalar("select seq from revocation_outbox order by outbox_id")
        .fetch_all(&database.pool)
        .await
        .unwrap()
}

/// Another leader than before, which reads everything from the database; returns when its base is in force.
async fn read_anew(edge: &Edge, issuer: &mut Issuer) -> Issuer {
    let before: i64 = issuer.database.value("select base_seq from publisher_state").await;
    issuer.stop();
    let issuer =
        Issuer::start_on(issuer.database.clone(), issuer.administrator.clone(), |cli| edge.configure(cli))
            .await;
    eventually("its base is in force", 10, async || {
        let now: i64 = issuer.database.value("select base_seq from publisher_state").await;
        (now > before).then_some(())
    })
    .await;
    issuer
}

#[tokio::test]
async fn each_removes_what_is_past_and_nothing_else() {
    let (edge, mut issuer) = with_issuer().await;
    let (database, administrator) = (issuer.database.clone(), issuer.administrator.clone());
    let cli = Cli::new(&database.url);
    let (revoked, other) = (issuer.token(&administrator).await, issuer.token(&administrator).await);
    issuer.revoke(&administrator, &revoked).await;
    edge.refuses(jti(&revoked)).await;

    let (tenant, agent) = (&administrator.tenant, &administrator.id);
    let (past, recent) = (shard_in(-4), shard_in(-2));
    let uuid = |shard: u32, n: u32| format!("{shard:06x}00-{n:04x}-8000-8000-000000000000");
    let statements = [
        // Of each table rows that go, and then rows that have to stay a little longer.
        format!(
            "insert into used_assertions select '{agent}', sha256(n::text::bytea), '{tenant}', now() - n * interval '1 second' from generate_series(1, 3) n"
        ),
        format!(
            "insert into used_assertions select '{agent}', sha256('later'), '{tenant}', now() + interval '1 minute'"
        ),
        format!(
            "insert into idempotency_keys select '{tenant}', '{agent}', n::text, sha256('x'), null, now() - n * interval '1 second' from generate_series(1, 4) n"
        ),
        format!(
            "insert into idempotency_keys values ('{tenant}', '{agent}', 'later', sha256('x'), null, now() + interval '1 hour')"
        ),
        format!(
            "insert into status_tokens select {past}, n, '{tenant}', '{agent}', '{agent}', 'k', 0 from generate_series(1, 5) n"
        ),
        format!(
            "insert into status_tokens values ({}, 1, '{tenant}', '{agent}', '{agent}', 'k', 0)",
            shard_in(-1)
        ),
        format!(
            "insert into revocations values ('{}', '{tenant}'), ('{}', '{tenant}')",
            uuid(past, 1),
            uuid(shard_in(-9000), 2)
        ),
        format!("insert into revocations values ('{}', '{tenant}')", uuid(recent, 1)),
        format!(
            "insert into serial_shards select n, 4096 from generate_series({}, {past}) n on conflict do nothing",
            past - 6
        ),
        format!("insert into serial_shards values ({recent}, 4096)"),
        format!(
            "insert into quota_usage select '{tenant}', (date_trunc('month', now() at time zone 'UTC') - n * interval '1 month')::date, 5, 5 from generate_series(1, 20) n"
        ),
        "set role countersign; select audit_add_partition('2020-01-06'), audit_add_partition('2020-01-13'); reset role".to_owned(),
    ];
    for statement in statements {
        database.execute(&statement).await;
    }
    let removed = run(&cli, &["--all"]);
    let expected = [3, 4, 5, 2, 0, 7, 8, 2];
    assert_eq!(removed, JOBS.map(str::to_owned).into_iter().zip(expected).collect());
    for (table, left) in [
        ("used_assertions", 1),
        ("idempotency_keys", 1),
        ("status_tokens", 1),
        ("revocations", 2),
        ("revocation_outbox", 1),
        ("quota_usage", 12),
        ("serial_shards where next_serial = 4096", 2),
    ] {
        assert_eq!(database.value::<i64>(&format!("select count(*) from {table}")).await, left, "{table}");
    }
    assert!(run(&cli, &["--all"]).values().all(|removed| *removed == 0), "nothing is left to do");

    // What was revoked is, here and at the edge, and for a leader that knows only what is left.
    assert!(!issuer.is_active(&administrator, &revoked).await);
    assert!(issuer.is_active(&administrator, &other).await);
    let issuer = read_anew(&edge, &mut issuer).await;
    let set = edge.revoked_set().unwrap();
    assert!(set.contains(jti(&revoked).coordinate()) && !set.contains(jti(&other).coordinate()));
    assert!(!issuer.is_active(&administrator, &revoked).await);
    edge.expect_sound();
}

#[tokio::test]
async fn what_heads_may_still_carry_stays() {
    let (edge, mut issuer) = with_issuer().await;
    let database = issuer.database.clone();
    let cli = Cli::new(&database.url);
    let insert = |entries: &str| {
        format!(
            "insert into revocation_outbox (shard, serial) values {entries}; select pg_notify('countersign_outbox', '')"
        )
    };
    let past = shard_in(-30);
    let numbered = async |count: usize| {
        eventually("all have a number", 5, async || {
            let seqs = outbox(&database).await;
            (seqs.len() == count && seqs.iter().all(Option::is_some)).then_some(seqs)
        })
        .await
    };
    // Long past, but not in a base: one position has one content, whoever says it.
    database.execute(&insert(&format!("({past}, 1), ({past}, 2)"))).await;
    database
        .execute(
            "insert into revocation_outbox (rule_level, rule_subject, not_before)
             values (3, substr(sha256('x'), 1, 16), extract(epoch from now())::bigint - 100000), (4, 'a key', 4000000000)",
        )
        .await;
    numbered(4).await;
    assert_eq!(run(&cli, &["outbox"])["outbox"], 0);
    let token = issuer.token(&issuer.administrator).await;
    issuer.revoke(&issuer.administrator, &token).await;
    edge.refuses(jti(&token)).await;

    // In a base they are of no use; but the newest entry's place is in its bytes.
    let issuer = read_anew(&edge, &mut issuer).await;
    let objects = edge.objects();
    database.execute(&insert(&format!("({past}, 3)"))).await;
    let seqs = numbered(6).await;
    assert_eq!(run(&cli, &["outbox"])["outbox"], 3);
    assert_eq!(
        outbox(&database).await,
        &seqs[3..],
        "the rule of a key, the live one, and one that is too new"
    );

    // The newest that is in a base may be of no use itself.
    let mut issuer = issuer;
    let issuer = read_anew(&edge, &mut issuer).await;
    assert!(edge.objects().len() > objects.len(), "another base");
    assert_eq!(run(&cli, &["outbox"])["outbox"], 0);
    assert_eq!(outbox(&database).await.last(), seqs.last(), "its seq is in the base");
    let again = issuer.token(&issuer.administrator).await;
    issuer.revoke(&issuer.administrator, &again).await;
    edge.refuses(jti(&again)).await;
    assert!(edge.revoked_set().unwrap().contains(jti(&token).coordinate()));
    edge.expect_sound();
}

#[tokio::test]
async fn what_nobody_publishes_goes_too_when_it_is_past() {
    let issuer = Issuer::start().await;
    let cli = Cli::new(&issuer.database.url);
    issuer
        .database
        .execute(&format!(
            "insert into revocation_outbox (shard, serial) values ({}, 1), ({}, 1)",
            shard_in(-30),
            shard_in(0)
        ))
        .await;
    assert_eq!(run(&cli, &["outbox"])["outbox"], 1);
    assert_eq!(outbox(&issuer.database).await, [None]);
}

/// Rows come and go beside a publisher at work; whatever is live is at the edge all the time.
#[tokio::test]
async fn beside_a_publisher_nothing_live_is_lost() {
    let (edge, issuer) = with_issuer().await;
    let cli = Cli::new(&issuer.database.url);
    let (past, live) = (shard_in(-30), shard_in(1));
    let mut removed = 0;
    for round in 0..4 {
        let from = round * 6000;
        issuer
            .database
            .execute(&format!(
                "insert into revocation_outbox (shard, serial)
                 select case when n % 2 = 0 then {past} else {live} end, n * 200 from generate_series({from}, {}) n;
                 select pg_notify('countersign_outbox', '')",
                from + 5999
            ))
            .await;
        // Long deltas become bases meanwhile.
        eventually("a base has half of it", 15, async || {
            let covers: i64 =
                issuer.database.value("select coalesce(base_seq, 0) from publisher_state").await;
            (covers >= i64::from(from) + 3000).then_some(())
        })
        .await;
        removed += run(&cli, &["outbox"])["outbox"];
    }
    assert!(removed > 0, "there was something to remove");
    let coordinate = |n: u64| countersign_shared::Coordinate {
        shard: Shard::new(live).unwrap(),
        serial: countersign_shared::Serial::new(n * 200).unwrap(),
    };
    eventually("all live ones are there", 10, async || {
        let set = edge.revoked_set()?;
        (0..24_000).filter(|n| n % 2 == 1).all(|n| set.contains(coordinate(n))).then_some(())
    })
    .await;
    edge.expect_sound();
}

#[tokio::test]
async fn issuers_do_them_each_once() {
    let issuer = Issuer::start().await;
    let other = Issuer::start_on(Arc::clone(&issuer.database), issuer.administrator.clone(), |cli| cli).await;
    let cli = Cli::new(&issuer.database.url);
    issuer.database.execute(&format!("insert into serial_shards values ({}, 1)", shard_in(-30))).await;
    let jobs = eventually("all are done", 15, async || {
        let jobs = list(&cli);
        jobs.values().all(|job| job["state"] == "done").then_some(jobs)
    })
    .await;
    assert_eq!(jobs.keys().map(String::as_str).collect::<Vec<_>>(), {
        let mut names = JOBS;
        names.sort_unstable();
        names
    });
    let log = issuer.whole_log().await + &other.whole_log().await;
    let said = log.lines().filter(|line| line.contains("cleaned up"));
    let said: Vec<Value> = said.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(
        (&said[0]["job"], &said[0]["removed"], &said[0]["complete"]),
        (&"serials".into(), &1.into(), &true.into())
    );
    assert!(said[0]["took_ms"].is_number());
    let serials = &jobs["serials"];
    assert_eq!((&serials["removed"], &serials["every_seconds"]), (&1.into(), &3600.into()));

    // Whoever has it keeps others from it, and lets go of it by dying.
    let mut holder = issuer.database.pool.acquire().await.unwrap();
    sqlx::query("select pg_advisory_lock(hashtextextended('countersign job outbox', 0))")
        .execute(&mut *holder)
        .await
        .unwrap();
    assert_eq!(list(&cli)["outbox"]["state"], "running");
    let refused = cli.run(&["jobs", "run", "outbox"]).expect_failure();
    assert!(refused.starts_with("outbox is being done by another process"), "{refused}");
    issuer.database.execute("update job_runs set finished_at = null, next_at = now() - interval '1 second' where name = 'outbox'").await;
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *holder).await.unwrap();
    issuer.database.execute(&format!("select pg_terminate_backend({pid})")).await;
    eventually("another does it", 15, async || (list(&cli)["outbox"]["state"] == "done").then_some(())).await;
}

#[tokio::test]
async fn one_that_fails_says_so_and_is_tried_again() {
    let issuer = Issuer::start().await;
    let cli = Cli::new(&issuer.database.url);
    issuer.database.execute("alter table quota_usage rename to elsewhere").await;
    let said = cli.run(&["jobs", "run", "quotas"]).expect_failure();
    assert!(said.starts_with("quotas failed after it had removed 0: the database refused: "), "{said}");
    let job = &list(&cli)["quotas"];
    assert_eq!(job["state"], "failed");
    assert!(job["failure"].as_str().unwrap().contains("quota_usage"));
    let text = cli.run(&["jobs", "list"]).expect_success();
    assert!(text.contains("quotas failed: the database refused"), "{text}");
    issuer.database.execute("alter table elsewhere rename to quota_usage").await;
    issuer.database.execute("update job_runs set next_at = now() where name = 'quotas'").await;
    eventually("it is done", 15, async || (list(&cli)["quotas"]["state"] == "done").then_some(())).await;
    let wrong = cli.run(&["jobs", "run", "nothing"]);
    assert_eq!(wrong.code(), Some(2));
    assert!(wrong.stderr().contains("`nothing` is no Job"), "{}", wrong.stderr());
}
