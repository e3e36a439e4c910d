//! `GET /api/v1/revocations/status`.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use crate::support::edge::{Mood, with_issuer};
use crate::support::{Issuer, eventually};

async fn ask(issuer: &Issuer, token: &str) -> Value {
    let response = issuer.get("/api/v1/revocations/status").bearer_auth(token).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

#[tokio::test]
async fn the_platform_sees_all_of_it_and_a_tenant_what_concerns_it() {
    let (edge, issuer) = with_issuer().await;
    let token = issuer.management_token(&issuer.administrator).await;
    // Enough for a base that has them.
    issuer
        .database
        .execute(&format!(
            "insert into revocation_outbox (shard, serial)
             select {}, n * 200 from generate_series(0, 9999) n",
            time::OffsetDateTime::now_utc().unix_timestamp() / 3600
        ))
        .await;
    let status = eventually("a base with all of them", 15, async || {
        let status = ask(&issuer, &token).await;
        let all = &status["installation"];
        // The position is ahead of the newest head for as long as that is under way.
        let head = edge.heads().last().unwrap().head.position();
        let is_there = (&all["epoch"], &all["seq"]) == (&head.0.into(), &head.1.into());
        (all["base"]["entries"] == 10_000 && is_there && all["lag_rows"] == 0).then_some(status)
    })
    .await;
    assert_eq!(status["status"], "current", "{status}");
    let all = &status["installation"];
    let base = &all["base"];
    let bits = base["bytes"].as_f64().unwrap() * 8.0 / 10_000.0;
    assert!((base["bits_per_entry"].as_f64().unwrap() - bits).abs() < 0.01, "{base}");
    let head = edge.heads().last().unwrap().head.clone();
    let as_of = status["as_of"].as_str().unwrap();
    let as_of = time::OffsetDateTime::parse(as_of, &time::format_description::well_known::Rfc3339).unwrap();
    assert!((head.as_of.0 - as_of.unix_timestamp()).abs() <= 2, "{status}");
    let sinks: Vec<&str> =
        all["sinks"].as_array().unwrap().iter().map(|sink| sink["sink"].as_str().unwrap()).collect();
    assert_eq!(sinks, ["kv", "hub", "hub_keys"]);
    for sink in all["sinks"].as_array().unwrap() {
        assert!(sink["last_success_at"].is_string() && sink["lag_rows"] == 0, "{sink}");
    }
    assert_eq!(all["listeners"], Value::Null, "this hub doesn't say");

    let other = issuer.other_tenant().await;
    let theirs = ask(&issuer, &issuer.management_token(&other).await).await;
    assert_eq!(theirs["status"], "current");
    assert!(theirs["as_of"].is_string() && theirs["lag_seconds"].is_number());
    assert_eq!(theirs["installation"], Value::Null, "figures of all tenants");
    let narrow = issuer.scoped_token("audit:read").await;
    assert_eq!(ask(&issuer, &narrow).await["installation"], Value::Null);
    let without = issuer.scoped_token("tokens:revoke tenants:read").await;
    let refused = issuer.get("/api/v1/revocations/status").bearer_auth(&without).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn it_shows_what_waits_and_where_from_any_replica() {
    let (edge, mut leader) = with_issuer().await;
    let other =
        Issuer::start_on(leader.database.clone(), leader.administrator.clone(), |cli| edge.configure(cli))
            .await;
    edge.set_hub(Mood::Failing);
    let token = other.token(&other.administrator).await;
    other.revoke(&other.administrator, &token).await;
    let token = other.management_token(&other.administrator).await;
    let status = eventually("it is behind", 12, async || {
        let status = ask(&other, &token).await;
        (status["status"] == "behind").then_some(status)
    })
    .await;
    assert!(status["lag_seconds"].as_f64().unwrap() > 4.0, "{status}");
    assert_eq!(status["installation"]["lag_rows"], 1);
    let [kv, hub] = [0, 1].map(|place: usize| &status["installation"]["sinks"][place]);
    assert_eq!((&hub["lag_rows"], &hub["error"]), (&1.into(), &"it answered 500".into()));
    assert!(hub["lag_seconds"].as_f64().unwrap() > 3.0 && hub["failing_since"].is_string(), "{hub}");
    assert_eq!((&kv["lag_rows"], &kv["failing_since"]), (&0.into(), &Value::Null));
    let ready: Value = leader.get("/ready").send().await.unwrap().json().await.unwrap();
    let sinks = &ready["checks"]["publisher"]["sinks"];
    assert!(sinks["hub"]["lag_ms"].as_u64().unwrap() > 3000 && sinks["hub"]["lag_rows"] == 1, "{ready}");

    edge.set_hub(Mood::Fine);
    let status = eventually("it caught up", 10, async || {
        let status = ask(&other, &token).await;
        (status["status"] == "current" && status["installation"]["lag_rows"] == 0).then_some(status)
    })
    .await;
    assert_eq!(status["installation"]["sinks"][1]["failing_since"], Value::Null);

    // Nobody publishes, and a revocation waits.
    leader.kill();
    let database = other.database.clone();
    drop(other);
    let silent = Issuer::start_on(database, leader.administrator.clone(), |cli| cli).await;
    let revoked = silent.token(&silent.administrator).await;
    silent.revoke(&silent.administrator, &revoked).await;
    let token = silent.management_token(&silent.administrator).await;
    let status = eventually("nobody publishes", 12, async || {
        let status = ask(&silent, &token).await;
        (status["status"] == "not_running").then_some(status)
    })
    .await;
    assert_eq!(status["installation"]["lag_rows"], 1);
    assert!(status["lag_seconds"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn it_says_what_every_listener_was_sent() {
    let (edge, issuer) = with_issuer().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let position = edge.heads().last().unwrap().head.position();
    edge.set_listeners(12, position);
    let status = eventually("the hub's listeners", 5, async || {
        let status = ask(&issuer, &token).await;
        (status["installation"]["listeners"]["seq"] == position.1).then_some(status)
    })
    .await;
    let listeners = &status["installation"]["listeners"];
    assert_eq!((&listeners["count"], &listeners["epoch"]), (&12.into(), &position.0.into()));
    let at = listeners["acknowledged_at"].as_str().unwrap().to_owned();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let again = ask(&issuer, &token).await;
    assert_eq!(
        again["installation"]["listeners"]["acknowledged_at"], at,
        "when that came, not when it was last said"
    );
}
