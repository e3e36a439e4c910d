//! Walking a chain row by row and naming what doesn't fit. No I/O; memory is bounded, whatever the chain's length.
//!
//! Each row's hash says what it contains, at which place it stands and after which row. A row that doesn't match where it stands is a suspect. At the end
//! suspects are tried at each other's places: one that matches elsewhere was moved; one that matches where it stands, after another suspect,
//! is as it was, and only its neighbour isn't. What matches nowhere was changed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use super::chain::{START, hash};
use crate::domain::audit::{Hash, Sealed};

/// Suspects that are tried at each other's places. Of more, each is reported as changed.
const MAX_SUSPECTS: usize = 48;
/// Findings that are kept; the others are counted.
const MAX_FINDINGS: usize = 1000;
/// How far rows may have been renumbered, and how many rows back a row's true predecessor is looked for.
const REACH: i64 = 8;

/// What was done to a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Rows that were there are gone.
    Removed,
    /// A row is there that wasn't.
    Inserted,
    /// A row stands at another place than it did.
    Reordered,
    /// A row isn't what it was.
    Changed,
}

impl Kind {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Inserted => "inserted",
            Self::Reordered => "reordered",
            Self::Changed => "changed",
        }
    }
}

/// Where and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was done.
    pub kind: Kind,
    /// The first place that is concerned.
    pub seq: i64,
    /// The last one; mostly the same.
    pub last_seq: i64,
    /// The event there now; `None` where it is gone, or several are concerned.
    pub event_id: Option<Uuid>,
    /// For people.
    pub explanation: String,
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order of the chain.
    pub findings: Vec<Finding>,
    /// How many more there were.
    pub more: usize,
}

/// A row that was passed.
#[derive(Debug, Clone, Copy)]
struct Passed {
    seq: i64,
    event_id: Uuid,
    hash: Hash,
}

/// A row that doesn't match where it stands.
struct Suspect {
    row: Sealed,
    /// By how much the numbers were off where it was met.
    shift: i64,
    /// The rows before it, the nearest first.
    before: Vec<Passed>,
}

/// A run of rows that were renumbered.
struct Renumbered {
    from: i64,
    /// By how much their places were higher before.
    shift: i64,
}

/// Missing places.
#[derive(Debug, Clone, Copy)]
struct Gap {
    first: i64,
    last: i64,
    before: Hash,
}

/// A walk along one chain.
pub struct Walk {
    /// Where it began: the last event that is gone by right, or nothing.
    start: i64,
    /// The rows just passed, the nearest first; before the first row, the checkpoint.
    recent: VecDeque<Passed>,
    rows: u64,
    shift: i64,
    suspects: Vec<Suspect>,
    gaps: Vec<Gap>,
    /// Where the numbers were found to be off by another amount than before. The first one is 0 from the start.
    renumbered: Vec<Renumbered>,
    found: Found,
}

impl Walk {
    /// From the chain's beginning, or after the event that `checkpoint` names (its `seq` and hash).
    pub fn new(checkpoint: Option<(i64, Hash)>) -> Self {
        let (seq, hash) = checkpoint.unwrap_or((0, START));
        let start = Passed { seq, event_id: Uuid::nil(), hash };
        Self {
            start: seq,
            recent: VecDeque::from([start]),
            rows: 0,
            shift: 0,
            suspects: Vec::new(),
            gaps: Vec::new(),
            renumbered: vec![Renumbered { from: seq + 1, shift: 0 }],
            found: Found::default(),
        }
    }

    /// How many rows were passed.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether rows are missing before `row`.
    pub fn skips_to(&self, row: &Sealed) -> bool {
        row.seq > self.last().seq + 1
    }

    /// What comes next is after the event of `checkpoint`: what was in between was dropped while we walked.
    pub fn advance(&mut self, checkpoint: (i64, Hash)) {
        if checkpoint.0 > self.last().seq {
            let event_id = Uuid::nil();
            self.recent.push_front(Passed { seq: checkpoint.0, event_id, hash: checkpoint.1 });
        }
    }

