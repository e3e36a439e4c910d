//! The audit log's chains: what the database refuses, what `audit verify` finds, what goes by age, and what a crash takes: nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::support::cli::Cli;
use crate::support::issuer::claims;
use crate::support::proxy::{Line, Proxy};
use crate::support::{Issuer, TestDatabase, eventually};

/// The report of `audit verify --json`.
fn verify(database: &TestDatabase) -> Value {
    let ran = Cli::new(&database.url).run(&["audit", "verify", "--json"]);
    let report: Value = serde_json::from_str(&ran.stdout()).unwrap();
    assert_eq!(ran.code(), Some(i32::from(report["ok"] != true)), "{report}");
    report
}

/// Kind, places and event of each finding.
fn findings(database: &TestDatabase) -> Vec<(String, i64, i64, Option<String>)> {
    let report = verify(database);
    let finding = |finding: &Value| {
        let event = finding["event_id"].as_str().map(str::to_owned);
        let kind = finding["kind"].as_str().unwrap().to_owned();
        (kind, finding["seq"].as_i64().unwrap(), finding["last_seq"].as_i64().unwrap(), event)
    };
    report["findings"].as_array().unwrap().iter().map(finding).collect()
}

/// A stopped issuer's database, with a chain of at least `count` events that nothing is wrong with.
async fn with_events(count: usize) -> (Arc<TestDatabase>, String) {
    let mut issuer = Issuer::start().await;
    for _ in 0..count {
        issuer.token(&issuer.administrator).await;
    }
    issuer.database.sealed().await;
    issuer.stop();
    assert_eq!(findings(&issuer.database), []);
    (issuer.database.clone(), issuer.administrator.tenant.clone())
}

/// As somebody who owns the database may.
async fn tamper(database: &TestDatabase, sql: &str) {
    let partitions: Vec<String> = sqlx::query_scalar(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'audit_events'::regclass",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    for table in partitions.iter().chain([&"audit_events".to_owned()]) {
        database.execute(&format!("alter table {table} disable trigger all")).await;
    }
    database.execute(sql).await;
}

async fn event_at(database: &TestDatabase, tenant: &str, seq: i64) -> String {
    database
        .value(&format!(
            "select event_id::text from audit_events where tenant_id = '{tenant}' and seq = {seq}"
        ))
        .await
}

#[tokio::test]
async fn the_database_refuses_every_change() {
    let (database, _) = with_events(2).await;
    let partition: String = database
        .value("select inhrelid::regclass::text from pg_inherits where inhparent = 'audit_events'::regclass")
        .await;
    for table in ["audit_events", partition.as_str(), "audit_checkpoints"] {
        let change = if table == "audit_checkpoints" { "seq = 1" } else { "action = 'x'" };
        for statement in [
            format!("update {table} set {change}"),
            format!("delete from {table}"),
            format!("truncate {table}"),
        ] {
            let refused =
                sqlx::query(AssertSqlSafe(statement.clone())).execute(&database.pool).await.unwrap_err();
            assert!(refused.to_string().contains("is append-only"), "{statement}: {refused}");
        }
    }
}

/// What waits to be sealed can't be changed either, and leaves the queue for its chain only.
#[tokio::test]
async fn what_is_queued_goes_into_its_chain_or_stays() {
    let (database, tenant) = with_events(2).await;
    // Nobody seals here: there is no issuer.
    let queue = format!(
        "insert into audit_queue (event_id, occurred_at, tenant_id, action, outcome, details)
         select gen_random_uuid(), now(), '{tenant}', 'token.issued', 'success', '{{}}' from generate_series(1, 3)"
    );
    database.execute(&queue).await;
    for statement in [
        "update audit_queue set action = 'x'",
        "truncate audit_queue",
        "delete from audit_queue",
        "delete from audit_queue where queue_id = (select max(queue_id) from audit_queue)",
    ] {
        let refused = sqlx::query(statement).execute(&database.pool).await.unwrap_err();
        assert!(refused.to_string().contains("audit_queue is append-only"), "{statement}: {refused}");
    }
    assert_eq!(database.value::<i64>("select count(*) from audit_queue").await, 3);
    assert_eq!(findings(&database), []);
}

