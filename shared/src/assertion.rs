//! A client's assertion about itself: `private_key_jwt` (RFC 7523 §3, OpenID Connect Core §9), in steps that only go forward as in
//! [`crate::verify`].
//!
//! Whether it was used before is the host's to know; nothing here remembers.

use crate::algorithm::Algorithm;
use crate::base64url;
use crate::claims::Reader;
use crate::ids::AgentId;
use crate::json::Object;
use crate::jwk::{Jwk, MAX_KID_BYTES};
use crate::time::UnixTime;
use crate::token::is_media_type;
use crate::verify::{Refusal, Signature};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// The longest assertion, in bytes.
pub const MAX_BYTES: usize = 8 * 1024;
/// The longest `jti`, in bytes.
pub const MAX_JTI_BYTES: usize = 256;
/// How far ahead `exp` may lie, in seconds: for as long its id has to be remembered.
pub const MAX_AHEAD: i64 = 300;
/// By how many seconds `iat` and `nbf` may lie ahead of our clock, and `exp` beyond [`MAX_AHEAD`]. An assertion that has expired gets none.
pub const CLOCK_LEEWAY: i64 = 5;

/// What `typ` may be where it is there: no other kind of JWT is to be taken for an assertion (RFC 8725 §3.11).
const TYPES: [&str; 2] = ["JWT", "client-authentication+jwt"];

/// An assertion of the right shape. Whose it is has to be proved yet.
#[derive(Debug)]
pub struct Unverified {
    algorithm: Algorithm,
    kid: Option<String>,
    signing_input_length: usize,
    signature: Vec<u8>,
    client: AgentId,
    audience: Vec<String>,
    expires_at: UnixTime,
    issued_at: Option<UnixTime>,
    not_before: Option<UnixTime>,
    jti: String,
}

impl Unverified {
    /// Reads `jwt`: size, segments, header, claims. `iss` and `sub` are both the client's id.
    pub fn parse(jwt: &[u8]) -> Result<Self, Refusal> {
        if jwt.len() > MAX_BYTES {
            return Err(Refusal::TooLarge);
        }
        let mut segments = jwt.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(Refusal::Malformed("segments"));
        };
        let signing_input_length = header.len() + 1 + payload.len();

        let header = base64url::decode(header).ok_or(Refusal::Malformed("header encoding"))?;
        let header = Object::parse(&header).map_err(|_| Refusal::Malformed("header"))?;
        let text = |name, problem| match header.get(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or(Refusal::Malformed(problem)),
        };
        let algorithm = text("alg", "alg")?.ok_or(Refusal::Malformed("alg"))?;
        let algorithm = Algorithm::from_name(algorithm).ok_or(Refusal::UnsupportedAlgorithm)?;
        if text("typ", "typ")?.is_some_and(|typ| !TYPES.iter().any(|known| is_media_type(typ, known))) {
            return Err(Refusal::WrongType);
        }
        // We understand no extension (RFC 7515 §4.1.11).
        if header.get("crit").is_some() {
            return Err(Refusal::CriticalExtension);
        }
        let kid = text("kid", "kid")?;
        if kid.is_some_and(|kid| kid.is_empty() || kid.len() > MAX_KID_BYTES) {
            return Err(Refusal::Malformed("kid"));
        }

