//! What the logs don't say.

use std::time::Duration;

use crate::support::edge::{Edge, KV_TOKEN, PUSH_SECRET};
use crate::support::proxy::{Line, Proxy};
use crate::support::{Client, Issuer, MASTER_KEY, TestDatabase};

#[tokio::test]
async fn no_secret_and_no_token_is_ever_logged() {
    const PASSWORD: &str = "correct-horse-battery";
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let edge = Edge::start(&database.url).await;
    // Trust authentication takes any password.
    let mut url: reqwest::Url = database.url.parse().unwrap();
    if url.password().is_none() {
        url.set_password(Some(PASSWORD)).unwrap();
    }
    let (proxy, url) = Proxy::before(url.as_str(), Line::Open).await;
    let issuer = Issuer::start_on(database.into(), administrator, |cli| {
        edge.configure(cli).env("DATABASE_URL", &url).env("LOG_LEVEL", "TRACE")
    })
    .await;

    let client = issuer.new_client(&["orders:read"]).await;
    let wrong = Client { secret: format!("{}a", &client.secret[..62]), ..client.clone() };
    let (token, management) =
        (issuer.token(&client).await, issuer.management_token(&issuer.administrator).await);
    issuer.oauth("token", &wrong, &[("grant_type", "client_credentials")]).await;
    issuer.is_active(&client, &token).await;
    issuer.revoke(&client, &token).await;
    issuer.get("/api/v1/agents/x").bearer_auth(&management).send().await.unwrap();
    issuer
        .get(&format!("/api/v1/agents/{}?access_token={management}", client.id))
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    proxy.set(Line::Cut);
    issuer.oauth("token", &client, &[("grant_type", "client_credentials")]).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;

    let log = issuer.log();
    assert!(
        log.contains("\"request\"") && log.contains("service unavailable"),
        "there is something to look through"
    );
    let secrets = [
        PASSWORD,
        MASTER_KEY,
        PUSH_SECRET,
        KV_TOKEN,
        &client.secret,
        &wrong.secret,
        &issuer.administrator.secret,
        &token,
        &management,
    ];
    for secret in secrets {
        assert!(!log.contains(secret), "{secret:.8}…");
    }
    // A token's signature alone would do for nobody, its payload neither, but they have no business there.
    for part in token.split('.').chain(management.split('.')).skip(1) {
        assert!(!log.contains(part));
    }
    let audit: i64 = issuer
        .database
        .value(
            "select count(*) from (select audit_events::text as event from audit_events union all select audit_queue::text from audit_queue) events
             where event ~ 'csk_|eyJ'",
        )
        .await;
    assert_eq!(audit, 0);
}
