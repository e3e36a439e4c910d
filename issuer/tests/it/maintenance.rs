//! Maintenance: what it turns away, what it never does, and who follows.

use std::time::{Duration, Instant};

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::cli::Cli;
use crate::support::issuer::{agent_body, envelope};
use crate::support::proxy::{Line, Proxy};
use crate::support::{Client, Issuer, TestDatabase, eventually};

const GRANT: [(&str, &str); 1] = [("grant_type", "client_credentials")];

async fn another(issuer: &Issuer) -> Issuer {
    Issuer::start_on(issuer.database.clone(), issuer.administrator.clone(), |cli| cli).await
}

async fn switch(cli: &Cli, arguments: &[&str]) -> Value {
    let (cli, arguments) =
        (cli.clone(), arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>());
    let ran = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = ["maintenance"]
            .into_iter()
            .chain(arguments.iter().map(String::as_str))
            .chain(["--json"])
            .collect();
        cli.run(&arguments).expect_success()
    });
    serde_json::from_str(&ran.await.unwrap()).unwrap()
}

async fn register(issuer: &Issuer, token: &str) -> Response {
    issuer.post("/api/v1/agents").bearer_auth(token).json(&agent_body(&[])).send().await.unwrap()
}

/// Asks until the answer has `status`, and says how long that took.
async fn within_a_second(issuer: &Issuer, token: &str, status: u16) -> Duration {
    let began = Instant::now();
    eventually("it follows", 5, async || (register(issuer, token).await.status() == status).then_some(()))
        .await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    took
}

async fn readiness(issuer: &Issuer) -> Value {
    let ready = issuer.get("/ready").send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK, "it is still to be sent what it does");
    ready.json().await.unwrap()
}

/// What goes on, whatever is on.
async fn goes_on(issuer: &Issuer, token: &str, victim: &Client, live: &str) {
    for path in
        ["/health", "/.well-known/jwks.json", "/.well-known/oauth-authorization-server", "/status-lists"]
    {
        assert_eq!(issuer.get(path).send().await.unwrap().status(), StatusCode::OK, "{path}");
    }
    let read = issuer.get(&format!("/api/v1/agents/{}", victim.id)).bearer_auth(token).send().await.unwrap();
    assert_eq!(read.status(), StatusCode::OK);
    assert!(issuer.is_active(&issuer.administrator, live).await);
    issuer.revoke(&issuer.administrator, live).await;
    assert!(!issuer.is_active(&issuer.administrator, live).await);
    let send = async |method: Method, path: &str, body: Value| {
        let request = issuer.http.request(method, format!("{}{path}", issuer.url)).bearer_auth(token);
        request.json(&body).send().await.unwrap().status()
    };
    let ended = send(Method::POST, "/api/v1/revocations", json!({ "agent_id": victim.id })).await;
    assert!(ended.is_success(), "{ended}");
    let agent = format!("/api/v1/agents/{}", victim.id);
    assert!(send(Method::POST, &format!("{agent}/suspend"), json!({})).await.is_success());
    assert!(send(Method::DELETE, &agent, json!({})).await.is_success());
}

