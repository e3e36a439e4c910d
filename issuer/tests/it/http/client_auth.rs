//! Client authentication at the OAuth endpoints: assertions, imported secrets.

use std::time::Duration;

use countersign_shared::base64url;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::support::issuer::{agent_body, claims as claims_of, envelope, oauth_error};
use crate::support::keys::{ASSERTION_TYPE, Key, claims};
use crate::support::{Client, ISSUER, Issuer};

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

/// An agent without credentials; its id.
async fn agent(issuer: &Issuer, scopes: &[&str]) -> String {
    let token = issuer.management_token(&issuer.administrator).await;
    issuer.register(&token, &agent_body(scopes)).await["agent_id"].as_str().unwrap().to_owned()
}

/// Gives the agent a credential.
async fn credential(issuer: &Issuer, agent: &str, body: &Value) -> Value {
    let token = issuer.management_token(&issuer.administrator).await;
    let path = format!("/api/v1/agents/{agent}/credentials");
    let response = issuer.post(&path).bearer_auth(&token).json(body).send().await.unwrap();
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body
}

async fn with_assertion(issuer: &Issuer, path: &str, assertion: &str, more: &[(&str, &str)]) -> Response {
    let form = [&[("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion)], more].concat();
    issuer.post(path).form(&form).send().await.unwrap()
}

#[tokio::test]
async fn keys_of_every_algorithm_authenticate() {
    let issuer = Issuer::start().await;
    let agent = agent(&issuer, &["orders:read"]).await;
    for algorithm in ["RS256", "PS256", "ES256", "EdDSA"] {
        let key = Key::new(algorithm);
        let made = credential(
            &issuer,
            &agent,
            &json!({"kind": "public_key", "public_jwk": key.jwk, "name": algorithm}),
        )
        .await;
        assert!(made.get("client_secret").is_none(), "{made}");
        assert_eq!((&made["kind"], &made["name"]), (&json!("public_key"), &json!(algorithm)));
        assert_eq!(made["public_jwk"]["alg"], algorithm);
        assert_eq!(made["public_jwk"]["kid"].as_str().unwrap().len(), 43, "the thumbprint");

        let response = with_assertion(&issuer, "/oauth2/v1/token", &key.assertion(&agent), &[GRANT]).await;
        let status = response.status();
        let granted: Value = response.json().await.unwrap();
        assert_eq!(
            (status, &granted["scope"]),
            (StatusCode::OK, &json!("orders:read")),
            "{algorithm}: {granted}"
        );
        let token = granted["access_token"].as_str().unwrap();
        assert_eq!(claims_of(token)["credential_id"], made["credential_id"]);

        // By kid, with the typ of the draft that follows RFC 7523, and the client's id beside it.
        let header =
            json!({"alg": algorithm, "kid": made["public_jwk"]["kid"], "typ": "client-authentication+jwt"});
        let assertion = key.jws(&header, &claims(&agent));
        let form = [("token", token), ("client_id", &agent)];
        let response = with_assertion(&issuer, "/oauth2/v1/introspect", &assertion, &form).await;
        assert_eq!(response.json::<Value>().await.unwrap()["active"], true);
        let response =
            with_assertion(&issuer, "/oauth2/v1/revoke", &key.assertion(&agent), &[("token", token)]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!issuer.is_active(&issuer.administrator, token).await);
    }
    let metadata: Value =
        issuer.get("/.well-known/oauth-authorization-server").send().await.unwrap().json().await.unwrap();
    for endpoint in ["token", "introspection", "revocation"] {
        let methods = &metadata[format!("{endpoint}_endpoint_auth_methods_supported")];
        assert_eq!(*methods, json!(["client_secret_basic", "client_secret_post", "private_key_jwt"]));
        let algorithms = &metadata[format!("{endpoint}_endpoint_auth_signing_alg_values_supported")];
        assert_eq!(*algorithms, json!(["RS256", "PS256", "ES256", "EdDSA"]));
    }
}

#[tokio::test]
async fn the_audience_is_the_issuer_or_the_endpoint() {
    let issuer = Issuer::start().await;
    let agent = agent(&issuer, &[]).await;
    let key = Key::new("EdDSA");
    credential(&issuer, &agent, &json!({"kind": "public_key", "public_jwk": key.jwk})).await;
    let status = async |path: &str, aud: Value| {
        let mut claims = claims(&agent);
        claims["aud"] = aud;
        let assertion = key.jws(&json!({"alg": "EdDSA"}), &claims);
        with_assertion(&issuer, path, &assertion, &[GRANT, ("token", "x")]).await.status().as_u16()
    };
    for path in ["/oauth2/v1/token", "/api/v1/token"] {
        for aud in ["", "/oauth2/v1/token", "/api/v1/token"] {
            let aud = format!("{ISSUER}{aud}");
            assert_eq!(status(path, json!(aud)).await, 200, "{path} {aud}");
            assert_eq!(status(path, json!([aud])).await, 200);
            // Whoever else it is for could use it here first.
            assert_eq!(status(path, json!(["https://elsewhere.example", aud])).await, 401);
        }
        for aud in [
            json!(format!("{ISSUER}/")),
            json!(format!("{ISSUER}/oauth2/v1/introspect")),
            json!([]),
            json!("x"),
        ] {
            assert_eq!(status(path, aud.clone()).await, 401, "{path} {aud}");
        }
    }
    for (path, own) in
        [("/oauth2/v1/introspect", "/api/v1/token/introspect"), ("/api/v1/token/revoke", "/oauth2/v1/revoke")]
    {
        for aud in ["", "/oauth2/v1/token", own] {
            assert_eq!(status(path, json!(format!("{ISSUER}{aud}"))).await, 200, "{path} {aud}");
        }
    }
    assert_eq!(status("/oauth2/v1/revoke", json!(format!("{ISSUER}/oauth2/v1/introspect"))).await, 401);
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test]
async fn every_unsound_assertion_is_refused_and_written_down() {
    let issuer = Issuer::start().await;
    let (agent, other) = (agent(&issuer, &[]).await, agent(&issuer, &[]).await);
    let (key, foreign, rsa) = (Key::new("EdDSA"), Key::new("EdDSA"), Key::new("PS256"));
    let made = credential(&issuer, &agent, &json!({"kind": "public_key", "public_jwk": key.jwk})).await;
    credential(&issuer, &other, &json!({"kind": "public_key", "public_jwk": foreign.jwk})).await;
    // A key is good for its own algorithm only.
    let mut rs256 = rsa.jwk.clone();
    rs256["alg"] = json!("RS256");
    credential(&issuer, &agent, &json!({"kind": "public_key", "public_jwk": rs256})).await;

    let eddsa = json!({"alg": "EdDSA"});
    let with = |name: &str, value: Value| {
        let mut claims = claims(&agent);
        match value {
            Value::Null => _ = claims.as_object_mut().unwrap().remove(name),
            value => claims[name] = value,
        }
        key.jws(&eddsa, &claims)
    };
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let sound = key.assertion(&agent);
    let (unsigned, _) = sound.rsplit_once('.').unwrap();
    let (head, _) = unsigned.split_once('.').unwrap();
    let none = base64url::encode(br#"{"alg":"none"}"#);
    let kid = made["public_jwk"]["kid"].as_str().unwrap();
    let hs256 = {
        let input = format!(
            "{}.{}",
            base64url::encode(br#"{"alg":"HS256"}"#),
            base64url::encode(claims(&agent).to_string().as_bytes())
        );
        let mac = aws_lc_rs::hmac::Key::new(
            aws_lc_rs::hmac::HMAC_SHA256,
            key.jwk["x"].as_str().unwrap().as_bytes(),
        );
        format!("{input}.{}", base64url::encode(aws_lc_rs::hmac::sign(&mac, input.as_bytes()).as_ref()))
    };
    for (what, assertion) in [
        ("wrong audience", with("aud", json!("https://elsewhere.example"))),
        ("no audience", with("aud", Value::Null)),
        ("expired", with("exp", json!(now))),
        ("exp too far ahead", with("exp", json!(now + 320))),
        ("no exp", with("exp", Value::Null)),
        ("exp is text", with("exp", json!("1900000000"))),
        ("iat ahead", with("iat", json!(now + 30))),
        ("nbf ahead", with("nbf", json!(now + 30))),
        ("no jti", with("jti", Value::Null)),
        ("empty jti", with("jti", json!(""))),
        ("long jti", with("jti", json!("j".repeat(257)))),
        ("no iss", with("iss", Value::Null)),
        ("iss isn't sub", with("iss", json!(other))),
        ("iss is no id", with("iss", json!("administrator"))),
        ("another client's key", foreign.assertion(&agent)),
        ("another client", key.assertion(&other)),
        ("another's kid", key.jws(&json!({"alg": "EdDSA", "kid": "unknown"}), &claims(&agent))),
        ("the key's other algorithm", rsa.assertion(&agent)),
        ("an access token's type", key.jws(&json!({"alg": "EdDSA", "typ": "at+jwt"}), &claims(&agent))),
        ("a critical extension", key.jws(&json!({"alg": "EdDSA", "crit": ["x"], "x": 1}), &claims(&agent))),
        ("no signature", format!("{unsigned}.")),
        ("two segments", unsigned.to_owned()),
        ("alg none", format!("{none}{}.", &unsigned[head.len()..])),
        ("HS256 under the public key", hs256),
        ("padding", format!("{sound}=")),
        ("too long", key.jws(&json!({"alg": "EdDSA", "kid": kid, "x": "x".repeat(8192)}), &claims(&agent))),
        ("not one", "assertion".to_owned()),
    ] {
        let response = with_assertion(&issuer, "/oauth2/v1/token", &assertion, &[GRANT]).await;
        assert_eq!(oauth_error(response).await, (401, "invalid_client".into()), "{what}");
        let failures = issuer.database.audit("client.authentication_failed").await;
        let reason = failures.last().unwrap()["reason"].as_str().unwrap().to_owned();
        assert!(reason.starts_with("assertion: "), "{what}: {reason}");
    }
    // What was refused for its neighbours is good by itself, and once only.
    let response = with_assertion(&issuer, "/oauth2/v1/token", &sound, &[GRANT]).await;
    assert_eq!(response.status(), StatusCode::OK);
    let response = with_assertion(&issuer, "/oauth2/v1/token", &sound, &[GRANT]).await;
    assert_eq!(oauth_error(response).await, (401, "invalid_client".into()));
    let failures = issuer.database.audit("client.authentication_failed").await;
    let last = failures.last().unwrap();
    assert_eq!((&last["reason"], &last["target"]), (&json!("assertion: used before"), &json!(agent)));
    assert!(last["tenant"].is_string());

    let assertion = key.assertion(&agent);
    let response =
        with_assertion(&issuer, "/oauth2/v1/token", &assertion, &[GRANT, ("client_id", &other)]).await;
    assert_eq!(oauth_error(response).await, (401, "invalid_client".into()), "another client's id");
    let unknown_type = issuer.post("/oauth2/v1/token").form(&[
        GRANT,
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"),
        ("client_assertion", &assertion),
    ]);
    assert_eq!(oauth_error(unknown_type.send().await.unwrap()).await, (401, "invalid_client".into()));

    let secret = [("client_secret", "x")];
    let both =
        with_assertion(&issuer, "/oauth2/v1/token", &assertion, &[&[GRANT][..], &secret].concat()).await;
    let form = [GRANT, ("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &assertion)];
    let header =
        issuer.post("/oauth2/v1/token").basic_auth(&agent, Some("x")).form(&form).send().await.unwrap();
    let no_type = issuer
        .post("/oauth2/v1/token")
        .form(&[GRANT, ("client_assertion", &assertion)])
        .send()
        .await
        .unwrap();
    let alone = issuer
        .post("/oauth2/v1/token")
        .form(&[GRANT, ("client_assertion_type", ASSERTION_TYPE), ("client_id", &agent)])
        .send()
        .await
        .unwrap();
    for response in [both, header, no_type, alone] {
        assert_eq!(oauth_error(response).await, (400, "invalid_request".into()));
    }
    assert!(!issuer.whole_log().await.contains(&sound[..40]), "no assertion in the log");
}

#[tokio::test]
async fn an_assertion_counts_once_among_all_replicas() {
    let first = Issuer::start().await;
    let second = Issuer::start_on(first.database.clone(), first.administrator.clone(), |cli| {
        // Nothing of it is in Redis. In production there couldn't be two without it.
        cli.each_for_itself()
    })
    .await;
    let agent = agent(&first, &[]).await;
    let key = Key::new("ES256");
    credential(&first, &agent, &json!({"kind": "public_key", "public_jwk": key.jwk})).await;
    for _ in 0..10 {
        let assertion = key.assertion(&agent);
        // All at once, and at both.
        let attempts = [&first, &second, &first, &second]
            .map(|issuer| with_assertion(issuer, "/oauth2/v1/token", &assertion, &[GRANT]));
        let outcomes = futures_util::future::join_all(attempts).await;
        let granted = outcomes.iter().filter(|response| response.status() == StatusCode::OK).count();
        assert_eq!(granted, 1);
    }
    let kept: i64 =
        first.database.value("select count(*) from used_assertions where octet_length(jti_hash) = 32").await;
    assert_eq!(kept, 10);

    first.database.execute("update used_assertions set expires_at = now() - interval '1 second'").await;
    first
        .database
        .execute(
            "insert into used_assertions (agent_id, jti_hash, tenant_id, expires_at)
             select agent_id, sha256(n::text::bytea), tenant_id, now() - interval '1 minute' from agents, generate_series(1, 1100) n",
        )
        .await;
    // It was done when they began, and is due again after a minute.
    first.database.execute("update job_runs set next_at = now() where name = 'used-assertions'").await;
    crate::support::eventually("what can't be used any more is forgotten", 20, async || {
        let left: i64 = first.database.value("select count(*) from used_assertions").await;
        (left == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_imported_hash_verifies_once_and_is_upgraded() {
    let issuer = Issuer::start().await;
    let agent = agent(&issuer, &["orders:read"]).await;
    let hash = bcrypt::hash("correct horse", 4).unwrap().replace("$2b$", "$2a$");
    let made = credential(&issuer, &agent, &json!({"kind": "bcrypt_hash", "bcrypt_hash": hash})).await;
    assert_eq!(made["kind"], "bcrypt_hash");
    assert!(made.get("client_secret").is_none() && !made.to_string().contains("$2"), "{made}");

    let client =
        |secret: &str| Client { tenant: String::new(), id: agent.clone(), secret: secret.to_owned() };
    let refused = issuer.oauth("token", &client("wrong horse"), &[GRANT]).await;
    assert_eq!(oauth_error(refused).await, (401, "invalid_client".into()));
    let (first, second) = (client("correct horse"), client("correct horse"));
    let (first, second) = tokio::join!(issuer.token(&first), issuer.token(&second));
    assert_eq!(claims_of(&first)["credential_id"], made["credential_id"]);
    assert_eq!(claims_of(&second)["credential_id"], made["credential_id"]);
    let upgraded: bool = issuer
        .database
        .value(&format!(
            "select bcrypt_hash is null and octet_length(secret_hash) = 32 and revision = 1 from credentials where agent_id = '{agent}'"
        ))
        .await;
    assert!(upgraded);
    assert_eq!(
        claims_of(&issuer.token(&client("correct horse")).await)["credential_id"],
        made["credential_id"]
    );
    let refused = issuer.oauth("token", &client("wrong horse"), &[GRANT]).await;
    assert_eq!(oauth_error(refused).await, (401, "invalid_client".into()));

    // Rotated before it was ever used, it is good for the overlap, and upgraded where it stands.
    let hash = bcrypt::hash("battery staple", 4).unwrap();
    let made = credential(&issuer, &agent, &json!({"kind": "bcrypt_hash", "bcrypt_hash": hash})).await;
    let token = issuer.management_token(&issuer.administrator).await;
    let path =
        format!("/api/v1/agents/{agent}/credentials/{}/rotate", made["credential_id"].as_str().unwrap());
    let rotated: Value =
        issuer.post(&path).bearer_auth(&token).json(&json!({})).send().await.unwrap().json().await.unwrap();
    issuer.token(&Client::from_json(&rotated)).await;
    issuer.token(&client("battery staple")).await;
    let upgraded: bool = issuer
        .database
        .value(
            "select count(*) = 1 from credentials where previous_bcrypt_hash is null and octet_length(previous_secret_hash) = 32",
        )
        .await;
    assert!(upgraded);
    issuer.token(&client("battery staple")).await;
    let log = issuer.whole_log().await;
    assert!(!log.contains("horse") && !log.contains("$2a$") && !log.contains("csk_"));
}

#[tokio::test]
async fn a_flood_of_imported_secrets_gets_503_and_the_rest_goes_on() {
    let issuer = Issuer::start().await;
    let (agent, other) = (agent(&issuer, &[]).await, issuer.new_client(&[]).await);
    // Of cost 12 and of nothing that anybody knows: no need to compute it.
    let hash = bcrypt::hash("nobody's", 4).unwrap().replace("$04$", "$12$");
    credential(&issuer, &agent, &json!({"kind": "bcrypt_hash", "bcrypt_hash": hash})).await;
    let wrong = Client { tenant: String::new(), id: agent, secret: "wrong".to_owned() };
    let form = [GRANT];
    let flood = (0..40).map(|_| issuer.oauth("token", &wrong, &form));
    let others = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        issuer.token(&other).await
    };
    let (outcomes, _) = tokio::join!(futures_util::future::join_all(flood), others);
    let mut busy = 0;
    for response in outcomes {
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            assert!(response.headers().contains_key("retry-after"));
            assert_eq!(oauth_error(response).await, (503, "temporarily_unavailable".into()));
            busy += 1;
        } else {
            assert_eq!(oauth_error(response).await, (401, "invalid_client".into()));
        }
    }
    assert!(busy >= 32, "{busy}");
}

#[tokio::test]
async fn keys_and_hashes_that_are_none_are_refused() {
    let issuer = Issuer::start().await;
    let agent = agent(&issuer, &[]).await;
    let token = issuer.management_token(&issuer.administrator).await;
    let path = format!("/api/v1/agents/{agent}/credentials");
    let ed = Key::new("EdDSA").jwk;
    let with = |name: &str, value: Value| {
        let mut jwk = ed.clone();
        jwk[name] = value;
        json!({"kind": "public_key", "public_jwk": jwk})
    };
    let small = json!({"kty": "RSA", "alg": "RS256", "e": "AQAB", "n": base64url::encode(&[0xff; 128])});
    for (body, field) in [
        (json!({"kind": "password"}), "kind"),
        (json!({"kind": "public_key"}), "public_jwk"),
        (json!({"kind": "public_key", "public_jwk": "key"}), "public_jwk"),
        (json!({"kind": "public_key", "public_jwk": small}), "public_jwk"),
        (with("d", json!("AAAA")), "public_jwk"),
        (with("alg", json!("RS256")), "public_jwk"),
        (with("alg", json!("HS256")), "public_jwk"),
        (with("use", json!("enc")), "public_jwk"),
        (with("x", json!("AAAA")), "public_jwk"),
        (json!({"kind": "bcrypt_hash"}), "bcrypt_hash"),
        (json!({"kind": "bcrypt_hash", "bcrypt_hash": "correct horse"}), "bcrypt_hash"),
        (json!({"kind": "bcrypt_hash", "bcrypt_hash": format!("$2b$15${}", "a".repeat(53))}), "bcrypt_hash"),
        (json!({"bcrypt_hash": "x"}), "bcrypt_hash"),
        (json!({"name": ""}), "name"),
        (json!({"name": "x".repeat(101)}), "name"),
        (json!({"secret": "mine"}), "secret"),
    ] {
        let response = issuer.post(&path).bearer_auth(&token).json(&body).send().await.unwrap();
        let (status, code, details) = envelope(response).await;
        assert_eq!((status, code.as_str()), (400, "VALIDATION_ERROR"), "{body}");
        assert_eq!(details["fields"][0]["field"], field, "{body}: {details}");
    }
    let response =
        issuer.post(&path).bearer_auth(&token).json(&with("d", json!("AAAA"))).send().await.unwrap();
    let (_, _, details) = envelope(response).await;
    assert!(details.to_string().contains("private"), "loudly: {details}");
    assert_eq!(
        issuer
            .database
            .value::<i64>(&format!("select count(*) from credentials where agent_id = '{agent}'"))
            .await,
        0
    );
}
