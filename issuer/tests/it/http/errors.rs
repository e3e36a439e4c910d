//! Errors that have nothing to do with any one resource, and the list of all of them.

use std::collections::BTreeSet;

use countersign_issuer::http::catalogue::{self, Code, OauthCode};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::issuer::{agent_body, envelope, oauth_error};
use crate::support::proxy::{Line, Proxy};
use crate::support::{ADMIN_TOKEN, AUDIENCE, Client, Issuer, TestDatabase, eventually};

#[tokio::test]
async fn paths_and_methods_that_are_not_there() {
    let issuer = Issuer::start().await;
    for path in ["/", "/api/v1", "/api/v1/agents/", "/api/v2/agents", "/oauth2"] {
        let response = issuer.get(path).send().await.unwrap();
        assert_eq!(envelope(response).await, (404, "NOT_FOUND".into(), json!({})), "{path}");
    }
    for (method, path, allow) in [
        (Method::DELETE, "/api/v1/agents", "POST,GET,HEAD"),
        (Method::POST, "/.well-known/jwks.json", "GET,HEAD"),
        (Method::PUT, "/api/v1/agents/x/credentials", "POST,GET,HEAD"),
    ] {
        let response = issuer.http.request(method, format!("{}{path}", issuer.url)).send().await.unwrap();
        assert_eq!(response.headers()["allow"], allow);
        assert_eq!(envelope(response).await, (405, "METHOD_NOT_ALLOWED".into(), json!({})));
    }
    let response = issuer.get("/oauth2/v1/token").send().await.unwrap();
    assert_eq!(response.headers()["allow"], "POST");
    assert_eq!(oauth_error(response).await, (405, "invalid_request".into()));
    let response = issuer.get("/oauth2/v1/nothing").send().await.unwrap();
    assert_eq!(oauth_error(response).await, (404, "invalid_request".into()));
}

#[tokio::test]
async fn bodies_that_are_no_json() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let post = || issuer.post("/api/v1/agents").bearer_auth(&token);
    let json = || post().header("content-type", "application/json");
    let deep = "[".repeat(50_000);
    for body in
        ["", "{", "null", "[]", "\"a\"", "{\"email\":\"a@b\",\"email\":\"c@d\"}", "{} {}", "{'a':1}", &deep]
    {
        let response = json().body(body.to_owned()).send().await.unwrap();
        let (status, code, _) = envelope(response).await;
        assert_eq!((status, code.as_str()), (400, "MALFORMED_REQUEST"), "{body:.40}");
    }
    let response = json().body(vec![0xff, 0xfe]).send().await.unwrap();
    assert_eq!(envelope(response).await.1, "MALFORMED_REQUEST");
    for request in [
        post().body("{}"),
        post().form(&[("email", "a@b")]),
        post().header("content-type", "text/json").body("{}"),
    ] {
        assert_eq!(
            envelope(request.send().await.unwrap()).await,
            (415, "UNSUPPORTED_MEDIA_TYPE".into(), json!({}))
        );
    }
    let request =
        post().header("content-type", "Application/JSON; charset=utf-8").body(agent_body(&[]).to_string());
    assert_eq!(request.send().await.unwrap().status(), StatusCode::CREATED);
}

#[tokio::test]
async fn bodies_that_are_too_long() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let post =
        || issuer.post("/api/v1/agents").bearer_auth(&token).header("content-type", "application/json");
    let response = post().body(" ".repeat(64 * 1024 + 1)).send().await.unwrap();
    assert_eq!(envelope(response).await, (413, "PAYLOAD_TOO_LARGE".into(), json!({})));
    // One byte less is only malformed.
    let response = post().body(" ".repeat(64 * 1024)).send().await.unwrap();
    assert_eq!(envelope(response).await.1, "MALFORMED_REQUEST");

    // Without a length: chunked, by hand.
    let mut connection =
        tokio::net::TcpStream::connect(issuer.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /api/v1/agents HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..17 {
        connection.write_all(format!("1000\r\n{}\r\n", " ".repeat(0x1000)).as_bytes()).await.unwrap();
    }
    connection.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 1024];
    let length = connection.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("PAYLOAD_TOO_LARGE"), "{answer}");
}

