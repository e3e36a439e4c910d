//! `/api/v1/agents`.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::support::issuer::{agent_body, envelope};
use crate::support::{Client, ISSUER, Issuer};

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

/// An agent's own URL, or what hangs from it.
fn on(issuer: &Issuer, method: Method, agent: &Value, more: &str) -> RequestBuilder {
    let id = agent["agent_id"].as_str().unwrap_or_else(|| agent.as_str().unwrap());
    issuer.http.request(method, format!("{}/api/v1/agents/{id}{more}", issuer.url))
}

/// Status, entity tag and body of an answer that should be one.
async fn answered(request: RequestBuilder) -> (u16, String, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let etag = response.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
    let body: Value = response.json().await.unwrap();
    assert!((200..300).contains(&status), "{body}");
    (status, etag.unwrap_or_default(), body)
}

async fn refused(request: RequestBuilder) -> (u16, String, Value) {
    envelope(request.send().await.unwrap()).await
}

/// An agent that holds `scopes`, and a token of it with all of them.
async fn manager(issuer: &Issuer, scopes: &[&str]) -> (Client, String) {
    let client = issuer.new_client(scopes).await;
    let token = issuer.management_token(&client).await;
    (client, token)
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let mut body = agent_body(&["orders:read"]);
    body["capabilities"] = json!(["read"]);
    body["metadata"] = json!({"team": "a", "model": "small"});
    let agent = issuer.register(&token, &body).await;
    let patch = |etag: &str, body: &Value| {
        on(&issuer, Method::PATCH, &agent, "").bearer_auth(&token).header("if-match", etag).json(body)
    };

    let (_, first, _) = answered(on(&issuer, Method::GET, &agent, "").bearer_auth(&token)).await;
    assert_eq!(first, "\"1\"");
    let change = json!({"version": "2.0.0", "metadata": {"team": null, "model": "large", "note": "x"}});
    let (status, second, changed) = answered(patch(&first, &change)).await;
    assert_eq!((status, second.as_str()), (200, "\"2\""));
    let mut expected = agent.clone();
    expected["version"] = json!("2.0.0");
    expected["metadata"] = json!({"model": "large", "note": "x"});
    expected["updated_at"] = changed["updated_at"].clone();
    assert_eq!(changed, expected);
    let audit = issuer.database.audit("agent.updated").await;
    assert_eq!(audit[0]["fields"], json!(["version", "metadata"]));
    assert_eq!(audit[0]["actor"], issuer.administrator.id);

    // What changes nothing is no revision, and isn't written down.
    for nothing in [json!({}), json!({"version": "2.0.0", "metadata": {"gone": null}})] {
        let (_, etag, same) = answered(patch(&second, &nothing)).await;
        assert_eq!((etag.as_str(), &same), ("\"2\"", &changed));
    }
    assert_eq!(issuer.database.audit("agent.updated").await.len(), 1);

    // Every field; null where there may be nothing; both media types; `*` for any revision.
    let all = json!({
        "email": "New@example.com", "agent_type": "router", "version": "3", "capabilities": null, "owner": "ops",
        "deployment_env": "production", "scopes": ["orders:write"], "metadata": null,
    });
    let request = on(&issuer, Method::PATCH, &agent, "").bearer_auth(&token).header("if-match", "*");
    let request = request.header("content-type", "application/merge-patch+json").body(all.to_string());
    let (_, etag, changed) = answered(request).await;
    assert_eq!(etag, "\"3\"");
    for (name, value) in all.as_object().unwrap() {
        let empty = if name == "metadata" { json!({}) } else { json!([]) };
        assert_eq!(&changed[name], if value.is_null() { &empty } else { value }, "{name}");
    }
    let (_, _, read) = answered(on(&issuer, Method::GET, &agent, "").bearer_auth(&token)).await;
    assert_eq!(read, changed);
}