    /// The next row of the chain, in the order of `seq`.
    pub fn pass(&mut self, row: &Sealed) {
        self.rows += 1;
        if row.seq <= self.start {
            let explanation = "it stands before the chain's first event".to_owned();
            return self.find_row(Kind::Inserted, row, explanation);
        }
        let last = self.last();
        if row.seq <= last.seq {
            return self.pass_double(row);
        }
        if row.seq > last.seq + 1 {
            // What follows hangs on what is gone: it can't be checked, the rows after it can.
            self.gaps.push(Gap { first: last.seq + 1, last: row.seq - 1, before: last.hash });
            if self.gaps.len() > MAX_SUSPECTS {
                let gap = self.gaps.remove(0);
                self.find_gap(gap, "");
            }
            return self.step(row);
        }
        if matches(&last.hash, row, row.seq + self.shift) {
            return self.step(row);
        }
        // Where a row was taken out or put in and the later ones renumbered, they match with another number.
        let shift = (-REACH..=REACH).find(|shift| matches(&last.hash, row, row.seq + shift));
        if let Some(shift) = shift {
            self.renumbered.push(Renumbered { from: last.seq, shift });
            self.shift = shift;
            return self.step(row);
        }
        if self.suspects.len() == MAX_SUSPECTS {
            let explanation = "its hash is not that of what it says, at this place".to_owned();
            self.find_row(Kind::Changed, row, explanation);
        } else {
            let before = self.recent.iter().copied().collect();
            self.suspects.push(Suspect { row: row.clone(), shift: self.shift, before });
        }
        self.step(row);
    }

    /// A second row at the last one's place: one of them was put there.
    fn pass_double(&mut self, row: &Sealed) {
        let explanation = "there is another event at this place, which fits".to_owned();
        let fits = |before: &[Passed]| {
            before.first().is_some_and(|before| matches(&before.hash, row, row.seq + self.shift))
        };
        let first_is_wrong =
            self.suspects.last().is_some_and(|suspect| suspect.row.seq == row.seq && fits(&suspect.before));
        if first_is_wrong && let Some(wrong) = self.suspects.pop() {
            self.recent.pop_front();
            self.find_row(Kind::Inserted, &wrong.row, explanation);
            return self.step(row);
        }
        self.find_row(Kind::Inserted, row, explanation);
    }

    fn last(&self) -> Passed {
        let nothing = Passed { seq: self.start, event_id: Uuid::nil(), hash: START };
        self.recent.front().copied().unwrap_or(nothing)
    }

    fn step(&mut self, row: &Sealed) {
        self.recent.push_front(Passed { seq: row.seq, event_id: row.entry.event_id, hash: row.hash });
        self.recent.truncate(usize::try_from(REACH).unwrap_or(1) + 1);
    }

    /// Ends the walk: `end` is the last event's `seq` and hash by what is kept beside the chain.
    pub fn finish(mut self, end: Option<(i64, Hash)>) -> Found {
        let heads = self.judge_renumbering();
        let moved = self.judge_suspects(&heads);
        for gap in std::mem::take(&mut self.gaps) {
            // A row that stands elsewhere now isn't gone.
            if gap.first != gap.last || !moved.contains_key(&gap.first) {
                self.find_gap(gap, "");
            }
        }
        self.judge_end(end, &moved);
        self.found.findings.sort_by_key(|finding| (finding.seq, finding.last_seq, finding.kind));
        self.found
    }