#[tokio::test]
async fn request_ids_are_the_caller_s_or_new() {
    let issuer = Issuer::start().await;
    let id = async |given: Option<&str>| {
        let mut request = issuer.get("/health");
        if let Some(given) = given {
            request = request.header("x-request-id", given);
        }
        request.send().await.unwrap().headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id(Some("abc.DEF_1-2")).await, "abc.DEF_1-2");
    for given in [None, Some("a b"), Some("a\"b"), Some("{}"), Some("a".repeat(65).as_str())] {
        let new = id(given).await;
        assert_eq!(new.len(), 36, "{new}");
    }
    // It is in the log and in the audit trail.
    let request = issuer.post("/oauth2/v1/token").header("x-request-id", "find-me");
    let client = &issuer.administrator;
    let request =
        request.basic_auth(&client.id, Some(&client.secret)).form(&[("grant_type", "client_credentials")]);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(issuer.database.audit("token.issued").await[0]["request"], "find-me");
    issuer.logged("find-me").await;
}

#[tokio::test]
async fn what_is_ours_says_nothing_about_the_inside() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    issuer.database.execute("alter table agents rename column owner to proprietor").await;
    let request = issuer.post("/api/v1/agents").bearer_auth(&token).json(&agent_body(&[]));
    let response = request.header("x-request-id", "broken").send().await.unwrap();
    let body = response.text().await.unwrap();
    assert!(body.contains("INTERNAL_ERROR") && !body.contains("owner") && !body.contains("column"), "{body}");
    let line = issuer.logged("internal error").await;
    assert!(line.contains("broken") && line.contains("owner"), "{line}");

    issuer.database.execute("alter table audit_queue rename to elsewhere").await;
    let response =
        issuer.oauth("token", &issuer.administrator, &[("grant_type", "client_credentials")]).await;
    assert_eq!(oauth_error(response).await, (500, "server_error".into()), "no audit, no token");
}

#[tokio::test]
async fn a_row_that_makes_no_sense_is_named_in_the_log() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    issuer.database.execute("alter table agents drop constraint agents_deployment_env_check").await;
    issuer.database.execute("update agents set deployment_env = 'moon'").await;
    let id = &issuer.administrator.id;
    let response = issuer.get(&format!("/api/v1/agents/{id}")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(envelope(response).await.1, "INTERNAL_ERROR");
    issuer.logged(&format!("agents row {id} makes no sense: `moon` is no DeploymentEnv")).await;
}

#[test]
fn the_reference_page_is_made_from_the_catalogue() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/errors.md");
    if std::env::var_os("REWRITE_DOCS").is_some() {
        std::fs::write(path, catalogue::page()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == catalogue::page(),
        "docs/reference/errors.md isn't what the catalogue says: write it by `countersign errors --markdown`, or run this with REWRITE_DOCS=1"
    );
}

