//! Pages of other origins, and what keeps browsers from doing harm with answers.

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::issuer::agent_body;
use crate::support::{ISSUER, Issuer};

const APP: &str = "https://app.example";

async fn issuer() -> Issuer {
    Issuer::start_with(|cli| cli.env("CORS_ALLOWED_ORIGINS", "https://app.example, http://localhost:5173"))
        .await
}

async fn preflight(issuer: &Issuer, path: &str, origin: &str, method: &str) -> (StatusCode, HeaderMap) {
    let request = issuer.http.request(Method::OPTIONS, format!("{}{path}", issuer.url));
    let request = request.header("origin", origin).header("access-control-request-method", method);
    let response =
        request.header("access-control-request-headers", "authorization,content-type").send().await.unwrap();
    (response.status(), response.headers().clone())
}

#[tokio::test]
async fn a_listed_origin_may_call_every_route() {
    let issuer = issuer().await;
    let api: serde_json::Value = issuer.get("/openapi.json").send().await.unwrap().json().await.unwrap();
    for (path, item) in api["paths"].as_object().unwrap() {
        let path = path.replace(['{', '}'], "");
        for method in item.as_object().unwrap().keys().filter(|method| *method != "parameters") {
            let method = method.to_ascii_uppercase();
            for origin in [APP, "http://localhost:5173"] {
                let (status, headers) = preflight(&issuer, &path, origin, &method).await;
                assert_eq!(status, StatusCode::NO_CONTENT, "{path}");
                assert_eq!(headers["access-control-allow-origin"], origin);
                assert_eq!(headers["vary"], "origin");
                assert_eq!(headers["access-control-max-age"], "600");
                let allowed = headers["access-control-allow-methods"].to_str().unwrap();
                assert!(allowed.split(',').any(|allowed| allowed.trim() == method), "{path}: {allowed}");
                let allowed = headers["access-control-allow-headers"].to_str().unwrap();
                for header in ["authorization", "content-type", "if-match", "idempotency-key", "x-request-id"]
                {
                    assert!(allowed.split(", ").any(|allowed| allowed == header), "{allowed}");
                }
                assert!(!headers.contains_key("access-control-allow-credentials"));
            }
        }
    }
}

#[tokio::test]
async fn answers_are_shared_with_listed_origins_only() {
    let issuer = issuer().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let register = || issuer.post("/api/v1/agents").bearer_auth(&token).json(&agent_body(&[]));
    // The refusal too: a page wants to know why.
    for (request, status) in [
        (register(), StatusCode::CREATED),
        (issuer.post("/api/v1/agents").json(&json!({})), StatusCode::UNAUTHORIZED),
        (issuer.get("/nowhere"), StatusCode::NOT_FOUND),
    ] {
        let response = request.header("origin", APP).send().await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["access-control-allow-origin"], APP);
        assert_eq!(response.headers()["vary"], "origin");
        let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap();
        for header in
            ["etag", "location", "retry-after", "ratelimit", "x-ratelimit-remaining", "x-request-id"]
        {
            assert!(exposed.split(", ").any(|exposed| exposed == header), "{exposed}");
        }
    }
    for origin in [
        "https://evil.example",
        "https://app.example.evil.example",
        "https://app.example:444",
        "http://app.example",
        "null",
        "",
    ] {
        let response = issuer.get("/health").header("origin", origin).send().await.unwrap();
        assert!(!response.headers().contains_key("access-control-allow-origin"), "{origin}");
        assert_eq!(response.headers()["vary"], "origin", "a cache must not give it to another origin");
        let (status, headers) = preflight(&issuer, "/api/v1/agents", origin, "POST").await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        assert!(!headers.keys().any(|name| name.as_str().starts_with("access-control-")), "{origin}");
    }
    let response = issuer.get("/health").send().await.unwrap();
    assert_eq!(response.headers()["vary"], "origin");
}

#[tokio::test]
async fn nobody_is_listed_by_default_and_anybody_only_in_development() {
    let issuer = Issuer::start().await;
    let response = issuer.get("/health").header("origin", APP).send().await.unwrap();
    assert!(!response.headers().keys().any(|name| name.as_str().starts_with("access-control-")));
    assert!(!response.headers().contains_key("vary"));

    let open = Issuer::start_with(|cli| {
        let cli = cli.env("CORS_ALLOWED_ORIGINS", "*").env("LOG_FORMAT", "json");
        cli.env("COUNTERSIGN_ENV", "development")
    })
    .await;
    let response = open.get("/health").header("origin", APP).send().await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    assert!(!response.headers().contains_key("access-control-allow-credentials"));
}

#[tokio::test]
async fn every_answer_has_its_policies() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let long = format!("/{}", "a".repeat(9000));
    let requests = [
        issuer.get("/health"),
        issuer.get("/ready"),
        issuer.get("/docs"),
        issuer.get("/openapi.json"),
        issuer.get("/.well-known/jwks.json"),
        issuer.get("/nowhere"),
        issuer.get("/oauth2/v1/token"),
        issuer.get(&long),
        issuer.post("/oauth2/v1/token").form(&[("a", "b")]),
        issuer.post("/api/v1/agents").bearer_auth(&token).json(&agent_body(&[])),
        issuer.post("/api/v1/agents"),
        issuer.http.get(format!("{}/livez", issuer.admin_url)),
        issuer.http.head(format!("{}/health", issuer.url)),
    ];
    assert!(ISSUER.starts_with("https://"));
    for request in requests {
        let response = request.send().await.unwrap();
        let (url, headers) = (response.url().clone(), response.headers());
        let is = |name: &str, value: &str| {
            assert_eq!(headers.get(name).map(|value| value.to_str().unwrap()), Some(value), "{url}: {name}");
        };
        is("x-content-type-options", "nosniff");
        is("x-frame-options", "DENY");
        is("referrer-policy", "no-referrer");
        is("strict-transport-security", "max-age=31536000");
        assert!(!headers.contains_key("server") && !headers.contains_key("x-powered-by"), "{url}");
        match url.path() {
            "/docs" | "/openapi.json" => is("cache-control", "no-cache"),
            path if path.starts_with("/.well-known/") => is("cache-control", "public, max-age=300"),
            _ => is("cache-control", "no-store"),
        }
        if url.path() != "/docs" {
            is("content-security-policy", "default-src 'none'; frame-ancestors 'none'");
        }
    }
    let plain = Issuer::start_with(|cli| cli.env("ISSUER_URL", "http://127.0.0.1:3000")).await;
    let response = plain.get("/health").send().await.unwrap();
    assert!(!response.headers().contains_key("strict-transport-security"));
}
