//! What the logs say and don't say.

use std::time::Duration;

use countersign_issuer::domain::signing_key::Sealed;
use countersign_issuer::keys::envelope::{Context, open};
use countersign_issuer::keys::{LocalKey, MasterKey};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use reqwest::StatusCode;
use rsa::RsaPrivateKey;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::traits::PrivateKeyParts as _;
use serde_json::{Value, json};

use crate::support::edge::{Edge, KV_TOKEN, PUSH_SECRET};
use crate::support::issuer::envelope;
use crate::support::proxy::{Line, Proxy};
use crate::support::{ADMIN_TOKEN, Client, Issuer, MASTER_KEY, TestDatabase, required};

#[tokio::test]
async fn no_secret_and_no_token_is_ever_logged() {
    const PASSWORD: &str = "correct-horse-battery";
    const METRICS_SECRET: &str = "wT5nXc8kQz2rLm7vBy4hJd9sGf1pKa3eU6oRi0";
    let redis: reqwest::Url = required("TEST_REDIS_URL").parse().unwrap();
    let redis_password = redis.password().map(str::to_owned);
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let edge = Edge::start(&database.url).await;
    // Trust authentication takes any password.
    let mut url: reqwest::Url = database.url.parse().unwrap();
    if url.password().is_none() {
        url.set_password(Some(PASSWORD)).unwrap();
    }
    let (proxy, url) = Proxy::before(url.as_str(), Line::Open).await;
    let issuer = Issuer::start_on(database.into(), administrator, |cli| {
        edge.configure(cli)
            .env("DATABASE_URL", &url)
            .env("LOG_LEVEL", "TRACE")
            .env("ADMIN_TOKEN", ADMIN_TOKEN)
            .env("METRICS_GUARD", "secret")
            .env("METRICS_SECRET", METRICS_SECRET)
    })
    .await;
    let admin = |path: &str| issuer.http.get(format!("{}{path}", issuer.admin_url));
    let mistyped = ADMIN_TOKEN.to_uppercase();
    for (request, expected) in [
        (admin("/metrics").bearer_auth(ADMIN_TOKEN), 200),
        (admin("/metrics").bearer_auth(&mistyped), 401),
        (issuer.get("/metrics").header("x-metrics-secret", METRICS_SECRET), 200),
        (issuer.get("/metrics").header("x-metrics-secret", &METRICS_SECRET[1..]), 403),
    ] {
        assert_eq!(request.send().await.unwrap().status(), expected);
    }

    let client = issuer.new_client(&["orders:read"]).await;
    let wrong = Client { secret: format!("{}a", &client.secret[..62]), ..client.clone() };
    let (token, management) =
        (issuer.token(&client).await, issuer.management_token(&issuer.administrator).await);
    issuer.oauth("token", &wrong, &[("grant_type", "client_credentials")]).await;
    issuer.is_active(&client, &token).await;
    issuer.revoke(&client, &token).await;
    issuer.get("/api/v1/agents/x").bearer_auth(&management).send().await.unwrap();
    issuer
        .get(&format!("/api/v1/agents/{}?access_token={management}", client.id))
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    proxy.set(Line::Cut);
    issuer.oauth("token", &client, &[("grant_type", "client_credentials")]).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;

    let log = issuer.whole_log().await;
    assert!(
        log.contains("\"request\"") && log.contains("service unavailable"),
        "there is something to look through"
    );
    let secrets = [
        PASSWORD,
        MASTER_KEY,
        PUSH_SECRET,
        KV_TOKEN,
        ADMIN_TOKEN,
        &mistyped,
        &METRICS_SECRET[1..],
        redis_password.as_deref().unwrap_or(PASSWORD),
        &client.secret,
        &wrong.secret,
        &issuer.administrator.secret,
        &token,
        &management,
    ];
    for secret in secrets {
        assert!(!log.contains(secret), "{secret:.8}…");
    }
    // A token's signature alone would do for nobody, its payload neither, but they have no business there.
    for part in token.split('.').chain(management.split('.')).skip(1) {
        assert!(!log.contains(part));
    }
    for form in private_members(&issuer.database).await {
        assert!(!log.contains(&form), "a private key's member, as {form:.6}…");
    }
    let audit: i64 = issuer
        .database
        .value(
            "select count(*) from (select audit_events::text as event from audit_events union all select audit_queue::text from audit_queue) events
             where event ~ 'csk_|eyJ'",
        )
        .await;
    assert_eq!(audit, 0);
}