/// Those that take more than one request, or a state that only the database can be put into at once.
async fn provoked_in_order(issuer: &Issuer, administrator: &str) -> Vec<(Code, Response)> {
    let send = async |method: &str, path: &str, body: serde_json::Value| {
        let method = method.parse().unwrap();
        let request = issuer.http.request(method, format!("{}{path}", issuer.url)).bearer_auth(administrator);
        request.json(&body).send().await.unwrap()
    };
    let made = async |path: &str, body: serde_json::Value| -> serde_json::Value {
        let response = send("POST", path, body).await;
        assert!(response.status().is_success(), "{path}");
        response.json().await.unwrap()
    };
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let mut responses = Vec::new();

    let agent =
        format!("/api/v1/agents/{}", text(&made("/api/v1/agents", agent_body(&[])).await["agent_id"]));
    let credentials = format!("{agent}/credentials");
    let credential = format!("{credentials}/{}", text(&made(&credentials, json!({})).await["credential_id"]));
    made(&format!("{credential}/rotate"), json!({})).await;
    responses
        .push((Code::RotationInProgress, send("POST", &format!("{credential}/rotate"), json!({})).await));
    send("DELETE", &credential, json!({})).await;
    responses
        .push((Code::CredentialNotActive, send("POST", &format!("{credential}/rotate"), json!({})).await));
    let full = loop {
        let response = send("POST", &credentials, json!({})).await;
        if !response.status().is_success() {
            break response;
        }
    };
    responses.push((Code::CredentialLimitReached, full));
    send("DELETE", &agent, json!({})).await;
    responses.push((Code::AgentDecommissioned, send("POST", &format!("{agent}/suspend"), json!({})).await));

    let tenant = &issuer.administrator.tenant;
    let alter = async |sql: String| issuer.database.execute(&sql).await;
    alter(format!("update tenants set max_agents = 1 where tenant_id = '{tenant}'")).await;
    responses.push((Code::AgentLimitReached, send("POST", "/api/v1/agents", agent_body(&[])).await));
    alter(format!("update tenants set max_agents = null where tenant_id = '{tenant}'")).await;
    let sql = "insert into identifier_owners (lookalikes, tenant_id) select 'urn:' || n,";
    alter(format!("{sql} '{tenant}' from generate_series(1, 999) n")).await;
    let identifier = json!({ "identifier": "https://one-more.example" });
    responses
        .push((Code::ResourceServerLimitReached, send("POST", "/api/v1/resource-servers", identifier).await));

    let ended = text(&made("/api/v1/tenants", json!({ "name": "ended" })).await["tenant_id"]);
    let ended = format!("/api/v1/tenants/{ended}");
    send("DELETE", &ended, json!({})).await;
    responses.push((Code::TenantDecommissioned, send("POST", &format!("{ended}/suspend"), json!({})).await));

    let keyed = async |key: &str| {
        let request = issuer.post("/api/v1/agents").bearer_auth(administrator).header("idempotency-key", key);
        request.json(&agent_body(&[])).send().await.unwrap()
    };
    assert!(keyed("used").await.status().is_success());
    responses.push((Code::IdempotencyKeyReused, keyed("used").await));
    let mut slow = issuer.database.pool.begin().await.unwrap();
    sqlx::query(
        "insert into idempotency_keys (tenant_id, agent_id, key, fingerprint)
         select tenant_id, agent_id, 'slow', sha256('x') from agents where agent_id = $1::uuid",
    )
    .bind(&issuer.administrator.id)
    .execute(&mut *slow)
    .await
    .unwrap();
    responses.push((Code::IdempotencyKeyInUse, keyed("slow").await));
    slow.rollback().await.unwrap();

    // Of a tenant that isn't the platform's, an administrator that somehow came by platform scopes.
    let other = issuer.other_tenant().await;
    alter(format!("update agents set scopes = scopes || '{{tenants:read}}' where agent_id = '{}'", other.id))
        .await;
    let token = issuer.management_token(&other).await;
    let create = issuer.post("/api/v1/agents").bearer_auth(&token).json(&agent_body(&["tenants:read"]));
    responses.push((Code::PlatformScopeReserved, create.send().await.unwrap()));
    alter(format!("update tenants set client_requests_per_minute = 1 where tenant_id = '{}'", other.tenant))
        .await;
    let read = || issuer.get("/api/v1/agents").bearer_auth(&token);
    let limited = eventually("the limit", 5, async || {
        let response = read().send().await.unwrap();
        (response.status() == StatusCode::TOO_MANY_REQUESTS).then_some(response)
    });
    responses.push((Code::RateLimitExceeded, limited.await));
    responses
}