#[tokio::test]
async fn everything_wrong_with_a_patch_is_named() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let agent = issuer.register(&token, &agent_body(&[])).await;
    let patch = |body: &Value| {
        on(&issuer, Method::PATCH, &agent, "").bearer_auth(&token).header("if-match", "*").json(body)
    };
    let wrong = json!({
        "email": null, "agent_type": "spy", "version": "", "capabilities": "x", "owner": null, "deployment_env": 1,
        "scopes": ["a b"], "metadata": {"a": 1}, "status": "suspended", "agent_id": "x",
    });
    let (status, code, details) = refused(patch(&wrong)).await;
    assert_eq!((status, code.as_str()), (400, "VALIDATION_ERROR"));
    assert_eq!(details["fields"].as_array().unwrap().len(), 10, "{details}");

    // Together with what there was it is too much.
    let half: serde_json::Map<String, Value> =
        (0..20).map(|number| (format!("a{number}"), json!("x"))).collect();
    answered(patch(&json!({"metadata": half}))).await;
    let other: serde_json::Map<String, Value> =
        (0..13).map(|number| (format!("b{number}"), json!("x"))).collect();
    let (_, code, details) = refused(patch(&json!({"metadata": other}))).await;
    assert_eq!((code.as_str(), &details["fields"][0]["field"]), ("VALIDATION_ERROR", &json!("metadata")));

    let occupied = issuer.register(&token, &agent_body(&[])).await;
    let email = occupied["email"].as_str().unwrap().to_uppercase();
    assert_eq!(refused(patch(&json!({"email": email}))).await.1, "AGENT_ALREADY_EXISTS");
    let text = on(&issuer, Method::PATCH, &agent, "").bearer_auth(&token).header("if-match", "*");
    assert_eq!(
        refused(text.header("content-type", "text/plain").body("{}")).await.1,
        "UNSUPPORTED_MEDIA_TYPE"
    );
    let list =
        on(&issuer, Method::PATCH, &agent, "").bearer_auth(&token).header("if-match", "*").json(&json!([]));
    assert_eq!(refused(list).await.1, "MALFORMED_REQUEST");
}

#[tokio::test]
async fn entity_tags_guard_every_change() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let response =
        issuer.post("/api/v1/agents").bearer_auth(&token).json(&agent_body(&[])).send().await.unwrap();
    assert_eq!(response.headers()["etag"], "\"1\"");
    let agent: Value = response.json().await.unwrap();
    let change = |etag: Option<&str>| {
        let request =
            on(&issuer, Method::PATCH, &agent, "").bearer_auth(&token).json(&json!({"version": "2"}));
        etag.into_iter().fold(request, |request, etag| request.header("if-match", etag))
    };
    assert_eq!(refused(change(None)).await, (428, "PRECONDITION_REQUIRED".into(), json!({})));
    for stale in ["\"2\"", "W/\"1\"", "\"01\"", "\"x\""] {
        assert_eq!(
            refused(change(Some(stale))).await,
            (412, "PRECONDITION_FAILED".into(), json!({})),
            "{stale}"
        );
    }
    for malformed in ["1", "\"1", ""] {
        assert_eq!(refused(change(Some(malformed))).await.1, "MALFORMED_REQUEST", "{malformed}");
    }
    let (_, etag, _) = answered(change(Some("\"7\", \"1\""))).await;
    assert_eq!(etag, "\"2\"");

    for (method, more) in [(Method::POST, "/suspend"), (Method::POST, "/reactivate"), (Method::DELETE, "")] {
        let request =
            on(&issuer, method.clone(), &agent, more).bearer_auth(&token).header("if-match", "\"1\"");
        assert_eq!(refused(request).await.0, 412, "{method} {more}");
    }
    let request =
        on(&issuer, Method::POST, &agent, "/suspend").bearer_auth(&token).header("if-match", "\"2\"");
    assert_eq!(answered(request).await.1, "\"3\"");

    let read =
        |known: &str| on(&issuer, Method::GET, &agent, "").bearer_auth(&token).header("if-none-match", known);
    for known in ["\"3\"", "W/\"3\"", "\"1\", \"3\"", "*"] {
        let response = read(known).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["etag"]),
            (304, &"\"3\"".parse().unwrap())
        );
        assert_eq!(response.bytes().await.unwrap().len(), 0);
    }
    assert_eq!(answered(read("\"2\"")).await.0, 200);
    assert_eq!(refused(read("3")).await.1, "MALFORMED_REQUEST");
}

