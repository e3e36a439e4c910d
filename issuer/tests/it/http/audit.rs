//! `/api/v1/audit`.

use std::collections::BTreeSet;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::support::issuer::{agent_body, envelope};
use crate::support::{Client, ISSUER, Issuer};

async fn get(issuer: &Issuer, token: &str, path: &str) -> Response {
    issuer.get(path).bearer_auth(token).send().await.unwrap()
}

async fn page(issuer: &Issuer, token: &str, query: &str) -> Value {
    let response = get(issuer, token, &format!("/api/v1/audit?{query}")).await;
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{query}: {body}");
    body
}

async fn items(issuer: &Issuer, token: &str, query: &str) -> Vec<Value> {
    page(issuer, token, query).await["items"].as_array().unwrap().clone()
}

/// What distinguishes events: action and target.
fn actions(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["action"].as_str().unwrap()).collect()
}

/// Another tenant's administrator, which may read its audit log.
async fn other_reader(issuer: &Issuer) -> Client {
    let other = issuer.other_tenant().await;
    issuer
        .database
        .execute("update agents set scopes = scopes || '{audit:read}' where email = 'other@example.com'")
        .await;
    other
}

#[tokio::test]
async fn who_acts_sees_it_at_once() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    for _ in 0..5 {
        let request = issuer.post("/api/v1/agents").bearer_auth(&token).json(&agent_body(&[]));
        let response =
            request.header("x-request-id", "find-me").header("user-agent", "me/1").send().await.unwrap();
        let agent: Value = response.json().await.unwrap();
        let id = agent["agent_id"].as_str().unwrap();
        let found = items(&issuer, &token, &format!("target_type=agent&target_id={id}")).await;
        assert_eq!(found.len(), 1, "{found:?}");
        let event = &found[0];
        let expected = json!({
            "event_id": event["event_id"], "seq": event["seq"], "tenant_id": issuer.administrator.tenant,
            "occurred_at": event["occurred_at"], "recorded_at": event["recorded_at"], "actor": issuer.administrator.id,
            "action": "agent.created", "outcome": "success", "target_type": "agent", "target_id": id, "request_id": "find-me",
            "client_ip": "127.0.0.1", "user_agent": "me/1", "details": {}, "hash": event["hash"],
        });
        assert_eq!(event, &expected);
        assert_eq!(event["hash"].as_str().unwrap().len(), 64);
        let time = event["occurred_at"].as_str().unwrap();
        assert!(time.len() == "2026-11-21T07:00:00.123456Z".len() && time.ends_with('Z'), "{time}");

        let path = format!("/api/v1/audit/{}", event["event_id"].as_str().unwrap());
        let read = get(&issuer, &token, &path).await;
        assert_eq!(read.headers()["cache-control"], "no-store");
        assert_eq!(&read.json::<Value>().await.unwrap(), event);
    }
}

#[tokio::test]
async fn every_filter_filters_and_they_go_together() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let client = issuer.new_client(&["orders:read"]).await;
    let access = issuer.token(&client).await;
    issuer.revoke(&client, &access).await;
    let wrong = Client { secret: issuer.administrator.secret.clone(), ..client.clone() };
    issuer.oauth("token", &wrong, &[("grant_type", "client_credentials")]).await;

    let all = items(&issuer, &token, "limit=100").await;
    assert_eq!(
        actions(&all)[..3],
        ["client.authentication_failed", "token.revoked", "token.issued"],
        "the newest first"
    );
    assert_eq!(*actions(&all).last().unwrap(), "system.bootstrapped");
    let times: Vec<&str> = all.iter().map(|item| item["occurred_at"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|one, two| one >= two));

    let expect = async |query: &str, holds: &dyn Fn(&Value) -> bool| {
        let expected: Vec<Value> = all.iter().filter(|item| holds(item)).cloned().collect();
        assert!(!expected.is_empty() && expected.len() < all.len(), "{query} tells something");
        assert_eq!(items(&issuer, &token, &format!("limit=100&{query}")).await, expected, "{query}");
    };
    expect("action=token.issued", &|item| item["action"] == "token.issued").await;
    expect("action=agent.created", &|item| item["action"] == "agent.created").await;
    expect("outcome=failure", &|item| item["outcome"] == "failure").await;
    expect("outcome=success", &|item| item["outcome"] == "success").await;
    expect("target_type=token", &|item| item["target_type"] == "token").await;
    expect("target_type=credential", &|item| item["target_type"] == "credential").await;
    expect(&format!("target_id={}", client.id), &|item| item["target_id"] == client.id.as_str()).await;
    expect(&format!("actor={}", client.id), &|item| item["actor"] == client.id.as_str()).await;
    expect(&format!("actor={}&action=token.revoked", client.id), &|item| item["action"] == "token.revoked")
        .await;
    let middle = times[2];
    expect(&format!("from={middle}"), &|item| item["occurred_at"].as_str().unwrap() >= middle).await;
    expect(&format!("to={middle}"), &|item| item["occurred_at"].as_str().unwrap() < middle).await;
    let oldest = times[times.len() - 2];
    let between = |item: &Value| (oldest..middle).contains(&item["occurred_at"].as_str().unwrap());
    expect(&format!("from={oldest}&to={middle}"), &between).await;
    for nothing in [
        "from=2999-01-01T00:00:00Z",
        "to=1999-12-31T23:00:00-01:00",
        "target_id=nobody",
        "action=audit.pruned",
    ] {
        assert!(items(&issuer, &token, nothing).await.is_empty(), "{nothing}");
    }
}

