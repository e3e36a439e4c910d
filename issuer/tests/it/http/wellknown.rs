//! `/.well-known/…`.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{ISSUER, Issuer};

#[tokio::test]
async fn the_key_set_is_public_and_cacheable() {
    let issuer = Issuer::start().await;
    let response = issuer.get("/.well-known/jwks.json").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "public, max-age=300");
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    assert!(etag.starts_with('"') && etag.len() > 16, "a strong tag: {etag}");
    let jwks: Value = response.json().await.unwrap();

    let keys = jwks["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1, "the key that signs heads isn't among them");
    let members: BTreeSet<&str> = keys[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, BTreeSet::from(["kty", "use", "alg", "kid", "n", "e"]));
    assert_eq!(
        (&keys[0]["kty"], &keys[0]["use"], &keys[0]["alg"]),
        (&json!("RSA"), &json!("sig"), &json!("RS256"))
    );
    let (n, e) = (keys[0]["n"].as_str().unwrap(), keys[0]["e"].as_str().unwrap());
    let thumbprint = countersign_issuer::keys::thumbprint(&format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#));
    assert_eq!(keys[0]["kid"], thumbprint);

    for known in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".into()] {
        let response =
            issuer.get("/.well-known/jwks.json").header("if-none-match", &known).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!(response.headers()["etag"], etag.as_str());
        assert_eq!(response.headers()["cache-control"], "public, max-age=300");
    }
    let response =
        issuer.get("/.well-known/jwks.json").header("if-none-match", "\"other\"").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn metadata_is_true() {
    let issuer = Issuer::start().await;
    let response = issuer.get("/.well-known/oauth-authorization-server").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    let metadata: Value = response.json().await.unwrap();
    let methods = ["client_secret_basic", "client_secret_post", "private_key_jwt"];
    let algorithms = ["RS256", "PS256", "ES256", "EdDSA"];
    let expected = json!({
        "issuer": ISSUER,
        "token_endpoint": format!("{ISSUER}/oauth2/v1/token"),
        "introspection_endpoint": format!("{ISSUER}/oauth2/v1/introspect"),
        "revocation_endpoint": format!("{ISSUER}/oauth2/v1/revoke"),
        "jwks_uri": format!("{ISSUER}/.well-known/jwks.json"),
        "status_list_aggregation_endpoint": format!("{ISSUER}/status-lists"),
        "service_documentation": format!("{ISSUER}/docs"),
        "scopes_supported": [
            "agents:read", "agents:write", "audit:read", "credentials:read", "credentials:write", "resource_servers:read",
            "resource_servers:write", "tenants:read", "tenants:write", "tokens:introspect", "tokens:revoke",
        ],
        "access_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": [],
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "introspection_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
    });
    assert_eq!(metadata, expected);
    // Each of them is there.
    for name in ["token_endpoint", "introspection_endpoint", "revocation_endpoint"] {
        let path = metadata[name].as_str().unwrap().strip_prefix(ISSUER).unwrap();
        assert_eq!(
            issuer
                .post(path)
                .form(&[("grant_type", "client_credentials"), ("token", "a")])
                .send()
                .await
                .unwrap()
                .status(),
            StatusCode::UNAUTHORIZED
        );
    }
}

#[tokio::test]
async fn an_issuer_with_a_path_is_found_under_it_too() {
    let issuer = Issuer::start_with(|cli| cli.env("ISSUER_URL", "https://example.com/tenants/one")).await;
    for path in
        ["/.well-known/oauth-authorization-server", "/.well-known/oauth-authorization-server/tenants/one"]
    {
        let metadata: Value = issuer.get(path).send().await.unwrap().json().await.unwrap();
        assert_eq!(metadata["issuer"], "https://example.com/tenants/one");
    }
}
