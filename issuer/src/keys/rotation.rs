//! Changing keys: each change is one transaction, under one lock, so that whoever dies in the middle of it has changed nothing.
//!
//! One issuer leads: it writes the states that the times call for, and has new keys made in time ([`due`]). Nothing hangs on there being one only, or on
//! its being alive at an instant: the issuers switch keys by the times in the rows ([`super::ring`]), which are there long before.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use countersign_shared::revocation::Level;
use countersign_shared::{Algorithm, UnixTime};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

pub use super::schedule::{Plan, Step, size};

use super::generate::{self, Generated};
use super::import::Imported;
use super::schedule::{MAX_LIVE, MAX_SPARE, MAX_VERIFY_ONLY, due, transitions};
use super::{KeyError, MasterKey, Ring, longest_lifetime, seal};
use crate::config::Signing;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::signing_key::{KeyRecord, KeyState, Purpose};
use crate::outage::Outage;
use crate::storage::signing_keys::{Known, Leadership};
use crate::storage::{Database, StorageError, Transaction, audit, not_before, signing_keys};

/// How often a follower tries for the leadership, and a broken connection is opened again; how often the leader looks what is due.
const PAUSE: Duration = Duration::from_secs(1);
/// Of a revoked key every token is refused, whatever its `iat`: who has stolen the key can write any. The end of the year 9999.
const ALWAYS: UnixTime = UnixTime(253_402_300_799);
/// By how much later than the last thing signed with it expires a key is retired (`migrations/20261121130000_key_lifecycle.sql`).
const RETIREMENT_SKEW: time::Duration = time::Duration::seconds(30);
/// The size of new RSA keys where nothing tells another.
pub const USUAL_RSA_BITS: u32 = 2048;

/// By how much later than was reckoned with a key may be published. A schedule leaves room for more than that (`schedule.rs`), but for clocks that differ.
const UNNOTICED: Duration = Duration::from_secs(1);

/// A change under way; dropped, nothing of it was done.
pub struct Change<'a> {
    database: Database,
    transaction: Transaction,
    began: Instant,
    /// Keys that are published by it, and are to sign at an instant reckoned from when it began.
    published: Vec<String>,
    /// What is known, and what was changed so far.
    pub known: Known,
    master: &'a MasterKey,
}

/// A key that was made for a plan before the lock was taken: that may take seconds.
pub struct Spare(Option<Generated>);

impl Spare {
    /// None.
    pub const fn none() -> Self {
        Self(None)
    }

    /// What `plan` needs.
    pub async fn for_plan(plan: &Plan) -> Result<Self, KeyError> {
        if plan.prepared.is_some() {
            return Ok(Self(None));
        }
        Ok(Self(Some(generate::generate(plan.algorithm, plan.rsa_bits).await?)))
    }

    /// A key that comes from elsewhere.
    pub fn imported(key: Imported) -> Self {
        Self(Some(key.0))
    }

    fn suits(&self, plan: &Plan) -> bool {
        self.0.as_ref().is_some_and(|key| key.algorithm == plan.algorithm)
    }

    fn take(&mut self, plan: &Plan) -> Option<Generated> {
        self.0.take_if(|key| key.algorithm == plan.algorithm)
    }
}

impl<'a> Change<'a> {
    /// Waits until nobody else changes keys, and reads what is known of them.
    pub async fn begin(database: &Database, master: &'a MasterKey) -> Result<Self, KeyError> {
        // With a wrong master key a new key would be sealed that no issuer can open, and none would sign any more.
        super::load_secrets(database, master).await?;
        let mut transaction = database.begin_installation().await?;
        super::lock(&mut transaction, master).await?;
        let began = Instant::now();
        let known = signing_keys::known_in(&mut transaction).await?;
        Ok(Self { database: database.clone(), transaction, began, published: Vec::new(), known, master })
    }

