//! The route policy: the cases that the edge's module runs too (`edge-verifier/tests/node/route-policy.test.mjs`), and what no request can do.

use countersign_shared::route_policy::{Access, Bearer, Decision, Lack, RoutePolicy, Staleness};
use proptest::prelude::*;
use serde_json::Value;

const CASES: &str = include_str!("route-policy.json");

fn cases() -> Value {
    serde_json::from_str(CASES).expect("the cases are JSON")
}

fn policy(cases: &Value, name: &str) -> RoutePolicy {
    RoutePolicy::parse(cases["policies"][name].to_string().as_bytes()).expect("it is sound")
}

#[test]
fn decisions() {
    let cases = cases();
    for case in cases["decisions"].as_array().unwrap() {
        let text = |place: usize| case[place].as_str().unwrap();
        let policy = policy(&cases, text(0));
        let said = match policy.decide(text(1), text(2)) {
            Decision::Ambiguous(_) => Value::from("ambiguous"),
            Decision::Denied(_) => Value::from("denied"),
            Decision::Route(route) => Value::from(route.place),
        };
        assert_eq!(said, case[3], "{case}");
    }
}

#[test]
fn what_a_token_needs() {
    let cases = cases();
    for case in cases["bearers"].as_array().unwrap() {
        let policy = policy(&cases, case[0].as_str().unwrap());
        let route = policy.route(case[1].as_u64().unwrap().try_into().unwrap()).unwrap();
        let text = |name: &str, usual: &'static str| case[2][name].as_str().unwrap_or(usual).to_owned();
        let (audience, scope) = (text("audience", "https://orders.example"), text("scope", ""));
        let tenant = text("tenant", "33333333-3333-4333-8333-333333333333");
        let issuer = text("issuer", "https://issuer.example");
        let bearer = Bearer {
            issuer: &issuer,
            is_ours: issuer == "https://issuer.example",
            audience: &audience.split(' ').collect::<Vec<_>>(),
            scopes: &scope.split(' ').collect::<Vec<_>>(),
            tenant: &tenant,
            agent_type: &text("agentType", "router"),
        };
        let said = route.admits(&bearer).err().map(|lack| match lack {
            Lack::Issuer => "wrong_issuer",
            Lack::Audience => "wrong_audience",
            Lack::Tenant => "wrong_tenant",
            Lack::AgentType => "wrong_agent_type",
            Lack::Scope => "insufficient_scope",
        });
        assert_eq!(said, case[3].as_str(), "{case}");
    }
}

#[test]
fn mistakes_are_found_and_placed() {
    for case in cases()["mistakes"].as_array().unwrap() {
        let problems = RoutePolicy::parse(case[0].as_str().unwrap().as_bytes()).unwrap_err();
        let places: Vec<&str> = problems.iter().map(|problem| problem.place.as_str()).collect();
        assert_eq!(places, [case[1].as_str().unwrap()], "{problems:?}");
    }
    let several =
        r#"{"version": 1, "routes": [{"path": "/a", "scope": 1}, {"path": "b", "methods": "post"}]}"#;
    assert_eq!(RoutePolicy::parse(several.as_bytes()).unwrap_err().len(), 3, "all at once");
}

#[test]
fn staleness_has_bounds_of_its_own() {
    let cases = cases();
    let policy = policy(&cases, "api");
    let of = |place| match &policy.route(place).unwrap().access {
        Access::Token(needed) => needed.staleness,
        other => panic!("{other:?}"),
    };
    assert_eq!(of(0), Staleness { fresh: 5, usable: 30, serve_unknown: false });
    assert_eq!(of(7), Staleness { fresh: 2, usable: 10, serve_unknown: false });
    assert_eq!(of(8), Staleness { fresh: 60, usable: 60, serve_unknown: true });
}

proptest! {
    /// However a path is spelled: to a server that decodes, folds case, and drops parameters, dots and doubled slashes it is below `/admin` only where the policy treats it so.
    #[test]
    fn no_spelling_gets_around_a_route(path in "(/|//|/\\./|/\\.\\./|%2[fF]|;|\\\\|a|A|admin|ADMIN|aDmin|%61dmin|%41|%2[eE]|\\.|x|%25|%2561){1,8}") {
        let cases = cases();
        let policy = policy(&cases, "open");
        let path = format!("/{path}");
        if let Decision::Route(route) = policy.decide("GET", &path) {
            let is_admin = as_a_sloppy_server_reads(&path).iter().any(|read| read == "/admin" || read.starts_with("/admin/"));
            prop_assert_eq!(is_admin, route.place == 1, "{}", path);
        }
    }
}

/// All that servers may make of a path.
fn as_a_sloppy_server_reads(path: &str) -> Vec<String> {
    let mut read = path.to_owned();
    let mut readings = Vec::new();
    for _ in 0..3 {
        let mut out: Vec<&str> = Vec::new();
        let flat = read.replace('\\', "/");
        for segment in flat.split('/') {
            match segment.split(';').next().unwrap_or_default() {
                "" | "." => {}
                ".." => drop(out.pop()),
                segment => out.push(segment),
            }
        }
        readings.push(format!("/{}", out.join("/")).to_lowercase());
        read = decode(&read);
    }
    readings
}

fn decode(path: &str) -> String {
    let mut decoded = Vec::new();
    let bytes = path.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte =
            digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| bytes[at] == b'%');
        decoded.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
