//! Tenants: who agents belong to.

use super::text_enum;

text_enum! {
    /// Whether a tenant's agents may do anything.
    pub enum TenantStatus {
        /// They may.
        Active = "active",
        /// Not for now.
        Suspended = "suspended",
    }
}

/// The API that a token is for: one of the tenant's resource servers, or the issuer itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceServer {
    /// Its `aud`.
    pub identifier: String,
    /// Life of its tokens in seconds; `None`: the issuer's default.
    pub token_lifetime: Option<u32>,
}
