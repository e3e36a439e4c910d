//! Making an access token (RFC 9068). Claims: `docs/reference/formats.md`.

use countersign_shared::verify::TOKEN_TYPE;
use countersign_shared::{AgentId, CredentialId, Jti, TenantId, UnixTime};
use serde::Serialize;

use crate::app::App;
use crate::domain::agent::AgentType;
use crate::domain::scope::Scopes;
use crate::keys::SignError;
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
}

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
}

/// A token with its id, not signed yet.
pub struct Unsigned {
    /// Its id.
    pub jti: Jti,
    payload: Vec<u8>,
}

/// Gives the token of `grant` its id and writes its claims.
pub async fn prepare(app: &App, grant: &Grant, now: UnixTime) -> Result<Unsigned, SerialError> {
    let expires = now.plus(grant.lifetime.into());
    let coordinate = app.serials.take(&app.database, expires, now).await?;
    let jti = jti::mint(&app.secrets.jti_tag, coordinate, grant.tenant);
    let payload = Payload {
        iss: app.issuer_url.as_str(),
        sub: grant.agent,
        client_id: grant.agent,
        aud: &grant.audience,
        iat: now.0,
        exp: expires.0,
        jti: jti.to_string(),
        scope: grant.scope.to_string(),
        tenant_id: grant.tenant,
        credential_id: grant.credential,
        agent_type: grant.agent_type.as_str(),
    };
    // Strings and numbers only: that can't fail.
    Ok(Unsigned { jti, payload: serde_json::to_vec(&payload).unwrap_or_default() })
}

impl Unsigned {
    /// Signs it.
    pub async fn sign(self, app: &App) -> Result<String, SignError> {
        app.token_keys.signer.sign(TOKEN_TYPE, self.payload).await
    }
}