    /// Finds what changes of numbers mean. Returns the places at which they begin.
    fn judge_renumbering(&mut self) -> BTreeSet<i64> {
        let changes = std::mem::take(&mut self.renumbered);
        let heads = changes.iter().skip(1).map(|change| change.from).collect();
        // A change that is taken back further on was a run of rows that stands elsewhere now.
        let mut open: Vec<Renumbered> = Vec::new();
        for change in changes {
            let Some(opened) = open.iter().position(|earlier| earlier.shift == change.shift) else {
                open.push(change);
                continue;
            };
            let mut runs = open.drain(opened + 1..).peekable();
            let mut moved = Vec::new();
            while let Some(run) = runs.next() {
                let until = runs.peek().map_or(change.from, |next| next.from) - 1;
                moved.push((run.from, until, run.shift));
            }
            drop(runs);
            for (from, until, shift) in moved {
                let explanation = format!("events {} to {} stand here now", from + shift, until + shift);
                self.find(Kind::Reordered, from, until, None, explanation);
            }
        }
        for pair in open.windows(2) {
            let [before, after] = pair else { continue };
            let count = after.shift - before.shift;
            if count > 0 {
                let (first, last) = (after.from + before.shift, after.from + after.shift - 1);
                let explanation = "the events after it were renumbered".to_owned();
                self.find(Kind::Removed, first, last, None, explanation);
                continue;
            }
            // The events put in stand just before the first renumbered one: which has its true predecessor further back.
            let rows = -count;
            let position = self.suspects.iter().position(|suspect| suspect.row.seq == after.from);
            let inserted: Vec<Passed> = position
                .and_then(|position| self.suspects.get(position))
                .map(|suspect| {
                    suspect.before.iter().copied().take(usize::try_from(rows).unwrap_or(0)).collect()
                })
                .unwrap_or_default();
            for passed in inserted {
                self.suspects.retain(|suspect| suspect.row.seq != passed.seq);
                let explanation = "the events after it were renumbered".to_owned();
                self.find(Kind::Inserted, passed.seq, passed.seq, Some(passed.event_id), explanation);
            }
        }
        heads
    }

    /// Tries the suspects at each other's places. Returns the places that moved rows had, with those where they stand.
    fn judge_suspects(&mut self, heads: &BTreeSet<i64>) -> BTreeMap<i64, i64> {
        let suspects = std::mem::take(&mut self.suspects);
        let mut predecessors: Vec<Hash> = Vec::new();
        let mut places: Vec<i64> = Vec::new();
        let mut hashes: BTreeSet<Hash> = BTreeSet::new();
        for suspect in &suspects {
            predecessors.extend(suspect.before.first().map(|passed| passed.hash));
            predecessors.push(suspect.row.hash);
            places.extend([suspect.row.seq, suspect.row.seq + suspect.shift]);
            hashes.insert(suspect.row.hash);
        }
        for gap in &self.gaps {
            predecessors.push(gap.before);
            places.extend((gap.first..=gap.last).take(usize::try_from(REACH).unwrap_or(0)));
        }
        predecessors.sort_unstable();
        predecessors.dedup();
        places.sort_unstable();
        places.dedup();

        let mut moved = BTreeMap::new();
        // Where numbers begin to be off, a row is as it was; what stands before it now isn't what did.
        for suspect in suspects.iter().filter(|suspect| !heads.contains(&suspect.row.seq)) {
            let row = &suspect.row;
            let true_place = predecessors.iter().find_map(|previous| {
                let here = row.seq + suspect.shift;
                std::iter::once(&here)
                    .chain(&places)
                    .copied()
                    .find(|place| hashes.contains(&hash(previous, &row.entry, *place, row.recorded_at)))
            });
            match true_place {
                Some(place) if place == row.seq + suspect.shift => {}
                Some(place) => {
                    moved.insert(place, row.seq);
                    self.find_row(Kind::Reordered, row, format!("its place was {place}"));
                }
                None => self.find_row(Kind::Changed, row, changed(suspect)),
            }
        }
        moved
    }

    /// Whether the chain ends where it is said to.
    fn judge_end(&mut self, end: Option<(i64, Hash)>, moved: &BTreeMap<i64, i64>) {
        let last = self.last();
        let place = last.seq + self.shift;
        let Some((seq, hash)) = end else {
            if self.rows > 0 || self.start > 0 {
                let explanation = "the record of where the chain ends is gone".to_owned();
                self.find(Kind::Removed, place + 1, place + 1, None, explanation);
            }
            return;
        };
        if place < seq {
            return self
                .find_gap(Gap { first: place + 1, last: seq, before: last.hash }, ", at the chain's end");
        }
        let shift = self.shift;
        let near: Vec<Passed> = self
            .recent
            .iter()
            .copied()
            .filter(|passed| passed.seq + shift > seq && passed.seq > self.start)
            .collect();
        let first = seq - shift + 1;
        if let Some(nearest) = near.last().filter(|nearest| nearest.seq > first) {
            let explanation = format!("the chain ends with {seq}");
            self.find(Kind::Inserted, first, nearest.seq - 1, None, explanation);
        }
        for beyond in near {
            if !moved.values().any(|stands| *stands == beyond.seq) {
                let explanation = format!("the chain ends with {seq}");
                self.find(Kind::Inserted, beyond.seq, beyond.seq, Some(beyond.event_id), explanation);
            }
        }
        let named = |finding: &Finding| (finding.seq..=finding.last_seq).contains(&last.seq);
        if place == seq && last.hash != hash && !self.found.findings.iter().any(named) {
            let explanation = "it was rewritten together with its hash".to_owned();
            self.find(Kind::Changed, last.seq, last.seq, Some(last.event_id), explanation);
        }
    }