    /// It is done; what is known then. A commit can take long, where the disk or a standby does, and a key is published only when it is over: then that key
    /// signs so much later.
    pub async fn commit(self) -> Result<Known, RotationError> {
        let Self { database, transaction, began, published, known, master } = self;
        Database::commit(transaction).await?;
        let late = began.elapsed();
        if published.is_empty() || late <= UNNOTICED {
            return Ok(known);
        }
        warn!(took_ms = late.as_millis(), "a change of keys took long to commit: the new key signs later");
        let mut change = Self::begin(&database, master).await?;
        for kid in &published {
            change.postpone(kid, late).await?;
        }
        Database::commit(change.transaction).await?;
        Ok(change.known)
    }

    /// Has a scheduled key, and its predecessor with it, wait for longer.
    async fn postpone(&mut self, kid: &str, by: Duration) -> Result<(), RotationError> {
        let mut key = self.existing(kid)?;
        let Some(at) = key.activates_at.filter(|_| key.is_scheduled()) else { return Ok(()) };
        let later = (at + by).truncate_to_second() + time::Duration::SECOND;
        let predecessor = self.known.active(key.purpose, key.algorithm).cloned();
        if let Some(mut predecessor) = predecessor.filter(|other| other.signs_until == Some(at)) {
            predecessor.signs_until = Some(later);
            self.write(&predecessor, false).await?;
        }
        key.activates_at = Some(later);
        self.write(&key, false).await?;
        self.record(&key, Action::KeyScheduled, json!({ "signs_from": later.unix_timestamp() })).await
    }

    async fn step(&mut self, step: &Step, spare: &mut Spare) -> Result<(), RotationError> {
        match step {
            Step::Retiring(kid) => {
                let mut key = self.existing(kid)?;
                key.state = KeyState::Retiring;
                let successor =
                    self.known.scheduled(key.purpose, key.algorithm).and_then(|key| key.activates_at);
                key.signs_until = key.signs_until.or(successor).or(Some(self.known.now));
                self.update(key, Action::KeyRetiring).await
            }
            Step::Activate(kid) => {
                let mut key = self.existing(kid)?;
                key.state = KeyState::Active;
                self.update(key, Action::KeyActivated).await
            }
            Step::Retire(kid) => {
                let mut key = self.existing(kid)?;
                self.keep_predecessor(&key).await?;
                key.state = KeyState::Retired;
                self.update(key, Action::KeyRetired).await
            }
            Step::End(kid, at) => {
                let mut key = self.existing(kid)?;
                key.signs_until = Some(*at);
                self.write(&key, false).await
            }
            Step::Use(algorithm, next) => {
                signing_keys::set_token_algorithm(&mut self.transaction, *algorithm, *next).await?;
                self.reread().await
            }
            Step::Schedule(plan) => self.give_time(plan, spare).await.map(drop),
        }
    }

    /// Gives a key its time, and the one that signs now its end. The key. Refused where one has to be made and there is no [`room`].
    pub async fn schedule(&mut self, plan: &Plan, spare: &mut Spare) -> Result<KeyRecord, RotationError> {
        room(&self.known, plan)?;
        self.give_time(plan, spare).await
    }

    async fn give_time(&mut self, plan: &Plan, spare: &mut Spare) -> Result<KeyRecord, RotationError> {
        let kid = if let Some(kid) = &plan.prepared {
            kid.clone()
        } else {
            let kid = self.add(plan.purpose, &spare.take(plan).ok_or(RotationError::Overtaken)?).await?;
            if plan.at > self.known.now {
                self.published.push(kid.clone());
            }
            kid
        };
        let mut key = self.existing(&kid)?;
        let predecessor = self.known.active(key.purpose, key.algorithm).cloned();
        key.activates_at = Some(plan.at);
        self.write(&key, false).await?;
        if let Some(mut predecessor) = predecessor.clone() {
            predecessor.signs_until = Some(plan.at);
            self.write(&predecessor, false).await?;
        }
        let details = json!({
            "signs_from": plan.at.unix_timestamp(),
            "in_place_of": predecessor.map(|key| key.kid),
        });
        self.record(&key, Action::KeyScheduled, details).await?;
        self.existing(&kid)
    }

