//! `/api/v1/agents/{agent_id}/credentials`.

use std::time::Duration;

use countersign_issuer::domain::scope::MANAGEMENT;
use reqwest::StatusCode;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::issuer::{agent_body, envelope, oauth_error};
use crate::support::keys::Key;
use crate::support::{Client, Issuer, eventually};

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
    let expected = [
        "client_id",
        "client_secret",
        "created_at",
        "credential_id",
        "expires_at",
        "kind",
        "last_used_at",
        "name",
        "previous_expires_at",
        "revoked_at",
        "rotated_at",
        "status",
        "updated_at",
    ];
    assert_eq!(names, expected);
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
    let beyond: Vec<&str> = MANAGEMENT.into_iter().filter(|scope| *scope != "credentials:write").collect();
    assert_eq!(details["scopes"], json!(beyond));
}

/// An agent with one client secret: the path of its credentials, the credential, a management token.
async fn with_secret(issuer: &Issuer, scopes: &[&str]) -> (String, Value, String) {
    let token = issuer.management_token(&issuer.administrator).await;
    let agent = issuer.register(&token, &agent_body(scopes)).await;
    let path = format!("/api/v1/agents/{}/credentials", agent["agent_id"].as_str().unwrap());
    let credential = post(issuer, &path, &token, &json!({"name": "first"}), 201).await;
    (path, credential, token)
}

async fn post(issuer: &Issuer, path: &str, token: &str, body: &Value, expected: u16) -> Value {
    let response = issuer.post(path).bearer_auth(token).json(body).send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert_eq!(status, expected, "{path}: {body}");
    body
}

async fn get(issuer: &Issuer, path: &str, token: &str) -> Value {
    let response = issuer.get(path).bearer_auth(token).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.json().await.unwrap()
}

fn id(credential: &Value) -> &str {
    credential["credential_id"].as_str().unwrap()
}