/// What provokes each code of the envelope.
async fn provoked(issuer: &Issuer) -> Vec<(Code, Response)> {
    let administrator = issuer.management_token(&issuer.administrator).await;
    let nobody = "00000000-0000-4000-8000-000000000000";
    let get = |path: &str| issuer.get(path).bearer_auth(&administrator);
    let post = |path: &str| issuer.post(path).bearer_auth(&administrator);
    let reader = issuer.scoped_token("agents:read").await;
    let writer = issuer.scoped_token("agents:write").await;
    let agent = issuer.register(&administrator, &agent_body(&[])).await;
    let suspended = issuer.register(&administrator, &agent_body(&[])).await;
    let suspended = suspended["agent_id"].as_str().unwrap();
    issuer
        .database
        .execute(&format!("update agents set status = 'suspended' where agent_id = '{suspended}'"))
        .await;
    let taken = agent["email"].clone();
    let with_email = |email: &serde_json::Value| {
        let mut body = agent_body(&[]);
        body["email"] = email.clone();
        body
    };
    let other = issuer.other_tenant().await;
    let foreign = issuer.token(&other).await;
    let patch = |agent: &serde_json::Value| {
        let url = format!("{}/api/v1/agents/{}", issuer.url, agent["agent_id"].as_str().unwrap());
        issuer.http.patch(url).bearer_auth(&administrator)
    };
    let end = |body: serde_json::Value| post("/api/v1/revocations").json(&body);

    let mut requests: Vec<(Code, RequestBuilder)> = vec![
        (Code::MalformedRequest, get("/api/v1/agents/x")),
        (Code::ValidationError, post("/api/v1/agents").json(&json!({}))),
        (Code::Unauthorized, issuer.get(&format!("/api/v1/agents/{nobody}"))),
        (Code::InsufficientScope, issuer.post("/api/v1/agents").bearer_auth(&reader).json(&agent_body(&[]))),
        (
            Code::ScopeEscalation,
            issuer.post("/api/v1/agents").bearer_auth(&writer).json(&agent_body(&["tokens:revoke"])),
        ),
        (Code::AgentNotFound, get(&format!("/api/v1/agents/{nobody}"))),
        (Code::CredentialNotFound, end(json!({ "credential_id": nobody }))),
        (Code::TokenNotFound, end(json!({ "token": foreign }))),
        (Code::TenantNotFound, end(json!({ "tenant_id": nobody }))),
        (Code::KeyNotFound, end(json!({ "key_id": "none" }))),
        (Code::StatusListNotFound, get("/status-lists/0")),
        (Code::NotAcceptable, get("/status-lists/0").header("accept", "text/html")),
        (Code::HistoryNotKept, get("/status-lists/0?time=0")),
        (Code::NotFound, get("/api/v1/nowhere")),
        (Code::MethodNotAllowed, issuer.http.put(format!("{}/api/v1/agents", issuer.url))),
        (Code::AgentAlreadyExists, post("/api/v1/agents").json(&with_email(&taken))),
        (Code::AgentNotActive, post(&format!("/api/v1/agents/{suspended}/credentials")).json(&json!({}))),
        (
            Code::PayloadTooLarge,
            post("/api/v1/agents").header("content-type", "application/json").body(" ".repeat(70_000)),
        ),
        (Code::UriTooLong, get(&format!("/{}", "a".repeat(9000)))),
        (Code::UnsupportedMediaType, post("/api/v1/agents").body("{}")),
        (Code::ResourceServerNotFound, get(&format!("/api/v1/resource-servers/{nobody}"))),
        (Code::AuditEventNotFound, get(&format!("/api/v1/audit/{nobody}"))),
        (Code::AgentIsCaller, post(&format!("/api/v1/agents/{}/suspend", issuer.administrator.id))),
        (Code::PreconditionRequired, patch(&agent).json(&json!({ "version": "2" }))),
        (
            Code::PreconditionFailed,
            patch(&agent).header("if-match", "\"999\"").json(&json!({ "version": "2" })),
        ),
        (Code::PlatformTenant, post(&format!("/api/v1/tenants/{}/suspend", issuer.administrator.tenant))),
        (Code::TenantAlreadyExists, post("/api/v1/tenants").json(&json!({ "name": "default" }))),
        (
            Code::ResourceServerAlreadyExists,
            post("/api/v1/resource-servers").json(&json!({ "identifier": AUDIENCE })),
        ),
        // More lines go here, before what breaks the database.
    ];
    let mut responses = Vec::new();
    for (code, request) in requests.drain(..) {
        responses.push((code, request.send().await.unwrap()));
    }
    responses.extend(provoked_in_order(issuer, &administrator).await);
    issuer.database.execute("alter table agents rename column owner to proprietor").await;
    responses
        .push((Code::InternalError, post("/api/v1/agents").json(&agent_body(&[])).send().await.unwrap()));
    issuer.database.execute("alter table agents rename column proprietor to owner").await;
    responses
}

/// What provokes each word of OAuth's.
async fn provoked_oauth(issuer: &Issuer) -> Vec<(OauthCode, Response)> {
    let client = issuer.new_client(&["orders:read"]).await;
    let token = issuer.token(&issuer.administrator).await;
    let send = async |endpoint: &str, form: &[(&str, &str)]| issuer.oauth(endpoint, &client, form).await;
    let grant = ("grant_type", "client_credentials");
    let mut responses = vec![
        (OauthCode::InvalidRequest, send("token", &[]).await),
        (OauthCode::UnauthorizedClient, send("revoke", &[("token", &token)]).await),
        (OauthCode::UnsupportedGrantType, send("token", &[("grant_type", "password")]).await),
        (OauthCode::InvalidScope, send("token", &[grant, ("scope", "orders:write")]).await),
        (OauthCode::InvalidTarget, send("token", &[grant, ("resource", "https://nobody.example")]).await),
        (OauthCode::InvalidClient, issuer.post("/oauth2/v1/token").form(&[grant]).send().await.unwrap()),
        (OauthCode::NoSuchEndpoint, issuer.post("/oauth2/v1/nothing").send().await.unwrap()),
        (OauthCode::WrongMethod, issuer.get("/oauth2/v1/token").send().await.unwrap()),
        (
            OauthCode::TargetTooLong,
            issuer.post(&format!("/oauth2/v1/token?{}", "a".repeat(9000))).send().await.unwrap(),
        ),
    ];
    // Limits: they have a code of the envelope besides.
    let other = issuer.other_tenant().await;
    let limit = async |column: &str, value: u32| {
        let tenant = &other.tenant;
        issuer
            .database
            .execute(&format!("update tenants set {column} = {value} where tenant_id = '{tenant}'"))
            .await;
    };
    let refused = async |what: &str, status: StatusCode| {
        eventually(what, 5, async || {
            let response = issuer.oauth("token", &other, &[grant]).await;
            (response.status() == status).then_some(response)
        })
        .await
    };
    limit("monthly_token_quota", 0).await;
    responses.push((OauthCode::AccessDenied, refused("the quota", StatusCode::FORBIDDEN).await));
    limit("client_requests_per_minute", 1).await;
    responses.push((OauthCode::RateLimited, refused("the limit", StatusCode::TOO_MANY_REQUESTS).await));
    let wrong = Client { secret: "wrong".to_owned(), ..issuer.new_client(&[]).await };
    let locked = eventually("the lockout", 5, async || {
        let response = issuer.oauth("token", &wrong, &[grant]).await;
        (response.status() == StatusCode::TOO_MANY_REQUESTS).then_some(response)
    });
    responses.push((OauthCode::LockedOut, locked.await));
    // Whether a token was revoked is asked of the database each time.
    let live = issuer.token(&client).await;
    issuer.database.execute("alter table revocations rename column jti to id").await;
    responses.push((OauthCode::ServerError, send("introspect", &[("token", &live)]).await));
    issuer.database.execute("alter table revocations rename column id to jti").await;
    responses
}