#[tokio::test]
async fn a_changed_event_is_named() {
    let (database, tenant) = with_events(9).await;
    let event = event_at(&database, &tenant, 5).await;
    for (sql, undo) in [
        ("outcome = 'failure'", "outcome = 'success'"),
        (
            "details = replace(details::text, '900', '901')::json",
            "details = replace(details::text, '901', '900')::json",
        ),
        (
            "occurred_at = occurred_at + interval '1 microsecond'",
            "occurred_at = occurred_at - interval '1 microsecond'",
        ),
        ("actor_agent_id = event_id", "actor_agent_id = null"),
    ] {
        let change = async |set: &str| {
            tamper(&database, &format!("update audit_events set {set} where event_id = '{event}'")).await;
        };
        change(sql).await;
        assert_eq!(findings(&database), [("changed".into(), 5, 5, Some(event.clone()))], "{sql}");
        change(undo).await;
    }
    // The actor isn't what it was: that is the last one's trace.
    assert_eq!(findings(&database).len(), 1);
    let said = Cli::new(&database.url).run(&["audit", "verify"]);
    assert_eq!(said.expect_failure(), "the audit log is not what was written: 1 finding");
    assert!(said.stdout().contains(&event) && said.stdout().contains("changed"), "{}", said.stdout());
}

#[tokio::test]
async fn removed_events_are_named_in_the_middle_and_at_the_end() {
    let (database, tenant) = with_events(9).await;
    let last: i64 =
        database.value(&format!("select max(seq) from audit_events where tenant_id = '{tenant}'")).await;
    tamper(&database, &format!("delete from audit_events where tenant_id = '{tenant}' and seq in (4, 5)"))
        .await;
    assert_eq!(findings(&database), [("removed".into(), 4, 5, None)]);
    tamper(&database, &format!("delete from audit_events where tenant_id = '{tenant}' and seq = {last}"))
        .await;
    let both = [("removed".into(), 4, 5, None), ("removed".into(), last, last, None)];
    assert_eq!(findings(&database), both);

    // All of it, and every trace of that there was any.
    let (database, tenant) = with_events(3).await;
    tamper(&database, &format!("delete from audit_events where tenant_id = '{tenant}'")).await;
    database.execute(&format!("delete from audit_chains where tenant_id = '{tenant}'")).await;
    assert_eq!(findings(&database), [("removed".into(), 1, 1, None)]);

    // With the tracks covered: the later ones moved up.
    let (database, tenant) = with_events(9).await;
    let update = "update audit_events set seq = seq - 1 where tenant_id";
    tamper(&database, &format!("delete from audit_events where tenant_id = '{tenant}' and seq = 4")).await;
    for seq in 5..=last {
        database.execute(&format!("{update} = '{tenant}' and seq = {seq}")).await;
    }
    assert_eq!(findings(&database), [("removed".into(), 4, 4, None)]);

    // And the record of where the chain ends.
    let (database, tenant) = with_events(1).await;
    tamper(&database, &format!("delete from audit_chains where tenant_id = '{tenant}'")).await;
    assert_eq!(findings(&database)[0].0, "removed");
}

