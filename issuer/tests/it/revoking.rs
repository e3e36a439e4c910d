//! `countersign revoke`: what it touches, and when the edge had it.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::cli::Cli;
use crate::support::edge::{Mood, with_issuer};
use crate::support::issuer::{claims, part};
use crate::support::{Client, Issuer, eventually};

fn revoke(issuer: &Issuer, arguments: &[&str]) -> Value {
    let cli = Cli::new(&issuer.database.url);
    let printed = cli.run(&[&["revoke", "--json"], arguments].concat()).expect_success();
    serde_json::from_str(&printed).unwrap()
}

/// The same without holding up the test's own servers.
async fn revoke_beside(issuer: &Issuer, arguments: &[&str]) -> String {
    let mut command = Cli::new(&issuer.database.url).command(&[&["revoke"], arguments].concat());
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

fn claim(token: &str, name: &str) -> String {
    claims(token)[name].as_str().unwrap().to_owned()
}

async fn tokens<const N: usize>(issuer: &Issuer, client: &Client) -> [String; N] {
    let mut tokens = Vec::new();
    for _ in 0..N {
        tokens.push(issuer.token(client).await);
    }
    tokens.try_into().unwrap()
}

#[tokio::test]
async fn it_says_how_many_live_tokens_it_touches() {
    let issuer = Issuer::start().await;
    let (client, other) = (issuer.new_client(&[]).await, issuer.new_client(&[]).await);
    let [one, _two, _three] = tokens(&issuer, &client).await;
    let [theirs] = tokens(&issuer, &other).await;
    let all = || revoke(&issuer, &["--no-wait", "--key", part(&one, 0)["kid"].as_str().unwrap()]);
    let touched = |count: u64, bound: &str| json!({ "count": count, "bound": bound });

    let said = revoke(&issuer, &["--no-wait", "--jti", &claim(&one, "jti"), "--tenant", &client.tenant]);
    assert_eq!(said["live_tokens"], touched(1, "exact"));
    assert_eq!((&said["jti"], &said["edge"]), (&claim(&one, "jti").into(), &Value::Null));
    let said = revoke(&issuer, &["--no-wait", "--jti", &claim(&one, "jti"), "--tenant", &client.tenant]);
    assert_eq!(said["live_tokens"], touched(0, "exact"), "it was taken back");

    // One that has expired counts no more. (What is sealed can't be changed; what is queued was, before it was.)
    let [expired] = tokens(&issuer, &client).await;
    issuer.database.sealed().await;
    let shift = format!(
        "insert into audit_queue (event_id, occurred_at, tenant_id, actor_agent_id, action, outcome, target_type, target_id, details)
         select gen_random_uuid(), occurred_at - interval '1 hour', tenant_id, actor_agent_id, action, outcome, target_type,
                '01a1fce7-9dfb-874b-8000-000000000000', details
         from audit_events where target_id = '{}' and action = 'token.issued'",
        claim(&expired, "jti")
    );
    issuer.database.execute(&shift).await;
    let said = revoke(&issuer, &["--no-wait", "--credential", &claim(&one, "credential_id")]);
    assert_eq!(said["live_tokens"], touched(3, "exact"));
    let said = revoke(&issuer, &["--no-wait", "--agent", &client.id]);
    assert_eq!(said["live_tokens"], touched(0, "exact"), "the credential's rule has ended them");
    let printed =
        Cli::new(&issuer.database.url).run(&["revoke", "--no-wait", "--agent", &other.id]).expect_success();
    assert!(printed.contains("It touches 1 live token, by the audit log."), "{printed}");
    assert!(!issuer.is_active(&other, &theirs).await);

    // Of a key it isn't known which it signed.
    let [_again] = tokens(&issuer, &client).await;
    let said = all();
    assert_eq!(said["live_tokens"]["bound"], "at_most");
    assert!(said["live_tokens"]["count"].as_u64().unwrap() >= 1, "{said}");
}

#[tokio::test]
async fn it_says_when_every_edge_had_it() {
    let (edge, issuer) = with_issuer().await;
    let client = issuer.new_client(&[]).await;
    let [token] = tokens(&issuer, &client).await;

    // A hub that doesn't say who listens.
    let printed = revoke_beside(&issuer, &["--agent", &client.id]).await;
    assert!(printed.contains("The hub had it at ") && printed.contains("s after the commit"), "{printed}");
    assert!(!issuer.is_active(&client, &token).await);

    // One that does; they are sent it a while later.
    let [token] = tokens(&issuer, &client).await;
    let before = edge.heads().last().unwrap().head.position();
    edge.set_listeners(12, before);
    let later = async {
        let after = eventually("the revocation", 10, async || {
            let position = edge.heads().last().unwrap().head.position();
            (position > before).then_some(position)
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        edge.set_listeners(12, after);
    };
    let jti = claim(&token, "jti");
    let arguments = ["--json", "--jti", &jti, "--tenant", &client.tenant];
    let (printed, ()) = tokio::join!(revoke_beside(&issuer, &arguments), later);
    let said: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        (&said["edge"]["state"], &said["edge"]["listeners"]),
        (&"acknowledged".into(), &12.into()),
        "{said}"
    );
    let seconds = said["edge"]["seconds"].as_f64().unwrap();
    assert!((0.25..2.5).contains(&seconds), "known a moment after it was so: {seconds}");

    // Again nothing changes, and the edge has it.
    let printed = revoke_beside(&issuer, &["--jti", &jti, "--tenant", &client.tenant]).await;
    assert!(printed.contains("Every one of 12 listening isolates had it at "), "{printed}");

    // A hub that takes nothing.
    edge.set_hub(Mood::Failing);
    let printed = revoke_beside(&issuer, &["--agent", &client.id]).await;
    assert!(printed.contains("The edge doesn't have it after 10 s (it answered 500)."), "{printed}");
    edge.expect_sound();
}

#[tokio::test]
async fn it_says_that_nobody_publishes() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&[]).await;
    let said = revoke(&issuer, &["--agent", &client.id]);
    assert_eq!(said["edge"], json!({ "state": "not_running" }));
    let printed = Cli::new(&issuer.database.url).run(&["revoke", "--agent", &client.id]).expect_success();
    assert!(printed.contains("No issuer publishes"), "{printed}");
}

