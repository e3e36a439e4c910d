//! Several issuers on one database: what changes at one is in force at the others within a second, or they don't go by what they remember.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::issuer::{agent_body, oauth_error};
use crate::support::proxy::{Line, Proxy};
use crate::support::{Client, Issuer, TestDatabase, eventually};

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

/// What the specification promises.
const WITHIN: Duration = Duration::from_secs(1);

async fn another(issuer: &Issuer) -> Issuer {
    Issuer::start_on(issuer.database.clone(), issuer.administrator.clone(), |cli| cli).await
}

/// An agent with a credential: the agent's path, the credential's, and the client.
async fn client(issuer: &Issuer, token: &str) -> (String, String, Client) {
    let agent = issuer.register(token, &agent_body(&["orders:read", "orders:write"])).await;
    let agent = format!("/api/v1/agents/{}", agent["agent_id"].as_str().unwrap());
    let path = format!("{agent}/credentials");
    let made = issuer.post(&path).bearer_auth(token).json(&json!({})).send().await.unwrap();
    let made: Value = made.json().await.unwrap();
    let credential = format!("{path}/{}", made["credential_id"].as_str().unwrap());
    (agent, credential, Client::from_json(&made))
}

/// Status and code of a token request.
async fn outcome(issuer: &Issuer, client: &Client, more: &[(&str, &str)]) -> (u16, String) {
    let response = issuer.oauth("token", client, &[&[GRANT], more].concat()).await;
    if response.status() == StatusCode::OK { (200, String::new()) } else { oauth_error(response).await }
}

