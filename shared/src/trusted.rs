//! Tokens of other issuers that an operator trusts beside our own.
//!
//! The steps are those of [`crate::verify`], as strict; what differs is what such tokens say. Their ids are texts of any kind, their claims have other names, and
//! nothing here can say that one was revoked: the revoked set names tokens by our own jtis. So they are types of their own, and no function
//! that wants a [`crate::VerifiedToken`] takes one of theirs.

use crate::algorithm::Algorithm;
use crate::base64url;
use crate::claims::Reader;
use crate::json::{Object, Value};
use crate::jwk::KeySet;
use crate::time::UnixTime;
use crate::token::{Demands, Unverified, dots};
use crate::verify::{Policy, Refusal, Signature, TOKEN_TYPE, Times};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// What `typ` can be let through: an access token (RFC 9068 §2.1), any JWT (RFC 7519 §5.1), and a header without `typ`.
pub const TYPES: [&str; 3] = [TOKEN_TYPE, "JWT", ""];
/// The longest text of a claim that goes on to the upstream, in bytes.
const MAX_TEXT_BYTES: usize = 255;
/// What only other kinds of JWT have: ID tokens (OpenID Connect Core §2, §3.3.2.11), and security events and logout tokens (RFC 8417 §2.2).
const OF_OTHER_KINDS: [&str; 4] = ["nonce", "at_hash", "c_hash", "events"];

/// Where a word about the bearer comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This claim of the token, which must be there.
    Claim(String),
    /// The same for all tokens of the issuer; may be empty.
    Constant(String),
}

/// An issuer that is trusted, and what is demanded of its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// The `iss` of its tokens, compared byte for byte.
    pub issuer: String,
    /// What its tokens may be signed with. A key without `alg` is for the one among these that goes with it.
    pub algorithms: Vec<Algorithm>,
    /// One of these must be in `aud`.
    pub audiences: Vec<String>,
    /// What `typ` may be; some of [`TYPES`].
    pub types: Vec<&'static str>,
    /// As [`Policy::clock_leeway`].
    pub clock_leeway: i64,
    /// The claim that says who the agent is; required.
    pub agent: String,
    /// Its tenant.
    pub tenant: Source,
    /// What kind of agent it is.
    pub agent_type: Source,
    /// The claim that has its scopes.
    pub scope: String,
}

impl TrustedIssuer {
    /// First step, on a token that [`named_issuer`] says is this issuer's, with this issuer's keys: size, encoding, header, key.
    pub fn prepare(&self, token: &[u8], keys: &KeySet) -> Result<PreparedForeign, Refusal> {
        let demands =
            Demands { types: &self.types, algorithms: &self.algorithms, max_bytes: Policy::MAX_TOKEN_BYTES };
        PreparedForeign::parse_as(token, &demands, keys)
    }
}

/// The `iss` in a token's payload. Nothing vouches for it yet: it only says whose keys and demands the token is to be held against.
pub fn named_issuer(token: &[u8]) -> Option<String> {
    if token.len() > Policy::MAX_TOKEN_BYTES {
        return None;
    }
    let (first, second) = dots(token)?;
    let payload = base64url::decode(&token[first + 1..second])?;
    let payload = Object::parse(&payload).ok()?;
    payload.get("iss").and_then(Value::as_str).map(str::to_owned)
}

/// What a token of another issuer is prepared as.
#[derive(Debug)]
pub enum ForeignToken {}

/// A token of another issuer whose signature is the next thing to check.
pub type PreparedForeign = Unverified<ForeignToken>;

impl PreparedForeign {
    /// Last step: the claims, against what `issuer` is trusted for and the time `now`.
    pub fn finish(
        self,
        signature: Signature,
        issuer: &TrustedIssuer,
        now: UnixTime,
    ) -> Result<VerifiedForeign, Refusal> {
        if signature == Signature::Invalid {
            return Err(Refusal::BadSignature);
        }
        let payload = Object::parse(&self.payload).map_err(|_| Refusal::Malformed("payload"))?;
        let reader = Reader(&payload);
        reader.no_confirmation()?;
        if OF_OTHER_KINDS.iter().any(|name| payload.get(name).is_some()) {
            return Err(Refusal::WrongType);
        }
        if reader.text("iss")? != issuer.issuer {
            return Err(Refusal::WrongIssuer);
        }
        let audience = reader.audience()?;
        if !audience.iter().any(|text| issuer.audiences.contains(text)) {
            return Err(Refusal::WrongAudience);
        }
        let expires_at = reader.time("exp")?.ok_or(Refusal::MissingClaim("exp"))?;
        let times =
            Times { expires: expires_at, issued: reader.time("iat")?, not_before: reader.time("nbf")? };
        times.check(issuer.clock_leeway, now)?;
        let sourced = |source: &Source, name| match source {
            Source::Claim(claim) => word(&payload, claim, name)?.ok_or(Refusal::MissingClaim(name)),
            Source::Constant(text) => Ok(text.clone()),
        };
        Ok(VerifiedForeign(ForeignClaims {
            agent: word(&payload, &issuer.agent, "agent")?.ok_or(Refusal::MissingClaim("agent"))?,
            tenant: sourced(&issuer.tenant, "tenant")?,
            agent_type: sourced(&issuer.agent_type, "agent_type")?,
            scope: reader.scope(&issuer.scope, true)?,
            jti: word(&payload, "jti", "jti")?.unwrap_or_default(),
            audience,
            expires_at,
        }))
    }
}

/// A text that goes into a header of the upstream request: printable ASCII without spaces.
fn is_word(text: &str) -> bool {
    (1..=MAX_TEXT_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn word(payload: &Object<'_>, claim: &str, name: &'static str) -> Result<Option<String>, Refusal> {
    let Some(value) = payload.get(claim) else { return Ok(None) };
    match value.as_str().filter(|text| is_word(text)) {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(Refusal::InvalidClaim(name)),
    }
}

/// A token of another issuer that holds: signed by it, for us, not expired. Whether it was revoked is not known here. Nothing but the steps
/// above can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedForeign(ForeignClaims);

impl VerifiedForeign {
    /// What the token says.
    pub const fn claims(&self) -> &ForeignClaims {
        &self.0
    }
}

/// What a token of another issuer says, by our names. Each is only worth something together with the issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignClaims {
    /// Who bears it: `sub`, or the claim that the operator named; printable ASCII without spaces, as all texts here.
    pub agent: String,
    /// By the operator's mapping; empty without one.
    pub tenant: String,
    /// By the operator's mapping; empty without one.
    pub agent_type: String,
    /// By the operator's mapping, split; empty when absent.
    pub scope: Vec<String>,
    /// `jti`; empty when absent.
    pub jti: String,
    /// `aud`.
    pub audience: Vec<String>,
    /// `exp`: refused from this second on.
    pub expires_at: UnixTime,
}
