//! Configuration: read once, checked whole before anything is opened.
//!
//! Each command asks for what it needs, so `migrate` runs without a master key.

mod admin;
mod backup;
mod first_key;
mod http;
mod limits;
mod master_key;
mod metrics;
mod otlp;
mod publisher;
mod secret;
mod signing;
mod soundness;
mod sources;
mod values;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use admin::{Admin, Tls};
pub use backup::{Backup, BackupKey, BackupReading};
pub use http::{AllowedOrigins, Http};
pub(crate) use http::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_IP, MAX_REQUESTS};
pub use limits::{Limits, TrustedProxies};
pub use metrics::{Guard, Metrics};
pub use otlp::Otlp;
pub use publisher::{Edge, KvStore, Publisher};
pub use secret::Secret;
pub use signing::Signing;
pub use sources::{Problems, Sources};
pub(crate) use sources::{Readers, read_secret};
pub use values::{
    AuditRetention, Database, Environment, Identifier, IssuerUrl, LogFormat, LogLevel, Telemetry,
};
pub(crate) use values::{POOL_SIZE, STARTUP_SECONDS};

use crate::domain::tenant::MAX_LIFETIME_SECONDS;
use crate::keys::MasterKey;
use crate::keys::import::Imported;
use sources::Reader;

/// A setting's name in the environment.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    /// Whether it may come from a file (`NAME_FILE`).
    pub(crate) secret: bool,
}

const fn plain(name: &'static str) -> Setting {
    Setting { name, secret: false }
}

const fn secret(name: &'static str) -> Setting {
    Setting { name, secret: true }
}

/// Every setting there is.
pub(crate) const SETTINGS: &[Setting] = &[
    secret("DATABASE_URL"),
    secret("REDIS_URL"),
    secret("JWT_PRIVATE_KEY"),
    secret("JWT_PUBLIC_KEY"),
    plain("JWT_KEY_ID"),
    secret("MASTER_KEY"),
    plain("MASTER_KEY_PROVIDER"),
    plain("PKCS11_MODULE"),
    plain("PKCS11_TOKEN_LABEL"),
    plain("PKCS11_KEY_LABEL"),
    secret("PKCS11_PIN"),
    secret("NEW_MASTER_KEY"),
    plain("NEW_MASTER_KEY_PROVIDER"),
    plain("NEW_PKCS11_MODULE"),
    plain("NEW_PKCS11_TOKEN_LABEL"),
    plain("NEW_PKCS11_KEY_LABEL"),
    secret("NEW_PKCS11_PIN"),
    plain("ISSUER_URL"),
    plain("DEFAULT_AUDIENCE"),
    plain("HOST"),
    plain("PORT"),
    plain("ADMIN_ADDRESS"),
    secret("ADMIN_TOKEN"),
    plain("ADMIN_TLS_CERTIFICATE"),
    plain("ADMIN_TLS_KEY"),
    plain("COUNTERSIGN_ENV"),
    plain("LOG_LEVEL"),
    plain("LOG_FORMAT"),
    plain("OTLP_ENDPOINT"),
    plain("OTLP_SAMPLE_PERCENT"),
    plain("TOKEN_LIFETIME_SECONDS"),
    plain("KV_API_BASE"),
    plain("KV_ACCOUNT_ID"),
    plain("KV_NAMESPACE_ID"),
    secret("KV_API_TOKEN"),
    plain("HUB_URL"),
    secret("HUB_PUSH_SECRET"),
    plain("PUBLISHER_DIRECTORY"),
    plain("DATABASE_POOL_SIZE"),
    plain("STARTUP_TIMEOUT_SECONDS"),
    plain("SHUTDOWN_DELAY_SECONDS"),
    plain("SHUTDOWN_TIMEOUT_SECONDS"),
    plain("METRICS_ENABLED"),
    plain("METRICS_GUARD"),
    secret("METRICS_SECRET"),
    plain("METRICS_ALLOWED_CIDRS"),
    plain("CORS_ALLOWED_ORIGINS"),
    plain("MAX_CONNECTIONS"),
    plain("MAX_CONNECTIONS_PER_IP"),
    plain("MAX_REQUESTS"),
    plain("AUDIT_RETENTION_DAYS"),
    plain("TRUSTED_PROXIES"),
    plain("RATE_LIMIT_PER_IP"),
    plain("RATE_LIMIT_PER_CLIENT"),
    plain("RATE_LIMIT_PER_TENANT"),
    plain("RATE_LIMIT_TOKEN"),
    plain("RATE_LIMIT_INTROSPECT"),
    plain("RATE_LIMIT_REVOKE"),
    plain("RATE_LIMIT_MANAGEMENT"),
    plain("LOCKOUT_ATTEMPTS"),
    plain("LOCKOUT_WINDOW_MINUTES"),
    plain("LOCKOUT_MINUTES"),
    plain("FREE_TIER_TOKENS_PER_MONTH"),
    plain("TOKEN_SIGNING_ALGORITHM"),
    plain("TOKEN_SIGNING_RSA_BITS"),
    plain("KEY_ROTATION_DAYS"),
    plain("JWKS_MAX_AGE_SECONDS"),
    plain("STATUS_LIST_TTL_SECONDS"),
    secret("BACKUP_KEY"),
    plain("POSTGRES_BIN"),
];

