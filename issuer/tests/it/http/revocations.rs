//! `POST /api/v1/revocations`, and `countersign revoke`.

use std::time::{Duration, Instant};

use countersign_shared::verify::{Revocation, Revocations as _};
use countersign_shared::{Coordinate, Serial, Shard, UnixTime};
use redis::AsyncCommands as _;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::support::cli::Cli;
use crate::support::edge::Edge;
use crate::support::issuer::{agent_body, claims, envelope, parsed, part};
use crate::support::{Client, Issuer, MASTER_KEY, TestDatabase, eventually, required};

async fn send(issuer: &Issuer, token: &str, body: &Value) -> Response {
    issuer.post("/api/v1/revocations").bearer_auth(token).json(body).send().await.unwrap()
}

async fn end(issuer: &Issuer, body: Value) -> Value {
    let token = issuer.management_token(&issuer.administrator).await;
    let response = send(issuer, &token, &body).await;
    let status = response.status();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

async fn second_credential(issuer: &Issuer, client: &Client) -> Client {
    let token = issuer.management_token(&issuer.administrator).await;
    let path = format!("/api/v1/agents/{}/credentials", client.id);
    let response = issuer.post(&path).bearer_auth(&token).json(&json!({})).send().await.unwrap();
    let body: Value = response.json().await.unwrap();
    Client { secret: body["client_secret"].as_str().unwrap().to_owned(), ..client.clone() }
}

/// Every token of the subject, and no other, at the issuer and at the edge; and what is issued in the very next moment holds.
#[tokio::test]
async fn ends_what_the_subject_obtained_and_nothing_else() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let edge = Edge::start(&database.url).await;
    let issuer = Issuer::start_on(database.into(), administrator, |cli| edge.configure(cli)).await;
    let admin = &issuer.administrator;
    let foreign = issuer.other_tenant().await;
    let client = issuer.new_client(&[]).await;
    let other_credential = second_credential(&issuer, &client).await;
    let other_agent = issuer.new_client(&[]).await;

    for subject in ["credential_id", "agent_id", "tenant_id", "key_id"] {
        // So that the tokens to be ended are older than what the round before ended.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let ended = issuer.token(&client).await;
        let same_agent = issuer.token(&other_credential).await;
        let same_tenant = issuer.token(&other_agent).await;
        let elsewhere = issuer.token(&foreign).await;
        let id = match subject {
            "key_id" => part(&ended, 0)["kid"].clone(),
            "agent_id" => claims(&ended)["sub"].clone(),
            other => claims(&ended)[other].clone(),
        };
        let answer = end(&issuer, json!({ subject: id })).await;
        assert!(answer["issued_up_to"].as_str().unwrap().ends_with('Z'), "{answer}");

        let fresh = issuer.token(&client).await;
        let expected = [
            (&ended, &client, true),
            (&same_agent, &client, subject != "credential_id"),
            (&same_tenant, &other_agent, matches!(subject, "tenant_id" | "key_id")),
            (&elsewhere, &foreign, subject == "key_id"),
            (&fresh, &client, false),
        ];
        eventually("the edge has the rule", 5, async || {
            edge.revoked_set().filter(|set| set.verdict(&parsed(&ended)) == Revocation::Superseded)
        })
        .await;
        let set = edge.revoked_set().unwrap();
        for (place, (token, holder, ends)) in expected.into_iter().enumerate() {
            assert_eq!(
                issuer.is_active(holder, token).await,
                !ends,
                "{subject}, token {place}, introspection"
            );
            let verdict = if ends { Revocation::Superseded } else { Revocation::Clear };
            assert_eq!(set.verdict(&parsed(token)), verdict, "{subject}, token {place}, at the edge");
        }
    }
    edge.expect_sound();
    let rows = issuer.database.audit("tokens.ended").await;
    assert_eq!(rows.len(), 4, "{rows:?}");
    assert!(rows.iter().all(|row| row["actor"] == admin.id.as_str()), "{rows:?}");
}

#[tokio::test]
async fn a_token_issued_right_after_holds_again_and_again() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&[]).await;
    for _ in 0..10 {
        let before = issuer.token(&client).await;
        end(&issuer, json!({ "agent_id": client.id })).await;
        let after = issuer.token(&client).await;
        assert!(!issuer.is_active(&client, &before).await);
        assert!(issuer.is_active(&client, &after).await, "{}", claims(&after));
    }
}

