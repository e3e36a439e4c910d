//! The shared accept and reject vectors, natively. The same file is run in WebAssembly by `edge-verifier/tests`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use countersign_shared::verify::{Revocation, Revocations};
use countersign_shared::{
    Algorithm, Claims, Jwk, KeySet, Policy, PublicKey, Refusal, Signature, UnixTime, VerifiedToken, prepare,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    policy: PolicyOfFile,
    jwks: serde_json::Value,
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

#[derive(Deserialize)]
struct Case {
    name: String,
    token: String,
    now: i64,
    expect: String,
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

#[test]
fn every_vector_gets_its_verdict() {
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/vectors.json")).unwrap();
    let keys = KeySet::parse(vectors.jwks.to_string().as_bytes()).unwrap();
    let mut policy = Policy::new(vectors.policy.issuer, vectors.policy.audiences);
    policy.clock_leeway = vectors.policy.clock_leeway;

    let mut wrong = Vec::new();
    for case in &vectors.cases {
        let verdict = match verify(case.token.as_bytes(), &keys, &policy, UnixTime(case.now)) {
            Ok(token) => {
                let claims = token.claims();
                assert_eq!(claims.subject.to_string(), vectors.identity.agent, "{}", case.name);
                assert_eq!(claims.tenant.to_string(), vectors.identity.tenant, "{}", case.name);
                assert_eq!(claims.credential.to_string(), vectors.identity.credential, "{}", case.name);
                "accept"
            }
            Err(refusal) => refusal.reason(),
        };
        if verdict != case.expect {
            wrong.push(format!("{}: expected {}, got {verdict}", case.name, case.expect));
        }
    }
    assert!(vectors.cases.len() > 300, "only {} cases", vectors.cases.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), vectors.cases.len(), wrong.join("\n"));
}
