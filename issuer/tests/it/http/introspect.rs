//! `POST /oauth2/v1/introspect`.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::cli::Cli;
use crate::support::issuer::{claims, oauth_error};
use crate::support::{Client, Issuer, TestDatabase};

#[tokio::test]
async fn describes_a_token_to_its_agent() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&["orders:read"]).await;
    let token = issuer.token(&client).await;
    for path in ["/oauth2/v1/introspect", "/api/v1/token/introspect"] {
        let request = issuer.post(path).basic_auth(&client.id, Some(&client.secret));
        let response = request
            .form(&[("token", &token), ("token_type_hint", &"access_token".into())])
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["cache-control"], "no-store");
        let mut expected = claims(&token);
        expected["active"] = json!(true);
        expected["token_type"] = json!("Bearer");
        assert_eq!(response.json::<Value>().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn others_tokens_take_the_scope_and_the_tenant() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&[]).await;
    let curious = issuer.new_client(&["tokens:revoke"]).await;
    let inspector = issuer.new_client(&["tokens:introspect"]).await;
    let foreign = issuer.other_tenant().await;
    let token = issuer.token(&client).await;
    assert!(issuer.is_active(&client, &token).await);
    assert!(issuer.is_active(&inspector, &token).await);
    assert!(!issuer.is_active(&curious, &token).await);
    assert!(!issuer.is_active(&foreign, &token).await);
    assert!(!issuer.is_active(&inspector, &issuer.token(&foreign).await).await);
    // For any audience.
    assert!(
        issuer.is_active(&issuer.administrator, &issuer.management_token(&issuer.administrator).await).await
    );
}

#[tokio::test]
async fn whatever_does_not_hold_is_inactive_and_nothing_more() {
    let issuer = Issuer::start().await;
    let administrator = &issuer.administrator;
    let short = issuer.grant(administrator, &[("expires_in", "1")]).await["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let good = issuer.token(administrator).await;
    let [header, payload, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let unsigned = format!("{}.{payload}.", "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0");
    let padded = format!("{good}=");
    let spaced = format!("{header}. {payload}.{signature}");
    let revoked = issuer.token(administrator).await;
    issuer.revoke(administrator, &revoked).await;
    // Signed by another installation with its own key, in the same name.
    let (database, other_administrator) = other_installation().await;
    let elsewhere = Issuer::start_on(database.into(), other_administrator, |cli| cli).await;
    let forged = elsewhere.token(&elsewhere.administrator).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for token in
        [short.as_str(), "a", "a.b.c", &unsigned, &padded, &spaced, &revoked, &forged, &"a".repeat(20_000)]
    {
        let response = issuer.oauth("introspect", administrator, &[("token", token)]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.json::<Value>().await.unwrap(), json!({"active": false}), "{token:.40}");
    }
    assert!(issuer.is_active(administrator, &good).await);
}

/// With keys of its own, not the template's.
async fn other_installation() -> (TestDatabase, Client) {
    let database = TestDatabase::empty().await;
    let cli = Cli::new(&database.url);
    cli.run(&["migrate"]).expect_success();
    let administrator: Value =
        serde_json::from_str(&cli.run(&["bootstrap", "--json"]).expect_success()).unwrap();
    (database, Client::from_json(&administrator))
}

#[tokio::test]
async fn live_state_counts() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&[]).await;
    let token = issuer.token(&client).await;
    for (table, status) in [("agents", "suspended"), ("credentials", "revoked")] {
        let change =
            |status: &str| format!("update {table} set status = '{status}' where agent_id = '{}'", client.id);
        issuer.database.execute(&change(status)).await;
        assert!(!issuer.is_active(&issuer.administrator, &token).await, "{table}");
        issuer.database.execute(&change("active")).await;
        assert!(issuer.is_active(&issuer.administrator, &token).await);
    }
}

/// Those who ask at once are looked up together: to each its own answer.
#[tokio::test]
async fn of_many_at_once_each_gets_its_own_answer() {
    let issuer = Issuer::start().await;
    let (living, suspended) = (issuer.new_client(&[]).await, issuer.new_client(&[]).await);
    let mut tokens = Vec::new();
    for _ in 0..4 {
        let (good, revoked) = (issuer.token(&living).await, issuer.token(&living).await);
        let about = [("token", revoked.as_str())];
        assert_eq!(issuer.oauth("revoke", &living, &about).await.status(), 200);
        tokens.extend([(good, true), (revoked, false), (issuer.token(&suspended).await, false)]);
    }
    let change = format!("update agents set status = 'suspended' where agent_id = '{}'", suspended.id);
    issuer.database.execute(&change).await;
    for round in 0..5 {
        let asked = tokens.iter().cycle().take(120).map(async |(token, active)| {
            assert_eq!(issuer.is_active(&issuer.administrator, token).await, *active, "{round}");
        });
        futures_util::future::join_all(asked).await;
    }
}

#[tokio::test]
async fn without_the_database_only_what_is_known_to_be_revoked_is_inactive() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&[]).await;
    let (good, revoked) = (issuer.token(&client).await, issuer.token(&client).await);
    assert_eq!(issuer.oauth("revoke", &client, &[("token", &revoked)]).await.status(), 200);
    issuer.database.execute("alter table revocations rename column jti to id").await;
    assert!(!issuer.is_active(&client, &revoked).await);
    let response = issuer.oauth("introspect", &client, &[("token", &good)]).await;
    assert_eq!(oauth_error(response).await, (500, "server_error".into()));
    issuer.database.execute("alter table revocations rename column id to jti").await;
    assert!(issuer.is_active(&client, &good).await);
}

#[tokio::test]
async fn refuses_strangers_and_requests_without_token() {
    let issuer = Issuer::start().await;
    let response = issuer.post("/oauth2/v1/introspect").form(&[("token", "a")]).send().await.unwrap();
    assert_eq!(oauth_error(response).await, (401, "invalid_client".into()));
    let response = issuer.oauth("introspect", &issuer.administrator, &[("token", "")]).await;
    assert_eq!(oauth_error(response).await, (400, "invalid_request".into()));
}