async fn is_refused(issuer: &Issuer, client: &Client) -> bool {
    let response = issuer.oauth("token", client, &[("grant_type", "client_credentials")]).await;
    match response.status() {
        StatusCode::OK => false,
        StatusCode::UNAUTHORIZED => true,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn rotates_with_overlap() {
    let issuer = Issuer::start().await;
    let (path, credential, token) = with_secret(&issuer, &["orders:read"]).await;
    let one = format!("{path}/{}", id(&credential));
    let old = Client::from_json(&credential);
    let before = issuer.token(&old).await;
    let rotated = post(&issuer, &format!("{one}/rotate"), &token, &json!({"overlap_seconds": 2}), 200).await;
    assert_eq!(rotated["credential_id"], credential["credential_id"]);
    assert!(rotated["previous_expires_at"].is_string() && rotated["rotated_at"].is_string());
    let new = Client::from_json(&rotated);
    assert_ne!(new.secret, old.secret);
    assert!(!is_refused(&issuer, &old).await && !is_refused(&issuer, &new).await, "both live");

    let again =
        issuer.post(&format!("{one}/rotate")).bearer_auth(&token).json(&json!({})).send().await.unwrap();
    let (status, code, details) = envelope(again).await;
    assert_eq!((status, code.as_str()), (409, "ROTATION_IN_PROGRESS"));
    assert_eq!(details["previous_expires_at"], rotated["previous_expires_at"]);

    let newest = post(
        &issuer,
        &format!("{one}/rotate"),
        &token,
        &json!({"overlap_seconds": 2, "end_previous": true}),
        200,
    )
    .await;
    let newest = Client::from_json(&newest);
    assert!(is_refused(&issuer, &old).await, "of three the oldest is dead");
    assert!(!is_refused(&issuer, &new).await && !is_refused(&issuer, &newest).await);
    tokio::time::sleep(Duration::from_millis(3100)).await;
    assert!(is_refused(&issuer, &new).await, "the overlap is over");
    assert!(!is_refused(&issuer, &newest).await);
    assert_eq!(get(&issuer, &one, &token).await["previous_expires_at"], Value::Null);
    assert!(
        issuer.is_active(&issuer.administrator, &before).await,
        "tokens end with the credential, not with a secret"
    );

    // Without overlap the old one dies at once; by default it lives for a day.
    let last = post(&issuer, &format!("{one}/rotate"), &token, &json!({"overlap_seconds": 0}), 200).await;
    assert_eq!(last["previous_expires_at"], Value::Null);
    assert!(is_refused(&issuer, &newest).await);
    let day = post(&issuer, &format!("{one}/rotate"), &token, &json!({}), 200).await;
    let until = OffsetDateTime::parse(day["previous_expires_at"].as_str().unwrap(), &Rfc3339).unwrap();
    assert!((until - OffsetDateTime::now_utc() - Duration::from_hours(24)).abs() < Duration::from_secs(5));

    for (body, field) in [
        (json!({"overlap_seconds": 2_592_001}), "overlap_seconds"),
        (json!({"overlap_seconds": -1}), "overlap_seconds"),
        (json!({"overlap_seconds": 1.5}), "overlap_seconds"),
        (json!({"end_previous": "yes"}), "end_previous"),
        (json!({"end_previous": true, "public_jwk": Key::new("EdDSA").jwk}), "public_jwk"),
    ] {
        let response =
            issuer.post(&format!("{one}/rotate")).bearer_auth(&token).json(&body).send().await.unwrap();
        let (status, code, details) = envelope(response).await;
        assert_eq!((status, code.as_str()), (400, "VALIDATION_ERROR"), "{body}");
        assert_eq!(details["fields"][0]["field"], field);
    }
    let audit = issuer.database.audit("credential.rotated").await;
    assert_eq!(audit.len(), 4);
    assert_eq!((&audit[1]["ended_previous"], &audit[1]["overlap_seconds"]), (&json!(true), &json!(2)));
    assert!(!json!(audit).to_string().contains("csk_") && !issuer.whole_log().await.contains("csk_"));
}

#[tokio::test]
async fn rotates_keys_and_answers_a_repeated_rotation_again() {
    let issuer = Issuer::start().await;
    let (path, secret, token) = with_secret(&issuer, &[]).await;
    let client = secret["client_id"].as_str().unwrap();
    let (old, new) = (Key::new("ES256"), Key::new("RS256"));
    let made = post(&issuer, &path, &token, &json!({"kind": "public_key", "public_jwk": old.jwk}), 201).await;
    let rotate = format!("{path}/{}/rotate", id(&made));
    let response = issuer.post(&rotate).bearer_auth(&token).json(&json!({})).send().await.unwrap();
    assert_eq!(envelope(response).await.2["fields"][0]["field"], "public_jwk");
    let rotated =
        post(&issuer, &rotate, &token, &json!({"public_jwk": new.jwk, "overlap_seconds": 60}), 200).await;
    assert_eq!(rotated["public_jwk"]["n"], new.jwk["n"]);
    for key in [&old, &new] {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", crate::support::keys::ASSERTION_TYPE),
            ("client_assertion", &key.assertion(client)),
        ];
        let response = issuer.post("/oauth2/v1/token").form(&form).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }

    // The answer with the secret got lost: sent again it comes again, and nothing is rotated twice.
    let rotate = format!("{path}/{}/rotate", id(&secret));
    let send = async || {
        let request = issuer.post(&rotate).bearer_auth(&token).header("idempotency-key", "rotation 1");
        request.json(&json!({})).send().await.unwrap().json::<Value>().await.unwrap()
    };
    let (first, second) = (send().await, send().await);
    assert_eq!(first, second);
    assert!(first["client_secret"].as_str().unwrap().starts_with("csk_"));
    assert_eq!(issuer.database.audit("credential.rotated").await.len(), 2);
}

#[tokio::test]
async fn revoking_is_final_and_ends_the_tokens_at_once() {
    let issuer = Issuer::start().await;
    let (path, credential, token) = with_secret(&issuer, &["agents:read"]).await;
    let other = post(&issuer, &path, &token, &json!({}), 201).await;
    let (client, other_client) = (Client::from_json(&credential), Client::from_json(&other));
    let (live, kept) = (issuer.token(&client).await, issuer.token(&other_client).await);
    let management = issuer.management_token(&client).await;
    let one = format!("{path}/{}", id(&credential));

    let revoked = post(&issuer, &format!("{one}/revoke"), &token, &json!({}), 200).await;
    assert_eq!(revoked["status"], "revoked");
    assert!(revoked["revoked_at"].is_string());
    assert!(!issuer.is_active(&issuer.administrator, &live).await);
    assert!(issuer.is_active(&issuer.administrator, &kept).await, "the other credential's");
    let response = issuer.get("/api/v1/agents").bearer_auth(&management).send().await.unwrap();
    assert_eq!(envelope(response).await.0, 401);
    assert!(is_refused(&issuer, &client).await && !is_refused(&issuer, &other_client).await);

    // Again, by the other name too: nothing more happens.
    let again = issuer.http.delete(format!("{}{one}", issuer.url)).bearer_auth(&token).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::OK);
    assert_eq!(again.json::<Value>().await.unwrap(), revoked);
    assert_eq!(issuer.database.audit("credential.revoked").await.len(), 1);
    let rules: i64 =
        issuer.database.value("select count(*) from revocation_outbox where rule_level = 3").await;
    assert_eq!(rules, 1, "the edge hears of it");
    let kept: i64 = issuer
        .database
        .value("select count(*) from credentials where status = 'revoked' and num_nonnulls(secret_hash, bcrypt_hash) > 0")
        .await;
    assert_eq!(kept, 0, "nothing is kept of the secret");

    for request in [
        issuer.post(&format!("{one}/rotate")).json(&json!({})),
        issuer.http.patch(format!("{}{one}", issuer.url)).header("if-match", "*").json(&json!({"name": "x"})),
    ] {
        let (status, code, _) = envelope(request.bearer_auth(&token).send().await.unwrap()).await;
        assert_eq!((status, code.as_str()), (409, "CREDENTIAL_NOT_ACTIVE"));
    }
    issuer
        .database
        .execute(&format!(
            "update credentials set expires_at = now() - interval '1 minute' where credential_id = '{}'",
            id(&other)
        ))
        .await;
    let request = issuer.post(&format!("{path}/{}/rotate", id(&other))).bearer_auth(&token).json(&json!({}));
    assert_eq!(envelope(request.send().await.unwrap()).await.1, "CREDENTIAL_NOT_ACTIVE", "expired");
}