#[tokio::test]
async fn reordered_and_inserted_events_are_named() {
    let (database, tenant) = with_events(9).await;
    let (third, sixth) = (event_at(&database, &tenant, 3).await, event_at(&database, &tenant, 6).await);
    let swap = format!(
        "update audit_events set seq = 1000 where tenant_id = '{tenant}' and seq = 3;
         update audit_events set seq = 3 where tenant_id = '{tenant}' and seq = 6;
         update audit_events set seq = 6 where tenant_id = '{tenant}' and seq = 1000;"
    );
    for statement in swap.split_inclusive(';') {
        if !statement.trim().is_empty() {
            tamper(&database, statement).await;
        }
    }
    assert_eq!(
        findings(&database),
        [("reordered".into(), 3, 3, Some(sixth)), ("reordered".into(), 6, 6, Some(third))]
    );

    // An event that a superuser puts behind the last one.
    let (database, tenant) = with_events(3).await;
    tamper(
        &database,
        &format!(
            "insert into audit_events select tenant_id, seq + 1, recorded_at, '01000000-0000-7000-8000-000000000000', occurred_at, actor_agent_id,
                 action, outcome, target_type, target_id, request_id, client_ip, user_agent, details, hash
             from audit_events where tenant_id = '{tenant}' order by seq desc limit 1"
        ),
    )
    .await;
    let found = findings(&database);
    let at_the_end =
        found.iter().all(|finding| finding.3.as_deref() == Some("01000000-0000-7000-8000-000000000000"));
    assert!(!found.is_empty() && at_the_end, "{found:?}");
}

