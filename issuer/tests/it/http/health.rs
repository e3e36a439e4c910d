//! Probes.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::proxy::{Line, Proxy};
use crate::support::{Issuer, eventually, required};

#[tokio::test]
async fn says_what_is_ready() {
    let issuer = Issuer::start().await;
    let (status, body) = issuer.ready().await;
    assert_eq!(status, StatusCode::OK);
    let ok = json!({"status": "ok"});
    let expected = json!({
        "status": "ready", "failing": [], "degraded": [],
        "checks": {
            "postgres": ok, "migrations": ok, "clock": ok, "keys": ok, "hot_state": {"status": "ok", "kind": "redis", "limits": "shared"},
            "publisher": {"status": "disabled"}, "audit": ok, "client_cache": ok, "maintenance": {"status": "off"},
        },
    });
    assert_eq!(body, expected);
    let live: Value = issuer.get("/health").send().await.unwrap().json().await.unwrap();
    assert_eq!(live, ok);
    let alias = issuer.get("/health/ready").send().await.unwrap();
    assert_eq!(alias.json::<Value>().await.unwrap(), body);
    for (path, expected) in [("/livez", &ok), ("/readyz", &body)] {
        let answer = issuer.http.get(format!("{}{path}", issuer.admin_url)).send().await.unwrap();
        assert_eq!(&answer.json::<Value>().await.unwrap(), expected);
    }
    // The admin listener has the probes and nothing else, the public one doesn't have its paths.
    let elsewhere =
        issuer.http.get(format!("{}/.well-known/jwks.json", issuer.admin_url)).send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);
    assert_eq!(issuer.get("/livez").send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_clock_that_is_ahead_issues_nothing() {
    let issuer = Issuer::start().await;
    let database = &issuer.database;
    // As if the database's clock were behind ours: its function is found after one of our own.
    let slow = "create function public.clock_timestamp() returns timestamptz language sql as $$ select pg_catalog.clock_timestamp() - interval '3 s' $$;
                do $$ begin execute format('alter database %I set search_path = public, pg_catalog', current_database()); end $$";
    database.execute(slow).await;
    database
        .execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await;
    eventually("it is noticed", 5, async || {
        (issuer.ready().await.1["checks"]["clock"]["status"] == "ahead").then_some(())
    })
    .await;
    let (status, body) = issuer.ready().await;
    assert_eq!((status, &body["status"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable")));
    let refused = issuer.oauth("token", &issuer.administrator, &[("grant_type", "client_credentials")]).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    database.execute("drop function public.clock_timestamp()").await;
    eventually("it issues again", 5, async || {
        let granted = issuer.oauth("token", &issuer.administrator, &[("grant_type", "client_credentials")]);
        (granted.await.status() == StatusCode::OK).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_a_key_that_signs_it_is_not_ready_and_makes_one() {
    let issuer = Issuer::start().await;
    let active = "select max(kid) from signing_keys where purpose = 'token' and state = 'active'";
    let before: Option<String> = issuer.database.value(active).await;
    issuer.database.execute("update signing_keys set state = 'retiring' where purpose = 'token'").await;
    eventually("another key signs", 20, async || {
        let (status, body) = issuer.ready().await;
        let keys = &body["checks"]["keys"]["status"];
        assert!(
            keys == "ok" || (keys == "none_signs" && status == StatusCode::SERVICE_UNAVAILABLE),
            "{body}"
        );
        let now: Option<String> = issuer.database.value(active).await;
        (keys == "ok" && now.is_some() && now != before).then_some(())
    })
    .await;
    issuer.token(&issuer.administrator).await;
}

#[tokio::test]
async fn without_redis_it_keeps_state_in_process_and_says_so() {
    let issuer = Issuer::start_with(|cli| cli.without("REDIS_URL")).await;
    assert_eq!(
        issuer.ready().await.1["checks"]["hot_state"],
        json!({"status": "ok", "kind": "in_process", "limits": "per_process"})
    );
    let token = issuer.token(&issuer.administrator).await;
    issuer.revoke(&issuer.administrator, &token).await;
    assert!(!issuer.is_active(&issuer.administrator, &token).await);
}

#[tokio::test]
async fn a_lost_redis_degrades_and_changes_nothing_else() {
    let (proxy, url) = Proxy::before(&required("TEST_REDIS_URL"), Line::Open).await;
    let issuer = Issuer::start_with(|cli| cli.env("REDIS_URL", &url)).await;
    let (token, revoked) =
        (issuer.token(&issuer.administrator).await, issuer.token(&issuer.administrator).await);
    issuer.revoke(&issuer.administrator, &revoked).await;
    for line in [Line::Cut, Line::Silent] {
        proxy.set(line);
        let body = eventually("Redis is missed", 5, async || {
            let (status, body) = issuer.ready().await;
            assert_eq!(status, StatusCode::OK);
            (body["status"] == "degraded").then_some(body)
        })
        .await;
        assert_eq!(body["checks"]["hot_state"]["status"], "degraded");
        let started = std::time::Instant::now();
        assert!(issuer.is_active(&issuer.administrator, &token).await);
        assert!(!issuer.is_active(&issuer.administrator, &revoked).await);
        let another = issuer.token(&issuer.administrator).await;
        issuer.revoke(&issuer.administrator, &another).await;
        assert!(!issuer.is_active(&issuer.administrator, &another).await);
        assert!(started.elapsed().as_secs() < 2, "nobody waits for Redis for long: {:?}", started.elapsed());
    }
    proxy.set(Line::Open);
    eventually("Redis is back", 10, async || (issuer.ready().await.1["status"] == "ready").then_some(()))
        .await;
    issuer.logged("Redis is lost").await;
    issuer.logged("Redis answers again").await;
}

#[tokio::test]
async fn migrations_that_do_not_fit_show() {
    let issuer = Issuer::start().await;
    let version: i64 = issuer.database.value("select max(version) from _sqlx_migrations").await;
    issuer.database.migrated_by_a_later_release(true).await;
    // The next release is being rolled out: this one goes on working.
    let (status, body) = issuer.ready().await;
    assert_eq!((status, &body["checks"]["migrations"]["status"]), (StatusCode::OK, &json!("ahead")));
    issuer.database.migrated_by_a_later_release(false).await;
    let (status, body) = eventually("it is looked at again", 5, async || {
        let (status, body) = issuer.ready().await;
        (body["checks"]["migrations"]["status"] == "too_new").then_some((status, body))
    })
    .await;
    assert_eq!((status, &body["failing"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(["migrations"])));
    issuer.database.execute(&format!("delete from _sqlx_migrations where version >= {version}")).await;
    let (status, body) = issuer.ready().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        (&body["status"], &body["checks"]["migrations"]["status"]),
        (&json!("unavailable"), &json!("behind"))
    );
}
