//! One time of leading: from getting the lock to losing it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use countersign_shared::UnixTime;
use countersign_shared::key_statement::{KEY_STATEMENT_TYPE, MAX_KEY_STATEMENT_BYTES};
use countersign_shared::revocation::{HEAD_TYPE, MAX_HEAD_BYTES};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::error;

use super::artifacts::{self, BaseObject, Delta, cutoff};
use super::courier::Courier;
use super::leader::{Ended, Task};
use super::sinks::Artifact;
use crate::clock;
use crate::keys::Keys;
use crate::storage::outbox::{Leadership, Position};

/// A head is signed again this often, with a new `as_of`, whether or not anything changed. With the hub's three seconds at most for
/// an answer, an edge's knowledge stays under its limit of five (edge-verifier/entry/revocations.ts).
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Changes that come sooner after the last push than this wait, and go out together. After a quiet time nothing waits.
const COALESCE: Duration = Duration::from_millis(100);
/// That the hub is ahead of the database is said again this often.
const REMIND: Duration = Duration::from_mins(1);
/// Heads whose way is followed one by one.
const MAX_SENT: usize = 1000;

pub(super) struct Term<'t> {
    task: &'t Task,
    leadership: Leadership,
    objects: Courier,
    heads: Courier,
    keys: Courier,
    /// Tells when the keys have changed.
    ring: watch::Receiver<Arc<Keys>>,
    stated: Option<Stated>,
    position: Position,
    delta: Delta,
    /// The base that this term has stored.
    base: Option<Arc<Artifact>>,
    base_made: Instant,
    upcoming: Option<Upcoming>,
    /// Heads on their way: their parcels' numbers and their seqs.
    sent: VecDeque<(u64, u64)>,
    /// Of the last head.
    as_of: UnixTime,
    recoveries: u64,
    alarmed: Option<Instant>,
}

