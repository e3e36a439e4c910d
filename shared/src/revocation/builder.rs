//! Making base objects, within a memory that is proportional to what comes out.
//!
//! Entries come in any order. They gather in a buffer of fixed size; each time it is full it is sorted and packed, shard by shard,
//! as *runs*: Elias–Fano sets themselves. At the end the runs of a shard are merged right into the object. For 10 million entries
//! that takes about twice the object, all told, where sorting them as they come would take eight times as much.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::base::{self, Tables};
use super::bytes::Reader;
use super::shard_set::Entry;
use super::shard_set::Word;
use super::shard_set::build::{Cursor, Writer};
use super::{FormatError, Rule, Rules};
use crate::ids::{Coordinate, Serial, Shard};

/// Entries that are sorted at once: 3 MiB, and as much again to sort them.
const BUFFER: usize = 3 << 17;

/// Serials that are merged at once: a bit for each fits the cache.
const WINDOW: u64 = 1 << 18;

const SERIAL_BITS: u32 = Serial::LIMIT.trailing_zeros();

/// Makes the base object of what it is given: the same content, in any order and with duplicates, makes the same bytes. It may begin with an
/// object from before ([`Self::upon`]), which it borrows: shards that nothing was added to are copied as they are.
#[derive(Debug, Default)]
pub struct BaseBuilder<'o> {
    /// Shard and serial in one number, which sorts as they do.
    buffer: Vec<u64>,
    /// As long as the buffer was when it was sorted.
    scratch: Vec<u64>,
    runs: BTreeMap<u32, Vec<Run<'o>>>,
    rules: Vec<Rule>,
}

impl<'o> BaseBuilder<'o> {
    /// Without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// With what the base object `object` holds, as far as its shards and rules are to be kept. The object is one that a builder made: that its words are
    /// what its tables say is taken for granted.
    pub fn upon(
        object: &'o [u8],
        keeps_shard: impl Fn(Shard) -> bool,
        keeps_rule: impl Fn(&Rule) -> bool,
    ) -> Result<Self, FormatError> {
        let mut reader = Reader::new(object);
        let tables = Tables::read(&mut reader)?;
        let mut runs = BTreeMap::new();
        for (shard, entry) in tables.shards {
            let start = reader.position();
            reader.words(entry.high_words())?;
            reader.words(entry.low_words())?;
            let words = object.get(start..reader.position()).unwrap_or_default().as_chunks().0;
            if keeps_shard(shard) {
                runs.insert(shard.get(), vec![Run { entry, words: Cow::Borrowed(words) }]);
            }
        }
        let mut rules = Rules::read(&mut reader, tables.rules.into())?.0;
        rules.retain(keeps_rule);
        reader.end()?;
        Ok(Self { runs, rules, ..Self::default() })
    }

    /// Adds a revoked token.
    pub fn revoke(&mut self, token: Coordinate) {
        let length = self.buffer.len();
        if length == BUFFER {
            self.pack();
        } else if length == self.buffer.capacity() {
            self.buffer.reserve_exact(length.max(1024).min(BUFFER - length));
        }
        self.buffer.push(u64::from(token.shard.get()) << SERIAL_BITS | token.serial.get());
    }

    /// Adds a not-before rule. Of several for one subject the latest counts.
    pub fn end_up_to(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    /// The object. `seq` is that of the newest entry.
    pub fn finish(mut self, seq: u64) -> Vec<u8> {
        self.pack();
        (self.buffer, self.scratch) = (Vec::new(), Vec::new());
        let rules = Rules::merged(&self.rules);

        // At most: the same serial may be in several runs.
        let words: usize = self.runs.values().map(|runs| bounds(runs).words()).sum();
        let tables = base::HEADER_BYTES + self.runs.len() * (4 + Entry::BYTES);
        let mut out = Vec::with_capacity(tables + words * 8 + Rules::size(&rules));
        base::write_header(seq, self.runs.len(), rules.len(), &mut out);
        let mut table = out.len();
        out.resize(tables, 0);
        for (number, runs) in self.runs {
            let entry = write_shard(&runs, &mut out);
            let mut line = Vec::with_capacity(4 + Entry::BYTES);
            line.extend_from_slice(&number.to_le_bytes());
            entry.write(&mut line);
            out[table..table + line.len()].copy_from_slice(&line);
            table += line.len();
        }
        Rules::write(&rules, &mut out);
        out
    }

    /// Sorts what is in the buffer and makes a run of each shard's part.
    fn pack(&mut self) {
        sort(&mut self.buffer, &mut self.scratch);
        self.buffer.dedup();
        for entries in self.buffer.chunk_by(|a, b| a >> SERIAL_BITS == b >> SERIAL_BITS) {
            let shard = u32::try_from(entries[0] >> SERIAL_BITS).unwrap_or(u32::MAX);
            self.runs.entry(shard).or_default().push(Run::new(entries));
        }
        self.buffer.clear();
    }
}

/// What a base object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// The `seq` of its newest entry.
    pub seq: u64,
    /// Revoked tokens.
    pub tokens: u64,
    /// Not-before rules.
    pub rules: u32,
}

