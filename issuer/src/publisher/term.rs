//! One time of leading: from getting the lock to losing it.

use std::sync::Arc;
use std::time::Duration;

use countersign_shared::UnixTime;
use countersign_shared::key_statement::{KEY_STATEMENT_TYPE, MAX_KEY_STATEMENT_BYTES};
use countersign_shared::revocation::{HEAD_TYPE, MAX_HEAD_BYTES, hex};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info, warn};

use super::artifacts::{self, BaseObject, Delta, OBJECT_KEPT, cutoff};
use super::courier::Delivery;
use super::leader::{Doors, Ended, Task, stopped};
use super::reading::{self, NotMade};
use super::route::Route;
use super::sinks::{Artifact, MAX_DELETED};
use crate::clock;
use crate::domain::publication::{Listeners, Report};
use crate::keys::Keys;
use crate::storage::outbox::{BATCH, Leadership, Position};
use crate::storage::{StorageError, publication};

/// A head is signed again this often, with a new `as_of`, whether or not anything changed. With the hub's three seconds at most for
/// an answer, an edge's knowledge stays under its limit of five (edge-verifier/entry/revocations.ts).
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Changes that come sooner after the last push than this wait, and go out together. After a quiet time nothing waits.
const COALESCE: Duration = Duration::from_millis(100);
/// Giving numbers to what is queued takes so long at most, and a batch; then a head goes out with those that have one.
const NUMBERING: Duration = Duration::from_millis(300);
/// After a change a heartbeat comes sooner while listeners haven't been sent it, so that it is known when they have. So often, and this long after the one before.
const SOONER: (u32, Duration) = (4, Duration::from_millis(150));
/// That the hub is ahead of the database is said again this often.
const REMIND: Duration = Duration::from_mins(1);
/// How often the store is looked through for objects to delete.
const TIDY_EVERY: Duration = Duration::from_secs(10);
/// While the store takes none, a base that waits for it is replaced by a newer one this often at most.
const REPLACE_EVERY: Duration = Duration::from_secs(30);
/// A base that couldn't be made is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// What the database is told of how publishing goes, it is told this often at most.
const SAY_EVERY: Duration = Duration::from_millis(100);

/// How long the last head of a process that stops may take.
const LAST_HEAD: Duration = Duration::from_secs(1);

pub(super) struct Term<'t> {
    task: &'t Task,
    leadership: Leadership,
    objects: Route,
    heads: Route,
    keys: Route,
    /// Heads and key statements to where nothing waits for them.
    mirror: Option<(Route, Route)>,
    /// Tells when the keys have changed.
    ring: watch::Receiver<Arc<Keys>>,
    stated: Option<Stated>,
    position: Position,
    delta: Delta,
    /// The newest base that this term has made: the next one is made of it.
    newest: Option<Arc<BaseObject>>,
    /// The one in force, if this term has made it.
    in_force: Option<Arc<BaseObject>>,
    /// On its way into the store.
    upcoming: Option<Upcoming>,
    /// Being made; stopped when the term ends.
    making: JoinSet<Result<Arc<BaseObject>, NotMade>>,
    base_made: Instant,
    /// Deletes objects from the store; the names of those that are gone.
    tidying: JoinSet<Vec<[u8; 32]>>,
    tidied: Instant,
    /// Of the last head.
    as_of: UnixTime,
    /// More is queued than was taken up.
    is_behind: bool,
    recoveries: u64,
    alarmed: Option<Instant>,
    listeners: Option<Listeners>,
    /// Heartbeats that came sooner since the last change.
    sooner: u32,
    said: Option<(Instant, Report)>,
    /// When something that can't wait for the next second may be said.
    owed: Option<Instant>,
    /// Tells the database: beside everything else, for a slow disk must not hold up heads.
    saying: JoinSet<Result<(), StorageError>>,
}

/// A base on its way into the store.
struct Upcoming {
    parcel: u64,
    object: Arc<BaseObject>,
    since: Instant,
}

/// The key statement that was sent last.
struct Stated {
    /// Its epoch and version.
    position: (u64, u64),
    parcel: u64,
    artifact: Arc<Artifact>,
}