/// What `serve` needs.
#[derive(Debug)]
pub struct Serve {
    /// Where logs go and how.
    pub telemetry: Telemetry,
    /// The truth.
    pub database: Database,
    /// Shared hot state; in-process without it.
    pub redis_url: Option<Secret>,
    /// Opens the sealed keys.
    pub master_key: Arc<MasterKey>,
    /// How tokens are signed.
    pub signing: Signing,
    /// The first key of tokens, where it comes from a system that is being replaced.
    pub first_key: Option<Imported>,
    /// `iss`, and the base of every URL that is told to clients.
    pub issuer_url: IssuerUrl,
    /// The public listener.
    pub address: SocketAddr,
    /// The listener for operators and probes.
    pub admin: Admin,
    /// Where traces go; nowhere without it.
    pub otlp: Option<Otlp>,
    /// Who may read metrics.
    pub metrics: Metrics,
    /// Life of a token where its resource server doesn't say, in seconds.
    pub token_lifetime: u32,
    /// How long others may go by a status list without asking for it again, in seconds.
    pub status_list_ttl: u32,
    /// Where revocations are published; nowhere without it.
    pub publisher: Option<Publisher>,
    /// For how long the audit log is kept.
    pub audit_retention: AuditRetention,
    /// How long a stop goes on serving, so that who sends requests here sees it coming.
    pub shutdown_delay: Duration,
    /// How long it then waits for requests under way.
    pub shutdown_timeout: Duration,
    /// Who may connect, and from which pages.
    pub http: Http,
    /// On requests, failed authentications and tokens.
    pub limits: Limits,
}

/// What `bootstrap` needs.
#[derive(Debug)]
pub struct Bootstrap {
    /// Where logs go and how.
    pub telemetry: Telemetry,
    /// The truth.
    pub database: Database,
    /// Seals the keys.
    pub master_key: MasterKey,
    /// What the first of them is.
    pub signing: Signing,
    /// The first key of tokens, where it comes from a system that is being replaced.
    pub first_key: Option<Imported>,
    /// Identifier of the first tenant's resource server.
    pub default_audience: Identifier,
}

/// What `keys export-public` needs.
#[derive(Debug)]
pub struct Keys {
    /// Logs and database.
    pub plain: Plain,
    /// Tells our keys from others.
    pub master_key: MasterKey,
}

/// What `keys rewrap` needs.
#[derive(Debug)]
pub struct Rewrap {
    /// Logs, database and the master keys: there is a next one.
    pub keys: Keys,
}

/// What `resource-servers create` needs.
#[derive(Debug)]
pub struct Registration {
    /// Logs and database.
    pub plain: Plain,
    /// No identifier of a tenant's.
    pub issuer_url: IssuerUrl,
}

/// What `tenants create` needs.
#[derive(Debug)]
pub struct TenantCreation {
    /// Logs, database and the master key.
    pub keys: Keys,
    /// No identifier of a tenant's.
    pub issuer_url: IssuerUrl,
}