#[tokio::test]
async fn everything_ends_and_only_when_that_is_meant() {
    let issuer = Issuer::start().await;
    let (client, other) = (issuer.new_client(&[]).await, issuer.other_tenant().await);
    let ([mine], [theirs]) = (tokens(&issuer, &client).await, tokens(&issuer, &other).await);
    let cli = Cli::new(&issuer.database.url);
    let without_a_terminal = |arguments: &[&str]| {
        let mut command: Command = cli.command(arguments);
        let ran = command.stdin(Stdio::null()).output().unwrap();
        (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
    };
    let (code, said) = without_a_terminal(&["revoke", "--everything"]);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = without_a_terminal(&["revoke", "--everything", "--reason", "a test"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("this ends every token of every tenant: say --yes if that is meant"), "{said}");
    let (code, said) = without_a_terminal(&["revoke", "--tenant", &other.tenant, "--all-of-tenant"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(issuer.is_active(&other, &theirs).await);

    let said = revoke(&issuer, &["--no-wait", "--everything", "--reason", "a test", "--yes"]);
    assert!(said["live_tokens"]["count"].as_u64().unwrap() >= 2, "{said}");
    assert!(!issuer.is_active(&client, &mine).await && !issuer.is_active(&other, &theirs).await);
    let row = &issuer.database.audit("tokens.ended").await[0];
    assert_eq!((&row["everything"], &row["reason"]), (&true.into(), &"a test".into()));
    let [new] = tokens(&issuer, &other).await;
    assert!(issuer.is_active(&other, &new).await, "what is issued later holds");

    // The same over HTTP, for who may: with a reason, and only the platform.
    let token = issuer.management_token(&issuer.administrator).await;
    let send = async |token: &str, body: Value| {
        let response =
            issuer.post("/api/v1/revocations").bearer_auth(token).json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    for body in [
        json!({ "everything": true }),
        json!({ "everything": false, "reason": "x" }),
        json!({ "agent_id": client.id, "reason": "x" }),
        json!({ "everything": true, "reason": "x", "agent_id": client.id }),
    ] {
        let (status, answer) = send(&token, body.clone()).await;
        assert!(status == 400 || status == 422, "{body}: {status} {answer}");
    }
    let body = json!({ "everything": true, "reason": "another test" });
    let (status, _) = send(&issuer.management_token(&other).await, body.clone()).await;
    assert_eq!(status, 403);
    let [before] = tokens(&issuer, &client).await;
    let (status, answer) = send(&token, body).await;
    assert_eq!((status, answer["issued_up_to"].is_string()), (200, true), "{answer}");
    assert!(!issuer.is_active(&client, &before).await);
    let [after] = tokens(&issuer, &client).await;
    assert!(issuer.is_active(&client, &after).await, "whoever asks in the next moment has one that holds");
}
