//! Agents: who tokens are issued to.

use std::collections::BTreeMap;

use countersign_shared::{AgentId, TenantId};
use time::OffsetDateTime;

use super::scope::Scopes;
use super::text_enum;
use super::transition::{Final, Transition};

text_enum! {
    /// What an agent does.
    pub enum AgentType {
        /// Screens input.
        Screener = "screener",
        /// Puts things into classes.
        Classifier = "classifier",
        /// Directs other agents.
        Orchestrator = "orchestrator",
        /// Takes data out of documents.
        Extractor = "extractor",
        /// Shortens.
        Summarizer = "summarizer",
        /// Sends requests where they belong.
        Router = "router",
        /// Watches.
        Monitor = "monitor",
        /// Anything else.
        Custom = "custom",
    }
}

text_enum! {
    /// Where an agent runs.
    pub enum DeploymentEnv {
        /// On a developer's machine.
        Development = "development",
        /// Where releases are tried.
        Staging = "staging",
        /// Where it counts.
        Production = "production",
    }
}

text_enum! {
    /// Whether an agent may do anything.
    pub enum AgentStatus {
        /// It may.
        Active = "active",
        /// Not for now.
        Suspended = "suspended",
        /// Never again.
        Decommissioned = "decommissioned",
    }
}

impl AgentStatus {
    /// What becomes of an agent in this status.
    pub const fn after(self, transition: Transition) -> Result<Self, Final> {
        match (self, transition) {
            (_, Transition::Decommission) => Ok(Self::Decommissioned),
            (Self::Decommissioned, _) => Err(Final),
            (_, Transition::Suspend) => Ok(Self::Suspended),
            (_, Transition::Reactivate) => Ok(Self::Active),
        }
    }
}

/// What an agent is registered with; checked when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAgent {
    /// Unique in the tenant, whatever the case of its letters.
    pub email: String,
    /// What it does.
    pub agent_type: AgentType,
    /// Its own version.
    pub version: String,
    /// What it says it can do.
    pub capabilities: Vec<String>,
    /// Who answers for it.
    pub owner: String,
    /// Where it runs.
    pub deployment_env: DeploymentEnv,
    /// What it may ask for in tokens.
    pub scopes: Scopes,
    /// Anything else.
    pub metadata: BTreeMap<String, String>,
}

/// What is to be different about an agent (RFC 7396): what is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct AgentPatch {
    /// See [`NewAgent`].
    pub email: Option<String>,
    /// See [`NewAgent`].
    pub agent_type: Option<AgentType>,
    /// See [`NewAgent`].
    pub version: Option<String>,
    /// All of them anew.
    pub capabilities: Option<Vec<String>>,
    /// See [`NewAgent`].
    pub owner: Option<String>,
    /// See [`NewAgent`].
    pub deployment_env: Option<DeploymentEnv>,
    /// All of them anew.
    pub scopes: Option<Scopes>,
    /// What becomes of the metadata.
    pub metadata: Option<MetadataPatch>,
}

/// What is to be different about an agent's metadata.
#[derive(Debug, Clone)]
pub enum MetadataPatch {
    /// There is none any more.
    Clear,
    /// These members get new values, or go where there is none.
    Merge(BTreeMap<String, Option<String>>),
}

/// An agent's metadata would have more than [`MAX_METADATA`] members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuchMetadata;

