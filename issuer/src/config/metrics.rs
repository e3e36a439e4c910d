//! Who may read metrics, and where.

use std::net::IpAddr;

use super::limits::TrustedProxies;
use super::secret::Secret;
use super::sources::Reader;
use super::values::Environment;

/// The shortest `METRICS_SECRET`, in characters.
const MIN_SECRET: usize = 32;

/// The metrics' settings.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Whether they are shown at all.
    pub enabled: bool,
    /// Who may read them at the public listener; `None`: they aren't there.
    pub guard: Option<Guard>,
}

/// Who may read metrics at the public listener.
#[derive(Debug, Clone)]
pub enum Guard {
    /// Anybody: in development only.
    Open,
    /// Who shows this.
    Secret(Secret),
    /// Who comes from one of these networks.
    Networks(TrustedProxies),
}

impl Guard {
    /// Whether `ip` is in one of the networks, where these decide.
    pub fn lets_in(&self, ip: Option<IpAddr>) -> bool {
        match self {
            Self::Networks(networks) => ip.is_some_and(|ip| networks.contains(ip)),
            Self::Open => true,
            Self::Secret(_) => false,
        }
    }
}

impl Metrics {
    pub(super) fn read(reader: &mut Reader<'_>, environment: Environment) -> Self {
        let enabled = reader.parsed("METRICS_ENABLED", true, "`true` or `false`");
        let expected = "addresses and networks with commas between them, e.g. 10.0.0.0/8, 2001:db8::/32";
        let networks = reader.parsed("METRICS_ALLOWED_CIDRS", TrustedProxies::default(), expected);
        let before = reader.problem_count();
        let secret = reader.secret("METRICS_SECRET");
        if secret.as_ref().is_some_and(|secret| secret.expose().chars().count() < MIN_SECRET) {
            reader.problem(format!(
                "METRICS_SECRET must have at least {MIN_SECRET} characters: make one with `openssl rand -base64 32`"
            ));
        }
        let guard = match reader.text("METRICS_GUARD") {
            None => None,
            Some("none") => {
                if environment == Environment::Production {
                    reader.problem(
                        "METRICS_GUARD must not be `none` in production: use `secret` or `cidr`, or leave it out and scrape the admin listener",
                    );
                }
                Some(Guard::Open)
            }
            Some("secret") => {
                if secret.is_none() && reader.problem_count() == before {
                    reader.problem(format!(
                        "METRICS_SECRET environment variable is required with METRICS_GUARD=secret: set it to a secret of at least {MIN_SECRET} characters"
                    ));
                }
                secret.map(Guard::Secret)
            }
            Some("cidr") => {
                if reader.text("METRICS_ALLOWED_CIDRS").is_none() {
                    reader.problem("METRICS_ALLOWED_CIDRS environment variable is required with METRICS_GUARD=cidr: set it to the networks that may scrape");
                }
                if environment == Environment::Production
                    && networks.networks().iter().any(|network| network.prefix_len() == 0)
                {
                    reader.problem("METRICS_ALLOWED_CIDRS must not be every address in production: name the networks that may scrape");
                }
                Some(Guard::Networks(networks))
            }
            Some(other) => {
                reader.problem(format!("METRICS_GUARD must be `none`, `secret` or `cidr`, not `{other}`"));
                None
            }
        };
        Self { enabled, guard: guard.filter(|_| enabled) }
    }
}
