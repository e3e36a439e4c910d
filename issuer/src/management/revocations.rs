//! Taking tokens back: one, or all that an agent, a credential, a tenant or a signing key has obtained so far.

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
        Subject::Key(_) => true,
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
    let (owner, level, id, target) = match subject {
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
            (Some(tenant), Level::Agent, agent.0.as_bytes().to_vec(), (TargetType::Agent, agent.to_string()))
        }
        Subject::Credential(credential) => {
            holder = credentials::holder(transaction, tenant, *credential).await?;
            let agent = holder.ok_or(ManagementError::CredentialNotFound)?;
            let agent = agents::find(transaction, tenant, agent).await?;
            let agent = agent.ok_or(ManagementError::CredentialNotFound)?;
            caller.require_may_grant(&agent.profile.scopes)?;
            let target = (TargetType::Credential, credential.to_string());
            (Some(tenant), Level::Credential, credential.0.as_bytes().to_vec(), target)
        }
        Subject::Tenant(tenant) => {
            if !tenants::exists(transaction, *tenant).await? {
                return Err(ManagementError::TenantNotFound);
            }
            caller.require_may_grant(&Scopes::tenant_administrator())?;
            let target = (TargetType::Tenant, tenant.to_string());
            (Some(*tenant), Level::Tenant, tenant.0.as_bytes().to_vec(), target)
        }
        Subject::Key(kid) => {
            if !signing_keys::signs_tokens(transaction, kid).await? {
                return Err(ManagementError::KeyNotFound);
            }
            (None, Level::Key, kid.as_bytes().to_vec(), (TargetType::Key, kid.clone()))
        }
    };
    // Whoever asks for a token from now on gets one that the rule doesn't touch (tokens/mint.rs).
    let up_to = clock::now();
    not_before::end_tokens(transaction, owner, level, &id, up_to).await?;
    let event = Event::done(tenant, caller.agent(), Action::TokensEnded, origin)
        .on(target.0, &target.1)
        .with(json!({ "issued_up_to": up_to.0 }));
    audit::record_in(transaction, &event).await?;
    if let Some(owner) = owner.filter(|owner| *owner != tenant) {
        // Its administrators see what was done to it.
        audit::record_in(transaction, &Event { tenant: Some(owner), ..event }).await?;
    }
    Ok(Ended::UpTo(up_to, holder))
}