/// What `unlock` needs.
#[derive(Debug)]
pub struct Unlock {
    /// Logs and database.
    pub plain: Plain,
    /// Where lockouts are; the running issuers see to it where it isn't known here.
    pub redis_url: Option<Secret>,
}

/// What `migrate` and `keys list` need.
#[derive(Debug)]
pub struct Plain {
    /// Where logs go and how.
    pub telemetry: Telemetry,
    /// The truth.
    pub database: Database,
}

impl Serve {
    /// Reads and checks all of it.
    pub fn from_sources(sources: &Sources) -> Result<Self, Problems> {
        let mut reader = Reader::new(sources);
        let telemetry = Telemetry::read(&mut reader);
        let database = Database::read(&mut reader);
        let redis_url = values::redis_url(&mut reader);
        let master_key = master_key::read(&mut reader);
        let issuer_url = IssuerUrl::read(&mut reader, telemetry.environment);
        let address = public_address(&mut reader);
        let admin = Admin::read(&mut reader);
        let otlp = Otlp::read(&mut reader);
        let metrics = Metrics::read(&mut reader, telemetry.environment);
        let token_lifetime =
            reader.integer("TOKEN_LIFETIME_SECONDS", 900, 1..=MAX_LIFETIME_SECONDS, " seconds");
        let status_list_ttl = reader.integer("STATUS_LIST_TTL_SECONDS", 15, 1..=3600, " seconds");
        let publisher = Publisher::read(&mut reader, telemetry.environment);
        let audit_retention = AuditRetention::read(&mut reader);
        let shutdown_delay = shutdown_delay(&mut reader, telemetry.environment);
        let shutdown_timeout = reader.integer("SHUTDOWN_TIMEOUT_SECONDS", 30, 1..=3600, " seconds");
        let http = Http::read(&mut reader, telemetry.environment);

        let limits = Limits::read(&mut reader);
        let signing = Signing::read(&mut reader);
        let first_key = first_key::read(&mut reader, signing);

        soundness::check(&mut reader, telemetry.environment);
        if address == admin.address && address.port() != 0 {
            reader.problem(format!(
                "ADMIN_ADDRESS {} is the address of HOST and PORT too: change one",
                admin.address
            ));
        }
        let required = database.zip(master_key).zip(issuer_url);
        reader.finish(required.map(|((database, master_key), issuer_url)| Self {
            telemetry,
            database,
            redis_url,
            master_key: Arc::new(master_key),
            signing,
            first_key,
            issuer_url,
            address,
            admin,
            otlp,
            metrics,
            token_lifetime,
            status_list_ttl,
            publisher,
            audit_retention,
            shutdown_delay,
            shutdown_timeout: Duration::from_secs(shutdown_timeout.into()),
            http,
            limits,
        }))
    }
}

/// Where the public listener is.
fn public_address(reader: &mut Reader<'_>) -> SocketAddr {
    let host = reader.parsed("HOST", IpAddr::V4(Ipv4Addr::LOCALHOST), "an IP address");
    SocketAddr::new(host, reader.parsed("PORT", 3000_u16, "a port number"))
}

/// What `probe` needs.
#[derive(Debug)]
pub struct Probe {
    /// The public listener.
    pub address: SocketAddr,
}

impl Probe {
    /// Reads and checks it. Whatever else is in the environment is `serve`'s business, which has read it.
    pub fn from_sources(sources: &Sources) -> Result<Self, Problems> {
        let mut reader = Reader::new(sources);
        let address = public_address(&mut reader);
        reader.finish(Some(Self { address }))
    }
}

/// Nobody sends a developer's requests on. Elsewhere five seconds: a load balancer that asks every two has heard it twice, and of the ten seconds that
/// container runtimes give a process half are left for requests.
fn shutdown_delay(reader: &mut Reader<'_>, environment: Environment) -> Duration {
    let default = match environment {
        Environment::Development => 0,
        Environment::Production => 5,
    };
    Duration::from_secs(reader.integer("SHUTDOWN_DELAY_SECONDS", default, 0..=300, " seconds").into())
}

