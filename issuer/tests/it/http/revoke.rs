//! `POST /oauth2/v1/revoke`.

use countersign_shared::Jti;
use redis::AsyncTypedCommands as _;
use reqwest::StatusCode;
use serde_json::json;

use crate::support::issuer::{claims, oauth_error};
use crate::support::{Issuer, required};

fn jti(token: &str) -> String {
    claims(token)["jti"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn ends_that_token_and_no_other() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&[]).await;
    for path in ["/oauth2/v1/revoke", "/api/v1/token/revoke"] {
        let (token, other) = (issuer.token(&client).await, issuer.token(&client).await);
        let request =
            issuer.post(path).basic_auth(&client.id, Some(&client.secret)).form(&[("token", &token)]);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.text().await.unwrap(), "");

        // All of it is committed by now.
        let id = jti(&token);
        let coordinate = id.parse::<Jti>().unwrap().coordinate();
        let rows: i64 =
            issuer.database.value(&format!("select count(*) from revocations where jti = '{id}'")).await;
        let queued: i64 = issuer
            .database
            .value(&format!(
                "select count(*) from revocation_outbox where shard = {} and serial = {}",
                coordinate.shard.get(),
                coordinate.serial.get()
            ))
            .await;
        assert_eq!((rows, queued), (1, 1));
        let audit = issuer.database.audit("token.revoked").await;
        assert_eq!(
            (&audit.last().unwrap()["target"], &audit.last().unwrap()["actor"]),
            (&json!(id), &json!(client.id))
        );

        assert!(!issuer.is_active(&client, &token).await);
        assert!(issuer.is_active(&client, &other).await);
    }
}

#[tokio::test]
async fn twice_is_as_good_as_once() {
    let issuer = Issuer::start().await;
    let token = issuer.token(&issuer.administrator).await;
    issuer.revoke(&issuer.administrator, &token).await;
    issuer.revoke(&issuer.administrator, &token).await;
    let queued: i64 = issuer.database.value("select count(*) from revocation_outbox").await;
    assert_eq!(queued, 1);
    let audit = issuer.database.audit("token.revoked").await;
    assert_eq!(audit.iter().map(|row| &row["already_revoked"]).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn others_tokens_take_the_scope_and_the_tenant() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&[]).await;
    let stranger = issuer.new_client(&["tokens:introspect"]).await;
    let revoker = issuer.new_client(&["tokens:revoke"]).await;
    let foreign = issuer.other_tenant().await;
    let token = issuer.token(&client).await;
    let response = issuer.oauth("revoke", &stranger, &[("token", &token)]).await;
    assert_eq!(oauth_error(response).await, (400, "unauthorized_client".into()));
    issuer.revoke(&foreign, &token).await; // to another tenant it is no token at all
    assert!(issuer.is_active(&client, &token).await);
    issuer.revoke(&revoker, &token).await;
    assert!(!issuer.is_active(&client, &token).await);
}

#[tokio::test]
async fn an_administrator_revokes_by_jti() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&[]).await;
    let foreign = issuer.other_tenant().await;
    let token = issuer.token(&client).await;
    let id = jti(&token);

    let response = issuer.oauth("revoke", &client, &[("jti", &id)]).await;
    assert_eq!(oauth_error(response).await, (400, "unauthorized_client".into()));

    let good: Jti = id.parse().unwrap();
    let made_up = Jti::new(good.coordinate(), good.tag() ^ 1).to_string();
    for (by, jti) in [
        (&issuer.administrator, made_up.as_str()),
        (&issuer.administrator, "nonsense"),
        (&issuer.administrator, &id.to_uppercase()),
        (&foreign, &id), // another tenant's is as good as made up
    ] {
        let response = issuer.oauth("revoke", by, &[("jti", jti)]).await;
        assert_eq!(oauth_error(response).await, (400, "invalid_request".into()), "{jti}");
    }
    let response = issuer.oauth("revoke", &issuer.administrator, &[("jti", &id), ("token", &token)]).await;
    assert_eq!(oauth_error(response).await, (400, "invalid_request".into()));
    assert!(issuer.is_active(&client, &token).await);

    let response = issuer.oauth("revoke", &issuer.administrator, &[("jti", &id)]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!issuer.is_active(&client, &token).await);
}

#[tokio::test]
async fn what_is_no_token_needs_no_revocation() {
    let issuer = Issuer::start().await;
    let mut tampered = issuer.token(&issuer.administrator).await;
    tampered.replace_range(tampered.len() - 2.., "AA");
    for token in ["nonsense", "a.b.c", &tampered] {
        issuer.revoke(&issuer.administrator, token).await;
    }
    let queued: i64 = issuer.database.value("select count(*) from revocation_outbox").await;
    assert_eq!(queued, 0);
    let response = issuer.oauth("revoke", &issuer.administrator, &[]).await;
    assert_eq!(oauth_error(response).await, (400, "invalid_request".into()));
    let response = issuer.post("/oauth2/v1/revoke").form(&[("token", "a")]).send().await.unwrap();
    assert_eq!(oauth_error(response).await, (401, "invalid_client".into()));
}

/// It may not have expired yet by the clock of who would accept it.
#[tokio::test]
async fn a_token_that_has_just_expired_is_revoked_all_the_same() {
    let issuer = Issuer::start().await;
    let granted = issuer.grant(&issuer.administrator, &[("expires_in", "1")]).await;
    let token = granted["access_token"].as_str().unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    issuer.revoke(&issuer.administrator, token).await;
    let revoked: i64 = issuer
        .database
        .value(&format!("select count(*) from revocations where jti = '{}'", jti(token)))
        .await;
    assert_eq!(revoked, 1);
}

#[tokio::test]
async fn redis_gets_a_mark_and_nothing_depends_on_it() {
    let issuer = Issuer::start().await;
    let token = issuer.token(&issuer.administrator).await;
    issuer.revoke(&issuer.administrator, &token).await;
    let client = redis::Client::open(required("TEST_REDIS_URL")).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let key = format!("revoked:{}", jti(&token));
    let redis::IntegerReplyOrNoOp::IntegerReply(lives) = redis.ttl(&key).await.unwrap() else {
        panic!("no mark")
    };
    assert!((1..=900 + 3600).contains(&lives), "{lives} s");
    assert_eq!(redis.del(&key).await.unwrap(), 1);
    assert!(!issuer.is_active(&issuer.administrator, &token).await, "Postgres is the truth");
}
