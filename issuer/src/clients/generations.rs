//! Counters that say whether a record may have changed since it was read.
//!
//! One for each subject would be as many as there are subjects; so they share [`STRIPES`] of them. Two that share one only cost each other a
//! query now and then.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

const STRIPES: usize = 4096;

/// The counters.
pub(super) struct Generations {
    all: AtomicU64,
    stripes: Box<[AtomicU64]>,
}

/// What the counters of a subject were at some instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    all: u64,
    stripe: u64,
}

impl Default for Generations {
    fn default() -> Self {
        Self { all: AtomicU64::new(0), stripes: (0..STRIPES).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Generations {
    pub(super) fn stamp(&self, subject: Uuid) -> Stamp {
        Stamp { all: self.all.load(Ordering::SeqCst), stripe: self.stripe(subject).load(Ordering::SeqCst) }
    }

    /// Makes every stamp of `subject` so far an old one.
    pub(super) fn advance(&self, subject: Uuid) {
        self.stripe(subject).fetch_add(1, Ordering::SeqCst);
    }

    /// Makes every stamp so far an old one.
    pub(super) fn advance_all(&self) {
        self.all.fetch_add(1, Ordering::SeqCst);
    }

    /// By the last bits, which are random in ours.
    fn stripe(&self, subject: Uuid) -> &AtomicU64 {
        let [.., high, low] = *subject.as_bytes();
        &self.stripes[usize::from(u16::from_be_bytes([high, low])) % STRIPES]
    }
}