    /// Adds a key: published from now on, without a time to sign. Its kid.
    async fn add(&mut self, purpose: Purpose, generated: &Generated) -> Result<String, RotationError> {
        let mut key = seal(self.master, purpose, generated)?;
        key.longest_lifetime = longest_lifetime(purpose, self.known.longest_lifetime);
        signing_keys::insert(&mut self.transaction, &key).await?;
        let made = if generated.imported { Action::KeyImported } else { Action::KeyGenerated };
        self.record(&key, made, json!({})).await?;
        self.reread().await?;
        Ok(key.kid)
    }

    /// Refuses a key that is known already, under its own kid or another.
    pub fn refuse_twins(&self, imported: &Imported) -> Result<(), RotationError> {
        let twin = |key: &&KeyRecord| key.kid == imported.kid() || imported.is(&key.public_jwk);
        match self.known.keys.iter().find(twin) {
            Some(key) => Err(RotationError::Known(key.kid.clone())),
            None => Ok(()),
        }
    }

    /// Adds a key that signs nothing and is verified with until an instant. Only its public part is kept.
    pub async fn verify_until(
        &mut self,
        imported: &Imported,
        until: OffsetDateTime,
    ) -> Result<KeyRecord, RotationError> {
        if self.known.verify_only() >= MAX_VERIFY_ONLY {
            return Err(RotationError::TooManyVerifyOnly);
        }
        let mut key = seal(self.master, Purpose::Token, &imported.0)?;
        key.state = KeyState::Retiring;
        // As if it had signed up to now: what follows from its times is then true of it too.
        let left = (until - self.known.now).whole_seconds() + 1;
        let signed_until = until - time::Duration::seconds(left);
        (key.activates_at, key.signs_until) = (Some(signed_until), Some(signed_until));
        key.longest_lifetime =
            u32::try_from(left - RETIREMENT_SKEW.whole_seconds()).unwrap_or_default().max(1);
        signing_keys::insert(&mut self.transaction, &key).await?;
        self.record(&key, Action::KeyImported, json!({ "verifies_until": until.unix_timestamp() })).await?;
        self.reread().await?;
        self.existing(&key.kid)
    }

    /// The same with a key that was made for `plan`, whose time isn't taken. Refused where there is no [`room_for_spare`].
    pub async fn generate(&mut self, plan: &Plan, spare: &mut Spare) -> Result<KeyRecord, RotationError> {
        room_for_spare(&self.known, plan)?;
        let kid = self.add(plan.purpose, &spare.take(plan).ok_or(RotationError::Overtaken)?).await?;
        self.existing(&kid)
    }

    /// Moves the time of a scheduled key to this moment.
    pub async fn hasten(&mut self, kid: &str) -> Result<KeyRecord, RotationError> {
        let mut key = self.existing(kid)?;
        key.activates_at = Some(self.known.now);
        self.published.retain(|published| published != kid);
        if let Some(mut predecessor) = self.known.active(key.purpose, key.algorithm).cloned() {
            predecessor.signs_until = Some(self.known.now);
            self.write(&predecessor, false).await?;
        }
        self.write(&key, false).await?;
        self.record(&key, Action::KeyScheduled, json!({ "signs_from": self.known.now.unix_timestamp() }))
            .await?;
        for due in transitions(&self.known) {
            self.step(&due, &mut Spare::none()).await?;
        }
        self.existing(kid)
    }

    /// Retires a key by hand: one that only verifies, or one that hasn't signed yet.
    pub async fn retire(&mut self, kid: &str) -> Result<KeyRecord, RotationError> {
        let mut key = self.existing(kid)?;
        if !key.state.may_become(KeyState::Retired, false) {
            return Err(RotationError::Illegal(key.state, KeyState::Retired));
        }
        self.keep_predecessor(&key).await?;
        key.state = KeyState::Retired;
        self.write(&key, true).await?;
        self.record(&key, Action::KeyRetired, json!({ "early": true })).await?;
        self.existing(kid)
    }

