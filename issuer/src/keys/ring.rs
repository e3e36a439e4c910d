//! The keys at hand. Every issuer knows all of them at any time, so each switches from one key to the next by its own clock at the instant that the
//! rows name, without asking anybody.
//!
//! The database counts every change to them (`key_state.version`). An issuer hears of one by `NOTIFY`, and asks for the version twice a second in case
//! it doesn't. Whoever hasn't had an answer for [`LEASE`] asks before it signs, and doesn't sign if there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use countersign_shared::Algorithm;
use time::OffsetDateTime;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::queue::SigningQueue;
use super::{Jwks, KeyError, MasterKey, SignError, Signer, SigningKey, open, publish};
use crate::clock;
use crate::domain::signing_key::{KeyRecord, KeyState, Purpose};
use crate::storage::signing_keys::{self, KeysState, Known};
use crate::storage::{Database, StorageError};

/// How long what was read counts without another look.
const LEASE: Duration = Duration::from_secs(2);
/// How often is looked.
const POLL: Duration = Duration::from_millis(500);

/// What an issuer lets others count on: keys have to be published and kept accordingly.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    /// The longest life of a token, in seconds, where its resource server doesn't say.
    pub token_lifetime: u32,
    /// How long its JWK Set may be kept, in seconds.
    pub jwks_max_age: u32,
}

/// The keys of this process.
pub struct Ring {
    database: Database,
    master: Arc<MasterKey>,
    promise: Promise,
    current: watch::Sender<Arc<Keys>>,
    loading: Mutex<()>,
    started: Instant,
    /// When the last look was begun that has shown that `current` is current, in milliseconds after `started`.
    looked: AtomicU64,
    /// The same for the last look, whatever came of it.
    tried: AtomicU64,
    look: Notify,
    queue: Arc<SigningQueue>,
}

/// All keys, as of one version.
pub struct Keys {
    /// Grows with every change.
    pub version: u64,
    /// Those of tokens.
    pub tokens: Keyring,
    /// Those of revocation heads.
    pub heads: Keyring,
    state: KeysState,
}

/// The keys of one purpose that aren't retired.
pub struct Keyring {
    held: Vec<Arc<Held>>,
    /// The public keys: pending, active and retiring.
    pub published: Jwks,
}

struct Held {
    record: KeyRecord,
    /// `None`: only the public part of the key is kept.
    signer: Option<Signer>,
}

impl Keyring {
    fn new(
        known: &Known,
        purpose: Purpose,
        take: impl FnMut(&KeyRecord) -> Result<Arc<Held>, KeyError>,
    ) -> Result<Self, KeyError> {
        let live = known.keys.iter().filter(|key| key.purpose == purpose && key.state != KeyState::Retired);
        let held: Vec<Arc<Held>> = live.map(take).collect::<Result<_, _>>()?;
        let records: Vec<&KeyRecord> = held.iter().map(|held| &held.record).collect();
        let published = publish(&records, purpose)?;
        Ok(Self { held, published })
    }

    /// The key that signs at `now`: of those for `algorithm`, or of all, the one whose time came last.
    pub fn signer_at(&self, now: OffsetDateTime, algorithm: Option<Algorithm>) -> Option<&Signer> {
        let fits = |held: &&Arc<Held>| {
            held.signer.is_some()
                && held.record.signs_at(now)
                && algorithm.is_none_or(|algorithm| held.record.algorithm == algorithm)
        };
        let latest = self.held.iter().filter(fits).max_by_key(|held| held.record.activates_at);
        latest.and_then(|held| held.signer.as_ref())
    }
}

impl Keys {
    /// The key for a token at `now` whose resource server asks for `algorithm`. Where there is none yet, the installation's algorithm serves, and where that
    /// has none, any.
    pub fn token_signer_at(&self, now: OffsetDateTime, algorithm: Option<Algorithm>) -> Option<&Signer> {
        let usual = self.state.token_algorithm_at(now);
        let wishes = [Some(algorithm.unwrap_or(usual)), Some(usual), None];
        wishes.into_iter().find_map(|wish| self.tokens.signer_at(now, wish))
    }

