//! Introspection (RFC 7662): what a token is worth right now.

use countersign_shared::Claims;
use serde_json::{Value, json};

use super::OauthError;
use super::client_auth::{self, Authenticated, Endpoint, Presented};
use crate::app::App;
use crate::domain::audit::Origin;
use crate::domain::scope::TOKENS_INTROSPECT;
use crate::storage::{StorageError, revocations};
use crate::tokens::check::{self, Audience, CheckError};

/// Says what `token` is, to a client that may know. A lost database is an error, never an inactive token.
pub async fn introspect(
    app: &App,
    presented: &Presented,
    token: &str,
    origin: &Origin,
) -> Result<Value, OauthError> {
    let caller = client_auth::authenticate(app, presented, Endpoint::Introspection, origin).await?;
    match check::verify(app, token, Audience::Any).await {
        Ok((verified, _)) if may_know(app, &caller, verified.claims()).await? => {
            Ok(describe(verified.claims()))
        }
        Ok(_) | Err(CheckError::Refused(_) | CheckError::Ended(..)) => Ok(json!({ "active": false })),
        Err(CheckError::Storage(error)) => Err(error.into()),
    }
}

/// An agent may know about its own tokens, a resource server about those that are for it, an administrator about all of its tenant.
async fn may_know(app: &App, caller: &Authenticated, claims: &Claims) -> Result<bool, StorageError> {
    let client = &caller.client;
    if claims.tenant != client.tenant_id {
        return Ok(false);
    }
    if claims.subject == client.agent_id || client.scopes.contains(TOKENS_INTROSPECT) {
        return Ok(true);
    }
    revocations::is_audience(&app.database, client.tenant_id, client.agent_id, &claims.audience).await
}

fn describe(claims: &Claims) -> Value {
    let audience = match claims.audience.as_slice() {
        [one] => json!(one),
        several => json!(several),
    };
    let mut description = json!({
        "active": true,
        "iss": claims.issuer,
        "sub": claims.subject,
        "client_id": claims.client_id,
        "aud": audience,
        "iat": claims.issued_at.0,
        "exp": claims.expires_at.0,
        "jti": claims.jti.to_string(),
        "token_type": "Bearer",
        "tenant_id": claims.tenant,
        "credential_id": claims.credential,
        "agent_type": claims.agent_type,
    });
    // A scope has at least one token (RFC 6749 §3.3): none is said by saying nothing.
    if !claims.scope.is_empty() {
        description["scope"] = json!(claims.scope.join(" "));
    }
    description
}