#[tokio::test]
async fn pages_hold_still_while_events_come() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    for _ in 0..24 {
        issuer.token(&issuer.administrator).await;
    }
    let all = items(&issuer, &token, "limit=100").await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let part = page(&issuer, &token, &format!("limit=7{cursor}")).await;
        seen.extend(part["items"].as_array().unwrap().clone());
        assert!(part["items"].as_array().unwrap().len() <= 7);
        issuer.token(&issuer.administrator).await;
        let Some(next) = part["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, all, "none twice, none missing, none new");
}

#[tokio::test]
async fn what_is_wrong_with_a_query_is_named() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let query = "from=yesterday&to=2026-13-01T00:00:00Z&actor=me&action=agent.eaten&target_type=moon&target_id=&outcome=maybe\
                 &limit=101&cursor=x&tenant_id=x";
    for path in ["/api/v1/audit", "/api/v1/audit/export"] {
        let response = get(&issuer, &token, &format!("{path}?{query}")).await;
        let (status, code, details) = envelope(response).await;
        assert_eq!((status, code.as_str()), (400, "VALIDATION_ERROR"));
        let fields: BTreeSet<&str> = details["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| field["field"].as_str().unwrap())
            .collect();
        let expected = [
            "from",
            "to",
            "actor",
            "action",
            "target_type",
            "target_id",
            "outcome",
            "limit",
            "cursor",
            "tenant_id",
        ];
        assert_eq!(fields, BTreeSet::from(expected), "{path}");
    }
    let twice = get(&issuer, &token, "/api/v1/audit?limit=1&limit=1").await;
    assert_eq!(envelope(twice).await.1, "VALIDATION_ERROR");
}

#[tokio::test]
async fn an_event_that_is_not_there_is_not_found() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let response = get(&issuer, &token, "/api/v1/audit/01a1fce7-9dfb-774b-8048-d159e26af37b").await;
    assert_eq!(envelope(response).await, (404, "AUDIT_EVENT_NOT_FOUND".into(), json!({})));
    for id in ["1", "%ff", "01A1FCE7-9DFB-774B-8048-D159E26AF37B"] {
        let response = get(&issuer, &token, &format!("/api/v1/audit/{id}")).await;
        assert_eq!(envelope(response).await.1, "MALFORMED_REQUEST", "{id}");
    }
}

#[tokio::test]
async fn reading_takes_the_scope() {
    let issuer = Issuer::start().await;
    let token = issuer.scoped_token("agents:read").await;
    for path in
        ["/api/v1/audit", "/api/v1/audit/export", "/api/v1/audit/01a1fce7-9dfb-774b-8048-d159e26af37b"]
    {
        assert_eq!(envelope(get(&issuer, &token, path).await).await.1, "INSUFFICIENT_SCOPE", "{path}");
        assert_eq!(envelope(issuer.get(path).send().await.unwrap()).await.1, "UNAUTHORIZED", "{path}");
    }
}

