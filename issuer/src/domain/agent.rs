//! Agents: who tokens are issued to.

use std::collections::BTreeMap;

use countersign_shared::{AgentId, TenantId};
use time::OffsetDateTime;

use super::scope::Scopes;
use super::text_enum;

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

/// What an agent is registered with; checked when it was read.
#[derive(Debug, Clone)]
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
}

/// The longest email address, in characters (RFC 5321 §4.5.3.1.3, less the brackets).
pub const MAX_EMAIL_CHARACTERS: usize = 254;

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
