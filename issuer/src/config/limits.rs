//! Limits, and whose word is taken for where a request comes from.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::sources::Reader;
use crate::domain::limit::{Endpoint, LockoutPolicy};

/// Limits where a tenant has none of its own. Requests are counted a minute.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Requests of each address, before authentication.
    pub per_ip: u32,
    /// Requests of each client.
    pub per_client: u32,
    /// Requests of each tenant.
    pub per_tenant: u32,
    /// Requests of each client to a class of endpoints; as many as to all where there is none.
    endpoints: Vec<(Endpoint, u32)>,
    /// When failed authentications lock out.
    pub lockout: LockoutPolicy,
    /// Tokens a month of a tenant on the free plan.
    pub free_tier: u64,
}

/// The highest rate that can be set.
const MAX_RATE: u32 = 10_000_000;
const RATE_UNIT: &str = " requests a minute";

impl Limits {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let expected = "addresses and networks with commas between them, e.g. 10.0.0.0/8, 2001:db8::/32";
        let trusted_proxies = reader.parsed("TRUSTED_PROXIES", TrustedProxies::default(), expected);
        let mut rate = |name, default| reader.integer(name, default, 1..=MAX_RATE, RATE_UNIT);
        let per_ip = rate("RATE_LIMIT_PER_IP", 600);
        let per_client = rate("RATE_LIMIT_PER_CLIENT", 100);
        let per_tenant = rate("RATE_LIMIT_PER_TENANT", 6_000);
        let endpoints = [
            (Endpoint::Token, "RATE_LIMIT_TOKEN"),
            (Endpoint::Introspect, "RATE_LIMIT_INTROSPECT"),
            (Endpoint::Revoke, "RATE_LIMIT_REVOKE"),
            (Endpoint::Management, "RATE_LIMIT_MANAGEMENT"),
        ];
        let endpoints = endpoints.into_iter().filter_map(|(endpoint, name)| {
            reader.text(name)?;
            Some((endpoint, reader.integer(name, 1, 1..=MAX_RATE, RATE_UNIT)))
        });
        let endpoints = endpoints.collect();
        let attempts = reader.integer("LOCKOUT_ATTEMPTS", 5, 1..=10_000, " attempts");
        let mut minutes =
            |name| Duration::from_secs(60 * u64::from(reader.integer(name, 15, 1..=10_080, " minutes")));
        let (window, lockout) = (minutes("LOCKOUT_WINDOW_MINUTES"), minutes("LOCKOUT_MINUTES"));
        let free_tier = reader.integer("FREE_TIER_TOKENS_PER_MONTH", 10_000, 0..=1_000_000_000, " tokens");
        Self {
            trusted_proxies,
            per_ip,
            per_client,
            per_tenant,
            endpoints,
            lockout: LockoutPolicy { attempts, window, lockout },
            free_tier: free_tier.into(),
        }
    }

    /// The limit of requests to `endpoint`, if it has one.
    pub fn per_endpoint(&self, endpoint: Endpoint) -> Option<u32> {
        self.endpoints.iter().find(|(limited, _)| *limited == endpoint).map(|(_, limit)| *limit)
    }
}

/// Networks that the proxies in front of the issuer are in: none, unless they are named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Their networks.
    pub fn networks(&self) -> &[IpNet] {
        &self.0
    }

    /// Whether `ip` is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&ip))
    }
}

impl FromStr for TrustedProxies {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let network = |text: &str| {
            let text = text.trim();
            text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| ())
        };
        text.split(',').map(network).collect::<Result<Arc<[IpNet]>, ()>>().map(Self)
    }
}
