//! The client credentials grant (RFC 6749 §4.4): authenticate, decide audience, scope and life, mint, sign.

use serde::Serialize;
use serde_json::json;
use tracing::Instrument as _;
use utoipa::ToSchema;

use super::OauthError;
use super::client_auth::{self, Authenticated, Endpoint, Presented};
use crate::app::App;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::redaction::redacted;
use crate::domain::scope::Scopes;
use crate::domain::tenant::ResourceServer;
use crate::failures::Concerns;
use crate::limits::Limited;
use crate::storage::clients::Client;
use crate::storage::status_lists::Listed;
use crate::tokens::mint::{self, Grant};
use crate::traces::step;

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
#[derive(Serialize, ToSchema)]
pub struct Issued {
    access_token: String,
    token_type: &'static str,
    expires_in: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
}

/// Issues a token to who presents a client's credentials. With its records in memory the database is asked for one thing: to take the audit row, which
/// it shares with whoever else is issued a token at that moment.
///
/// What seldom happens on the way (a look into the database, a refusal) is in boxes of its own, here and in what is called: else every request would carry
/// room for it, of some kilobytes, through each of the layers around it.
pub async fn issue(
    app: &App,
    presented: &Presented,
    request: Request,
    origin: &Origin,
) -> Result<Issued, OauthError> {
    let mut authenticated = client_auth::authenticate(app, presented, Endpoint::Token, origin).await?;
    if mint::wait_out(authenticated.not_before, authenticated.at).await? {
        authenticated = Box::pin(client_auth::look_again(app, &authenticated, origin)).await?;
    }
    let issued = issue_to(app, &authenticated, &request, origin).await;
    if let Err(error) = &issued
        && let Some(code) = refusal(error)
    {
        // Its administrators want to know who asks for what it may not have; but not what was a secret in the wrong place.
        let scope = request.scope.as_ref().map(Scopes::to_string);
        let asked = json!({ "resource": request.resource.as_deref().map(redacted), "scope": scope.as_deref().map(redacted) });
        let event = Event::failed(Action::TokenRefused, code, origin)
            .with(json!({ "reason": code, "asked": asked, "credential_id": authenticated.credential }));
        let Client { agent_id, tenant_id, .. } = *authenticated.client;
        let event = Event { tenant: Some(tenant_id), actor: Some(agent_id), ..event };
        Box::pin(app.failures.record(&app.audit, Concerns::Known, event)).await?;
    }
    issued
}

/// The code of what an authenticated client was refused; `None` where nothing was decided, or too much asked at a time.
const fn refusal(error: &OauthError) -> Option<&'static str> {
    match error {
        OauthError::InvalidRequest(_) => Some("invalid_request"),
        OauthError::InvalidScope(_) => Some("invalid_scope"),
        OauthError::InvalidTarget(_) => Some("invalid_target"),
        OauthError::Limited(Limited::Quota(_)) => Some("quota_used_up"),
        OauthError::Limited(Limited::Rate(_) | Limited::LockedOut(_))
        | OauthError::InvalidClient
        | OauthError::UnauthorizedClient(_)
        | OauthError::UnsupportedGrantType
        | OauthError::Unavailable(_)
        | OauthError::Server(_) => None,
    }
}

async fn issue_to(
    app: &App,
    authenticated: &Authenticated,
    request: &Request,
    origin: &Origin,
) -> Result<Issued, OauthError> {
    let (tenant, resource) = (authenticated.client.tenant_id, request.resource.as_deref());
    let resource_server = app.clients.resource_server(&app.database, tenant, resource).await?;
    let grant = decide(app, authenticated, resource_server.as_deref(), request)?;
    let now = authenticated.at;
    // A token that isn't issued in the end goes back to the quota.
    let taking = app.limits.take_token(&app.database, grant.tenant, authenticated.tenant.quota(), now);
    let unit = taking.instrument(step!("limits")).await?;
    let unsigned = mint::prepare(app, &grant, now).instrument(step!("claims")).await?;

    let event = Event::done(grant.tenant, grant.agent, Action::TokenIssued, origin)
        .on(TargetType::Token, &unsigned.jti)
        .with(json!({
            "audience": grant.audience,
            "scope": grant.scope.to_string(),
            "expires_in": grant.lifetime,
            "credential_id": grant.credential,
        }));
    // Signing takes about as long as the write, so they share the time. Nothing is handed out before both are done.
    let algorithm = resource_server.as_ref().and_then(|server| server.signing_algorithm);
    let key = app.keys.token_signer(algorithm).await?;
    let listed = grant.status_list.then(|| Listed {
        coordinate: unsigned.jti.coordinate(),
        tenant: grant.tenant,
        agent: grant.agent,
        credential: grant.credential,
        kid: key.key().kid().to_owned(),
        issued_at: unsigned.issued_at,
    });
    let signed = async { unsigned.sign(&key).await.map_err(OauthError::from) };
    let recorded = async { app.audit.record_token(&event, listed).await.map_err(OauthError::from) };
    let (signed, recorded) =
        (signed.instrument(step!("signing")), recorded.instrument(step!("audit hand-over")));
    let (access_token, ()) = tokio::try_join!(signed, recorded)?;
    app.limits.issued(unit, grant.agent, now);

    let scope = grant.scope.to_string();
    Ok(Issued { access_token, token_type: "Bearer", expires_in: grant.lifetime, scope })
}

fn decide(
    app: &App,
    authenticated: &Authenticated,
    resource_server: Option<&ResourceServer>,
    request: &Request,
) -> Result<Grant, OauthError> {
    let client = &authenticated.client;
    let (audience, longest, applicable) =
        audience(app, client, resource_server, request.resource.as_deref())?;
    let status_list =
        resource_server.is_some_and(|server| server.status_list && server.identifier == audience);

    let scope = match &request.scope {
        None => applicable,
        Some(wanted) => {
            let refused = wanted.beyond(&applicable);
            if !refused.is_empty() {
                return Err(OauthError::InvalidScope(format!(
                    "not allowed for this agent at {audience}: {refused}"
                )));
            }
            wanted.clone()
        }
    };
    let lifetime = request.expires_in.unwrap_or(longest);
    if !(1..=longest).contains(&lifetime) {
        return Err(OauthError::InvalidRequest(format!("expires_in must be 1 to {longest} seconds here")));
    }
    Ok(Grant {
        agent: client.agent_id,
        tenant: client.tenant_id,
        credential: authenticated.credential,
        agent_type: client.agent_type,
        audience,
        scope,
        lifetime,
        not_before: authenticated.not_before,
        status_list,
    })
}

/// For whom the token is, how long it may live, and which of the agent's scopes apply there.
fn audience(
    app: &App,
    client: &Client,
    resource_server: Option<&ResourceServer>,
    resource: Option<&str>,
) -> Result<(String, u32, Scopes), OauthError> {
    if let Some(resource) = resource
        && resource == app.issuer_url.as_str()
    {
        return Ok((resource.to_owned(), app.token_lifetime, client.scopes.for_issuer()));
    }
    match (resource_server, resource) {
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
