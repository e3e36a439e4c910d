//! `countersign policy`: what it says of a route policy. Its decisions are those of `shared/tests/route_policy.rs`.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::cli::Cli;

/// A file that is gone when the test is.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("countersign-{}-{name}.json", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

const POLICY: &str = r#"{
  "$schema": "https://countersign.example/edge-policy.schema.json",
  "version": 1,
  "routes": [
    { "path": "/orders/**", "scopes": ["orders:read"], "description": "all about orders" },
    { "path": "/orders/*", "methods": ["DELETE"],
      "scopes": ["orders:read", "orders:write"], "agent_types": ["router"] },
    { "path": "/orders/internal/**", "deny": true },
    { "path": "/health", "methods": ["GET"], "anonymous": true }
  ]
}
"#;

#[test]
fn a_sound_policy_is_listed_by_specificity() {
    let file = File::new("sound", POLICY);
    let said = Cli::bare().run(&["policy", "check", file.path()]).expect_success();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("LINE  METHODS  PATH"), "{said}");
    let places: Vec<&str> = lines[1..].iter().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(places, ["8", "6", "9", "5"], "{said}");
    assert!(said.contains("a token, with orders:read and orders:write, of a router, revocations 5 s fresh, 30 s usable, then refused"), "{said}");
    let body: Value =
        serde_json::from_str(&Cli::bare().run(&["policy", "check", file.path(), "--json"]).expect_success())
            .unwrap();
    assert_eq!(body["routes"][1]["place"], 1);
    assert_eq!(body["routes"][1]["methods"], json!(["DELETE"]));
}

#[test]
fn whose_tokens_a_route_takes_is_said() {
    let policy = r#"{ "version": 1, "routes": [
      { "path": "/partners/**", "issuers": ["https://a.example", "https://b.example"], "tenants": ["acme"], "audience": "https://api.example" }
    ] }"#;
    let file = File::new("issuers", policy);
    let said = Cli::bare().run(&["policy", "check", file.path()]).expect_success();
    assert!(
        said.contains("a token, from https://a.example or https://b.example, for https://api.example, of tenant acme, revocations"),
        "{said}"
    );
}

#[test]
fn mistakes_are_said_with_their_lines() {
    for (name, text, expected) in [
        (
            "syntax",
            "{\n  \"version\": 1,\n  \"routes\": [,]\n}",
            vec![":3: expected value at line 3 column 14"],
        ),
        (
            "several",
            "{ \"version\": 1, \"routes\": [\n  { \"path\": \"/a\",\n    \"scope\": \"x\" },\n  { \"path\": \"/b;c\" },\n  {}\n] }",
            vec![
                ":3: routes[0].scope: is no member of a route",
                ":4: routes[1].path: can't be that of a request: The path has a character that must be percent-encoded, or a semicolon",
                ":5: routes[2].path: must be a path, as /orders/*",
            ],
        ),
        (
            "twice",
            "{ \"version\": 1,\n\"routes\": [{ \"path\": \"/a\",\n \"p\\u0061th\": \"/b\" }] }",
            vec![":3: routes[0].path: is there twice"],
        ),
        (
            "types",
            "{ \"version\": 1, \"routes\": [\n{ \"path\": \"/a\",\n\"agent_types\": [\"screner\", \"router\"] }] }",
            vec![":3: routes[0].agent_types: there are no agents of the type screner"],
        ),
    ] {
        let file = File::new(name, text);
        let ran = Cli::bare().run(&["policy", "check", file.path()]);
        assert_eq!(ran.code(), Some(1), "{name}");
        let said = ran.stderr();
        let said: Vec<&str> = said.trim_start_matches("countersign: ").lines().collect();
        let expected: Vec<String> = expected.iter().map(|line| format!("{}{line}", file.path())).collect();
        assert_eq!(said, expected, "{name}");
    }
    assert!(
        Cli::bare()
            .run(&["policy", "check", "/nowhere.json"])
            .expect_failure()
            .starts_with("/nowhere.json can't be read")
    );
}

#[test]
fn a_decision_is_explained() {
    let file = File::new("explained", POLICY);
    let explain = |method: &str, path: &str| {
        let said = Cli::bare()
            .run(&["policy", "explain", method, path, "--policy", file.path(), "--json"])
            .expect_success();
        let said: Value = serde_json::from_str(&said).unwrap();
        (
            said["answer"].clone(),
            said["decision"].as_str().unwrap().to_owned(),
            said["fitting"].as_array().unwrap().len(),
        )
    };
    assert_eq!(
        explain("DELETE", "/orders/17?x=1"),
        (json!(null), "routes[1] (line 6) decides: DELETE /orders/*".into(), 2)
    );
    assert_eq!(
        explain("GET", "/orders/17"),
        (json!(null), "routes[0] (line 5) decides: all methods /orders/**".into(), 1)
    );
    assert_eq!(
        explain("GET", "/orders/internal/x"),
        (json!(403), "denied by routes[2] (line 8): /orders/internal/**".into(), 2)
    );
    assert_eq!(explain("GET", "/nothing"), (json!(403), "denied: no route fits".into(), 0));
    let (answer, said, _) = explain("GET", "/orders/Internal");
    assert_eq!(answer, 400);
    assert!(
        said.contains(
            "routes[0] (line 5) /orders/** would decide, and routes[2] (line 8) /orders/internal/**"
        ),
        "{said}"
    );
    assert_eq!(explain("GET", "/orders//17").0, 400);

    let text = Cli::bare()
        .run(&["policy", "explain", "DELETE", "/orders/17", "--policy", file.path()])
        .expect_success();
    assert!(
        text.contains("needs          a token, with orders:read and orders:write, of a router"),
        "{text}"
    );
    assert!(text.contains("less specific  routes[0] (line 5) /orders/**"), "{text}");
}

#[test]
fn a_compact_policy_is_the_same_one() {
    let file = File::new("compact", POLICY);
    let compact = Cli::bare().run(&["policy", "compact", file.path()]).expect_success();
    assert_eq!(compact.lines().count(), 1);
    assert!(!compact.contains("description") && !compact.contains("$schema"), "{compact}");
    let again = File::new("compact-again", &compact);
    assert_eq!(Cli::bare().run(&["policy", "compact", again.path()]).expect_success(), compact);

    let routes: Vec<Value> = (0..128)
        .map(|place| json!({ "path": format!("/a-rather-long-path/of-several-segments/{place}/**") }))
        .collect();
    let large = File::new("large", &json!({ "version": 1, "routes": routes }).to_string());
    let said = Cli::bare().run(&["policy", "compact", large.path()]).expect_failure();
    assert!(said.contains("put it into edge-verifier/edge-policy.json"), "{said}");
}