#[tokio::test]
async fn another_tenant_s_chain_is_untouched() {
    let issuer = Issuer::start().await;
    let other = issuer.other_tenant().await;
    for _ in 0..4 {
        issuer.token(&issuer.administrator).await;
        issuer.token(&other).await;
    }
    issuer.database.sealed().await;
    tamper(
        &issuer.database,
        &format!("update audit_events set action = 'x' where tenant_id = '{}' and seq = 2", other.tenant),
    )
    .await;
    let found = |tenant: &str| {
        let ran = Cli::new(&issuer.database.url).run(&["audit", "verify", "--json", "--tenant", tenant]);
        let report: Value = serde_json::from_str(&ran.stdout()).unwrap();
        report["findings"].as_array().unwrap().len()
    };
    assert_eq!((found(&other.tenant), found(&issuer.administrator.tenant)), (1, 0));
    let report = verify(&issuer.database);
    assert_eq!(report["chains"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(report["findings"][0]["tenant_id"], other.tenant.as_str());
}

/// Partitions of the `weeks` before this one, as the issuer's role makes them.
async fn grow_old(database: &TestDatabase, weeks: i64) {
    for week in 1..=weeks {
        let monday = format!("(date_trunc('week', now()) - interval '{week} weeks')::date");
        database
            .execute(&format!("set role countersign; select audit_add_partition({monday}); reset role"))
            .await;
    }
}

#[tokio::test]
async fn what_is_too_old_goes_and_the_rest_still_verifies() {
    let (database, tenant) = with_events(12).await;
    grow_old(&database, 20).await;
    // The first eight events, moved to where they would have been sixteen and eight weeks ago, and chained again as the sealer would have.
    let rechained = rechain(&database, &tenant, &[(4, 16), (8, 8)]).await;
    assert!(rechained > 8);
    assert_eq!(findings(&database), []);

    let cli = Cli::new(&database.url);
    let pruned: Value =
        serde_json::from_str(&cli.run(&["audit", "prune", "--json"]).expect_success()).unwrap();
    assert_eq!(pruned["events"], 4, "{pruned}");
    let weeks = pruned["partitions"].as_array().unwrap();
    assert!((5..=9).contains(&weeks.len()) && weeks.is_sorted_by_key(Value::to_string), "{pruned}");
    let report = verify(&database);
    assert_eq!(report["findings"], json!([]));
    let chain = report["chains"]
        .as_array()
        .unwrap()
        .iter()
        .find(|chain| chain["tenant_id"] == tenant.as_str())
        .unwrap();
    assert_eq!((&chain["checkpoint_seq"], &chain["events"]), (&json!(4), &json!(rechained - 4)));
    assert_eq!(database.audit("audit.pruned").await.len(), weeks.len(), "that it was done is written down");
    let again: Value =
        serde_json::from_str(&cli.run(&["audit", "prune", "--json"]).expect_success()).unwrap();
    assert_eq!(again["partitions"], json!([]));

    // The rest is as safe as before.
    let fifth = event_at(&database, &tenant, 5).await;
    tamper(&database, &format!("update audit_events set action = 'x' where event_id = '{fifth}'")).await;
    assert_eq!(findings(&database), [("changed".into(), 5, 5, Some(fifth.clone()))]);
    tamper(&database, &format!("delete from audit_events where event_id = '{fifth}'")).await;
    assert_eq!(findings(&database), [("removed".into(), 5, 5, None)]);

    // A running issuer does it by itself, with a shorter time.
    let issuer =
        Issuer::start_on(database.clone(), fake(&tenant), |cli| cli.env("AUDIT_RETENTION_DAYS", "30")).await;
    eventually("the next ones are gone too", 10, async || {
        let left: i64 =
            database.value(&format!("select min(seq) from audit_events where tenant_id = '{tenant}'")).await;
        (left == 9).then_some(())
    })
    .await;
    issuer.logged("audit events dropped by age").await;
    assert_eq!(findings(&database), [], "what is gone by right isn't missed");
}

fn fake(tenant: &str) -> crate::support::Client {
    crate::support::Client { tenant: tenant.to_owned(), id: String::new(), secret: String::new() }
}

/// Gives events of a chain, up to each `seq`, an age in weeks, and makes the hashes anew. Returns how many there are.
async fn rechain(database: &TestDatabase, tenant: &str, ages: &[(i64, i64)]) -> i64 {
    use countersign_issuer::audit::chain;
    use countersign_issuer::storage::audit::rows_after;
    let store = open(database).await;
    let id: countersign_shared::TenantId = tenant.parse().unwrap();
    let rows = rows_after(&store, id.0, None, 1000).await.unwrap();
    let mut previous = chain::START;
    tamper(database, "select 1").await;
    for row in &rows {
        let weeks = ages.iter().find(|(up_to, _)| row.seq <= *up_to).map_or(0, |(_, weeks)| *weeks);
        let recorded_at = row.recorded_at - time::Duration::weeks(weeks);
        let hash = chain::hash(&previous, &row.entry, row.seq, recorded_at);
        sqlx::query("update audit_events set recorded_at = $1, hash = $2 where tenant_id = $3::text::uuid and seq = $4")
            .bind(recorded_at)
            .bind(hash.as_slice())
            .bind(tenant)
            .bind(row.seq)
            .execute(&database.pool)
            .await
            .unwrap();
        previous = hash;
    }
    sqlx::query("update audit_chains set hash = $1 where tenant_id = $2::text::uuid")
        .bind(previous.as_slice())
        .bind(tenant)
        .execute(&database.pool)
        .await
        .unwrap();
    i64::try_from(rows.len()).unwrap()
}

/// The issuer's own view of the database.
async fn open(database: &TestDatabase) -> countersign_issuer::storage::Database {
    use countersign_issuer::config::{Plain, Sources};
    let sources = Sources::read([("DATABASE_URL".to_owned(), database.url.clone())], None);
    countersign_issuer::storage::Database::connect(&Plain::from_sources(&sources).unwrap().database)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_sealer_dies_and_nothing_is_lost_or_doubled() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let database = Arc::new(database);
    let mut first = Issuer::start_on(database.clone(), administrator.clone(), |cli| cli).await;
    first.logged("this process seals audit events").await;
    let second = Issuer::start_on(database.clone(), administrator.clone(), |cli| cli).await;
    let tenant = &administrator.tenant;
    // Enough to be in the middle of them.
    database
        .execute(&format!(
            "insert into audit_queue (event_id, occurred_at, tenant_id, action, outcome, details)
             select gen_random_uuid(), now(), '{tenant}', 'token.issued', 'success', '{{}}' from generate_series(1, 60000)"
        ))
        .await;
    database.execute("create table handed_in as select event_id from audit_queue").await;
    eventually("some are sealed, not all", 20, async || {
        let left: i64 = database.value("select count(*) from audit_queue").await;
        (left < 60_000).then_some(())
    })
    .await;
    first.kill();
    let mut issued = BTreeSet::new();
    for _ in 0..10 {
        issued.insert(claims(&second.token(&administrator).await)["jti"].as_str().unwrap().to_owned());
    }
    second.logged("this process seals audit events").await;
    eventually("the other one has sealed the rest", 60, async || {
        (database.value::<i64>("select count(*) from audit_queue").await == 0).then_some(())
    })
    .await;
    let (missing, doubled): (i64, i64) = (
        database
            .value("select count(*) from handed_in where event_id not in (select event_id from audit_events)")
            .await,
        database
            .value(
                "select count(*) from (select from audit_events group by event_id having count(*) > 1) twice",
            )
            .await,
    );
    assert_eq!((missing, doubled), (0, 0));
    for jti in issued {
        let rows: i64 =
            database.value(&format!("select count(*) from audit_events where target_id = '{jti}'")).await;
        assert_eq!(rows, 1);
    }
    assert_eq!(findings(&database), []);
}

#[tokio::test]
async fn an_event_that_commits_late_is_sealed_late() {
    let issuer = Issuer::start().await;
    let tenant = &issuer.administrator.tenant;
    let mut late = issuer.database.pool.begin().await.unwrap();
    sqlx::query(AssertSqlSafe(format!(
        "insert into audit_queue (event_id, occurred_at, tenant_id, action, outcome, details)
         values ('01000000-0000-7000-8000-000000000000', now(), '{tenant}', 'token.issued', 'success', '{{}}')"
    )))
    .execute(&mut *late)
    .await
    .unwrap();
    for _ in 0..3 {
        issuer.token(&issuer.administrator).await;
        issuer.database.sealed().await;
    }
    late.commit().await.unwrap();
    issuer.database.sealed().await;
    let last: String = issuer
        .database
        .value(&format!(
            "select event_id::text from audit_events where tenant_id = '{tenant}' order by seq desc limit 1"
        ))
        .await;
    assert_eq!(last, "01000000-0000-7000-8000-000000000000");
    assert_eq!(findings(&issuer.database), []);
}

/// Nobody gets a token whose event isn't committed, and who got one finds the event even if the process dies at once.
#[tokio::test]
async fn an_issued_token_s_event_outlives_the_process() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let database = Arc::new(database);
    let unlimited = |cli: Cli| {
        cli.env("RATE_LIMIT_PER_CLIENT", "1000000")
            .env("RATE_LIMIT_PER_IP", "1000000")
            .env("RATE_LIMIT_PER_TENANT", "1000000")
    };
    let mut issuer = Issuer::start_on(database.clone(), administrator.clone(), unlimited).await;
    let (http, url) = (issuer.http.clone(), format!("{}/oauth2/v1/token", issuer.url));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (http, url, client) = (http.clone(), url.clone(), administrator.clone());
            tokio::spawn(async move {
                let mut jtis = Vec::new();
                loop {
                    let request = http.post(&url).basic_auth(&client.id, Some(&client.secret));
                    let Ok(response) = request.form(&[("grant_type", "client_credentials")]).send().await
                    else {
                        return jtis;
                    };
                    let Ok(body) = response.json::<Value>().await else { return jtis };
                    jtis.push(
                        claims(body["access_token"].as_str().unwrap())["jti"].as_str().unwrap().to_owned(),
                    );
                }
            })
        })
        .collect();
    eventually("tokens are being issued", 20, async || {
        (database.audit("token.issued").await.len() > 64).then_some(())
    })
    .await;
    issuer.kill();
    let mut handed_out = Vec::new();
    for client in clients {
        handed_out.extend(client.await.unwrap());
    }
    assert!(handed_out.len() > 16, "{}", handed_out.len());
    let written: BTreeSet<String> = database
        .audit("token.issued")
        .await
        .into_iter()
        .map(|event| event["target"].as_str().unwrap().to_owned())
        .collect();
    assert!(handed_out.iter().all(|jti| written.contains(jti)), "{} of {}", written.len(), handed_out.len());
}

