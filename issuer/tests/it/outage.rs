//! The database is cut off while the issuer works.

use std::time::{Duration, Instant};

use reqwest::{Response, StatusCode};

use crate::support::issuer::{agent_body, envelope, oauth_error};
use crate::support::proxy::{Line, Proxy};
use crate::support::{Client, Issuer, TestDatabase, eventually};

/// An issuer behind a line that can be cut.
async fn behind_proxy() -> (Proxy, Issuer) {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let (proxy, url) = Proxy::before(&database.url, Line::Open).await;
    let issuer = Issuer::start_on(database.into(), administrator, |cli| cli.env("DATABASE_URL", &url)).await;
    (proxy, issuer)
}

/// `Cache-Control` of the JWK Set.
async fn keys_kept(issuer: &Issuer) -> String {
    let response = issuer.get("/.well-known/jwks.json").send().await.unwrap();
    response.headers()["cache-control"].to_str().unwrap().to_owned()
}

fn retry_after(response: &Response) -> u32 {
    response.headers()["retry-after"].to_str().unwrap().parse().unwrap()
}

/// Every way in gets 503 in its own form, in good time.
async fn expect_unavailable(
    issuer: &Issuer,
    client: &Client,
    token: &str,
    management: &str,
    within: Duration,
) {
    let (grant, about) = ([("grant_type", "client_credentials")], [("token", token)]);
    let started = Instant::now();
    let (issue, introspect, revoke, register, read) = tokio::join!(
        issuer.oauth("token", client, &grant),
        issuer.oauth("introspect", client, &about),
        issuer.oauth("revoke", client, &about),
        issuer.post("/api/v1/agents").bearer_auth(management).json(&agent_body(&[])).send(),
        issuer.get(&format!("/api/v1/agents/{}", client.id)).bearer_auth(management).send(),
    );
    assert!(started.elapsed() < within, "{:?}", started.elapsed());
    for response in [issue, introspect, revoke] {
        assert!(retry_after(&response) > 0);
        assert_eq!(oauth_error(response).await, (503, "temporarily_unavailable".into()));
    }
    for response in [register.unwrap(), read.unwrap()] {
        assert!(retry_after(&response) > 0);
        let (status, code, _) = envelope(response).await;
        assert_eq!((status, code.as_str()), (503, "SERVICE_UNAVAILABLE"));
    }
}

#[tokio::test]
async fn a_cut_line_is_503_until_it_is_back() {
    let (proxy, issuer) = behind_proxy().await;
    let (token, management) =
        (issuer.token(&issuer.administrator).await, issuer.management_token(&issuer.administrator).await);
    proxy.set(Line::Cut);
    expect_unavailable(&issuer, &issuer.administrator, &token, &management, Duration::from_secs(5)).await;
    expect_unavailable(&issuer, &issuer.administrator, &token, &management, Duration::from_secs(5)).await;

    // Even a secret that is refused without a look-up: that it was tried couldn't be written down.
    let mistyped = Client { secret: "csk_x".into(), ..issuer.administrator.clone() };
    let response = issuer.oauth("token", &mistyped, &[("grant_type", "client_credentials")]).await;
    assert_eq!(oauth_error(response).await.0, 503);

    // What needs no database goes on.
    for path in ["/health", "/.well-known/jwks.json", "/.well-known/oauth-authorization-server"] {
        assert_eq!(issuer.get(path).send().await.unwrap().status(), StatusCode::OK);
    }
    // But nobody may keep keys of which it isn't known whether they are all.
    eventually("the key set isn't to be kept", 5, async || {
        (keys_kept(&issuer).await == "no-cache").then_some(())
    })
    .await;
    let ready = issuer.get("/ready").send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let ready: serde_json::Value = ready.json().await.unwrap();
    assert_eq!(ready["checks"]["postgres"]["status"], "unavailable");

    proxy.set(Line::Open);
    eventually("it issues again", 10, async || {
        let response =
            issuer.oauth("token", &issuer.administrator, &[("grant_type", "client_credentials")]).await;
        (response.status() == StatusCode::OK).then_some(())
    })
    .await;
    assert!(issuer.is_active(&issuer.administrator, &token).await, "nothing was lost");
    assert_eq!(keys_kept(&issuer).await, "public, max-age=300");
    assert_eq!(issuer.get("/ready").send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_silent_line_is_503_too() {
    let (proxy, issuer) = behind_proxy().await;
    let (token, management) =
        (issuer.token(&issuer.administrator).await, issuer.management_token(&issuer.administrator).await);
    proxy.set(Line::Silent);
    expect_unavailable(&issuer, &issuer.administrator, &token, &management, Duration::from_secs(7)).await;
    proxy.set(Line::Open);
    eventually("it issues again", 15, async || {
        let response =
            issuer.oauth("token", &issuer.administrator, &[("grant_type", "client_credentials")]).await;
        (response.status() == StatusCode::OK).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_ended_by_the_server_are_replaced() {
    let issuer = Issuer::start().await;
    let token = issuer.token(&issuer.administrator).await;
    for _ in 0..3 {
        issuer
            .database
            .execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
            .await;
        eventually("it answers again", 5, async || {
            let response = issuer.oauth("introspect", &issuer.administrator, &[("token", &token)]).await;
            match response.status() {
                StatusCode::OK => Some(()),
                status => {
                    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                    None
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_database_that_takes_no_connections_is_503_until_it_does() {
    let issuer = Issuer::start().await;
    let (token, management) =
        (issuer.token(&issuer.administrator).await, issuer.management_token(&issuer.administrator).await);
    // As while another one takes its place. Nobody can say so of the database that they are in.
    let elsewhere = TestDatabase::empty().await;
    let name = &issuer.database.name;
    elsewhere.execute(&format!("alter database {name} with allow_connections false")).await;
    elsewhere
        .execute(&format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"))
        .await;
    expect_unavailable(&issuer, &issuer.administrator, &token, &management, Duration::from_secs(7)).await;
    elsewhere.execute(&format!("alter database {name} with allow_connections true")).await;
    eventually("it issues again", 15, async || {
        let response =
            issuer.oauth("token", &issuer.administrator, &[("grant_type", "client_credentials")]).await;
        (response.status() == StatusCode::OK).then_some(())
    })
    .await;
}
