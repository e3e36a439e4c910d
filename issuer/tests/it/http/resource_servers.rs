//! `/api/v1/resource-servers`.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::cli::Cli;
use crate::support::desk::Desk;
use crate::support::issuer::{agent_body, claims, envelope, oauth_error};
use crate::support::{AUDIENCE, ISSUER, eventually};

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

#[tokio::test]
async fn tokens_are_for_what_is_registered_and_live_as_long_as_it_says() {
    let desk = Desk::start("resource-servers").await;
    let issuer = &desk.issuer;
    let agent = issuer.register(&desk.token, &agent_body(&[])).await;
    let body = json!({
        "identifier": "https://orders.example/v1", "name": "Orders", "token_lifetime_seconds": 60, "agent_id": agent["agent_id"],
    });
    let response = desk.create(&body).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let (location, etag) = (response.headers()["location"].clone(), response.headers()["etag"].clone());
    let made: Value = response.json().await.unwrap();
    let id = text(&made, "resource_server_id");
    assert_eq!(location, format!("{ISSUER}/api/v1/resource-servers/{id}"));
    let mut expected = body;
    for (name, value) in [
        ("resource_server_id", made["resource_server_id"].clone()),
        ("tenant_id", json!(issuer.administrator.tenant)),
        ("is_default", json!(false)),
        ("signing_algorithm", json!(null)),
        ("status_list", json!(false)),
        ("created_at", made["created_at"].clone()),
        ("updated_at", made["created_at"].clone()),
    ] {
        expected[name] = value;
    }
    assert_eq!(made, expected);
    let read = desk.read(id).await;
    assert_eq!(read.headers()["etag"], etag);
    assert_eq!(read.json::<Value>().await.unwrap(), made);

    let granted = issuer.grant(&issuer.administrator, &[("resource", "https://orders.example/v1")]).await;
    assert_eq!(granted["expires_in"], 60);
    // Byte for byte (RFC 8707 §2).
    for other in ["https://orders.example/v1/", "https://orders.example/V1", "https://orders.example"] {
        let refused = issuer.oauth("token", &issuer.administrator, &[GRANT, ("resource", other)]).await;
        assert_eq!(oauth_error(refused).await, (400, "invalid_target".into()), "{other}");
    }
    let audit = issuer.database.audit("resource_server.created").await;
    assert_eq!((&audit[0]["target"], &audit[0]["actor"]), (&json!(id), &json!(issuer.administrator.id)));
}

#[tokio::test]
async fn there_is_one_default_at_most() {
    let desk = Desk::start("resource-servers").await;
    let issuer = &desk.issuer;
    // Within the second that a change takes to reach every replica's memory.
    let aud_becomes = async |expected: &str| {
        let is = async || {
            let response = issuer.oauth("token", &issuer.administrator, &[GRANT]).await;
            let aud = if response.status() == StatusCode::OK {
                let granted: Value = response.json().await.unwrap();
                claims(text(&granted, "access_token"))["aud"].as_str().unwrap().to_owned()
            } else {
                oauth_error(response).await.1
            };
            (aud == expected).then_some(())
        };
        eventually(expected, 1, is).await;
    };
    aud_becomes(AUDIENCE).await;
    let second = desk.created(&json!({ "identifier": "https://two.example", "is_default": true })).await;
    aud_becomes("https://two.example").await;
    let third = desk.created(&json!({ "identifier": "https://three.example" })).await;
    aud_becomes("https://two.example").await;
    let (second, third) = (text(&second, "resource_server_id"), text(&third, "resource_server_id"));
    assert_eq!(desk.patch(third, &json!({ "is_default": true })).await.status(), StatusCode::OK);
    aud_becomes("https://three.example").await;
    let read: Value = desk.read(second).await.json().await.unwrap();
    assert_eq!(read["is_default"], false);

    // Several at once: one of them is it.
    let at_once = (0..6).map(|number| {
        let id = if number % 2 == 0 { second } else { third };
        async { desk.patch(id, &json!({ "is_default": true })).await.status() }
    });
    for status in futures_util::future::join_all(at_once).await {
        assert_eq!(status, StatusCode::OK);
    }
    let defaults: i64 = issuer.database.value("select count(*) from resource_servers where is_default").await;
    assert_eq!(defaults, 1);
    let of_all: i64 = issuer.database.value("select count(*) from resource_servers").await;
    assert_eq!(of_all, 3);
    for id in [second, third] {
        assert_eq!(desk.patch(id, &json!({ "is_default": false })).await.status(), StatusCode::OK);
    }
    // None is a choice too.
    aud_becomes("invalid_target").await;
}