#[tokio::test]
async fn every_replica_follows_within_a_second_and_a_restart_keeps_it() {
    let here = Issuer::start().await;
    let mut there = another(&here).await;
    let cli = Cli::new(&here.database.url);
    let token = here.management_token(&here.administrator).await;
    let victims = [here.new_client(&[]).await, here.new_client(&[]).await];
    let live = [here.token(&here.administrator).await, here.token(&here.administrator).await];
    assert_eq!(switch(&cli, &["status"]).await["on"], false);
    assert_eq!(readiness(&here).await["checks"]["maintenance"], json!({ "status": "off" }));

    let said = switch(&cli, &["on", "--reason", "moving house until 03:00 UTC"]).await;
    assert_eq!((&said["on"], &said["tokens"]), (&json!(true), &json!(false)));
    for issuer in [&here, &there] {
        within_a_second(issuer, &token, 503).await;
        let refused = register(issuer, &token).await;
        assert_eq!(refused.headers()["retry-after"], "30");
        let (status, code, details) = envelope(refused).await;
        assert_eq!((status, code.as_str()), (503, "MAINTENANCE"));
        assert_eq!(details["reason"], "moving house until 03:00 UTC");
        assert_eq!(issuer.oauth("token", &issuer.administrator, &GRANT).await.status(), StatusCode::OK);
        // What it was asked a moment ago is answered once more.
        eventually("it says so", 5, async || {
            let ready = readiness(issuer).await;
            let is_on = ready["checks"]["maintenance"]["status"] == "on";
            (is_on && ready["degraded"].as_array().unwrap().contains(&json!("maintenance"))).then_some(())
        })
        .await;
    }
    goes_on(&there, &token, &victims[0], &live[0]).await;

    switch(&cli, &["on", "--tokens", "too", "--reason", "the same"]).await;
    eventually("tokens too", 1, async || {
        let refused = there.oauth("token", &there.administrator, &GRANT).await;
        (refused.status() == 503).then_some(())
    })
    .await;
    let refused = there.oauth("token", &there.administrator, &GRANT).await;
    assert_eq!(refused.headers()["retry-after"], "30");
    let body: Value = refused.json().await.unwrap();
    assert_eq!((&body["error"], &body["code"]), (&json!("temporarily_unavailable"), &json!("MAINTENANCE")));
    assert_eq!(body["details"]["since"], said["since"], "it is the same maintenance");
    goes_on(&there, &token, &victims[1], &live[1]).await;

    there.stop();
    let there = another(&here).await;
    assert_eq!(
        there.oauth("token", &there.administrator, &GRANT).await.status(),
        503,
        "from the first request on"
    );
    assert_eq!(switch(&cli, &["status"]).await["reason"], "the same");

    assert_eq!(switch(&cli, &["off"]).await["on"], false);
    for issuer in [&here, &there] {
        within_a_second(issuer, &token, 201).await;
        assert_eq!(issuer.oauth("token", &issuer.administrator, &GRANT).await.status(), StatusCode::OK);
    }
    // Said again, it is nothing new.
    switch(&cli, &["off"]).await;
    let events: Vec<(String, String)> = sqlx::query_as(
        "select action, details::text from (select action, details, event_id from audit_queue
         union all select action, details, event_id from audit_events) e where action like 'maintenance.%' order by event_id",
    )
    .fetch_all(&here.database.pool)
    .await
    .unwrap();
    let actions: Vec<&str> = events.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(actions, ["maintenance.begun", "maintenance.begun", "maintenance.ended"]);
    let details: Value = serde_json::from_str(&events[1].1).unwrap();
    assert_eq!(details, json!({ "reach": "everywhere", "tokens": true, "reason": "the same" }));
}

#[tokio::test]
async fn a_process_has_a_switch_of_its_own_that_needs_no_database() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let (proxy, url) = Proxy::before(&database.url, Line::Open).await;
    let here = Issuer::start_on(database.into(), administrator, |cli| cli.env("DATABASE_URL", &url)).await;
    let there = another(&here).await;
    let token = here.management_token(&here.administrator).await;
    let admin = format!("{}/maintenance", here.admin_url);
    let post = async |body: Value| here.http.post(&admin).json(&body).send().await.unwrap();

    for nonsense in
        [json!({}), json!({ "on": 1 }), json!({ "on": true, "reason": "" }), json!({ "on": true, "x": 1 })]
    {
        assert_eq!(post(nonsense.clone()).await.status(), 400, "{nonsense}");
    }
    let answer: Value = post(json!({ "on": true, "reason": "here only" })).await.json().await.unwrap();
    assert_eq!(
        (&answer["on"], &answer["recorded"], &answer["everywhere"]),
        (&json!(true), &json!(true), &Value::Null)
    );
    assert_eq!(envelope(register(&here, &token).await).await.1, "MAINTENANCE");
    assert_eq!(register(&there, &token).await.status(), 201);

    // Nothing can be written down, and something waits for that already: it has switched, and says so in time.
    let mut held = here.database.pool.begin().await.unwrap();
    sqlx::query("lock table audit_queue in access exclusive mode").execute(&mut *held).await.unwrap();
    let switched = async {
        eventually("the first event is stuck", 3, async || {
            here.database
                .value::<bool>("select exists (select from pg_locks where relation = 'audit_queue'::regclass and not granted and database = (select oid from pg_database where datname = current_database()))")
                .await
                .then_some(())
        })
        .await;
        post(json!({ "on": true, "reason": "stuck" })).await
    };
    let (_, answer) = tokio::join!(here.oauth("token", &here.administrator, &GRANT), switched);
    assert_eq!(answer.status(), StatusCode::OK);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!((&answer["process"]["reason"], &answer["recorded"]), (&json!("stuck"), &json!(false)));
    held.rollback().await.unwrap();

    proxy.set(Line::Cut);
    let answer: Value = post(json!({ "on": true, "tokens": true })).await.json().await.unwrap();
    assert_eq!((&answer["process"]["tokens"], &answer["recorded"]), (&json!(true), &json!(false)));
    let refused: Value = here.oauth("token", &here.administrator, &GRANT).await.json().await.unwrap();
    assert_eq!(refused["code"], "MAINTENANCE");
    here.logged("maintenance was switched, which couldn't be written down").await;
    proxy.set(Line::Open);
    let answer: Value = post(json!({ "on": false })).await.json().await.unwrap();
    assert_eq!(answer["on"], false);
    eventually("it works again", 10, async || (register(&here, &token).await.status() == 201).then_some(()))
        .await;
    let shown: Value = here.http.get(&admin).send().await.unwrap().json().await.unwrap();
    assert_eq!(shown, json!({ "on": false, "process": null, "everywhere": null }));
}
