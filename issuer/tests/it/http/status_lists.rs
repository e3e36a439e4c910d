//! `/status-lists`. The bits are read as draft-ietf-oauth-status-list-21 has them; `issuer/tests/status-list` reads them with a decoder that knows nothing of ours.

use std::io::Read as _;
use std::time::{Duration, Instant};

use countersign_shared::base64url;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::cli::Cli;
use crate::support::issuer::{agent_body, claims, envelope, part};
use crate::support::{Client, ISSUER, Issuer, eventually};

const API: &str = "https://listed.example";

/// An issuer with a resource server whose tokens say where their status is.
async fn listing() -> (Issuer, String) {
    let issuer = Issuer::start_with(|cli| cli.env("STATUS_LIST_TTL_SECONDS", "7")).await;
    let token = issuer.management_token(&issuer.administrator).await;
    let body = json!({ "identifier": API, "status_list": true });
    let made = issuer.post("/api/v1/resource-servers").bearer_auth(&token).json(&body).send().await.unwrap();
    assert_eq!(made.status(), StatusCode::CREATED);
    assert_eq!(made.json::<Value>().await.unwrap()["status_list"], true);
    (issuer, token)
}

async fn listed_token(issuer: &Issuer, client: &Client) -> String {
    issuer.grant(client, &[("resource", API)]).await["access_token"].as_str().unwrap().to_owned()
}

/// Where the token's status is: path and index.
fn place(token: &str) -> (String, usize) {
    let reference = claims(token)["status"]["status_list"].clone();
    let uri = reference["uri"].as_str().unwrap();
    let path = uri.strip_prefix(ISSUER).unwrap().to_owned();
    (path, reference["idx"].as_u64().unwrap().try_into().unwrap())
}

