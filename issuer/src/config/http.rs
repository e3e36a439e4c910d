//! Who may connect, and from which pages.

use std::collections::BTreeSet;

use reqwest::Url;

use super::sources::Reader;
use super::values::{Environment, is_loopback};

/// What [`Http`] is where nothing is set.
pub(crate) const MAX_CONNECTIONS: u32 = 10_000;
pub(crate) const MAX_CONNECTIONS_PER_IP: u32 = 256;
pub(crate) const MAX_REQUESTS: u32 = 256;

/// The HTTP listeners' settings, besides their addresses.
#[derive(Debug, Clone)]
pub struct Http {
    /// Whose pages may call the API.
    pub allowed_origins: AllowedOrigins,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once from one address.
    pub max_connections_per_ip: usize,
    /// Requests in the works at once.
    pub max_requests: usize,
}

/// The origins whose pages may call the API from a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// These, each as browsers write it.
    Listed(BTreeSet<String>),
    /// Any: in development only.
    Any,
}

impl Http {
    pub(super) fn read(reader: &mut Reader<'_>, environment: Environment) -> Self {
        let allowed_origins = AllowedOrigins::read(reader, environment);
        let max_connections =
            reader.integer("MAX_CONNECTIONS", MAX_CONNECTIONS, 16..=1_000_000, " connections");
        let max_connections_per_ip =
            reader.integer("MAX_CONNECTIONS_PER_IP", MAX_CONNECTIONS_PER_IP, 1..=1_000_000, " connections");
        let max_requests = reader.integer("MAX_REQUESTS", MAX_REQUESTS, 1..=1_000_000, " requests");
        Self {
            allowed_origins,
            max_connections: max_connections as usize,
            max_connections_per_ip: max_connections_per_ip as usize,
            max_requests: max_requests as usize,
        }
    }
}

impl AllowedOrigins {
    /// Nobody's.
    pub const fn none() -> Self {
        Self::Listed(BTreeSet::new())
    }

    fn read(reader: &mut Reader<'_>, environment: Environment) -> Self {
        let text = reader.text("CORS_ALLOWED_ORIGINS").unwrap_or_default();
        if text == "*" {
            if environment == Environment::Development {
                return Self::Any;
            }
            reader.problem("CORS_ALLOWED_ORIGINS must not be `*` outside of development: list the origins");
            return Self::Listed(BTreeSet::new());
        }
        let mut origins = BTreeSet::new();
        for origin in text.split(',').map(str::trim).filter(|origin| !origin.is_empty()) {
            match check(origin, environment) {
                Ok(()) => _ = origins.insert(origin.to_owned()),
                Err(problem) => {
                    reader.problem(format!("CORS_ALLOWED_ORIGINS has `{origin}`, which {problem}"));
                }
            }
        }
        Self::Listed(origins)
    }
}

fn check(origin: &str, environment: Environment) -> Result<(), &'static str> {
    const FORM: &str = "is no origin: it has the form https://app.example.com or https://app.example.com:8443, without a path";
    let url: Url = origin.parse().map_err(|_| FORM)?;
    // Compared byte for byte with what browsers send.
    if url.origin().ascii_serialization() != origin || origin.contains('*') {
        return Err(FORM);
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(&url) || environment == Environment::Development => Ok(()),
        _ => Err("must be https (http only for localhost, or with COUNTERSIGN_ENV=development)"),
    }
}
