//! The route policy, behind numbers as the rest (see the crate's documentation).

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use countersign_shared::oauth::challenge;
use countersign_shared::route_policy::{Access, Bearer, Decision, Lack, RoutePolicy};
use countersign_shared::verify::Audiences;
use countersign_shared::{Policy, Refusal};
use spin::Mutex;
use wasm_bindgen::prelude::wasm_bindgen;

static ROUTES: Mutex<Option<RoutePolicy>> = Mutex::new(None);

/// Takes the policy in the input into force; the audiences and the trusted issuers must be known. The number of its routes, or −1 with all that is wrong with it in the output, a line each.
#[wasm_bindgen]
pub fn load_policy(length: usize) -> i32 {
    super::with(|verifier| {
        let read = RoutePolicy::parse(verifier.input.get(..length).unwrap_or_default());
        let policy = match read {
            Ok(policy) => policy,
            Err(problems) => {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                verifier.output = lines.join("\n").into_bytes();
                return -1;
            }
        };
        // A token for it never gets as far as the route.
        let (own_issuer, own) = match &verifier.policy {
            Some(Policy { issuer, audiences: Audiences::OneOf(own), .. }) => {
                (issuer.as_str(), own.as_slice())
            }
            _ => ("", &[][..]),
        };
        let theirs = &verifier.trusted;
        let is_known_issuer =
            |name: &str| name == own_issuer || theirs.iter().any(|(issuer, _)| issuer.issuer == name);
        let is_known_audience = |name: &String| {
            own.contains(name) || theirs.iter().any(|(issuer, _)| issuer.audiences.contains(name))
        };
        for route in policy.routes() {
            let Access::Token(needed) = &route.access else { continue };
            let (member, name, place) =
                if let Some(name) = needed.issuers.iter().find(|name| !is_known_issuer(name)) {
                    ("issuers", name, "ISSUER_URL, nor in TRUSTED_ISSUERS")
                } else if let Some(name) = needed.audience.iter().find(|name| !is_known_audience(name)) {
                    ("audience", name, "in AUDIENCE")
                } else {
                    continue;
                };
            verifier.output = format!("routes[{}].{member}: {name} is not {place}", route.place).into_bytes();
            return -1;
        }
        let count = i32::try_from(policy.routes().count()).unwrap_or(i32::MAX);
        *super::sole(&ROUTES) = Some(policy);
        count
    })
}

/// Decides about a request; the input is its method, `method_length` bytes, and its path. The route's place, with `anonymous`, or `token` and its staleness in the output: fresh and
/// usable in seconds, `refuse` or `serve`. −1: denied. −2: ambiguous, with the reason in the output.
#[wasm_bindgen]
pub fn route(method_length: usize, length: usize) -> i32 {
    super::with(|verifier| {
        let input = verifier.input.get(..length).and_then(|input| str::from_utf8(input).ok());
        let Some((method, path)) = input.and_then(|input| input.split_at_checked(method_length)) else {
            return -1;
        };
        let routes = super::sole(&ROUTES);
        let Some(policy) = &*routes else { return -1 };
        let (place, said) = match policy.decide(method, path) {
            Decision::Ambiguous(ambiguity) => (None, ambiguity.to_string()),
            Decision::Denied(_) => return -1,
            Decision::Route(route) => (
                Some(route.place),
                match &route.access {
                    Access::Denied => return -1,
                    Access::Anonymous => "anonymous".to_owned(),
                    Access::Token(needed) => {
                        let staleness = needed.staleness;
                        let unknown = if staleness.serve_unknown { "serve" } else { "refuse" };
                        format!("token {} {} {unknown}", staleness.fresh, staleness.usable)
                    }
                },
            ),
        };
        verifier.output = said.into_bytes();
        place.map_or(-2, |place| i32::try_from(place).unwrap_or(-1))
    })
}

/// Whether a token that holds has what the route needs; the input is a line each of its issuer, audiences, scope, tenant and agent type, as `finish` gave them. 0, or −1 with
/// `reason\nchallenge\ndescription` in the output.
#[wasm_bindgen]
pub fn admits(route: usize, length: usize) -> i32 {
    super::with(|verifier| {
        let input = verifier.input.get(..length).and_then(|input| str::from_utf8(input).ok());
        let lines: Vec<&str> = input.unwrap_or_default().split('\n').collect();
        let routes = super::sole(&ROUTES);
        let lack = (|| {
            let route = routes
                .as_ref()
                .and_then(|policy| policy.route(route))
                .ok_or((Lack::Tenant, String::new()))?;
            let &[issuer, audience, scope, tenant, agent_type] = lines.as_slice() else {
                return Err((Lack::Tenant, String::new()));
            };
            let audience: Vec<&str> = audience.split(' ').collect();
            let scopes: Vec<&str> = scope.split(' ').collect();
            let is_ours = verifier.policy.as_ref().is_some_and(|policy| policy.issuer == issuer);
            let bearer = Bearer { issuer, is_ours, audience: &audience, scopes: &scopes, tenant, agent_type };
            route.admits(&bearer).map_err(|lack| match &route.access {
                Access::Token(needed) => (lack, needed.scopes.join(" ")),
                _ => (lack, String::new()),
            })
        })();
        let Err((lack, scopes)) = lack else { return 0 };
        let (reason, challenge, description) = match lack {
            Lack::Issuer => {
                ("wrong_issuer", String::new(), "Tokens of this issuer have no access to this route")
            }
            Lack::Audience => {
                ("wrong_audience", String::new(), "The token is for another audience than this route's")
            }
            Lack::Tenant => ("wrong_tenant", String::new(), "The token's tenant has no access to this route"),
            Lack::AgentType => {
                ("wrong_agent_type", String::new(), "Agents of this type have no access to this route")
            }
            Lack::Scope => (
                "insufficient_scope",
                challenge(None, Some(&Refusal::InsufficientScope), Some(&scopes)),
                Refusal::InsufficientScope.description(),
            ),
        };
        verifier.output = format!("{reason}\n{challenge}\n{description}").into_bytes();
        -1
    })
}

/// Appends the audiences of a token, separated by spaces. One with a space or the like can't be a route's.
pub(crate) fn write_audiences(audiences: &[String], output: &mut Vec<u8>) {
    let start = output.len();
    for audience in audiences {
        if audience.bytes().all(|byte| byte.is_ascii_graphic()) {
            output.extend_from_slice(if output.len() > start { b" " } else { b"" });
            output.extend_from_slice(audience.as_bytes());
        }
    }
}
