//! `POST /oauth2/v1/token`.

use std::collections::BTreeSet;

use countersign_shared::Jti;
use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::support::issuer::{claims, oauth_error, part};
use crate::support::{AUDIENCE, Client, ISSUER, Issuer};

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

#[tokio::test]
async fn issues_the_documented_token() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&["orders:write", "orders:read", "agents:read"]).await;
    let response = issuer.oauth("token", &client, &[GRANT]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["cache-control"], "no-store");
    let body: Value = response.json().await.unwrap();
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(
        body,
        json!({"access_token": token, "token_type": "Bearer", "expires_in": 900, "scope": "orders:read orders:write"})
    );

    let jwks: JwkSet = issuer.get("/.well-known/jwks.json").send().await.unwrap().json().await.unwrap();
    assert_eq!(part(token, 0), json!({"alg": "RS256", "kid": jwks.keys[0].common.key_id, "typ": "at+jwt"}));

    let claims = claims(token);
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let iat = claims["iat"].as_i64().unwrap();
    assert!((now - 5..=now).contains(&iat));
    let credential: String = issuer
        .database
        .value(&format!("select credential_id::text from credentials where agent_id = '{}'", client.id))
        .await;
    let expected = json!({
        "iss": ISSUER, "sub": client.id, "client_id": client.id, "aud": AUDIENCE, "iat": iat, "exp": iat + 900,
        "jti": claims["jti"], "scope": "orders:read orders:write", "tenant_id": client.tenant, "credential_id": credential,
        "agent_type": "screener",
    });
    assert_eq!(claims, expected);
    let jti: Jti = claims["jti"].as_str().unwrap().parse().unwrap();
    assert_eq!(i64::from(jti.coordinate().shard.get()), (iat + 900) / 3600);

    // By somebody else's code too.
    let mut validation = Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[ISSUER]);
    let key = DecodingKey::from_jwk(&jwks.keys[0]).unwrap();
    jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap();

    let audit = issuer.database.audit("token.issued").await;
    let row = audit.last().unwrap();
    assert_eq!(
        (&row["target"], &row["actor"], &row["outcome"]),
        (&claims["jti"], &json!(client.id), &json!("success"))
    );
    assert_eq!((&row["audience"], &row["scope"]), (&json!(AUDIENCE), &json!("orders:read orders:write")));
}

