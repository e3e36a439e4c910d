//! The revoked serials of one shard: an Elias–Fano set, or a bitmap where that is smaller.
//!
//! Elias–Fano splits each serial into `low_bits` low bits, stored as they are, and a high part, stored in unary: a one for each
//! serial, a zero at the end of each bucket of serials with the same high part. About 2 + log₂(universe / count) bits a serial.
//! Look-up finds the bucket by selecting the zero before it; a sample every 512 zeros keeps that short.

#![expect(
    clippy::cast_possible_truncation,
    reason = "counts are within 36 bits and bounded by the words at hand, ranks within a word"
)]

use super::FormatError;
use super::bytes::Reader;
use crate::ids::Serial;

/// Every how many zeros the position of one is noted. (Denser samples gain nothing measurable, they only cost memory.)
const ZEROS_PER_SAMPLE: u64 = 512;

const ELIAS_FANO: u8 = 0;
const BITMAP: u8 = 1;

#[derive(Debug, Clone)]
pub(super) struct ShardSet {
    /// Largest serial + 1.
    end: u64,
    words: Words,
}

#[derive(Debug, Clone)]
enum Words {
    EliasFano {
        low_bits: u32,
        high: Vec<u64>,
        low: Vec<u64>,
        /// Bit position, in `high`, of zero number 0, 512, 1024, …
        samples: Vec<u32>,
    },
    Bitmap(Vec<u64>),
}

/// A shard's line in the table of a base object.
pub(super) struct Entry {
    encoding: u8,
    low_bits: u8,
    count: u64,
    end: u64,
    high_words: u32,
    low_words: u32,
}

impl Entry {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let (encoding, low_bits, reserved) = (reader.u8()?, reader.u8()?, reader.u16()?);
        let entry = Self {
            encoding,
            low_bits,
            count: reader.u64()?,
            end: reader.u64()?,
            high_words: reader.u32()?,
            low_words: reader.u32()?,
        };
        let sound = reserved == 0
            && (1..=Serial::LIMIT).contains(&entry.end)
            && (1..=entry.end).contains(&entry.count)
            && match encoding {
                ELIAS_FANO => {
                    low_bits <= 35
                        // Positions are kept in 32 bits.
                        && u32::try_from(entry.high_bits()).is_ok()
                        && u64::from(entry.high_words) == entry.high_bits().div_ceil(64)
                        && u64::from(entry.low_words) == (entry.count * u64::from(low_bits)).div_ceil(64)
                }
                BITMAP => {
                    low_bits == 0
                        && entry.low_words == 0
                        && u64::from(entry.high_words) == entry.end.div_ceil(64)
                }
                _ => false,
            };
        if sound { Ok(entry) } else { Err(FormatError::Shard) }
    }

    /// Zeros in the unary part: one for each bucket.
    const fn buckets(&self) -> u64 {
        ((self.end - 1) >> self.low_bits) + 1
    }

    const fn high_bits(&self) -> u64 {
        self.count + self.buckets()
    }
}

impl ShardSet {
    /// Copies the words that `entry` announces, and checks that they are what it says.
    pub(super) fn read(entry: &Entry, reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let high = reader.words(entry.high_words)?;
        let low = reader.words(entry.low_words)?;
        let (ones, bits) =
            (high.iter().map(|word| u64::from(word.count_ones())).sum::<u64>(), high.len() as u64 * 64);
        let used = if entry.encoding == BITMAP { entry.end } else { entry.high_bits() };
        let padding_is_zero = bits == used || high.last().is_some_and(|last| last >> (used % 64) == 0);
        if ones != entry.count || !padding_is_zero {
            return Err(FormatError::Words);
        }
        let words = if entry.encoding == BITMAP {
            Words::Bitmap(high)
        } else {
            let samples = sample_zeros(&high, entry.buckets());
            Words::EliasFano { low_bits: u32::from(entry.low_bits), high, low, samples }
        };
        Ok(Self { end: entry.end, words })
    }

    pub(super) fn contains(&self, serial: Serial) -> bool {
        let serial = serial.get();
        if serial >= self.end {
            return false;
        }
        match &self.words {
            Words::Bitmap(words) => bit(words, serial),
            Words::EliasFano { low_bits, high, low, samples } => {
                let bucket = serial >> low_bits;
                let wanted = serial & ((1 << low_bits) - 1);
                let mut position = if bucket == 0 { 0 } else { select_zero(high, samples, bucket - 1) + 1 };
                let mut rank = position - bucket;
                while bit(high, position) {
                    if bits_at(low, rank * u64::from(*low_bits), *low_bits) == wanted {
                        return true;
                    }
                    position += 1;
                    rank += 1;
                }
                false
            }
        }
    }
}

/// Bit number `position`; past the end all bits are zero.
fn bit(words: &[u64], position: u64) -> bool {
    word(words, position / 64) >> (position % 64) & 1 == 1
}