/// The tenant's row, its chain's, and its agents' are locked; tokens are issued all the same.
#[tokio::test]
async fn no_lock_of_a_tenant_is_in_a_token_s_way() {
    let issuer = Issuer::start().await;
    issuer.token(&issuer.administrator).await;
    issuer.database.sealed().await;
    let mut locks = issuer.database.pool.begin().await.unwrap();
    for table in ["tenants", "audit_chains", "agents", "credentials", "resource_servers"] {
        sqlx::query(AssertSqlSafe(format!("select from {table} for update")))
            .execute(&mut *locks)
            .await
            .unwrap();
    }
    let started = Instant::now();
    for _ in 0..20 {
        issuer.token(&issuer.administrator).await;
    }
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    let mut sealing = issuer.database.pool.begin().await.unwrap();
    let waiting: i64 =
        sqlx::query_scalar("select count(*) from audit_queue").fetch_one(&mut *sealing).await.unwrap();
    assert!(waiting >= 20, "they wait, the chain is locked");
    locks.rollback().await.unwrap();
    issuer.database.sealed().await;
    assert_eq!(findings(&issuer.database), []);
}

/// Of many requests at once the events are written together.
#[tokio::test]
async fn requests_share_inserts() {
    let issuer = Issuer::start().await;
    issuer.database.execute("create table statements (rows integer)").await;
    issuer
        .database
        .execute(
            "create function count_rows() returns trigger security definer language plpgsql as
             $$ begin insert into statements select count(*) from fresh; return null; end $$",
        )
        .await;
    issuer
        .database
        .execute("create trigger count_rows after insert on audit_queue referencing new table as fresh for each statement execute function count_rows()")
        .await;
    for _ in 0..8 {
        let tokens: Vec<_> = (0..25).map(|_| issuer.token(&issuer.administrator)).collect();
        futures_util::future::join_all(tokens).await;
    }
    let (rows, statements): (i64, i64) = (
        issuer.database.value("select sum(rows) from statements").await,
        issuer.database.value("select count(*) from statements").await,
    );
    assert_eq!(rows, 200);
    assert!(statements < 150, "{statements} inserts for 200 tokens");
}

