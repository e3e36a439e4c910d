//! Tenants: who agents belong to.

use countersign_shared::{Algorithm, TenantId};
use time::OffsetDateTime;

use super::text_enum;
use super::transition::{Final, Transition};

text_enum! {
    /// Whether a tenant's agents may do anything.
    pub enum TenantStatus {
        /// They may.
        Active = "active",
        /// Not for now.
        Suspended = "suspended",
        /// Never again.
        Decommissioned = "decommissioned",
    }
}

impl TenantStatus {
    /// What becomes of a tenant in this status.
    pub const fn after(self, transition: Transition) -> Result<Self, Final> {
        match (self, transition) {
            (_, Transition::Decommission) => Ok(Self::Decommissioned),
            (Self::Decommissioned, _) => Err(Final),
            (_, Transition::Suspend) => Ok(Self::Suspended),
            (_, Transition::Reactivate) => Ok(Self::Active),
        }
    }
}

text_enum! {
    /// What a tenant pays for.
    pub enum Plan {
        /// Nothing.
        Free = "free",
        /// The service.
        Paid = "paid",
    }
}

/// The longest name of a tenant or a resource server, in characters.
pub const MAX_NAME_CHARACTERS: usize = 200;

/// The longest life of a token, in seconds.
pub const MAX_LIFETIME_SECONDS: u32 = 86_400;

/// What the platform's administrator says of a tenant; checked when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantProfile {
    /// Unique in the installation, whatever the case of its letters.
    pub name: String,
    /// What it pays for.
    pub plan: Plan,
    /// Where its use ends.
    pub limits: Limits,
}

/// Limits of a tenant. `None` is the default of its plan, or of the issuer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Tokens a calendar month (UTC).
    pub monthly_token_quota: Option<u64>,
    /// Requests a minute, of the tenant as a whole.
    pub requests_per_minute: Option<u32>,
    /// Requests a minute, of each of its clients.
    pub client_requests_per_minute: Option<u32>,
    /// Agents that aren't decommissioned.
    pub max_agents: Option<u32>,
}

impl Limits {
    /// The highest monthly quota: up to there JSON's numbers are exact everywhere (RFC 8259 §6).
    pub const MAX_QUOTA: u64 = (1 << 53) - 1;
    /// The highest of the others: the database's `integer`.
    pub const MAX: u32 = i32::MAX.cast_unsigned();
}

/// A tenant.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its id, in every token of its agents.
    pub tenant_id: TenantId,
    /// What the platform's administrator says of it.
    pub profile: TenantProfile,
    /// Whether its agents may do anything.
    pub status: TenantStatus,
    /// The one whose administrators manage the others.
    pub is_platform: bool,
    /// Counts its changes.
    pub revision: i64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
}

/// The API that a token is for: one of the tenant's resource servers, or the issuer itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceServer {
    /// Its `aud`.
    pub identifier: String,
    /// Life of its tokens in seconds; `None`: the issuer's default.
    pub token_lifetime: Option<u32>,
    /// What its tokens are signed with; `None`: as the installation signs.
    pub signing_algorithm: Option<Algorithm>,
    /// Its tokens say where their status can be read.
    pub status_list: bool,
}
