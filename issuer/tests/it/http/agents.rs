//! `/api/v1/agents`.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::issuer::{agent_body, envelope};
use crate::support::{ISSUER, Issuer};

#[tokio::test]
async fn registers_and_reads() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let body = json!({
        "email": "Screener@example.com", "agent_type": "screener", "version": "1.0.0", "capabilities": ["read", "flag"],
        "owner": "risk", "deployment_env": "production", "scopes": ["orders:read", "agents:read"], "metadata": {"team": "a"},
    });
    let response = issuer.post("/api/v1/agents").bearer_auth(&token).json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let created: Value = response.json().await.unwrap();

    let id = created["agent_id"].as_str().unwrap();
    assert_eq!(location, format!("{ISSUER}/api/v1/agents/{id}"));
    let now = created["created_at"].clone();
    assert!(now.as_str().unwrap().ends_with('Z') && now.as_str().unwrap().len() == 20, "{now}");
    let mut expected = body;
    for (name, value) in [
        ("agent_id", json!(id)),
        ("tenant_id", json!(issuer.administrator.tenant)),
        ("status", json!("active")),
        ("created_at", now.clone()),
        ("updated_at", now),
        ("scopes", json!(["agents:read", "orders:read"])),
    ] {
        expected[name] = value;
    }
    assert_eq!(created, expected);

    let read = issuer.get(&format!("/api/v1/agents/{id}")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(read.status(), StatusCode::OK);
    assert_eq!(read.json::<Value>().await.unwrap(), created);

    let audit = issuer.database.audit("agent.created").await;
    assert_eq!(audit.len(), 1);
    assert_eq!((&audit[0]["target"], &audit[0]["actor"]), (&json!(id), &json!(issuer.administrator.id)));
}

#[tokio::test]
async fn names_everything_that_is_wrong_at_once() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let body = json!({
        "email": "no address", "agent_type": "spy", "version": "", "capabilities": "all", "owner": "a\u{0}b",
        "scopes": ["two words"], "metadata": {"a": 1}, "status": "active", "tenant_id": "x",
    });
    let response = issuer.post("/api/v1/agents").bearer_auth(&token).json(&body).send().await.unwrap();
    let (status, code, details) = envelope(response).await;
    assert_eq!((status, code.as_str()), (400, "VALIDATION_ERROR"));
    let fields: Vec<&str> =
        details["fields"].as_array().unwrap().iter().map(|field| field["field"].as_str().unwrap()).collect();
    let expected = [
        "email",
        "agent_type",
        "version",
        "capabilities",
        "owner",
        "deployment_env",
        "scopes",
        "metadata",
        "status",
        "tenant_id",
    ];
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn bounds_every_field() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let many: Vec<String> = (0..65).map(|number| format!("c{number}")).collect();
    let long_scopes: Vec<String> = (0..40).map(|number| format!("{number:0>120}")).collect();
    for (field, value) in [
        ("email", json!(format!("{}@example.com", "a".repeat(250)))),
        ("version", json!("v".repeat(65))),
        ("owner", json!(null)),
        ("capabilities", json!(many)),
        ("capabilities", json!(["same", "same"])),
        ("scopes", json!(long_scopes)),
        ("metadata", json!({"": "x"})),
        ("metadata", json!({"x": "y".repeat(513)})),
        ("deployment_env", json!("Production")),
    ] {
        let mut body = agent_body(&[]);
        body[field] = value;
        let response = issuer.post("/api/v1/agents").bearer_auth(&token).json(&body).send().await.unwrap();
        let (status, code, details) = envelope(response).await;
        assert_eq!((status, code.as_str()), (400, "VALIDATION_ERROR"), "{field}");
        assert_eq!(details["fields"].as_array().unwrap().len(), 1, "{details}");
        assert_eq!(details["fields"][0]["field"], field);
    }
}

#[tokio::test]
async fn an_email_is_taken_in_its_tenant_only() {
    let issuer = Issuer::start().await;
    let other = issuer.other_tenant().await;
    let (token, others) =
        (issuer.management_token(&issuer.administrator).await, issuer.management_token(&other).await);
    let mut body = agent_body(&[]);
    body["email"] = json!("one@example.com");
    issuer.register(&token, &body).await;
    body["email"] = json!("ONE@example.com");
    let response = issuer.post("/api/v1/agents").bearer_auth(&token).json(&body).send().await.unwrap();
    assert_eq!(envelope(response).await, (409, "AGENT_ALREADY_EXISTS".into(), json!({})));
    issuer.register(&others, &body).await;
}

