//! Limits: on requests, on failed authentications, on tokens a month; with a Redis, with one that is lost, and without.

use std::mem::discriminant;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_issuer::config::Secret;
use countersign_issuer::domain::limit::{Endpoint, LockoutPolicy, Moment, Network, Pair, Rate, Subject};
use countersign_issuer::hot::{Asked, Health, HotState as _, InProcess, Redis, Verdict};
use redis::aio::MultiplexedConnection;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::cli::Cli;
use crate::support::issuer::{envelope, oauth_error};
use crate::support::proxy::{Line, Proxy};
use crate::support::{Client, Issuer, TestDatabase, eventually, required};

const GRANT: [(&str, &str); 1] = [("grant_type", "client_credentials")];

/// A database of the test's own within the Redis that all tests share: keys of clients and addresses are the same everywhere.
async fn own_redis(number: u8) -> (String, MultiplexedConnection) {
    let url = format!("{}/{number}", required("TEST_REDIS_URL").trim_end_matches('/'));
    let mut connection =
        redis::Client::open(&*url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("FLUSHDB").query_async(&mut connection).await.unwrap();
    (url, connection)
}

/// Every key of the database.
async fn keys(connection: &mut MultiplexedConnection, pattern: &str) -> Vec<String> {
    let mut found: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(connection).await.unwrap();
    found.sort_unstable();
    found
}

async fn ask<T: redis::FromRedisValue>(connection: &mut MultiplexedConnection, command: &[&str]) -> T {
    redis::cmd(command[0]).arg(&command[1..]).query_async(connection).await.unwrap()
}

/// Another replica of `issuer`.
async fn replica(issuer: &Issuer, change: impl FnOnce(Cli) -> Cli) -> Issuer {
    Issuer::start_on(issuer.database.clone(), issuer.administrator.clone(), change).await
}

fn token_request(issuer: &Issuer, client: &Client) -> RequestBuilder {
    issuer.post("/oauth2/v1/token").basic_auth(&client.id, Some(&client.secret)).form(&GRANT)
}

/// Asks for a token, as if from `ip` by way of the trusted proxy on the loopback.
async fn from(issuer: &Issuer, ip: &str, client: &Client) -> Response {
    token_request(issuer, client).header("x-forwarded-for", ip).send().await.unwrap()
}

async fn statuses(issuer: &Issuer, client: &Client, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(issuer.oauth("token", client, &GRANT).await.status().as_u16());
    }
    statuses
}

fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers().get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
}

fn number(response: &Response, name: &str) -> i64 {
    header(response, name).parse().unwrap()
}

/// Status and body of an OAuth error that came of a limit; its form is checked.
async fn limited(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let body: Value = response.json().await.unwrap();
    let members: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["code", "details", "error", "error_description"], "{body}");
    (status, body)
}

async fn expect_locked_out(response: Response) {
    let retry_after = number(&response, "retry-after");
    assert!((1..=900).contains(&retry_after), "{retry_after}");
    let (status, body) = limited(response).await;
    assert_eq!(
        (status, &body["error"], &body["code"]),
        (429, &json!("invalid_client"), &json!("CLIENT_LOCKED_OUT"))
    );
}