/// When, after `since`, the first request was sent that `issuer` refused; it said `code`. An answer may take longer: a token waits until no rule
/// touches it, and then its client is looked at again.
async fn until_refused(
    issuer: &Issuer,
    client: &Client,
    more: &[(&str, &str)],
    code: &str,
    since: Instant,
) -> Duration {
    loop {
        let sent = since.elapsed();
        let (status, said) = outcome(issuer, client, more).await;
        if status != 200 {
            assert_eq!(said, code);
            return sent;
        }
        assert!(sent < Duration::from_secs(5), "it goes on");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_change_at_one_is_in_force_at_the_other_within_a_second() {
    let here = Issuer::start().await;
    let there = another(&here).await;
    let token = here.management_token(&here.administrator).await;
    let mut worst = Duration::ZERO;
    for round in 0..20 {
        let (agent, credential, client) = client(&here, &token).await;
        let writes = [("scope", "orders:write")];
        for issuer in [&here, &there] {
            assert_eq!(outcome(issuer, &client, &writes).await.0, 200, "round {round}");
        }
        let request = here.http.patch(format!("{}{agent}", here.url)).header("if-match", "*");
        let changed =
            request.bearer_auth(&token).json(&json!({"scopes": ["orders:read"]})).send().await.unwrap();
        assert_eq!(changed.status(), StatusCode::OK);
        let scopes = until_refused(&there, &client, &writes, "invalid_scope", Instant::now()).await;

        let suspend = here.post(&format!("{agent}/suspend")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(suspend.status(), StatusCode::OK);
        let suspended = until_refused(&there, &client, &[], "invalid_client", Instant::now()).await;

        let reactivate = here.post(&format!("{agent}/reactivate")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(reactivate.status(), StatusCode::OK);
        let since = Instant::now();
        eventually("it is granted again", 5, async || {
            (outcome(&there, &client, &[]).await.0 == 200).then_some(())
        })
        .await;
        // Its first token had to wait until the rule of the suspension no longer touches it.
        assert!(since.elapsed() < Duration::from_secs(5));

        let revoke = here.post(&format!("{credential}/revoke")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(revoke.status(), StatusCode::OK);
        let revoked = until_refused(&there, &client, &[], "invalid_client", Instant::now()).await;
        println!("round {round}: scopes {scopes:?}, suspended {suspended:?}, revoked {revoked:?}");
        worst = worst.max(scopes).max(suspended).max(revoked);
    }
    println!("the worst of 60: {worst:?}");
    assert!(worst < WITHIN, "{worst:?}");
}

/// Until a suspension is committed other replicas issue tokens. They end with it, however long that takes.
#[tokio::test]
async fn tokens_issued_while_a_suspension_is_committed_end_with_it() {
    let here = Issuer::start().await;
    let there = another(&here).await;
    let token = here.management_token(&here.administrator).await;
    let (agent, _, client) = client(&here, &token).await;
    assert_eq!(outcome(&there, &client, &[]).await.0, 200);
    // Deferred triggers run in the commit: a disk that syncs slowly, or a standby that answers late.
    here.database
        .execute(
            "create function dawdle() returns trigger language plpgsql as $$ begin perform pg_sleep(3.5); return null; end $$;
             create constraint trigger dawdle after update on agents deferrable initially deferred for each row execute function dawdle()",
        )
        .await;
    let suspend = here.post(&format!("{agent}/suspend")).bearer_auth(&token).send();
    let tokens = async {
        let mut tokens = Vec::new();
        loop {
            let response = there.oauth("token", &client, &[GRANT]).await;
            if response.status() != StatusCode::OK {
                return tokens;
            }
            let granted: Value = response.json().await.unwrap();
            tokens.push(granted["access_token"].as_str().unwrap().to_owned());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (suspended, tokens) = tokio::join!(suspend, tokens);
    assert_eq!(suspended.unwrap().status(), StatusCode::OK);
    assert!(tokens.len() > 10, "{} were issued meanwhile", tokens.len());
    for issued in &tokens {
        let form = [("token", issued.as_str())];
        let answer = here.oauth("introspect", &here.administrator, &form).await;
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer, json!({"active": false}));
    }
    // Not only because the agent is suspended: they are ended at every edge, which knows nothing of that.
    let last = crate::support::issuer::claims(tokens.last().unwrap())["iat"].as_i64().unwrap();
    let rule: i64 = here
        .database
        .value(&format!(
            "select not_before from not_before_rules where level = 2 and subject = '\\x{}'",
            client.id.replace('-', "")
        ))
        .await;
    assert!(last <= rule, "{last} {rule}");
}

/// The process that suspends dies before it could see how long its commit took.
#[tokio::test]
async fn what_a_killed_process_leaves_unconfirmed_another_confirms() {
    let mut here = Issuer::start().await;
    let there = another(&here).await;
    let token = here.management_token(&here.administrator).await;
    let (agent, _, client) = client(&here, &token).await;
    there
        .database
        .execute(
            "create function dawdle() returns trigger language plpgsql as $$ begin perform pg_sleep(3.5); return null; end $$;
             create constraint trigger dawdle after update on agents deferrable initially deferred for each row execute function dawdle()",
        )
        .await;
    let suspend = here.post(&format!("{agent}/suspend")).bearer_auth(&token);
    let suspending = tokio::spawn(suspend.send());
    tokio::time::sleep(Duration::from_secs(2)).await;
    here.kill();
    assert!(suspending.await.unwrap().is_err(), "it got no answer");
    let mut last = 0;
    loop {
        let response = there.oauth("token", &client, &[GRANT]).await;
        if response.status() != StatusCode::OK {
            break;
        }
        let granted: Value = response.json().await.unwrap();
        last = crate::support::issuer::claims(granted["access_token"].as_str().unwrap())["iat"]
            .as_i64()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let rule = format!(
        "select not_before from not_before_rules where level = 2 and subject = '\\x{}'",
        client.id.replace('-', "")
    );
    let first: i64 = there.database.value(&rule).await;
    assert!(first < last, "else there is nothing to confirm");
    eventually("the rule reaches the last token", 25, async || {
        (there.database.value::<i64>(&rule).await >= last).then_some(())
    })
    .await;
    let left: i64 = there.database.value("select count(*) from rules_to_confirm").await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_change_of_tenant_resource_server_or_rule_is_in_force_too() {
    let here = Issuer::start().await;
    let there = another(&here).await;
    let token = here.management_token(&here.administrator).await;
    let (_, _, client) = client(&here, &token).await;
    let sql = async |sql: &str| {
        here.database.execute(sql).await;
        Instant::now()
    };
    assert_eq!(outcome(&there, &client, &[]).await.0, 200);
    let since = sql("update resource_servers set is_default = false").await;
    assert!(until_refused(&there, &client, &[], "invalid_target", since).await < WITHIN);
    sql("update resource_servers set is_default = true").await;
    eventually("it is granted again", 2, async || {
        (outcome(&there, &client, &[]).await.0 == 200).then_some(())
    })
    .await;
    let since = sql("update tenants set status = 'suspended'").await;
    assert!(until_refused(&there, &client, &[], "invalid_client", since).await < WITHIN);
    sql("update tenants set status = 'active'").await;
    eventually("it is granted again", 2, async || {
        (outcome(&there, &client, &[]).await.0 == 200).then_some(())
    })
    .await;

    // A rule about any of them: a token is issued after it.
    let agent = client.id.replace('-', "");
    let credential: String = here
        .database
        .value(&format!(
            "select replace(credential_id::text, '-', '') from credentials where agent_id = '{}'",
            client.id
        ))
        .await;
    let tenant: String = here.database.value("select replace(tenant_id::text, '-', '') from tenants").await;
    for (level, subject) in [(0, ""), (1, &*tenant), (2, &*agent), (3, &*credential), (4, "ff")] {
        sql(&format!(
            "insert into not_before_rules (level, subject, not_before)
             values ({level}, '\\x{subject}', extract(epoch from now())::bigint + 1)"
        ))
        .await;
        let rule: i64 = here
            .database
            .value(&format!("select not_before from not_before_rules where level = {level}"))
            .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let granted = there.grant(&client, &[]).await;
        let iat = crate::support::issuer::claims(granted["access_token"].as_str().unwrap())["iat"]
            .as_i64()
            .unwrap();
        assert!(iat > rule, "level {level}: {iat} {rule}");
    }
}

/// Many rows at once announce one change of everything.
#[tokio::test]
async fn a_change_of_very_many_is_heard() {
    let here = Issuer::start().await;
    let token = here.management_token(&here.administrator).await;
    let (_, _, client) = client(&here, &token).await;
    assert_eq!(outcome(&here, &client, &[]).await.0, 200);
    here.database
        .execute(
            "insert into agents (agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes, metadata)
             select gen_random_uuid(), tenant_id, n || '@many.example', 'custom', '1', '{}', 'many', 'staging', '{}', '{}'
             from tenants, generate_series(1, 500) n",
        )
        .await;
    here.database.execute("update agents set status = 'suspended'").await;
    assert!(until_refused(&here, &client, &[], "invalid_client", Instant::now()).await < WITHIN);
}

#[tokio::test]
async fn with_records_in_memory_the_database_is_asked_for_none() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&["orders:read"]).await;
    // That it has a credential now may be heard only a moment later.
    tokio::time::sleep(Duration::from_millis(300)).await;
    issuer.token(&client).await;
    // As long as nobody can read these tables, whoever reads them waits.
    let mut lock = issuer.database.pool.begin().await.unwrap();
    sqlx::query(
        "lock table credentials, tenants, resource_servers, not_before_rules in access exclusive mode",
    )
    .execute(&mut *lock)
    .await
    .unwrap();
    let started = Instant::now();
    for _ in 0..5 {
        issuer.token(&client).await;
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    lock.rollback().await.unwrap();
}

/// What isn't heard yet is in nobody's way: who is refused by what is in memory is looked up once more.
#[tokio::test]
async fn who_may_again_or_by_something_new_needs_no_announcement() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let (agent, _, client) = client(&issuer, &token).await;
    assert_eq!(outcome(&issuer, &client, &[]).await.0, 200);
    let status = async |status: &str| {
        let sql = format!("update agents set status = '{status}' where agent_id = '{}'", client.id);
        issuer.database.execute(&sql).await;
    };
    status("suspended").await;
    until_refused(&issuer, &client, &[], "invalid_client", Instant::now()).await;
    let announcing = async |how: &str| {
        for table in ["agents", "credentials"] {
            issuer.database.execute(&format!("alter table {table} {how} trigger user")).await;
        }
    };
    announcing("disable").await;
    status("active").await;
    assert_eq!(outcome(&issuer, &client, &[]).await.0, 200);

    let path = format!("{agent}/credentials");
    let made = issuer.post(&path).bearer_auth(&token).json(&json!({})).send().await.unwrap();
    let made: Value = made.error_for_status().unwrap().json().await.unwrap();
    let secret = made["client_secret"].as_str().unwrap().to_owned();
    assert_eq!(outcome(&issuer, &Client { secret, ..client.clone() }, &[]).await.0, 200);
    announcing("enable").await;
}

/// Ends the connection on which the issuer hears of changes.
async fn end_listener(database: &TestDatabase) {
    let ended: i64 = database
        .value(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where datname = current_database() and query like '%countersign hears changes%' and pid <> pg_backend_pid()",
        )
        .await;
    assert_eq!(ended, 1);
}

async fn client_cache(issuer: &Issuer) -> String {
    issuer.ready().await.1["checks"]["client_cache"]["status"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn who_hears_nothing_remembers_nothing() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let (_, _, client) = client(&issuer, &token).await;
    assert_eq!(outcome(&issuer, &client, &[]).await.0, 200);
    assert_eq!(client_cache(&issuer).await, "ok");
    // Strangers are looked up each time: so many at once leave connections for whatever goes on beside the requests below.
    let stranger = Client { id: "00000000-0000-7000-8000-000000000001".to_owned(), ..client.clone() };
    let strangers = (0..8).map(|_| outcome(&issuer, &stranger, &[]));
    futures_util::future::join_all(strangers).await;

    // The listener's connection is gone and no other can be made, while the pool's go on.
    let name = &issuer.database.name;
    issuer.database.execute(&format!("alter database {name} connection limit 0")).await;
    end_listener(&issuer.database).await;
    eventually("it says so", 3, async || (client_cache(&issuer).await == "bypassed").then_some(())).await;
    for _ in 0..5 {
        assert_eq!(outcome(&issuer, &client, &[]).await.0, 200, "it works all the same");
        issuer.database.execute("update agents set status = 'suspended' where email like 'agent-%'").await;
        assert_eq!(outcome(&issuer, &client, &[]).await.1, "invalid_client", "and is right at once");
        issuer.database.execute("update agents set status = 'active' where email like 'agent-%'").await;
    }

    issuer.database.execute(&format!("alter database {name} connection limit -1")).await;
    eventually("it hears again", 5, async || (client_cache(&issuer).await == "ok").then_some(())).await;
    assert_eq!(outcome(&issuer, &client, &[]).await.0, 200);
    issuer.logged("changes can't be heard").await;
    issuer.logged("changes are heard again").await;

    // What was changed while a connection was gone for a moment isn't missed.
    for _ in 0..5 {
        assert_eq!(client_cache(&issuer).await, "ok");
        end_listener(&issuer.database).await;
        issuer.database.execute("update agents set status = 'suspended' where email like 'agent-%'").await;
        assert!(until_refused(&issuer, &client, &[], "invalid_client", Instant::now()).await < WITHIN);
        issuer.database.execute("update agents set status = 'active' where email like 'agent-%'").await;
        eventually("it is granted again", 5, async || {
            (outcome(&issuer, &client, &[]).await.0 == 200 && client_cache(&issuer).await == "ok")
                .then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_line_that_falls_silent_gets_nobody_a_token() {
    for line in [Line::Silent, Line::Cut] {
        let here = Issuer::start().await;
        let (proxy, url) = Proxy::before(&here.database.url, Line::Open).await;
        let there = Issuer::start_on(here.database.clone(), here.administrator.clone(), |cli| {
            cli.env("DATABASE_URL", &url)
        })
        .await;
        let token = here.management_token(&here.administrator).await;
        let (agent, _, client) = client(&here, &token).await;
        assert_eq!(outcome(&there, &client, &[]).await.0, 200);

        proxy.set(line);
        let suspend = here.post(&format!("{agent}/suspend")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(suspend.status(), StatusCode::OK);
        tokio::time::sleep(WITHIN).await;
        // Asked while it can't know, and then when it can.
        let asked = async {
            let (status, code) = outcome(&there, &client, &[]).await;
            assert!(status == 503 || code == "invalid_client", "{line:?}: {status} {code}");
        };
        let opened = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            proxy.set(Line::Open);
        };
        tokio::join!(asked, opened);
        eventually("it is right again", 15, async || {
            let (status, code) = outcome(&there, &client, &[]).await;
            assert_ne!(status, 200, "{line:?}");
            (code == "invalid_client").then_some(())
        })
        .await;
    }
}

/// A token that has to wait for the end of one rule doesn't outlive the next.
#[tokio::test]
async fn who_is_suspended_while_its_token_waits_gets_none() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let (agent, credential, client) = client(&issuer, &token).await;
    for path in [format!("{agent}/suspend"), format!("{credential}/revoke")] {
        let request = issuer.http.patch(format!("{}{agent}", issuer.url)).header("if-match", "*");
        let changed = request.bearer_auth(&token).json(&json!({"scopes": []})).send().await.unwrap();
        assert_eq!(changed.status(), StatusCode::OK);
        let asked = async {
            let started = Instant::now();
            let outcome = outcome(&issuer, &client, &[]).await;
            (started.elapsed(), outcome)
        };
        let ended = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let ended = issuer.post(&path).bearer_auth(&token).send().await.unwrap();
            assert_eq!(ended.status(), StatusCode::OK);
        };
        let ((waited, outcome), ()) = tokio::join!(asked, ended);
        assert_eq!(outcome, (401, "invalid_client".into()), "{path}");
        assert!(waited > Duration::from_millis(500), "it did wait: {waited:?}");

        let reactivate =
            issuer.post(&format!("{agent}/reactivate")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(reactivate.status(), StatusCode::OK);
        let request = issuer.http.patch(format!("{}{agent}", issuer.url)).header("if-match", "*");
        let changed =
            request.bearer_auth(&token).json(&json!({"scopes": ["orders:read"]})).send().await.unwrap();
        assert_eq!(changed.status(), StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(3100)).await;
    }
}
