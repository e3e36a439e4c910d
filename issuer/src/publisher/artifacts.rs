//! Making base objects and heads out of entries. No I/O.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Bytes;
use countersign_shared::revocation::{BaseBuilder, Contents, FormatError, Head, Rule, encode_delta, hex};
use countersign_shared::{Coordinate, KeySet, KeyStatement, Shard, UnixTime};

use crate::domain::publication::Figures;
use crate::domain::signing_key::HEAD_SECONDS;
use crate::domain::tenant::MAX_LIFETIME_SECONDS;
use crate::storage::outbox::{Cutoff, Entry, Position, Revoked};

/// The signed outer bound, in seconds, on how long a verifier may rely on a head. Its own limit, by its own clock, is 30 seconds; this one
/// compares two clocks, so it leaves them room.
const FRESH_SECONDS: i64 = HEAD_SECONDS as i64;
/// A delta that has more bytes than this part of its base is made into a new base: every head carries the delta, every isolate fetches each base, and
/// both together are least about here.
const DELTA_PART: usize = 16;
/// But not one of fewer bytes than this,
const SMALL_DELTA: usize = 8 * 1024;
/// and always one of more.
const LARGE_DELTA: usize = 96 * 1024;
/// Bases don't follow each other sooner.
const BASE_PAUSE: Duration = Duration::from_secs(2);
/// A delta that is older is made into a base too, if it has entries.
const DELTA_AGE: Duration = Duration::from_mins(10);
/// Even a base that nothing was added to is made anew after this time: its expired shards fall out, and should its store have lost it, it
/// is there again.
const BASE_AGE: Duration = Duration::from_hours(1);
/// Shards are kept for this long after their tokens have expired, in seconds: a verifier's clock may be slow.
const SLOW_CLOCKS: i64 = 3600;
/// How long a verifier may go on reading from a cache, in seconds (edge-verifier/entry/revocations.ts).
const KV_CACHE: i64 = 60;
/// For how long an object stays in its store after the last head was signed that names it: until that head has expired by the slowest clock.
pub(super) const OBJECT_KEPT: Duration =
    Duration::from_secs((FRESH_SECONDS + SLOW_CLOCKS + KV_CACHE).unsigned_abs());

/// A base object.
#[derive(Debug)]
pub(super) struct BaseObject {
    pub(super) sha256: [u8; 32],
    /// Shared with who sends it.
    pub(super) bytes: Bytes,
    /// It has every entry up to this one, but for those that no longer matter.
    pub(super) covers: u64,
    contents: Contents,
}

impl BaseObject {
    /// Its key in the store.
    pub(super) fn name(&self) -> String {
        format!("base/{}", hex(&self.sha256))
    }

    pub(super) fn figures(&self) -> Figures {
        Figures {
            bytes: self.bytes.len() as u64,
            entries: self.contents.tokens,
            rules: self.contents.rules.into(),
        }
    }

    fn finish(builder: BaseBuilder<'_>, newest: u64, covers: u64) -> Result<Self, FormatError> {
        let bytes = builder.finish(newest);
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, &bytes).as_ref());
        let contents = Contents::of(&bytes)?;
        Ok(Self { sha256, bytes: bytes.into(), covers, contents })
    }

    /// One that has `entries`, too, which came after what it has and go up to `covers`, and of all that what matters. The same as if it had been made at
    /// once. Where 10 million entries are in the same shard that takes a quarter of a second: not for an async thread.
    pub(super) fn with(&self, entries: &[Entry], covers: u64, matter: Cutoff) -> Result<Self, FormatError> {
        let mut builder =
            BaseBuilder::upon(&self.bytes, |shard| shard >= matter.shard, |rule| matters(rule, matter))?;
        for entry in entries {
            add(&mut builder, &entry.revoked, matter);
        }
        let newest = entries.iter().map(|entry| entry.seq).fold(self.contents.seq, u64::max);
        Self::finish(builder, newest, covers)
    }
}

/// Makes a base object of all that was ever revoked and matters, entry by entry in any order.
pub(super) struct Gathering {
    builder: BaseBuilder<'static>,
    matter: Cutoff,
}

impl Gathering {
    pub(super) fn new(matter: Cutoff) -> Self {
        Self { builder: BaseBuilder::new(), matter }
    }

    pub(super) fn add(&mut self, entries: &[Entry]) {
        for entry in entries {
            add(&mut self.builder, &entry.revoked, self.matter);
        }
    }

    /// `newest` is the seq of the newest entry there is up to `covers`, whether or not it matters: so no base ever has the bytes of one before it that had other
    /// entries.
    pub(super) fn finish(self, newest: u64, covers: u64) -> Result<BaseObject, FormatError> {
        BaseObject::finish(self.builder, newest, covers)
    }
}

