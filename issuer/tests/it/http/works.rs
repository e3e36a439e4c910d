//! More requests than may be in the works: the others wait for a moment, and are turned away.

use std::time::{Duration, Instant};

use countersign_issuer::capacity;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::issuer::envelope;
use crate::support::{Issuer, eventually};

const GRANT: [(&str, &str); 1] = [("grant_type", "client_credentials")];

#[test]
fn the_reference_has_the_numbers_as_they_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/limits.md");
    let page = std::fs::read_to_string(path).unwrap();
    for table in capacity::tables() {
        assert!(page.contains(&table), "docs/reference/limits.md has another table than\n{table}");
    }
}

/// A whole number.
async fn metric(issuer: &Issuer, name: &str) -> u64 {
    let answer = issuer.http.get(format!("{}/metrics", issuer.admin_url)).send().await.unwrap();
    let text = answer.text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    value.trim_end_matches(".0").parse().unwrap()
}

#[tokio::test]
async fn what_is_one_too_many_is_turned_away_and_what_must_go_on_does() {
    let issuer = Issuer::start_with(|cli| cli.env("MAX_REQUESTS", "3")).await;
    let management = issuer.management_token(&issuer.administrator).await;
    let token = issuer.token(&issuer.administrator).await;
    let grant = async || issuer.oauth("token", &issuer.administrator, &GRANT).await;
    assert_eq!(metric(&issuer, "countersign_requests_turned_away_total").await, 0);

    // Nothing can be written down, so whoever is in the works stays there.
    let mut lock = issuer.database.pool.begin().await.unwrap();
    sqlx::query("lock table audit_queue in access exclusive mode").execute(&mut *lock).await.unwrap();
    let waiting = async { tokio::join!(grant(), grant(), grant()) };
    let meanwhile = async {
        eventually("all places are taken", 2, async || {
            (metric(&issuer, "countersign_requests_in_works").await == 3).then_some(())
        })
        .await;
        let began = Instant::now();
        let refused = grant().await;
        // 300 ms, and those in line.
        assert!(began.elapsed() < Duration::from_millis(300 + 200), "{:?}", began.elapsed());
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()["retry-after"], "1");
        assert!(refused.headers().contains_key("x-request-id"));
        let body: Value = refused.json().await.unwrap();
        assert_eq!(
            (&body["error"], &body["code"]),
            (&Value::from("temporarily_unavailable"), &Value::from("OVERLOADED"))
        );
        let read = issuer.get("/api/v1/agents").bearer_auth(&management).send().await.unwrap();
        let (status, code, _) = envelope(read).await;
        assert_eq!((status, code.as_str()), (503, "OVERLOADED"));

        for path in ["/health", "/ready", "/.well-known/jwks.json", "/.well-known/oauth-authorization-server"]
        {
            assert_eq!(issuer.get(path).send().await.unwrap().status(), StatusCode::OK, "{path}");
        }
        // What takes a token back has a place beside the others': it waits for the lock as they do, and isn't turned away.
        let about = [("token", token.as_str())];
        let revoking = issuer.oauth("revoke", &issuer.administrator, &about);
        let letting_go = async {
            eventually("the fourth place is taken", 2, async || {
                (metric(&issuer, "countersign_requests_in_works").await == 4).then_some(())
            })
            .await;
            lock.rollback().await.unwrap();
        };
        let (revoked, ()) = tokio::join!(revoking, letting_go);
        assert_eq!(revoked.status(), StatusCode::OK);
    };
    let ((one, two, three), ()) = tokio::join!(waiting, meanwhile);
    for response in [one, two, three] {
        assert_eq!(response.status(), StatusCode::OK, "who was taken is served");
    }
    assert_eq!(metric(&issuer, "countersign_requests_turned_away_total").await, 2);
    assert_eq!(metric(&issuer, "countersign_requests_in_works").await, 0);
    issuer.logged("requests are turned away: MAX_REQUESTS are in the works already").await;
}

#[tokio::test]
async fn who_sends_slowly_keeps_nobody_out() {
    let issuer = Issuer::start_with(|cli| cli.env("MAX_REQUESTS", "1")).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut connection = TcpStream::connect(issuer.url.trim_start_matches("http://")).await.unwrap();
        let head = "POST /oauth2/v1/token HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 100\r\n\r\na";
        connection.write_all(head.as_bytes()).await.unwrap();
        slow.push(connection);
    }
    for _ in 0..20 {
        let response = issuer.oauth("token", &issuer.administrator, &GRANT).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
}
