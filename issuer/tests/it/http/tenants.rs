//! `/api/v1/tenants`, `/api/v1/tenant`.

use std::collections::BTreeSet;

use countersign_issuer::domain::scope::{MANAGEMENT, PLATFORM};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::cli::Cli;
use crate::support::desk::Desk;
use crate::support::issuer::{agent_body, claims, envelope};
use crate::support::{Client, ISSUER, eventually};

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

#[tokio::test]
async fn makes_a_tenant_with_all_that_it_needs() {
    let platform = Desk::start("tenants").await;
    let issuer = &platform.issuer;
    let body = json!({
        "name": "Acme", "plan": "paid", "monthly_token_quota": 5_000_000, "requests_per_minute": 6000,
        "client_requests_per_minute": 600, "max_agents": 200, "administrator": {"email": "root@acme.example", "owner": "it"},
        "default_resource_server": {"identifier": "https://api.acme.example", "name": "Acme's API"},
    });
    let response = platform.create(&body).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["cache-control"], "no-store");
    let (location, etag) = (response.headers()["location"].clone(), response.headers()["etag"].clone());
    let made: Value = response.json().await.unwrap();
    let id = text(&made, "tenant_id");
    assert_eq!(location, format!("{ISSUER}/api/v1/tenants/{id}"));
    for (name, value) in [
        ("name", json!("Acme")),
        ("status", json!("active")),
        ("is_platform", json!(false)),
        ("plan", json!("paid")),
        ("monthly_token_quota", json!(5_000_000)),
        ("requests_per_minute", json!(6000)),
        ("client_requests_per_minute", json!(600)),
        ("max_agents", json!(200)),
    ] {
        assert_eq!(made[name], value, "{name}");
    }
    let server = &made["default_resource_server"];
    assert_eq!((&server["is_default"], &server["tenant_id"]), (&json!(true), &made["tenant_id"]));

    // The administrator can do all there is to do in the tenant, and nothing beyond.
    let administrator = &made["administrator"];
    let scopes: Vec<&str> = MANAGEMENT.into_iter().filter(|scope| !PLATFORM.contains(scope)).collect();
    assert_eq!(
        (&administrator["scopes"], &administrator["owner"], &administrator["email"]),
        (&json!(scopes), &json!("it"), &json!("root@acme.example"))
    );
    let client = Client::from_json(administrator);
    assert_eq!(client.tenant, id);
    let granted = issuer.grant(&client, &[]).await;
    let token_claims = claims(text(&granted, "access_token"));
    assert_eq!(
        (&token_claims["aud"], &token_claims["tenant_id"]),
        (&json!("https://api.acme.example"), &json!(id))
    );
    let token = issuer.management_token(&client).await;
    issuer.register(&token, &agent_body(&["orders:read", "agents:read"])).await;

    let read = platform.read(id).await;
    assert_eq!(read.headers()["etag"], etag);
    let read: Value = read.json().await.unwrap();
    assert!(read.get("administrator").is_none(), "the secret was shown once: {read}");
    assert_eq!(read["name"], "Acme");
    // Its own administrator sees the same.
    let own: Value =
        issuer.get("/api/v1/tenant").bearer_auth(&token).send().await.unwrap().json().await.unwrap();
    assert_eq!(own, read);

    // In the tenant's log and in the platform's; with the platform's administrator as the actor.
    let audit = issuer.database.audit("tenant.created").await;
    let whose: BTreeSet<&str> = audit.iter().map(|row| text(row, "tenant")).collect();
    assert_eq!(whose, BTreeSet::from([id, issuer.administrator.tenant.as_str()]));
    assert!(audit.iter().all(|row| row["actor"] == issuer.administrator.id && row["target"] == id));
    for action in ["agent.created", "credential.created", "resource_server.created"] {
        let rows = issuer.database.audit(action).await;
        let row = rows.iter().find(|row| row["tenant"] == id).unwrap();
        assert_eq!(row["actor"], issuer.administrator.id, "{action}");
        assert!(!row.to_string().contains("csk_"));
    }
}

