//! Making base objects and heads out of entries. No I/O.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use countersign_shared::revocation::{BaseBuilder, Head, encode_delta, hex};
use countersign_shared::{Coordinate, KeySet, KeyStatement, Shard, UnixTime};

use crate::domain::signing_key::HEAD_SECONDS;
use crate::domain::tenant::MAX_LIFETIME_SECONDS;
use crate::storage::outbox::{Cutoff, Entry, Position, Revoked};

/// The signed outer bound, in seconds, on how long a verifier may rely on a head. Its own limit, by its own clock, is 30 seconds; this one
/// compares two clocks, so it leaves them room.
const FRESH_SECONDS: i64 = HEAD_SECONDS as i64;
/// A delta of more bytes is made into a new base: every head carries it.
const DELTA_BYTES: usize = 8 * 1024;
/// So is a delta that is older, if it has entries.
const DELTA_AGE: Duration = Duration::from_mins(10);
/// Even a base that nothing was added to is made anew after this time: its expired shards fall out, and should its store have lost it, it
/// is there again.
const BASE_AGE: Duration = Duration::from_hours(1);
/// Shards are kept for this long after their tokens have expired, in seconds: a verifier's clock may be slow.
const SLOW_CLOCKS: i64 = 3600;

/// A base object, ready to be stored.
pub(super) struct BaseObject {
    pub(super) sha256: [u8; 32],
    pub(super) bytes: Vec<u8>,
}

impl BaseObject {
    /// Of `entries`: the same ones make the same object. Takes a quarter of a second for 10 million: not for an async thread.
    pub(super) fn build(entries: &[Entry]) -> Self {
        let seq = entries.iter().map(|entry| entry.seq).max().unwrap_or(0);
        let mut builder = BaseBuilder::new();
        for entry in entries {
            match &entry.revoked {
                Revoked::Token(coordinate) => builder.revoke(*coordinate),
                Revoked::UpTo(rule) => builder.end_up_to(rule.clone()),
            }
        }
        let bytes = builder.finish(seq);
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, &bytes).as_ref());
        Self { sha256, bytes }
    }

    /// Its key in the store.
    pub(super) fn name(&self) -> String {
        format!("base/{}", hex(&self.sha256))
    }
}

/// What no longer matters at `now`.
pub(super) fn cutoff(now: UnixTime) -> Option<Cutoff> {
    let shard = Shard::of_expiry(now.plus(-SLOW_CLOCKS))?;
    Some(Cutoff { shard, not_before: now.plus(-SLOW_CLOCKS - i64::from(MAX_LIFETIME_SECONDS)) })
}

/// What came since the base.
#[derive(Default)]
pub(super) struct Delta {
    entries: Vec<Entry>,
    encoded: Vec<u8>,
}

impl Delta {
    /// Of `entries`, none of which is in the base.
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let (mut coordinates, mut rules) = (Vec::<Coordinate>::new(), Vec::new());
        for entry in &entries {
            match &entry.revoked {
                Revoked::Token(coordinate) => coordinates.push(*coordinate),
                Revoked::UpTo(rule) => rules.push(rule.clone()),
            }
        }
        let encoded = encode_delta(&coordinates, &rules);
        Self { entries, encoded }
    }

    pub(super) fn extend(&mut self, entries: Vec<Entry>) {
        let mut all = std::mem::take(&mut self.entries);
        all.extend(entries);
        *self = Self::new(all);
    }

    /// Whether a base of everything up to `seq` would take something off it.
    pub(super) fn reaches_back_to(&self, seq: u64) -> bool {
        self.entries.iter().any(|entry| entry.seq <= seq)
    }

    /// What is left of it after such a base.
    pub(super) fn after(mut self, seq: u64) -> Self {
        self.entries.retain(|entry| entry.seq > seq);
        Self::new(self.entries)
    }

    /// Whether it is time for a new base, when the current one is of that age.
    pub(super) fn calls_for_base(&self, base_age: Duration) -> bool {
        self.encoded.len() > DELTA_BYTES
            || (base_age > DELTA_AGE && !self.entries.is_empty())
            || base_age > BASE_AGE
    }
}

/// The payload of the head for `position`; `as_of` is from before the database was read, `keys` the version of the key statement of its epoch. `None`
/// without a base.
pub(super) fn head(
    issuer: &str,
    position: &Position,
    delta: &Delta,
    keys: Option<u64>,
    as_of: UnixTime,
) -> Option<String> {
    let (_, base) = position.base?;
    let head = Head {
        issuer: issuer.to_owned(),
        epoch: position.epoch,
        seq: position.seq,
        base,
        delta: delta.encoded.clone(),
        as_of,
        fresh_until: as_of.plus(FRESH_SECONDS),
        keys,
    };
    Some(head.payload())
}

/// The payload of the statement of `keys`, at its place in the order.
pub(super) fn key_statement(
    issuer: &str,
    (epoch, version): (u64, u64),
    keys: &KeySet,
    issued_at: UnixTime,
) -> String {
    let keys = keys.clone();
    KeyStatement { issuer: issuer.to_owned(), epoch, version, issued_at, keys }.payload()
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_shared::Serial;

    fn entry(seq: u64, shard: u32, serial: u64) -> Entry {
        let coordinate =
            Coordinate { shard: Shard::new(shard).unwrap(), serial: Serial::new(serial).unwrap() };
        Entry { seq, revoked: Revoked::Token(coordinate) }
    }

    #[test]
    fn a_new_base_is_called_for_by_size_and_by_age() {
        let (young, old) = (Duration::from_secs(1), DELTA_AGE + Duration::from_secs(1));
        assert!(!Delta::new(Vec::new()).calls_for_base(old), "nothing to put into it");
        assert!(Delta::new(Vec::new()).calls_for_base(BASE_AGE + Duration::from_secs(1)), "expired shards");
        let small = Delta::new(vec![entry(1, 9, 9)]);
        assert!(!small.calls_for_base(young));
        assert!(small.calls_for_base(old));
        let large = Delta::new((0..40_000).map(|n| entry(n, 9, n * 2)).collect());
        assert!(large.calls_for_base(young));
    }

    #[test]
    fn what_a_base_has_leaves_the_delta() {
        let mut delta = Delta::new(vec![entry(1, 9, 1), entry(2, 9, 2)]);
        delta.extend(vec![entry(3, 9, 3)]);
        let rest = delta.after(2);
        assert_eq!(rest.entries, [entry(3, 9, 3)]);
        assert_eq!(rest.encoded, Delta::new(vec![entry(3, 9, 3)]).encoded);
    }

    #[test]
    fn the_same_entries_make_the_same_object() {
        let one = BaseObject::build(&[entry(1, 9, 1), entry(2, 8, 2)]);
        let other = BaseObject::build(&[entry(2, 8, 2), entry(1, 9, 1)]);
        assert_eq!(one.name(), other.name());
        assert!(one.name().starts_with("base/") && one.name().len() == 69);
    }
}