    /// What is known of all of them.
    pub fn records(&self) -> impl Iterator<Item = &KeyRecord> {
        [&self.tokens, &self.heads].into_iter().flat_map(|ring| ring.held.iter().map(|held| &held.record))
    }

    /// The longest, in seconds, that any issuer lets its JWK Set be kept.
    pub const fn jwks_max_age(&self) -> u32 {
        self.state.jwks_max_age
    }

    /// The algorithms that tokens may be signed with from `now` on, for as long as nothing changes.
    pub fn token_algorithms_at(&self, now: OffsetDateTime) -> Vec<Algorithm> {
        let will_sign = |algorithm: &Algorithm| {
            self.tokens.held.iter().any(|held| {
                held.record.algorithm == *algorithm
                    && held.record.activates_at.is_some()
                    && held.record.signs_until.is_none_or(|until| now < until)
            })
        };
        Algorithm::ALL.into_iter().filter(will_sign).collect()
    }
}

impl Ring {
    /// Reads the keys.
    pub async fn open(
        database: &Database,
        master: Arc<MasterKey>,
        promise: Promise,
    ) -> Result<Arc<Self>, KeyError> {
        let queue = SigningQueue::new(available_parallelism().map_or(1, usize::from));
        let asked = Instant::now();
        let keys = load(database, &master, promise, &queue, None).await?;
        Ok(Arc::new(Self {
            database: database.clone(),
            master,
            promise,
            current: watch::Sender::new(Arc::new(keys)),
            loading: Mutex::new(()),
            started: asked,
            looked: AtomicU64::new(0),
            tried: AtomicU64::new(0),
            look: Notify::new(),
            queue,
        }))
    }

    /// The keys as they were read last.
    pub fn current(&self) -> Arc<Keys> {
        self.current.borrow().clone()
    }

