//! What is written down of every action.

use std::net::IpAddr;

use countersign_shared::{AgentId, TenantId};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::text_enum;

text_enum! {
    /// What was done, or tried.
    pub enum Action {
        /// The first tenant and administrator were made.
        Bootstrapped = "system.bootstrapped",
        /// The database was restored from a backup, and made fit for use.
        Recovered = "system.recovered",
        /// Maintenance began, or became another: in one process or everywhere.
        MaintenanceBegun = "maintenance.begun",
        /// It ended.
        MaintenanceEnded = "maintenance.ended",
        /// A tenant was made.
        TenantCreated = "tenant.created",
        /// Its name, plan or limits were changed.
        TenantUpdated = "tenant.updated",
        /// It may do nothing for now, and its tokens ended.
        TenantSuspended = "tenant.suspended",
        /// It may act again.
        TenantReactivated = "tenant.reactivated",
        /// It was ended for good.
        TenantDecommissioned = "tenant.decommissioned",
        /// A resource server was registered.
        ResourceServerCreated = "resource_server.created",
        /// It was changed.
        ResourceServerUpdated = "resource_server.updated",
        /// It was deleted.
        ResourceServerDeleted = "resource_server.deleted",
        /// The operator gave an identifier up for any tenant to register.
        IdentifierReleased = "resource_server.identifier_released",
        /// An agent was registered.
        AgentCreated = "agent.created",
        /// An agent was changed.
        AgentUpdated = "agent.updated",
        /// An agent was suspended.
        AgentSuspended = "agent.suspended",
        /// A suspended agent may act again.
        AgentReactivated = "agent.reactivated",
        /// An agent was decommissioned.
        AgentDecommissioned = "agent.decommissioned",
        /// A credential was made.
        CredentialCreated = "credential.created",
        /// A credential was changed.
        CredentialUpdated = "credential.updated",
        /// A credential got a new secret or key.
        CredentialRotated = "credential.rotated",
        /// A credential was revoked.
        CredentialRevoked = "credential.revoked",
        /// A token was issued.
        TokenIssued = "token.issued",
        /// An authenticated client asked for a token that it may not have.
        TokenRefused = "token.refused",
        /// A token was revoked.
        TokenRevoked = "token.revoked",
        /// Every token of the target issued up to an instant was revoked.
        TokensEnded = "tokens.ended",
        /// What is sealed at rest was put under another master key.
        MasterKeyReplaced = "master_key.replaced",
        /// A signing key was made, and is published from then on.
        KeyGenerated = "key.generated",
        /// A key of a system that is being replaced was taken in.
        KeyImported = "key.imported",
        /// It was decided from when on a signing key signs.
        KeyScheduled = "key.scheduled",
        /// A signing key signs now.
        KeyActivated = "key.activated",
        /// It signs no more, and is verified with for as long as anything it signed lives.
        KeyRetiring = "key.retiring",
        /// It is of the past.
        KeyRetired = "key.retired",
        /// It was revoked: nothing that it signed holds.
        KeyRevoked = "key.revoked",
        /// The tenant's audit log was exported.
        AuditExported = "audit.exported",
        /// The oldest part of the audit log was dropped: its time was over.
        AuditPruned = "audit.pruned",
        /// An agent was refused something at the management API: it may not, or what it would have changed isn't there or not in a state for it.
        ManagementRefused = "management.refused",
        /// A client failed to authenticate at an OAuth endpoint.
        ClientAuthenticationFailed = "client.authentication_failed",
        /// A client was locked out where it failed to authenticate too often.
        ClientLockedOut = "client.locked_out",
        /// An operator or administrator ended a client's lockouts.
        ClientUnlocked = "client.unlocked",
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
    /// The peer of the connection or, behind trusted proxies, whom the outermost of them was called by.
    pub client_ip: Option<IpAddr>,
    /// `User-Agent`, cut to [`Self::MAX_USER_AGENT_CHARACTERS`].
    pub user_agent: Option<String>,
}

impl Origin {
    /// How much of `User-Agent` is kept.
    pub const MAX_USER_AGENT_CHARACTERS: usize = 256;
}

text_enum! {
    /// What an action was done to.
    pub enum TargetType {
        /// An agent, by its id.
        Agent = "agent",
        /// A credential, by its id.
        Credential = "credential",
        /// A token, by its jti.
        Token = "token",
        /// A tenant, by its id.
        Tenant = "tenant",
        /// A resource server, by its id.
        ResourceServer = "resource_server",
        /// A signing key, by its kid.
        Key = "key",
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
    /// Something that was done by `actor`; `None`: by the operator at the command line.
    pub fn done(
        tenant: TenantId,
        actor: impl Into<Option<AgentId>>,
        action: Action,
        origin: &'a Origin,
    ) -> Self {
        let (tenant, actor) = (Some(tenant), actor.into());
        Self { tenant, actor, action, outcome: Outcome::Success, target: None, origin, details: json!({}) }
    }

    /// Something that the installation did by itself, or the operator to all of it.
    pub fn of_installation(action: Action, origin: &'a Origin) -> Self {
        Self {
            tenant: None,
            actor: None,
            action,
            outcome: Outcome::Success,
            target: None,
            origin,
            details: json!({}),
        }
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

/// The tenant of events that concern none: the installation's chain is under this id.
pub const INSTALLATION: Uuid = Uuid::nil();

/// A SHA-256.
pub type Hash = [u8; 32];

/// An event as it is kept. Words are text here: a later release may have written some that this one doesn't know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// See [`event_id`].
    pub event_id: Uuid,
    /// When, in whole microseconds.
    pub occurred_at: OffsetDateTime,
    /// Whose it is; [`INSTALLATION`] where no tenant is concerned.
    pub tenant_id: Uuid,
    /// Who did it.
    pub actor: Option<Uuid>,
    /// What.
    pub action: String,
    /// How it ended.
    pub outcome: String,
    /// To what kind of thing.
    pub target_type: Option<String>,
    /// To which one.
    pub target_id: Option<String>,
    /// In which request.
    pub request_id: Option<String>,
    /// From which address.
    pub client_ip: Option<String>,
    /// By which program.
    pub user_agent: Option<String>,
    /// What else: a JSON object.
    pub details: String,
}

/// An event in its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The event.
    pub entry: Entry,
    /// Its place in its tenant's chain, from 1 on, without gaps.
    pub seq: i64,
    /// When it got there, in whole microseconds.
    pub recorded_at: OffsetDateTime,
    /// Over it and the hash before it (`docs/reference/formats.md`).
    pub hash: Hash,
}

/// Which events of a tenant are asked for; what is `None` is not asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// `occurred_at` is not before this.
    pub from: Option<OffsetDateTime>,
    /// `occurred_at` is before this.
    pub to: Option<OffsetDateTime>,
    /// Who did it.
    pub actor: Option<AgentId>,
    /// What was done.
    pub action: Option<Action>,
    /// To what kind of thing.
    pub target_type: Option<TargetType>,
    /// To which one.
    pub target_id: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// The id of an event: a UUIDv7 (RFC 9562 §5.7) whose twelve bits after the milliseconds are the fraction of the millisecond (§6.2, method 3). So
/// ids sort as times do, to the microsecond, and what happened before an instant is what has an id below `event_id(instant, [0; 8])`.
pub fn event_id(at: OffsetDateTime, chance: [u8; 8]) -> Uuid {
    let micros = u64::try_from(at.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(0);
    let (millis, rest) = (micros / 1000, micros % 1000);
    let fraction = rest * 4096 / 1000; // 0..4096, another for each microsecond
    let high = (millis << 16) | (7 << 12) | fraction;
    let low = (u64::from_be_bytes(chance) >> 2) | (1 << 63);
    Uuid::from_u64_pair(high, low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::Duration;
    use time::macros::datetime;

    #[test]
    fn ids_sort_as_times_do() {
        let start = datetime!(2026-11-21 07:00:00.999_000 UTC);
        let mut before = event_id(start - Duration::MICROSECOND, [0xff; 8]);
        for micros in 0..2500 {
            let at = start + Duration::microseconds(micros);
            let (least, most) = (event_id(at, [0; 8]), event_id(at, [0xff; 8]));
            assert!(before < least && least < most, "{micros}");
            assert_eq!((most.get_version_num(), most.as_bytes()[8] >> 6), (7, 0b10));
            before = most;
        }
        let text = event_id(datetime!(2026-11-21 07:00:00.123_456 UTC), *b"\x01\x23\x45\x67\x89\xab\xcd\xef");
        assert_eq!(text.to_string(), "01a1fce7-9dfb-774b-8048-d159e26af37b");
    }
}