fn add(builder: &mut BaseBuilder<'_>, revoked: &Revoked, matter: Cutoff) {
    match revoked {
        Revoked::Token(coordinate) if coordinate.shard >= matter.shard => builder.revoke(*coordinate),
        Revoked::UpTo(rule) if matters(rule, matter) => builder.end_up_to(rule.clone()),
        Revoked::Token(_) | Revoked::UpTo(_) => {}
    }
}

fn matters(rule: &Rule, matter: Cutoff) -> bool {
    rule.not_before() >= matter.not_before
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
    rules: usize,
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
        Self { entries, encoded, rules: rules.len() }
    }

    pub(super) fn extend(&mut self, entries: Vec<Entry>) {
        let mut all = std::mem::take(&mut self.entries);
        all.extend(entries);
        *self = Self::new(all);
    }

    /// What of it came after `seq`.
    pub(super) fn entries_after(&self, seq: u64) -> Vec<Entry> {
        self.entries.iter().filter(|entry| entry.seq > seq).cloned().collect()
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

    pub(super) fn figures(&self) -> Figures {
        Figures {
            bytes: self.encoded.len() as u64,
            entries: (self.entries.len() - self.rules) as u64,
            rules: self.rules as u64,
        }
    }

    /// Whether it is time for a new base, when the last one has that many bytes and was made so long ago.
    pub(super) fn calls_for_base(&self, base_bytes: usize, base_age: Duration) -> bool {
        let long = (base_bytes / DELTA_PART).clamp(SMALL_DELTA, LARGE_DELTA);
        (self.encoded.len() > long && base_age >= BASE_PAUSE)
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

    fn base_of(entries: &[Entry]) -> BaseObject {
        let mut gathering = Gathering::new(ALL);
        gathering.add(entries);
        let newest = entries.iter().map(|entry| entry.seq).max().unwrap_or(0);
        gathering.finish(newest, newest).unwrap()
    }

    const ALL: Cutoff = Cutoff { shard: Shard::new(0).unwrap(), not_before: UnixTime(0) };

    #[test]
    fn a_new_base_is_called_for_by_size_and_by_age() {
        let (young, old) = (Duration::from_secs(3), DELTA_AGE + Duration::from_secs(1));
        assert!(!Delta::new(Vec::new()).calls_for_base(0, old), "nothing to put into it");
        assert!(
            Delta::new(Vec::new()).calls_for_base(0, BASE_AGE + Duration::from_secs(1)),
            "expired shards"
        );
        let small = Delta::new(vec![entry(1, 9, 9)]);
        assert!(!small.calls_for_base(0, young));
        assert!(small.calls_for_base(0, old));
        let long = Delta::new((0..10_000).map(|n| entry(n, 9, n * 200)).collect());
        assert_eq!(long.encoded.len(), 20_004, "two bytes each");
        assert!(long.calls_for_base(0, young) && long.calls_for_base(320_000, young));
        assert!(!long.calls_for_base(330_000, young), "a larger base isn't rewritten for as little");
        assert!(!long.calls_for_base(0, Duration::from_secs(1)), "nor any as often");
        let longest = Delta::new((0..50_000).map(|n| entry(n, 9, n * 200)).collect());
        assert!(longest.calls_for_base(100_000_000, young));
    }

    #[test]
    fn what_a_base_has_leaves_the_delta() {
        let mut delta = Delta::new(vec![entry(1, 9, 1), entry(2, 9, 2)]);
        delta.extend(vec![entry(3, 9, 3)]);
        assert_eq!(delta.entries_after(2), [entry(3, 9, 3)]);
        let rest = delta.after(2);
        assert_eq!(rest.entries, [entry(3, 9, 3)]);
        assert_eq!(rest.encoded, Delta::new(vec![entry(3, 9, 3)]).encoded);
    }

    #[test]
    fn the_same_entries_make_the_same_object_in_any_order_and_in_steps() {
        let one = base_of(&[entry(1, 9, 1), entry(2, 8, 2), entry(3, 9, 3)]);
        let other = base_of(&[entry(3, 9, 3), entry(2, 8, 2), entry(1, 9, 1)]);
        let stepwise = base_of(&[entry(1, 9, 1)]).with(&[entry(3, 9, 3), entry(2, 8, 2)], 3, ALL).unwrap();
        assert_eq!([one.name(), one.name()], [other.name(), stepwise.name()]);
        assert!(one.name().starts_with("base/") && one.name().len() == 69);
        assert_eq!(one.figures().entries, 3);

        let later = Cutoff { shard: Shard::new(9).unwrap(), ..ALL };
        let rest = one.with(&[entry(4, 8, 4)], 4, later).unwrap();
        assert_eq!((rest.figures().entries, rest.covers), (2, 4), "expired ones fall out, and aren't added");
    }
}