impl Contents {
    /// By the tables of `object`.
    pub fn of(object: &[u8]) -> Result<Self, FormatError> {
        let Tables { seq, rules, shards } = Tables::read(&mut Reader::new(object))?;
        Ok(Self { seq, tokens: shards.iter().map(|(_, entry)| entry.count()).sum(), rules })
    }
}

/// Some serials of a shard, ascending, packed.
#[derive(Debug)]
struct Run<'o> {
    entry: Entry,
    words: Cow<'o, [Word]>,
}

impl Run<'_> {
    /// Of packed coordinates of one shard: ascending, each once, at least one.
    fn new(entries: &[u64]) -> Self {
        let serial = |entry: &u64| entry & (Serial::LIMIT - 1);
        let end = entries.last().map_or(1, |last| serial(last) + 1);
        let entry = Entry::elias_fano(entries.len() as u64, end);
        let mut words = vec![Word::default(); entry.words()];
        let mut writer = Writer::new(&entry, &mut words);
        for entry in entries {
            writer.push(serial(entry));
        }
        Self { entry, words: Cow::Owned(words) }
    }
}

/// The entry of all serials in `runs`, if no two have one in common.
fn bounds(runs: &[Run<'_>]) -> Entry {
    let count = runs.iter().map(|run| run.entry.count()).sum();
    let end = runs.iter().map(|run| run.entry.end()).max().unwrap_or(1);
    Entry::smallest(count, end)
}

/// Appends the words of a shard.
fn write_shard(runs: &[Run<'_>], out: &mut Vec<u8>) -> Entry {
    let mut entry = bounds(runs);
    if let [run] = runs
        && run.entry == entry
    {
        out.extend_from_slice(run.words.as_flattened());
        return entry;
    }
    let start = out.len();
    loop {
        out.resize(start + entry.words() * 8, 0);
        let mut writer = Writer::new(&entry, out[start..].as_chunks_mut().0);
        each_ascending(runs, |serial| writer.push(serial));
        let count = writer.pushed();
        if count == entry.count() {
            return entry;
        }
        // Some were in several runs. Now their number is known.
        entry = Entry::smallest(count, entry.end());
        out.truncate(start);
    }
}

/// Calls `each` with every serial in `runs`, once, in ascending order.
///
/// A window at a time all runs set their bits in one bitmap, and that is read: for each serial a few instructions, however many runs there
/// are. A summary with a bit for each word of the bitmap makes reading it cheap where serials are sparse.
fn each_ascending(runs: &[Run<'_>], mut each: impl FnMut(u64)) {
    let cursors = runs.iter().map(|run| Cursor::new(&run.entry, &run.words));
    let mut heads: Vec<(u64, Cursor<'_>)> =
        cursors.filter_map(|mut cursor| cursor.next().map(|first| (first, cursor))).collect();
    if let [(first, cursor)] = heads.as_mut_slice() {
        each(*first);
        return cursor.for_each(each);
    }
    let mut bits = vec![0_u64; usize::try_from(WINDOW / 64).unwrap_or(0)];
    let mut summary = vec![0_u64; bits.len() / 64];
    while let Some(start) = heads.iter().map(|(head, _)| head / WINDOW * WINDOW).min() {
        heads.retain_mut(|(head, cursor)| {
            while *head - start < WINDOW {
                let place = usize::try_from(*head - start).unwrap_or(0);
                bits[place / 64] |= 1 << (place % 64);
                summary[place / 4096] |= 1 << (place / 64 % 64);
                match cursor.next() {
                    Some(next) => *head = next,
                    None => return false,
                }
            }
            true
        });
        for (group, summary) in summary.iter_mut().enumerate() {
            for index in ones(core::mem::take(summary)) {
                let index = group * 64 + index as usize;
                let base = start + index as u64 * 64;
                ones(core::mem::take(&mut bits[index])).for_each(|bit| each(base + u64::from(bit)));
            }
        }
    }
}

/// Positions of the ones in `word`, ascending.
fn ones(mut word: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let place = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (place < 64).then_some(place)
    })
}

/// Sorts, in half the time that comparing takes: by the first 22 of the bits that differ, in two steps from the lower to the higher half; what
/// has these in common lies together then, and is mostly one number. `scratch` is for its use.
fn sort(numbers: &mut Vec<u64>, scratch: &mut Vec<u64>) {
    const BITS: u32 = 11;
    const MASK: u64 = (1 << BITS) - 1;
    let first = numbers.first().copied().unwrap_or(0);
    let varying = numbers.iter().fold(0, |varying, number| varying | (number ^ first));
    let rest = (u64::BITS - varying.leading_zeros()).saturating_sub(2 * BITS);
    scratch.resize(numbers.len(), 0);
    for shift in [rest, rest + BITS] {
        let digit = |number: u64| usize::try_from((number >> shift) & MASK).unwrap_or(0);
        let mut places = [0_usize; 1 << BITS];
        for number in numbers.iter() {
            places[digit(*number)] += 1;
        }
        let mut next = 0;
        for place in &mut places {
            next += core::mem::replace(place, next);
        }
        for number in numbers.iter() {
            let place = &mut places[digit(*number)];
            scratch[*place] = *number;
            *place += 1;
        }
        core::mem::swap(numbers, scratch);
    }
    for alike in numbers.chunk_by_mut(|a, b| a >> rest == b >> rest).filter(|alike| alike.len() > 1) {
        alike.sort_unstable();
    }
}