#[tokio::test]
async fn a_name_is_enough() {
    let platform = Desk::start("tenants").await;
    let made = platform.created(&json!({ "name": "Bare" })).await;
    for name in ["administrator", "default_resource_server", "monthly_token_quota", "max_agents"] {
        assert_eq!(made[name], Value::Null, "{name}");
    }
    assert_eq!(made["plan"], "free");
    let id = text(&made, "tenant_id").to_owned();

    // An administrator can be added, and another one.
    for email in ["one@bare.example", "two@bare.example"] {
        let request = platform.request("POST", &format!("/{id}/administrators"));
        let response = request.json(&json!({ "email": email })).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        let made: Value = response.json().await.unwrap();
        assert_eq!((&made["owner"], &made["tenant_id"]), (&json!("Bare"), &json!(id)));
        platform.issuer.management_token(&Client::from_json(&made)).await;
    }
    let request = platform.request("POST", &format!("/{id}/administrators"));
    let again = request.json(&json!({ "email": "ONE@bare.example" })).send().await.unwrap();
    assert_eq!(envelope(again).await.1, "AGENT_ALREADY_EXISTS");
}

#[tokio::test]
async fn a_name_is_one_tenant_s_and_nothing_is_made_by_halves() {
    let platform = Desk::start("tenants").await;
    platform
        .created(
            &json!({ "name": "Acme", "default_resource_server": {"identifier": "https://acme.example"} }),
        )
        .await;
    let taken = platform.create(&json!({ "name": "ACME" })).await;
    assert_eq!(envelope(taken).await, (409, "TENANT_ALREADY_EXISTS".into(), json!({})));
    let body = json!({ "name": "Other", "administrator": {"email": "a@b"}, "default_resource_server": {"identifier": "https://acme.example"} });
    let taken = platform.create(&body).await;
    assert_eq!(envelope(taken).await, (409, "RESOURCE_SERVER_ALREADY_EXISTS".into(), json!({})));
    let others: i64 =
        platform.issuer.database.value("select count(*) from tenants where name = 'Other'").await;
    assert_eq!(others, 0);
}

#[tokio::test]
async fn names_everything_that_is_wrong_at_once() {
    let platform = Desk::start("tenants").await;
    let body = json!({
        "name": "", "plan": "gold", "monthly_token_quota": -1, "requests_per_minute": 0, "client_requests_per_minute": 1.5,
        "max_agents": 3_000_000_000_u64, "administrator": {"email": "nobody", "scopes": []},
        "default_resource_server": "https://x.example", "is_platform": true, "status": "active",
    });
    let (status, code, details) = envelope(platform.create(&body).await).await;
    assert_eq!((status, code.as_str()), (400, "VALIDATION_ERROR"));
    let fields: Vec<&str> =
        details["fields"].as_array().unwrap().iter().map(|field| text(field, "field")).collect();
    let expected = [
        "name",
        "plan",
        "monthly_token_quota",
        "requests_per_minute",
        "client_requests_per_minute",
        "max_agents",
        "administrator.email",
        "administrator.scopes",
        "default_resource_server",
        "is_platform",
        "status",
    ];
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn a_request_sent_again_makes_nothing_twice() {
    let platform = Desk::start("tenants").await;
    let body = json!({ "name": "Once", "administrator": {"email": "root@once.example"} });
    let send = async |body: &Value| {
        platform.request("POST", "").header("idempotency-key", "k1").json(body).send().await.unwrap()
    };
    let first: Value = send(&body).await.json().await.unwrap();
    let again = send(&body).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.json::<Value>().await.unwrap(), first, "the secret too: it may not have arrived");
    let other = send(&json!({ "name": "Twice" })).await;
    assert_eq!(envelope(other).await.1, "IDEMPOTENCY_KEY_REUSED");
}