#[tokio::test]
async fn every_code_is_provoked() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let (proxy, url) = Proxy::before(&database.url, Line::Open).await;
    let issuer = Issuer::start_on(database.into(), administrator, |cli| {
        // Its lockouts are its own: other tests come from this address too.
        cli.env("DATABASE_URL", &url)
            .env("LOCKOUT_ATTEMPTS", "3")
            .env("ADMIN_TOKEN", ADMIN_TOKEN)
            .without("REDIS_URL")
    })
    .await;
    let mut responses = provoked(&issuer).await;
    let shutdown = issuer.http.post(format!("{}/shutdown", issuer.admin_url));
    let page = shutdown.try_clone().unwrap().header("origin", "https://page.example");
    responses.push((Code::OperatorTokenRequired, shutdown.send().await.unwrap()));
    responses.push((Code::AccessRefused, page.bearer_auth(ADMIN_TOKEN).send().await.unwrap()));
    let mut oauth = provoked_oauth(&issuer).await;
    let token = issuer.management_token(&issuer.administrator).await;
    let switch = async |on: bool| {
        let request = issuer.http.post(format!("{}/maintenance", issuer.admin_url)).bearer_auth(ADMIN_TOKEN);
        assert_eq!(request.json(&json!({ "on": on })).send().await.unwrap().status(), StatusCode::OK);
    };
    switch(true).await;
    let change = issuer.post("/api/v1/agents").bearer_auth(&token).json(&agent_body(&[]));
    responses.push((Code::Maintenance, change.send().await.unwrap()));
    switch(false).await;
    proxy.set(Line::Cut);
    let path = format!("/api/v1/agents/{}", issuer.administrator.id);
    responses.push((Code::ServiceUnavailable, issuer.get(&path).bearer_auth(&token).send().await.unwrap()));
    let grant = [("grant_type", "client_credentials")];
    oauth.push((
        OauthCode::TemporarilyUnavailable,
        issuer.oauth("token", &issuer.administrator, &grant).await,
    ));

    let mut seen = BTreeSet::new();
    for (code, response) in responses {
        let (status, word, _) = envelope(response).await;
        assert_eq!((status, word.as_str()), (code.status().as_u16(), code.as_str()));
        seen.insert(code.as_str());
    }
    // At OAuth endpoints only, beside OAuth's own words: below, and in tests/it/limits.rs.
    seen.extend([Code::ClientLockedOut.as_str(), Code::FreeTierLimitExceeded.as_str()]);
    // In tests/it/http/works.rs.
    seen.insert(Code::Overloaded.as_str());
    let missing: BTreeSet<&str> =
        Code::ALL.iter().map(|code| code.as_str()).filter(|code| !seen.contains(code)).collect();
    assert_eq!(missing, BTreeSet::new(), "left: nothing provokes these");

    let mut seen = BTreeSet::new();
    for (code, response) in oauth {
        let (status, word) = oauth_error(response).await;
        assert_eq!((status, word.as_str()), (code.status().as_u16(), code.as_str()), "{code:?}");
        seen.insert((code.as_str(), status));
    }
    let missing: Vec<&OauthCode> = OauthCode::ALL
        .iter()
        .filter(|code| !seen.contains(&(code.as_str(), code.status().as_u16())))
        .collect();
    assert!(missing.is_empty(), "nothing provokes {missing:?}");
}
