//! `Idempotency-Key`.

use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::Issuer;
use crate::support::issuer::{agent_body, envelope};

fn keyed(issuer: &Issuer, token: &str, key: &str, body: &Value) -> RequestBuilder {
    issuer.post("/api/v1/agents").bearer_auth(token).header("idempotency-key", key).json(body)
}

async fn agents(issuer: &Issuer) -> i64 {
    issuer.database.value("select count(*) from agents").await
}

/// What must be the same byte for byte.
async fn parts(response: Response) -> (StatusCode, String, String, String, String) {
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    let (location, etag, content_type) = (header("location"), header("etag"), header("content-type"));
    (response.status(), location, etag, content_type, response.text().await.unwrap())
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let body = agent_body(&["orders:read"]);
    let before = agents(&issuer).await;
    let first = keyed(&issuer, &token, "one", &body).send().await.unwrap();
    assert!(!first.headers().contains_key("idempotency-replayed"));
    let first = parts(first).await;
    assert_eq!(first.0, StatusCode::CREATED);
    // Another token of the same agent is the same caller; a change since doesn't change the answer.
    issuer.database.execute("update agents set version = '9' where email like 'agent-%'").await;
    let token = issuer.management_token(&issuer.administrator).await;
    let again = keyed(&issuer, &token, "one", &body).send().await.unwrap();
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(parts(again).await, first);
    assert_eq!(agents(&issuer).await, before + 1);
    assert_eq!(issuer.database.audit("agent.created").await.len(), 1);
    // Without the scope there is no answer, kept or not.
    let narrow = issuer.scoped_token("agents:read").await;
    let response = keyed(&issuer, &narrow, "one", &body).send().await.unwrap();
    assert_eq!(envelope(response).await.1, "INSUFFICIENT_SCOPE");
}

#[tokio::test]
async fn a_key_is_for_one_request_of_one_agent() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let body = agent_body(&[]);
    keyed(&issuer, &token, "one", &body).send().await.unwrap().error_for_status().unwrap();
    for other in [agent_body(&[]), json!({})] {
        let response = keyed(&issuer, &token, "one", &other).send().await.unwrap();
        let expected = if other == json!({}) { "VALIDATION_ERROR" } else { "IDEMPOTENCY_KEY_REUSED" };
        let (status, code, _) = envelope(response).await;
        assert_eq!((status, code.as_str()), (if other == json!({}) { 400 } else { 422 }, expected));
    }
    // Another agent's key of the same name is another key, also in the same tenant.
    let colleague = issuer.new_client(&["agents:read", "agents:write"]).await;
    let theirs = issuer.management_token(&colleague).await;
    let response = keyed(&issuer, &theirs, "one", &agent_body(&[])).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let other = issuer.other_tenant().await;
    let theirs = issuer.management_token(&other).await;
    let response = keyed(&issuer, &theirs, "one", &body).send().await.unwrap();
    assert!(!response.headers().contains_key("idempotency-replayed"));
    assert_eq!(response.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_request_that_fails_keeps_nothing() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let mut body = agent_body(&[]);
    body["email"] = json!("taken@example.com");
    let occupied = issuer.register(&token, &body).await;
    let response = keyed(&issuer, &token, "one", &body).send().await.unwrap();
    assert_eq!(envelope(response).await.1, "AGENT_ALREADY_EXISTS");
    let kept: i64 = issuer.database.value("select count(*) from idempotency_keys").await;
    assert_eq!(kept, 0);
    let id = occupied["agent_id"].as_str().unwrap();
    issuer
        .database
        .execute(&format!("update agents set email = 'free@example.com' where agent_id = '{id}'"))
        .await;
    let response = keyed(&issuer, &token, "one", &body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn keys_are_printable_and_bounded() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    for key in ["", "a\tb", "é", &"k".repeat(256)] {
        let response = keyed(&issuer, &token, key, &agent_body(&[])).send().await.unwrap();
        let (status, code, details) = envelope(response).await;
        assert_eq!((status, code.as_str()), (400, "VALIDATION_ERROR"), "{key}");
        assert_eq!(details["fields"][0]["field"], "Idempotency-Key");
    }
    let twice = keyed(&issuer, &token, "a", &agent_body(&[])).header("idempotency-key", "b");
    assert_eq!(envelope(twice.send().await.unwrap()).await.1, "VALIDATION_ERROR");
    for key in ["\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", &"k".repeat(255), "a b'%_"] {
        let response = keyed(&issuer, &token, key, &agent_body(&[])).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED, "{key}");
    }
}

#[tokio::test]
async fn twins_at_once_are_done_once() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    for round in 0..3 {
        let body = agent_body(&[]);
        let before = agents(&issuer).await;
        let twins = (0..6).map(|_| keyed(&issuer, &token, &format!("twin{round}"), &body).send());
        let answers = futures_util::future::join_all(twins).await;
        let mut texts = Vec::new();
        let mut replayed = 0;
        for answer in answers {
            let answer = answer.unwrap();
            assert_eq!(answer.status(), StatusCode::CREATED);
            replayed += usize::from(answer.headers().contains_key("idempotency-replayed"));
            texts.push(answer.text().await.unwrap());
        }
        texts.dedup();
        assert_eq!((texts.len(), replayed, agents(&issuer).await), (1, 5, before + 1));
    }
}

