//! A sink, its courier, and what is on its way there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch::error::RecvError;

use super::courier::{Courier, Delivery};
use super::sinks::{Artifact, Sink};
use crate::domain::publication::SinkReport;

/// Changes and parcels whose way is followed one by one.
const MAX_FOLLOWED: usize = 1000;

pub(super) struct Route {
    pub(super) sink: Arc<dyn Sink>,
    courier: Courier,
    /// The newest change that is to go there, and the newest that is there.
    newest: u64,
    delivered: u64,
    /// Changes that aren't there, with since when.
    changes: VecDeque<(u64, Instant)>,
    sent: VecDeque<Sent>,
    /// Of the newest head that arrived.
    as_of: Option<i64>,
}

struct Sent {
    parcel: u64,
    change: u64,
    as_of: Option<i64>,
}

impl Route {
    /// `delivered`: up to where nothing is owed, as far as is known.
    pub(super) fn start(sink: &Arc<dyn Sink>, delivered: u64) -> Self {
        Self {
            sink: sink.clone(),
            courier: Courier::start(sink.clone()),
            newest: delivered,
            delivered,
            changes: VecDeque::new(),
            sent: VecDeque::new(),
            as_of: None,
        }
    }

    /// There is a change that has to go there.
    pub(super) fn note(&mut self, change: u64) {
        // The oldest are those that count.
        if change > self.newest && self.changes.len() < MAX_FOLLOWED {
            self.changes.push_back((change, Instant::now()));
        }
        self.newest = self.newest.max(change);
    }

    /// Sends an artifact with everything up to `change`; its parcel's number.
    pub(super) fn send(&mut self, artifact: Arc<Artifact>, change: u64, as_of: Option<i64>) -> u64 {
        self.note(change);
        if self.sent.len() == MAX_FOLLOWED {
            self.sent.pop_front(); // a later one's arrival tells as much
        }
        let parcel = self.courier.send(artifact);
        self.sent.push_back(Sent { parcel, change, as_of });
        parcel
    }

    /// Returns when there is news of deliveries; an error means that the courier is gone.
    pub(super) async fn news(&mut self) -> Result<(), RecvError> {
        self.courier.delivery.changed().await
    }

    /// Takes note of what has arrived.
    pub(super) fn settle(&mut self) -> Delivery {
        let delivery = self.courier.delivery.borrow_and_update().clone();
        while let Some(sent) = self.sent.pop_front_if(|sent| sent.parcel <= delivery.delivered) {
            self.delivered = sent.change;
            self.as_of = sent.as_of;
        }
        while self.changes.pop_front_if(|(change, _)| *change <= self.delivered).is_some() {}
        delivery
    }

    /// Whether the parcel, or one after it, is there.
    pub(super) fn has_delivered(&self, parcel: u64) -> bool {
        self.courier.delivery.borrow().delivered >= parcel
    }

    /// Whether the parcel would be there, had its base been, or one after it.
    pub(super) fn lacks_base_of(&self, parcel: u64) -> bool {
        self.courier.delivery.borrow().baseless >= parcel
    }

    /// Since when deliveries fail.
    pub(super) fn failing_since(&self) -> Option<Instant> {
        self.courier.delivery.borrow().failing_since.map(|(since, _)| since)
    }

    /// The `as_of` of the newest head that arrived.
    pub(super) const fn as_of(&self) -> Option<i64> {
        self.as_of
    }

    /// For how long the oldest change has waited.
    pub(super) fn lag(&self) -> Duration {
        self.changes.front().map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    pub(super) fn report(&self) -> SinkReport {
        let delivery = self.courier.delivery.borrow();
        SinkReport {
            sink: self.sink.name().to_owned(),
            lag_ms: u64::try_from(self.lag().as_millis()).unwrap_or(u64::MAX),
            lag_rows: self.newest.saturating_sub(self.delivered),
            last_success_at: delivery.last_success,
            failing_since: delivery.failing_since.map(|(_, since)| since),
            error: delivery.error.clone(),
        }
    }
}