/// The bits of a list.
fn bits(jwt: &str) -> Vec<u8> {
    let list = part(jwt, 1)["status_list"].clone();
    assert_eq!(list["bits"], 1);
    let compressed = base64url::decode(list["lst"].as_str().unwrap().as_bytes()).unwrap();
    let mut bytes = Vec::new();
    flate2::read::ZlibDecoder::new(compressed.as_slice()).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Whether the list of the token, as `issuer` has it now, says that it is invalid.
async fn is_invalid(issuer: &Issuer, token: &str) -> bool {
    let (path, index) = place(token);
    let response = issuer.get(&path).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    bits(&response.text().await.unwrap())[index / 8] >> (index % 8) & 1 == 1
}

/// Waits until it does, and says how long that took.
async fn until_invalid(issuer: &Issuer, token: &str) -> Duration {
    let since = Instant::now();
    eventually("the list says so", 8, async || is_invalid(issuer, token).await.then_some(())).await;
    since.elapsed()
}

#[tokio::test]
async fn tokens_say_where_their_status_is_if_their_resource_server_asks_for_it() {
    let (issuer, management) = listing().await;
    let client = issuer.new_client(&["orders:read"]).await;
    let token = listed_token(&issuer, &client).await;
    let said = claims(&token);
    let hour = said["exp"].as_i64().unwrap() / 3600;
    assert_eq!(said["status"]["status_list"]["uri"], format!("{ISSUER}/status-lists/{hour}"));
    assert_eq!(said["status"].as_object().unwrap().len(), 1);
    assert!(issuer.is_active(&client, &token).await, "the core takes it");

    for other in [issuer.token(&client).await, management] {
        assert_eq!(claims(&other).get("status"), None);
    }
    assert_eq!(issuer.database.value::<i64>("select count(*) from status_tokens").await, 1);

    // Taken back, it ends with the next token.
    let token = issuer.management_token(&issuer.administrator).await;
    let listed: Value = issuer
        .get("/api/v1/resource-servers")
        .bearer_auth(&token)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let server = listed["items"].as_array().unwrap().iter().find(|item| item["identifier"] == API).unwrap();
    let path =
        format!("{}/api/v1/resource-servers/{}", issuer.url, server["resource_server_id"].as_str().unwrap());
    let change = issuer.http.patch(path).bearer_auth(&token).header("if-match", "*");
    let changed = change.json(&json!({ "status_list": false })).send().await.unwrap();
    assert_eq!(changed.json::<Value>().await.unwrap()["status_list"], false);
    eventually("no status any more", 2, async || {
        claims(&listed_token(&issuer, &client).await).get("status").is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_list_is_signed_and_may_be_kept_for_its_ttl() {
    let (issuer, _) = listing().await;
    let client = issuer.new_client(&[]).await;
    let token = listed_token(&issuer, &client).await;
    let (path, _) = place(&token);
    let response = issuer.get(&path).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/statuslist+jwt");
    assert_eq!(header("cache-control"), "public, max-age=7");
    assert!(header("vary").contains("accept-encoding"), "{}", header("vary"));
    let etag = header("etag");
    let jwt = response.text().await.unwrap();

    let jwks: Value = issuer.get("/.well-known/jwks.json").send().await.unwrap().json().await.unwrap();
    assert_eq!(
        part(&jwt, 0),
        json!({"alg": "RS256", "kid": jwks["keys"][0]["kid"], "typ": "statuslist+jwt"})
    );
    let payload = part(&jwt, 1);
    assert_eq!(payload["iss"], ISSUER);
    assert_eq!(payload["sub"], claims(&token)["status"]["status_list"]["uri"]);
    assert_eq!(payload["ttl"], 7);
    assert_eq!(payload["exp"].as_i64().unwrap() - payload["iat"].as_i64().unwrap(), 307);
    assert_eq!(payload["status_list"]["aggregation_uri"], format!("{ISSUER}/status-lists"));
    assert_eq!(bits(&jwt).len(), 1 << 17, "nobody learns how many tokens there are");
    assert!(jwt.len() < 1500, "{} bytes", jwt.len());

    for known in [etag.clone(), format!("W/{etag}"), "*".to_owned()] {
        let again = issuer.get(&path).header("if-none-match", known).send().await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()["etag"], etag.as_str());
        assert_eq!(again.headers()["cache-control"], "public, max-age=7");
        assert_eq!(again.text().await.unwrap(), "");
    }
    issuer.revoke(&client, &token).await;
    until_invalid(&issuer, &token).await;
    let changed = issuer.get(&path).header("if-none-match", &etag).send().await.unwrap();
    assert_eq!(changed.status(), StatusCode::OK);
    assert_ne!(changed.headers()["etag"], etag.as_str());
}

#[tokio::test]
async fn a_list_is_negotiated() {
    let (issuer, _) = listing().await;
    let client = issuer.new_client(&[]).await;
    let (path, _) = place(&listed_token(&issuer, &client).await);
    let plain = issuer.get(&path).header("accept", "application/statuslist+jwt").send().await.unwrap();
    let etag = plain.headers()["etag"].to_str().unwrap().to_owned();
    assert!(!plain.headers().contains_key("content-encoding"));
    let jwt = plain.text().await.unwrap();

    let packed = issuer.get(&path).header("accept-encoding", "br, gzip").send().await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    assert_ne!(packed.headers()["etag"], etag.as_str());
    let mut unpacked = String::new();
    let bytes = packed.bytes().await.unwrap();
    flate2::read::GzDecoder::new(bytes.as_ref()).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, jwt);

    let refused = issuer.get(&path).header("accept", "application/statuslist+cwt").send().await.unwrap();
    assert_eq!(envelope(refused).await, (406, "NOT_ACCEPTABLE".into(), json!({})));
    let historical = issuer.get(&format!("{path}?time=1686925000")).send().await.unwrap();
    assert_eq!(envelope(historical).await, (501, "HISTORY_NOT_KEPT".into(), json!({})));
    let hour: i64 = path.rsplit('/').next().unwrap().parse().unwrap();
    for other in ["0", "16777215", "16777216", "-1", "x", &format!("0{hour}"), &(hour + 5).to_string()] {
        let missing = issuer.get(&format!("/status-lists/{other}")).send().await.unwrap();
        assert_eq!(envelope(missing).await, (404, "STATUS_LIST_NOT_FOUND".into(), json!({})), "{other}");
    }

    let all: Value = issuer.get("/status-lists").send().await.unwrap().json().await.unwrap();
    assert_eq!(all, json!({ "status_lists": [format!("{ISSUER}{path}")] }));
    let metadata = issuer.get("/.well-known/oauth-authorization-server").send().await.unwrap();
    let metadata: Value = metadata.json().await.unwrap();
    assert_eq!(metadata["status_list_aggregation_endpoint"], format!("{ISSUER}/status-lists"));
}

/// By itself, or by any rule: also where no revocation names the token.
#[tokio::test]
async fn whatever_ends_a_token_is_in_its_list_of_every_replica() {
    let (issuer, management) = listing().await;
    let replica = Issuer::start_on(issuer.database.clone(), issuer.administrator.clone(), |cli| {
        cli.env("STATUS_LIST_TTL_SECONDS", "7")
    })
    .await;
    let bystander = listed_token(&replica, &replica.new_client(&[]).await).await;
    let post = async |path: String, body: Value| {
        let done = issuer.post(&path).bearer_auth(&management).json(&body).send().await.unwrap();
        assert!(done.status().is_success(), "{path}");
    };
    for by in ["token", "agent", "credential", "suspension"] {
        let client = issuer.new_client(&[]).await;
        let (first, second) = (listed_token(&issuer, &client).await, listed_token(&replica, &client).await);
        for token in [&first, &second, &bystander] {
            assert!(!is_invalid(&issuer, token).await && !is_invalid(&replica, token).await, "{by}");
        }
        let credential = claims(&first)["credential_id"].as_str().unwrap().to_owned();
        match by {
            "token" => issuer.revoke(&client, &first).await,
            "agent" => post("/api/v1/revocations".into(), json!({ "agent_id": client.id })).await,
            "credential" => {
                post(format!("/api/v1/agents/{}/credentials/{credential}/revoke", client.id), json!({}))
                    .await;
            }
            _ => post(format!("/api/v1/agents/{}/suspend", client.id), json!({})).await,
        }
        let took = until_invalid(&issuer, &first).await.max(until_invalid(&replica, &first).await);
        assert!(took < Duration::from_secs(3), "{by}: {took:?}");
        // Of two tokens of one agent a revocation by itself ends the one.
        assert_eq!(is_invalid(&issuer, &second).await, by != "token", "{by}");
        assert_eq!(is_invalid(&replica, &second).await, by != "token", "{by}");
        assert!(!is_invalid(&issuer, &bystander).await, "{by}");
    }

    let (path, _) = place(&bystander);
    let list = async |issuer: &Issuer| bits(&issuer.get(&path).send().await.unwrap().text().await.unwrap());
    assert_eq!(list(&issuer).await, list(&replica).await);

    // A tenant's, and those of a key: also the tokens of others.
    let tenant = claims(&bystander)["tenant_id"].clone();
    post("/api/v1/revocations".into(), json!({ "tenant_id": tenant })).await;
    until_invalid(&replica, &bystander).await;
}

#[tokio::test]
async fn a_revoked_key_ends_its_tokens_and_signs_no_list() {
    let (issuer, _) = listing().await;
    let client = issuer.new_client(&[]).await;
    let token = listed_token(&issuer, &client).await;
    assert!(!is_invalid(&issuer, &token).await);
    let kid = part(&token, 0)["kid"].as_str().unwrap().to_owned();
    let cli = Cli::new(&issuer.database.url);
    cli.run(&["keys", "revoke", &kid, "--reason", "test"]).expect_success();
    until_invalid(&issuer, &token).await;
    let (path, _) = place(&token);
    let list = eventually("another key signs it", 5, async || {
        let list = issuer.get(&path).send().await.unwrap().text().await.unwrap();
        (part(&list, 0)["kid"] != kid).then_some(list)
    })
    .await;
    let jwks: Value = issuer.get("/.well-known/jwks.json").send().await.unwrap().json().await.unwrap();
    assert!(jwks["keys"].as_array().unwrap().iter().any(|key| key["kid"] == part(&list, 0)["kid"]));
}

/// A rule is known to some replica later: what that one issues meanwhile is ended by it, and comes after the list was made.
#[tokio::test]
async fn a_token_that_comes_after_the_rule_that_ends_it_is_in_the_list() {
    let (issuer, management) = listing().await;
    let body = issuer.register(&management, &agent_body(&[])).await;
    let agent = body["agent_id"].as_str().unwrap();
    let client = issuer.new_client(&[]).await;
    let (path, index) = place(&listed_token(&issuer, &client).await);
    let done = issuer.post(&format!("/api/v1/agents/{agent}/suspend")).bearer_auth(&management).send().await;
    assert_eq!(done.unwrap().status(), StatusCode::OK);
    let bit = async |index: usize| {
        let list = issuer.get(&path).send().await.unwrap().text().await.unwrap();
        bits(&list)[index / 8] >> (index % 8) & 1 == 1
    };
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!bit(index).await);
    let shard: i64 = path.rsplit('/').next().unwrap().parse().unwrap();
    let (late, now) =
        (index ^ 1, issuer.database.value::<i64>("select extract(epoch from now())::bigint").await);
    issuer
        .database
        .execute(&format!(
            "insert into status_tokens values ({shard}, {late}, '{}', '{agent}', '{agent}', 'k', {now})",
            client.tenant
        ))
        .await;
    eventually("the late one is in it", 5, async || bit(late).await.then_some(())).await;
}

#[tokio::test]
async fn after_a_recovery_all_that_may_have_been_issued_is_invalid() {
    let (issuer, _) = listing().await;
    let client = issuer.new_client(&[]).await;
    let token = listed_token(&issuer, &client).await;
    let (path, index) = place(&token);
    // As if the backup had been from before.
    issuer.database.execute("delete from status_tokens").await;
    let cli = Cli::new(&issuer.database.url);
    cli.run(&["recover", "--restored-from-backup", "--reason", "test"]).expect_success();
    eventually("the list is there again", 5, async || {
        let response = issuer.get(&path).send().await.unwrap();
        (response.status() == StatusCode::OK).then_some(())
    })
    .await;
    assert!(is_invalid(&issuer, &token).await);
    let list = bits(&issuer.get(&path).send().await.unwrap().text().await.unwrap());
    assert!(index < 4096 && list[..4096].iter().all(|byte| *byte == 0xff));

    let token = eventually("tokens again", 5, async || {
        let response =
            issuer.oauth("token", &client, &[("grant_type", "client_credentials"), ("resource", API)]).await;
        if response.status() != StatusCode::OK {
            return None;
        }
        Some(response.json::<Value>().await.unwrap()["access_token"].as_str().unwrap().to_owned())
    })
    .await;
    assert!(!is_invalid(&issuer, &token).await);
}

#[tokio::test]
async fn without_the_database_there_is_no_list_and_expired_tokens_are_forgotten() {
    let (issuer, _) = listing().await;
    let client = issuer.new_client(&[]).await;
    let (path, _) = place(&listed_token(&issuer, &client).await);
    assert_eq!(issuer.get(&path).send().await.unwrap().status(), StatusCode::OK);
    issuer.database.execute("alter table status_tokens rename to elsewhere").await;
    let broken = eventually("it is looked at again", 5, async || {
        let response = issuer.get(&path).send().await.unwrap();
        (response.status() != StatusCode::OK).then_some(response)
    })
    .await;
    assert_eq!(envelope(broken).await.0, 500, "never a list that isn't known to hold");
    issuer.database.execute("alter table elsewhere rename to status_tokens").await;
    assert_eq!(issuer.get(&path).send().await.unwrap().status(), StatusCode::OK);
}