#[tokio::test]
async fn of_two_changes_to_one_revision_one_is_made() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    for round in 0..5 {
        let agent = issuer.register(&token, &agent_body(&[])).await;
        let change = |number: u32| {
            let body = json!({"version": format!("{round}.{number}")});
            on(&issuer, Method::PATCH, &agent, "")
                .bearer_auth(&token)
                .header("if-match", "\"1\"")
                .json(&body)
                .send()
        };
        let answers = futures_util::future::join_all((0..8).map(change)).await;
        let mut statuses: Vec<u16> =
            answers.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
    }
}

#[tokio::test]
async fn the_life_of_an_agent() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let agent = issuer.register(&token, &agent_body(&[])).await;
    let act = |method: &Method, more: &str| on(&issuer, method.clone(), &agent, more).bearer_auth(&token);
    let (suspend, reactivate) = ((Method::POST, "/suspend"), (Method::POST, "/reactivate"));
    let decommission = (Method::DELETE, "");
    // What leads to where the agent is already changes nothing.
    for ((method, more), status, revision) in [
        (&reactivate, "active", "\"1\""),
        (&suspend, "suspended", "\"2\""),
        (&suspend, "suspended", "\"2\""),
        (&reactivate, "active", "\"3\""),
        (&suspend, "suspended", "\"4\""),
        (&decommission, "decommissioned", "\"5\""),
        (&decommission, "decommissioned", "\"5\""),
    ] {
        let (code, etag, body) = answered(act(method, more)).await;
        assert_eq!(
            (code, etag.as_str(), body["status"].as_str().unwrap()),
            (200, revision, status),
            "{more}"
        );
    }
    for (method, more) in [&suspend, &reactivate] {
        assert_eq!(refused(act(method, more)).await, (409, "AGENT_DECOMMISSIONED".into(), json!({})));
    }
    let patch = act(&Method::PATCH, "").header("if-match", "*").json(&json!({"version": "2"}));
    assert_eq!(refused(patch).await, (409, "AGENT_DECOMMISSIONED".into(), json!({})));
    let credential = act(&Method::POST, "/credentials").json(&json!({}));
    assert_eq!(refused(credential).await.0, 409);
    // It is still there, and so is its email.
    assert_eq!(answered(act(&Method::GET, "")).await.2["status"], "decommissioned");
    let mut body = agent_body(&[]);
    body["email"] = agent["email"].clone();
    let again = issuer.post("/api/v1/agents").bearer_auth(&token).json(&body);
    assert_eq!(refused(again).await.1, "AGENT_ALREADY_EXISTS");
    for (action, times) in [("agent.suspended", 2), ("agent.reactivated", 1), ("agent.decommissioned", 1)] {
        let audit = issuer.database.audit(action).await;
        assert_eq!(audit.len(), times, "{action}");
        assert!(audit.iter().all(|event| event["target"] == agent["agent_id"]));
    }
    for more in ["", "/suspend", "/reactivate"] {
        let method = if more.is_empty() { Method::DELETE } else { Method::POST };
        let nobody = json!("00000000-0000-4000-8000-000000000000");
        let request = on(&issuer, method, &nobody, more).bearer_auth(&token);
        assert_eq!(refused(request).await, (404, "AGENT_NOT_FOUND".into(), json!({})));
    }
}

