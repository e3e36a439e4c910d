//! Revocation (RFC 7009), and by bare jti for who found one in a log.

use countersign_shared::Jti;

use super::OauthError;
use super::client_auth::{self, Authenticated, Endpoint, Presented};
use crate::app::App;
use crate::domain::audit::Origin;
use crate::domain::scope::TOKENS_REVOKE;
use crate::tokens::{check, jti, revoke};

/// What is to be revoked.
#[derive(Debug)]
pub enum Subject {
    /// A token.
    Token(String),
    /// A token, by its id alone.
    Jti(String),
}

/// Revokes it, if the client may; a token that doesn't verify is none, and that is fine (RFC 7009 §2.2). When this returns, the
/// revocation is committed.
pub async fn revoke(
    app: &App,
    presented: &Presented,
    subject: &Subject,
    origin: &Origin,
) -> Result<(), OauthError> {
    let Authenticated { client, .. } =
        client_auth::authenticate(app, presented, Endpoint::Revocation, origin).await?;
    let for_all = client.scopes.contains(TOKENS_REVOKE);
    let jti = match subject {
        Subject::Token(token) => {
            // What we never signed is no token of ours, and neither is another tenant's: whoever asks learns nothing about it.
            let Ok(claims) = check::to_be_revoked(app, token) else { return Ok(()) };
            if claims.tenant != client.tenant_id {
                return Ok(());
            }
            if claims.subject != client.agent_id && !for_all {
                return Err(OauthError::UnauthorizedClient("the token is another agent's"));
            }
            claims.jti
        }
        Subject::Jti(_) if !for_all => {
            return Err(OauthError::UnauthorizedClient("revoking by jti takes the scope tokens:revoke"));
        }
        Subject::Jti(text) => text
            .parse::<Jti>()
            .ok()
            .filter(|jti| jti::is_ours(&app.secrets.jti_tag, *jti, client.tenant_id))
            .ok_or_else(|| OauthError::invalid_request("jti is not that of a token of this tenant"))?,
    };
    revoke::revoke(app, client.tenant_id, Some(client.agent_id), jti, origin).await?;
    Ok(())
}