impl<'t> Term<'t> {
    pub(super) async fn begin(task: &'t Task, mut leadership: Leadership) -> Result<Self, Ended> {
        let position = leadership.position().await?;
        let Doors { objects, heads, keys } = &task.doors;
        let base = position.base.map_or(0, |(seq, _)| seq);
        let mut term = Self {
            task,
            leadership,
            objects: Route::start(objects, base),
            heads: Route::start(heads, position.seq),
            keys: Route::start(keys, 0),
            mirror: task
                .mirror
                .as_ref()
                .map(|mirror| (Route::start(&mirror.heads, position.seq), Route::start(&mirror.keys, 0))),
            ring: task.app.keys.subscribe(),
            stated: None,
            position,
            delta: Delta::default(),
            newest: None,
            in_force: None,
            upcoming: None,
            making: JoinSet::new(),
            base_made: Instant::now(),
            tidying: JoinSet::new(),
            tidied: Instant::now(),
            as_of: UnixTime(0),
            is_behind: false,
            recoveries: 0,
            alarmed: None,
            listeners: None,
            sooner: 0,
            said: None,
            owed: None,
            saying: JoinSet::new(),
        };
        term.load_delta().await?;
        Ok(term)
    }

    /// Until the connection breaks, or the process stops and what is queued has gone out.
    pub(super) async fn lead(mut self, stopping: &mut watch::Receiver<bool>) -> Result<(), Ended> {
        tokio::select! {
            confirmed = self.confirm() => confirmed?,
            () = stopped(stopping) => return Ok(()),
        }
        // Whether the store still has what an earlier leader put there isn't known, so it gets a base anew.
        self.read_base();
        loop {
            self.publish().await?;
            tokio::select! {
                news = self.wait_for_news(Instant::now()) => news?,
                () = stopped(stopping) => break,
            }
        }
        // Where nobody takes over, the edge would learn only at the next start of what was revoked last.
        timeout(LAST_HEAD, self.finish()).await.unwrap_or(Err(Ended::OutOfTime))
    }

    /// Publishes what is queued, and waits until it has arrived.
    async fn finish(&mut self) -> Result<(), Ended> {
        self.publish().await?;
        while self.is_behind {
            self.publish().await?;
        }
        // Without a base there is no head to wait for; the next start makes both.
        while self.position.base.is_some() && !self.heads.lag().is_zero() {
            self.heads.news().await.map_err(|_| Ended::Courier)?;
            self.note_delivery()?;
        }
        Ok(())
    }

    /// Shows the hub where the database stands, before anything gets a number. A database that was restored from a backup would otherwise
    /// count past the hub and be believed, without what was revoked since; the hub refuses it here, until an operator raises the epoch.
    async fn confirm(&mut self) -> Result<(), Ended> {
        while self.position.base.is_some() {
            let as_of = self.leadership.now().await?;
            let parcel = self.send_head(as_of).await;
            let next_try = sleep_until(Instant::now() + HEARTBEAT);
            tokio::pin!(next_try);
            loop {
                self.report();
                tokio::select! {
                    () = &mut next_try => break,
                    Some(said) = self.saying.join_next() => self.note_said(said),
                    news = self.heads.news() => {
                        news.map_err(|_| Ended::Courier)?;
                        // Refused: the alarm is raised, and the position read again below, where an operator may have changed it.
                        _ = self.note_delivery();
                        // A base that is gone, as after a restore, is no other history: a new one is made next.
                        let heads = &self.heads;
                        if parcel.is_some_and(|parcel| heads.has_delivered(parcel) || heads.lacks_base_of(parcel)) {
                            return Ok(());
                        }
                    }
                }
            }
            self.position = self.leadership.position().await?;
            self.load_delta().await?;
        }
        Ok(())
    }