#[tokio::test]
async fn suspension_and_decommissioning_end_live_tokens_at_once() {
    let issuer = Issuer::start().await;
    let admin = issuer.management_token(&issuer.administrator).await;
    for (method, more) in [(Method::POST, "/suspend"), (Method::DELETE, "")] {
        let (client, managing) = manager(&issuer, &["agents:read", "orders:read"]).await;
        let live = issuer.token(&client).await;
        let own = format!("/api/v1/agents/{}", client.id);
        assert!(issuer.is_active(&issuer.administrator, &live).await);
        assert_eq!(issuer.get(&own).bearer_auth(&managing).send().await.unwrap().status(), StatusCode::OK);

        answered(on(&issuer, method.clone(), &json!(client.id), more).bearer_auth(&admin)).await;
        assert!(!issuer.is_active(&issuer.administrator, &live).await);
        assert_eq!(refused(issuer.get(&own).bearer_auth(&managing)).await.1, "UNAUTHORIZED");
        let response = issuer.oauth("token", &client, &[("grant_type", "client_credentials")]).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        // And the edge is told: the agent's level, a little ahead of the clock.
        let queued: i64 = issuer.database
            .value(&format!("select count(*) from revocation_outbox where rule_level = 2 and encode(rule_subject, 'hex') = '{}'
                             and not_before >= extract(epoch from now())", client.id.replace('-', "")))
            .await;
        assert_eq!(queued, 1);

        if method == Method::POST {
            // Reactivated it gets new ones; the old ones stay dead.
            answered(on(&issuer, Method::POST, &json!(client.id), "/reactivate").bearer_auth(&admin)).await;
            let new = issuer.token(&client).await;
            assert!(issuer.is_active(&issuer.administrator, &new).await);
            assert!(!issuer.is_active(&issuer.administrator, &live).await);
        }
    }
}

#[tokio::test]
async fn who_loses_scopes_loses_its_tokens() {
    let issuer = Issuer::start().await;
    let admin = issuer.management_token(&issuer.administrator).await;
    let client = issuer.new_client(&["orders:read", "orders:write"]).await;
    let change = async |body: Value| {
        let request = on(&issuer, Method::PATCH, &json!(client.id), "").bearer_auth(&admin);
        answered(request.header("if-match", "*").json(&body)).await
    };
    let live = issuer.token(&client).await;
    change(json!({"version": "2", "scopes": ["orders:read", "orders:write", "orders:more"]})).await;
    assert!(issuer.is_active(&issuer.administrator, &live).await, "more takes nothing away");
    change(json!({"scopes": ["orders:read"]})).await;
    assert!(!issuer.is_active(&issuer.administrator, &live).await);
    let granted = issuer.grant(&client, &[]).await;
    assert_eq!(granted["scope"], "orders:read");
    let audit = issuer.database.audit("agent.updated").await;
    assert_eq!(audit[0]["scopes_added"], json!(["orders:more"]));
    assert_eq!(audit[1]["scopes_removed"], json!(["orders:more", "orders:write"]));
}

#[tokio::test]
async fn agents_write_is_not_above_administrators() {
    let issuer = Issuer::start().await;
    let admin = issuer.management_token(&issuer.administrator).await;
    let (_, writer) = manager(&issuer, &["agents:read", "agents:write"]).await;
    let other = issuer.new_client(&["tokens:revoke", "orders:read"]).await;
    let change = |token: &str, body: Value| {
        let request = on(&issuer, Method::PATCH, &json!(other.id), "").bearer_auth(token);
        request.header("if-match", "*").json(&body)
    };
    for body in [json!({"email": "mine@example.com"}), json!({"scopes": []}), json!({})] {
        let (status, code, details) = refused(change(&writer, body)).await;
        assert_eq!((status, code.as_str()), (403, "SCOPE_ESCALATION"));
        assert_eq!(details, json!({"scopes": ["tokens:revoke"]}));
    }
    for (method, more) in [(Method::POST, "/suspend"), (Method::POST, "/reactivate"), (Method::DELETE, "")] {
        let request = on(&issuer, method, &json!(issuer.administrator.id), more).bearer_auth(&writer);
        assert_eq!(refused(request).await.1, "SCOPE_ESCALATION");
    }
    // What it may: agents without management scopes, and those with no more than its own.
    let plain = issuer.register(&admin, &agent_body(&["agents:read"])).await;
    let patch = |body: Value| {
        on(&issuer, Method::PATCH, &plain, "").bearer_auth(&writer).header("if-match", "*").json(&body)
    };
    answered(patch(json!({"scopes": ["agents:read", "agents:write", "orders:write"]}))).await;
    let (_, code, details) = refused(patch(json!({"scopes": ["agents:read", "audit:read"]}))).await;
    assert_eq!((code.as_str(), details), ("SCOPE_ESCALATION", json!({"scopes": ["audit:read"]})));
    answered(on(&issuer, Method::DELETE, &plain, "").bearer_auth(&writer)).await;
}

#[tokio::test]
async fn nobody_ends_itself_or_changes_its_own_scopes() {
    let issuer = Issuer::start().await;
    let (client, token) = manager(&issuer, &["agents:read", "agents:write", "orders:read"]).await;
    let itself = json!(client.id);
    let is_caller = (409, "AGENT_IS_CALLER".to_owned(), json!({}));
    for (method, more) in [(Method::POST, "/suspend"), (Method::DELETE, "")] {
        assert_eq!(refused(on(&issuer, method, &itself, more).bearer_auth(&token)).await, is_caller);
    }
    let patch = |body: Value| {
        on(&issuer, Method::PATCH, &itself, "").bearer_auth(&token).header("if-match", "*").json(&body)
    };
    for scopes in [
        json!(["agents:read", "agents:write", "orders:read", "orders:write"]),
        json!(["agents:read", "agents:write"]),
        json!(null),
        json!(["agents:read", "agents:write", "orders:read", "audit:read"]),
    ] {
        assert_eq!(refused(patch(json!({"scopes": scopes}))).await, is_caller);
    }
    // Anything else about itself it may change, and its scopes may be named as they are.
    let same = json!({"version": "2", "scopes": ["orders:read", "agents:write", "agents:read"]});
    assert_eq!(answered(patch(same)).await.2["version"], "2");
    assert_eq!(answered(on(&issuer, Method::POST, &itself, "/reactivate").bearer_auth(&token)).await.0, 200);
}

#[tokio::test]
async fn platform_scopes_stay_in_the_platform_s_tenant() {
    let issuer = Issuer::start().await;
    let admin = issuer.management_token(&issuer.administrator).await;
    issuer.register(&admin, &agent_body(&["tenants:read"])).await;
    let other = issuer.other_tenant().await;
    let token = issuer.management_token(&other).await;
    // It doesn't hold them, so that is what it hears.
    let create = issuer.post("/api/v1/agents").bearer_auth(&token).json(&agent_body(&["tenants:read"]));
    assert_eq!(refused(create).await.1, "SCOPE_ESCALATION");
    // Should it ever have got them, it can't hand them out all the same.
    issuer.database.execute("update agents set scopes = scopes || '{tenants:read,tenants:write}' where email = 'other@example.com'").await;
    let token = issuer.management_token(&other).await;
    let create =
        issuer.post("/api/v1/agents").bearer_auth(&token).json(&agent_body(&["tenants:read", "agents:read"]));
    let reserved = (409, "PLATFORM_SCOPE_RESERVED".to_owned(), json!({"scopes": ["tenants:read"]}));
    assert_eq!(refused(create).await, reserved);
    let agent = issuer.register(&token, &agent_body(&[])).await;
    let patch = on(&issuer, Method::PATCH, &agent, "").bearer_auth(&token).header("if-match", "*");
    assert_eq!(refused(patch.json(&json!({"scopes": ["tenants:read"]}))).await, reserved);
}

#[tokio::test]
async fn lists_page_by_page_while_agents_come_and_go() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    // Several with one time: the id decides.
    issuer.database
        .execute("insert into agents (agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes, metadata, created_at)
                  select gen_random_uuid(), tenant_id, 'a' || n || '@example.com', 'monitor', '1', '{}', 'tests', 'staging', '{}', '{}',
                         '2026-01-01'::timestamptz + (n / 3) * interval '1 microsecond'
                  from tenants, generate_series(0, 29) n where is_platform")
        .await;
    let mut seen: Vec<String> = Vec::new();
    let mut cursor = String::new();
    for round in 0.. {
        let path = format!("/api/v1/agents?limit=7{cursor}");
        let (_, _, page) = answered(issuer.get(&path).bearer_auth(&token)).await;
        let emails =
            page["items"].as_array().unwrap().iter().map(|agent| agent["email"].as_str().unwrap().to_owned());
        seen.extend(emails);
        // What is inserted at the end is seen, what is inserted behind isn't, and nothing comes twice or is missed.
        if round < 3 {
            issuer.register(&token, &agent_body(&[])).await;
            issuer.database
                .execute(&format!("insert into agents (agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes, metadata, created_at)
                          select gen_random_uuid(), tenant_id, 'behind{round}@example.com', 'monitor', '1', '{{}}', 'tests', 'staging', '{{}}', '{{}}', '2025-01-01'
                          from tenants where is_platform"))
                .await;
        }
        match page["next_cursor"].as_str() {
            Some(next) => {
                // The row that the cursor was made from may go.
                if round == 0 {
                    issuer
                        .database
                        .execute(&format!("delete from agents where email = '{}'", seen.last().unwrap()))
                        .await;
                }
                cursor = format!("&cursor={next}");
            }
            None => break,
        }
    }
    let before: Vec<&String> = seen
        .iter()
        .filter(|email| email.starts_with('a') && !email.contains('-') && email.contains("@example"))
        .collect();
    assert_eq!(before.len(), 30, "{seen:?}");
    assert!(seen.iter().all(|email| !email.starts_with("behind")));
    assert_eq!(seen.iter().filter(|email| email.starts_with("agent-")).count(), 3);
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len());
    assert_eq!(seen.len(), 34, "and the administrator: {seen:?}");
}

#[tokio::test]
async fn lists_are_filtered() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let other = issuer.other_tenant().await;
    for (number, (agent_type, env, owner)) in
        [("router", "staging", "a"), ("router", "production", "b"), ("monitor", "staging", "b")]
            .into_iter()
            .enumerate()
    {
        let body = json!({
            "email": format!("Agent{number}@example.com"), "agent_type": agent_type, "version": "1", "owner": owner,
            "deployment_env": env,
        });
        let agent = issuer.register(&token, &body).await;
        if number == 2 {
            answered(on(&issuer, Method::POST, &agent, "/suspend").bearer_auth(&token)).await;
        }
    }
    let found = async |query: &str| {
        let (_, _, page) = answered(issuer.get(&format!("/api/v1/agents{query}")).bearer_auth(&token)).await;
        assert_eq!(page["next_cursor"], Value::Null);
        let emails: Vec<String> = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|agent| agent["email"].as_str().unwrap().trim_end_matches("@example.com").to_owned())
            .collect();
        emails.join(" ")
    };
    for (query, expected) in [
        ("", "administrator@localhost Agent0 Agent1 Agent2"),
        ("?agent_type=router", "Agent0 Agent1"),
        ("?deployment_env=staging", "Agent0 Agent2"),
        ("?status=suspended", "Agent2"),
        ("?status=active&owner=b", "Agent1"),
        ("?owner=b", "Agent1 Agent2"),
        ("?owner=nobody", ""),
        ("?email=AGENT1%40EXAMPLE.com", "Agent1"),
        ("?email=other%40example.com", ""),
        (
            "?agent_type=router&deployment_env=staging&owner=a&status=active&email=agent0%40example.com",
            "Agent0",
        ),
        ("?agent_type=custom&status=decommissioned", ""),
    ] {
        assert_eq!(found(query).await, expected, "{query}");
    }
    for (query, fields) in [
        ("?status=gone", "status"),
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?limit=x&cursor=AAAA&agent_type=&page=2", "agent_type limit cursor page"),
        ("?owner=a&owner=b", "owner"),
        ("?email=", "email"),
    ] {
        let (status, code, details) =
            refused(issuer.get(&format!("/api/v1/agents{query}")).bearer_auth(&token)).await;
        assert_eq!((status, code.as_str()), (400, "VALIDATION_ERROR"), "{query}");
        let named: Vec<&str> = details["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| field["field"].as_str().unwrap())
            .collect();
        assert_eq!(named.join(" "), fields, "{query}");
    }
    let theirs = issuer.management_token(&other).await;
    let (_, _, page) = answered(issuer.get("/api/v1/agents").bearer_auth(&theirs)).await;
    assert_eq!(page["items"].as_array().unwrap().len(), 1, "each tenant sees its own");
}

#[tokio::test]
async fn changes_take_agents_write_and_lists_agents_read() {
    let issuer = Issuer::start().await;
    let reader = issuer.scoped_token("agents:read").await;
    let writer = issuer.scoped_token("agents:write").await;
    let id = json!(issuer.administrator.id);
    for request in [
        on(&issuer, Method::PATCH, &id, "").header("if-match", "*").json(&json!({})),
        on(&issuer, Method::DELETE, &id, ""),
        on(&issuer, Method::POST, &id, "/suspend"),
        on(&issuer, Method::POST, &id, "/reactivate"),
    ] {
        assert_eq!(
            refused(request.bearer_auth(&reader)).await,
            (403, "INSUFFICIENT_SCOPE".into(), json!({"required_scope": "agents:write"}))
        );
    }
    assert_eq!(refused(issuer.get("/api/v1/agents").bearer_auth(&writer)).await.1, "INSUFFICIENT_SCOPE");
    // Another tenant's agent isn't there, whatever is tried.
    let other = issuer.other_tenant().await;
    let theirs = issuer.management_token(&other).await;
    for request in [
        on(&issuer, Method::GET, &id, ""),
        on(&issuer, Method::PATCH, &id, "").header("if-match", "*").json(&json!({"version": "2"})),
        on(&issuer, Method::DELETE, &id, ""),
        on(&issuer, Method::POST, &id, "/suspend"),
        on(&issuer, Method::POST, &id, "/reactivate"),
    ] {
        assert_eq!(refused(request.bearer_auth(&theirs)).await, (404, "AGENT_NOT_FOUND".into(), json!({})));
    }
}

#[tokio::test]
async fn a_tenant_has_as_many_agents_as_it_may() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let gone = issuer.register(&token, &agent_body(&[])).await;
    let paused = issuer.register(&token, &agent_body(&[])).await;
    answered(on(&issuer, Method::DELETE, &gone, "").bearer_auth(&token)).await;
    answered(on(&issuer, Method::POST, &paused, "/suspend").bearer_auth(&token)).await;
    // The administrator and the suspended one count.
    issuer.database.execute("update tenants set max_agents = 5").await;
    let create = || issuer.post("/api/v1/agents").bearer_auth(&token).json(&agent_body(&[])).send();
    let answers = futures_util::future::join_all((0..8).map(|_| create())).await;
    let mut statuses: Vec<u16> =
        answers.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 201, 201, 409, 409, 409, 409, 409]);
    assert_eq!(
        envelope(create().await.unwrap()).await,
        (409, "AGENT_LIMIT_REACHED".into(), json!({"max_agents": 5}))
    );
    answered(on(&issuer, Method::DELETE, &paused, "").bearer_auth(&token)).await;
    assert_eq!(create().await.unwrap().status(), StatusCode::CREATED);
}

