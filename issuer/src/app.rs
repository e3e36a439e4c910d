//! What a request can reach.

use std::fmt;
use std::sync::Arc;

use crate::audit::Audit;
use crate::certificates::Certificate;
use crate::clients::{Clients, Uses};
use crate::config::{self, IssuerUrl};
use crate::failures::Failures;
use crate::grants::imported::Imported;
use crate::hot::{self, HotState};
use crate::http::Works;
use crate::keys::{self, KeyError, Promise, Ring, ServerSecrets};
use crate::lifecycle::Lifecycle;
use crate::limits::Limits;
use crate::maintenance::Maintenance;
use crate::metrics;
use crate::publisher;
use crate::replicas::Replicas;
use crate::status_lists::StatusLists;
use crate::storage::{self, Database, StorageError, schema};
use crate::tokens::known::KnownSignatures;
use crate::tokens::live::LiveStates;
use crate::tokens::serials::Serials;

/// The running issuer: made once, shared by all requests.
pub struct App {
    /// `iss`.
    pub issuer_url: IssuerUrl,
    /// Default life of a token in seconds.
    pub token_lifetime: u32,
    /// The truth.
    pub database: Database,
    /// A shortcut to parts of it.
    pub hot: Arc<dyn HotState>,
    /// What tokens and revocation heads are signed and verified with.
    pub keys: Arc<Ring>,
    /// How long others may keep the JWK Set, in seconds.
    pub jwks_max_age: u32,
    /// The pepper and the jti key.
    pub secrets: ServerSecrets,
    /// Lists of revoked tokens for verifiers of other makes.
    pub status_lists: StatusLists,
    /// Of tokens that were shown before.
    pub known_signatures: KnownSignatures,
    /// Whether tokens are alive.
    pub live_states: LiveStates,
    /// Leased serials.
    pub serials: Serials,
    /// Records of clients, kept in memory.
    pub clients: Clients,
    /// When credentials were used.
    pub uses: Uses,
    /// Where imported secrets are checked.
    pub imported: Imported,
    /// What is written down of every action.
    pub audit: Audit,
    /// Failed authentications, and how many of them are written down.
    pub failures: Failures,
    /// On requests, failed authentications and tokens.
    pub limits: Limits,
    /// How publishing goes.
    pub publisher: publisher::Status,
    /// Whether it stops.
    pub lifecycle: Lifecycle,
    /// Whether others are at work.
    pub replicas: Replicas,
    /// Requests in the works.
    pub works: Works,
    /// Whether what changes something is turned away.
    pub maintenance: Maintenance,
    /// What metrics know of the database.
    pub figures: metrics::figures::Latest,
    /// How long a key signs before another takes its place.
    pub key_rotation: Option<time::Duration>,
    /// The admin listener's, where it speaks TLS.
    pub certificate: Option<Arc<Certificate>>,
}

impl App {
    /// Opens everything, on a database that was connected to; makes keys if there are none.
    pub async fn open(config: &config::Serve, database: Database) -> Result<Arc<Self>, OpenError> {
        schema::check(&database).await.map_err(OpenError::Schema)?;
        let signing = config.signing;
        keys::provision(&database, &config.master_key, &signing, config.first_key.as_ref()).await?;
        let promise = Promise { token_lifetime: config.token_lifetime, jwks_max_age: signing.jwks_max_age };
        let keys = Ring::open(&database, config.master_key.clone(), promise).await?;
        let secrets = keys::load_secrets(&database, &config.master_key).await?;
        let hot = hot::open(config.redis_url.as_ref()).map_err(|_| OpenError::Redis)?;
        let maintenance = Maintenance::new(storage::maintenance::read(&database).await?);
        let app = Self {
            issuer_url: config.issuer_url.clone(),
            token_lifetime: config.token_lifetime,
            audit: Audit::start(&database),
            known_signatures: KnownSignatures::default(),
            live_states: LiveStates::new(database.clone()),
            database,
            limits: Limits::new(config.limits.clone(), hot.clone()),
            hot,
            keys,
            jwks_max_age: signing.jwks_max_age,
            secrets: secrets
                .ok_or(OpenError::Keys(KeyError::Unusable("the server's secrets are gone".into())))?,
            status_lists: StatusLists::new(config.status_list_ttl),
            serials: Serials::default(),
            clients: Clients::default(),
            uses: Uses::default(),
            imported: Imported::default(),
            failures: Failures::default(),
            publisher: publisher::Status::default(),
            lifecycle: Lifecycle::default(),
            replicas: Replicas::new(config.redis_url.is_some()),
            works: Works::new(config.http.max_requests),
            maintenance,
            figures: metrics::figures::Latest::default(),
            key_rotation: signing.rotation,
            certificate: config.admin.tls.as_ref().map(|tls| tls.certificate.clone()),
        };
        Ok(Arc::new(app))
    }
}

/// Why the issuer doesn't start.
#[derive(Debug)]
pub enum OpenError {
    /// The schema isn't the one this binary was made for.
    Schema(schema::Mismatch),
    /// The keys.
    Keys(KeyError),
    /// `REDIS_URL` isn't one.
    Redis,
}

impl From<KeyError> for OpenError {
    fn from(error: KeyError) -> Self {
        Self::Keys(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schema(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
            Self::Redis => {
                f.write_str("REDIS_URL can't be used: it has the form redis://user:password@host:6379/0")
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl From<StorageError> for OpenError {
    fn from(error: StorageError) -> Self {
        Self::Keys(error.into())
    }
}