        let signature = base64url::decode(signature).ok_or(Refusal::Malformed("signature encoding"))?;
        let payload = base64url::decode(payload).ok_or(Refusal::Malformed("payload encoding"))?;
        let payload = Object::parse(&payload).map_err(|_| Refusal::Malformed("payload"))?;
        let reader = Reader(&payload);
        reader.no_confirmation()?;
        let (client, subject): (AgentId, AgentId) = (reader.parsed("iss")?, reader.parsed("sub")?);
        if client != subject {
            return Err(Refusal::InvalidClaim("sub"));
        }
        let jti = reader.text("jti")?;
        if jti.is_empty() || jti.len() > MAX_JTI_BYTES {
            return Err(Refusal::InvalidClaim("jti"));
        }
        Ok(Self {
            algorithm,
            kid: kid.map(str::to_owned),
            signing_input_length,
            signature,
            client,
            audience: reader.audience()?,
            expires_at: reader.time("exp")?.ok_or(Refusal::MissingClaim("exp"))?,
            issued_at: reader.time("iat")?,
            not_before: reader.time("nbf")?,
            jti: jti.to_owned(),
        })
    }

    /// The client that it names; not proved.
    pub const fn client(&self) -> AgentId {
        self.client
    }

    /// Whether `key` is one to check it with: the algorithm is the key's (RFC 8725 §3.1), and so is `kid` where one is given.
    pub fn may_be_signed_by(&self, key: &Jwk) -> bool {
        key.algorithm() == self.algorithm && self.kid.as_deref().is_none_or(|kid| kid == key.kid())
    }

    /// The bytes of `jwt` that the signature covers; `jwt` is the text it was parsed from.
    pub fn signing_input<'t>(&self, jwt: &'t [u8]) -> &'t [u8] {
        &jwt[..self.signing_input_length]
    }

    /// The signature, in JWS form.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The claims, against the time and `audiences`: the identifiers under which this server is addressed. `signature` is what the host says
    /// with one of the client's keys.
    pub fn finish(
        self,
        signature: Signature,
        audiences: &[String],
        now: UnixTime,
    ) -> Result<Assertion, Refusal> {
        if signature == Signature::Invalid {
            return Err(Refusal::BadSignature);
        }
        // For this server alone: another that it is meant for too could use it here first.
        let [audience] = self.audience.as_slice() else { return Err(Refusal::WrongAudience) };
        if !audiences.contains(audience) {
            return Err(Refusal::WrongAudience);
        }
        if self.expires_at <= now {
            return Err(Refusal::Expired);
        }
        if self.expires_at > now.plus(MAX_AHEAD + CLOCK_LEEWAY) {
            return Err(Refusal::InvalidClaim("exp"));
        }
        let latest = now.plus(CLOCK_LEEWAY);
        if self.not_before.is_some_and(|not_before| not_before > latest) {
            return Err(Refusal::NotYetValid);
        }
        if self.issued_at.is_some_and(|issued_at| issued_at > latest) {
            return Err(Refusal::IssuedInTheFuture);
        }
        if self.issued_at.is_some_and(|issued_at| issued_at >= self.expires_at) {
            return Err(Refusal::InvalidClaim("iat"));
        }
        Ok(Assertion { client: self.client, jti: self.jti, expires_at: self.expires_at })
    }
}

