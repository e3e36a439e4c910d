//! The delta: what was revoked since the base. Additions only.

use super::bytes::Reader;
use super::{FormatError, Rules};
use crate::ids::{Coordinate, Serial, Shard};
use alloc::vec::Vec;

/// What was revoked since a base. [`Delta::default`] is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Ascending.
    coordinates: Vec<Coordinate>,
    rules: Rules,
}

impl Delta {
    /// Reads a delta.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let mut coordinates = Vec::new();
        let mut previous_shard = None;
        for _ in 0..reader.leb128()? {
            let step = reader.leb128()?;
            let shard = match previous_shard {
                None => Some(step),
                Some(_) if step == 0 => None,
                Some(previous) => u64::checked_add(previous, step),
            };
            let number = shard.ok_or(FormatError::Number)?;
            previous_shard = Some(number);
            let shard = u32::try_from(number).ok().and_then(Shard::new).ok_or(FormatError::Number)?;
            read_serials(&mut reader, shard, &mut coordinates)?;
        }
        let rule_count = reader.leb128()?;
        let rules = Rules::read(&mut reader, rule_count)?;
        reader.end()?;
        Ok(Self { coordinates, rules })
    }

    /// How many serials it adds.
    pub const fn len(&self) -> usize {
        self.coordinates.len()
    }

    /// Whether it adds no serial.
    pub const fn is_empty(&self) -> bool {
        self.coordinates.is_empty()
    }

    /// How many not-before rules it adds.
    pub const fn rule_count(&self) -> usize {
        self.rules.0.len()
    }

    pub(super) fn contains(&self, coordinate: Coordinate) -> bool {
        self.coordinates.binary_search(&coordinate).is_ok()
    }

    pub(super) const fn rules(&self) -> &Rules {
        &self.rules
    }
}

/// The serials of one shard: a count, the first, then gaps.
fn read_serials(reader: &mut Reader<'_>, shard: Shard, out: &mut Vec<Coordinate>) -> Result<(), FormatError> {
    let count = reader.leb128()?;
    if count == 0 {
        return Err(FormatError::Number);
    }
    let mut serial = reader.leb128()?;
    for left in (0..count).rev() {
        out.push(Coordinate { shard, serial: Serial::new(serial).ok_or(FormatError::Number)? });
        if left > 0 {
            let gap = reader.leb128()?;
            serial =
                serial.checked_add(gap).and_then(|next| next.checked_add(1)).ok_or(FormatError::Number)?;
        }
    }
    Ok(())
}

/// Encodes what was revoked since a base, in any order and with duplicates.
#[cfg(feature = "builder")]
pub fn encode_delta(entries: &[Coordinate], rules: &[super::Rule]) -> Vec<u8> {
    use super::bytes::write_leb128;

    let mut entries = entries.to_vec();
    entries.sort_unstable();
    entries.dedup();
    let shards: Vec<&[Coordinate]> = entries.chunk_by(|a, b| a.shard == b.shard).collect();

    let mut out = Vec::with_capacity(8 + entries.len() * 3);
    write_leb128(shards.len() as u64, &mut out);
    let mut previous_shard = 0;
    for shard in shards {
        let number = shard[0].shard.get();
        write_leb128(u64::from(number - previous_shard), &mut out);
        write_leb128(shard.len() as u64, &mut out);
        write_leb128(shard[0].serial.get(), &mut out);
        for pair in shard.windows(2) {
            write_leb128(pair[1].serial.get() - pair[0].serial.get() - 1, &mut out);
        }
        previous_shard = number;
    }
    let rules = Rules::merged(rules);
    write_leb128(rules.len() as u64, &mut out);
    Rules::write(&rules, &mut out);
    out
}