/// One event that the database refuses takes no others with it.
#[tokio::test]
async fn a_refused_event_fails_alone() {
    let issuer = Issuer::start().await;
    let refused = issuer.new_client(&["orders:read"]).await;
    issuer
        .database
        .execute(&format!(
            "alter table audit_queue add constraint refused check (actor_agent_id is distinct from '{}')",
            refused.id
        ))
        .await;
    let attempts = (0..60).map(async |number| {
        let client = if number % 3 == 0 { &refused } else { &issuer.administrator };
        let response = issuer.oauth("token", client, &[("grant_type", "client_credentials")]).await;
        (number, response.status().as_u16())
    });
    for (number, status) in futures_util::future::join_all(attempts).await {
        assert_eq!(status, if number % 3 == 0 { 500 } else { 200 }, "{number}");
    }
}

/// Nothing that can't be written down is handed out, and it goes on by itself.
#[tokio::test]
async fn without_the_queue_there_is_no_token() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let (proxy, url) = Proxy::before(&database.url, Line::Open).await;
    let issuer = Issuer::start_on(database.into(), administrator, |cli| cli.env("DATABASE_URL", &url)).await;
    issuer.token(&issuer.administrator).await;
    proxy.set(Line::Cut);
    let grant = [("grant_type", "client_credentials")];
    assert_eq!(issuer.oauth("token", &issuer.administrator, &grant).await.status(), 503);
    proxy.set(Line::Open);
    eventually("it issues again", 10, async || {
        let response = issuer.oauth("token", &issuer.administrator, &grant).await;
        (response.status() == 200).then_some(())
    })
    .await;
    issuer.database.sealed().await;
    assert_eq!(findings(&issuer.database), []);
    let ready: Value = issuer.get("/ready").send().await.unwrap().json().await.unwrap();
    assert_eq!(ready["checks"]["audit"]["status"], "ok");
}