#[tokio::test]
async fn nobody_hands_out_scopes_beyond_their_token() {
    let issuer = Issuer::start().await;
    let create = async |token: &str, scopes: &[&str]| {
        issuer.post("/api/v1/agents").bearer_auth(token).json(&agent_body(scopes)).send().await.unwrap()
    };
    // The administrator itself holds all; its token here doesn't.
    let narrow = issuer.scoped_token("agents:write agents:read").await;
    let (status, code, details) =
        envelope(create(&narrow, &["agents:read", "tokens:revoke", "credentials:write"]).await).await;
    assert_eq!((status, code.as_str()), (403, "SCOPE_ESCALATION"));
    assert_eq!(details, json!({"scopes": ["credentials:write", "tokens:revoke"]}));
    assert_eq!(create(&narrow, &["agents:read", "orders:write"]).await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn each_call_takes_its_scope() {
    let issuer = Issuer::start().await;
    let reader = issuer.scoped_token("agents:read").await;
    let id = &issuer.administrator.id;
    let attempts = [
        (issuer.post("/api/v1/agents").json(&agent_body(&[])), "agents:write"),
        (issuer.post(&format!("/api/v1/agents/{id}/credentials")).json(&json!({})), "credentials:write"),
    ];
    for (request, scope) in attempts {
        let response = request.bearer_auth(&reader).send().await.unwrap();
        let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert!(challenge.contains(r#"error="insufficient_scope""#), "{challenge}");
        assert!(challenge.contains(&format!(r#"scope="{scope}""#)), "{challenge}");
        let (status, code, details) = envelope(response).await;
        assert_eq!((status, code.as_str()), (403, "INSUFFICIENT_SCOPE"));
        assert_eq!(details, json!({"required_scope": scope}));
    }
    let writer = issuer.scoped_token("agents:write").await;
    let response = issuer.get(&format!("/api/v1/agents/{id}")).bearer_auth(&writer).send().await.unwrap();
    assert_eq!(envelope(response).await.1, "INSUFFICIENT_SCOPE");
}

#[tokio::test]
async fn a_token_is_required_and_must_hold() {
    let issuer = Issuer::start().await;
    let path = format!("/api/v1/agents/{}", issuer.administrator.id);
    let challenged = async |request: reqwest::RequestBuilder| {
        let response = request.send().await.unwrap();
        let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
        let (status, code, _) = envelope(response).await;
        assert_eq!((status, code.as_str()), (401, "UNAUTHORIZED"));
        challenge
    };
    assert_eq!(challenged(issuer.get(&path)).await, "Bearer");
    assert_eq!(challenged(issuer.get(&path).basic_auth("a", Some("b"))).await, "Bearer");
    assert_eq!(issuer.database.audit("token.authentication_failed").await.len(), 0, "nothing was tried");

    let for_others = issuer.token(&issuer.new_client(&[]).await).await;
    let mut tampered = issuer.management_token(&issuer.administrator).await;
    tampered.replace_range(tampered.len() - 2.., "AA");
    let revoked = issuer.management_token(&issuer.administrator).await;
    issuer.revoke(&issuer.administrator, &revoked).await;
    for (token, reason) in [
        ("garbage", "malformed"),
        (for_others.as_str(), "wrong_audience"),
        (tampered.as_str(), "bad_signature"),
        (revoked.as_str(), "revoked"),
    ] {
        let challenge = challenged(issuer.get(&path).bearer_auth(token)).await;
        assert!(challenge.starts_with(r#"Bearer error="invalid_token""#), "{challenge}");
        let audit = issuer.database.audit("token.authentication_failed").await;
        assert_eq!(audit.last().unwrap()["reason"], reason);
    }
    let audit = issuer.database.audit("token.authentication_failed").await;
    assert_eq!(audit.last().unwrap()["actor"], issuer.administrator.id, "whose revoked token it was");
}

#[tokio::test]
async fn live_state_counts_against_a_token_that_holds() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let path = format!("/api/v1/agents/{}", issuer.administrator.id);
    for (off, on) in [
        ("update agents set status = 'suspended'", "update agents set status = 'active'"),
        ("update credentials set status = 'revoked'", "update credentials set status = 'active'"),
        ("update tenants set status = 'suspended'", "update tenants set status = 'active'"),
    ] {
        issuer.database.execute(off).await;
        let response = issuer.get(&path).bearer_auth(&token).send().await.unwrap();
        assert_eq!(envelope(response).await.1, "UNAUTHORIZED", "{off}");
        issuer.database.execute(on).await;
        assert_eq!(issuer.get(&path).bearer_auth(&token).send().await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn other_tenants_agents_are_not_there() {
    let issuer = Issuer::start().await;
    let other = issuer.other_tenant().await;
    let token = issuer.management_token(&issuer.administrator).await;
    for id in [other.id.as_str(), "00000000-0000-4000-8000-000000000000"] {
        let read = issuer.get(&format!("/api/v1/agents/{id}")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(envelope(read).await, (404, "AGENT_NOT_FOUND".into(), json!({})));
        let make =
            issuer.post(&format!("/api/v1/agents/{id}/credentials")).bearer_auth(&token).json(&json!({}));
        assert_eq!(envelope(make.send().await.unwrap()).await, (404, "AGENT_NOT_FOUND".into(), json!({})));
    }
}

#[tokio::test]
async fn a_path_without_a_uuid_is_malformed() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    for id in
        ["1", "%00", "%ff", "AAAAAAAA-0000-4000-8000-000000000000", "{00000000-0000-4000-8000-000000000000}"]
    {
        let response = issuer.get(&format!("/api/v1/agents/{id}")).bearer_auth(&token).send().await.unwrap();
        let (status, code, _) = envelope(response).await;
        assert_eq!((status, code.as_str()), (400, "MALFORMED_REQUEST"), "{id}");
    }
}
