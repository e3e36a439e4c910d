//! Making an access token (RFC 9068). Claims: `docs/reference/formats.md`.

use std::fmt;

use countersign_shared::verify::TOKEN_TYPE;
use countersign_shared::{AgentId, CredentialId, Jti, TenantId, UnixTime};
use serde::Serialize;

use crate::app::App;
use crate::clock;
use crate::domain::agent::AgentType;
use crate::domain::scope::Scopes;
use crate::keys::{SignError, Signer};
use crate::status_lists;
use crate::storage::not_before::REPLICA_LAG_SECONDS;
use crate::tokens::jti;
use crate::tokens::serials::SerialError;

/// What a token is to say, decided.
pub struct Grant {
    /// Whose it is.
    pub agent: AgentId,
    /// The agent's tenant.
    pub tenant: TenantId,
    /// What it was obtained with.
    pub credential: CredentialId,
    /// What the agent does.
    pub agent_type: AgentType,
    /// The one audience.
    pub audience: String,
    /// What it allows.
    pub scope: Scopes,
    /// Life in seconds.
    pub lifetime: u32,
    /// Up to when tokens like this one were ended: this one is issued after it.
    pub not_before: Option<UnixTime>,
    /// It says where its status can be read.
    pub status_list: bool,
}

/// How long a token waits, in seconds, for the end of the second that a not-before rule still touches.
const MAX_WAIT: i64 = REPLICA_LAG_SECONDS + 1;

/// The payload, in the order it is written.
#[derive(Serialize)]
struct Payload<'a> {
    iss: &'a str,
    sub: AgentId,
    client_id: AgentId,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    tenant_id: TenantId,
    credential_id: CredentialId,
    agent_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

/// Where the token's status can be read (draft-ietf-oauth-status-list-21 §6.2).
#[derive(Serialize)]
struct Status {
    status_list: StatusReference,
}

#[derive(Serialize)]
struct StatusReference {
    idx: u64,
    uri: String,
}

/// A token with its id, not signed yet.
pub struct Unsigned {
    /// Its id.
    pub jti: Jti,
    /// As of when it is issued.
    pub issued_at: UnixTime,
    payload: Vec<u8>,
}

/// Why there is no token.
#[derive(Debug)]
pub enum MintError {
    /// There is no serial for it.
    Serial(SerialError),
    /// A not-before rule lies too far ahead of this clock to wait for: the clock that made the rule was fast, or this one is slow.
    Ended,
    /// This host's clock is ahead of the database's.
    ClockAhead,
}

impl From<SerialError> for MintError {
    fn from(error: SerialError) -> Self {
        Self::Serial(error)
    }
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(error) => error.fmt(f),
            Self::Ended => {
                f.write_str("a not-before rule lies ahead of this host's clock: check the hosts' clocks")
            }
            Self::ClockAhead => f.write_str("this host's clock is ahead of the database's: set it right"),
        }
    }
}

impl std::error::Error for MintError {}

/// Waits until a rule touches no token issued from then on, and says whether it had to. Whoever waited has to look again at who asks: what it knew
/// then is old by now.
pub async fn wait_out(not_before: Option<UnixTime>, now: UnixTime) -> Result<bool, MintError> {
    let issuable = not_before.map_or(now, |not_before| now.max(not_before.plus(1)));
    if issuable.0 - now.0 > MAX_WAIT {
        return Err(MintError::Ended);
    }
    if issuable > now {
        clock::reach(issuable).await;
    }
    Ok(issuable > now)
}

/// Gives the token of `grant` its id and writes its claims. It is issued at `issued`: when it was known that the grant is right. A rule made later
/// ends it, however long making it takes.
pub async fn prepare(app: &App, grant: &Grant, issued: UnixTime) -> Result<Unsigned, MintError> {
    if app.clients.is_clock_ahead() {
        return Err(MintError::ClockAhead);
    }
    // It would be born dead. With an `iat` in the future it would outlive the next rule.
    if grant.not_before.is_some_and(|not_before| issued <= not_before) {
        return Err(MintError::Ended);
    }
    let expires = issued.plus(grant.lifetime.into());
    let coordinate = app.serials.take(&app.database, expires, issued).await?;
    let jti = jti::mint(&app.secrets.jti_tag, coordinate, grant.tenant);
    let status = grant.status_list.then(|| Status {
        status_list: StatusReference {
            idx: coordinate.serial.get(),
            uri: status_lists::uri(&app.issuer_url, coordinate.shard),
        },
    });
    let payload = Payload {
        iss: app.issuer_url.as_str(),
        sub: grant.agent,
        client_id: grant.agent,
        aud: &grant.audience,
        iat: issued.0,
        exp: expires.0,
        jti: jti.to_string(),
        scope: grant.scope.to_string(),
        tenant_id: grant.tenant,
        credential_id: grant.credential,
        agent_type: grant.agent_type.as_str(),
        status,
    };
    // Strings and numbers only: that can't fail.
    Ok(Unsigned { jti, issued_at: issued, payload: serde_json::to_vec(&payload).unwrap_or_default() })
}

impl Unsigned {
    /// Signs it.
    pub async fn sign(self, signer: &Signer) -> Result<String, SignError> {
        signer.sign(TOKEN_TYPE, self.payload).await
    }
}