impl AgentPatch {
    /// `profile` with what is to be different.
    pub fn apply(&self, profile: &NewAgent) -> Result<NewAgent, TooMuchMetadata> {
        let mut metadata = profile.metadata.clone();
        match &self.metadata {
            None => {}
            Some(MetadataPatch::Clear) => metadata.clear(),
            Some(MetadataPatch::Merge(members)) => {
                for (name, value) in members {
                    match value {
                        Some(value) => _ = metadata.insert(name.clone(), value.clone()),
                        None => _ = metadata.remove(name),
                    }
                }
            }
        }
        if metadata.len() > MAX_METADATA {
            return Err(TooMuchMetadata);
        }
        Ok(NewAgent {
            email: self.email.as_ref().unwrap_or(&profile.email).clone(),
            agent_type: self.agent_type.unwrap_or(profile.agent_type),
            version: self.version.as_ref().unwrap_or(&profile.version).clone(),
            capabilities: self.capabilities.as_ref().unwrap_or(&profile.capabilities).clone(),
            owner: self.owner.as_ref().unwrap_or(&profile.owner).clone(),
            deployment_env: self.deployment_env.unwrap_or(profile.deployment_env),
            scopes: self.scopes.as_ref().unwrap_or(&profile.scopes).clone(),
            metadata,
        })
    }
}

impl NewAgent {
    /// The names of the fields in which `other` differs.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let fields = [
            ("email", self.email != other.email),
            ("agent_type", self.agent_type != other.agent_type),
            ("version", self.version != other.version),
            ("capabilities", self.capabilities != other.capabilities),
            ("owner", self.owner != other.owner),
            ("deployment_env", self.deployment_env != other.deployment_env),
            ("scopes", self.scopes != other.scopes),
            ("metadata", self.metadata != other.metadata),
        ];
        fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

/// Which agents are asked for: those that are as each of these says.
#[derive(Debug, Clone, Default)]
pub struct AgentFilter {
    /// Whatever the case of its letters.
    pub email: Option<String>,
    /// What they do.
    pub agent_type: Option<AgentType>,
    /// Where they run.
    pub deployment_env: Option<DeploymentEnv>,
    /// Whether they may do anything.
    pub status: Option<AgentStatus>,
    /// Who answers for them.
    pub owner: Option<String>,
}

/// A registered agent.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Also its OAuth `client_id`.
    pub agent_id: AgentId,
    /// Who owns it.
    pub tenant_id: TenantId,
    /// What it was registered with.
    pub profile: NewAgent,
    /// Whether it may do anything.
    pub status: AgentStatus,
    /// When it was registered.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
    /// Counts its changes.
    pub revision: i64,
}

/// The longest email address, in characters (RFC 5321 §4.5.3.1.3, less the brackets).
pub const MAX_EMAIL_CHARACTERS: usize = 254;

/// The most members that an agent's metadata has.
pub const MAX_METADATA: usize = 32;

/// Whether `text` could be an email address: one `@` with something on either side, no white space, no control characters. Whether
/// it is anyone's only a message to it would show.
pub fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    !local.is_empty()
        && !domain.is_empty()
        && !domain.contains('@')
        && text.chars().count() <= MAX_EMAIL_CHARACTERS
        && !text.chars().any(|character| character.is_control() || character.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decommissioned_is_final_and_all_else_can_be_undone() {
        use AgentStatus::{Active, Decommissioned, Suspended};
        use Transition::{Decommission, Reactivate, Suspend};
        for (from, transition, to) in [
            (Active, Suspend, Ok(Suspended)),
            (Active, Reactivate, Ok(Active)),
            (Active, Decommission, Ok(Decommissioned)),
            (Suspended, Suspend, Ok(Suspended)),
            (Suspended, Reactivate, Ok(Active)),
            (Suspended, Decommission, Ok(Decommissioned)),
            (Decommissioned, Suspend, Err(Final)),
            (Decommissioned, Reactivate, Err(Final)),
            (Decommissioned, Decommission, Ok(Decommissioned)),
        ] {
            assert_eq!(from.after(transition), to, "{from:?} {transition:?}");
        }
    }

    #[test]
    fn emails() {
        for text in ["a@b", "first.last+tag@example.com", "agent@müller.example"] {
            assert!(is_email(text), "{text}");
        }
        let long = format!("{}@example.com", "a".repeat(254));
        for text in ["", "a", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\0", &long] {
            assert!(!is_email(text), "{text:?}");
        }
    }
}
