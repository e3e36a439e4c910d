//! Metrics: what the reference lists is what is shown, and only those see it who may.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode};

use crate::support::edge::Edge;
use crate::support::file::File;
use crate::support::issuer::envelope;
use crate::support::proxy::{Line, Proxy};
use crate::support::{ADMIN_TOKEN, Client, Issuer, TestDatabase, eventually, required};

const SECRET: &str = "Zq4mT8vKx1cLw7nRb2yHs5pDf9gJd3aE6u0o";

fn scrape_request(issuer: &Issuer) -> RequestBuilder {
    issuer.http.get(format!("{}/metrics", issuer.admin_url))
}

async fn scrape(issuer: &Issuer) -> String {
    let answer = scrape_request(issuer).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = answer.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"));
    text
}

/// The value of a sample, by its name with its labels.
fn sample(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Metrics that have samples, with their types.
fn shown(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                "gauge" | "histogram" => "",
                other => panic!("a {other}"),
            };
            let name = format!("{name}{suffix}");
            let sampled = if kind == "histogram" { format!("{name}_count") } else { name.clone() };
            assert!(
                text.lines()
                    .any(|line| line.starts_with(&sampled) && line[sampled.len()..].starts_with(['{', ' '])),
                "{name} has no sample"
            );
            (name, kind.to_owned())
        })
        .collect()
}

/// Those of the reference, with their types.
fn documented() -> BTreeMap<String, String> {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/metrics.md"));
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim);
        let (_, name, kind) = (cells.next()?, cells.next()?, cells.next()?);
        let is_type = ["counter", "gauge", "histogram", "info"].contains(&kind);
        is_type.then(|| (name.trim_matches('`').to_owned(), kind.to_owned()))
    });
    rows.collect()
}