/// The `width` bits (0 to 35) from `position` on.
fn bits_at(words: &[u64], position: u64, width: u32) -> u64 {
    let (index, offset) = (position / 64, (position % 64) as u32);
    let mut value = word(words, index) >> offset;
    if offset + width > 64 {
        value |= word(words, index + 1) << (64 - offset);
    }
    value & ((1 << width) - 1)
}

fn word(words: &[u64], index: u64) -> u64 {
    usize::try_from(index).ok().and_then(|index| words.get(index)).copied().unwrap_or(0)
}

/// Positions of zero number 0, 512, 1024, … of `zeros` in all. Positions fit: the entry was checked.
fn sample_zeros(words: &[u64], zeros: u64) -> Vec<u32> {
    let mut samples = Vec::new();
    let (mut seen, mut next) = (0, 0);
    for (index, &word) in words.iter().enumerate() {
        let here = u64::from(word.count_zeros());
        // 64 bits hold at most one sample, since samples are 512 zeros apart.
        if next < zeros && seen + here > next {
            let position = index as u64 * 64 + u64::from(select_in_word(!word, (next - seen) as u32));
            samples.push(u32::try_from(position).unwrap_or(u32::MAX));
            next += ZEROS_PER_SAMPLE;
        }
        seen += here;
    }
    samples
}

/// Position of zero number `rank`, counted from 0.
fn select_zero(words: &[u64], samples: &[u32], rank: u64) -> u64 {
    let sample = usize::try_from(rank / ZEROS_PER_SAMPLE).ok().and_then(|index| samples.get(index));
    let start = sample.map_or(0, |position| u64::from(*position));
    // Counting starts at the sample's word: as many zeros more as stand before the sample in it.
    let mut index = start / 64;
    let before = (!word(words, index) & ((1 << (start % 64)) - 1)).count_ones();
    let mut left = rank % ZEROS_PER_SAMPLE + u64::from(before);
    while (index as usize) < words.len() {
        let zeros = !word(words, index);
        let here = u64::from(zeros.count_ones());
        if left < here {
            return index * 64 + u64::from(select_in_word(zeros, left as u32));
        }
        left -= here;
        index += 1;
    }
    index * 64
}

/// Position of one number `rank` in `word`, counted from 0; `word` has more than `rank` ones.
fn select_in_word(mut word: u64, rank: u32) -> u32 {
    for _ in 0..rank {
        word &= word.wrapping_sub(1);
    }
    word.trailing_zeros()
}

#[cfg(feature = "builder")]
pub(super) mod build {
    use super::{BITMAP, ELIAS_FANO, Entry};

    /// Table entry and words for `serials`, which are ascending, without duplicates and not empty.
    pub(in super::super) fn shard(serials: &[u64]) -> (Entry, Vec<u64>) {
        let count = serials.len() as u64;
        let end = serials.last().map_or(1, |last| last + 1);
        let low_bits = (end / count).max(1).ilog2();
        let mut entry =
            Entry { encoding: ELIAS_FANO, low_bits: low_bits as u8, count, end, high_words: 0, low_words: 0 };
        let (high, low) = (entry.high_bits().div_ceil(64), (count * u64::from(low_bits)).div_ceil(64));
        let bitmap = end.div_ceil(64);
        let mut words;
        if bitmap <= high + low {
            words = vec![0; bitmap as usize];
            for serial in serials {
                words[(serial / 64) as usize] |= 1 << (serial % 64);
            }
            entry = Entry { encoding: BITMAP, low_bits: 0, high_words: bitmap as u32, ..entry };
        } else {
            words = vec![0; (high + low) as usize];
            let (high_words, low_words) = words.split_at_mut(high as usize);
            for (rank, serial) in (0_u64..).zip(serials) {
                let position = (serial >> low_bits) + rank;
                high_words[(position / 64) as usize] |= 1 << (position % 64);
                write_bits(low_words, rank * u64::from(low_bits), low_bits, serial & ((1 << low_bits) - 1));
            }
            entry = Entry { high_words: high as u32, low_words: low as u32, ..entry };
        }
        (entry, words)
    }

    fn write_bits(words: &mut [u64], position: u64, width: u32, value: u64) {
        if width == 0 {
            return;
        }
        let (index, offset) = ((position / 64) as usize, (position % 64) as u32);
        words[index] |= value << offset;
        if offset + width > 64 {
            words[index + 1] |= value >> (64 - offset);
        }
    }

    impl Entry {
        pub(in super::super) fn write(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(&[self.encoding, self.low_bits, 0, 0]);
            out.extend_from_slice(&self.count.to_le_bytes());
            out.extend_from_slice(&self.end.to_le_bytes());
            out.extend_from_slice(&self.high_words.to_le_bytes());
            out.extend_from_slice(&self.low_words.to_le_bytes());
        }
    }
}