#[tokio::test]
async fn an_identifier_is_one_tenant_s_with_all_that_look_like_it() {
    let desk = Desk::start("resource-servers").await;
    let issuer = &desk.issuer;
    let other = issuer.other_tenant().await;
    let others = issuer.management_token(&other).await;
    let try_as = async |token: &str, identifier: &str| {
        let request = issuer
            .post("/api/v1/resource-servers")
            .bearer_auth(token)
            .json(&json!({ "identifier": identifier }));
        request.send().await.unwrap()
    };
    let made = desk.created(&json!({ "identifier": "https://bank.example/Pay" })).await;
    for alike in [
        "https://bank.example/Pay",
        "https://bank.example/pay",
        "https://bank.example/Pay/",
        "https://bank.example/PAY//",
    ] {
        let refused = try_as(&others, alike).await;
        assert_eq!(
            envelope(refused).await,
            (409, "RESOURCE_SERVER_ALREADY_EXISTS".into(), json!({})),
            "{alike}"
        );
    }
    // To its owner the very same is taken, the others aren't.
    assert_eq!(
        envelope(try_as(&desk.token, "https://bank.example/Pay").await).await.1,
        "RESOURCE_SERVER_ALREADY_EXISTS"
    );
    assert_eq!(try_as(&desk.token, "https://bank.example/Pay/").await.status(), StatusCode::CREATED);
    // What begins alike is another.
    assert_eq!(try_as(&others, "https://bank.example/Payments").await.status(), StatusCode::CREATED);

    // Deleted, it stays its owner's: an API may still take tokens for it.
    let id = text(&made, "resource_server_id");
    let audience = ("resource", "https://bank.example/Pay");
    let token = issuer.grant(&issuer.administrator, &[audience]).await;
    assert_eq!(desk.to(id, "decommission").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(envelope(desk.to(id, "decommission").await).await.1, "RESOURCE_SERVER_NOT_FOUND");
    assert_eq!(issuer.refused_soon(&issuer.administrator, &[audience]).await, (400, "invalid_target".into()));
    assert!(issuer.is_active(&issuer.administrator, text(&token, "access_token")).await, "until it expires");
    assert_eq!(
        envelope(try_as(&others, "https://bank.example/Pay").await).await.1,
        "RESOURCE_SERVER_ALREADY_EXISTS"
    );
    let again = try_as(&desk.token, "https://bank.example/Pay").await.json::<Value>().await.unwrap();

    // The operator can let it go.
    let cli = Cli::new(&issuer.database.url);
    let release = ["resource-servers", "release", "https://bank.example/Pay"];
    assert!(cli.run(&release).expect_failure().contains("still has a resource server"));
    issuer.database.execute("delete from resource_servers where identifier like 'https://bank.example/Pay%' and identifier <> 'https://bank.example/Payments'").await;
    let wrong = cli.run(&[&release[..], &["--tenant", &other.tenant]].concat()).expect_failure();
    assert!(wrong.contains("doesn't have this identifier"), "{wrong}");
    cli.run(&release).expect_success();
    assert_eq!(try_as(&others, "https://bank.example/Pay").await.status(), StatusCode::CREATED);
    assert_eq!(
        envelope(
            desk.request("GET", &format!("/{}", text(&again, "resource_server_id"))).send().await.unwrap()
        )
        .await
        .0,
        404
    );
}

#[tokio::test]
async fn two_tenants_at_once_one_gets_it() {
    let desk = Desk::start("resource-servers").await;
    let issuer = &desk.issuer;
    let others = issuer.management_token(&issuer.other_tenant().await).await;
    for number in 0..10 {
        let send = async |token: &str, slash: &str| {
            let body = json!({ "identifier": format!("https://race-{number}.example{slash}") });
            issuer
                .post("/api/v1/resource-servers")
                .bearer_auth(token)
                .json(&body)
                .send()
                .await
                .unwrap()
                .status()
                .as_u16()
        };
        let (one, two) = tokio::join!(send(&desk.token, ""), send(&others, "/"));
        let mut both = [one, two];
        both.sort_unstable();
        assert_eq!(both, [201, 409]);
    }
}

#[tokio::test]
async fn takes_only_what_is_sound() {
    let desk = Desk::start("resource-servers").await;
    let stranger = desk.issuer.other_tenant().await;
    let gone = desk.issuer.register(&desk.token, &agent_body(&[])).await;
    let gone = text(&gone, "agent_id");
    desk.issuer
        .database
        .execute(&format!("update agents set status = 'decommissioned' where agent_id = '{gone}'"))
        .await;
    for (field, value) in [
        ("identifier", json!("")),
        ("identifier", json!("two words")),
        ("identifier", json!("https://x.example/#fragment")),
        ("identifier", json!("https://X.example")),
        ("identifier", json!("https://x.example:443")),
        ("identifier", json!("https://x.example/a/../b")),
        ("identifier", json!("https://user@x.example")),
        ("identifier", json!(format!("https://x.example/{}", "a".repeat(500)))),
        ("identifier", json!(ISSUER)),
        ("identifier", json!(format!("{ISSUER}/"))),
        ("name", json!("")),
        ("token_lifetime_seconds", json!(0)),
        ("token_lifetime_seconds", json!(86_401)),
        ("is_default", json!("yes")),
        ("agent_id", json!("x")),
        ("agent_id", json!("00000000-0000-4000-8000-000000000000")),
        ("agent_id", json!(stranger.id)),
        ("agent_id", json!(gone)),
        ("tenant_id", json!(stranger.tenant)),
    ] {
        let mut body = json!({ "identifier": "https://sound.example" });
        body[field] = value.clone();
        let (status, code, details) = envelope(desk.create(&body).await).await;
        assert_eq!((status, code.as_str()), (400, "VALIDATION_ERROR"), "{field} {value}");
        assert_eq!(
            (details["fields"].as_array().unwrap().len(), text(&details["fields"][0], "field")),
            (1, field),
            "{value}"
        );
    }
    let made = desk.created(&json!({ "identifier": "https://sound.example" })).await;
    let id = text(&made, "resource_server_id");
    for wrong in [
        json!({ "identifier": "https://another.example" }),
        json!({ "is_default": null }),
        json!({ "agent_id": stranger.id }),
    ] {
        assert_eq!(envelope(desk.patch(id, &wrong).await).await.1, "VALIDATION_ERROR", "{wrong}");
    }
    let without =
        desk.request("PATCH", &format!("/{id}")).json(&json!({ "name": "x" })).send().await.unwrap();
    assert_eq!(envelope(without).await.1, "PRECONDITION_REQUIRED");
    let stale =
        desk.request("PATCH", &format!("/{id}")).header("if-match", "\"99\"").json(&json!({ "name": "x" }));
    assert_eq!(envelope(stale.send().await.unwrap()).await.1, "PRECONDITION_FAILED");
    let stale = desk.request("DELETE", &format!("/{id}")).header("if-match", "\"99\"").send().await.unwrap();
    assert_eq!(envelope(stale).await.1, "PRECONDITION_FAILED");
    assert_eq!(envelope(desk.request("GET", "/1").send().await.unwrap()).await.1, "MALFORMED_REQUEST");
}

#[tokio::test]
async fn lists_and_changes() {
    let desk = Desk::start("resource-servers").await;
    let mut identifiers = vec![AUDIENCE.to_owned()];
    for number in 0..4 {
        let identifier = format!("https://{number}.example");
        desk.created(&json!({ "identifier": identifier })).await;
        identifiers.push(identifier);
    }
    let mut listed = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page: Value = desk.request("GET", &query).send().await.unwrap().json().await.unwrap();
        listed
            .extend(page["items"].as_array().unwrap().iter().map(|item| text(item, "identifier").to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=2&cursor={cursor}");
    }
    assert_eq!(listed, identifiers);

    let made = desk
        .created(
            &json!({ "identifier": "https://change.example", "name": "Old", "token_lifetime_seconds": 5 }),
        )
        .await;
    let id = text(&made, "resource_server_id");
    let changed: Value =
        desk.patch(id, &json!({ "name": null, "token_lifetime_seconds": 70 })).await.json().await.unwrap();
    assert_eq!((&changed["name"], &changed["token_lifetime_seconds"]), (&Value::Null, &json!(70)));
    let changed: Value =
        desk.patch(id, &json!({ "token_lifetime_seconds": null })).await.json().await.unwrap();
    assert_eq!(changed["token_lifetime_seconds"], Value::Null);
    assert_eq!(desk.issuer.database.audit("resource_server.updated").await.len(), 2);
}

#[tokio::test]
async fn each_call_takes_its_scope() {
    let desk = Desk::start("resource-servers").await;
    let issuer = &desk.issuer;
    let (reader, writer) = (
        issuer.scoped_token("resource_servers:read").await,
        issuer.scoped_token("resource_servers:write").await,
    );
    let id = "00000000-0000-4000-8000-000000000000";
    for (method, path, token, scope) in [
        ("GET", String::new(), &writer, "resource_servers:read"),
        ("GET", format!("/{id}"), &writer, "resource_servers:read"),
        ("POST", String::new(), &reader, "resource_servers:write"),
        ("PATCH", format!("/{id}"), &reader, "resource_servers:write"),
        ("DELETE", format!("/{id}"), &reader, "resource_servers:write"),
    ] {
        let url = format!("{}/api/v1/resource-servers{path}", issuer.url);
        let request = issuer.http.request(method.parse().unwrap(), url).bearer_auth(token);
        let (status, code, details) = envelope(request.send().await.unwrap()).await;
        assert_eq!((status, code.as_str()), (403, "INSUFFICIENT_SCOPE"), "{method} {path}");
        assert_eq!(details, json!({ "required_scope": scope }));
    }
}

#[tokio::test]
async fn a_tenant_s_identifiers_are_bounded() {
    let desk = Desk::start("resource-servers").await;
    let tenant = &desk.issuer.administrator.tenant;
    desk.issuer
        .database
        .execute(&format!(
            "insert into identifier_owners (lookalikes, tenant_id) select 'urn:' || n, '{tenant}' from generate_series(1, 999) n"
        ))
        .await;
    let refused = desk.create(&json!({ "identifier": "https://one-more.example" })).await;
    assert_eq!(envelope(refused).await, (409, "RESOURCE_SERVER_LIMIT_REACHED".into(), json!({})));
    desk.created(&json!({ "identifier": "urn:7" })).await;
}

#[tokio::test]
async fn a_request_sent_again_registers_nothing_twice() {
    let desk = Desk::start("resource-servers").await;
    let send = async || {
        let request = desk
            .request("POST", "")
            .header("idempotency-key", "once")
            .json(&json!({ "identifier": "https://once.example" }));
        request.send().await.unwrap()
    };
    let first: Value = send().await.json().await.unwrap();
    let again = send().await;
    assert_eq!((again.status(), again.json::<Value>().await.unwrap()), (StatusCode::CREATED, first));
}

#[tokio::test]
async fn the_operator_can_do_it_all_at_the_command_line() {
    let desk = Desk::start("resource-servers").await;
    let issuer = &desk.issuer;
    let other = issuer.other_tenant().await;
    let cli = Cli::new(&issuer.database.url);
    let run = |arguments: &[&str]| cli.run(&[&["resource-servers"], arguments].concat()).expect_success();
    let json = |arguments: &[&str]| -> Value {
        serde_json::from_str(&run(&[arguments, &["--json"]].concat())).unwrap()
    };

    let made = json(&[
        "create",
        "https://cli.example",
        "--name",
        "By hand",
        "--token-lifetime",
        "30",
        "--default",
        "--agent",
        &issuer.administrator.id,
    ]);
    let id = text(&made, "resource_server_id");
    assert_eq!(json(&["show", id]), desk.read(id).await.json::<Value>().await.unwrap());
    assert_eq!(issuer.grant(&issuer.administrator, &[]).await["expires_in"], 30);
    let table = run(&["list"]);
    assert!(table.starts_with("RESOURCE_SERVER_ID") && table.lines().count() == 3, "{table}");
    assert!(run(&["list", "--limit", "1"]).contains("There are more: --cursor "));
    let changed = json(&[
        "update",
        id,
        "--token-lifetime",
        "default",
        "--agent",
        "none",
        "--name",
        "",
        "--default",
        "false",
    ]);
    assert_eq!(
        (&changed["token_lifetime_seconds"], &changed["agent_id"], &changed["name"], &changed["is_default"]),
        (&Value::Null, &Value::Null, &Value::Null, &json!(false))
    );
    // Another tenant's isn't there.
    let theirs = json(&["list", "--tenant", &other.tenant]);
    let theirs = text(&theirs["items"][0], "resource_server_id");
    assert_eq!(cli.run(&["resource-servers", "show", theirs]).expect_failure(), "no such resource server");
    run(&["show", theirs, "--tenant", &other.tenant]);

    assert!(run(&["delete", id]).contains("live until they expire"));
    let said = cli.run(&["resource-servers", "create", &format!("{ISSUER}/")]).expect_failure();
    assert_eq!(said, "identifier must not be the issuer's URL: its own API is another one");
    for wrong in [
        &["create", "two words"][..],
        &["create", "x", "--token-lifetime", "0"],
        &["update", id],
        &["show", "x"],
    ] {
        assert_eq!(cli.run(&[&["resource-servers"], wrong].concat()).code(), Some(2), "{wrong:?}");
    }
}
