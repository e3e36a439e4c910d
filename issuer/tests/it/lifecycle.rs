//! Starting and stopping.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;

use crate::support::cli::Cli;
use crate::support::issuer::Starting;
use crate::support::proxy::{Line, Proxy};
use crate::support::{Issuer, TestDatabase, eventually};

#[tokio::test]
async fn a_taken_port_is_named_with_its_setting() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let cli = Cli::new(&database.url);
    let said = cli.clone().env("PORT", &address.port().to_string()).run(&["serve"]).expect_failure();
    assert_eq!(said, format!("{address} is in use by another process: stop that, or change PORT or HOST"));
    let said = cli.env("ADMIN_ADDRESS", &address.to_string()).run(&["serve"]).expect_failure();
    assert_eq!(said, format!("{address} is in use by another process: stop that, or change ADMIN_ADDRESS"));
}

#[tokio::test]
async fn a_missing_database_is_named_and_waited_for() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let (proxy, url) = Proxy::before(&database.url, Line::Cut).await;
    let url = url.replacen("postgres@", "postgres:hunter2@", 1);
    let starting = Starting::spawn(&Cli::new(&url));
    let line = eventually("it says that the database is missing", 5, async || {
        starting.log().lines().find(|line| line.contains("PostgreSQL at")).map(str::to_owned)
    })
    .await;
    assert!(line.contains(&proxy.address.to_string()) && line.contains("retry_in_ms"), "{line}");
    assert!(!starting.log().contains("hunter2"));
    proxy.set(Line::Open);
    let issuer = starting.ready(database.into(), administrator).await;
    assert_eq!(issuer.get("/ready").send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_database_that_does_not_come_ends_the_start_with_one_line() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cli = Cli::new(&format!("postgres://user:hunter2@{free}/none")).env("STARTUP_TIMEOUT_SECONDS", "1");
    let started = Instant::now();
    let ran = cli.run(&["serve"]);
    assert!((0.5..5.0).contains(&started.elapsed().as_secs_f64()));
    let said = ran.expect_failure();
    assert!(said.starts_with(&format!("PostgreSQL at {free} can't be reached: ")), "{said}");
    assert!(said.ends_with(": start it, or correct DATABASE_URL"), "{said}");
    assert!(!ran.stderr().contains("hunter2"));
}

#[tokio::test]
async fn stops_while_still_starting() {
    let (proxy, url) = Proxy::before(&TestDatabase::empty().await.url, Line::Cut).await;
    let starting = Starting::spawn(&Cli::new(&url));
    eventually("it is starting", 5, async || starting.log().contains("PostgreSQL at").then_some(())).await;
    assert_eq!(starting.terminate().code(), Some(0));
    drop(proxy);
}

#[tokio::test]
async fn stops_at_once_when_idle() {
    for signal in ["TERM", "INT"] {
        let mut issuer = Issuer::start().await;
        issuer.token(&issuer.administrator).await; // leaves a connection that is kept alive
        issuer.signal(signal);
        assert_eq!(issuer.wait(Duration::from_secs(5)).code(), Some(0), "{signal}");
        assert!(issuer.get("/health").send().await.is_err());
    }
}

#[tokio::test]
async fn the_log_s_level_changes_only_the_log() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let quiet = Cli::new(&database.url).env("LOG_LEVEL", "ERROR").env("PORT", &port.to_string());
    let serving = Starting::spawn(&quiet);
    let url = format!("http://127.0.0.1:{port}/ready");
    eventually("it serves", 10, async || reqwest::get(&url).await.ok()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(reqwest::get(&url).await.unwrap().status(), StatusCode::OK);
    assert_eq!(serving.log(), "");
    assert_eq!(serving.terminate().code(), Some(0));
}

/// A request that waits in the database until the returned transaction ends.
async fn held_request(
    issuer: &Issuer,
) -> (sqlx::Transaction<'static, sqlx::Postgres>, tokio::task::JoinHandle<reqwest::Result<reqwest::Response>>)
{
    let token = issuer.management_token(&issuer.administrator).await;
    let mut transaction = issuer.database.pool.begin().await.unwrap();
    sqlx::query("select from agents for update").execute(&mut *transaction).await.unwrap();
    let path = format!("/api/v1/agents/{}/credentials", issuer.administrator.id);
    let request = tokio::spawn(issuer.post(&path).bearer_auth(token).json(&json!({})).send());
    eventually("the request waits for the lock", 5, async || {
        let waiting: i64 = issuer
            .database
            .value("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")
            .await;
        (waiting > 0).then_some(())
    })
    .await;
    (transaction, request)
}

#[tokio::test]
async fn requests_under_way_are_answered_before_it_ends() {
    let mut issuer = Issuer::start().await;
    let (transaction, request) = held_request(&issuer).await;
    issuer.signal("TERM");
    eventually("no more connections are taken", 5, async || {
        let address = issuer.url.trim_start_matches("http://").to_owned();
        tokio::net::TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    transaction.rollback().await.unwrap();
    assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::CREATED);
    assert_eq!(issuer.wait(Duration::from_secs(5)).code(), Some(0));
}

#[tokio::test]
async fn a_stop_has_a_limit() {
    let mut issuer = Issuer::start_with(|cli| cli.env("SHUTDOWN_TIMEOUT_SECONDS", "1")).await;
    let (transaction, request) = held_request(&issuer).await;
    let started = Instant::now();
    issuer.signal("TERM");
    assert_eq!(issuer.wait(Duration::from_secs(4)).code(), Some(1));
    assert!(started.elapsed() > Duration::from_millis(900));
    issuer.logged("SHUTDOWN_TIMEOUT_SECONDS").await;
    assert!(!request.await.unwrap().is_ok_and(|response| response.status().is_success()));
    drop(transaction);
}