    /// Revokes a key: nothing signed with it holds any more, whoever signed it. If it signs, or is the next to, `spare` or the key that was to follow takes
    /// its place now. That key, if there is one: without, [`Self::replace`] it.
    pub async fn revoke(
        &mut self,
        kid: &str,
        reason: &str,
        spare: &mut Spare,
    ) -> Result<Option<KeyRecord>, RotationError> {
        let mut key = self.existing(kid)?;
        if key.revoked_at.is_some() {
            return Err(RotationError::Revoked);
        }
        let signed = key.signs_at(self.known.now);
        let follower =
            self.known.scheduled(key.purpose, key.algorithm).filter(|next| next.kid != kid).cloned();
        self.keep_predecessor(&key).await?;
        key.signs_until = key.signs_until.or(key.activates_at.map(|_| self.known.now));
        key.state = KeyState::Retired;
        key.revoked_at = Some(self.known.now);
        key.revocation_reason = Some(reason.to_owned());
        self.write(&key, false).await?;
        if key.purpose == Purpose::Token {
            not_before::end_tokens(&mut self.transaction, None, Level::Key, kid.as_bytes(), ALWAYS).await?;
        }
        self.record(&key, Action::KeyRevoked, json!({ "reason": reason })).await?;
        if !signed {
            return Ok(None);
        }
        let successor = if let Some(follower) = follower {
            self.hasten(&follower.kid).await?
        } else {
            let plan = self.replacement(&key);
            if plan.prepared.is_none() && !spare.suits(&plan) {
                return Ok(None);
            }
            self.put_in_place(plan, spare).await?
        };
        Ok(Some(successor))
    }

    /// Has a key sign from now on in place of `revoked`, which had none to follow it: the one made for it, unless somebody was faster.
    pub async fn replace(
        &mut self,
        revoked: &KeyRecord,
        spare: &mut Spare,
    ) -> Result<KeyRecord, RotationError> {
        match self.known.active(revoked.purpose, revoked.algorithm).cloned() {
            Some(active) => Ok(active),
            None => self.put_in_place(self.replacement(revoked), spare).await,
        }
    }

    fn replacement(&self, key: &KeyRecord) -> Plan {
        let bits = size(key).unwrap_or(USUAL_RSA_BITS);
        let plan = self.known.plan(key.purpose, key.algorithm, bits, None);
        Plan { at: self.known.now, ..plan }
    }

    async fn put_in_place(&mut self, plan: Plan, spare: &mut Spare) -> Result<KeyRecord, RotationError> {
        // Never for want of room: it stands in for one that is revoked.
        let scheduled = self.give_time(&plan, spare).await?;
        for due in transitions(&self.known) {
            self.step(&due, spare).await?;
        }
        self.existing(&scheduled.kid)
    }

    /// If `key` was to take another's place and isn't any more, that one goes on; if the installation was to sign with its algorithm from then on, it isn't.
    async fn keep_predecessor(&mut self, key: &KeyRecord) -> Result<(), RotationError> {
        if !key.is_scheduled() {
            return Ok(());
        }
        let state = self.known.state;
        if key.purpose == Purpose::Token
            && state.next_token_algorithm.is_some_and(|(next, _)| next == key.algorithm)
        {
            signing_keys::set_token_algorithm(&mut self.transaction, state.token_algorithm, None).await?;
            self.reread().await?;
        }
        let predecessor = self.known.active(key.purpose, key.algorithm);
        if let Some(predecessor) = predecessor.filter(|other| other.signs_until == key.activates_at) {
            let kept = KeyRecord { signs_until: None, ..predecessor.clone() };
            self.write(&kept, false).await?;
        }
        Ok(())
    }

    fn existing(&self, kid: &str) -> Result<KeyRecord, RotationError> {
        self.known.key(kid).cloned().ok_or(RotationError::NotFound)
    }

    async fn update(&mut self, key: KeyRecord, action: Action) -> Result<(), RotationError> {
        self.write(&key, false).await?;
        self.record(&key, action, json!({})).await
    }

