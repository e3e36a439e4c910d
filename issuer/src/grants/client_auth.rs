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
use crate::failures::Concerns;
use crate::storage::credentials::{Client, find_client};

/// What a client says about itself, as it came.
#[derive(Debug)]
pub struct Presented {
    /// Its id.
    pub client_id: String,
    /// Its secret.
    pub secret: Secret,
}

impl Presented {
    /// From a header that can't be read.
    pub fn unreadable() -> Self {
        Self { client_id: String::new(), secret: Secret::new(String::new()) }
    }
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
    let failed = async |reason: &str, concerns: Concerns, agent: Option<AgentId>| {
        let event = Event::failed(Action::ClientAuthenticationFailed, reason, origin);
        let event = match agent {
            Some(agent) => event.on(TargetType::Agent, &agent),
            None => event,
        };
        match app.failures.record(&app.database, concerns, event).await {
            Ok(()) => OauthError::InvalidClient,
            Err(error) => error.into(), // what can't be written down isn't answered
        }
    };

    let Ok(agent) = presented.client_id.parse::<AgentId>() else {
        return Err(failed("malformed client_id", Concerns::Nobody, None).await);
    };
    let Ok(secret) = ClientSecret::parse(presented.secret.expose()) else {
        return Err(failed("malformed client_secret", Concerns::Nobody, Some(agent)).await);
    };
    let hash = secret.hash(&app.secrets.pepper);
    let client = find_client(&app.database, agent, resource, clock::timestamp(clock::now())).await?;
    let Some(client) = client else {
        return Err(failed("unknown client", Concerns::Nobody, Some(agent)).await);
    };
    // Every hash is looked at, so that the time doesn't tell which one it was.
    let matches = client.credentials.iter().fold(None, |found, (credential, stored)| {
        let equal = verify_slices_are_equal(stored, hash.as_ref()).is_ok();
        if equal { Some(*credential) } else { found }
    });
    let Some(credential) = matches else {
        return Err(failed("wrong, expired or revoked secret", Concerns::Known, Some(agent)).await);
    };
    match (client.status, client.tenant_status) {
        (AgentStatus::Active, TenantStatus::Active) => Ok(Authenticated { client, credential }),
        (AgentStatus::Active, TenantStatus::Suspended) => {
            Err(failed("tenant suspended", Concerns::Known, Some(agent)).await)
        }
        (AgentStatus::Suspended | AgentStatus::Decommissioned, _) => {
            Err(failed("agent not active", Concerns::Known, Some(agent)).await)
        }
    }
}
