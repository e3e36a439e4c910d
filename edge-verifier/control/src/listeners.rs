//! The isolates that listen: each has one answer open, to which lines are added.
//!
//! Nothing is queued. A listener that is ready for more is given what is true at that moment, and a slow one skips what it missed; so
//! each costs the same little memory, however slow it is. One that doesn't take what it is owed is let go.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use serde::{Deserialize, Serialize};

/// How many may listen to one hub. Whoever comes on top gets a plain answer and asks again later.
pub(crate) const MAX_LISTENERS: usize = 5_000;
/// A listener that hasn't taken what it is owed for so long, in milliseconds, has gone or is too slow: by then it has asked anew.
const PATIENCE_MS: u64 = 5_000;

/// Where a head stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
}

/// Where a key statement stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct KeyPosition {
    pub(crate) epoch: u64,
    pub(crate) version: u64,
}

/// One that listens. All times are milliseconds by the hub's clock.
#[derive(Debug)]
pub(crate) struct Listener {
    /// When its answer ends.
    until: u64,
    /// Of the head that it was sent last.
    pub(crate) sent: Cell<Option<Position>>,
    /// Of the key statement that it has or was sent; `None`: it wants none.
    pub(crate) keys: Cell<Option<KeyPosition>>,
    /// Since when there has been something for it that it hasn't taken.
    owed_since: Cell<Option<u64>>,
    has_ended: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Listener {
    /// Takes what it is owed: whether there was anything. If not, the task is woken when there is.
    pub(crate) fn take(&self, context: &Context<'_>) -> bool {
        let is_owed = self.owed_since.take().is_some();
        if !is_owed {
            *self.waker.borrow_mut() = Some(context.waker().clone());
        }
        is_owed
    }

    /// Whether its answer ends here.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        self.has_ended.get() || now >= self.until
    }

    /// It listens no more.
    pub(crate) fn end(&self) {
        self.has_ended.set(true);
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// All that listen to one hub.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    all: RefCell<Vec<Rc<Listener>>>,
    told_at: Cell<u64>,
    opened: Cell<u64>,
    dropped: Cell<u64>,
}

/// How many listen, and how far all of them were told.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Heard {
    pub(crate) count: usize,
    /// The newest position that all of them have been sent: handed to their answers, which isn't yet received.
    #[serde(flatten)]
    pub(crate) position: Position,
}

/// For operators.
#[derive(Debug, Serialize)]
pub(crate) struct Counts {
    listening: usize,
    /// Since the object started.
    opened: u64,
    /// Likewise: that were let go because they took nothing.
    dropped: u64,
}

impl Listeners {
    /// One more, until `until`, that has the key statement of `keys`; it is owed its first line. `None`: there are too many.
    pub(crate) fn open(&self, now: u64, until: u64, keys: Option<KeyPosition>) -> Option<Rc<Listener>> {
        self.sweep(now);
        let mut all = self.all.borrow_mut();
        if all.len() >= MAX_LISTENERS {
            return None;
        }
        let listener = Rc::new(Listener {
            until,
            sent: Cell::default(),
            keys: Cell::new(keys),
            owed_since: Cell::new(Some(now)),
            has_ended: Cell::default(),
            waker: RefCell::default(),
        });
        all.push(Rc::clone(&listener));
        self.opened.set(self.opened.get() + 1);
        Some(listener)
    }

    /// There is something for everybody: news, or that there is none.
    pub(crate) fn tell(&self, now: u64) {
        self.told_at.set(now);
        self.sweep(now);
        for listener in self.all.borrow().iter() {
            if listener.owed_since.get().is_none() {
                listener.owed_since.set(Some(now));
            }
            listener.wake();
        }
    }

    /// How long ago that was, in milliseconds.
    pub(crate) fn told_ago(&self, now: u64) -> u64 {
        now.saturating_sub(self.told_at.get())
    }

    /// Forgets those that have ended, and lets go those that take nothing.
    fn sweep(&self, now: u64) {
        self.all.borrow_mut().retain(|listener| {
            let owed_for = listener.owed_since.get().map_or(0, |since| now.saturating_sub(since));
            if !listener.is_over(now) && owed_for > PATIENCE_MS {
                self.dropped.set(self.dropped.get() + 1);
                listener.end();
            }
            if listener.is_over(now) {
                // So that the answer ends, too.
                listener.wake();
            }
            !listener.is_over(now)
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.borrow().is_empty()
    }

    /// What they heard of a hub that holds `newest`. With nobody there, all heard everything.
    pub(crate) fn heard(&self, now: u64, newest: Position) -> Heard {
        self.sweep(now);
        let all = self.all.borrow();
        let nothing = Position { epoch: 0, seq: 0 };
        let oldest = all.iter().map(|listener| listener.sent.get().unwrap_or(nothing)).min();
        Heard { count: all.len(), position: oldest.unwrap_or(newest) }
    }

    pub(crate) fn counts(&self, now: u64) -> Counts {
        self.sweep(now);
        Counts { listening: self.all.borrow().len(), opened: self.opened.get(), dropped: self.dropped.get() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    const NEWEST: Position = Position { epoch: 1, seq: 7 };

    #[test]
    fn a_listener_that_takes_nothing_is_let_go_and_one_that_does_is_not() {
        let counter = Arc::new(Counter(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&counter));
        let context = Context::from_waker(&waker);
        let listeners = Listeners::default();
        let good = listeners.open(0, 60_000, None).expect("room");
        let slow = listeners.open(0, 60_000, None).expect("room");
        assert!(good.take(&context) && slow.take(&context), "both are owed a first line");
        for now in (1_000..=6_000).step_by(1_000) {
            assert!(!good.take(&context));
            listeners.tell(now);
            assert!(good.take(&context));
        }
        assert_eq!(counter.0.load(Ordering::Relaxed), 6, "woken each time");
        assert!(!slow.is_over(6_000), "owed since 1,000");
        listeners.tell(6_001);
        assert!(slow.is_over(6_001));
        assert!(!good.is_over(6_001));
        assert_eq!(listeners.heard(6_001, NEWEST).count, 1);
        assert_eq!(listeners.counts(6_001).dropped, 1);
    }

    #[test]
    fn what_all_have_heard_is_what_the_last_has_heard() {
        let listeners = Listeners::default();
        assert_eq!(listeners.heard(0, NEWEST), Heard { count: 0, position: NEWEST });
        let first = listeners.open(0, 1_000, None).expect("room");
        let second = listeners.open(0, 2_000, None).expect("room");
        assert_eq!(listeners.heard(0, NEWEST).position, Position { epoch: 0, seq: 0 });
        first.sent.set(Some(Position { epoch: 1, seq: 6 }));
        second.sent.set(Some(NEWEST));
        assert_eq!(listeners.heard(0, NEWEST), Heard { count: 2, position: Position { epoch: 1, seq: 6 } });
        // The first one's answer ends.
        assert_eq!(listeners.heard(1_000, NEWEST), Heard { count: 1, position: NEWEST });
        second.end();
        assert_eq!(listeners.heard(1_000, NEWEST).count, 0);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let listeners = Listeners::default();
        let held: Vec<_> =
            (0..MAX_LISTENERS).map(|_| listeners.open(0, 1_000, None).expect("room")).collect();
        assert!(listeners.open(0, 1_000, None).is_none());
        held[3].end();
        assert!(listeners.open(0, 1_000, None).is_some());
    }
}
