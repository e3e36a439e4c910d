//! The base object: everything revoked up to some point, immutable and named by its SHA-256.

use super::bytes::Reader;
use super::shard_set::{Entry, ShardSet};
use super::{FormatError, Rules};
use crate::ids::{Coordinate, Shard};
use alloc::vec::Vec;

/// The tables at the beginning of an object.
pub(super) struct Tables {
    pub(super) seq: u64,
    pub(super) rules: u32,
    /// Ascending by shard.
    pub(super) shards: Vec<(Shard, Entry)>,
}

impl Tables {
    /// Reads them; the shards' words come next, then the rules.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        if reader.array()? != MAGIC || reader.u16()? != VERSION || reader.u16()? != 0 {
            return Err(FormatError::Version);
        }
        let (shard_count, rules, seq) = (reader.u32()?, reader.u32()?, reader.u64()?);
        let mut shards: Vec<(Shard, Entry)> = Vec::new();
        for _ in 0..shard_count {
            let shard = Shard::new(reader.u32()?).ok_or(FormatError::Shard)?;
            if shards.last().is_some_and(|(last, _)| *last >= shard) {
                return Err(FormatError::Shard);
            }
            shards.push((shard, Entry::read(reader)?));
        }
        Ok(Self { seq, rules, shards })
    }
}

const MAGIC: [u8; 4] = *b"CSRB";
const VERSION: u16 = 1;
#[cfg(feature = "builder")]
pub(super) const HEADER_BYTES: usize = 24;

/// A base object, ready for look-ups. [`Base::default`] is the empty one.
#[derive(Debug, Clone, Default)]
pub struct Base {
    seq: u64,
    entries: u64,
    /// The object as it came; the sets are looked up in it.
    bytes: Vec<u8>,
    /// Ascending by shard.
    shards: Vec<(Shard, ShardSet)>,
    rules: Rules,
}

impl Base {
    /// Reads a base object. `digest` is the SHA-256 of `bytes` by the host's primitive, `expected` the one that a head names; they are
    /// compared before anything is parsed.
    pub fn parse(bytes: &[u8], digest: &[u8; 32], expected: &[u8; 32]) -> Result<Self, FormatError> {
        if digest != expected {
            return Err(FormatError::Digest);
        }
        let mut reader = Reader::new(bytes);
        let Tables { seq, rules, shards } = Tables::read(&mut reader)?;
        let entries = shards.iter().fold(0_u64, |sum, (_, entry)| sum.saturating_add(entry.count()));
        let shards = shards
            .iter()
            .map(|(shard, entry)| Ok((*shard, ShardSet::read(entry, &mut reader)?)))
            .collect::<Result<_, FormatError>>()?;
        let rules = Rules::read(&mut reader, rules.into())?;
        reader.end()?;
        Ok(Self { seq, entries, bytes: bytes.to_vec(), shards, rules })
    }

    /// How many serials it holds.
    pub const fn len(&self) -> u64 {
        self.entries
    }

    /// Whether it holds no serial.
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// How many not-before rules it holds.
    pub const fn rule_count(&self) -> usize {
        self.rules.0.len()
    }

    /// Its size in bytes.
    pub const fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The `seq` of the newest entry in it.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn contains(&self, coordinate: Coordinate) -> bool {
        let place = self.shards.binary_search_by_key(&coordinate.shard, |(shard, _)| *shard);
        place.is_ok_and(|place| self.shards[place].1.contains(&self.bytes, coordinate.serial))
    }

    pub(super) const fn rules(&self) -> &Rules {
        &self.rules
    }
}

/// Appends what comes before the shard table.
#[cfg(feature = "builder")]
pub(super) fn write_header(seq: u64, shards: usize, rules: usize, out: &mut Vec<u8>) {
    // Both are far below: there are 2²⁴ shards.
    let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&number(shards).to_le_bytes());
    out.extend_from_slice(&number(rules).to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
}