#[tokio::test]
async fn a_tenant_sees_its_own_and_the_platform_the_installation_s() {
    let issuer = Issuer::start().await;
    let other = other_reader(&issuer).await;
    let ours = issuer.management_token(&issuer.administrator).await;
    let theirs =
        issuer.grant(&other, &[("resource", ISSUER)]).await["access_token"].as_str().unwrap().to_owned();
    // A failure of theirs, one of ours, and one of nobody.
    let wrong = |client: &Client| Client { secret: format!("{}x", &client.secret[..62]), ..client.clone() };
    let nobody = Client { id: "00000000-0000-4000-8000-000000000000".into(), ..other.clone() };
    for client in [&wrong(&other), &wrong(&issuer.administrator), &nobody] {
        issuer.oauth("token", client, &[("grant_type", "client_credentials")]).await;
    }

    let (our_events, their_events) =
        (items(&issuer, &ours, "limit=100").await, items(&issuer, &theirs, "limit=100").await);
    assert!(their_events.iter().all(|item| item["tenant_id"] == other.tenant.as_str()), "{their_events:?}");
    assert_eq!(actions(&their_events)[..2], ["client.authentication_failed", "token.issued"]);
    let tenants: BTreeSet<Option<&str>> = our_events.iter().map(|item| item["tenant_id"].as_str()).collect();
    assert_eq!(tenants, BTreeSet::from([None, Some(issuer.administrator.tenant.as_str())]));
    let unowned: Vec<&Value> = our_events.iter().filter(|item| item["tenant_id"].is_null()).collect();
    assert!(unowned.iter().any(|item| item["target_id"] == nobody.id.as_str()), "{unowned:?}");

    // Neither by id, nor by a cursor of the other's, nor by export.
    for event in &our_events {
        let path = format!("/api/v1/audit/{}", event["event_id"].as_str().unwrap());
        assert_eq!(envelope(get(&issuer, &theirs, &path).await).await.1, "AUDIT_EVENT_NOT_FOUND");
        assert_eq!(get(&issuer, &ours, &path).await.status(), StatusCode::OK);
    }
    let path = format!("/api/v1/audit/{}", their_events[0]["event_id"].as_str().unwrap());
    assert_eq!(
        envelope(get(&issuer, &ours, &path).await).await.1,
        "AUDIT_EVENT_NOT_FOUND",
        "the platform's neither"
    );
    let cursor = page(&issuer, &ours, "limit=1").await["next_cursor"].as_str().unwrap().to_owned();
    for item in items(&issuer, &theirs, &format!("cursor={cursor}")).await {
        assert_eq!(item["tenant_id"], other.tenant.as_str());
    }
    let export = get(&issuer, &theirs, "/api/v1/audit/export").await.text().await.unwrap();
    assert!(export.lines().count() >= 2 && !export.contains(&issuer.administrator.tenant), "{export}");
}

#[tokio::test]
async fn an_export_has_every_event_and_is_written_down() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let (tenant, agent) = (&issuer.administrator.tenant, &issuer.administrator.id);
    // More than are read at once.
    issuer
        .database
        .execute(&format!(
            "insert into audit_queue (event_id, occurred_at, tenant_id, actor_agent_id, action, outcome, target_type, target_id, details)
             select ('01000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, '2005-01-01', '{tenant}', '{agent}', 'token.issued', 'success',
                    'token', n::text, '{{\"n\": 1.0}}' from generate_series(1, 1234) n"
        ))
        .await;
    let response = get(&issuer, &token, "/api/v1/audit/export").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let text = response.text().await.unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: BTreeSet<&str> = lines.iter().map(|line| line["event_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), lines.len());
    let count: i64 = issuer.database.value("select count(*) from audit_events").await;
    assert!(lines.len() > 1234 && i64::try_from(lines.len()).unwrap() <= count, "{} of {count}", lines.len());
    assert_eq!(lines.last().unwrap()["target_id"], "1");

    let exported =
        get(&issuer, &token, "/api/v1/audit/export?to=2005-01-02T00:00:00Z&action=token.issued").await;
    assert_eq!(exported.text().await.unwrap().lines().count(), 1234);
    let audit = issuer.database.audit("audit.exported").await;
    assert_eq!(
        (audit.len(), &audit[1]["action"], &audit[1]["actor"]),
        (2, &json!("token.issued"), &json!(agent))
    );
}
