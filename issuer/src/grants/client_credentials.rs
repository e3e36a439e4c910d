//! The client credentials grant (RFC 6749 §4.4): authenticate, decide audience, scope and life, mint, sign.

use serde::Serialize;
use serde_json::json;

use super::OauthError;
use super::client_auth::{self, Authenticated, Presented};
use crate::app::App;
use crate::clock;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::scope::Scopes;
use crate::storage::audit;
use crate::storage::credentials::Client;
use crate::tokens::mint::{self, Grant};

/// What a client asks for.
#[derive(Debug, Default)]
pub struct Request {
    /// The API it wants to call (RFC 8707); the tenant's default without it.
    pub resource: Option<String>,
    /// What it wants to do there; all it may without it.
    pub scope: Option<Scopes>,
    /// A shorter life than usual, in seconds.
    pub expires_in: Option<u32>,
}

/// A successful answer (RFC 6749 §5.1).
#[derive(Serialize)]
pub struct Issued {
    access_token: String,
    token_type: &'static str,
    expires_in: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
}

/// Issues a token to who presents a client's credentials. Two round trips to the database: the client, the audit row.
pub async fn issue(
    app: &App,
    presented: &Presented,
    request: Request,
    origin: &Origin,
) -> Result<Issued, OauthError> {
    let authenticated =
        client_auth::authenticate(app, presented, request.resource.as_deref(), origin).await?;
    let grant = decide(app, authenticated, request)?;
    let unsigned = mint::prepare(app, &grant, clock::now()).await?;

    let event = Event::done(grant.tenant, grant.agent, Action::TokenIssued, origin)
        .on(TargetType::Token, &unsigned.jti)
        .with(json!({
            "audience": grant.audience,
            "scope": grant.scope.to_string(),
            "expires_in": grant.lifetime,
            "credential_id": grant.credential,
        }));
    // Signing takes as long as the insert, so they share the time. Nothing is handed out before both are done.
    let signed = async { unsigned.sign(app).await.map_err(OauthError::from) };
    let recorded = async { audit::record(&app.database, &event).await.map_err(OauthError::from) };
    let (access_token, ()) = tokio::try_join!(signed, recorded)?;

    let scope = grant.scope.to_string();
    Ok(Issued { access_token, token_type: "Bearer", expires_in: grant.lifetime, scope })
}

fn decide(app: &App, authenticated: Authenticated, request: Request) -> Result<Grant, OauthError> {
    let Authenticated { client, credential } = authenticated;
    let (audience, longest, applicable) = audience(app, &client, request.resource)?;

    let scope = match request.scope {
        None => applicable,
        Some(wanted) => {
            let refused = wanted.beyond(&applicable);
            if !refused.is_empty() {
                return Err(OauthError::InvalidScope(format!(
                    "not allowed for this agent at {audience}: {refused}"
                )));
            }
            wanted
        }
    };
    let lifetime = request.expires_in.unwrap_or(longest);
    if !(1..=longest).contains(&lifetime) {
        return Err(OauthError::InvalidRequest(format!("expires_in must be 1 to {longest} seconds here")));
    }
    let Client { agent_id: agent, tenant_id: tenant, agent_type, .. } = client;
    Ok(Grant { agent, tenant, credential, agent_type, audience, scope, lifetime })
}

/// For whom the token is, how long it may live, and which of the agent's scopes apply there.
fn audience(
    app: &App,
    client: &Client,
    resource: Option<String>,
) -> Result<(String, u32, Scopes), OauthError> {
    if let Some(resource) = &resource
        && resource == app.issuer_url.as_str()
    {
        return Ok((resource.clone(), app.token_lifetime, client.scopes.for_issuer()));
    }
    match (&client.resource_server, resource) {
        // A resource server registered under the issuer's own identifier (say, before ISSUER_URL was changed) gets no tokens by
        // default either.
        (Some(server), _) if server.identifier != app.issuer_url.as_str() => {
            let lifetime = server.token_lifetime.unwrap_or(app.token_lifetime);
            Ok((server.identifier.clone(), lifetime, client.scopes.for_others()))
        }
        (_, Some(_)) => Err(OauthError::InvalidTarget("the tenant has no such resource server".into())),
        (_, None) => Err(OauthError::InvalidTarget(
            "the tenant has no default resource server: name one by `resource`".into(),
        )),
    }
}
