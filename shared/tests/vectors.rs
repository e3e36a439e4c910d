//! The shared accept and reject vectors, natively. The same file is run in WebAssembly by `edge-verifier/tests`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use countersign_shared::trusted::{Source, TYPES, TrustedIssuer, VerifiedForeign, named_issuer};
use countersign_shared::verify::{Revocation, Revocations};
use countersign_shared::{
    Algorithm, Claims, Jwk, KeySet, Policy, PublicKey, Refusal, Signature, UnixTime, VerifiedToken, prepare,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    policy: PolicyOfFile,
    jwks: serde_json::Value,
    trusted: Vec<TrustedOfFile>,
    key_sets: Vec<KeySetCase>,
    identity: Identity,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct PolicyOfFile {
    issuer: String,
    audiences: Vec<String>,
    clock_leeway: i64,
}

#[derive(Deserialize)]
struct Identity {
    agent: String,
    tenant: String,
    credential: String,
}

/// `expect`: how many keys count, or why there are none.
#[derive(Deserialize)]
struct KeySetCase {
    name: String,
    jwks: String,
    expect: String,
}

#[derive(Deserialize)]
struct TrustedOfFile {
    settings: Settings,
    jwks: serde_json::Value,
}

/// As `TRUSTED_ISSUERS` has them (docs/reference/trusted-issuers.md).
#[derive(Deserialize)]
struct Settings {
    issuer: String,
    algorithms: Vec<String>,
    audiences: Option<Vec<String>>,
    typ: Option<Vec<String>>,
    clock_leeway_seconds: Option<i64>,
    agent_claim: Option<String>,
    tenant_claim: Option<String>,
    agent_type: Option<String>,
    scope_claim: Option<String>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    token: String,
    now: i64,
    expect: String,
    identity: Option<ForeignIdentity>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ForeignIdentity {
    issuer: String,
    agent: String,
    tenant: String,
    credential: String,
    agent_type: String,
    scope: String,
    jti: String,
}

struct NothingRevoked;

impl Revocations for NothingRevoked {
    fn verdict(&self, _: &Claims) -> Revocation {
        Revocation::Clear
    }
}

fn signature_holds(key: &Jwk, message: &[u8], signature: &[u8]) -> bool {
    let verified = match (key.algorithm(), key.public()) {
        (Algorithm::Rs256, PublicKey::Rsa { n, e }) => {
            RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
        }
        (Algorithm::Ps256, PublicKey::Rsa { n, e }) => {
            RsaPublicKeyComponents { n, e }.verify(&RSA_PSS_2048_8192_SHA256, message, signature)
        }
        (Algorithm::Es256, PublicKey::P256 { x, y }) => {
            let point = [&[4][..], x, y].concat();
            let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).unwrap();
            key.verify_sig(message, signature)
        }
        (Algorithm::EdDsa, PublicKey::Ed25519 { x }) => {
            UnparsedPublicKey::new(&ED25519, x).verify(message, signature)
        }
        _ => unreachable!("a key's algorithm goes with its type"),
    };
    verified.is_ok()
}

fn verify(token: &[u8], keys: &KeySet, policy: &Policy, now: UnixTime) -> Result<VerifiedToken, Refusal> {
    let prepared = prepare(token, keys, policy)?;
    let key = &keys.keys()[prepared.key_index()];
    let holds = signature_holds(key, prepared.signing_input(token), prepared.signature());
    let signature = if holds { Signature::Valid } else { Signature::Invalid };
    prepared.finish(signature, policy, now)?.against(&NothingRevoked)
}

fn trusted_issuer(settings: &Settings, policy: &PolicyOfFile) -> TrustedIssuer {
    let types = settings.typ.clone().unwrap_or_else(|| vec!["at+jwt".to_owned()]);
    let type_of = |name: &String| {
        let name = if name == "none" { "" } else { name };
        *TYPES.iter().find(|known| **known == name).unwrap()
    };
    let (sub, scope) = ("sub".to_owned(), "scope".to_owned());
    TrustedIssuer {
        issuer: settings.issuer.clone(),
        algorithms: settings.algorithms.iter().map(|name| Algorithm::from_name(name).unwrap()).collect(),
        audiences: settings.audiences.clone().unwrap_or_else(|| policy.audiences.clone()),
        types: types.iter().map(type_of).collect(),
        clock_leeway: settings.clock_leeway_seconds.unwrap_or(policy.clock_leeway),
        agent: settings.agent_claim.clone().unwrap_or(sub),
        tenant: settings.tenant_claim.clone().map_or(Source::Constant(String::new()), Source::Claim),
        agent_type: Source::Constant(settings.agent_type.clone().unwrap_or_default()),
        scope: settings.scope_claim.clone().unwrap_or(scope),
    }
}

fn verify_foreign(
    token: &[u8],
    issuer: &TrustedIssuer,
    keys: &KeySet,
    now: UnixTime,
) -> Result<VerifiedForeign, Refusal> {
    let prepared = issuer.prepare(token, keys)?;
    let key = &keys.keys()[prepared.key_index()];
    let holds = signature_holds(key, prepared.signing_input(token), prepared.signature());
    prepared.finish(if holds { Signature::Valid } else { Signature::Invalid }, issuer, now)
}

#[test]
fn every_vector_gets_its_verdict() {
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/vectors.json")).unwrap();
    let keys = KeySet::parse(vectors.jwks.to_string().as_bytes()).unwrap();
    let trusted = vectors.trusted.iter().map(|trusted| {
        let issuer = trusted_issuer(&trusted.settings, &vectors.policy);
        let (keys, _) =
            KeySet::parse_foreign(trusted.jwks.to_string().as_bytes(), &issuer.algorithms).unwrap();
        (issuer, keys)
    });
    let trusted: Vec<(TrustedIssuer, KeySet)> = trusted.collect();
    let mut policy = Policy::new(vectors.policy.issuer, vectors.policy.audiences);
    policy.clock_leeway = vectors.policy.clock_leeway;

    let mut wrong = Vec::new();
    for case in &vectors.cases {
        let (token, now) = (case.token.as_bytes(), UnixTime(case.now));
        let ours = verify(token, &keys, &policy, now);
        // As the edge goes about it: what isn't accepted as ours is the trusted issuer's that it names.
        let named = named_issuer(token).filter(|_| ours.is_err());
        let theirs = named
            .and_then(|name| trusted.iter().find(|(issuer, _)| issuer.issuer == name))
            .map(|(issuer, keys)| (issuer, verify_foreign(token, issuer, keys, now)));
        let verdict = match (ours, theirs) {
            (_, Some((issuer, Ok(token)))) => {
                let claims = token.claims().clone();
                let identity = ForeignIdentity {
                    issuer: issuer.issuer.clone(),
                    agent: claims.agent,
                    tenant: claims.tenant,
                    credential: String::new(),
                    agent_type: claims.agent_type,
                    scope: claims.scope.join(" "),
                    jti: claims.jti,
                };
                if let Some(expected) = &case.identity {
                    assert_eq!(&identity, expected, "{}", case.name);
                }
                "accept"
            }
            (Ok(token), None) => {
                assert!(case.identity.is_none(), "{}: ours", case.name);
                let claims = token.claims();
                assert_eq!(claims.subject.to_string(), vectors.identity.agent, "{}", case.name);
                assert_eq!(claims.tenant.to_string(), vectors.identity.tenant, "{}", case.name);
                assert_eq!(claims.credential.to_string(), vectors.identity.credential, "{}", case.name);
                "accept"
            }
            (_, Some((_, Err(refusal)))) | (Err(refusal), None) => refusal.reason(),
        };
        let is_as_expected =
            if case.expect == "refuse" { verdict != "accept" } else { verdict == case.expect };
        if !is_as_expected {
            wrong.push(format!("{}: expected {}, got {verdict}", case.name, case.expect));
        }
    }
    assert!(vectors.cases.len() > 1_000, "only {} cases", vectors.cases.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), vectors.cases.len(), wrong.join("\n"));
}

#[test]
fn every_key_set_gets_its_verdict() {
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/vectors.json")).unwrap();
    assert!(vectors.key_sets.len() > 80, "only {}", vectors.key_sets.len());
    for KeySetCase { name, jwks, expect } in vectors.key_sets {
        let verdict = match KeySet::parse(jwks.as_bytes()) {
            Ok(keys) => keys.keys().len().to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(verdict, expect, "{name}");
    }
}
