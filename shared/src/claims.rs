//! The claims of an access token (RFC 9068 §2.2 and ours), parsed into types.

use crate::ids::{AgentId, CredentialId, Jti, Shard, TenantId};
use crate::json::{Object, Value};
use crate::time::UnixTime;
use crate::verify::Refusal;
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// How many audiences a token may name.
const MAX_AUDIENCES: usize = 16;
/// How long `agent_type` may be, in bytes.
const MAX_AGENT_TYPE_BYTES: usize = 32;

/// What an access token says. All are required but `nbf` and `scope`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `iss`.
    pub issuer: String,
    /// `sub`: the agent.
    pub subject: AgentId,
    /// `client_id`: the agent too.
    pub client_id: AgentId,
    /// `aud`: one or more.
    pub audience: Vec<String>,
    /// `iat`.
    pub issued_at: UnixTime,
    /// `exp`: refused from this second on.
    pub expires_at: UnixTime,
    /// `nbf`.
    pub not_before: Option<UnixTime>,
    /// `jti`, with its coordinate in the revoked set.
    pub jti: Jti,
    /// `scope`, split; empty when absent.
    pub scope: Vec<String>,
    /// `tenant_id`.
    pub tenant: TenantId,
    /// `credential_id`.
    pub credential: CredentialId,
    /// `agent_type`: lower-case letters and underscores.
    pub agent_type: String,
    /// The `kid` of the header: the key that vouches for all this.
    pub key_id: String,
}

impl Claims {
    /// Reads a payload whose signature holds.
    pub(crate) fn parse(payload: &[u8], key_id: String) -> Result<Self, Refusal> {
        let object = Object::parse(payload).map_err(|_| Refusal::Malformed("payload"))?;
        let reader = Reader(&object);
        reader.no_confirmation()?;
        let claims = Self {
            issuer: reader.text("iss")?.to_owned(),
            subject: reader.parsed("sub")?,
            client_id: reader.parsed("client_id")?,
            audience: reader.audience()?,
            issued_at: reader.time("iat")?.ok_or(Refusal::MissingClaim("iat"))?,
            expires_at: reader.time("exp")?.ok_or(Refusal::MissingClaim("exp"))?,
            not_before: reader.time("nbf")?,
            jti: reader.parsed("jti")?,
            scope: reader.scope("scope", false)?,
            tenant: reader.parsed("tenant_id")?,
            credential: reader.parsed("credential_id")?,
            agent_type: reader.agent_type()?,
            key_id,
        };
        // The jti says in which shard a revocation would be looked up, so it must not contradict `exp`.
        if Shard::of_expiry(claims.expires_at) != Some(claims.jti.coordinate().shard) {
            return Err(Refusal::InvalidClaim("jti"));
        }
        Ok(claims)
    }
}

/// Claims by name, of a payload that may be anyone's.
pub(crate) struct Reader<'o, 't>(pub(crate) &'o Object<'t>);

impl<'o> Reader<'o, '_> {
    pub(crate) fn text(&self, name: &'static str) -> Result<&'o str, Refusal> {
        let value = self.0.get(name).ok_or(Refusal::MissingClaim(name))?;
        value.as_str().ok_or(Refusal::InvalidClaim(name))
    }

    pub(crate) fn parsed<T: core::str::FromStr>(&self, name: &'static str) -> Result<T, Refusal> {
        self.text(name)?.parse().map_err(|_| Refusal::InvalidClaim(name))
    }

    /// A token that is bound to a key (RFC 7800 §3, whatever the method: `jkt` of RFC 9449 §6.1, `x5t#S256` of RFC 8705 §3.1) is worth nothing without a proof of
    /// that key, and nothing here checks one.
    pub(crate) fn no_confirmation(&self) -> Result<(), Refusal> {
        if self.0.get("cnf").is_some() { Err(Refusal::ProofRequired) } else { Ok(()) }
    }

    /// An integral, non-negative `NumericDate`.
    pub(crate) fn time(&self, name: &'static str) -> Result<Option<UnixTime>, Refusal> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        match value.as_i64() {
            Some(seconds) if seconds >= 0 => Ok(Some(UnixTime(seconds))),
            _ => Err(Refusal::InvalidClaim(name)),
        }
    }

    /// A string or an array of strings (RFC 7519 §4.1.3), none empty.
    pub(crate) fn audience(&self) -> Result<Vec<String>, Refusal> {
        let value = self.0.get("aud").ok_or(Refusal::MissingClaim("aud"))?;
        let values = match value {
            Value::Array(values) => values.as_slice(),
            single => core::slice::from_ref(single),
        };
        if values.is_empty() || values.len() > MAX_AUDIENCES {
            return Err(Refusal::InvalidClaim("aud"));
        }
        let audience =
            values.iter().map(|value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned));
        audience.collect::<Option<_>>().ok_or(Refusal::InvalidClaim("aud"))
    }

    /// Scope tokens with single spaces between them (RFC 6749 §3.3); or, where `may_be_array`, an array of them, as other issuers write it.
    pub(crate) fn scope(&self, claim: &str, may_be_array: bool) -> Result<Vec<String>, Refusal> {
        let mut scopes = Vec::new();
        let is_sound = match self.0.get(claim) {
            None => true,
            Some(Value::String(text)) => text.split(' ').all(|scope| add_scope(&mut scopes, Some(scope))),
            Some(Value::Array(items)) if may_be_array => {
                items.iter().all(|item| add_scope(&mut scopes, item.as_str()))
            }
            Some(_) => false,
        };
        if is_sound { Ok(scopes) } else { Err(Refusal::InvalidClaim("scope")) }
    }

    /// Goes into a header of the upstream request, hence its narrow alphabet.
    fn agent_type(&self) -> Result<String, Refusal> {
        let text = self.text("agent_type")?;
        let sound = (1..=MAX_AGENT_TYPE_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if sound { Ok(text.to_owned()) } else { Err(Refusal::InvalidClaim("agent_type")) }
    }
}

/// Whether it is one.
#[inline(never)]
fn add_scope(scopes: &mut Vec<String>, scope: Option<&str>) -> bool {
    let sound = scope.filter(|scope| crate::oauth::is_scope_token(scope));
    scopes.extend(sound.map(str::to_owned));
    sound.is_some()
}