    fn find_gap(&mut self, gap: Gap, where_: &str) {
        let explanation = match gap.last - gap.first {
            0 => format!("one event{where_}"),
            more => format!("{} events{where_}", more + 1),
        };
        self.find(Kind::Removed, gap.first, gap.last, None, explanation);
    }

    fn find_row(&mut self, kind: Kind, row: &Sealed, explanation: String) {
        self.find(kind, row.seq, row.seq, Some(row.entry.event_id), explanation);
    }

    fn find(&mut self, kind: Kind, seq: i64, last_seq: i64, event_id: Option<Uuid>, explanation: String) {
        if self.found.findings.len() == MAX_FINDINGS {
            self.found.more += 1;
        } else {
            self.found.findings.push(Finding { kind, seq, last_seq, event_id, explanation });
        }
    }
}

/// Whether `row` is what stood at `place` after the event with the hash `previous`.
fn matches(previous: &Hash, row: &Sealed, place: i64) -> bool {
    hash(previous, &row.entry, place, row.recorded_at) == row.hash
}

/// Of a row that fits nowhere.
fn changed(suspect: &Suspect) -> String {
    match suspect.before.first() {
        // Both look the same: of an event before, only the hash is seen from here.
        Some(before) if !before.event_id.is_nil() => format!(
            "its hash is not that of what it says; or the event before it, {}, was rewritten together with its hash",
            before.event_id
        ),
        _ => "its hash is not that of what it says".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::{End, extend};
    use crate::domain::audit::{Entry, INSTALLATION};
    use time::macros::datetime;

    /// A chain of `count` events, and its end.
    fn chain(count: u8) -> (Vec<Sealed>, (i64, Hash)) {
        let time = datetime!(2026-11-21 07:00:00 UTC);
        let entry = |number: u8| Entry {
            event_id: Uuid::from_bytes([number; 16]),
            occurred_at: time,
            tenant_id: INSTALLATION,
            actor: None,
            action: "token.issued".into(),
            outcome: "success".into(),
            target_type: None,
            target_id: None,
            request_id: None,
            client_ip: None,
            user_agent: None,
            details: "{}".into(),
        };
        let mut ends = BTreeMap::<Uuid, End>::new();
        let rows = extend((1..=count).map(entry).collect(), &mut ends, time);
        let end = &ends[&INSTALLATION];
        (rows, (end.seq, end.hash))
    }

    /// What is found in `rows`, which stand in the order of their `seq`: kind, first and last place, and the event's number.
    fn walk(rows: &[Sealed], end: Option<(i64, Hash)>) -> Vec<(Kind, i64, i64, Option<u8>)> {
        walk_from(None, rows, end)
    }

    fn walk_from(
        checkpoint: Option<(i64, Hash)>,
        rows: &[Sealed],
        end: Option<(i64, Hash)>,
    ) -> Vec<(Kind, i64, i64, Option<u8>)> {
        let mut rows = rows.to_vec();
        rows.sort_by_key(|row| row.seq);
        let mut walk = Walk::new(checkpoint);
        for row in &rows {
            walk.pass(row);
        }
        let found = walk.finish(end);
        let shown = |finding: Finding| {
            (finding.kind, finding.seq, finding.last_seq, finding.event_id.map(|id| id.as_bytes()[0]))
        };
        found.findings.into_iter().map(shown).collect()
    }

    fn renumber(rows: &mut [Sealed], from: i64, by: i64) {
        rows.iter_mut().filter(|row| row.seq >= from).for_each(|row| row.seq += by);
    }

    #[test]
    fn nothing_is_found_where_nothing_was_done() {
        let (rows, end) = chain(40);
        assert_eq!(walk(&rows, Some(end)), []);
        assert_eq!(walk(&[], None), []);
        let checkpoint = (10, rows[9].hash);
        assert_eq!(walk_from(Some(checkpoint), &rows[10..], Some(end)), []);
        assert_eq!(walk_from(Some(end), &[], Some(end)), []);
    }

    #[test]
    fn a_changed_event_is_named_and_no_other() {
        for place in [0, 7, 39] {
            let (mut rows, end) = chain(40);
            rows[place].entry.outcome = "failure".into();
            let number = u8::try_from(place + 1).unwrap();
            assert_eq!(walk(&rows, Some(end)), [(Kind::Changed, number.into(), number.into(), Some(number))]);
        }
        let (mut rows, end) = chain(40);
        for place in [3, 4, 30] {
            rows[place].entry.details = "{\"x\":1}".into();
        }
        let found = walk(&rows, Some(end));
        assert_eq!(found.iter().map(|finding| finding.1).collect::<Vec<_>>(), [4, 5, 31]);
    }

    #[test]
    fn one_that_was_rewritten_with_its_hash_shows_at_the_next_or_at_the_end() {
        for (place, shows) in [(7, 9), (39, 40)] {
            let (mut rows, end) = chain(40);
            rows[place].entry.outcome = "failure".into();
            let row = &rows[place];
            rows[place].hash = hash(&rows[place - 1].hash, &row.entry, row.seq, row.recorded_at);
            let found = walk(&rows, Some(end));
            assert_eq!(
                found.iter().map(|finding| (finding.0, finding.1)).collect::<Vec<_>>(),
                [(Kind::Changed, shows)]
            );
        }
    }

    #[test]
    fn removed_events_are_named_by_their_places() {
        let (rows, end) = chain(40);
        let without = |range: std::ops::RangeInclusive<i64>| -> Vec<Sealed> {
            rows.iter().filter(|row| !range.contains(&row.seq)).cloned().collect()
        };
        assert_eq!(walk(&without(1..=1), Some(end)), [(Kind::Removed, 1, 1, None)]);
        assert_eq!(walk(&without(7..=9), Some(end)), [(Kind::Removed, 7, 9, None)]);
        assert_eq!(walk(&without(40..=40), Some(end)), [(Kind::Removed, 40, 40, None)]);
        assert_eq!(walk(&without(1..=40), Some(end)), [(Kind::Removed, 1, 40, None)]);
        assert_eq!(walk(&rows, None), [(Kind::Removed, 41, 41, None)], "what says where it ends");
    }

    #[test]
    fn removed_and_renumbered_is_removed() {
        for count in [1, 3] {
            let (rows, end) = chain(40);
            let mut rows: Vec<Sealed> =
                rows.into_iter().filter(|row| !(7..7 + count).contains(&row.seq)).collect();
            renumber(&mut rows, 7, -count);
            assert_eq!(walk(&rows, Some(end)), [(Kind::Removed, 7, 6 + count, None)]);
        }
    }

    #[test]
    fn inserted_events_are_named() {
        let (rows, end) = chain(40);
        let mut new = rows[0].clone();
        new.entry.event_id = Uuid::from_bytes([99; 16]);
        let proper = |previous: &Sealed, seq: i64| {
            let hash = hash(&previous.hash, &new.entry, seq, new.recorded_at);
            Sealed { seq, hash, ..new.clone() }
        };
        // At a place that is taken, before or after the event there.
        for first in [true, false] {
            let mut more = rows.clone();
            more.insert(if first { 6 } else { 7 }, Sealed { seq: 7, ..new.clone() });
            assert_eq!(walk(&more, Some(end)), [(Kind::Inserted, 7, 7, Some(99))], "{first}");
        }
        // At the end, with a hash that fits.
        let more = [rows.clone(), vec![proper(&rows[39], 41)]].concat();
        assert_eq!(walk(&more, Some(end)), [(Kind::Inserted, 41, 41, Some(99))]);
        // In between, with the later ones renumbered; with a hash that fits and with one that doesn't.
        for hash in [proper(&rows[5], 7).hash, [9; 32]] {
            let mut more = rows.clone();
            renumber(&mut more, 7, 1);
            more.push(Sealed { seq: 7, hash, ..new.clone() });
            assert_eq!(walk(&more, Some(end)), [(Kind::Inserted, 7, 7, Some(99))]);
        }
        // Before the beginning.
        let checkpoint = (10, rows[9].hash);
        assert_eq!(walk_from(Some(checkpoint), &rows[9..], Some(end)), [(Kind::Inserted, 10, 10, Some(10))]);
    }

    #[test]
    fn events_that_changed_places_are_named_and_those_around_them_are_not() {
        for (one, two) in [(3, 5), (3, 4), (2, 38), (38, 39)] {
            // Their numbers, or all but their numbers and hashes.
            let (mut rows, end) = chain(40);
            let number = |place: usize| u8::try_from(place + 1).unwrap();
            let seq = rows[one].seq;
            rows[one].seq = rows[two].seq;
            rows[two].seq = seq;
            let swapped = [
                (Kind::Reordered, number(one).into(), number(one).into(), Some(number(two))),
                (Kind::Reordered, number(two).into(), number(two).into(), Some(number(one))),
            ];
            assert_eq!(walk(&rows, Some(end)), swapped, "{one} {two}");

            let (mut rows, end) = chain(40);
            let entry = rows[one].entry.clone();
            rows[one].entry = std::mem::replace(&mut rows[two].entry, entry);
            assert_eq!(walk(&rows, Some(end)), swapped, "contents of {one} {two}");
        }
    }

    #[test]
    fn three_that_went_round_are_named() {
        let (mut rows, end) = chain(40);
        for (place, seq) in [(3, 11), (10, 21), (20, 4)] {
            rows[place].seq = seq;
        }
        let found = walk(&rows, Some(end));
        assert_eq!(
            found.iter().map(|finding| (finding.0, finding.1)).collect::<Vec<_>>(),
            [(Kind::Reordered, 4), (Kind::Reordered, 11), (Kind::Reordered, 21)]
        );
    }

    #[test]
    fn one_that_was_put_at_the_end_is_no_removed_one() {
        let (mut rows, end) = chain(40);
        rows[6].seq = 41;
        assert_eq!(walk(&rows, Some(end)), [(Kind::Reordered, 41, 41, Some(7))]);
    }

    #[test]
    fn runs_that_changed_places_are_named_as_runs() {
        let (mut rows, end) = chain(40);
        for row in &mut rows {
            row.seq = match row.seq {
                11..=14 => row.seq + 4,
                15..=18 => row.seq - 4,
                other => other,
            };
        }
        let found = walk(&rows, Some(end));
        let places = |finding: &(Kind, i64, i64, Option<u8>)| (finding.0, finding.1, finding.2);
        assert_eq!(
            found.iter().map(places).collect::<Vec<_>>(),
            [(Kind::Reordered, 11, 14), (Kind::Reordered, 15, 18)]
        );
    }

    #[test]
    fn what_was_dropped_by_right_while_it_is_walked_is_not_missed() {
        let (rows, end) = chain(40);
        let mut walk = Walk::new(None);
        rows[..5].iter().for_each(|row| walk.pass(row));
        assert!(walk.skips_to(&rows[20]));
        walk.advance((20, rows[19].hash));
        assert!(!walk.skips_to(&rows[20]));
        rows[20..].iter().for_each(|row| walk.pass(row));
        assert_eq!(walk.finish(Some(end)).findings, []);
    }

    #[test]
    fn what_is_found_is_bounded() {
        let (mut rows, end) = chain(200);
        for row in &mut rows {
            row.entry.details = "[]".into();
        }
        assert_eq!(walk(&rows, Some(end)).len(), 200);
        let mut walk = Walk::new(Some((1 << 40, START)));
        for _ in 0..20 {
            for row in &rows {
                walk.pass(row);
            }
        }
        let found = walk.finish(Some((1 << 40, START)));
        assert_eq!((found.findings.len(), found.more), (MAX_FINDINGS, 3000));
    }
}