    /// Returns when there is something to publish, after `published` was the last time.
    async fn wait_for_news(&mut self, published: Instant) -> Result<(), Ended> {
        loop {
            self.report();
            let heartbeat = published + self.pause();
            tokio::select! {
                woken = self.leadership.woken() => {
                    woken?;
                    sleep_until(published + COALESCE).await;
                    return Ok(());
                }
                () = sleep_until(self.owed.unwrap_or(heartbeat)), if self.owed.is_some() => {}
                () = sleep_until(heartbeat) => {
                    self.sooner += u32::from(heartbeat < published + HEARTBEAT);
                    return Ok(());
                }
                // The ring lives as long as the process.
                Ok(()) = self.ring.changed() => return Ok(()),
                news = self.keys.news() => {
                    news.map_err(|_| Ended::Courier)?;
                    self.keys.settle();
                }
                news = self.objects.news() => {
                    news.map_err(|_| Ended::Courier)?;
                    self.objects.settle();
                    if self.put_base_in_force().await? {
                        return Ok(());
                    }
                }
                news = self.heads.news() => {
                    news.map_err(|_| Ended::Courier)?;
                    self.note_delivery()?;
                }
                news = mirrored(&mut self.mirror) => news?,
                Some(made) = self.making.join_next() => self.send_base(made.unwrap_or(Err(NotMade::Interrupted))).await?,
                Some(said) = self.saying.join_next() => self.note_said(said),
                Some(gone) = self.tidying.join_next() => self.forget(&gone.unwrap_or_default()).await?,
            }
        }
    }

    /// How long after the last head the next one goes out.
    fn pause(&self) -> Duration {
        let (times, pause) = SOONER;
        let sent = (self.position.epoch, self.position.seq);
        let waits =
            self.listeners.is_some_and(|listeners| listeners.count > 0 && listeners.position() < sent);
        if self.is_behind {
            COALESCE
        } else if waits && self.sooner < times {
            pause
        } else {
            HEARTBEAT
        }
    }

    /// Reads what is queued and sends a head that has it.
    async fn publish(&mut self) -> Result<(), Ended> {
        self.leadership.drain();
        // From before anything is read. The hub refuses to count a head as news whose time is earlier than the last one's, so it mustn't be our own
        // clock's, which may be behind that of who led before.
        let mut as_of = self.leadership.now().await?;
        let began = Instant::now();
        self.is_behind = false;
        loop {
            let (position, entries) = self.leadership.sequence().await?;
            let all = entries.len() < BATCH;
            let expected = Position { seq: self.position.seq + entries.len() as u64, ..self.position };
            self.position = position;
            if position != expected {
                // Somebody else wrote: a leader that hasn't noticed yet that it was unseated, or an operator.
                self.load_delta().await?;
                break;
            }
            if !entries.is_empty() {
                self.sooner = 0;
                self.delta.extend(entries);
            }
            if all {
                break;
            }
            if began.elapsed() > NUMBERING {
                // What there is goes out, and doesn't pretend to be all there was now.
                self.is_behind = true;
                if self.as_of.0 > 0 {
                    as_of = self.as_of;
                }
                break;
            }
        }
        self.note_position();
        self.make_base();
        self.tidy().await?;
        self.state_keys().await;
        _ = self.send_head(as_of).await;
        Ok(())
    }

    fn note_position(&mut self) {
        self.heads.note(self.position.seq);
        if let Some((heads, _)) = &mut self.mirror {
            heads.note(self.position.seq);
        }
    }

    /// Sends a statement of the keys, unless the newest was sent already.
    async fn state_keys(&mut self) {
        let keys = match self.task.app.keys.fresh().await {
            Ok(keys) => keys,
            Err(error) => {
                error!("the keys can't be read, so the edge isn't told of new ones: {error}");
                return;
            }
        };
        _ = self.ring.borrow_and_update();
        let position = (self.position.epoch, keys.version);
        if self.stated.as_ref().is_some_and(|stated| stated.position == position) {
            return;
        }
        let issuer = self.task.app.issuer_url.as_str();
        let payload = artifacts::key_statement(issuer, position, &keys.tokens.published.keys, clock::now());
        match self.task.app.keys.sign_head(KEY_STATEMENT_TYPE, payload.into_bytes()).await {
            Ok(jws) if jws.len() > MAX_KEY_STATEMENT_BYTES => {
                error!(
                    bytes = jws.len(),
                    "there are too many keys for the edge to be told of them: retire some"
                );
            }
            Ok(jws) => {
                let artifact = Arc::new(Artifact::Keys(jws));
                let parcel = self.keys.send(artifact.clone(), keys.version, None);
                if let Some((_, mirrored)) = &mut self.mirror {
                    mirrored.send(artifact.clone(), keys.version, None);
                }
                self.stated = Some(Stated { position, parcel, artifact });
            }
            Err(error) => error!("the key statement can't be signed: {error}"),
        }
    }

