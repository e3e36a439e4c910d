//! What is written down of every action.

use std::net::IpAddr;

use countersign_shared::{AgentId, TenantId};
use serde_json::{Value, json};

use super::text_enum;

text_enum! {
    /// What was done, or tried.
    pub enum Action {
        /// The first tenant and administrator were made.
        Bootstrapped = "system.bootstrapped",
        /// An agent was registered.
        AgentCreated = "agent.created",
        /// A credential was made.
        CredentialCreated = "credential.created",
        /// A token was issued.
        TokenIssued = "token.issued",
        /// A token was revoked.
        TokenRevoked = "token.revoked",
        /// A client failed to authenticate at an OAuth endpoint.
        ClientAuthenticationFailed = "client.authentication_failed",
        /// A bearer token didn't authenticate at the management API.
        TokenAuthenticationFailed = "token.authentication_failed",
    }
}

text_enum! {
    /// How it ended.
    pub enum Outcome {
        /// It was done.
        Success = "success",
        /// It wasn't.
        Failure = "failure",
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// By which the log has it too.
    pub request_id: Option<String>,
    /// The peer of the connection.
    pub client_ip: Option<IpAddr>,
    /// `User-Agent`, cut to [`Self::MAX_USER_AGENT_CHARACTERS`].
    pub user_agent: Option<String>,
}

impl Origin {
    /// How much of `User-Agent` is kept.
    pub const MAX_USER_AGENT_CHARACTERS: usize = 256;
}

/// What an action was done to.
#[derive(Debug, Clone, Copy)]
pub enum TargetType {
    /// An agent, by its id.
    Agent,
    /// A credential, by its id.
    Credential,
    /// A token, by its jti.
    Token,
    /// A tenant, by its id.
    Tenant,
}

impl TargetType {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Credential => "credential",
            Self::Token => "token",
            Self::Tenant => "tenant",
        }
    }
}

/// One entry.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// Whose it is; `None` where nobody is concerned that exists.
    pub tenant: Option<TenantId>,
    /// Who did it; `None` for the operator at the command line and for who couldn't say who they are.
    pub actor: Option<AgentId>,
    /// What.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// To what.
    pub target: Option<(TargetType, String)>,
    /// From where.
    pub origin: &'a Origin,
    /// What else is worth knowing: never a secret, never a token.
    pub details: Value,
}

impl<'a> Event<'a> {
    /// Something that was done by `actor`.
    pub fn done(tenant: TenantId, actor: AgentId, action: Action, origin: &'a Origin) -> Self {
        let (tenant, actor) = (Some(tenant), Some(actor));
        Self { tenant, actor, action, outcome: Outcome::Success, target: None, origin, details: json!({}) }
    }

    /// Something that was tried, and why it failed.
    pub fn failed(action: Action, reason: &str, origin: &'a Origin) -> Self {
        let details = json!({ "reason": reason });
        Self { tenant: None, actor: None, action, outcome: Outcome::Failure, target: None, origin, details }
    }

    /// To what.
    #[must_use]
    pub fn on(mut self, target: TargetType, id: &impl ToString) -> Self {
        self.target = Some((target, id.to_string()));
        self
    }

    /// What else.
    #[must_use]
    pub fn with(mut self, details: Value) -> Self {
        self.details = details;
        self
    }
}