impl Bootstrap {
    /// Reads and checks all of it.
    pub fn from_sources(sources: &Sources) -> Result<Self, Problems> {
        let mut reader = Reader::new(sources);
        let telemetry = Telemetry::read(&mut reader);
        let database = Database::read(&mut reader);
        let master_key = master_key::read(&mut reader);
        let signing = Signing::read(&mut reader);
        let first_key = first_key::read(&mut reader, signing);
        let default_audience = Identifier::read_default_audience(&mut reader);
        let required = database.zip(master_key).zip(default_audience);
        reader.finish(required.map(|((database, master_key), default_audience)| Self {
            telemetry,
            database,
            master_key,
            signing,
            first_key,
            default_audience,
        }))
    }
}

impl Keys {
    /// Reads and checks all of it.
    pub fn from_sources(sources: &Sources) -> Result<Self, Problems> {
        let mut reader = Reader::new(sources);
        let telemetry = Telemetry::read(&mut reader);
        let database = Database::read(&mut reader);
        let master_key = master_key::read(&mut reader);
        reader.finish(
            database
                .zip(master_key)
                .map(|(database, master_key)| Self { plain: Plain { telemetry, database }, master_key }),
        )
    }
}

impl Rewrap {
    /// Reads and checks all of it.
    pub fn from_sources(sources: &Sources) -> Result<Self, Problems> {
        let mut reader = Reader::new(sources);
        let telemetry = Telemetry::read(&mut reader);
        let database = Database::read(&mut reader);
        let master_key = master_key::read_both(&mut reader);
        reader.finish(database.zip(master_key).map(|(database, master_key)| Self {
            keys: Keys { plain: Plain { telemetry, database }, master_key },
        }))
    }
}

impl Registration {
    /// Reads and checks all of it.
    pub fn from_sources(sources: &Sources) -> Result<Self, Problems> {
        let mut reader = Reader::new(sources);
        let telemetry = Telemetry::read(&mut reader);
        let database = Database::read(&mut reader);
        let issuer_url = IssuerUrl::read(&mut reader, telemetry.environment);
        reader.finish(
            database
                .zip(issuer_url)
                .map(|(database, issuer_url)| Self { plain: Plain { telemetry, database }, issuer_url }),
        )
    }
}

impl TenantCreation {
    /// Reads and checks all of it.
    pub fn from_sources(sources: &Sources) -> Result<Self, Problems> {
        let mut reader = Reader::new(sources);
        let telemetry = Telemetry::read(&mut reader);
        let database = Database::read(&mut reader);
        let master_key = master_key::read(&mut reader);
        let issuer_url = IssuerUrl::read(&mut reader, telemetry.environment);
        let required = database.zip(master_key).zip(issuer_url);
        reader.finish(required.map(|((database, master_key), issuer_url)| Self {
            keys: Keys { plain: Plain { telemetry, database }, master_key },
            issuer_url,
        }))
    }
}

/// What `audit prune` needs.
#[derive(Debug)]
pub struct Prune {
    /// Logs and database.
    pub plain: Plain,
    /// For how long the audit log is kept.
    pub audit_retention: AuditRetention,
}

impl Prune {
    /// Reads and checks all of it.
    pub fn from_sources(sources: &Sources) -> Result<Self, Problems> {
        let mut reader = Reader::new(sources);
        let telemetry = Telemetry::read(&mut reader);
        let database = Database::read(&mut reader);
        let audit_retention = AuditRetention::read(&mut reader);
        reader.finish(database.map(|database| Self { plain: Plain { telemetry, database }, audit_retention }))
    }
}

impl Unlock {
    /// Reads and checks all of it.
    pub fn from_sources(sources: &Sources) -> Result<Self, Problems> {
        let mut reader = Reader::new(sources);
        let telemetry = Telemetry::read(&mut reader);
        let database = Database::read(&mut reader);
        let redis_url = values::redis_url(&mut reader);
        reader.finish(database.map(|database| Self { plain: Plain { telemetry, database }, redis_url }))
    }
}

impl Plain {
    /// Reads and checks all of it.
    pub fn from_sources(sources: &Sources) -> Result<Self, Problems> {
        let mut reader = Reader::new(sources);
        let telemetry = Telemetry::read(&mut reader);
        let database = Database::read(&mut reader);
        reader.finish(database.map(|database| Self { telemetry, database }))
    }
}