    /// Tells of every change, with the keys after it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Keys>> {
        self.current.subscribe()
    }

    /// That something changed was heard.
    pub fn changed(&self) {
        self.look.notify_one();
    }

    /// The keys as they are, which at most [`LEASE`] ago was seen for certain.
    pub async fn fresh(&self) -> Result<Arc<Keys>, KeyError> {
        if self.is_fresh() { Ok(self.current()) } else { Box::pin(self.refresh(Instant::now())).await }
    }

    /// What signs now: a token whose resource server asks for `algorithm`, or without it what isn't for any one of them.
    pub async fn token_signer(&self, algorithm: Option<Algorithm>) -> Result<Signer, SignError> {
        let keys = self.fresh().await.map_err(SignError::Keys)?;
        keys.token_signer_at(clock::precise(), algorithm).cloned().ok_or(SignError::NoKey)
    }

    /// Signs a revocation head.
    pub async fn sign_head(&self, typ: &'static str, payload: Vec<u8>) -> Result<String, SignError> {
        let keys = self.fresh().await.map_err(SignError::Keys)?;
        let signer = keys.heads.signer_at(clock::precise(), None).cloned().ok_or(SignError::NoKey)?;
        signer.sign(typ, payload).await
    }

    /// Whether the keys were seen to be current lately.
    pub fn is_fresh(&self) -> bool {
        let looked = Duration::from_millis(self.looked.load(Ordering::SeqCst));
        self.started.elapsed().saturating_sub(looked) < LEASE
    }

    /// Looks whether anything changed, unless somebody has begun to after `since`, and reads it if so.
    async fn refresh(&self, since: Instant) -> Result<Arc<Keys>, KeyError> {
        let _one_at_a_time = self.loading.lock().await;
        let is_later =
            |at: &AtomicU64| self.started + Duration::from_millis(at.load(Ordering::SeqCst)) > since;
        if is_later(&self.looked) {
            return Ok(self.current());
        }
        // Who waited for somebody's attempt doesn't make another: in an outage each takes seconds.
        if is_later(&self.tried) {
            return Err(StorageError::from(sqlx::Error::PoolTimedOut).into());
        }
        let asked = millis(self.started.elapsed());
        self.tried.store(asked, Ordering::SeqCst);
        let before = self.current();
        if signing_keys::version(&self.database).await? != before.version {
            let keys = load(&self.database, &self.master, self.promise, &self.queue, Some(&before)).await?;
            info!(version = keys.version, "the signing keys have changed");
            self.current.send_replace(Arc::new(keys));
        }
        self.looked.store(asked, Ordering::SeqCst);
        Ok(self.current())
    }

    /// Keeps looking, until `stopping`.
    pub fn watch(self: &Arc<Self>, mut stopping: watch::Receiver<bool>) -> JoinHandle<()> {
        let ring = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = ring.keep_looking() => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        })
    }

    /// Says again for how long the JWK Set may be kept, while no other issuer's may for longer, and it wasn't tried just before.
    async fn restate(&self, keys: &Keys, tried: &mut Option<Instant>) {
        let max_age = self.promise.jwks_max_age;
        let pause = Duration::from_secs(signing_keys::restated_after(max_age).into()) / 4;
        if keys.jwks_max_age() != max_age || tried.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        *tried = Some(Instant::now());
        if let Err(error) = signing_keys::restate(&self.database, max_age).await {
            warn!("that the JWK Set may be kept for {max_age} s can't be said again: {error}");
        }
    }

    async fn keep_looking(&self) {
        let mut failing = false;
        let mut restated = None;
        loop {
            _ = timeout(POLL, self.look.notified()).await;
            match self.refresh(Instant::now()).await {
                Ok(keys) => {
                    self.restate(&keys, &mut restated).await;
                    if std::mem::take(&mut failing) {
                        info!("the signing keys can be read again");
                    }
                }
                Err(error) if failing => drop(error), // said once
                Err(error) => {
                    failing = true;
                    error!("the signing keys can't be read, and nothing is signed until they can: {error}");
                }
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads the keys, in a way that keeps the promise. What `before` has, and hasn't changed, isn't opened again.
async fn load(
    database: &Database,
    master: &MasterKey,
    promise: Promise,
    queue: &Arc<SigningQueue>,
    before: Option<&Keys>,
) -> Result<Keys, KeyError> {
    let mut known = signing_keys::known(database).await?;
    let breaks = |key: &KeyRecord| {
        key.purpose == Purpose::Token
            && matches!(key.state, KeyState::Pending | KeyState::Active)
            && key.longest_lifetime < promise.token_lifetime
    };
    let holds = |known: &Known| {
        let state = &known.state;
        let stated = state.jwks_max_age > promise.jwks_max_age
            || state.jwks_max_age == promise.jwks_max_age
                && state.jwks_max_age_unstated < f64::from(signing_keys::UNSTATED_MARGIN);
        stated && !known.keys.iter().any(breaks)
    };
    // It is looked at again: somebody else may have taken it back meanwhile, or added a key.
    while !holds(&known) {
        signing_keys::promise(database, promise.token_lifetime, promise.jwks_max_age).await?;
        known = signing_keys::known(database).await?;
    }
    let take = |record: &KeyRecord| {
        let rings = before.into_iter().flat_map(|keys| [&keys.tokens, &keys.heads]);
        let same = rings.flat_map(|ring| &ring.held).find(|held| {
            let kept = &held.record;
            (&kept.kid, kept.purpose, kept.algorithm, &kept.public_jwk, kept.public_only, &kept.sealed)
                == (
                    &record.kid,
                    record.purpose,
                    record.algorithm,
                    &record.public_jwk,
                    record.public_only,
                    &record.sealed,
                )
        });
        let signer = if let Some(held) = same {
            held.signer.clone()
        } else if let Some(private) = open(master, record)? {
            let key = SigningKey::from_pkcs8(&record.kid, record.algorithm, &private)?;
            Some(Signer::new(key, Arc::clone(queue)))
        } else {
            None
        };
        Ok(Arc::new(Held { record: record.clone(), signer }))
    };
    Ok(Keys {
        version: known.state.version,
        tokens: Keyring::new(&known, Purpose::Token, take)?,
        heads: Keyring::new(&known, Purpose::Revocation, take)?,
        state: known.state,
    })
}