fn wrong(client: &Client) -> Client {
    let secret = format!("{}{}", &client.secret[..client.secret.len() - 1], "?");
    Client { secret, ..client.clone() }
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

async fn hot_state(issuer: &Issuer) -> Value {
    issuer.ready().await.1["checks"]["hot_state"].clone()
}

#[tokio::test]
async fn a_client_gets_its_limit_and_every_answer_says_where_it_stands() {
    let (url, mut redis) = own_redis(1).await;
    let settings = |cli: Cli| cli.env("REDIS_URL", &url).env("RATE_LIMIT_PER_CLIENT", "5");
    let issuer = Issuer::start_with(settings).await;
    let client = issuer.new_client(&["agents:read"]).await;
    let mut management = String::new();
    for remaining in (1..5).rev() {
        let response =
            issuer.oauth("token", &client, &[GRANT[0], ("resource", crate::support::ISSUER)]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            (number(&response, "x-ratelimit-limit"), number(&response, "x-ratelimit-remaining")),
            (5, remaining)
        );
        let reset = number(&response, "x-ratelimit-reset");
        assert!((now()..=now() + 61).contains(&reset), "{reset}");
        assert!(header(&response, "ratelimit").starts_with(&format!("\"client\";r={remaining};t=")));
        assert_eq!(
            header(&response, "ratelimit-policy"),
            "\"ip\";q=1000000;w=60, \"client\";q=5;w=60, \"tenant\";q=1000000;w=60"
        );
        let body: Value = response.json().await.unwrap();
        body["access_token"].as_str().unwrap().clone_into(&mut management);
    }
    // The management API counts its agent's requests with those of the client that it is.
    let path = format!("/api/v1/agents/{}", client.id);
    let response = issuer.get(&path).bearer_auth(&management).send().await.unwrap();
    assert_eq!((response.status(), number(&response, "x-ratelimit-remaining")), (StatusCode::OK, 0));

    for _ in 0..3 {
        let response = issuer.oauth("token", &client, &GRANT).await;
        let retry_after = number(&response, "retry-after");
        assert!((1..=72).contains(&retry_after), "{retry_after}");
        assert_eq!(number(&response, "x-ratelimit-remaining"), 0);
        assert!((0..=1).contains(&(number(&response, "x-ratelimit-reset") - now() - retry_after)));
        assert_eq!(header(&response, "ratelimit"), format!("\"client\";r=0;t={retry_after}"));
        let (status, body) = limited(response).await;
        assert_eq!((status, &body["error"]), (429, &json!("temporarily_unavailable")));
        assert_eq!(
            (&body["code"], &body["details"]),
            (&json!("RATE_LIMIT_EXCEEDED"), &json!({"limit_of": "client", "limit": 5}))
        );
    }
    let response = issuer.get(&path).bearer_auth(&management).send().await.unwrap();
    assert!(number(&response, "retry-after") > 0);
    let (status, code, details) = envelope(response).await;
    assert_eq!((status, code.as_str()), (429, "RATE_LIMIT_EXCEEDED"));
    assert_eq!(details, json!({"limit_of": "client", "limit": 5}));

    // Another client has its own, and what isn't limited has no such headers.
    assert_eq!(statuses(&issuer, &issuer.administrator, 1).await, [200]);
    for path in ["/health", "/ready", "/.well-known/jwks.json", "/.well-known/oauth-authorization-server"] {
        let response = issuer.get(path).send().await.unwrap();
        assert!(response.status() == StatusCode::OK && response.headers().get("x-ratelimit-limit").is_none());
    }

    // In Redis: the documented keys, each with its time to live; what was refused isn't counted.
    let counters = keys(&mut redis, &format!("rate:{}:*", client.id)).await;
    let mut counted = 0;
    for key in &counters {
        let window: i64 = key.rsplit(':').next().unwrap().parse().unwrap();
        assert!((now() / 60 - 2..=now() / 60).contains(&window), "{key}");
        counted += ask::<i64>(&mut redis, &["GET", key]).await;
    }
    assert_eq!(counted, 5);
    for key in keys(&mut redis, "*").await {
        let left: i64 = ask(&mut redis, &["PTTL", &key]).await;
        assert!(left > 0, "{key} would stay for ever");
    }
}

#[tokio::test]
async fn tenants_endpoints_and_addresses_have_limits_too() {
    let (url, _redis) = own_redis(2).await;
    let settings = |cli: Cli| {
        cli.env("REDIS_URL", &url)
            .env("TRUSTED_PROXIES", "127.0.0.0/8")
            .env("RATE_LIMIT_PER_IP", "20")
            .env("RATE_LIMIT_PER_TENANT", "11")
            .env("RATE_LIMIT_REVOKE", "2")
    };
    let issuer = Issuer::start_with(settings).await;
    let other = issuer.other_tenant().await;
    let client = issuer.administrator.clone();
    let limit_of = async |response: Response| {
        let (status, body) = limited(response).await;
        assert_eq!((status, &body["code"]), (429, &json!("RATE_LIMIT_EXCEEDED")));
        body["details"]["limit_of"].as_str().unwrap().to_owned()
    };

    // Of an endpoint: the third revocation is one too many, a token isn't.
    let revoke = async || {
        let request = issuer.post("/oauth2/v1/revoke").basic_auth(&client.id, Some(&client.secret));
        request.header("x-forwarded-for", "192.0.2.1").form(&[("token", "x")]).send().await.unwrap()
    };
    assert_eq!((revoke().await.status(), revoke().await.status()), (StatusCode::OK, StatusCode::OK));
    let refused = revoke().await;
    assert!(header(&refused, "ratelimit-policy").ends_with("\"endpoint\";q=2;w=60"));
    assert_eq!(limit_of(refused).await, "endpoint");

    // Of a tenant: all its clients together, and no other tenant's. Making the other one took two.
    for _ in 0..7 {
        assert_eq!(from(&issuer, "192.0.2.2", &client).await.status(), StatusCode::OK);
    }
    assert_eq!(limit_of(from(&issuer, "192.0.2.2", &client).await).await, "tenant");
    assert_eq!(from(&issuer, "192.0.2.2", &other).await.status(), StatusCode::OK);

    // What the tenant's row says goes before the settings.
    issuer.database.execute("update tenants set requests_per_minute = 1000, client_requests_per_minute = 4 where name like 'Other %'").await;
    let policy = eventually("the tenant's own limits hold", 5, async || {
        let response = from(&issuer, "192.0.2.3", &other).await;
        Some(header(&response, "ratelimit-policy").to_owned()).filter(|policy| policy.contains("q=4;"))
    })
    .await;
    assert_eq!(policy, "\"ip\";q=20;w=60, \"client\";q=4;w=60, \"tenant\";q=1000;w=60");

    // Of an address, before anything is authenticated, by the /64 of an IPv6 address; and whoever is elsewhere isn't concerned.
    let nobody = Client { id: "nobody".into(), ..client.clone() };
    for host in 1..=20 {
        let status = from(&issuer, &format!("2001:db8:1:2::{host}"), &nobody).await.status();
        assert!(status == StatusCode::UNAUTHORIZED, "{host}: {status}");
    }
    let refused = from(&issuer, "2001:db8:1:2:ffff::1", &client).await;
    assert_eq!(header(&refused, "ratelimit-policy"), "\"ip\";q=20;w=60");
    assert_eq!(limit_of(refused).await, "ip");
    let refused =
        issuer.get("/api/v1/agents/x").header("x-forwarded-for", "2001:db8:1:2::").send().await.unwrap();
    let (status, code, details) = envelope(refused).await;
    assert_eq!((status, code.as_str(), &details["limit_of"]), (429, "RATE_LIMIT_EXCEEDED", &json!("ip")));
    assert_eq!(from(&issuer, "2001:db8:1:3::1", &nobody).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn replicas_share_limits_until_redis_is_lost_and_again_when_it_is_back() {
    let (url, _redis) = own_redis(3).await;
    let (proxy, url) = Proxy::before(&url, Line::Open).await;
    let settings = |cli: Cli| cli.env("REDIS_URL", &url);
    let one = Issuer::start_with(settings).await;
    let client = one.new_client(&[]).await;
    one.database.execute("update tenants set client_requests_per_minute = 6").await;
    let two = replica(&one, settings).await;
    assert_eq!(hot_state(&one).await, json!({"status": "ok", "kind": "redis", "limits": "shared"}));
    let (first, second) = tokio::join!(statuses(&one, &client, 8), statuses(&two, &client, 8));
    let let_through = first.iter().chain(&second).filter(|status| **status == 200).count();
    assert_eq!(let_through, 6, "{first:?} {second:?}");

    for line in [Line::Cut, Line::Silent] {
        let client = {
            let token = issuer_with_room(&one, &proxy).await;
            new_client(&one, &token).await
        };
        proxy.set(line);
        for issuer in [&one, &two] {
            let started = Instant::now();
            let counted = statuses(issuer, &client, 9).await;
            assert_eq!(
                counted,
                [200, 200, 200, 200, 200, 200, 429, 429, 429],
                "{line:?}: for itself, at once"
            );
            assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
            assert_eq!(
                hot_state(issuer).await,
                json!({"status": "degraded", "kind": "redis", "limits": "per_process"})
            );
        }
        proxy.set(Line::Open);
        for issuer in [&one, &two] {
            eventually("limits are shared again", 10, async || {
                (hot_state(issuer).await["limits"] == "shared").then_some(())
            })
            .await;
        }
    }
}

/// A management token of an administrator who isn't limited.
async fn issuer_with_room(issuer: &Issuer, proxy: &Proxy) -> String {
    proxy.set(Line::Open);
    let (name, column) = ("client_requests_per_minute", "update tenants set client_requests_per_minute");
    issuer.database.execute(&format!("{column} = 1000000")).await;
    let token = eventually(name, 5, async || {
        let form = [GRANT[0], ("resource", crate::support::ISSUER)];
        let response = issuer.oauth("token", &issuer.administrator, &form).await;
        let ok = response.status() == StatusCode::OK;
        let body: Value = response.json().await.unwrap();
        ok.then(|| body["access_token"].as_str().unwrap().to_owned())
    });
    token.await
}

/// A new client, with six requests a minute from then on.
async fn new_client(issuer: &Issuer, token: &str) -> Client {
    let agent = issuer.register(token, &crate::support::issuer::agent_body(&[])).await;
    let path = format!("/api/v1/agents/{}/credentials", agent["agent_id"].as_str().unwrap());
    let response = issuer.post(&path).bearer_auth(token).json(&json!({})).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    issuer.database.execute("update tenants set client_requests_per_minute = 6").await;
    Client::from_json(&response.json().await.unwrap())
}

#[tokio::test]
async fn where_a_request_comes_from_is_what_trusted_proxies_say() {
    let recorded = async |issuer: &Issuer, forwarded: &str| -> String {
        let request = token_request(issuer, &issuer.administrator).header("x-forwarded-for", forwarded);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
        let sql =
            "select client_ip from audit_events where action = 'token.issued' order by event_id desc limit 1";
        issuer.database.sealed().await;
        issuer.database.value(sql).await
    };
    let without = Cli::each_for_itself;
    let issuer = Issuer::start_with(without).await;
    assert_eq!(
        recorded(&issuer, "198.51.100.1").await,
        "127.0.0.1",
        "nobody is trusted unless they are named"
    );
    let behind = replica(&issuer, |cli| without(cli).env("TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1")).await;
    assert_eq!(recorded(&behind, "203.0.113.9, 198.51.100.1, 10.0.0.1").await, "198.51.100.1");
    assert_eq!(recorded(&behind, "198.51.100.1, nonsense").await, "127.0.0.1");

    // Who isn't behind a proxy doesn't get another limit by claiming another address.
    let narrow = replica(&issuer, |cli| without(cli).env("RATE_LIMIT_PER_IP", "3")).await;
    let mut answers = Vec::new();
    for host in 1..=5 {
        answers
            .push(from(&narrow, &format!("192.0.2.{host}"), &issuer.administrator).await.status().as_u16());
    }
    assert_eq!(answers, [200, 200, 200, 429, 429]);
}

const LOCKOUT: [(&str, &str); 2] = [("TRUSTED_PROXIES", "127.0.0.1"), ("LOCKOUT_ATTEMPTS", "5")];

fn with_lockout(cli: Cli) -> Cli {
    LOCKOUT.into_iter().fold(cli, |cli, (name, value)| cli.env(name, value))
}

async fn failures_lock_out(issuer: &Issuer, other: &Issuer) {
    let client = issuer.new_client(&[]).await;
    let (here, elsewhere) = ("192.0.2.1", "192.0.2.2");
    for n in 1..=4 {
        assert_eq!(from(issuer, here, &wrong(&client)).await.status(), 401, "{n}");
    }
    // A success clears the count.
    assert_eq!(from(issuer, here, &client).await.status(), StatusCode::OK);
    for n in 1..=5 {
        assert_eq!(from(issuer, here, &wrong(&client)).await.status(), 401, "{n}");
    }
    // Not even the right secret is looked at now, at no endpoint; from anywhere else it is.
    expect_locked_out(from(issuer, here, &wrong(&client)).await).await;
    expect_locked_out(from(issuer, here, &client).await).await;
    let introspect = issuer.post("/oauth2/v1/introspect").basic_auth(&client.id, Some(&client.secret));
    expect_locked_out(
        introspect.header("x-forwarded-for", here).form(&[("token", "x")]).send().await.unwrap(),
    )
    .await;
    assert_eq!(from(issuer, elsewhere, &client).await.status(), StatusCode::OK);
    assert_eq!(from(other, elsewhere, &client).await.status(), StatusCode::OK);
    // Neither is another client locked out there.
    assert_eq!(from(issuer, here, &issuer.administrator).await.status(), StatusCode::OK);

    let rows = issuer.database.audit("client.locked_out").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!(
        (&row["target"], &row["tenant"], &row["outcome"]),
        (&json!(client.id), &json!(client.tenant), &json!("failure"))
    );
    assert_eq!((&row["network"], &row["failures"], &row["seconds"]), (&json!(here), &json!(5), &json!(900)));

    // All who don't exist are locked out together, however they call themselves; who does exist isn't.
    let nobody = |n: u8| Client {
        id: if n == 0 { "nobody".into() } else { format!("00000000-0000-4000-8000-{n:012}") },
        ..client.clone()
    };
    for n in 0..5 {
        assert_eq!(from(issuer, "192.0.2.3", &nobody(n)).await.status(), 401, "{n}");
    }
    for n in [5, 6, 0] {
        expect_locked_out(from(issuer, "192.0.2.3", &nobody(n)).await).await;
    }
    assert_eq!(from(issuer, "192.0.2.3", &client).await.status(), StatusCode::OK);
    // IPv6 addresses are changed at will within a /64.
    for n in 1..=5 {
        assert_eq!(from(issuer, &format!("2001:db8::{n}"), &wrong(&client)).await.status(), 401, "{n}");
    }
    expect_locked_out(from(issuer, "2001:db8::ffff", &client).await).await;
}

/// Who is refused by what is in memory is looked up once more. Where that can't be done nobody is told that their secret is wrong, but guesses count.
#[tokio::test]
async fn guesses_count_while_the_database_has_no_answers() {
    let issuer = Issuer::start_with(with_lockout).await;
    let client = issuer.new_client(&[]).await;
    let here = "192.0.2.1";
    // What was announced of the client has been heard by then, so it is remembered from the next look on.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(from(&issuer, here, &client).await.status(), StatusCode::OK);
    let mut held = issuer.database.pool.begin().await.unwrap();
    sqlx::query("lock table credentials in access exclusive mode").execute(&mut *held).await.unwrap();
    let guess = || async { oauth_error(from(&issuer, here, &wrong(&client)).await).await };
    let answers = futures_util::future::join_all([guess(), guess(), guess(), guess(), guess()]).await;
    assert!(
        answers.iter().all(|answer| *answer == (503, "temporarily_unavailable".to_owned())),
        "{answers:?}"
    );
    expect_locked_out(from(&issuer, here, &wrong(&client)).await).await;
    expect_locked_out(from(&issuer, here, &client).await).await;
    // By what is remembered, the right one is good elsewhere.
    assert_eq!(from(&issuer, "192.0.2.2", &client).await.status(), StatusCode::OK);
    held.rollback().await.unwrap();
    let failures = issuer.database.audit("client.authentication_failed").await;
    let reasons: Vec<&Value> = failures.iter().map(|failure| &failure["reason"]).collect();
    assert_eq!(reasons, [&json!("malformed client_secret, by what was remembered"); 5]);
    assert_eq!(issuer.database.audit("client.locked_out").await.len(), 1);
}

/// Guesses that are all begun before the first has failed: no more of them are answered than of those that come one by one.
#[tokio::test]
async fn guesses_at_once_get_no_more_answers_than_one_by_one() {
    for redis in [true, false] {
        let settings =
            |cli: Cli| if redis { with_lockout(cli) } else { with_lockout(cli.env("REDIS_URL", "")) };
        let issuer = Issuer::start_with(settings).await;
        let client = issuer.new_client(&[]).await;
        let mut clients = vec![wrong(&client); 60];
        clients.push(client);
        let answers = clients.iter().map(|client| from(&issuer, "192.0.2.9", client));
        let answers = futures_util::future::join_all(answers).await;
        let count = |status| answers.iter().filter(|answer| answer.status() == status).count();
        let (refused, locked, granted) =
            (count(StatusCode::UNAUTHORIZED), count(StatusCode::TOO_MANY_REQUESTS), count(StatusCode::OK));
        // A success in between makes the failures before it forgotten.
        assert!(refused == 5 || (refused <= 10 && granted == 1), "{refused} {locked} {granted}");
        assert_eq!(refused + locked + granted, 61);
        assert_eq!(issuer.database.audit("client.locked_out").await.len(), 1);
    }
}

#[tokio::test]
async fn failures_lock_out_by_client_and_address_in_redis() {
    let (url, mut redis) = own_redis(4).await;
    let settings = |cli: Cli| with_lockout(cli.env("REDIS_URL", &url));
    let issuer = Issuer::start_with(settings).await;
    let other = replica(&issuer, settings).await;
    failures_lock_out(&issuer, &other).await;

    let locked = keys(&mut redis, "lockout:*").await;
    assert_eq!(locked.len(), 3, "{locked:?}");
    let key = locked.iter().find(|key| key.ends_with(":192.0.2.1")).unwrap();
    let client = Client { id: key.split(':').nth(1).unwrap().to_owned(), ..issuer.administrator.clone() };
    let left: i64 = ask(&mut redis, &["TTL", key]).await;
    assert!((890..=900).contains(&left), "{left}");
    // Shared: the other replica refuses too.
    expect_locked_out(from(&other, "192.0.2.1", &client).await).await;
    let networks: Vec<String> =
        ask(&mut redis, &["ZRANGE", &format!("lockouts:{}", client.id), "0", "-1"]).await;
    assert_eq!(networks, ["192.0.2.1", "2001:db8::/64"]);
    for key in keys(&mut redis, "*").await {
        assert!(ask::<i64>(&mut redis, &["PTTL", &key]).await > 0, "{key} would stay for ever");
    }

    // An administrator ends it, in one place and then everywhere, for all replicas.
    let token = issuer.management_token(&issuer.administrator).await;
    let path = format!("/api/v1/agents/{}/unlock", client.id);
    let unlock = async |body: Value| issuer.post(&path).bearer_auth(&token).json(&body).send().await.unwrap();
    assert_eq!(unlock(json!({"ip": "2001:db8::7"})).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(keys(&mut redis, &format!("lockout:{}:*", client.id)).await, [key.as_str()]);
    assert_eq!(unlock(json!({})).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(keys(&mut redis, &format!("*{}*192.0.2*", client.id)).await, [""; 0]);
    assert_eq!(from(&other, "192.0.2.1", &client).await.status(), 401, "its secret is looked at again");
    assert_eq!(unlock(json!({})).await.status(), StatusCode::NO_CONTENT, "nothing to do is fine");
    let rows = issuer.database.audit("client.unlocked").await;
    assert_eq!(rows[0]["network"], "2001:db8::/64");
    assert_eq!((&rows[1]["network"], &rows[1]["actor"]), (&Value::Null, &json!(issuer.administrator.id)));

    for body in [json!({"ip": "here"}), json!({"ip": 1}), json!({"address": "192.0.2.1"})] {
        assert_eq!(envelope(unlock(body).await).await.1, "VALIDATION_ERROR");
    }
    let reader = issuer.scoped_token("agents:read").await;
    let response = issuer.post(&path).bearer_auth(&reader).json(&json!({})).send().await.unwrap();
    assert_eq!(envelope(response).await.1, "INSUFFICIENT_SCOPE");
    let other_tenant = issuer.other_tenant().await;
    let foreign = issuer.post(&format!("/api/v1/agents/{}/unlock", other_tenant.id));
    let response = foreign.bearer_auth(&token).json(&json!({})).send().await.unwrap();
    assert_eq!(envelope(response).await.1, "AGENT_NOT_FOUND");
}

#[tokio::test]
async fn failures_lock_out_without_redis_and_the_operator_unlocks_every_replica() {
    let settings = |cli: Cli| with_lockout(cli.each_for_itself());
    let issuer = Issuer::start_with(settings).await;
    let other = replica(&issuer, settings).await;
    failures_lock_out(&issuer, &other).await;

    let client = issuer.new_client(&[]).await;
    let both = [&issuer, &other];
    let lock = async || {
        for issuer in both {
            for _ in 0..5 {
                assert_eq!(from(issuer, "192.0.2.7", &wrong(&client)).await.status(), 401);
            }
            expect_locked_out(from(issuer, "192.0.2.7", &client).await).await;
        }
    };
    let expect_unlocked = async || {
        for issuer in both {
            eventually("it is unlocked", 3, async || {
                (from(issuer, "192.0.2.7", &client).await.status() == StatusCode::OK).then_some(())
            })
            .await;
        }
    };
    let cli = Cli::new(&issuer.database.url);
    lock().await;
    let said = cli.run(&["unlock", "--client", &client.id, "--ip", "192.0.2.8"]).expect_success();
    assert_eq!(said, format!("client {} may authenticate again from 192.0.2.8\n", client.id));
    expect_locked_out(from(&issuer, "192.0.2.7", &client).await).await;
    let said = cli.run(&["unlock", "--client", &client.id, "--json"]).expect_success();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said, json!({"client_id": client.id, "tenant_id": client.tenant, "network": null}));
    expect_unlocked().await;

    lock().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let path = format!("/api/v1/agents/{}/unlock", client.id);
    let response =
        issuer.post(&path).bearer_auth(&token).json(&json!({"ip": "192.0.2.7"})).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    expect_unlocked().await;

    let unknown = "00000000-0000-4000-8000-000000000000";
    let problem = cli.run(&["unlock", "--client", unknown]).expect_failure();
    assert_eq!(problem, format!("there is no client {unknown}"));
    let help = cli.run(&["unlock", "--help"]).expect_success();
    assert!(help.contains("Examples:") && help.contains("--ip"), "{help}");
}

#[tokio::test]
async fn the_operator_unlocks_what_only_redis_knows() {
    let (url, mut redis) = own_redis(5).await;
    let mut issuer = Issuer::start_with(|cli| with_lockout(cli.env("REDIS_URL", &url))).await;
    let client = issuer.new_client(&[]).await;
    for _ in 0..5 {
        assert_eq!(from(&issuer, "192.0.2.1", &wrong(&client)).await.status(), 401);
    }
    assert!(issuer.stop().success());
    assert_eq!(keys(&mut redis, "lockout:*").await.len(), 1);
    let cli = Cli::new(&issuer.database.url);
    cli.clone().env("REDIS_URL", &url).run(&["unlock", "--client", &client.id]).expect_success();
    assert_eq!(keys(&mut redis, "lockout*").await, [""; 0]);

    let (proxy, url) = Proxy::before(&url, Line::Cut).await;
    let problem = cli.env("REDIS_URL", &url).run(&["unlock", "--client", &client.id]).expect_failure();
    assert!(problem.contains("Redis"), "{problem}");
    drop(proxy);
}

#[tokio::test]
async fn a_lockout_outlasts_the_loss_of_redis_where_it_is_known() {
    let (url, _redis) = own_redis(6).await;
    let (proxy, url) = Proxy::before(&url, Line::Open).await;
    let issuer = Issuer::start_with(|cli| with_lockout(cli.env("REDIS_URL", &url))).await;
    let client = issuer.new_client(&[]).await;
    for _ in 0..5 {
        assert_eq!(from(&issuer, "192.0.2.1", &wrong(&client)).await.status(), 401);
    }
    proxy.set(Line::Cut);
    expect_locked_out(from(&issuer, "192.0.2.1", &client).await).await;
    assert_eq!(from(&issuer, "192.0.2.2", &client).await.status(), StatusCode::OK);
    // What holds the lockouts can't be reached, so it isn't said that they have ended.
    let token = issuer.management_token(&issuer.administrator).await;
    let path = format!("/api/v1/agents/{}/unlock", client.id);
    let response = issuer.post(&path).bearer_auth(&token).json(&json!({})).send().await.unwrap();
    assert_eq!(envelope(response).await.1, "SERVICE_UNAVAILABLE");
    assert_eq!(issuer.database.audit("client.unlocked").await.len(), 0);
}

async fn set_quota(database: &TestDatabase, quota: &str) {
    database.execute(&format!("update tenants set monthly_token_quota = {quota}")).await;
}

async fn granted(database: &TestDatabase) -> i64 {
    database.value("select coalesce(sum(granted), 0)::bigint from quota_usage").await
}

/// Asks both for tokens, many at once, until neither has issued any for a while; how many there were.
async fn exhaust(one: &Arc<Issuer>, two: &Arc<Issuer>, client: &Client) -> usize {
    let mut issued = 0;
    loop {
        let mut requests = tokio::task::JoinSet::new();
        for n in 0..20 {
            let (replica, client) = (if n % 2 == 0 { one } else { two }.clone(), client.clone());
            requests.spawn(async move { replica.oauth("token", &client, &GRANT).await.status().as_u16() });
        }
        let statuses = requests.join_all().await;
        let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
        // 503 is a database that is slow because all tests want it at once.
        assert_eq!(count(200) + count(403) + count(503), 20, "{statuses:?}");
        issued += count(200);
        if count(403) == 20 {
            return issued;
        }
    }
}

#[tokio::test]
async fn a_quota_is_exact_with_two_replicas_and_without_redis() {
    let (url, mut redis) = own_redis(7).await;
    let settings = |cli: Cli| cli.env("REDIS_URL", &url);
    let mut one = Issuer::start_with(settings).await;
    let client = one.new_client(&[]).await;
    set_quota(&one.database, "200").await;
    let two = Arc::new(replica(&one, settings).await);
    // Both hold some. What the one that is killed held is lost; it is never issued twice.
    let before = statuses(&one, &client, 3).await;
    assert_eq!(before, [200, 200, 200]);
    assert_eq!(statuses(&two, &client, 2).await, [200, 200]);
    let held = granted(&one.database).await;
    assert!(held > 5, "allowances, not one row for each token: {held}");
    let () = ask(&mut redis, &["FLUSHDB"]).await;
    assert!(one.stop().success());
    assert!(granted(&two.database).await < held, "what was left came back at the stop");

    let one = Arc::new(replica(&two, settings).await);
    assert_eq!(exhaust(&one, &two, &client).await, 195);
    let () = ask(&mut redis, &["FLUSHDB"]).await;
    assert_eq!(exhaust(&one, &two, &client).await, 0);
    assert_eq!(granted(&one.database).await, 200);
    one.database.sealed().await;
    let audited: i64 = one
        .database
        .value(&format!(
            "select count(*) from audit_events where action = 'token.issued' and actor_agent_id = '{}'",
            client.id
        ))
        .await;
    assert_eq!(audited, 200);

    let (status, body) = limited(one.oauth("token", &client, &GRANT).await).await;
    assert_eq!(
        (status, &body["error"], &body["code"]),
        (403, &json!("access_denied"), &json!("FREE_TIER_LIMIT_EXCEEDED"))
    );
    assert_eq!((&body["details"]["quota"], &body["details"]["used"]), (&json!(200), &json!(200)));
    let resets_at = body["details"]["resets_at"].as_str().unwrap();
    assert!(resets_at.ends_with("-01T00:00:00Z"), "{resets_at}");
    let text = body["error_description"].as_str().unwrap();
    assert!(text.contains("200 of its 200") && text.contains(&resets_at[..10]), "{text}");

    // Raised, it holds within seconds; lowered too.
    set_quota(&one.database, "210").await;
    let started = Instant::now();
    let mut issued = 0;
    while issued < 10 && started.elapsed() < Duration::from_secs(5) {
        issued += statuses(&two, &client, 1).await.iter().filter(|status| **status == 200).count();
    }
    assert_eq!(issued, 10);
    assert_eq!(exhaust(&one, &two, &client).await, 0);
    set_quota(&one.database, "100").await;
    eventually("it holds", 2, async || {
        let (_, body) = limited(one.oauth("token", &client, &GRANT).await).await;
        assert_eq!(body["details"]["used"], json!(210));
        (body["details"]["quota"] == json!(100)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_killed_process_loses_what_it_held_and_no_more() {
    let mut issuer = Issuer::start_with(|cli| cli.without("REDIS_URL")).await;
    let client = issuer.new_client(&[]).await;
    set_quota(&issuer.database, "160").await;
    assert_eq!(statuses(&issuer, &client, 1).await, [200]);
    assert_eq!(granted(&issuer.database).await, 10, "a sixteenth of what is left");
    issuer.kill();
    let issuer = Arc::new(replica(&issuer, |cli| cli.without("REDIS_URL")).await);
    assert_eq!(exhaust(&issuer, &issuer, &client).await, 150);
}

#[tokio::test]
async fn what_lies_unused_is_given_back() {
    let issuer = Issuer::start_with(|cli| cli.without("REDIS_URL")).await;
    set_quota(&issuer.database, "1600").await;
    assert_eq!(statuses(&issuer, &issuer.administrator, 3).await, [200; 3]);
    assert_eq!(granted(&issuer.database).await, 100);
    // What isn't issued in the end isn't used either.
    let form = [GRANT[0], ("scope", "not:allowed")];
    assert_eq!(issuer.oauth("token", &issuer.administrator, &form).await.status(), 400);
    eventually("the rest came back", 10, async || (granted(&issuer.database).await == 3).then_some(())).await;
    assert_eq!(statuses(&issuer, &issuer.administrator, 1).await, [200]);
}

#[tokio::test]
async fn the_quota_is_the_plan_s_unless_the_tenant_has_its_own() {
    let (url, mut redis) = own_redis(8).await;
    let mut issuer =
        Issuer::start_with(|cli| cli.env("REDIS_URL", &url).env("FREE_TIER_TOKENS_PER_MONTH", "3")).await;
    let free = issuer.other_tenant().await;
    assert_eq!(statuses(&issuer, &free, 5).await, [200, 200, 200, 403, 403]);
    // The platform's tenant is on the paid plan.
    assert_eq!(statuses(&issuer, &issuer.administrator, 5).await, [200; 5]);
    assert_eq!(granted(&issuer.database).await, 3, "without a quota nothing is counted");
    // Introspection and revocation take no tokens.
    assert!(!issuer.is_active(&free, "x").await);

    issuer.database.execute("update tenants set plan = 'paid' where name like 'Other %'").await;
    eventually("the paid plan has no quota", 5, async || {
        (statuses(&issuer, &free, 1).await == [200]).then_some(())
    })
    .await;
    issuer.database.execute("update tenants set monthly_token_quota = 0").await;
    eventually("a quota of its own goes before the plan", 5, async || {
        (statuses(&issuer, &free, 1).await == [403]).then_some(())
    })
    .await;
    assert_eq!(statuses(&issuer, &issuer.administrator, 1).await, [403]);

    // For operators: tokens of the month by client, gone some time after it.
    assert!(issuer.stop().success());
    let today = time::OffsetDateTime::now_utc();
    let key = format!("monthly:{}:{}:{}", issuer.administrator.id, today.year(), u8::from(today.month()));
    // One more than above: making the other tenant took a token.
    assert_eq!(ask::<Option<i64>>(&mut redis, &["GET", &key]).await, Some(6));
    let left: i64 = ask(&mut redis, &["TTL", &key]).await;
    assert!((86_000..=33 * 86_400).contains(&left), "{left}");
}

#[tokio::test]
async fn a_lost_database_issues_nothing_beyond_what_is_held() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let (proxy, url) = Proxy::before(&database.url, Line::Open).await;
    let settings = |cli: Cli| cli.env("DATABASE_URL", &url).without("REDIS_URL");
    let issuer = Issuer::start_on(database.into(), administrator, settings).await;
    set_quota(&issuer.database, "2").await;
    assert_eq!(statuses(&issuer, &issuer.administrator, 1).await, [200]);
    proxy.set(Line::Cut);
    assert_eq!(statuses(&issuer, &issuer.administrator, 2).await, [503, 503]);
    proxy.set(Line::Open);
    let mut answers = Vec::new();
    eventually("the database is back", 10, async || {
        answers.extend(statuses(&issuer, &issuer.administrator, 1).await);
        answers.contains(&403).then_some(())
    })
    .await;
    assert!(answers.iter().filter(|status| **status == 200).count() <= 1, "{answers:?}");
}

/// At times of our own, over many windows: the script in Redis and the process count and decide alike.
#[tokio::test]
async fn redis_and_the_process_decide_alike() {
    let (url, mut redis) = own_redis(9).await;
    let shared = Redis::open(&Secret::new(url)).unwrap();
    let own = InProcess::default();
    let id = "01234567-89ab-cdef-0123-456789abcdef";
    let rates = [
        Rate { subject: Subject::Client(id.parse().unwrap()), limit: 7 },
        Rate { subject: Subject::Tenant(id.parse().unwrap()), limit: 10 },
        Rate { subject: Subject::Endpoint(id.parse().unwrap(), Endpoint::Token), limit: 3 },
        Rate { subject: Subject::Ip(Network::of([192, 0, 2, 1].into())), limit: 12 },
    ];
    let (mut millis, mut seed) = (1_700_000_000_000_u64, 1_u64);
    let (mut let_through, mut of_addresses) = (0, 0);
    for n in 0..600 {
        // Knuth's generator: the same times with every run.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        millis += seed >> 51;
        let (address, rates) = match (seed >> 33) % 4 {
            0 => (None, &rates[..2]),
            1 => (Some(rates[3]), &rates[..0]),
            2 => (Some(rates[3]), &rates[..2]),
            _ => (None, &rates[..]),
        };
        if n == 300 {
            // Redis was started anew and has forgotten the scripts.
            let () = ask(&mut redis, &["SCRIPT", "FLUSH"]).await;
        }
        let now = Moment { millis };
        let asked = Asked { address, rates, ..Asked::default() };
        let answered = own.admit(asked, now).await;
        assert_eq!(shared.admit(asked, now).await, answered, "{n} at {millis}");
        match answered.verdict {
            Verdict::Admitted => let_through += 1,
            Verdict::AddressFull => of_addresses += 1,
            Verdict::Full | Verdict::LockedOut(_) => {}
        }
    }
    assert!((100..500).contains(&let_through), "{let_through}: both verdicts came up");
    assert!(of_addresses > 0, "addresses were refused, too");
    assert_eq!(shared.health().await, Health::Ok);

    let minute = Duration::from_mins(1);
    let policy = LockoutPolicy { attempts: 3, window: minute, lockout: minute };
    for (host, times) in [
        [0, 50_000, 60_000, 60_001],
        [0, 59_999, 60_000, 119_998],
        [0, 1, 2, 3],
        [0, 60_000, 120_000, 180_000],
    ]
    .into_iter()
    .enumerate()
    {
        let pair = Pair::new(id.parse().ok(), [198, 51, 100, u8::try_from(host).unwrap()].into());
        for millis in times {
            let now = Moment { millis };
            // How long a lockout still lasts there is by the server's clock.
            let outcomes = (own.failed(pair, &policy, now).await, shared.failed(pair, &policy, now).await);
            let (here, there) = (discriminant(&outcomes.0), discriminant(&outcomes.1));
            assert_eq!(here, there, "{host} at {millis}: {outcomes:?}");
            let asked = Asked { pair: Some(pair), ..Asked::default() };
            let (here, there) = (own.admit(asked, now).await.verdict, shared.admit(asked, now).await.verdict);
            assert_eq!(discriminant(&here), discriminant(&there), "{host} at {millis}: {here:?} {there:?}");
        }
        let asked = Asked { pair: Some(pair), ..Asked::default() };
        assert_eq!(own.admit(asked, Moment { millis: 180_000 }).await.verdict, Verdict::Admitted);
        // There it is the server's clock that ends it.
        let there = shared.admit(asked, Moment { millis: 0 }).await.verdict;
        assert_eq!(matches!(there, Verdict::LockedOut(_)), host < 3, "{host}");
    }
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let cli = Cli::new("postgres://user@127.0.0.1:1/none");
    let wrong = [
        ("TRUSTED_PROXIES", "10.0.0.0/8, proxy.example"),
        ("RATE_LIMIT_PER_IP", "0"),
        ("RATE_LIMIT_PER_CLIENT", "many"),
        ("RATE_LIMIT_PER_TENANT", "-1"),
        ("RATE_LIMIT_TOKEN", "0"),
        ("RATE_LIMIT_INTROSPECT", "x"),
        ("RATE_LIMIT_REVOKE", "10000001"),
        ("RATE_LIMIT_MANAGEMENT", "1.5"),
        ("LOCKOUT_ATTEMPTS", "0"),
        ("LOCKOUT_WINDOW_MINUTES", "0"),
        ("LOCKOUT_MINUTES", "10081"),
        ("FREE_TIER_TOKENS_PER_MONTH", "-1"),
    ];
    let ran = wrong.iter().fold(cli, |cli, (name, value)| cli.env(name, value)).run(&["serve"]);
    assert_eq!(ran.code(), Some(78));
    let stderr = ran.stderr();
    for (name, value) in wrong {
        let named = stderr.lines().filter(|line| line.starts_with(&format!("  {name} must be "))).count();
        assert!(named == 1 && stderr.contains(&format!("not `{value}`")), "{name}: {stderr}");
    }
}