#[tokio::test]
async fn one_token_by_itself_or_by_its_id_however_often() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&[]).await;
    for by_jti in [false, true] {
        let (token, other) = (issuer.token(&client).await, issuer.token(&client).await);
        let jti = claims(&token)["jti"].clone();
        let body = if by_jti { json!({ "jti": jti }) } else { json!({ "token": token }) };
        for _ in 0..2 {
            assert_eq!(end(&issuer, body.clone()).await, json!({ "jti": jti }));
        }
        assert!(!issuer.is_active(&client, &token).await);
        assert!(issuer.is_active(&client, &other).await);
    }
}

#[tokio::test]
async fn what_is_not_the_caller_s_is_not_there() {
    let issuer = Issuer::start().await;
    let foreign = issuer.other_tenant().await;
    let theirs = issuer.management_token(&foreign).await;
    let ours = issuer.token(&issuer.administrator).await;
    let claims = claims(&ours);
    let unknown = "11111111-2222-4333-8444-555555555555";
    for (body, status, code) in [
        (json!({ "token": ours }), 404, "TOKEN_NOT_FOUND"),
        (json!({ "token": "a.b.c" }), 404, "TOKEN_NOT_FOUND"),
        (json!({ "jti": claims["jti"] }), 404, "TOKEN_NOT_FOUND"),
        (json!({ "agent_id": claims["sub"] }), 404, "AGENT_NOT_FOUND"),
        (json!({ "agent_id": unknown }), 404, "AGENT_NOT_FOUND"),
        (json!({ "credential_id": claims["credential_id"] }), 404, "CREDENTIAL_NOT_FOUND"),
        (json!({ "credential_id": unknown }), 404, "CREDENTIAL_NOT_FOUND"),
        // Other tenants and keys are the platform's business, whether or not they exist.
        (json!({ "tenant_id": claims["tenant_id"] }), 403, "INSUFFICIENT_SCOPE"),
        (json!({ "tenant_id": unknown }), 403, "INSUFFICIENT_SCOPE"),
        (json!({ "key_id": part(&ours, 0)["kid"] }), 403, "INSUFFICIENT_SCOPE"),
        (json!({}), 400, "MALFORMED_REQUEST"),
        (json!({ "agent_id": unknown, "jti": unknown }), 400, "VALIDATION_ERROR"),
        (json!({ "agent_id": unknown, "tenant_id": unknown }), 400, "MALFORMED_REQUEST"),
        (json!({ "agent": unknown }), 400, "VALIDATION_ERROR"),
        (json!({ "agent_id": 5 }), 400, "VALIDATION_ERROR"),
    ] {
        let (answered, with, _) = envelope(send(&issuer, &theirs, &body).await).await;
        assert_eq!((answered, with.as_str()), (status, code), "{body}");
    }
    assert!(issuer.is_active(&issuer.administrator, &ours).await);

    let platform = issuer.management_token(&issuer.administrator).await;
    for (body, code) in [
        (json!({ "tenant_id": unknown }), "TENANT_NOT_FOUND"),
        (json!({ "key_id": unknown }), "KEY_NOT_FOUND"),
    ] {
        let (status, with, _) = envelope(send(&issuer, &platform, &body).await).await;
        assert_eq!((status, with.as_str()), (404, code));
    }
    let scoped = issuer.scoped_token("tokens:introspect").await;
    let (status, code, _) = envelope(send(&issuer, &scoped, &json!({ "jti": unknown })).await).await;
    assert_eq!((status, code.as_str()), (403, "INSUFFICIENT_SCOPE"));

    // The platform may end another tenant's tokens, and that tenant's administrators see it.
    let token = issuer.token(&foreign).await;
    let body = json!({ "tenant_id": foreign.tenant });
    assert_eq!(send(&issuer, &platform, &body).await.status(), StatusCode::OK);
    assert!(!issuer.is_active(&foreign, &token).await);
    let tenants: Vec<Value> =
        issuer.database.audit("tokens.ended").await.iter().map(|row| row["tenant"].clone()).collect();
    assert!(tenants.contains(&json!(foreign.tenant)) && tenants.len() == 2, "{tenants:?}");
}

