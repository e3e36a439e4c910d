//! Errors that have nothing to do with any one resource.

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::Issuer;
use crate::support::issuer::{agent_body, envelope, oauth_error};

#[tokio::test]
async fn paths_and_methods_that_are_not_there() {
    let issuer = Issuer::start().await;
    for path in ["/", "/api/v1", "/api/v1/agents/", "/api/v2/agents", "/oauth2"] {
        let response = issuer.get(path).send().await.unwrap();
        assert_eq!(envelope(response).await, (404, "NOT_FOUND".into(), json!({})), "{path}");
    }
    for (method, path, allow) in [
        (Method::DELETE, "/api/v1/agents", "POST"),
        (Method::POST, "/.well-known/jwks.json", "GET,HEAD"),
        (Method::PUT, "/api/v1/agents/x/credentials", "POST"),
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

    issuer.database.execute("alter table audit_events rename to elsewhere").await;
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
