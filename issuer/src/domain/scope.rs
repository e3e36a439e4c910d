//! Scopes, and which of them are the issuer's own.

use std::collections::BTreeSet;
use std::fmt;

use countersign_shared::oauth::is_scope_token;

/// Reads the tenant's audit log.
pub const AUDIT_READ: &str = "audit:read";
/// Lists credentials.
pub const CREDENTIALS_READ: &str = "credentials:read";
/// Reads the tenant's resource servers.
pub const RESOURCE_SERVERS_READ: &str = "resource_servers:read";
/// Registers and changes the tenant's resource servers.
pub const RESOURCE_SERVERS_WRITE: &str = "resource_servers:write";
/// Reads every tenant: the platform's.
pub const TENANTS_READ: &str = "tenants:read";
/// Makes and changes tenants: the platform's.
pub const TENANTS_WRITE: &str = "tenants:write";
/// Reads agents.
pub const AGENTS_READ: &str = "agents:read";
/// Registers, changes, suspends and decommissions agents.
pub const AGENTS_WRITE: &str = "agents:write";
/// Makes, rotates and revokes credentials.
pub const CREDENTIALS_WRITE: &str = "credentials:write";
/// Introspects the tokens of the whole tenant.
pub const TOKENS_INTROSPECT: &str = "tokens:introspect";
/// Revokes the tokens of the whole tenant.
pub const TOKENS_REVOKE: &str = "tokens:revoke";

/// The scopes of the issuer's own API. They go into tokens for the issuer and into no others; all else is the tenant's.
pub const MANAGEMENT: [&str; 11] = [
    AGENTS_READ,
    AGENTS_WRITE,
    AUDIT_READ,
    CREDENTIALS_READ,
    CREDENTIALS_WRITE,
    RESOURCE_SERVERS_READ,
    RESOURCE_SERVERS_WRITE,
    TENANTS_READ,
    TENANTS_WRITE,
    TOKENS_INTROSPECT,
    TOKENS_REVOKE,
];

/// Those of them that reach beyond one tenant: only agents of the platform's tenant may have them.
pub const PLATFORM: [&str; 2] = [TENANTS_READ, TENANTS_WRITE];

/// A set of scopes, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(BTreeSet<String>);

/// A text that isn't a list of scope tokens.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidScope;

impl Scopes {
    /// Every management scope: the platform administrator's.
    pub fn platform_administrator() -> Self {
        MANAGEMENT.into_iter().map(str::to_owned).collect()
    }

    /// Every management scope within a tenant: its administrator's.
    pub fn tenant_administrator() -> Self {
        MANAGEMENT.into_iter().filter(|scope| !PLATFORM.contains(scope)).map(str::to_owned).collect()
    }

    /// From the OAuth parameter `scope` (RFC 6749 §3.3): tokens with single spaces between them.
    pub fn parse(text: &str) -> Result<Self, InvalidScope> {
        let tokens = text.split(' ');
        tokens.map(|token| is_scope_token(token).then(|| token.to_owned()).ok_or(InvalidScope)).collect()
    }

    /// Whether `scope` is one of them.
    pub fn contains(&self, scope: &str) -> bool {
        self.0.contains(scope)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that are in tokens for the issuer.
    #[must_use]
    pub fn for_issuer(&self) -> Self {
        self.iter().filter(|scope| MANAGEMENT.contains(scope)).map(str::to_owned).collect()
    }

    /// Those that are in tokens for anyone else.
    #[must_use]
    pub fn for_others(&self) -> Self {
        self.iter().filter(|scope| !MANAGEMENT.contains(scope)).map(str::to_owned).collect()
    }

    /// Those that `other` doesn't have.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).cloned().collect())
    }

    /// The scopes, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl FromIterator<String> for Scopes {
    fn from_iter<I: IntoIterator<Item = String>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

/// As the parameter and the claim have it.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, scope) in self.iter().enumerate() {
            let space = if place == 0 { "" } else { " " };
            write!(f, "{space}{scope}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_sorts() {
        assert_eq!(Scopes::parse("b a b").unwrap().to_string(), "a b");
        for text in ["", " ", "a  b", " a", "a ", "a\tb", "a\"b"] {
            assert_eq!(Scopes::parse(text), Err(InvalidScope), "{text:?}");
        }
    }

    #[test]
    fn management_scopes_are_for_the_issuer_only() {
        let scopes = Scopes::parse("agents:read orders:read").unwrap();
        assert_eq!(scopes.for_issuer().to_string(), "agents:read");
        assert_eq!(scopes.for_others().to_string(), "orders:read");
        assert_eq!(scopes.beyond(&scopes.for_issuer()).to_string(), "orders:read");
    }
}