#[tokio::test]
async fn the_operator_does_it_from_the_command_line() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&[]).await;
    let cli = Cli::new(&issuer.database.url);
    let token = issuer.token(&client).await;
    let jti = claims(&token)["jti"].as_str().unwrap().to_owned();
    let printed = cli.run(&["revoke", "--jti", &jti, "--tenant", &client.tenant]).expect_success();
    assert!(printed.starts_with(&format!("revoked: token {jti}")), "{printed}");
    assert!(!issuer.is_active(&client, &token).await);

    let credential = claims(&token)["credential_id"].as_str().unwrap().to_owned();
    let kid = part(&token, 0)["kid"].as_str().unwrap().to_owned();
    for arguments in [
        vec!["--agent", &client.id],
        vec!["--credential", &credential],
        vec!["--tenant", &client.tenant, "--all-of-tenant", "--yes"],
        vec!["--key", &kid],
    ] {
        let token = issuer.token(&client).await;
        let printed = cli.run(&[&["revoke", "--json"], arguments.as_slice()].concat()).expect_success();
        assert!(serde_json::from_str::<Value>(&printed).unwrap()["issued_up_to"].is_string(), "{printed}");
        assert!(!issuer.is_active(&client, &token).await, "{arguments:?}");
    }
    assert_eq!(
        cli.run(&["revoke", "--agent", "11111111-2222-4333-8444-555555555555"]).expect_failure(),
        "there is no such agent or credential"
    );
}

/// An API that introspects what it is sent: it learns about tokens for itself only.
#[tokio::test]
async fn a_resource_server_may_introspect_the_tokens_that_are_for_it() {
    let issuer = Issuer::start().await;
    let (api, client) = (issuer.new_client(&[]).await, issuer.new_client(&[]).await);
    let sql = "insert into resource_servers (resource_server_id, tenant_id, identifier, agent_id)
               select gen_random_uuid(), tenant_id, 'https://second.example', agent_id from agents where agent_id = ";
    issuer.database.execute(&format!("{sql}'{}'", api.id)).await;
    let for_it = issuer.grant(&client, &[("resource", "https://second.example")]).await;
    let for_it = for_it["access_token"].as_str().unwrap();
    let for_another = issuer.token(&client).await;
    assert!(issuer.is_active(&api, for_it).await);
    assert!(!issuer.is_active(&api, &for_another).await);
    let stranger = issuer.new_client(&[]).await;
    assert!(!issuer.is_active(&stranger, for_it).await);
}

/// A rule that a host with a fast clock made must not make tokens that nobody would take.
#[tokio::test]
async fn a_rule_ahead_of_the_clock_is_an_outage_and_not_a_dead_token() {
    let issuer = Issuer::start().await;
    let token = issuer.management_token(&issuer.administrator).await;
    let agent = issuer.register(&token, &agent_body(&[])).await;
    let client = issuer.new_client(&[]).await;
    assert_ne!(agent["agent_id"], client.id.as_str());
    let subject = client.id.replace('-', "");
    issuer
        .database
        .execute(&format!(
            "insert into not_before_rules (level, subject, tenant_id, not_before)
             values (2, '\\x{subject}', '{}', extract(epoch from now())::bigint + 6)",
            client.tenant
        ))
        .await;
    let started = Instant::now();
    let form = [("grant_type", "client_credentials")];
    let refused = issuer.oauth("token", &client, &form).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    eventually("tokens again", 10, async || {
        issuer.oauth("token", &client, &form).await.status().is_success().then_some(())
    })
    .await;
    assert!(started.elapsed() > Duration::from_secs(1));
}