/// A base on its way into the store.
struct Upcoming {
    parcel: u64,
    /// It has every entry up to this one, but for those of expired shards.
    seq: u64,
    sha256: [u8; 32],
    artifact: Arc<Artifact>,
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
        let mut term = Self {
            task,
            leadership,
            objects: Courier::start(task.objects.clone()),
            heads: Courier::start(task.heads.clone()),
            keys: Courier::start(task.keys.clone()),
            ring: task.app.keys.subscribe(),
            stated: None,
            position,
            delta: Delta::default(),
            base: None,
            base_made: Instant::now(),
            upcoming: None,
            sent: VecDeque::new(),
            as_of: UnixTime(0),
            recoveries: 0,
            alarmed: None,
        };
        term.load_delta().await?;
        // Whether the store still has what an earlier leader put there isn't known, so it gets it anew.
        term.make_base().await?;
        Ok(term)
    }

    pub(super) async fn lead(mut self) -> Result<Infallible, Ended> {
        self.confirm().await?;
        loop {
            self.publish().await?;
            self.wait_for_news(Instant::now()).await?;
        }
    }

    /// Shows the hub where the database stands, before anything gets a number. A database that was restored from a backup would otherwise
    /// count past the hub and be believed, without what was revoked since; the hub refuses it here, until an operator raises the epoch.
    async fn confirm(&mut self) -> Result<(), Ended> {
        while self.position.base.is_some() {
            let parcel = self.send_head(clock::now()).await;
            let next_try = sleep_until(Instant::now() + HEARTBEAT);
            tokio::pin!(next_try);
            loop {
                self.report();
                tokio::select! {
                    () = &mut next_try => break,
                    news = self.heads.delivery.changed() => {
                        news.map_err(|_| Ended::Courier)?;
                        // Refused: the alarm is raised, and the position read again below, where an operator may have changed it.
                        _ = self.note_delivery();
                        if parcel.is_some_and(|parcel| self.heads.delivery.borrow().delivered >= parcel) {
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
            tokio::select! {
                woken = self.leadership.woken() => {
                    woken?;
                    sleep_until(published + COALESCE).await;
                    return Ok(());
                }
                () = sleep_until(published + HEARTBEAT) => return Ok(()),
                // The ring lives as long as the process.
                Ok(()) = self.ring.changed() => return Ok(()),
                news = self.keys.delivery.changed() => news.map_err(|_| Ended::Courier)?,
                news = self.objects.delivery.changed() => {
                    news.map_err(|_| Ended::Courier)?;
                    if self.put_base_in_force().await? {
                        return Ok(());
                    }
                }
                news = self.heads.delivery.changed() => {
                    news.map_err(|_| Ended::Courier)?;
                    self.note_delivery()?;
                }
            }
        }
    }

    /// Reads what is queued and sends a head that has it.
    async fn publish(&mut self) -> Result<(), Ended> {
        self.leadership.drain();
        let as_of = clock::now(); // from before the database is read
        loop {
            let (position, entries) = self.leadership.sequence().await?;
            let expected = Position { seq: self.position.seq + entries.len() as u64, ..self.position };
            self.position = position;
            if position != expected {
                // Somebody else wrote: a leader that hasn't noticed yet that it was unseated, or an operator.
                self.load_delta().await?;
                break;
            }
            if entries.is_empty() {
                break;
            }
            self.delta.extend(entries);
        }
        self.task.app.publisher.set_seq(self.position.seq);
        if self.upcoming.is_none() && self.delta.calls_for_base(self.base_made.elapsed()) {
            self.make_base().await?;
        }
        self.state_keys().await;
        _ = self.send_head(as_of).await;
        Ok(())
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
                let parcel = self.keys.send(artifact.clone());
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
                if self.sent.len() == MAX_SENT {
                    self.sent.pop_front(); // a later one's arrival tells as much
                }
                let parcel = self.heads.send(Arc::new(Artifact::Head(jws)));
                self.sent.push_back((parcel, self.position.seq));
                Some(parcel)
            }
            Err(error) => {
                error!("the head can't be signed: {error}");
                None
            }
        }
    }

    /// Builds a base of everything sequenced so far and sends it off. Heads go on naming the old one until it is stored.
    async fn make_base(&mut self) -> Result<(), Ended> {
        self.base_made = Instant::now();
        let Some(matter) = cutoff(clock::now()) else { return Ok(()) };
        let seq = self.position.seq;
        let entries = self.leadership.entries(0, seq, Some(matter)).await?;
        let built = tokio::task::spawn_blocking(move || BaseObject::build(&entries)).await;
        let Ok(object) = built else {
            error!("building a base object was interrupted");
            return Ok(());
        };
        let sha256 = object.sha256;
        let artifact = Arc::new(Artifact::Object(object.name(), object.bytes));
        let parcel = self.objects.send(artifact.clone());
        self.upcoming = Some(Upcoming { parcel, seq, sha256, artifact });
        Ok(())
    }

    /// If the upcoming base was stored, heads name it from now on. Whether that changes anything.
    async fn put_base_in_force(&mut self) -> Result<bool, Ended> {
        let delivered = self.objects.delivery.borrow_and_update().delivered;
        let Some(stored) = self.upcoming.take_if(|upcoming| upcoming.parcel <= delivered) else {
            return Ok(false);
        };
        self.base = Some(stored.artifact);
        let same = self.position.base.is_some_and(|(_, sha256)| sha256 == stored.sha256);
        if same && !self.delta.reaches_back_to(stored.seq) {
            return Ok(false);
        }
        let expected = self.position.seq + 1;
        self.position = self.leadership.set_base(stored.seq, stored.sha256).await?;
        if self.position.seq == expected {
            self.delta = std::mem::take(&mut self.delta).after(stored.seq);
        } else {
            self.load_delta().await?;
        }
        Ok(true)
    }

    /// A head arrived, or doesn't for now.
    fn note_delivery(&mut self) -> Result<(), Ended> {
        let delivery = self.heads.delivery.borrow_and_update().clone();
        while let Some((_, seq)) = self.sent.pop_front_if(|(parcel, _)| *parcel <= delivery.delivered) {
            self.task.app.publisher.set_delivered(seq);
        }
        // An edge that was away may have come back with an empty store: it gets the base again.
        if delivery.recoveries > self.recoveries {
            self.recoveries = delivery.recoveries;
            if let (Some(base), None) = (&self.base, &self.upcoming) {
                self.objects.send(base.clone());
            }
        }
        // So does a hub that has lost its keys.
        let arrived = self.keys.delivery.borrow().delivered;
        if let Some(stated) = self.stated.as_mut().filter(|stated| stated.parcel <= arrived)
            && delivery.receipt.keys < Some(stated.position)
        {
            stated.parcel = self.keys.send(stated.artifact.clone());
        }
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
        Err(Ended::Superseded)
    }

    /// Reads the delta anew, expired shards and all: one position has one content.
    async fn load_delta(&mut self) -> Result<(), Ended> {
        let after = self.position.base.map_or(0, |(seq, _)| seq);
        self.delta = Delta::new(self.leadership.entries(after, self.position.seq, None).await?);
        Ok(())
    }

    fn report(&self) {
        let sinks = [
            (&self.objects, &self.task.objects),
            (&self.heads, &self.task.heads),
            (&self.keys, &self.task.keys),
        ];
        let failing = sinks.iter().filter_map(|(courier, sink)| {
            courier.delivery.borrow().failing_since.map(|since| (sink.name(), since))
        });
        self.task.app.publisher.set_failing(failing.collect());
    }
}