#[tokio::test]
async fn lists_all_of_them_in_pages() {
    let platform = Desk::start("tenants").await;
    let mut ids = vec![platform.issuer.administrator.tenant.clone()];
    for number in 0..5 {
        let plan = if number % 2 == 0 { "free" } else { "paid" };
        let made = platform.created(&json!({ "name": format!("T{number}"), "plan": plan })).await;
        ids.push(text(&made, "tenant_id").to_owned());
    }
    platform.to(&ids[2], "suspend").await;
    let list = async |query: &str| -> Value {
        let response = platform.request("GET", query).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    };
    let ids_of = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|item| text(item, "tenant_id").to_owned()).collect()
    };
    let mut paged = Vec::new();
    let mut query = "?limit=4".to_owned();
    loop {
        let page = list(&query).await;
        paged.extend(ids_of(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=4&cursor={cursor}");
    }
    assert_eq!(paged, ids);
    assert_eq!(ids_of(&list("?status=suspended").await), [ids[2].clone()]);
    assert_eq!(
        ids_of(&list("?plan=free&status=active").await),
        [ids[1].clone(), ids[3].clone(), ids[5].clone()]
    );
    let wrong = platform.request("GET", "?limit=0&plan=gold&colour=red").send().await.unwrap();
    let (status, code, details) = envelope(wrong).await;
    assert_eq!(
        (status, code.as_str(), details["fields"].as_array().unwrap().len()),
        (400, "VALIDATION_ERROR", 3)
    );
}

#[tokio::test]
async fn changes_only_what_is_named_and_only_the_revision_that_was_read() {
    let platform = Desk::start("tenants").await;
    let made = platform.created(&json!({ "name": "Acme", "max_agents": 5, "requests_per_minute": 60 })).await;
    let id = text(&made, "tenant_id").to_owned();
    let etag = platform.read(&id).await.headers()["etag"].to_str().unwrap().to_owned();
    let patch = async |etag: Option<&str>, body: &Value| {
        let request = platform.request("PATCH", &format!("/{id}")).json(body);
        let request = if let Some(etag) = etag { request.header("if-match", etag) } else { request };
        request.send().await.unwrap()
    };
    let change = json!({ "plan": "paid", "max_agents": null });
    assert_eq!(envelope(patch(None, &change).await).await.1, "PRECONDITION_REQUIRED");
    let changed = patch(Some(&etag), &change).await;
    assert_eq!(changed.status(), StatusCode::OK);
    let newer = changed.headers()["etag"].to_str().unwrap().to_owned();
    let changed: Value = changed.json().await.unwrap();
    assert_eq!(
        (&changed["name"], &changed["plan"], &changed["max_agents"], &changed["requests_per_minute"]),
        (&json!("Acme"), &json!("paid"), &Value::Null, &json!(60))
    );
    let lost = patch(Some(&etag), &json!({ "plan": "free" })).await;
    assert_eq!(envelope(lost).await.1, "PRECONDITION_FAILED");
    // What is as it was is no change.
    let same = patch(Some(&newer), &json!({ "plan": "paid" })).await;
    assert_eq!(same.headers()["etag"], newer.as_str());
    assert_eq!(platform.issuer.database.audit("tenant.updated").await.len(), 2, "in two logs");
    for wrong in [
        json!({ "name": null }),
        json!({ "plan": null }),
        json!({ "status": "suspended" }),
        json!({ "max_agents": 0 }),
    ] {
        assert_eq!(envelope(patch(Some(&newer), &wrong).await).await.1, "VALIDATION_ERROR", "{wrong}");
    }
    platform.created(&json!({ "name": "Taken" })).await;
    assert_eq!(
        envelope(patch(Some("*"), &json!({ "name": "taken" })).await).await.1,
        "TENANT_ALREADY_EXISTS"
    );
    let seen =
        platform.request("GET", &format!("/{id}")).header("if-none-match", &newer).send().await.unwrap();
    assert_eq!(seen.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn a_suspended_tenant_s_tokens_end_and_it_gets_no_more() {
    let platform = Desk::start("tenants").await;
    let issuer = &platform.issuer;
    let tenant = issuer.other_tenant().await;
    let bystander = issuer.other_tenant().await;
    let (token, management) = (issuer.token(&tenant).await, issuer.management_token(&tenant).await);
    let unrelated = issuer.token(&bystander).await;

    let suspended = platform.to(&tenant.tenant, "suspend").await;
    assert_eq!(suspended.status(), StatusCode::OK);
    let etag = suspended.headers()["etag"].clone();
    assert_eq!(suspended.json::<Value>().await.unwrap()["status"], "suspended");
    let refused = issuer.get("/api/v1/tenant").bearer_auth(&management).send().await.unwrap();
    assert_eq!(envelope(refused).await.1, "UNAUTHORIZED");
    assert_eq!(issuer.refused_soon(&tenant, &[]).await, (401, "invalid_client".into()));
    let rule: (i16, Vec<u8>, bool) = sqlx::query_as(
        "select rule_level, rule_subject, not_before >= extract(epoch from now())::bigint + 1 from revocation_outbox where rule_level is not null",
    )
    .fetch_one(&issuer.database.pool)
    .await
    .unwrap();
    let subject =
        countersign_shared::TenantId(tenant.tenant.parse::<countersign_shared::TenantId>().unwrap().0);
    assert_eq!(
        rule,
        (1, subject.0.as_bytes().to_vec(), true),
        "told to the edges, tokens of the next second included"
    );
    assert!(issuer.is_active(&bystander, &unrelated).await);

    // Again: nothing happens.
    assert_eq!(platform.to(&tenant.tenant, "suspend").await.headers()["etag"], etag);
    assert_eq!(
        issuer.database.audit("tenant.suspended").await.len(),
        2,
        "in its own log and in the platform's"
    );

    let reactivated = platform.to(&tenant.tenant, "reactivate").await;
    assert_eq!(reactivated.json::<Value>().await.unwrap()["status"], "active");
    // It takes a moment: tokens of the seconds after the suspension are ended too, so the next ones wait for them to pass.
    let new = eventually("tokens again", 5, async || {
        let response = issuer.oauth("token", &tenant, &[GRANT]).await;
        if response.status() == StatusCode::OK { Some(response.json::<Value>().await.unwrap()) } else { None }
    })
    .await;
    let new = text(&new, "access_token").to_owned();
    assert!(issuer.is_active(&tenant, &new).await);
    assert!(!issuer.is_active(&tenant, &token).await, "what was ended stays ended");
}

#[tokio::test]
async fn decommissioning_is_final() {
    let platform = Desk::start("tenants").await;
    let issuer = &platform.issuer;
    let tenant = issuer.other_tenant().await;
    let token = issuer.management_token(&tenant).await;
    let gone = platform.to(&tenant.tenant, "decommission").await;
    assert_eq!(gone.json::<Value>().await.unwrap()["status"], "decommissioned");
    assert_eq!(
        platform.to(&tenant.tenant, "decommission").await.status(),
        StatusCode::OK,
        "again: nothing happens"
    );
    let refused = issuer.get("/api/v1/tenant").bearer_auth(&token).send().await.unwrap();
    assert_eq!(envelope(refused).await.1, "UNAUTHORIZED");
    assert_eq!(issuer.refused_soon(&tenant, &[]).await, (401, "invalid_client".into()));

    for what in ["suspend", "reactivate"] {
        assert_eq!(
            envelope(platform.to(&tenant.tenant, what).await).await,
            (409, "TENANT_DECOMMISSIONED".into(), json!({}))
        );
    }
    let change = platform.request("PATCH", &format!("/{}", tenant.tenant)).header("if-match", "*");
    assert_eq!(
        envelope(change.json(&json!({ "plan": "paid" })).send().await.unwrap()).await.1,
        "TENANT_DECOMMISSIONED"
    );
    let administrator = platform.request("POST", &format!("/{}/administrators", tenant.tenant));
    let administrator = administrator.json(&json!({ "email": "a@b" })).send().await.unwrap();
    assert_eq!(envelope(administrator).await.1, "TENANT_DECOMMISSIONED");

    // Its history stays, and what was its own doesn't become another's.
    let read: Value = platform.read(&tenant.tenant).await.json().await.unwrap();
    let agents: i64 = issuer
        .database
        .value(&format!("select count(*) from agents where tenant_id = '{}'", tenant.tenant))
        .await;
    assert_eq!(agents, 1);
    let name = json!({ "name": read["name"] });
    assert_eq!(envelope(platform.create(&name).await).await.1, "TENANT_ALREADY_EXISTS");
    let identifier: String = issuer
        .database
        .value(&format!("select identifier from resource_servers where tenant_id = '{}'", tenant.tenant))
        .await;
    let body = json!({ "name": "Heir", "default_resource_server": {"identifier": identifier} });
    assert_eq!(envelope(platform.create(&body).await).await.1, "RESOURCE_SERVER_ALREADY_EXISTS");
}

#[tokio::test]
async fn the_platform_s_own_tenant_does_not_end() {
    let platform = Desk::start("tenants").await;
    let own = platform.issuer.administrator.tenant.clone();
    for what in ["suspend", "decommission"] {
        assert_eq!(envelope(platform.to(&own, what).await).await, (409, "PLATFORM_TENANT".into(), json!({})));
    }
    // Another administrator of the platform is one that may hand out platform scopes, and only by who holds them all.
    let narrow = platform.issuer.scoped_token("tenants:read tenants:write").await;
    let path = format!("/api/v1/tenants/{own}/administrators");
    let request =
        platform.issuer.post(&path).bearer_auth(&narrow).json(&json!({ "email": "second@platform.example" }));
    assert_eq!(envelope(request.send().await.unwrap()).await.1, "SCOPE_ESCALATION");
    let request = platform
        .issuer
        .post(&path)
        .bearer_auth(&platform.token)
        .json(&json!({ "email": "second@platform.example" }));
    let made: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(made["scopes"], json!(MANAGEMENT));
}

#[tokio::test]
async fn each_call_takes_its_scope() {
    let platform = Desk::start("tenants").await;
    let issuer = &platform.issuer;
    let (id, reader) = (&issuer.administrator.tenant, issuer.scoped_token("tenants:read").await);
    let writer = issuer.scoped_token("tenants:write agents:write").await;
    for (method, path, token, scope) in [
        ("GET", String::new(), &writer, "tenants:read"),
        ("GET", format!("/{id}"), &writer, "tenants:read"),
        ("POST", String::new(), &reader, "tenants:write"),
        ("PATCH", format!("/{id}"), &reader, "tenants:write"),
        ("DELETE", format!("/{id}"), &reader, "tenants:write"),
        ("POST", format!("/{id}/suspend"), &reader, "tenants:write"),
        ("POST", format!("/{id}/reactivate"), &reader, "tenants:write"),
        ("POST", format!("/{id}/administrators"), &reader, "tenants:write"),
    ] {
        let url = format!("{}/api/v1/tenants{path}", issuer.url);
        let request = issuer.http.request(method.parse().unwrap(), url).bearer_auth(token);
        let (status, code, details) = envelope(request.send().await.unwrap()).await;
        assert_eq!((status, code.as_str()), (403, "INSUFFICIENT_SCOPE"), "{method} {path}");
        assert_eq!(details, json!({ "required_scope": scope }));
    }
    // One's own takes any management scope, and at least one.
    assert_eq!(
        issuer.get("/api/v1/tenant").bearer_auth(&reader).send().await.unwrap().status(),
        StatusCode::OK
    );
    let nobody = issuer.management_token(&issuer.new_client(&[]).await).await;
    let refused = issuer.get("/api/v1/tenant").bearer_auth(&nobody).send().await.unwrap();
    assert_eq!(envelope(refused).await.1, "INSUFFICIENT_SCOPE");

    let unknown = "00000000-0000-4000-8000-000000000000";
    assert_eq!(envelope(platform.read(unknown).await).await, (404, "TENANT_NOT_FOUND".into(), json!({})));
    assert_eq!(envelope(platform.to(unknown, "suspend").await).await.1, "TENANT_NOT_FOUND");
    assert_eq!(envelope(platform.read("1").await).await.1, "MALFORMED_REQUEST");
}

#[tokio::test]
async fn the_operator_can_do_it_all_at_the_command_line() {
    let platform = Desk::start("tenants").await;
    let issuer = &platform.issuer;
    let cli = Cli::new(&issuer.database.url);
    let run = |arguments: &[&str]| cli.run(&[&["tenants"], arguments].concat()).expect_success();
    let json = |arguments: &[&str]| -> Value {
        serde_json::from_str(&run(&[arguments, &["--json"]].concat())).unwrap()
    };

    let made = json(&[
        "create",
        "--name",
        "Acme",
        "--administrator",
        "root@acme.example",
        "--audience",
        "https://acme.example",
        "--max-agents",
        "9",
    ]);
    let id = text(&made, "tenant_id");
    let client = Client::from_json(&made["administrator"]);
    issuer.token(&client).await;
    assert_eq!(json(&["show", id]), platform.read(id).await.json::<Value>().await.unwrap());

    let table = run(&["list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("TENANT_ID") && lines.len() == 3, "{table}");
    assert!(lines[2].starts_with(id) && lines[2].contains("Acme"), "{table}");
    let page = json(&["list", "--limit", "1"]);
    let rest = json(&["list", "--cursor", page["next_cursor"].as_str().unwrap()]);
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["items"][0]["tenant_id"]), (1, &json!(id)));
    assert_eq!(json(&["list", "--status", "suspended"])["items"], json!([]));

    let changed =
        json(&["update", id, "--plan", "paid", "--max-agents", "default", "--monthly-token-quota", "7"]);
    assert_eq!(
        (&changed["plan"], &changed["max_agents"], &changed["monthly_token_quota"], &changed["name"]),
        (&json!("paid"), &Value::Null, &json!(7), &json!("Acme"))
    );
    assert!(run(&["suspend", id]).contains("suspended"));
    assert_eq!(issuer.refused_soon(&client, &[]).await, (401, "invalid_client".into()));
    run(&["reactivate", id]);
    let another = json(&["add-administrator", id, "--email", "second@acme.example"]);
    assert!(text(&another, "client_secret").starts_with("csk_"));
    assert!(run(&["add-administrator", id, "--email", "third@acme.example"]).contains("shown this once"));
    // The way back in where the platform's own administrator is lost.
    let own = json(&["add-administrator", &issuer.administrator.tenant, "--email", "spare@platform.example"]);
    assert_eq!(own["scopes"], json!(MANAGEMENT));

    assert_eq!(cli.run(&["tenants", "decommission", id]).code(), Some(2), "without --yes");
    assert_eq!(json(&["decommission", id, "--yes"])["status"], "decommissioned");
    let said = cli.run(&["tenants", "reactivate", id]).expect_failure();
    assert_eq!(said, "the tenant was decommissioned, and stays so");
    let said = cli.run(&["tenants", "suspend", &issuer.administrator.tenant]).expect_failure();
    assert!(said.contains("platform's own tenant"), "{said}");
    let said = cli.run(&["tenants", "create", "--name", "ACME"]).expect_failure();
    assert_eq!(said, "a tenant has that name already");
    // By nobody in particular: the operator has no agent.
    let audit = issuer.database.audit("tenant.decommissioned").await;
    assert!(audit.len() == 2 && audit.iter().all(|row| row["actor"] == Value::Null), "{audit:?}");
    for wrong in
        [&["update", id][..], &["update", id, "--max-agents", "0"], &["create", "--name", ""], &["show", "x"]]
    {
        assert_eq!(cli.run(&[&["tenants"], wrong].concat()).code(), Some(2), "{wrong:?}");
    }
}