/// With `tokens:revoke` alone nobody shuts out who may more; and that it was tried is written down.
#[tokio::test]
async fn who_may_more_is_not_shut_out_by_who_may_less() {
    let issuer = Issuer::start().await;
    let administrator = issuer.administrator.clone();
    let modest = issuer.scoped_token("tokens:revoke").await;
    let live = issuer.token(&administrator).await;
    let credential = claims(&live)["credential_id"].clone();
    for body in [
        json!({ "agent_id": administrator.id }),
        json!({ "credential_id": credential }),
        json!({ "tenant_id": administrator.tenant }),
    ] {
        let (status, code, _) = envelope(send(&issuer, &modest, &body).await).await;
        assert_eq!((status, code.as_str()), (403, "SCOPE_ESCALATION"), "{body}");
    }
    assert!(issuer.is_active(&administrator, &live).await);
    let plain = issuer.new_client(&[]).await;
    let ended = send(&issuer, &modest, &json!({ "agent_id": plain.id })).await;
    assert_eq!(ended.status(), StatusCode::OK);

    let rows = issuer.database.audit("management.refused").await;
    assert_eq!(rows.len(), 3, "{rows:?}");
    for row in rows {
        assert_eq!((&row["outcome"], &row["reason"]), (&json!("failure"), &json!("SCOPE_ESCALATION")));
        let attempted = json!("POST /api/v1/revocations");
        assert_eq!((&row["actor"], &row["attempted"]), (&json!(administrator.id), &attempted));
    }
}

/// The id of a token.
fn jti_of(token: &str) -> String {
    claims(token)["jti"].as_str().unwrap().to_owned()
}

/// An id that this issuer made, of a token that expired hours ago: such a one takes hours to come by.
async fn expired(issuer: &Issuer, tenant: &str) -> String {
    use countersign_issuer::config::{Keys, Sources};
    use countersign_issuer::{keys, storage, tokens};
    let environment = [("DATABASE_URL", issuer.database.url.as_str()), ("MASTER_KEY", MASTER_KEY)];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Keys::from_sources(&Sources::read(environment, None)).unwrap();
    let database = storage::Database::connect(&config.plain.database).await.unwrap();
    let secrets = keys::load_secrets(&database, &config.master_key).await.unwrap().unwrap();
    let now = UnixTime(time::OffsetDateTime::now_utc().unix_timestamp());
    let shard = Shard::of_expiry(now.plus(-2 * 3600)).unwrap();
    let coordinate = Coordinate { shard, serial: Serial::new(17).unwrap() };
    tokens::jti::mint(&secrets.jti_tag, coordinate, tenant.parse().unwrap()).to_string()
}

#[tokio::test]
async fn many_tokens_at_once_each_with_what_became_of_it() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let edge = Edge::start(&database.url).await;
    let issuer = Issuer::start_on(database.into(), administrator, |cli| edge.configure(cli)).await;
    let client = issuer.new_client(&[]).await;
    let foreign = issuer.other_tenant().await;
    let tokens = [issuer.token(&client).await, issuer.token(&client).await, issuer.token(&client).await];
    let [first, second, before] = tokens.each_ref().map(|token| jti_of(token));
    let (other, theirs) = (issuer.token(&client).await, issuer.token(&foreign).await);
    let expired = expired(&issuer, &client.tenant).await;
    end(&issuer, json!({ "jti": before })).await;

    // A v4, one that looks like ours and isn't, another tenant's; and one twice.
    let forged = format!("{}-8fff-ffffffffffff", &first[..18]);
    let v4 = "11111111-2222-4333-8444-555555555555";
    let asked = [&first, v4, &before, &forged, &jti_of(&theirs), &second, &first, &expired];
    let became = [
        "revoked",
        "not_found",
        "already_revoked",
        "not_found",
        "not_found",
        "revoked",
        "already_revoked",
        "expired",
    ];
    let results = |became: &[&str]| -> Vec<Value> {
        let pairs = asked.iter().zip(became);
        pairs.map(|(jti, status)| json!({ "jti": jti, "status": status })).collect()
    };
    assert_eq!(end(&issuer, json!({ "jtis": asked })).await, json!({ "results": results(&became) }));

    for token in &tokens {
        edge.refuses(jti_of(token).parse().unwrap()).await;
        assert!(!issuer.is_active(&client, token).await);
    }
    assert!(issuer.is_active(&client, &other).await && issuer.is_active(&foreign, &theirs).await);
    let set = edge.revoked_set().unwrap();
    for token in [&other, &theirs] {
        assert_eq!(set.verdict(&parsed(token)), Revocation::Clear);
    }

    // As when they are taken back one after the other: an event each.
    let rows = issuer.database.audit("token.revoked").await;
    let seen: Vec<(&str, bool)> =
        rows.iter().map(|row| (row["target"].as_str().unwrap(), row["already_revoked"] == true)).collect();
    let expected = [(&before, false), (&first, false), (&before, true), (&second, false), (&first, true)];
    assert_eq!(seen.len(), expected.len(), "{rows:?}");
    for (jti, already) in expected {
        assert!(seen.contains(&(jti.as_str(), already)), "{jti} {already}: {rows:?}");
    }
    assert!(rows.iter().all(|row| row["actor"] == issuer.administrator.id.as_str()), "{rows:?}");
    assert_eq!(issuer.database.value::<i64>("select count(*) from revocation_outbox").await, 3);

    // The marks that spare the database a question.
    let redis = redis::Client::open(required("TEST_REDIS_URL")).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    for (jti, marked) in
        [(&first, true), (&second, true), (&before, true), (&forged, false), (&expired, false)]
    {
        let found: bool = redis.exists(format!("revoked:{jti}")).await.unwrap();
        assert_eq!(found, marked, "{jti}");
    }

    // Doing it again changes nothing.
    let again = became.map(|status| if status == "revoked" { "already_revoked" } else { status });
    assert_eq!(end(&issuer, json!({ "jtis": asked })).await, json!({ "results": results(&again) }));
    assert_eq!(issuer.database.value::<i64>("select count(*) from revocation_outbox").await, 3);
}