    async fn write(&mut self, key: &KeyRecord, retired_early: bool) -> Result<(), RotationError> {
        signing_keys::update(&mut self.transaction, key, retired_early).await?;
        self.reread().await
    }

    /// The database has computed some of it.
    async fn reread(&mut self) -> Result<(), RotationError> {
        self.known = signing_keys::known_in(&mut self.transaction).await?;
        Ok(())
    }

    async fn record(&mut self, key: &KeyRecord, action: Action, more: Value) -> Result<(), RotationError> {
        let mut details = json!({ "purpose": key.purpose.as_str(), "algorithm": key.algorithm.as_str() });
        if let (Value::Object(details), Value::Object(more)) = (&mut details, more) {
            details.extend(more);
        }
        let origin = Origin::default();
        let event = Event::of_installation(action, &origin).on(TargetType::Key, &key.kid).with(details);
        Ok(audit::record_in(&mut self.transaction, &event).await?)
    }
}

/// Why keys aren't changed.
#[derive(Debug)]
pub enum RotationError {
    /// No key has that kid.
    NotFound,
    /// A key of the first state doesn't get to the second.
    Illegal(KeyState, KeyState),
    /// It is revoked already.
    Revoked,
    /// A key of that kid, or the same key under another, is there.
    Known(String),
    /// So many keys of that kind are published that another has to wait until one of them is retired.
    TooMany(Purpose, Algorithm),
    /// So many keys of that kind wait for their time.
    TooManySpare(Purpose, Algorithm),
    /// So many keys are published that only verify.
    TooManyVerifyOnly,
    /// Somebody else changed the keys just before: look again.
    Overtaken,
    /// The keys.
    Keys(KeyError),
}

impl From<KeyError> for RotationError {
    fn from(error: KeyError) -> Self {
        Self::Keys(error)
    }
}

impl From<StorageError> for RotationError {
    fn from(error: StorageError) -> Self {
        Self::Keys(error.into())
    }
}