#[tokio::test]
async fn each_filter_has_an_index_under_row_level_security() {
    let issuer = Issuer::start().await;
    let tenant = &issuer.administrator.tenant;
    issuer.database
        .execute(&format!(
            "insert into agents (agent_id, tenant_id, email, agent_type, version, capabilities, owner, deployment_env, scopes, metadata, created_at)
             select gen_random_uuid(), '{tenant}', 'a' || n || '@example.com', (array['router', 'monitor', 'custom'])[1 + n % 3], '1', '{{}}',
                    'owner' || n % 100, (array['staging', 'production'])[1 + n % 2], '{{}}', '{{}}', now() - n * interval '1 second'
             from generate_series(1, 20000) n"
        ))
        .await;
    issuer.database.execute("analyze agents").await;
    let role = sqlx::PgPool::connect(&issuer.database.url).await.unwrap();
    let mut transaction = role.begin().await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!("set local countersign.tenant = '{tenant}'")))
        .execute(&mut *transaction)
        .await
        .unwrap();
    // So few rows the planner may also read through; what counts is that an index can serve.
    sqlx::query("set local enable_seqscan = off").execute(&mut *transaction).await.unwrap();
    sqlx::query("set local enable_bitmapscan = off").execute(&mut *transaction).await.unwrap();
    for (filter, index) in [
        ("", "agents_listed"),
        ("and agent_type = 'router'", "agents_listed_by_type"),
        ("and deployment_env = 'staging'", "agents_listed_by_env"),
        ("and status = 'suspended'", "agents_listed_by_status"),
        ("and owner = 'owner7'", "agents_listed_by_owner"),
        ("and email_folded = lower('A7@example.com')", "agents_email"),
    ] {
        for after in [
            "",
            "and (created_at, agent_id) > (now() - interval '1 hour', '00000000-0000-4000-8000-000000000000'::uuid)",
        ] {
            let sql = format!(
                "explain (costs off) select * from agents where tenant_id = '{tenant}' {filter} {after} order by created_at, agent_id limit 51"
            );
            let plan: Vec<String> =
                sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *transaction).await.unwrap();
            let plan = plan.join("\n");
            assert!(plan.contains(&format!("Index Scan using {index} on")), "{filter} {after}\n{plan}");
            let column = filter.split(' ').nth(1).unwrap_or("tenant_id");
            let condition = plan.lines().find(|line| line.contains("Index Cond")).unwrap();
            assert!(condition.contains(column), "{filter} {after}\n{plan}");
        }
    }
}