    /// The version of the key statement that goes with heads of this epoch.
    fn stated_version(&self) -> Option<u64> {
        let (epoch, version) = self.stated.as_ref()?.position;
        (epoch == self.position.epoch).then_some(version)
    }

    /// Signs and sends the head; its parcel's number. Before the first base was stored there is none.
    async fn send_head(&mut self, as_of: UnixTime) -> Option<u64> {
        // A clock that was set back must not make every heartbeat look like an old one.
        self.as_of = if as_of < self.as_of { self.as_of.plus(1) } else { as_of };
        let issuer = self.task.app.issuer_url.as_str();
        let keys = self.stated_version();
        let payload = artifacts::head(issuer, &self.position, &self.delta, keys, self.as_of)?;
        match self.task.app.keys.sign_head(HEAD_TYPE, payload.into_bytes()).await {
            Ok(jws) if jws.len() > MAX_HEAD_BYTES => {
                error!(bytes = jws.len(), "the head is too long to be pushed until a new base can be stored");
                None
            }
            Ok(jws) => {
                // An object that this term has made goes with it, for who keeps both.
                let base = self
                    .in_force
                    .clone()
                    .filter(|base| self.position.base.is_some_and(|(_, sha256)| sha256 == base.sha256));
                let artifact = Arc::new(Artifact::Head(jws, base));
                let (seq, as_of) = (self.position.seq, Some(self.as_of.0));
                if let Some((mirrored, _)) = &mut self.mirror {
                    mirrored.send(artifact.clone(), seq, as_of);
                }
                Some(self.heads.send(artifact, seq, as_of))
            }
            Err(error) => {
                error!("the head can't be signed: {error}");
                None
            }
        }
    }

    /// Has a base made of everything sequenced so far, from the database: heads go out meanwhile, and go on naming the old one.
    fn read_base(&mut self) {
        self.base_made = Instant::now();
        if let Some(matter) = cutoff(clock::now()) {
            let database = self.task.app.database.clone();
            self.making.spawn(reading::read_all(database, self.position.seq, matter));
        }
    }

    /// The same of the newest base and what came since, if it is time for that.
    fn make_base(&mut self) {
        if !self.making.is_empty() {
            return;
        }
        let age = self.base_made.elapsed();
        // What came between it and the base in force isn't in the delta, if somebody else made that.
        let in_force = self.position.base.map_or(0, |(seq, _)| seq);
        let Some(newest) = self.newest.as_ref().filter(|newest| newest.covers >= in_force) else {
            if age > TRY_AGAIN {
                self.read_base();
            }
            return;
        };
        let is_time = match &self.upcoming {
            None => self.delta.calls_for_base(newest.bytes.len(), age),
            // The store doesn't take it. When it does, it had better be one that makes the delta short again.
            Some(upcoming) => upcoming.since.elapsed() > REPLACE_EVERY && newest.covers < self.position.seq,
        };
        if !is_time {
            return;
        }
        self.base_made = Instant::now();
        if let Some(matter) = cutoff(clock::now()) {
            let covers = self.position.seq;
            let entries = self.delta.entries_after(newest.covers);
            self.making.spawn(reading::extend(newest.clone(), entries, covers, matter));
        }
    }

    /// Sends a base off that was made.
    async fn send_base(&mut self, made: Result<Arc<BaseObject>, NotMade>) -> Result<(), Ended> {
        let object = match made {
            Ok(object) => object,
            Err(cause) => {
                warn!("a base object couldn't be made, trying again: {cause}");
                self.newest = None;
                return Ok(());
            }
        };
        // It is remembered before it can be there: none is left behind by a leader that dies.
        if let Some(store) = self.objects.sink.store() {
            self.leadership.remember_object(store.place(), object.sha256).await?;
        }
        let parcel = self.objects.send(Arc::new(Artifact::Object(object.clone())), object.covers, None);
        self.newest = Some(object.clone());
        self.upcoming = Some(Upcoming { parcel, object, since: Instant::now() });
        Ok(())
    }