#[tokio::test]
async fn of_many_tokens_a_malformed_one_is_named_and_none_is_revoked() {
    let issuer = Issuer::start().await;
    let bearer = issuer.management_token(&issuer.administrator).await;
    let token = issuer.token(&issuer.administrator).await;
    let jti = jti_of(&token);
    let many = |count: usize| json!({ "jtis": vec![&jti; count] });
    for (body, fields) in [
        (json!({ "jtis": [jti, "x", jti, 5, jti.to_uppercase(), null] }), &["[1]", "[3]", "[4]", "[5]"][..]),
        (json!({ "jtis": [] }), &[""]),
        (json!({ "jtis": jti }), &[""]),
        (many(1001), &[""]),
        (json!({ "jtis": vec!["x"; 1000] }), &["[0]", "[99]"]),
    ] {
        let (status, code, details) = envelope(send(&issuer, &bearer, &body).await).await;
        assert_eq!((status, code.as_str()), (400, "VALIDATION_ERROR"), "{body}");
        let named: Vec<&str> = details["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| field["field"].as_str().unwrap().strip_prefix("jtis").unwrap())
            .collect();
        assert!(fields.iter().all(|field| named.contains(field)) && named.len() <= 100, "{named:?}");
    }
    let both = json!({ "jtis": [jti], "jti": jti });
    let (status, code, _) = envelope(send(&issuer, &bearer, &both).await).await;
    assert_eq!((status, code.as_str()), (400, "MALFORMED_REQUEST"));
    let scoped = issuer.scoped_token("tokens:introspect").await;
    let (status, code, _) = envelope(send(&issuer, &scoped, &many(1)).await).await;
    assert_eq!((status, code.as_str()), (403, "INSUFFICIENT_SCOPE"));
    assert!(issuer.is_active(&issuer.administrator, &token).await);

    let results = end(&issuer, many(1000)).await["results"].clone();
    assert_eq!(results.as_array().unwrap().len(), 1000);
    assert!(!issuer.is_active(&issuer.administrator, &token).await);
}

/// One transaction: where one row can't be written none is.
#[tokio::test]
async fn of_many_tokens_all_are_revoked_or_none() {
    let issuer = Issuer::start().await;
    let (good, bad) = (issuer.token(&issuer.administrator).await, issuer.token(&issuer.administrator).await);
    let bearer = issuer.management_token(&issuer.administrator).await;
    let refusing = format!(
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not this one'; end $$;
         create trigger refuse before insert on audit_queue for each row when (new.target_id = '{}') execute function refuse()",
        jti_of(&bad)
    );
    issuer.database.execute(&refusing).await;
    let body = json!({ "jtis": [jti_of(&good), jti_of(&bad)] });
    let (status, code, _) = envelope(send(&issuer, &bearer, &body).await).await;
    assert_eq!((status, code.as_str()), (500, "INTERNAL_ERROR"));
    assert!(issuer.is_active(&issuer.administrator, &good).await, "it would be refused at the edge, or not");
    assert_eq!(issuer.database.value::<i64>("select count(*) from revocation_outbox").await, 0);
    issuer.database.execute("drop trigger refuse on audit_queue").await;
    let results = end(&issuer, body).await;
    assert_eq!(results["results"][0]["status"], "revoked");
}

/// Several who take back the same tokens at once, in orders of their own: each token is revoked once, and nobody waits for who waits for them.
#[tokio::test]
async fn the_same_tokens_at_once_in_any_order() {
    let issuer = Issuer::start().await;
    let bearer = issuer.management_token(&issuer.administrator).await;
    let tokens = futures_util::future::join_all((0..60).map(|_| issuer.token(&issuer.administrator))).await;
    let jtis: Vec<String> = tokens.iter().map(|token| jti_of(token)).collect();
    let requests = (0..12).map(async |turn: usize| {
        let mut jtis = jtis.clone();
        jtis.rotate_left(turn * 5);
        if turn.is_multiple_of(2) {
            jtis.reverse();
        }
        let response = send(&issuer, &bearer, &json!({ "jtis": jtis })).await;
        assert_eq!(response.status(), StatusCode::OK);
        let answer: Value = response.json().await.unwrap();
        let results = answer["results"].as_array().unwrap().clone();
        results.iter().filter(|result| result["status"] == "revoked").count()
    });
    let revoked: usize = futures_util::future::join_all(requests).await.into_iter().sum();
    assert_eq!(revoked, jtis.len());
    assert_eq!(issuer.database.value::<i64>("select count(*) from revocation_outbox").await, 60);
}

#[tokio::test]
async fn the_operator_takes_back_all_that_a_log_names() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&[]).await;
    let foreign = issuer.other_tenant().await;
    let tokens = futures_util::future::join_all((0..20).map(|_| issuer.token(&client))).await;
    let theirs = issuer.token(&foreign).await;
    let cli = Cli::new(&issuer.database.url);
    // More than go into one transaction.
    let lines: Vec<String> = tokens.iter().map(|token| jti_of(token)).collect();
    let lines: Vec<String> = lines.iter().cycle().take(2500).cloned().collect();
    let file = std::env::temp_dir().join(format!("countersign-jtis-{}", std::process::id()));
    std::fs::write(&file, lines.join("\n\n")).unwrap();
    let name = file.to_str().unwrap();
    let printed = cli.run(&["revoke", "--json", "--tenant", &client.tenant, "--jtis", name]).expect_success();
    let counts: Value = serde_json::from_str(&printed).unwrap();
    let expected =
        json!({ "revoked": 20, "already_revoked": 2480, "expired": 0, "not_found": 0, "malformed": 0 });
    assert_eq!(counts, expected);
    std::fs::remove_file(&file).unwrap();
    for token in &tokens {
        assert!(!issuer.is_active(&client, token).await);
    }

    // From standard input; what can't be revoked is named by its line, and hinders nothing. A line that isn't an id may be a token: it isn't said.
    let token = issuer.token(&client).await;
    let input = format!("{}\n{token}\n\n{}", jti_of(&theirs), jti_of(&token));
    let ran = cli.run_with(&["revoke", "--jtis", "-", "--tenant", &client.tenant], &input);
    let failure = ran.expect_failure();
    assert_eq!(
        failure,
        format!(
            "all others are revoked, but 1 are no tokens of tenant {}, 1 lines are no ids",
            client.tenant
        )
    );
    let stderr = ran.stderr();
    assert!(stderr.contains("line 2: not a UUID") && !stderr.contains(&token), "{stderr}");
    assert!(stderr.contains(&format!("line 1: {} is no token of the tenant", jti_of(&theirs))), "{stderr}");
    assert!(
        ran.stdout().starts_with("revoked: 1 tokens; 0 were before, 0 have expired\n"),
        "{}",
        ran.stdout()
    );
    assert!(!issuer.is_active(&client, &token).await);
    assert!(issuer.is_active(&foreign, &theirs).await);
    let missing = cli.run(&["revoke", "--jtis", "/nowhere/jtis"]).expect_failure();
    assert!(missing.starts_with("/nowhere/jtis can't be read: "), "{missing}");
}