#[tokio::test]
async fn the_reference_lists_every_metric_and_no_other() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let edge = Edge::start(&database.url).await;
    edge.set_listeners(2, (1, 0));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (File::new(&made.cert.pem()), File::new(&made.signing_key.serialize_pem()));
    let issuer = Issuer::start_on(database.into(), administrator, |cli| {
        // Its lockouts are its own: other tests come from this address too.
        edge.configure(cli)
            .env("LOCKOUT_ATTEMPTS", "2")
            .without("REDIS_URL")
            .env("ADMIN_TLS_CERTIFICATE", certificate.path())
            .env("ADMIN_TLS_KEY", key.path())
            .env("METRICS_GUARD", "secret")
            .env("METRICS_SECRET", SECRET)
    })
    .await;
    let grant = [("grant_type", "client_credentials")];
    let client = issuer.new_client(&["orders:read"]).await;
    let token = issuer.token(&client).await;
    issuer.revoke(&client, &token).await;
    assert!(!issuer.is_active(&client, &token).await);
    let wrong = Client { secret: "wrong".to_owned(), ..issuer.new_client(&[]).await };
    for _ in 0..3 {
        issuer.oauth("token", &wrong, &grant).await;
    }
    issuer.get("/nowhere/4711?x=y").send().await.unwrap();
    issuer.http.request("BREW".parse().unwrap(), format!("{}/ready", issuer.url)).send().await.unwrap();

    let documented = documented();
    assert!(documented.len() > 20, "{documented:?}");
    let text = eventually("every metric has a sample", 15, async || {
        // At the public listener: the other one speaks TLS, to have metrics of that.
        let request = issuer.get("/metrics").header("x-metrics-secret", SECRET);
        let text = request.send().await.unwrap().text().await.unwrap();
        let shown: BTreeSet<String> = shown(&text).into_keys().collect();
        let missing: Vec<&String> = documented.keys().filter(|name| !shown.contains(*name)).collect();
        // The clean-up jobs have their turn some seconds after the start.
        (missing.is_empty() && text.contains(r#"job="revocations""#)).then_some(text)
    })
    .await;
    assert_eq!(shown(&text), documented);

    for (series, at_least) in [
        (r#"token_issuance_total{outcome="issued"}"#, 3.0),
        (r#"token_issuance_total{outcome="invalid_client"}"#, 2.0),
        (r#"token_issuance_total{outcome="locked_out"}"#, 1.0),
        (r#"token_validation_failures_total{reason="revoked"}"#, 1.0),
        ("countersign_authentication_failures_total", 2.0),
        ("countersign_lockouts_total", 1.0),
        (r#"countersign_limiter_rejections_total{limit="lockout"}"#, 1.0),
        (r#"http_requests_total{method="POST",route="/oauth2/v1/token",status="200"}"#, 3.0),
        (r#"http_request_duration_seconds_count{method="POST",route="/oauth2/v1/token",status="200"}"#, 3.0),
        (r#"http_requests_total{method="GET",route="unknown",status="404"}"#, 1.0),
        (r#"http_requests_total{method="other",route="/ready",status="405"}"#, 1.0),
        (r#"background_job_duration_seconds_count{job="metrics_figures",outcome="success"}"#, 1.0),
        (r#"background_job_duration_seconds_count{job="revocations",outcome="success"}"#, 1.0),
        (r#"countersign_signing_keys{purpose="token",algorithm="RS256",state="active"}"#, 1.0),
        (r#"countersign_signing_key_days_to_rotation{algorithm="RS256"}"#, 29.0),
        (r#"countersign_hot_state_up{kind="in_process"}"#, 1.0),
        ("countersign_publisher_leader", 1.0),
        ("countersign_edge_listeners", 2.0),
        ("memory_usage_bytes", 1e6),
    ] {
        let value = sample(&text, series);
        assert!(value.is_some_and(|value| value >= at_least), "{series} is {value:?}");
    }
    assert!(sample(&text, "countersign_revocation_head_age_seconds").unwrap() < 5.0);
    // Nothing that somebody sent, and nobody's name.
    for private in [&client.id, &client.tenant, &token, "4711", "BREW", "127.0.0.1"] {
        assert!(!text.contains(private), "{private}");
    }
}

#[tokio::test]
async fn a_scrape_asks_no_database_and_what_is_not_known_is_left_out() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let (proxy, url) = Proxy::before(&database.url, Line::Open).await;
    let (redis, redis_url) = Proxy::before(&required("TEST_REDIS_URL"), Line::Open).await;
    let issuer = Issuer::start_on(database.into(), administrator, |cli| {
        cli.env("DATABASE_URL", &url).env("REDIS_URL", &redis_url)
    })
    .await;
    eventually("the figures are there", 5, async || {
        sample(&scrape(&issuer).await, "countersign_outbox_rows")
    })
    .await;
    proxy.set(Line::Silent);
    redis.set(Line::Cut);
    // Everybody else waits for the database for seconds.
    let began = std::time::Instant::now();
    for _ in 0..20 {
        let text = scrape(&issuer).await;
        assert!(sample(&text, "countersign_figures_age_seconds").is_some());
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    eventually("Redis is missed", 5, async || {
        (sample(&scrape(&issuer).await, r#"countersign_hot_state_up{kind="redis"}"#) == Some(0.0))
            .then_some(())
    })
    .await;
    // Nothing is published here, and so nothing is said of it.
    let shown = shown(&scrape(&issuer).await);
    assert!(shown.keys().all(|name| !name.contains("publisher") && !name.contains("sink")), "{shown:?}");
}

#[tokio::test]
async fn at_the_public_listener_the_guard_decides() {
    let public = |issuer: &Issuer| issuer.get("/metrics");
    let status = async |request: RequestBuilder| request.send().await.unwrap().status();

    let mut issuer = Issuer::start_with(|cli| cli.env("ADMIN_TOKEN", ADMIN_TOKEN)).await;
    assert_eq!(status(public(&issuer)).await, StatusCode::NOT_FOUND, "by default it isn't there");
    assert_eq!(status(scrape_request(&issuer)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(scrape_request(&issuer).bearer_auth(ADMIN_TOKEN)).await, StatusCode::OK);
    let (database, administrator) = (issuer.database.clone(), issuer.administrator.clone());
    issuer.kill();
    let start = async |settings: &[(&str, &str)]| {
        Issuer::start_on(database.clone(), administrator.clone(), |cli| {
            settings.iter().fold(cli, |cli, (name, value)| cli.env(name, value))
        })
        .await
    };

    let issuer = start(&[("METRICS_GUARD", "secret"), ("METRICS_SECRET", SECRET)]).await;
    assert_eq!(status(public(&issuer).header("x-metrics-secret", SECRET)).await, StatusCode::OK);
    let wrong = SECRET.replace('Z', "z");
    for header in [&wrong, &SECRET[1..], ""] {
        let answer = public(&issuer).header("x-metrics-secret", header).send().await.unwrap();
        assert_eq!(envelope(answer).await.1, "ACCESS_REFUSED");
    }
    let twice = public(&issuer).header("x-metrics-secret", SECRET).header("x-metrics-secret", SECRET);
    assert_eq!(status(twice).await, StatusCode::FORBIDDEN);
    assert_eq!(status(public(&issuer)).await, StatusCode::FORBIDDEN);
    issuer.logged("METRICS_GUARD").await;
    let log = issuer.whole_log().await;
    assert!(!log.contains(SECRET) && !log.contains(&wrong));
    drop(issuer);

    let cidr = [("METRICS_GUARD", "cidr"), ("METRICS_ALLOWED_CIDRS", "10.0.0.0/8, 2001:db8::/32")];
    let issuer = start(&cidr).await;
    assert_eq!(status(public(&issuer)).await, StatusCode::FORBIDDEN);
    let claims = public(&issuer).header("x-forwarded-for", "10.1.2.3");
    assert_eq!(status(claims).await, StatusCode::FORBIDDEN, "nobody's word is taken for it");
    drop(issuer);
    let behind = [cidr[0], cidr[1], ("TRUSTED_PROXIES", "127.0.0.1")];
    let issuer = start(&behind).await;
    let from = |ip: &str| public(&issuer).header("x-forwarded-for", ip);
    assert_eq!(status(from("10.1.2.3")).await, StatusCode::OK);
    assert_eq!(status(from("2001:db8::7")).await, StatusCode::OK);
    assert_eq!(status(from("192.0.2.1")).await, StatusCode::FORBIDDEN);
    drop(issuer);

    let issuer =
        start(&[("METRICS_ENABLED", "false"), ("METRICS_GUARD", "secret"), ("METRICS_SECRET", SECRET)]).await;
    assert_eq!(status(public(&issuer).header("x-metrics-secret", SECRET)).await, StatusCode::NOT_FOUND);
    assert_eq!(status(scrape_request(&issuer)).await, StatusCode::NOT_FOUND);
}