    /// If the upcoming base was stored, heads name it from now on. Whether that changes anything.
    async fn put_base_in_force(&mut self) -> Result<bool, Ended> {
        let objects = &self.objects;
        let Some(stored) = self.upcoming.take_if(|upcoming| objects.has_delivered(upcoming.parcel)) else {
            return Ok(false);
        };
        let object = stored.object;
        if self.position.base.is_some_and(|(seq, _)| seq > object.covers) {
            return Ok(false); // somebody else's has more
        }
        let same = self.position.base.is_some_and(|(_, sha256)| sha256 == object.sha256);
        self.in_force = Some(object.clone());
        if same && !self.delta.reaches_back_to(object.covers) {
            return Ok(false);
        }
        let expected = self.position.seq + 1;
        self.position = self.leadership.set_base(object.covers, object.sha256).await?;
        if self.position.seq == expected {
            self.delta = std::mem::take(&mut self.delta).after(object.covers);
        } else {
            self.load_delta().await?;
        }
        self.note_position();
        Ok(true)
    }

    /// Has the store delete what no head can refer to any more.
    async fn tidy(&mut self) -> Result<(), Ended> {
        let Some(store) = self.objects.sink.store() else { return Ok(()) };
        if self.tidied.elapsed() < TIDY_EVERY || !self.tidying.is_empty() {
            return Ok(());
        }
        self.tidied = Instant::now();
        let (place, kept) = (store.place(), OBJECT_KEPT.as_secs());
        let due = self.leadership.objects_due(place, kept, MAX_DELETED).await?;
        // What this term is about to put in force, again, is none of them.
        let kept = self.upcoming.as_ref().map(|upcoming| upcoming.object.sha256);
        let due: Vec<[u8; 32]> = due.into_iter().filter(|sha256| Some(*sha256) != kept).collect();
        if due.is_empty() {
            return Ok(());
        }
        let sink = self.objects.sink.clone();
        self.tidying.spawn(async move {
            let names: Vec<String> = due.iter().map(|sha256| format!("base/{}", hex(sha256))).collect();
            let Some(store) = sink.store() else { return Vec::new() };
            let gone = store.delete(&names).await.unwrap_or_else(|cause| {
                warn!(sink = sink.name(), "old base objects can't be deleted, trying on: {cause}");
                Vec::new()
            });
            due.into_iter()
                .zip(names)
                .filter(|(_, name)| gone.contains(name))
                .map(|(sha256, _)| sha256)
                .collect()
        });
        Ok(())
    }

    async fn forget(&mut self, gone: &[[u8; 32]]) -> Result<(), Ended> {
        if let (Some(store), false) = (self.objects.sink.store(), gone.is_empty()) {
            info!(objects = gone.len(), "deleted base objects that no head refers to any more");
            self.leadership.forget_objects(store.place(), gone).await?;
        }
        Ok(())
    }

    /// A head arrived, or doesn't for now.
    fn note_delivery(&mut self) -> Result<(), Ended> {
        let delivery = self.heads.settle();
        self.listeners = delivery.receipt.listeners;
        // An edge that was away may have come back with an empty store: it gets the base again.
        if delivery.recoveries > self.recoveries {
            self.recoveries = delivery.recoveries;
            if let (Some(base), None) = (self.in_force.clone(), &self.upcoming) {
                let covers = base.covers;
                self.objects.send(Arc::new(Artifact::Object(base)), covers, None);
            }
        }
        // So does a hub that has lost its keys.
        if let Some(stated) = self.stated.as_mut()
            && self.keys.has_delivered(stated.parcel)
            && delivery.receipt.keys < Some(stated.position)
        {
            stated.parcel = self.keys.send(stated.artifact.clone(), stated.position.1, None);
        }
        self.check_superseded(&delivery)
    }

