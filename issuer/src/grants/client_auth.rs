//! Client authentication with a secret (RFC 6749 §2.3.1).
//!
//! A client that doesn't exist, one that is suspended and a wrong secret are one and the same to the caller: the same answer after the same
//! work, one query and one audit row.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use countersign_shared::{AgentId, CredentialId};

use super::OauthError;
use crate::app::App;
use crate::clock;
use crate::config::Secret;
use crate::domain::agent::AgentStatus;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::client_secret::ClientSecret;
use crate::domain::tenant::TenantStatus;
use crate::storage::audit;
use crate::storage::credentials::{Client, find_client};

/// How a client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
}

/// What a client says about itself.
#[derive(Debug)]
pub struct Presented {
    /// How.
    pub method: Method,
    /// As it came.
    pub client_id: String,
    /// As it came.
    pub secret: Secret,
}

/// A client that has proved who it is, and with which of its credentials.
pub struct Authenticated {
    /// The client.
    pub client: Client,
    /// The credential whose secret it knows.
    pub credential: CredentialId,
}

/// Finds the client and checks its secret. `resource` is looked up on the way, for the token request that may follow.
pub async fn authenticate(
    app: &App,
    presented: &Presented,
    resource: Option<&str>,
    origin: &Origin,
) -> Result<Authenticated, OauthError> {
    let failed = async |reason: &str, agent: Option<AgentId>| {
        let event = Event::failed(Action::ClientAuthenticationFailed, reason, origin);
        let event = match agent {
            Some(agent) => event.on(TargetType::Agent, &agent),
            None => event,
        };
        match audit::record(&app.database, &event).await {
            Ok(()) => OauthError::InvalidClient,
            Err(error) => error.into(), // what can't be written down isn't answered
        }
    };

    let Ok(agent) = presented.client_id.parse::<AgentId>() else {
        return Err(failed("malformed client_id", None).await);
    };
    let Ok(secret) = ClientSecret::parse(presented.secret.expose()) else {
        return Err(failed("malformed client_secret", Some(agent)).await);
    };
    let hash = secret.hash(&app.secrets.pepper);
    let client = find_client(&app.database, agent, resource, clock::timestamp(clock::now())).await?;
    let Some(client) = client else {
        return Err(failed("unknown client", Some(agent)).await);
    };
    // Every hash is looked at, so that the time doesn't tell which one it was.
    let matches = client.credentials.iter().fold(None, |found, (credential, stored)| {
        let equal = verify_slices_are_equal(stored, hash.as_ref()).is_ok();
        if equal { Some(*credential) } else { found }
    });
    let Some(credential) = matches else {
        return Err(failed("wrong, expired or revoked secret", Some(agent)).await);
    };
    match (client.status, client.tenant_status) {
        (AgentStatus::Active, TenantStatus::Active) => Ok(Authenticated { client, credential }),
        (AgentStatus::Active, TenantStatus::Suspended) => Err(failed("tenant suspended", Some(agent)).await),
        (AgentStatus::Suspended | AgentStatus::Decommissioned, _) => {
            Err(failed("agent not active", Some(agent)).await)
        }
    }
}