/// What was written before there were chains is in them now, in its order.
#[tokio::test]
async fn events_from_before_the_chains_are_kept() {
    let database = TestDatabase::empty().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let of_before = |path: &&std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        path.extension().is_some_and(|extension| extension == "sql") && name < "20261121112000"
    };
    for file in files.iter().filter(of_before) {
        database.execute(&std::fs::read_to_string(file).unwrap()).await;
    }
    database
        .execute(
            "insert into audit_events (occurred_at, tenant_id, action, outcome, client_ip, details)
             select '2026-11-01'::timestamptz + n * interval '1.000001 seconds', case when n % 2 = 0 then '01000000-0000-4000-8000-000000000000'::uuid end,
                    'token.issued', 'success', '192.0.2.7', jsonb_build_object('n', n) from generate_series(1, 100) n",
        )
        .await;
    let this = files.iter().find(|path| path.to_str().unwrap().contains("/20261121112000")).unwrap();
    database.execute(&std::fs::read_to_string(this).unwrap()).await;
    let kept: i64 = database
        .value(
            "select count(*) from (
                 select lag(event_id) over (order by queue_id) < event_id as rising, row_number() over (order by queue_id) as place, *
                 from audit_queue) q
             where rising is not false and (details->>'n')::bigint = place and client_ip = '192.0.2.7'
             and (tenant_id = '00000000-0000-0000-0000-000000000000') = (place % 2 = 1)",
        )
        .await;
    assert_eq!(kept, 100);
}

#[tokio::test]
async fn the_operator_reads_and_exports() {
    let issuer = Issuer::start().await;
    let other = issuer.other_tenant().await;
    issuer.token(&issuer.administrator).await;
    issuer.token(&other).await;
    let cli = Cli::new(&issuer.database.url);
    let list = |arguments: &[&str]| -> Value {
        let arguments = [&["audit", "list", "--json"], arguments].concat();
        serde_json::from_str(&cli.run(&arguments).expect_success()).unwrap()
    };
    let all = list(&[]);
    let token = issuer.scoped_token("audit:read").await;
    let shown: Value = issuer
        .get("/api/v1/audit?to=2999-01-01T00:00:00Z")
        .bearer_auth(&token)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        all["items"].as_array().unwrap()[..],
        shown["items"].as_array().unwrap()[1..],
        "but for that token"
    );
    let theirs = list(&["--tenant", &other.tenant, "--action", "token.issued"]);
    assert_eq!(theirs["items"].as_array().unwrap().len(), 1);
    let first = list(&["--limit", "1", "--outcome", "success"]);
    let next =
        list(&["--limit", "1", "--outcome", "success", "--cursor", first["next_cursor"].as_str().unwrap()]);
    assert!(first["items"][0]["event_id"].as_str() > next["items"][0]["event_id"].as_str());
    let table = cli.run(&["audit", "list"]).expect_success();
    assert!(table.starts_with("OCCURRED") && table.contains("system.bootstrapped"), "{table}");

    let exported = cli.run(&["audit", "export", "--action", "system.bootstrapped"]).expect_success();
    let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["action"]), (1, &json!("system.bootstrapped")));
    assert_eq!(issuer.database.audit("audit.exported").await.len(), 1);

    for wrong in [["--action", "x"], ["--from", "x"], ["--tenant", "x"], ["--limit", "0"], ["--outcome", "x"]]
    {
        assert_eq!(cli.run(&[&["audit", "list"], &wrong[..]].concat()).code(), Some(2), "{wrong:?}");
    }
    let unknown = cli.run(&["audit", "list", "--tenant", "00000000-0000-4000-8000-000000000001"]);
    assert!(unknown.expect_failure().starts_with("there is no tenant"));
    let help = cli.run(&["audit", "verify", "--help"]).expect_success();
    assert!(help.contains("Examples:") && help.contains("--json"), "{help}");
}