    /// Ends the term if the hub holds another history.
    fn check_superseded(&mut self, delivery: &Delivery) -> Result<(), Ended> {
        let Some((epoch, seq)) = delivery.superseded_by else { return Ok(()) };
        if (epoch, seq) < (self.position.epoch, self.position.seq) {
            return Ok(()); // the answer to a head that was followed by another
        }
        if self.alarmed.is_none_or(|alarmed| alarmed.elapsed() > REMIND) {
            self.alarmed = Some(Instant::now());
            error!(
                hub_epoch = epoch,
                hub_seq = seq,
                epoch = self.position.epoch,
                seq = self.position.seq,
                "the hub holds a head that this database didn't make: it looks restored from a backup. Nothing is published until an \
                 operator runs `countersign recover`"
            );
        }
        self.report();
        Err(Ended::Superseded)
    }

    /// Reads the delta anew, expired shards and all: one position has one content.
    async fn load_delta(&mut self) -> Result<(), Ended> {
        let after = self.position.base.map_or(0, |(seq, _)| seq);
        self.delta = Delta::new(self.leadership.entries(after, self.position.seq).await?);
        Ok(())
    }

    fn note_said(&mut self, said: Result<Result<(), StorageError>, JoinError>) {
        if let Ok(Err(cause)) = said {
            warn!("how publishing goes can't be told, trying on: {cause}");
            // What everybody has been sent is said again.
            if let Some((_, said)) = &mut self.said {
                said.listeners = None;
            }
        }
    }

    fn routes(&self) -> impl Iterator<Item = &Route> {
        let mirror = self.mirror.iter().flat_map(|(heads, keys)| [heads, keys]);
        [&self.objects, &self.heads, &self.keys].into_iter().chain(mirror)
    }

    /// Says how it goes: to this process's probes at once, and through the database to every issuer.
    fn report(&mut self) {
        let Position { epoch, seq, base } = self.position;
        let in_force =
            self.in_force.as_ref().filter(|object| base.is_some_and(|(_, sha256)| sha256 == object.sha256));
        let report = Report {
            epoch,
            seq,
            as_of: self.heads.as_of(),
            base: in_force.map(|object| object.figures()),
            delta: self.delta.figures(),
            listeners: self.listeners,
            sinks: self.routes().map(Route::report).collect(),
        };
        let failing = self.routes().filter_map(|route| Some((route.sink.name(), route.failing_since()?)));
        let failing = failing.collect();
        self.task.app.publisher.set_report(report.clone(), self.heads.lag(), failing);

        let said = self.said.as_ref();
        let heard = |report: &Report| report.listeners.map(|listeners| listeners.position());
        let acknowledged =
            said.is_none_or(|(_, said)| heard(said) != heard(&report)) && self.listeners.is_some();
        let matters = |report: &Report| {
            let failing: Vec<bool> = report.sinks.iter().map(|sink| sink.error.is_some()).collect();
            (report.epoch, report.base, failing)
        };
        let is_time = said.is_none_or(|(when, said)| {
            let since = when.elapsed();
            since >= HEARTBEAT || since >= SAY_EVERY && (acknowledged || matters(said) != matters(&report))
        });
        // When the one before is told, or it is time, this is looked at again.
        let matters_now = acknowledged || said.is_some_and(|(_, said)| matters(said) != matters(&report));
        let next = said.map(|(when, _)| *when + SAY_EVERY);
        self.owed = next.filter(|_| matters_now && !is_time && self.saying.is_empty());
        if is_time && self.saying.is_empty() {
            let database = self.task.app.database.clone();
            self.said = Some((Instant::now(), report.clone()));
            self.saying.spawn(async move { publication::say(&database, &report, acknowledged).await });
        }
    }
}

/// Returns when there is news of the mirror's deliveries.
async fn mirrored(mirror: &mut Option<(Route, Route)>) -> Result<(), Ended> {
    let Some((heads, keys)) = mirror else { return std::future::pending().await };
    tokio::select! {
        news = heads.news() => news.map(|()| _ = heads.settle()),
        news = keys.news() => news.map(|()| _ = keys.settle()),
    }
    .map_err(|_| Ended::Courier)
}
