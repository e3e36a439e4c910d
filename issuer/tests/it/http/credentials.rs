//! `/api/v1/agents/{agent_id}/credentials`.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::issuer::{agent_body, envelope, oauth_error};
use crate::support::{Client, Issuer};

#[tokio::test]
async fn makes_a_secret_that_works_and_keeps_only_its_hash() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let agent = issuer.register(&token, &agent_body(&["orders:read"])).await;
    let id = agent["agent_id"].as_str().unwrap();
    let request =
        issuer.post(&format!("/api/v1/agents/{id}/credentials")).bearer_auth(&token).json(&json!({}));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["cache-control"], "no-store");
    let credential: Value = response.json().await.unwrap();
    let names: Vec<&String> = credential.as_object().unwrap().keys().collect();
    assert_eq!(names, ["client_id", "client_secret", "created_at", "credential_id", "expires_at", "status"]);
    assert_eq!((&credential["client_id"], &credential["status"]), (&json!(id), &json!("active")));
    assert_eq!(credential["expires_at"], Value::Null);
    let secret = credential["client_secret"].as_str().unwrap();
    assert!(secret.starts_with("csk_") && secret.len() == 63, "{secret}");

    let granted = issuer.grant(&Client::from_json(&credential), &[]).await;
    assert_eq!(granted["scope"], "orders:read");

    let stored: Vec<u8> =
        issuer.database.value(&format!("select secret_hash from credentials where agent_id = '{id}'")).await;
    assert_eq!(stored.len(), 32);
    let audit = issuer.database.audit("credential.created").await;
    assert_eq!((&audit[0]["target"], &audit[0]["agent_id"]), (&credential["credential_id"], &json!(id)));
    assert!(!audit[0].to_string().contains("csk_"));
}

#[tokio::test]
async fn ends_when_it_expires() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let agent = issuer.register(&token, &agent_body(&[])).await;
    let path = format!("/api/v1/agents/{}/credentials", agent["agent_id"].as_str().unwrap());
    let expires_at = (OffsetDateTime::now_utc() + Duration::from_secs(3)).format(&Rfc3339).unwrap();
    let request = issuer.post(&path).bearer_auth(&token).json(&json!({ "expires_at": expires_at }));
    let credential: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(credential["expires_at"].as_str().unwrap()[..19], expires_at[..19]);
    let client = Client::from_json(&credential);
    issuer.token(&client).await;
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let response = issuer.oauth("token", &client, &[("grant_type", "client_credentials")]).await;
    assert_eq!(oauth_error(response).await, (401, "invalid_client".into()));
}

#[tokio::test]
async fn takes_only_times_to_come() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let path = format!("/api/v1/agents/{}/credentials", issuer.administrator.id);
    for expires_at in
        [json!("2020-01-01T00:00:00Z"), json!("tomorrow"), json!(1_900_000_000), json!("2027-01-01")]
    {
        let request = issuer.post(&path).bearer_auth(&token).json(&json!({ "expires_at": expires_at }));
        let (status, code, details) = envelope(request.send().await.unwrap()).await;
        assert_eq!((status, code.as_str()), (400, "VALIDATION_ERROR"), "{expires_at}");
        assert_eq!(details["fields"][0]["field"], "expires_at");
    }
}

#[tokio::test]
async fn none_for_an_agent_that_is_not_active() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let agent = issuer.register(&token, &agent_body(&[])).await;
    let id = agent["agent_id"].as_str().unwrap();
    for status in ["suspended", "decommissioned"] {
        issuer
            .database
            .execute(&format!("update agents set status = '{status}' where agent_id = '{id}'"))
            .await;
        let request =
            issuer.post(&format!("/api/v1/agents/{id}/credentials")).bearer_auth(&token).json(&json!({}));
        assert_eq!(
            envelope(request.send().await.unwrap()).await,
            (409, "AGENT_NOT_ACTIVE".into(), json!({}))
        );
    }
}

#[tokio::test]
async fn none_for_an_agent_that_may_more_than_the_caller() {
    let issuer = Issuer::start().await;
    let narrow = issuer.scoped_token("credentials:write").await;
    let path = format!("/api/v1/agents/{}/credentials", issuer.administrator.id);
    let response = issuer.post(&path).bearer_auth(&narrow).json(&json!({})).send().await.unwrap();
    let (status, code, details) = envelope(response).await;
    assert_eq!((status, code.as_str()), (403, "SCOPE_ESCALATION"));
    assert_eq!(
        details["scopes"],
        json!(["agents:read", "agents:write", "tokens:introspect", "tokens:revoke"])
    );
}