/// Who tried what in vain is in the audit log, reading apart.
#[tokio::test]
async fn changes_that_are_refused_are_written_down() {
    let issuer = Issuer::start().await;
    let (token, other) = (issuer.management_token(&issuer.administrator).await, issuer.other_tenant().await);
    let agent = issuer.register(&token, &agent_body(&[])).await;
    let path = format!("/api/v1/agents/{}", agent["agent_id"].as_str().unwrap());
    let foreign = format!("/api/v1/agents/{}", other.id);
    let send = async |method: Method, path: &str| {
        let request = issuer.http.request(method, format!("{}{path}", issuer.url)).bearer_auth(&token);
        request.header("if-match", "\"7\"").json(&json!({ "version": "2" })).send().await.unwrap().status()
    };
    assert_eq!(send(Method::PATCH, &path).await, StatusCode::PRECONDITION_FAILED);
    assert_eq!(send(Method::DELETE, &foreign).await, StatusCode::NOT_FOUND);
    assert_eq!(send(Method::GET, &foreign).await, StatusCode::NOT_FOUND);
    let twin = issuer.post("/api/v1/agents").bearer_auth(&token).json(&json!({
        "email": agent["email"], "agent_type": "custom", "version": "1", "owner": "o", "deployment_env": "staging",
    }));
    assert_eq!(refused(twin).await.1, "AGENT_ALREADY_EXISTS");

    let rows = issuer.database.audit("management.refused").await;
    let told: Vec<(String, &Value)> =
        rows.iter().map(|row| (row["attempted"].as_str().unwrap().to_owned(), &row["reason"])).collect();
    let expected = [
        (format!("PATCH {path}"), &json!("PRECONDITION_FAILED")),
        (format!("DELETE {foreign}"), &json!("AGENT_NOT_FOUND")),
        ("POST /api/v1/agents".to_owned(), &json!("AGENT_ALREADY_EXISTS")),
    ];
    assert_eq!(told, expected);
    for row in &rows {
        assert_eq!((&row["outcome"], &row["actor"]), (&json!("failure"), &json!(issuer.administrator.id)));
        assert_eq!(row["tenant"], issuer.administrator.tenant, "not the other tenant's");
    }
}