#[tokio::test]
async fn lists_reads_and_changes() {
    let issuer = Issuer::start().await;
    let (path, first, token) = with_secret(&issuer, &[]).await;
    for n in 2..=5 {
        post(&issuer, &path, &token, &json!({"name": format!("number {n}")}), 201).await;
    }
    post(&issuer, &format!("{path}/{}/revoke", id(&first)), &token, &json!({}), 200).await;

    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = get(&issuer, &format!("{path}?limit=2{cursor}"), &token).await;
        assert!(!page.to_string().contains("csk_") && !page.to_string().contains("hash"), "{page}");
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["name"].clone()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(json!(seen), json!(["first", "number 2", "number 3", "number 4", "number 5"]));
    let revoked = get(&issuer, &format!("{path}?status=revoked"), &token).await;
    assert_eq!(revoked["items"].as_array().unwrap().len(), 1);
    assert_eq!(get(&issuer, &format!("{path}?status=expired"), &token).await["items"], json!([]));
    let active = get(&issuer, &format!("{path}?status=active"), &token).await;
    assert_eq!(active["items"].as_array().unwrap().len(), 4);
    let response = issuer.get(&format!("{path}?status=dead&x=1")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(envelope(response).await.2["fields"].as_array().unwrap().len(), 2);

    let second = &active["items"][0];
    let one = format!("{path}/{}", id(second));
    let response = issuer.get(&one).bearer_auth(&token).send().await.unwrap();
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(response.json::<Value>().await.unwrap(), *second);
    let fresh = issuer.get(&one).bearer_auth(&token).header("if-none-match", &etag).send().await.unwrap();
    assert_eq!(fresh.status(), StatusCode::NOT_MODIFIED);

    let change = |etag: Option<&str>, body: Value| {
        let request = issuer.http.patch(format!("{}{one}", issuer.url)).bearer_auth(&token).json(&body);
        match etag {
            Some(etag) => request.header("if-match", etag),
            None => request,
        }
    };
    let (status, code, _) = envelope(change(None, json!({"name": "x"})).send().await.unwrap()).await;
    assert_eq!((status, code.as_str()), (428, "PRECONDITION_REQUIRED"));
    let changed = change(Some(&etag), json!({"name": "blue", "expires_at": "2030-01-01T00:00:00Z"}))
        .send()
        .await
        .unwrap();
    assert_eq!(changed.status(), StatusCode::OK);
    assert_ne!(changed.headers()["etag"].to_str().unwrap(), etag);
    let changed: Value = changed.json().await.unwrap();
    assert_eq!((&changed["name"], &changed["expires_at"]), (&json!("blue"), &json!("2030-01-01T00:00:00Z")));
    let (status, code, _) = envelope(change(Some(&etag), json!({"name": "x"})).send().await.unwrap()).await;
    assert_eq!((status, code.as_str()), (412, "PRECONDITION_FAILED"));
    let cleared: Value = change(Some("*"), json!({"name": null, "expires_at": null}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!((&cleared["name"], &cleared["expires_at"]), (&Value::Null, &Value::Null));
    for body in
        [json!({"name": 1}), json!({"expires_at": "2020-01-01T00:00:00Z"}), json!({"status": "active"})]
    {
        assert_eq!(envelope(change(Some("*"), body).send().await.unwrap()).await.1, "VALIDATION_ERROR");
    }
    assert_eq!(issuer.database.audit("credential.updated").await.len(), 2);
}

#[tokio::test]
async fn only_who_may_and_only_in_its_tenant() {
    let issuer = Issuer::start().await;
    let (path, credential, _) = with_secret(&issuer, &[]).await;
    let one = format!("{path}/{}", id(&credential));
    let foreign = issuer.management_token(&issuer.other_tenant().await).await;
    let reader = issuer.scoped_token("credentials:read").await;
    let writer = issuer.scoped_token("credentials:write").await;
    let delete = || issuer.http.delete(format!("{}{one}", issuer.url));
    let change = || {
        issuer.http.patch(format!("{}{one}", issuer.url)).header("if-match", "*").json(&json!({"name": "x"}))
    };
    for request in [
        issuer.get(&path),
        issuer.get(&one),
        issuer.post(&path).json(&json!({})),
        issuer.post(&format!("{one}/rotate")).json(&json!({})),
        issuer.post(&format!("{one}/revoke")),
        delete(),
        change(),
    ] {
        let (status, code, _) = envelope(request.bearer_auth(&foreign).send().await.unwrap()).await;
        assert_eq!((status, code.as_str()), (404, "AGENT_NOT_FOUND"));
    }
    for request in [issuer.get(&path), issuer.get(&one)] {
        let (status, code, _) = envelope(request.bearer_auth(&writer).send().await.unwrap()).await;
        assert_eq!((status, code.as_str()), (403, "INSUFFICIENT_SCOPE"));
    }
    for request in [
        issuer.post(&path).json(&json!({})),
        issuer.post(&format!("{one}/rotate")).json(&json!({})),
        issuer.post(&format!("{one}/revoke")),
        delete(),
        change(),
    ] {
        let (status, code, _) = envelope(request.bearer_auth(&reader).send().await.unwrap()).await;
        assert_eq!((status, code.as_str()), (403, "INSUFFICIENT_SCOPE"));
    }
    // The administrator's credential is the administrator: not for who has less.
    let token = issuer.management_token(&issuer.administrator).await;
    let path = format!("/api/v1/agents/{}/credentials", issuer.administrator.id);
    let listed = get(&issuer, &path, &token).await;
    let one = format!("{path}/{}", id(&listed["items"][0]));
    for request in [
        issuer.post(&format!("{one}/rotate")).json(&json!({})),
        issuer.post(&format!("{one}/revoke")),
        issuer.http.delete(format!("{}{one}", issuer.url)),
        issuer.http.patch(format!("{}{one}", issuer.url)).header("if-match", "*").json(&json!({"name": "x"})),
    ] {
        let (status, code, _) = envelope(request.bearer_auth(&writer).send().await.unwrap()).await;
        assert_eq!((status, code.as_str()), (403, "SCOPE_ESCALATION"));
    }
    // One agent's credential isn't found at another.
    let astray = format!("{path}/{}", id(&credential));
    let (status, code, _) = envelope(issuer.get(&astray).bearer_auth(&token).send().await.unwrap()).await;
    assert_eq!((status, code.as_str()), (404, "CREDENTIAL_NOT_FOUND"));
    let (status, code, _) =
        envelope(issuer.get(&format!("{path}/x")).bearer_auth(&token).send().await.unwrap()).await;
    assert_eq!((status, code.as_str()), (400, "MALFORMED_REQUEST"));
}

#[tokio::test]
async fn an_agent_has_twenty_live_ones_at_most() {
    let issuer = Issuer::start().await;
    let (path, first, token) = with_secret(&issuer, &[]).await;
    for _ in 2..=20 {
        post(&issuer, &path, &token, &json!({}), 201).await;
    }
    let refused = issuer.post(&path).bearer_auth(&token).json(&json!({})).send().await.unwrap();
    assert_eq!(envelope(refused).await, (409, "CREDENTIAL_LIMIT_REACHED".into(), json!({"limit": 20})));
    post(&issuer, &format!("{path}/{}/revoke", id(&first)), &token, &json!({}), 200).await;
    post(&issuer, &path, &token, &json!({}), 201).await;

    let (path, _, token) = with_secret(&issuer, &[]).await;
    let body = json!({"kind": "bcrypt_hash", "bcrypt_hash": bcrypt::hash("x", 4).unwrap()});
    for _ in 1..=3 {
        post(&issuer, &path, &token, &body, 201).await;
    }
    let refused = issuer.post(&path).bearer_auth(&token).json(&body).send().await.unwrap();
    assert_eq!(envelope(refused).await, (409, "CREDENTIAL_LIMIT_REACHED".into(), json!({"limit": 3})));
}

#[tokio::test]
async fn the_last_use_is_written_in_batches() {
    let mut issuer = Issuer::start().await;
    let (path, credential, _) = with_secret(&issuer, &[]).await;
    let client = Client::from_json(&credential);
    for _ in 0..20 {
        issuer.token(&client).await;
    }
    let written: i64 = issuer.database.value("select count(*) from credential_uses").await;
    assert_eq!(written, 0, "not while a request waits");
    assert!(issuer.stop().success());
    let issuer = Issuer::start_on(issuer.database.clone(), issuer.administrator.clone(), |cli| cli).await;
    let token = issuer.management_token(&issuer.administrator).await;
    let listed = get(&issuer, &path, &token).await;
    let used = listed["items"][0]["last_used_at"].as_str().unwrap();
    let used = OffsetDateTime::parse(used, &Rfc3339).unwrap();
    assert!((OffsetDateTime::now_utc() - used).abs() < Duration::from_mins(1));
    let versions: i64 = issuer
        .database
        .value("select n_tup_ins + n_tup_upd from pg_stat_user_tables where relname = 'credential_uses'")
        .await;
    assert!(versions <= 2, "one row for each credential, written once: {versions}");

    issuer.database.execute("update credential_uses set last_used_at = now() - interval '1 hour'").await;
    issuer.token(&client).await;
    eventually("a use is written while it runs", 15, async || {
        let listed = get(&issuer, &path, &token).await;
        let used =
            OffsetDateTime::parse(listed["items"][0]["last_used_at"].as_str().unwrap(), &Rfc3339).unwrap();
        (OffsetDateTime::now_utc() - used < Duration::from_mins(1)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn at_the_command_line() {
    let issuer = Issuer::start().await;
    let (_, credential, _) = with_secret(&issuer, &[]).await;
    let agent = credential["client_id"].as_str().unwrap();
    let cli = crate::support::cli::Cli::new(&issuer.database.url);
    let json_of = |arguments: &[&str]| -> Value {
        let all = [&["credentials"], arguments, &["--agent", agent, "--json"]].concat();
        serde_json::from_str(&cli.run(&all).expect_success()).unwrap()
    };
    let made = json_of(&["create", "--name", "cli", "--expires-at", "2030-01-01T00:00:00Z"]);
    assert_eq!((&made["name"], &made["expires_at"]), (&json!("cli"), &json!("2030-01-01T00:00:00Z")));
    let client = Client::from_json(&made);
    eventually("the issuer takes it", 2, async || (!is_refused(&issuer, &client).await).then_some(())).await;

    let rotated = json_of(&["rotate", id(&made), "--overlap-seconds", "60"]);
    assert!(rotated["client_secret"].as_str().unwrap().starts_with("csk_"));
    let again = cli.run(&["credentials", "rotate", id(&made), "--agent", agent]);
    assert!(again.expect_failure().contains("rotated already"), "{}", again.expect_failure());

    let directory = std::env::temp_dir().join(format!("countersign-{}-{agent}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (jwk, hash) = (directory.join("key.json"), directory.join("hash"));
    std::fs::write(&jwk, Key::new("ES256").jwk.to_string()).unwrap();
    std::fs::write(&hash, bcrypt::hash("x", 4).unwrap() + "\n").unwrap();
    assert_eq!(json_of(&["create", "--public-jwk", jwk.to_str().unwrap()])["kind"], "public_key");
    assert_eq!(json_of(&["create", "--bcrypt-hash-file", hash.to_str().unwrap()])["kind"], "bcrypt_hash");
    std::fs::write(&jwk, r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA","d":"AAAA"}"#).unwrap();
    let private =
        cli.run(&["credentials", "create", "--agent", agent, "--public-jwk", jwk.to_str().unwrap()]);
    assert!(private.expect_failure().contains("private"), "{}", private.expect_failure());
    std::fs::remove_dir_all(&directory).unwrap();

    assert_eq!(json_of(&["revoke", id(&made)])["status"], "revoked");
    eventually("the issuer refuses it", 2, async || is_refused(&issuer, &client).await.then_some(())).await;
    assert_eq!(json_of(&["list"])["items"].as_array().unwrap().len(), 4);
    let table = cli.run(&["credentials", "list", "--agent", agent, "--status", "revoked"]).expect_success();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.starts_with("CREDENTIAL_ID") && table.contains("revoked") && !table.contains("csk_"));
    let text = cli.run(&["credentials", "create", "--agent", agent]).expect_success();
    assert!(text.contains("client_secret") && text.contains("shown this once"), "{text}");
    let help = cli.run(&["credentials", "--help"]).expect_success();
    assert!(help.contains("Examples:"), "{help}");
    let unknown = cli.run(&["credentials", "list", "--agent", "00000000-0000-4000-8000-000000000000"]);
    assert!(unknown.expect_failure().contains("no agent"));
    issuer.database.sealed().await;
    let actor: i64 = issuer
        .database
        .value(
            "select count(*) from audit_events where action like 'credential.%' and actor_agent_id is null",
        )
        .await;
    assert_eq!(actor, 6, "the operator is nobody's agent");
}