#[tokio::test]
async fn the_level_is_changed_while_it_runs() {
    let issuer = Issuer::start().await;
    let url = format!("{}/log-level", issuer.admin_url);
    let set = async |level: &str| {
        let answer = issuer.http.put(&url).json(&json!({ "level": level })).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "level": level }));
    };
    let level: Value = issuer.http.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(level, json!({ "level": "INFO" }));
    set("ERROR").await;
    assert!(issuer.logged("the log's level was changed").await.contains(r#""now":"ERROR""#));
    issuer.get("/health").send().await.unwrap();
    set("DEBUG").await;
    issuer.get("/ready").send().await.unwrap();
    let line: Value = serde_json::from_str(&issuer.logged(r#""route":"/ready""#).await).unwrap();
    assert_eq!(line["level"], "INFO");
    assert!(!issuer.log().contains(r#""route":"/health""#), "{}", issuer.log());
    // Others than those it knows it doesn't take.
    for body in
        [json!({}), json!({ "level": "LOUD" }), json!({ "level": 5 }), json!({ "level": "INFO", "for": 5 })]
    {
        let answer = issuer.http.put(&url).json(&body).send().await.unwrap();
        assert_eq!(envelope(answer).await.1, "VALIDATION_ERROR", "{body}");
    }
    let level: Value = issuer.http.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(level, json!({ "level": "DEBUG" }));
}

#[tokio::test]
async fn a_request_is_in_the_log_under_its_id_and_its_caller_s_trace() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let issuer = Issuer::start().await;
    let request = issuer.get("/.well-known/jwks.json").header("x-request-id", "night-7");
    let answer =
        request.header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01")).send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "night-7");
    let line: Value = serde_json::from_str(&issuer.logged("night-7").await).unwrap();
    assert_eq!(line["span"]["request_id"], "night-7");
    assert_eq!(line["span"]["trace_id"], TRACE);
    // What isn't one is nothing to go by.
    let request = issuer.get("/.well-known/jwks.json").header("x-request-id", "night-8");
    request.header("traceparent", format!("00-{TRACE}-0000000000000000-01")).send().await.unwrap();
    let line: Value = serde_json::from_str(&issuer.logged("night-8").await).unwrap();
    let trace = line["span"]["trace_id"].as_str().unwrap();
    assert!(trace.len() == 32 && trace != TRACE, "{trace}");
}

#[tokio::test]
async fn a_reader_that_hangs_keeps_nobody_waiting_and_what_it_missed_is_counted() {
    const REQUESTS: usize = 8000;
    let issuer = Issuer::start().await;
    let counted = async || {
        let metrics = issuer.http.get(format!("{}/metrics", issuer.admin_url)).send().await.unwrap();
        let metrics = metrics.text().await.unwrap();
        let lost = metrics.lines().find_map(|line| line.strip_prefix("countersign_log_lines_lost_total "));
        lost.unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(counted().await, 0);
    let unread = issuer.unread();
    let mark = "hangs-".repeat(8);
    let asked = (0..16).map(async |client| {
        for request in 0..REQUESTS / 16 {
            let request = issuer
                .get("/.well-known/jwks.json")
                .header("x-request-id", format!("{mark}{client}-{request}"));
            let answer = tokio::time::timeout(Duration::from_secs(5), request.send());
            assert_eq!(answer.await.expect("it is answered").unwrap().status(), StatusCode::OK);
        }
    });
    futures_util::future::join_all(asked).await;
    drop(unread);
    let said: Value = serde_json::from_str(&issuer.logged("lines of this log were lost").await).unwrap();
    let lost = said["lost"].as_u64().unwrap();
    assert_eq!(counted().await, lost);
    let log = issuer.whole_log().await;
    let broken = log.lines().find(|line| serde_json::from_str::<Value>(line).is_err());
    assert_eq!(broken, None, "each line is whole");
    let missing = REQUESTS - log.matches(&mark).count();
    let lost = usize::try_from(lost).unwrap();
    // Others may have been lost among them, of what is logged now and then.
    assert!(
        missing > 0 && (missing..missing + 100).contains(&lost),
        "{missing} are missing, {lost} were counted"
    );
}

/// The private members of the keys that signed, in the forms in which they could get into a log.
async fn private_members(database: &TestDatabase) -> Vec<String> {
    let master = MasterKey::new(Box::new(LocalKey::from_base64(MASTER_KEY).unwrap()), None);
    let rows: Vec<(String, String, Vec<u8>, Vec<u8>)> =
        sqlx::query_as("select kid, purpose, sealed_data_key, sealed_private from signing_keys")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    let mut members: Vec<Vec<u8>> = Vec::new();
    for (kid, purpose, data_key, value) in rows {
        let context = Context { table: "signing_keys", purpose: &purpose, id: &kid };
        let der = open(&master, &context, &Sealed { master_key_id: None, data_key, value }).unwrap();
        members.push(der[der.len() / 2..].to_vec());
        if let Ok(key) = RsaPrivateKey::from_pkcs8_der(&der) {
            members.push(key.d().to_bytes_be());
            members.extend(key.primes().iter().map(rsa::BigUint::to_bytes_be));
        } else {
            members.push(ed25519_dalek::SigningKey::from_pkcs8_der(&der).unwrap().to_bytes().to_vec());
        }
    }
    assert!(members.len() >= 6, "an RSA key's d, p and q, an Ed25519 key's seed, and half the DER of both");
    let forms = members.iter().flat_map(|bytes| {
        // A log may cut what is long, so the beginning has to do; a multiple of three, so that base64 is the same for the whole.
        let start = &bytes[..24];
        let list = format!("{start:?}");
        [
            BASE64.encode(start),
            BASE64URL_NOPAD.encode(start),
            HEXLOWER.encode(start),
            HEXUPPER.encode(start),
            list.trim_matches(['[', ']']).to_owned(),
        ]
    });
    forms.collect()
}