/// Not a test: what auditing costs, for docs/design.md.
/// `cargo test -p countersign-issuer --features measurements --test it audit::what_it_costs -- --nocapture`, on a Postgres that syncs.
#[tokio::test(flavor = "multi_thread")]
#[cfg(feature = "measurements")]
async fn what_it_costs() {
    use countersign_issuer::audit::{Audit, verify};
    use countersign_issuer::domain::audit::{Action, Event, Origin, TargetType};
    use countersign_issuer::storage::audit::record_in;

    let (database, administrator) = TestDatabase::bootstrapped().await;
    let store = open(&database).await;
    let id: countersign_shared::TenantId = administrator.tenant.parse().unwrap();
    let agent: countersign_shared::AgentId = administrator.id.parse().unwrap();
    let details = json!({"audience": "https://api.example", "scope": "orders:read orders:write", "expires_in": 900, "credential_id": administrator.id});
    let origin = Origin {
        request_id: Some(administrator.id.clone()),
        client_ip: Some([192, 0, 2, 7].into()),
        user_agent: Some("curl/8".into()),
    };
    let event = || {
        Event::done(id, agent, Action::TokenIssued, &origin)
            .on(TargetType::Token, &administrator.id)
            .with(details.clone())
    };
    // Each transaction that wrote a row is seen by it.
    let commits =
        async || -> i64 { database.value("select count(distinct xmin::text) from audit_queue").await };

    // The sealer of this process is held off, to look at one thing at a time.
    let mut holder = database.pool.acquire().await.unwrap();
    sqlx::query("select pg_advisory_lock(hashtextextended('countersign audit sealer', 0))")
        .execute(&mut *holder)
        .await
        .unwrap();
    let audit = Audit::start(&store);
    for at_once in [1, 16, 64, 256] {
        let rounds = if at_once == 1 { 300 } else { 6400 / at_once };
        let before = commits().await;
        let started = Instant::now();
        for _ in 0..rounds {
            futures_util::future::join_all((0..at_once).map(async |_| audit.record(&event()).await.unwrap()))
                .await;
        }
        let (took, events) = (started.elapsed(), f64::from(rounds * at_once));
        let transactions = commits().await - before;
        let per_second = events / took.as_secs_f64();
        println!(
            "written together, {at_once} at once: {per_second:.0} events/s, {events} events in {transactions} transactions"
        );
        let started = Instant::now();
        for _ in 0..rounds.min(60) {
            futures_util::future::join_all((0..at_once).map(async |_| {
                let mut transaction = store.begin_installation().await.unwrap();
                record_in(&mut transaction, &event()).await.unwrap();
                countersign_issuer::storage::Database::commit(transaction).await.unwrap();
            }))
            .await;
        }
        println!(
            "  each by itself: {:.0} events/s",
            f64::from(rounds.min(60) * at_once) / started.elapsed().as_secs_f64()
        );
    }

    database.execute("truncate audit_queue").await;
    database
        .execute(
            "insert into audit_queue (event_id, occurred_at, tenant_id, actor_agent_id, action, outcome, target_type, target_id, request_id,
                                      client_ip, user_agent, details)
             select ('01a1fce7' || substr(md5(n::text), 1, 4) || '7' || substr(md5(n::text), 5, 3) || '8' || substr(md5(n::text), 9, 15))::uuid, now(),
                    (md5((n % 100)::text))::uuid, gen_random_uuid(), 'token.issued', 'success', 'token', gen_random_uuid()::text, 'r', '192.0.2.7', 'curl/8', '{}'
             from generate_series(1, 200000) n",
        )
        .await;
    database.execute("vacuum analyze audit_queue").await;
    drop(holder.close().await);
    let started = Instant::now();
    eventually("all are sealed", 300, async || {
        (database.value::<i64>("select count(*) from audit_queue").await == 0).then_some(())
    })
    .await;
    println!("sealed: {:.0} events/s", 200_000.0 / started.elapsed().as_secs_f64());

    let started = Instant::now();
    let (mut chain, mut events) = (None, 0);
    while let Some(next) = verify::next(&store, chain).await.unwrap() {
        let verified = verify::chain(&store, next).await.unwrap();
        assert!(verified.findings.is_empty());
        events += verified.events;
        chain = Some(next);
    }
    println!(
        "verified: {:.0} events/s, {events} events",
        f64::from(u32::try_from(events).unwrap()) / started.elapsed().as_secs_f64()
    );
    audit.stop().await;
}
