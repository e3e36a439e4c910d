//! Key statements: what the issuer signs the verifier reads; what anybody else makes of it is refused.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};
use countersign_shared::key_statement::{KEY_STATEMENT_TYPE, MAX_KEY_STATEMENT_BYTES};
use countersign_shared::revocation::HEAD_TYPE;
use countersign_shared::{
    JwkError, KeySet, KeyStatement, KeyStatementError, PublicKey, Refusal, Signature, UnixTime, base64url,
};
use proptest::prelude::*;

const ISSUER: &str = "https://issuer.example/\"quoted\"";

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn jwk(kid: &str, seed: u8) -> String {
    let x = base64url::encode(pair(seed).public_key().as_ref());
    format!(r#"{{"kid":"{kid}","use":"sig","kty":"OKP","alg":"EdDSA","crv":"Ed25519","x":"{x}"}}"#)
}

fn keys(jwks: &[String]) -> KeySet {
    KeySet::parse(format!(r#"{{"keys":[{}]}}"#, jwks.join(",")).as_bytes()).unwrap()
}

fn head_keys() -> KeySet {
    keys(&[jwk("head", 1)])
}

fn statement(version: u64) -> KeyStatement {
    KeyStatement {
        issuer: ISSUER.to_owned(),
        epoch: 1,
        version,
        issued_at: UnixTime(1_800_000_000),
        keys: keys(&[jwk("a\\\"b", 2), jwk("c", 3)]),
    }
}

fn sign(header: &str, payload: &str, seed: u8) -> String {
    let input = format!("{}.{}", base64url::encode(header.as_bytes()), base64url::encode(payload.as_bytes()));
    let signature = base64url::encode(pair(seed).sign(input.as_bytes()).as_ref());
    format!("{input}.{signature}")
}

fn header(typ: &str) -> String {
    format!(r#"{{"alg":"EdDSA","kid":"head","typ":"{typ}"}}"#)
}

/// As a host does it: prepare, check the signature, finish.
fn read(jws: &str) -> Result<KeyStatement, KeyStatementError> {
    let trusted = head_keys();
    let prepared = KeyStatement::prepare(jws.as_bytes(), &trusted).map_err(KeyStatementError::Refused)?;
    let PublicKey::Ed25519 { x } = trusted.keys()[prepared.key_index()].public() else {
        panic!("{trusted:?}")
    };
    let key = ParsedPublicKey::new(&ED25519, x).unwrap();
    let holds = key.verify_sig(prepared.signing_input(jws.as_bytes()), prepared.signature()).is_ok();
    prepared.finish(if holds { Signature::Valid } else { Signature::Invalid }, ISSUER)
}

fn read_payload(payload: &str) -> Result<KeyStatement, KeyStatementError> {
    read(&sign(&header(KEY_STATEMENT_TYPE), payload, 1))
}

#[test]
fn what_is_signed_is_what_is_read() {
    let statement = statement(7);
    assert_eq!(read_payload(&statement.payload()), Ok(statement.clone()));
    assert_eq!(statement.payload(), statement.clone().payload(), "one statement, one spelling");
    // It is a JWK Set (RFC 7517 §5) to who knows nothing of the other members.
    assert_eq!(KeySet::parse(statement.payload().as_bytes()), Ok(statement.keys));
}

#[test]
fn nobody_else_s_statement_is_taken() {
    let payload = statement(7).payload();
    let refused = |jws: String| match read(&jws) {
        Err(KeyStatementError::Refused(refusal)) => refusal.reason(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(sign(&header(KEY_STATEMENT_TYPE), &payload, 9)), "bad_signature");
    assert_eq!(refused(sign(&header(HEAD_TYPE), &payload, 1)), "wrong_type");
    assert_eq!(refused(sign(&header("at+jwt"), &payload, 1)), "wrong_type");
    assert_eq!(refused(sign(r#"{"alg":"EdDSA","kid":"c","typ":"jwk-set+jwt"}"#, &payload, 3)), "unknown_key");
    assert_eq!(
        refused(sign(r#"{"alg":"none","kid":"head","typ":"jwk-set+jwt"}"#, &payload, 1)),
        "unsupported_algorithm"
    );
    let crit = r#"{"alg":"EdDSA","kid":"head","typ":"jwk-set+jwt","crit":["b64"],"b64":false}"#;
    assert_eq!(refused(sign(crit, &payload, 1)), "critical_extension");
    for issuer in ["https://other.example", "", "https://issuer.example/"] {
        let other = KeyStatement { issuer: issuer.to_owned(), ..statement(7) };
        assert_eq!(refused(sign(&header(KEY_STATEMENT_TYPE), &other.payload(), 1)), "wrong_issuer");
    }
    let long = "a".repeat(MAX_KEY_STATEMENT_BYTES);
    assert_eq!(refused(sign(&header(KEY_STATEMENT_TYPE), &long, 1)), "too_large");
}

#[test]
fn a_payload_that_is_not_one_is_refused() {
    let issuer = r#""iss":"i","sub":"i","#.replace("\"i\"", &format!("{ISSUER:?}"));
    let with = |rest: &str| read_payload(&format!("{{{issuer}{rest}}}"));
    let key = jwk("a", 2);
    let sound = format!(r#""iat":1,"epoch":1,"version":1,"keys":[{key}]"#);
    assert!(with(&sound).is_ok());
    for (change, to, error) in [
        (r#""iat":1,"#, "", KeyStatementError::Malformed),
        (r#""iat":1"#, r#""iat":-1"#, KeyStatementError::Malformed),
        (r#""iat":1"#, r#""iat":18446744073709551615"#, KeyStatementError::Malformed),
        (r#""epoch":1,"#, "", KeyStatementError::Malformed),
        (r#""epoch":1"#, r#""epoch":"1""#, KeyStatementError::Malformed),
        (r#""version":1"#, r#""version":1.0"#, KeyStatementError::Malformed),
        (r#""version":1"#, r#""version":1,"version":2"#, KeyStatementError::Malformed),
        (r#""keys""#, r#""jwks""#, KeyStatementError::Keys(JwkError::Malformed)),
        (key.as_str(), "", KeyStatementError::Keys(JwkError::Empty)),
        (key.as_str(), "1", KeyStatementError::Keys(JwkError::Malformed)),
        (r#""kty":"OKP""#, r#""kty":"OKP","d":"AA""#, KeyStatementError::Keys(JwkError::PrivateMaterial)),
        (r#""kid":"a""#, r#""kid":"""#, KeyStatementError::Keys(JwkError::Kid)),
    ] {
        let changed = sound.replacen(change, to, 1);
        assert_ne!(changed, sound, "{change}");
        assert_eq!(with(&changed), Err(error), "{changed}");
    }
    let twice = format!(r#""iat":1,"epoch":1,"version":1,"keys":[{key},{key}]"#);
    assert_eq!(with(&twice), Err(KeyStatementError::Keys(JwkError::DuplicateKid)));
    for payload in ["", "{}", "[]", "null", "{\"iss\":1}", "\u{0}"] {
        assert_eq!(read_payload(payload), Err(KeyStatementError::Malformed), "{payload}");
    }
    let other_subject = statement(1).payload().replace(r#""sub":""#, r#""sub":"x"#);
    assert_eq!(read_payload(&other_subject), Err(KeyStatementError::Refused(Refusal::WrongIssuer)));
}

#[test]
fn an_epoch_comes_before_every_version() {
    let after_a_restore = KeyStatement { epoch: 2, ..statement(1) };
    assert!(after_a_restore.position() > statement(u64::MAX).position());
    assert!(statement(8).position() > statement(7).position());
}

#[test]
fn a_pulled_set_adds_keys_and_replaces_none() {
    let mut held = keys(&[jwk("a", 2), jwk("b", 3)]);
    held.add_missing(keys(&[jwk("b", 9), jwk("c", 4)]));
    assert_eq!(held, keys(&[jwk("a", 2), jwk("b", 3), jwk("c", 4)]));
}

proptest! {
    /// Whatever one byte becomes, or wherever the text ends: refused, or exactly what was signed.
    #[test]
    fn a_damaged_statement_is_refused(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let jws = sign(&header(KEY_STATEMENT_TYPE), &statement(7).payload(), 1);
        let mut bytes = jws.clone().into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if bytes == jws.as_bytes() { return Ok(()) }
        let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
        prop_assert!(read(&text).is_err());
    }

    /// Signed by the right key and still hostile: no panic, and nothing but what it says.
    #[test]
    fn a_signed_payload_of_any_bytes_does_no_harm(payload in ".{0,400}") {
        prop_assert!(read_payload(&payload).is_err());
    }
}
