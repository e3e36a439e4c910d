//! Taking tokens back: one, or all that an agent, a credential, a tenant or a signing key has obtained so far, or all there are.

use countersign_shared::revocation::Level;
use countersign_shared::{AgentId, CredentialId, Jti, TenantId, UnixTime};
use serde_json::json;

use super::ManagementError;
use super::caller::Caller;
use crate::clock;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::scope::{Scopes, TENANTS_WRITE, TOKENS_REVOKE};
use crate::keys::ServerSecrets;
use crate::storage::{Database, Transaction, agents, audit, credentials, not_before, signing_keys, tenants};
use crate::tokens::{jti, revoke};

/// Whose tokens are taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One token, by its id.
    Token(Jti),
    /// All of an agent.
    Agent(AgentId),
    /// All that were obtained with a credential.
    Credential(CredentialId),
    /// All of a tenant.
    Tenant(TenantId),
    /// All that were signed with a key, by its kid: every tenant's.
    Key(String),
    /// All there are, of every tenant.
    Everything {
        /// Why, for the audit log.
        reason: String,
    },
}

impl Subject {
    /// The rule's level and subject (docs/reference/formats.md); `None`: it is one token.
    pub fn rule(&self) -> Option<(Level, Vec<u8>)> {
        match self {
            Self::Token(_) => None,
            Self::Agent(AgentId(id)) => Some((Level::Agent, id.as_bytes().to_vec())),
            Self::Credential(CredentialId(id)) => Some((Level::Credential, id.as_bytes().to_vec())),
            Self::Tenant(TenantId(id)) => Some((Level::Tenant, id.as_bytes().to_vec())),
            Self::Key(kid) => Some((Level::Key, kid.as_bytes().to_vec())),
            Self::Everything { .. } => Some((Level::Global, Vec::new())),
        }
    }
}

/// What was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The one token.
    Token(Jti),
    /// Every token with `iat` up to this, of this agent where they are one agent's.
    UpTo(UnixTime, Option<AgentId>),
}

/// Whether the caller may, and a transaction that reaches as far as that takes: what concerns other tenants is the platform's.
pub async fn begin(
    database: &Database,
    caller: &Caller,
    subject: &Subject,
) -> Result<Transaction, ManagementError> {
    caller.require(TOKENS_REVOKE)?;
    let beyond = match subject {
        Subject::Token(_) | Subject::Agent(_) | Subject::Credential(_) => false,
        Subject::Tenant(tenant) => *tenant != caller.tenant(),
        Subject::Key(_) | Subject::Everything { .. } => true,
    };
    if !beyond {
        return Ok(database.begin_as(caller.tenant()).await?);
    }
    caller.require(TENANTS_WRITE)?;
    Ok(database.begin_installation().await?)
}

/// Takes the tokens of `subject` back, in a transaction of [`begin`]. Doing it again changes nothing for a token, and for the others ends what
/// was issued since.
pub async fn revoke(
    transaction: &mut Transaction,
    secrets: &ServerSecrets,
    caller: &Caller,
    subject: &Subject,
    origin: &Origin,
) -> Result<Ended, ManagementError> {
    let tenant = caller.tenant();
    let mut holder = None;
    let (owner, target) = match subject {
        Subject::Token(jti) => {
            if !jti::is_ours(&secrets.jti_tag, *jti, tenant) {
                return Err(ManagementError::TokenNotFound);
            }
            revoke::revoke_in(transaction, tenant, caller.agent(), *jti, origin).await?;
            return Ok(Ended::Token(*jti));
        }
        Subject::Agent(agent) => {
            let found = agents::find(transaction, tenant, *agent).await?;
            let found = found.ok_or(ManagementError::AgentNotFound)?;
            // As with every change to an agent: who may less can't shut it out.
            caller.require_may_grant(&found.profile.scopes)?;
            holder = Some(*agent);
            (Some(tenant), Some((TargetType::Agent, agent.to_string())))
        }
        Subject::Credential(credential) => {
            holder = credentials::holder(transaction, tenant, *credential).await?;
            let agent = holder.ok_or(ManagementError::CredentialNotFound)?;
            let agent = agents::find(transaction, tenant, agent).await?;
            let agent = agent.ok_or(ManagementError::CredentialNotFound)?;
            caller.require_may_grant(&agent.profile.scopes)?;
            (Some(tenant), Some((TargetType::Credential, credential.to_string())))
        }
        Subject::Tenant(tenant) => {
            if !tenants::exists(transaction, *tenant).await? {
                return Err(ManagementError::TenantNotFound);
            }
            caller.require_may_grant(&Scopes::tenant_administrator())?;
            (Some(*tenant), Some((TargetType::Tenant, tenant.to_string())))
        }
        Subject::Key(kid) => {
            if !signing_keys::signs_tokens(transaction, kid).await? {
                return Err(ManagementError::KeyNotFound);
            }
            (None, Some((TargetType::Key, kid.clone())))
        }
        Subject::Everything { .. } => (None, None),
    };
    let Some((level, id)) = subject.rule() else { return Err(ManagementError::TokenNotFound) };
    // Whoever asks for a token from now on gets one that the rule doesn't touch (tokens/mint.rs).
    let up_to = clock::now();
    not_before::end_tokens(transaction, owner, level, &id, up_to).await?;
    let mut details = json!({ "issued_up_to": up_to.0 });
    if let Subject::Everything { reason } = subject {
        details["everything"] = true.into();
        details["reason"] = reason.as_str().into();
    }
    let mut event = Event::done(tenant, caller.agent(), Action::TokensEnded, origin).with(details);
    if let Some((target, id)) = &target {
        event = event.on(*target, id);
    }
    audit::record_in(transaction, &event).await?;
    if let Some(owner) = owner.filter(|owner| *owner != tenant) {
        // Its administrators see what was done to it.
        audit::record_in(transaction, &Event { tenant: Some(owner), ..event }).await?;
    }
    Ok(Ended::UpTo(up_to, holder))
}