impl fmt::Display for RotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such key: `countersign keys list` shows them"),
            Self::Illegal(from, to) => {
                write!(f, "a key that is {} can't become {}", from.as_str(), to.as_str())
            }
            Self::Revoked => f.write_str("the key is revoked already"),
            Self::Known(kid) => write!(f, "the key is here already, or another of that name: {kid}"),
            Self::TooMany(purpose, algorithm) => write!(
                f,
                "{MAX_LIVE} {} keys for {} are published, and there can't be more: wait until one of them is retired (`countersign keys list`), or give \
                 one up that doesn't sign (`countersign keys retire`)",
                purpose.as_str(),
                algorithm.as_str()
            ),
            Self::TooManySpare(purpose, algorithm) => write!(
                f,
                "{MAX_SPARE} {} keys for {} wait to be rotated to, and there can't be more: use one (`countersign keys rotate`), or give one up \
                 (`countersign keys retire`)",
                purpose.as_str(),
                algorithm.as_str()
            ),
            Self::TooManyVerifyOnly => write!(
                f,
                "{MAX_VERIFY_ONLY} imported keys are published that only verify, and there can't be more: wait until one of them is retired \
                 (`countersign keys list`), or end one (`countersign keys retire --now`)"
            ),
            Self::Overtaken => f.write_str("the keys were changed by somebody else just now: try again"),
            Self::Keys(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RotationError {}

/// The task that leads, or waits to.
pub struct Rotation {
    database: Database,
    master: Arc<MasterKey>,
    signing: Signing,
    ring: Arc<Ring>,
}

impl Rotation {
    /// Starts it; it ends when `stopping` says so.
    pub fn start(
        database: &Database,
        master: Arc<MasterKey>,
        signing: Signing,
        ring: Arc<Ring>,
        mut stopping: watch::Receiver<bool>,
    ) -> JoinHandle<()> {
        let task = Self { database: database.clone(), master, signing, ring };
        tokio::spawn(async move {
            tokio::select! {
                () = task.work() => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        })
    }

    async fn work(&self) {
        let mut outage = Outage::new("the rotation of keys starts over:", "the rotation of keys works again");
        loop {
            let Err(error) = self.serve(&mut outage).await;
            outage.fails(error);
            sleep(PAUSE).await;
        }
    }

    /// Follows until it leads, leads until something breaks.
    async fn serve(&self, outage: &mut Outage) -> Result<Infallible, RotationError> {
        let mut leadership = Leadership::open(&self.database).await?;
        while !leadership.acquire().await? {
            outage.works();
            sleep(PAUSE).await;
        }
        info!("this process rotates keys");
        let mut changes = self.ring.subscribe();
        loop {
            leadership.confirm().await?;
            while self.take_a_step().await? {}
            self.lower_max_age().await?;
            outage.works();
            _ = timeout(PAUSE, changes.changed()).await;
        }
    }

    /// Does what is due, if anything is. What that was is looked at twice: without the lock, because making a key takes its time, and then with it.
    async fn take_a_step(&self) -> Result<bool, RotationError> {
        let known = signing_keys::known(&self.database).await?;
        let steps = due(&known, &self.signing);
        if steps.is_empty() {
            return Ok(false);
        }
        let mut spare = Spare::none();
        for step in &steps {
            if let Step::Schedule(plan) = step {
                spare = Spare::for_plan(plan).await?;
            }
        }
        let mut change = Change::begin(&self.database, &self.master).await?;
        for step in due(&change.known, &self.signing) {
            match change.step(&step, &mut spare).await {
                Err(RotationError::Overtaken) => return Ok(true),
                done => done?,
            }
            info!(step = ?step, "the signing keys go on");
        }
        change.commit().await?;
        Ok(true)
    }

    /// Once no issuer has said for long enough that its JWK Set may be kept for longer than this one's, new keys needn't wait for longer. One that still hands
    /// them out goes on saying so ([`super::ring`]).
    async fn lower_max_age(&self) -> Result<(), RotationError> {
        if self.ring.current().jwks_max_age() <= self.signing.jwks_max_age
            || !signing_keys::may_lower_max_age(&self.database).await?
        {
            return Ok(());
        }
        let mut change = Change::begin(&self.database, &self.master).await?;
        signing_keys::lower_max_age(&mut change.transaction, self.signing.jwks_max_age).await?;
        change.commit().await.map(drop)
    }
}

/// Refuses a plan that needs a key made where as many are published as may be; never where nothing signs.
pub fn room(known: &Known, plan: &Plan) -> Result<(), RotationError> {
    let crowded = plan.prepared.is_none() && known.live(plan.purpose, plan.algorithm) >= MAX_LIVE;
    if crowded && known.signs(plan.purpose) {
        return Err(RotationError::TooMany(plan.purpose, plan.algorithm));
    }
    Ok(())
}

/// The same for a key that is to wait for its time.
pub fn room_for_spare(known: &Known, plan: &Plan) -> Result<(), RotationError> {
    if known.spares(plan.purpose, plan.algorithm) >= MAX_SPARE {
        return Err(RotationError::TooManySpare(plan.purpose, plan.algorithm));
    }
    room(known, plan)
}

/// The plan for the key that an operator asks for: the installation's algorithm unless one is named, of the size of the key that it follows.
pub fn plan(known: &Known, purpose: Purpose, algorithm: Option<Algorithm>) -> Plan {
    let algorithm = algorithm.unwrap_or_else(|| usual_algorithm(known, purpose));
    let bits = known.active(purpose, algorithm).and_then(size).unwrap_or(USUAL_RSA_BITS);
    known.plan(purpose, algorithm, bits, None)
}

/// What `purpose` is signed with where nothing else is said.
pub fn usual_algorithm(known: &Known, purpose: Purpose) -> Algorithm {
    match purpose {
        Purpose::Token => known.state.token_algorithm_at(known.now),
        Purpose::Revocation => Algorithm::EdDsa,
    }
}