#[tokio::test]
async fn a_twin_does_not_wait_for_ever() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    // A request that takes long, seen from below: its row is there and not committed.
    let mut slow = issuer.database.pool.begin().await.unwrap();
    sqlx::query(
        "insert into idempotency_keys (tenant_id, agent_id, key, fingerprint)
         select tenant_id, agent_id, 'slow', sha256('x') from agents where agent_id = $1::uuid",
    )
    .bind(&issuer.administrator.id)
    .execute(&mut *slow)
    .await
    .unwrap();
    let body = agent_body(&[]);
    let response = keyed(&issuer, &token, "slow", &body).send().await.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(envelope(response).await, (409, "IDEMPOTENCY_KEY_IN_USE".into(), json!({})));
    // It fails: the twin may have the key.
    slow.rollback().await.unwrap();
    let response = keyed(&issuer, &token, "slow", &body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn what_has_expired_does_not_count() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    keyed(&issuer, &token, "one", &agent_body(&[])).send().await.unwrap().error_for_status().unwrap();
    let hours: i64 = issuer
        .database
        .value("select round(extract(epoch from expires_at - now()) / 3600)::bigint from idempotency_keys")
        .await;
    assert_eq!(hours, 24);
    issuer.database.execute("update idempotency_keys set expires_at = now()").await;
    let response = keyed(&issuer, &token, "one", &agent_body(&[])).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert!(!response.headers().contains_key("idempotency-replayed"));
    let kept: i64 =
        issuer.database.value("select count(*) from idempotency_keys where expires_at > now()").await;
    assert_eq!(kept, 1, "the old row's place was occupied");
}

#[tokio::test]
async fn kept_answers_are_sealed_and_stay_in_their_rows() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let body = agent_body(&[]);
    keyed(&issuer, &token, "one", &body).send().await.unwrap().error_for_status().unwrap();
    let other = agent_body(&[]);
    keyed(&issuer, &token, "two", &other).send().await.unwrap().error_for_status().unwrap();
    let row: String = issuer
        .database
        .value("select encode(sealed_answer, 'escape') from idempotency_keys where key = 'one'")
        .await;
    for word in ["agent_id", "example.com", "screener", "status"] {
        assert!(!row.contains(word), "{row}");
    }
    // Somebody else's answer, moved here with its fingerprint, doesn't open.
    issuer
        .database
        .execute(
            "update idempotency_keys o set sealed_answer = t.sealed_answer, fingerprint = t.fingerprint
                  from idempotency_keys t where o.key = 'one' and t.key = 'two'",
        )
        .await;
    let response = keyed(&issuer, &token, "one", &other).send().await.unwrap();
    assert_eq!(envelope(response).await.1, "INTERNAL_ERROR");
    let line = issuer.logged("idempotency_keys").await;
    assert!(line.contains("changed or moved"), "{line}");
}

/// Whatever creates takes a key, and of many requests with one at once one creates.
#[tokio::test]
async fn every_call_that_creates_takes_one() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let description = issuer.get("/openapi.json").send().await.unwrap().json::<Value>().await.unwrap();
    let made = async |path: &str, body: &Value| -> Value {
        let response = issuer.post(path).bearer_auth(&token).json(body).send().await.unwrap();
        response.error_for_status().unwrap().json().await.unwrap()
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let agent = text(&made("/api/v1/agents", &agent_body(&[])).await["agent_id"]);
    let credential = made(&format!("/api/v1/agents/{agent}/credentials"), &json!({})).await;
    let credential = text(&credential["credential_id"]);
    let tenant = text(&made("/api/v1/tenants", &json!({ "name": "Acme" })).await["tenant_id"]);
    let calls = [
        ("/api/v1/agents", agent_body(&[])),
        ("/api/v1/agents/{agent_id}/credentials", json!({ "name": "second" })),
        ("/api/v1/agents/{agent_id}/credentials/{credential_id}/rotate", json!({})),
        ("/api/v1/resource-servers", json!({ "identifier": "https://orders.example" })),
        ("/api/v1/tenants", json!({ "name": "Other" })),
        ("/api/v1/tenants/{tenant_id}/administrators", json!({ "email": "root@acme.example" })),
    ];

    let paths = description["paths"].as_object().unwrap();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            let creates = operation["responses"].get("201").is_some() || path.ends_with("/rotate");
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let takes_one = parameters.into_iter().any(|parameter| parameter["name"] == "Idempotency-Key");
            assert_eq!(creates, takes_one, "{method} {path}");
            assert_eq!(creates, calls.iter().any(|(called, _)| called == path) && method == "post", "{path}");
        }
    }

    for (path, body) in calls {
        let url = path
            .replace("{agent_id}", &agent)
            .replace("{credential_id}", &credential)
            .replace("{tenant_id}", &tenant);
        let key = path.replace('/', "-");
        let answers = futures_util::future::join_all((0..5).map(|_| {
            issuer.post(&url).bearer_auth(&token).header("idempotency-key", &key).json(&body).send()
        }))
        .await;
        let mut texts = Vec::new();
        let mut replayed = 0;
        for answer in answers {
            let answer = answer.unwrap();
            assert!(answer.status().is_success(), "{path}: {}", answer.status());
            replayed += usize::from(answer.headers().contains_key("idempotency-replayed"));
            texts.push(answer.text().await.unwrap());
        }
        texts.dedup();
        assert_eq!((texts.len(), replayed), (1, 4), "{path}");
    }
}
