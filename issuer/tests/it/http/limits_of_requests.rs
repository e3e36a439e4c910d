//! How much a client may ask for, and for how long: `docs/reference/http-api.md`'s table of limits, each of them reached. And requests as few clients
//! send them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use countersign_issuer::http::{self, Connections};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{Issuer, eventually};

async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.trim_start_matches("http://")).await.unwrap()
}

/// All that comes until the other side closes, or stays silent for a while.
async fn answer(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(Ok(length @ 1..)) =
        tokio::time::timeout(Duration::from_millis(500), connection.read(&mut chunk)).await
    {
        bytes.extend_from_slice(&chunk[..length]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn ask(issuer: &Issuer, request: impl AsRef<[u8]>) -> String {
    let mut connection = connect(&issuer.url).await;
    connection.write_all(request.as_ref()).await.unwrap();
    answer(&mut connection).await
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

#[test]
fn the_reference_has_the_limits_as_they_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/http-api.md");
    let page = std::fs::read_to_string(path).unwrap();
    let table = http::bounds::table();
    assert!(page.contains(&table), "docs/reference/http-api.md has another table of limits than\n{table}");
}

#[tokio::test]
async fn a_target_has_8_kib() {
    let issuer = Issuer::start().await;
    for (path, length, expected) in [
        ("/", 8192, 404),
        ("/", 8193, 414),
        ("/health?", 8192, 200),
        ("/health?", 8193, 414),
        ("/oauth2/v1/token?", 8193, 414),
        ("/", 20_000, 414),
    ] {
        let target = format!("{path}{}", "a".repeat(length - path.len()));
        let answer = ask(&issuer, format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!(status(&answer), expected, "{path} {length}: {answer:.300}");
        if expected == 414 {
            let word = if path.starts_with("/oauth2") {
                "\"error\":\"invalid_request\""
            } else {
                "\"code\":\"URI_TOO_LONG\""
            };
            assert!(answer.contains(word) && answer.contains("x-request-id"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_head_has_32_kib_and_100_fields() {
    let issuer = Issuer::start().await;
    let field =
        |length: usize| format!("GET /health HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n", "a".repeat(length));
    assert_eq!(status(&ask(&issuer, field(31 * 1024)).await), 200);
    assert_eq!(status(&ask(&issuer, field(33 * 1024)).await), 431);
    let fields = |count: usize| {
        let fields: Vec<String> = (1..count).map(|number| format!("x-{number}: a\r\n")).collect();
        let fields = fields.concat();
        format!("GET /health HTTP/1.1\r\nhost: x\r\n{fields}\r\n")
    };
    assert_eq!(status(&ask(&issuer, fields(100)).await), 200);
    assert_eq!(status(&ask(&issuer, fields(101)).await), 431);
    // A target that doesn't fit into a head is one of these too.
    assert_eq!(
        status(&ask(&issuer, format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(40_000))).await),
        431
    );
}

/// How long until `connection` is closed, or answered and closed.
async fn until_closed(mut connection: TcpStream) -> (Duration, String) {
    let started = Instant::now();
    let mut said = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(25), connection.read_to_end(&mut said));
    _ = reading.await.expect("it is closed before long");
    (started.elapsed(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn a_connection_has_15_seconds_for_a_head() {
    let issuer = Issuer::start().await;
    let silent = connect(&issuer.url).await;
    let mut half = connect(&issuer.url).await;
    half.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut idle = connect(&issuer.url).await;
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut dripping = connect(&issuer.url).await;
    dripping.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
    let (read, mut write) = dripping.into_split();
    let drip = tokio::spawn(async move {
        while write.write_all(b"x-a: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let dripped = async {
        let started = Instant::now();
        let mut byte = [0; 1];
        _ = tokio::time::timeout(Duration::from_secs(25), async {
            while read.readable().await.is_ok() {
                match read.try_read(&mut byte) {
                    Ok(0) => break,
                    Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
                    _ => {}
                }
            }
        })
        .await;
        started.elapsed()
    };
    let (silent, half, idle, dripped) =
        tokio::join!(until_closed(silent), until_closed(half), until_closed(idle), dripped);
    drip.abort();
    assert!(idle.1.starts_with("HTTP/1.1 200"), "it was answered first");
    for elapsed in [silent.0, half.0, idle.0, dripped] {
        assert!((14.0..18.0).contains(&elapsed.as_secs_f64()), "{elapsed:?}");
    }
}

#[tokio::test]
async fn a_body_has_4_seconds_and_an_answer_5() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let head = |path: &str, media_type: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: {media_type}\r\ncontent-length: 9\r\n\r\n{{"
        )
    };
    let slow = async |path: &str, media_type: &str| {
        let mut connection = connect(&issuer.url).await;
        connection.write_all(head(path, media_type).as_bytes()).await.unwrap();
        until_closed(connection).await
    };
    // Waits for a lock that nobody gives back.
    let mut transaction = issuer.database.pool.begin().await.unwrap();
    sqlx::query("lock table agents in access exclusive mode").execute(&mut *transaction).await.unwrap();
    let blocked = async {
        let started = Instant::now();
        let path = format!("/api/v1/agents/{}", issuer.administrator.id);
        let response = issuer.get(&path).bearer_auth(&token).send().await.unwrap();
        (started.elapsed(), response)
    };
    let (form, unanswered) =
        tokio::join!(slow("/oauth2/v1/token", "application/x-www-form-urlencoded"), blocked);
    assert!(form.1.starts_with("HTTP/1.1 400") && form.1.contains("did not arrive whole"), "{}", form.1);
    assert!((3.8..5.0).contains(&form.0.as_secs_f64()), "{:?}", form.0);
    assert_eq!(unanswered.1.status(), 503);
    assert!(unanswered.0.as_secs_f64() < 6.0, "{:?}", unanswered.0);
    transaction.rollback().await.unwrap();

    let (elapsed, said) = slow("/api/v1/agents", "application/json").await;
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("MALFORMED_REQUEST"), "{said}");
    assert!((3.8..5.0).contains(&elapsed.as_secs_f64()), "{elapsed:?}");
}

#[tokio::test]
async fn more_connections_than_there_may_be_wait() {
    let issuer = Issuer::start_with(|cli| cli.env("MAX_CONNECTIONS", "16")).await;
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(connect(&issuer.url).await);
    }
    let mut next = connect(&issuer.url).await;
    next.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(answer(&mut next).await, "", "there is no place");
    held.pop();
    eventually("its turn comes", 5, async || (status(&answer(&mut next).await) == 200).then_some(())).await;
}

#[tokio::test]
async fn an_address_has_its_share_of_connections() {
    let serve = async |unbounded: Vec<&str>| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "here"));
        let unbounded = unbounded.into_iter().map(|net| net.parse().unwrap()).collect();
        let (stop, stopping) = watch::channel(false);
        let connections = Connections { max: 100, max_per_ip: 2, unbounded };
        tokio::spawn(http::serve(listener, router, connections, None, stopping));
        (address, stop)
    };
    let ask = async |address: SocketAddr| {
        let mut connection = TcpStream::connect(address).await.unwrap();
        _ = connection.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let said = answer(&mut connection).await;
        (connection, status(&said))
    };
    let (address, _stop) = serve(vec![]).await;
    let held = [ask(address).await, ask(address).await];
    assert_eq!(held.iter().map(|(_, status)| *status).collect::<Vec<_>>(), [200, 200]);
    assert_eq!(ask(address).await.1, 0, "a third one is closed");
    drop(held);
    eventually("there is a place again", 5, async || (ask(address).await.1 == 200).then_some(())).await;

    let (address, _stop) = serve(vec!["127.0.0.0/8"]).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(ask(address).await);
    }
    assert!(held.iter().all(|(_, status)| *status == 200), "many come by a trusted proxy");
}

/// What is refused before it was read doesn't spoil the connection for the next request.
#[tokio::test]
async fn a_refused_body_is_taken_or_the_connection_closed() {
    let issuer = Issuer::start().await;
    let post = |length: usize| {
        format!(
            "POST /api/v1/agents HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut connection = connect(&issuer.url).await;
    for length in [0, 10, 100_000, 900_000] {
        connection.write_all(post(length).as_bytes()).await.unwrap();
        connection.write_all(&vec![b' '; length]).await.unwrap();
        let said = answer(&mut connection).await;
        assert!(status(&said) == 401 && !said.contains("connection: close"), "{length}: {said}");
    }
    connection.write_all(post(10).as_bytes()).await.unwrap(); // and never its body
    let (elapsed, said) = until_closed(connection).await;
    assert!(status(&said) == 401 && said.contains("connection: close"), "{said}");
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
}

#[tokio::test]
async fn a_host_is_named_once() {
    let issuer = Issuer::start().await;
    for (head, expected) in [
        ("GET /health HTTP/1.1\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nhost: user@a\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nhost: [::1]:3000\r\n\r\n", 200),
        ("GET http://other.example/health HTTP/1.1\r\nhost: a\r\n\r\n", 200),
        ("GET /health HTTP/1.0\r\n\r\n", 200),
        ("GET /health HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nhost : a\r\n\r\n", 400),
        ("GET /health HTTP/3.0\r\nhost: a\r\n\r\n", 400),
        ("G@T /health HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        ("POST /health HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na", 400),
        ("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", 404),
        ("CONNECT other.example:443 HTTP/1.1\r\nhost: a\r\n\r\n", 404),
    ] {
        let answer = ask(&issuer, head).await;
        assert_eq!(status(&answer), expected, "{head:?}: {answer}");
    }
}

#[tokio::test]
async fn methods_that_every_path_takes() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let agent = format!("{}/api/v1/agents/{}", issuer.url, issuer.administrator.id);
    let (whole, head) =
        (issuer.http.get(&agent).bearer_auth(&token), issuer.http.head(&agent).bearer_auth(&token));
    let (whole, head) = (whole.send().await.unwrap(), head.send().await.unwrap());
    assert_eq!(
        (head.status(), &head.headers()["content-length"]),
        (whole.status(), &whole.headers()["content-length"])
    );
    assert_eq!(head.text().await.unwrap(), "");
    let head = issuer.http.head(format!("{}/api/v1/agents/x", issuer.url)).send().await.unwrap();
    assert_eq!(head.status(), 401, "it is no way around authentication");

    for (path, allow) in [("/health", "GET,HEAD"), ("/oauth2/v1/token", "POST")] {
        let response = issuer
            .http
            .request(reqwest::Method::OPTIONS, format!("{}{path}", issuer.url))
            .send()
            .await
            .unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (204, allow));
    }
}

#[tokio::test]
async fn paths_have_one_spelling() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let id = &issuer.administrator.id;
    let first = format!("%{:02x}{}", id.as_bytes()[0], &id[1..]);
    for (path, expected) in [
        (format!("/api/v1/agents/{id}"), 200),
        (format!("/api/v1/agents/{first}"), 200),
        (format!("/api/v1/agents/{id}/"), 404),
        (format!("/api/v1//agents/{id}"), 404),
        (format!("//api/v1/agents/{id}"), 404),
        (format!("/API/v1/agents/{id}"), 404),
        (format!("/api/v1/%61gents/{id}"), 404),
        (format!("/api/v1/agents/{}", id.to_uppercase()), 400),
        (format!("/api/v1/agents/{id}%00"), 400),
        (format!("/api/v1/agents/{id}%2f"), 400),
        ("/api/v1/agents/%ff".to_owned(), 400),
        ("/api/v1/agents/%".to_owned(), 400),
        ("/api/v1/agents/..%2f..%2fhealth".to_owned(), 400),
        ("/health/".to_owned(), 404),
        ("/health?x=%zz".to_owned(), 200),
        ("/health#fragment".to_owned(), 200),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
        let answer = ask(&issuer, request).await;
        assert_eq!(status(&answer), expected, "{path}: {answer}");
    }
}

#[tokio::test]
async fn who_waits_to_send_a_body_is_told_to_go_on_or_refused() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let body = json!({}).to_string();
    let head = |authorization: &str| {
        format!(
            "POST /api/v1/agents HTTP/1.1\r\nhost: x\r\n{authorization}content-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
            body.len()
        )
    };
    assert_eq!(status(&ask(&issuer, head("")).await), 401, "without having sent anything");
    let mut connection = connect(&issuer.url).await;
    connection.write_all(head(&format!("authorization: Bearer {token}\r\n")).as_bytes()).await.unwrap();
    assert_eq!(answer(&mut connection).await, "HTTP/1.1 100 Continue\r\n\r\n");
    connection.write_all(body.as_bytes()).await.unwrap();
    assert!(answer(&mut connection).await.contains("VALIDATION_ERROR"));
}