/// An assertion that holds, if it wasn't used before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// Who made it.
    pub client: AgentId,
    /// Its id, the client's choice.
    pub jti: String,
    /// Refused from this second on.
    pub expires_at: UnixTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "00000000-0000-4000-8000-000000000001";
    const HEADER: &str = r#"{"alg":"EdDSA","kid":"k"}"#;

    fn jwt(header: &str, payload: &str) -> Vec<u8> {
        let encode = |text: &str| base64url::encode(text.as_bytes());
        format!("{}.{}.{}", encode(header), encode(payload), base64url::encode(&[0; 64])).into_bytes()
    }

    fn payload(more: &str) -> String {
        format!(r#"{{"iss":"{CLIENT}","sub":"{CLIENT}","aud":["us"],"exp":1300,"jti":"1"{more}}}"#)
    }

    fn finish(payload: &str, now: i64) -> Result<Assertion, Refusal> {
        Unverified::parse(&jwt(HEADER, payload))?.finish(Signature::Valid, &["us".to_owned()], UnixTime(now))
    }

    #[test]
    fn takes_a_sound_one_and_the_times_to_the_second() {
        let assertion = finish(&payload(""), 1000).unwrap();
        assert_eq!((assertion.jti.as_str(), assertion.expires_at), ("1", UnixTime(1300)));
        assert!(finish(&payload(""), 1299).is_ok());
        assert!(finish(&payload(""), 995).is_ok(), "the leeway");
        assert_eq!(finish(&payload(""), 1300), Err(Refusal::Expired));
        assert_eq!(finish(&payload(""), 994), Err(Refusal::InvalidClaim("exp")));
        assert!(finish(&payload(r#","iat":1005,"nbf":1005"#), 1000).is_ok());
        assert_eq!(finish(&payload(r#","nbf":1006"#), 1000), Err(Refusal::NotYetValid));
        assert_eq!(finish(&payload(r#","iat":1006"#), 1000), Err(Refusal::IssuedInTheFuture));
        assert_eq!(finish(&payload(r#","iat":1300"#), 1299), Err(Refusal::InvalidClaim("iat")));
    }

    #[test]
    fn refuses_the_rest() {
        let parse = |header: &str, payload: &str| Unverified::parse(&jwt(header, payload)).unwrap_err();
        let sound = payload("");
        for (header, refusal) in [
            ("{}", Refusal::Malformed("alg")),
            (r#"{"alg":"none"}"#, Refusal::UnsupportedAlgorithm),
            (r#"{"alg":"HS256"}"#, Refusal::UnsupportedAlgorithm),
            (r#"{"alg":"EdDSA","typ":"at+jwt"}"#, Refusal::WrongType),
            (r#"{"alg":"EdDSA","typ":1}"#, Refusal::Malformed("typ")),
            (r#"{"alg":"EdDSA","crit":[]}"#, Refusal::CriticalExtension),
            (r#"{"alg":"EdDSA","kid":""}"#, Refusal::Malformed("kid")),
            (r#"{"alg":"EdDSA","alg":"EdDSA"}"#, Refusal::Malformed("header")),
        ] {
            assert_eq!(parse(header, &sound), refusal, "{header}");
        }
        let long = format!(r#""jti":"{}""#, "a".repeat(257));
        for (from, to, refusal) in [
            (r#","jti":"1""#, "", Refusal::MissingClaim("jti")),
            (r#""jti":"1""#, r#""jti":"""#, Refusal::InvalidClaim("jti")),
            (r#""jti":"1""#, &long, Refusal::InvalidClaim("jti")),
            (r#","exp":1300"#, "", Refusal::MissingClaim("exp")),
            (r#""exp""#, r#""cnf":{"jkt":"x"},"exp""#, Refusal::ProofRequired),
            ("1300", "1300.5", Refusal::InvalidClaim("exp")),
            (r#""aud":["us"],"#, "", Refusal::MissingClaim("aud")),
            (r#"["us"]"#, "[]", Refusal::InvalidClaim("aud")),
            (r#""iss""#, r#""is""#, Refusal::MissingClaim("iss")),
            (r#"0001","sub""#, r#"0002","sub""#, Refusal::InvalidClaim("sub")),
        ] {
            assert_eq!(parse(HEADER, &sound.replace(from, to)), refusal, "{from} → {to}");
        }
        for audience in [r#"["them"]"#, r#"["x","us"]"#, r#"["us","us"]"#, r#""them""#] {
            assert_eq!(
                finish(&sound.replace(r#"["us"]"#, audience), 1000),
                Err(Refusal::WrongAudience),
                "{audience}"
            );
        }
        assert!(finish(&sound.replace(r#"["us"]"#, r#""us""#), 1000).is_ok());
        let unsigned = Unverified::parse(&jwt(HEADER, &sound)).unwrap();
        assert_eq!(
            unsigned.finish(Signature::Invalid, &["us".to_owned()], UnixTime(1000)),
            Err(Refusal::BadSignature)
        );
        assert_eq!(Unverified::parse(&[b'a'; MAX_BYTES + 1]).unwrap_err(), Refusal::TooLarge);
        assert_eq!(Unverified::parse(b"a.b").unwrap_err(), Refusal::Malformed("segments"));
    }

    #[test]
    fn the_key_decides_the_algorithm() {
        let key = |alg: &str, kid: &str| {
            let (kty, crv, x, y) = match alg {
                "EdDSA" => ("OKP", "Ed25519", "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", ""), // RFC 8037 §A.2
                // RFC 7515 §A.3
                _ => (
                    "EC",
                    "P-256",
                    "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                    r#","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#,
                ),
            };
            let jwk = format!(r#"{{"alg":"{alg}","kid":"{kid}","kty":"{kty}","crv":"{crv}","x":"{x}"{y}}}"#);
            Jwk::parse(jwk.as_bytes()).unwrap()
        };
        let named = Unverified::parse(&jwt(HEADER, &payload(""))).unwrap();
        assert!(named.may_be_signed_by(&key("EdDSA", "k")));
        assert!(!named.may_be_signed_by(&key("EdDSA", "other")));
        assert!(!named.may_be_signed_by(&key("ES256", "k")));
        let unnamed = Unverified::parse(&jwt(r#"{"alg":"EdDSA","typ":"jwt"}"#, &payload(""))).unwrap();
        assert!(unnamed.may_be_signed_by(&key("EdDSA", "other")));
        assert!(!unnamed.may_be_signed_by(&key("ES256", "other")));
    }
}