#[tokio::test]
async fn authenticates_by_header_and_by_form_at_both_paths() {
    let issuer = Issuer::start().await;
    let Client { id, secret, .. } = issuer.administrator.clone();
    for path in ["/oauth2/v1/token", "/api/v1/token"] {
        let by_header = issuer.post(path).basic_auth(&id, Some(&secret)).form(&[GRANT]);
        // RFC 6749 §2.3.1: form-urlencoded before base64.
        let encoded = issuer
            .post(path)
            .basic_auth(id.replace('-', "%2D"), Some(secret.replace('_', "%5f")))
            .form(&[GRANT]);
        let by_form = issuer.post(path).form(&[GRANT, ("client_id", &id), ("client_secret", &secret)]);
        let repeated_id = issuer.post(path).basic_auth(&id, Some(&secret)).form(&[GRANT, ("client_id", &id)]);
        for request in [by_header, encoded, by_form, repeated_id] {
            assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn scope_depends_on_the_audience() {
    let issuer = Issuer::start().await;
    let client = issuer.new_client(&["orders:read", "orders:write", "agents:read"]).await;
    let granted = async |more: &[(&str, &str)]| issuer.grant(&client, more).await["scope"].clone();
    assert_eq!(granted(&[]).await, "orders:read orders:write");
    assert_eq!(granted(&[("resource", AUDIENCE)]).await, "orders:read orders:write");
    assert_eq!(granted(&[("audience", AUDIENCE), ("scope", "orders:write")]).await, "orders:write");
    assert_eq!(granted(&[("resource", ISSUER)]).await, "agents:read");
    assert_eq!(
        granted(&[("resource", AUDIENCE), ("audience", AUDIENCE), ("scope", "")]).await,
        "orders:read orders:write"
    );

    for form in [
        &[("scope", "orders:delete")] as &[_],
        &[("scope", "orders:read orders:delete")],
        &[("scope", "agents:read")],
        &[("resource", ISSUER), ("scope", "orders:read")],
        &[("resource", ISSUER), ("scope", "agents:write")],
        &[("scope", "orders:read  orders:write")],
        &[("scope", " orders:read")],
    ] {
        let response = issuer.oauth("token", &client, &[&[GRANT], form].concat()).await;
        assert_eq!(oauth_error(response).await, (400, "invalid_scope".into()), "{form:?}");
    }
    let written = issuer.database.audit("token.refused").await;
    assert!(!written.is_empty());
    for row in &written {
        assert_eq!((&row["actor"], &row["tenant"]), (&json!(client.id), &json!(client.tenant)));
        assert_eq!((&row["outcome"], &row["reason"]), (&json!("failure"), &json!("invalid_scope")));
    }

    let nobody = issuer.new_client(&[]).await;
    let granted = issuer.grant(&nobody, &[]).await;
    assert!(granted.get("scope").is_none(), "RFC 6749 has no empty scope");
    assert!(claims(granted["access_token"].as_str().unwrap()).get("scope").is_none());
}

#[tokio::test]
async fn the_audience_is_one_of_the_tenant_s() {
    let issuer = Issuer::start().await;
    issuer
        .database
        .execute(
            "insert into resource_servers (resource_server_id, tenant_id, identifier, token_lifetime_seconds)
             select gen_random_uuid(), tenant_id, 'https://short.example', 60 from tenants",
        )
        .await;
    let granted = issuer.grant(&issuer.administrator, &[("resource", "https://short.example")]).await;
    assert_eq!(granted["expires_in"], 60);
    assert_eq!(claims(granted["access_token"].as_str().unwrap())["aud"], "https://short.example");

    let refused = async |form: &[(&str, &str)]| {
        oauth_error(issuer.oauth("token", &issuer.administrator, &[&[GRANT], form].concat()).await).await
    };
    assert_eq!(refused(&[("resource", "https://unknown.example")]).await, (400, "invalid_target".into()));
    assert_eq!(refused(&[("resource", "https://API.example")]).await, (400, "invalid_target".into()));
    assert_eq!(
        refused(&[("resource", AUDIENCE), ("resource", ISSUER)]).await,
        (400, "invalid_target".into())
    );
    assert_eq!(
        refused(&[("resource", AUDIENCE), ("audience", ISSUER)]).await,
        (400, "invalid_request".into())
    );

    issuer.database.execute("update resource_servers set is_default = false").await;
    assert_eq!(refused(&[]).await, (400, "invalid_target".into()));
}

#[tokio::test]
async fn a_shorter_life_may_be_asked_for() {
    let issuer = Issuer::start_with(|cli| cli.env("TOKEN_LIFETIME_SECONDS", "120")).await;
    let granted = issuer.grant(&issuer.administrator, &[("expires_in", "7")]).await;
    assert_eq!(granted["expires_in"], 7);
    let claims = claims(granted["access_token"].as_str().unwrap());
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 7);
    assert_eq!(issuer.grant(&issuer.administrator, &[("expires_in", "120")]).await["expires_in"], 120);
    for expires_in in ["0", "121", "-1", "1.5", "soon", "99999999999"] {
        let response =
            issuer.oauth("token", &issuer.administrator, &[GRANT, ("expires_in", expires_in)]).await;
        assert_eq!(oauth_error(response).await, (400, "invalid_request".into()), "{expires_in}");
    }
}

#[tokio::test]
async fn malformed_requests_are_said_to_be() {
    let issuer = Issuer::start().await;
    let Client { id, secret, .. } = issuer.administrator.clone();
    let basic = || issuer.post("/oauth2/v1/token").basic_auth(&id, Some(&secret));
    let form = "application/x-www-form-urlencoded";
    for (request, status, code) in [
        (basic().form(&[("scope", "a")]), 400, "invalid_request"),
        (basic().form(&[("grant_type", "")]), 400, "invalid_request"),
        (basic().form(&[("grant_type", "password")]), 400, "unsupported_grant_type"),
        (basic().form(&[GRANT, GRANT]), 400, "invalid_request"),
        (basic().form(&[GRANT, ("unknown", "1"), ("unknown", "1")]), 400, "invalid_request"),
        (basic().form(&[GRANT, ("client_id", &id), ("client_secret", &secret)]), 400, "invalid_request"),
        (basic().form(&[GRANT, ("client_id", "another")]), 400, "invalid_request"),
        (basic().form(&[GRANT, ("resource", "a\0b")]), 400, "invalid_request"),
        (basic().json(&json!({"grant_type": "client_credentials"})), 400, "invalid_request"),
        (basic().body("grant_type=client_credentials"), 400, "invalid_request"),
        (basic().header("content-type", form).body(vec![b'a'; 65 * 1024]), 400, "invalid_request"),
        (issuer.post("/oauth2/v1/token").form(&[GRANT]), 401, "invalid_client"),
        (issuer.post("/oauth2/v1/token").form(&[GRANT, ("client_id", &id)]), 401, "invalid_client"),
        (issuer.post("/oauth2/v1/token").bearer_auth("x").form(&[GRANT]), 401, "invalid_client"),
        (
            issuer.post("/oauth2/v1/token").header("authorization", "Basic !").form(&[GRANT]),
            401,
            "invalid_client",
        ),
    ] {
        let request = request.build().unwrap();
        let what = format!("{request:?}");
        let response = issuer.http.execute(request).await.unwrap();
        if status == 401 {
            assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
        }
        assert_eq!(oauth_error(response).await, (status, code.to_owned()), "{what}");
    }
    // Parameters that nobody knows are left alone (RFC 6749 §3.2), empty ones too.
    let request = basic().header("content-type", "application/x-www-form-urlencoded; charset=UTF-8");
    let response = request.body("grant_type=client_credentials&unknown=1&scope=").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn who_is_refused_does_not_learn_why() {
    let issuer = Issuer::start().await;
    let (client, other) = (issuer.new_client(&[]).await, issuer.new_client(&[]).await);
    let suspended = issuer.new_client(&[]).await;
    issuer
        .database
        .execute(&format!("update agents set status = 'suspended' where agent_id = '{}'", suspended.id))
        .await;
    let revoked = issuer.new_client(&[]).await;
    issuer
        .database
        .execute(&format!("update credentials set status = 'revoked' where agent_id = '{}'", revoked.id))
        .await;
    let foreign = issuer.other_tenant().await;
    issuer
        .database
        .execute(&format!("update tenants set status = 'suspended' where tenant_id = '{}'", foreign.tenant))
        .await;

    let unknown = Client { id: "00000000-0000-4000-8000-000000000000".into(), ..client.clone() };
    let wrong = Client { secret: other.secret.clone(), ..client.clone() };
    let mistyped = Client { secret: format!("{}x", &client.secret[..62]), ..client.clone() };
    let no_uuid = Client { id: "administrator".into(), ..client.clone() };
    let mut answers = BTreeSet::new();
    let cases = [
        (unknown, "unknown client"),
        (wrong, "wrong, expired or revoked secret"),
        (revoked, "wrong, expired or revoked secret"),
        (suspended, "agent not active"),
        (foreign, "tenant not active"),
        (mistyped, "malformed client_secret"),
        (no_uuid, "malformed client_id"),
    ];
    for (client, reason) in &cases {
        let response = issuer.oauth("token", client, &[GRANT]).await;
        answers.insert(fingerprint(response).await);
        let audit = issuer.database.audit("client.authentication_failed").await;
        let row = audit.last().unwrap();
        assert_eq!((&row["reason"], &row["outcome"]), (&json!(reason), &json!("failure")));
        let known = !["unknown client", "malformed client_id"].contains(reason);
        assert_eq!(row["tenant"].is_string(), known, "whose administrator is to see it: {reason}");
    }
    let unreadable = issuer.post("/oauth2/v1/token").header("authorization", "Basic !").form(&[GRANT]);
    answers.insert(fingerprint(unreadable.send().await.unwrap()).await);
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(issuer.database.audit("client.authentication_failed").await.len(), cases.len() + 1);
}

/// All of a response but what differs between any two.
async fn fingerprint(response: Response) -> String {
    let headers: Vec<String> = response
        .headers()
        .iter()
        // How many more requests there may be is another number each time.
        .filter(|(name, _)| {
            !["date", "x-request-id"].contains(&name.as_str()) && !name.as_str().contains("ratelimit")
        })
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    format!("{} {headers:?} {}", response.status(), response.text().await.unwrap())
}

#[tokio::test]
async fn no_two_tokens_have_one_jti() {
    const TOKENS: usize = 200;
    let mut issuer = Issuer::start().await;
    let tokens =
        futures_util::future::join_all((0..TOKENS).map(|_| issuer.token(&issuer.administrator))).await;
    let jti = |token: &String| claims(token)["jti"].as_str().unwrap().parse::<Jti>().unwrap();
    let mut coordinates: BTreeSet<_> = tokens.iter().map(|token| jti(token).coordinate()).collect();
    assert_eq!(coordinates.len(), TOKENS);

    // Whoever came while a lease was under way waited for it.
    let leases: i64 =
        issuer.database.value("select sum(next_serial / 4096)::bigint from serial_shards").await;
    let shards: i64 = issuer.database.value("select count(*) from serial_shards").await;
    assert_eq!(leases, shards);
    assert!(!tokens.iter().map(|token| jti(token).coordinate()).is_sorted(), "order tells nothing");

    // What was leased and not used is a gap after a crash, never used again.
    issuer.kill();
    let (database, administrator) = (issuer.database.clone(), issuer.administrator.clone());
    let issuer = Issuer::start_on(database, administrator, |cli| cli).await;
    let more = futures_util::future::join_all((0..50).map(|_| issuer.token(&issuer.administrator))).await;
    coordinates.extend(more.iter().map(|token| jti(token).coordinate()));
    assert_eq!(coordinates.len(), TOKENS + 50);
}

#[tokio::test]
async fn two_issuers_share_the_serials() {
    let one = Issuer::start().await;
    let two = Issuer::start_on(one.database.clone(), one.administrator.clone(), |cli| cli).await;
    let mut jtis = BTreeSet::new();
    for _ in 0..20 {
        let (a, b) = tokio::join!(one.token(&one.administrator), two.token(&two.administrator));
        jtis.extend([&a, &b].map(|token| claims(token)["jti"].as_str().unwrap().to_owned()));
        // And each takes the other's.
        assert!(one.is_active(&one.administrator, &b).await && two.is_active(&two.administrator, &a).await);
    }
    assert_eq!(jtis.len(), 40);
}
