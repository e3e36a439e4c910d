//! The revoked serials of one shard: an Elias–Fano set, or a bitmap where that is smaller.
//!
//! Elias–Fano splits each serial into `low_bits` low bits, stored as they are, and a high part, stored in unary: a one for each
//! serial, a zero at the end of each bucket of serials with the same high part. About 2 + log₂(universe / count) bits a serial.
//! Look-up finds the bucket by selecting the zero before it; a sample every 512 zeros keeps that short.
//!
//! The words stay where they are, in the object's bytes. What is made at loading is the samples alone.

#![expect(
    clippy::cast_possible_truncation,
    reason = "counts are within 36 bits and bounded by the words at hand, ranks within a word"
)]

use alloc::vec::Vec;

use core::ops::Range;

use super::FormatError;
use super::bytes::Reader;
use crate::ids::Serial;

/// A little-endian word of 64 bits, as the object has it.
pub(super) type Word = [u8; 8];

/// Every how many zeros the position of one is noted. (Denser samples gain nothing measurable, they only cost memory.)
const ZEROS_PER_SAMPLE: u64 = 512;

/// One less than a serial has, so that there are always high bits.
const MAX_LOW_BITS: u32 = Serial::LIMIT.trailing_zeros() - 1;

const ELIAS_FANO: u8 = 0;
const BITMAP: u8 = 1;

/// How to find a shard's serials in the bytes of its object.
#[derive(Debug, Clone)]
pub(super) struct ShardSet {
    /// Largest serial + 1.
    end: u64,
    encoding: Encoding,
    /// Where the high (or bitmap) words are, in bytes.
    high: Range<usize>,
    low: Range<usize>,
}

#[derive(Debug, Clone)]
enum Encoding {
    EliasFano {
        low_bits: u32,
        /// Bit position, in the high words, of zero number 0, 512, 1024, …
        samples: Vec<u32>,
    },
    Bitmap,
}

/// A shard's line in the table of a base object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    encoding: u8,
    low_bits: u8,
    count: u64,
    end: u64,
    high_words: u32,
    low_words: u32,
}

impl Entry {
    /// How many serials the shard has.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Its size in the table, without the shard's number.
    #[cfg(feature = "builder")]
    pub(super) const BYTES: usize = 28;

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
                    u32::from(low_bits) <= MAX_LOW_BITS
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
    /// Finds the words that `entry` announces, from `reader`'s place on, and checks that they are what it says.
    pub(super) fn read(entry: &Entry, reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let start = reader.position();
        let words = reader.words(entry.high_words)?;
        let middle = reader.position();
        let low = reader.words(entry.low_words)?;
        let end = reader.position();

        let used = if entry.encoding == BITMAP { entry.end } else { entry.high_bits() };
        let padding_is_zero =
            ends_in_zeros(words, used) && ends_in_zeros(low, entry.count * u64::from(entry.low_bits));
        let (ones, encoding) = if entry.encoding == BITMAP {
            let ones = words.iter().map(|word| u64::from(u64::from_le_bytes(*word).count_ones())).sum();
            (ones, Encoding::Bitmap)
        } else {
            let (ones, samples) = count_and_sample(words, entry.buckets());
            (ones, Encoding::EliasFano { low_bits: u32::from(entry.low_bits), samples })
        };
        if ones != entry.count || !padding_is_zero {
            return Err(FormatError::Words);
        }
        Ok(Self { end: entry.end, encoding, high: start..middle, low: middle..end })
    }

    /// Whether `serial` is among them; `object` is what it was read from.
    pub(super) fn contains(&self, object: &[u8], serial: Serial) -> bool {
        let serial = serial.get();
        if serial >= self.end {
            return false;
        }
        let high = words(object, &self.high);
        match &self.encoding {
            Encoding::Bitmap => bit(high, serial),
            Encoding::EliasFano { low_bits, samples } => {
                let low = words(object, &self.low);
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

fn words<'b>(object: &'b [u8], place: &Range<usize>) -> &'b [Word] {
    object.get(place.clone()).unwrap_or_default().as_chunks().0
}

/// Whether the last word has no ones past the `used` bits of all.
fn ends_in_zeros(words: &[Word], used: u64) -> bool {
    let last = words.last().copied().map_or(0, u64::from_le_bytes);
    used.is_multiple_of(64) || last >> (used % 64) == 0
}

/// Bit number `position`; past the end all bits are zero.
fn bit(words: &[Word], position: u64) -> bool {
    word(words, position / 64) >> (position % 64) & 1 == 1
}

/// The `width` bits (0 to 35) from `position` on.
fn bits_at(words: &[Word], position: u64, width: u32) -> u64 {
    let (index, offset) = (position / 64, (position % 64) as u32);
    let mut value = word(words, index) >> offset;
    if offset + width > 64 {
        value |= word(words, index + 1) << (64 - offset);
    }
    value & ((1 << width) - 1)
}

fn word(words: &[Word], index: u64) -> u64 {
    usize::try_from(index).ok().and_then(|index| words.get(index)).copied().map_or(0, u64::from_le_bytes)
}

/// How many ones there are, and the positions of zero number 0, 512, 1024, … of `zeros` in all. Positions fit: the entry was checked.
fn count_and_sample(words: &[Word], zeros: u64) -> (u64, Vec<u32>) {
    let mut samples = Vec::new();
    let (mut seen, mut next) = (0, 0);
    for (index, word) in (0_u64..).zip(words) {
        let word = u64::from_le_bytes(*word);
        let here = u64::from(word.count_zeros());
        // 64 bits hold at most one sample, since samples are 512 zeros apart.
        if seen + here > next && next < zeros {
            let position = index * 64 + u64::from(select_in_word(!word, (next - seen) as u32));
            samples.push(u32::try_from(position).unwrap_or(u32::MAX));
            next += ZEROS_PER_SAMPLE;
        }
        seen += here;
    }
    (words.len() as u64 * 64 - seen, samples)
}

/// Position of zero number `rank`, counted from 0.
fn select_zero(words: &[Word], samples: &[u32], rank: u64) -> u64 {
    let sample = usize::try_from(rank / ZEROS_PER_SAMPLE).ok().and_then(|index| samples.get(index));
    let start = sample.map_or(0, |position| u64::from(*position));
    // Counting starts at the sample's word: as many zeros more as stand before the sample in it.
    let first = start / 64;
    let before = (!word(words, first) & ((1 << (start % 64)) - 1)).count_ones();
    let mut left = rank % ZEROS_PER_SAMPLE + u64::from(before);
    let mut index = first;
    for word in words.get(first as usize..).unwrap_or_default() {
        let zeros = !u64::from_le_bytes(*word);
        let here = u64::from(zeros.count_ones());
        if left < here {
            return index * 64 + u64::from(select_in_word(zeros, left as u32));
        }
        left -= here;
        index += 1;
    }
    index * 64
}

/// Position of one number `rank` in `word`, counted from 0; `word` has more than `rank` ones. Without a branch or loop: what is looked up is
/// random, so each would be mispredicted (Vigna, "Broadword implementation of rank/select queries", 2008).
fn select_in_word(word: u64, rank: u32) -> u32 {
    const PAIRS: u64 = 0x55 * EACH;
    const NIBBLES: u64 = 0x33 * EACH;
    const BYTES: u64 = 0x0f * EACH;
    // Ones in each byte, then in it and all bytes below.
    let pairs = word - ((word >> 1) & PAIRS);
    let nibbles = (pairs & NIBBLES) + ((pairs >> 2) & NIBBLES);
    let sums = ((nibbles + (nibbles >> 4)) & BYTES).wrapping_mul(EACH);
    let place = bytes_up_to(sums, u64::from(rank)) * 8;
    let rank = u64::from(rank) - (((sums << 8) >> place) & 0xff);
    // The same within that byte, whose bits are spread to one a byte.
    let byte = (word >> place) & 0xff;
    let spread = (byte * EACH) & 0x8040_2010_0804_0201;
    let ones = ((spread + 0x7f * EACH) >> 7) & EACH;
    place + bytes_up_to(ones.wrapping_mul(EACH), rank)
}

/// A one in each byte.
const EACH: u64 = 0x0101_0101_0101_0101;

/// How many of the bytes in `sums` are at most `most`; none of them exceeds 64.
const fn bytes_up_to(sums: u64, most: u64) -> u32 {
    const HIGH: u64 = 0x80 * EACH;
    ((((most * EACH) | HIGH) - sums) & HIGH).count_ones()
}

/// Writing, and reading one after the other what was written.
#[cfg(feature = "builder")]
pub(super) mod build {
    use super::{BITMAP, ELIAS_FANO, Entry, MAX_LOW_BITS, Word, bits_at};

    impl Entry {
        /// The smaller encoding for `count` serials (at least one) below `end`.
        pub(in super::super) fn smallest(count: u64, end: u64) -> Self {
            let entry = Self::elias_fano(count, end);
            let bitmap = end.div_ceil(64);
            if bitmap > u64::from(entry.high_words) + u64::from(entry.low_words) {
                return entry;
            }
            Self { encoding: BITMAP, low_bits: 0, high_words: bitmap as u32, low_words: 0, ..entry }
        }

        /// An Elias–Fano set of `count` serials (at least one) below `end`.
        pub(in super::super) fn elias_fano(count: u64, end: u64) -> Self {
            let low_bits = (end / count).max(1).ilog2().min(MAX_LOW_BITS);
            let entry = Self {
                encoding: ELIAS_FANO,
                low_bits: low_bits as u8,
                count,
                end,
                high_words: 0,
                low_words: (count * u64::from(low_bits)).div_ceil(64) as u32,
            };
            Self { high_words: entry.high_bits().div_ceil(64) as u32, ..entry }
        }

        pub(in super::super) const fn end(&self) -> u64 {
            self.end
        }

        pub(in super::super) const fn high_words(&self) -> u32 {
            self.high_words
        }

        pub(in super::super) const fn low_words(&self) -> u32 {
            self.low_words
        }

        pub(in super::super) const fn words(&self) -> usize {
            self.high_words as usize + self.low_words as usize
        }

        pub(in super::super) fn write(&self, out: &mut alloc::vec::Vec<u8>) {
            out.extend_from_slice(&[self.encoding, self.low_bits, 0, 0]);
            out.extend_from_slice(&self.count.to_le_bytes());
            out.extend_from_slice(&self.end.to_le_bytes());
            out.extend_from_slice(&self.high_words.to_le_bytes());
            out.extend_from_slice(&self.low_words.to_le_bytes());
        }
    }

    /// Writes a shard's words, serial by serial.
    pub(in super::super) struct Writer<'w> {
        high: &'w mut [Word],
        low: &'w mut [Word],
        encoding: u8,
        low_bits: u32,
        rank: u64,
    }

    impl<'w> Writer<'w> {
        /// `words` are all zero and as many as `entry` says.
        pub(in super::super) fn new(entry: &Entry, words: &'w mut [Word]) -> Self {
            let (high, low) = words.split_at_mut(entry.high_words as usize);
            Self { high, low, encoding: entry.encoding, low_bits: u32::from(entry.low_bits), rank: 0 }
        }

        /// Serials come ascending, each once, no more than the entry says, each below its end.
        pub(in super::super) fn push(&mut self, serial: u64) {
            if self.encoding == BITMAP {
                or(self.high, serial, 1);
            } else {
                or(self.high, (serial >> self.low_bits) + self.rank, 1);
                let position = self.rank * u64::from(self.low_bits);
                let value = serial & ((1 << self.low_bits) - 1);
                or(self.low, position, value);
                let offset = (position % 64) as u32;
                if offset + self.low_bits > 64 {
                    or(self.low, (position / 64 + 1) * 64, value >> (64 - offset));
                }
            }
            self.rank += 1;
        }

        /// How many came.
        pub(in super::super) const fn pushed(&self) -> u64 {
            self.rank
        }
    }

    /// Sets the bits of `value` from bit `position` on, as far as they are in that word. Without bits there may be no word.
    fn or(words: &mut [Word], position: u64, value: u64) {
        if let Some(word) = words.get_mut((position / 64) as usize) {
            *word = (u64::from_le_bytes(*word) | value << (position % 64)).to_le_bytes();
        }
    }

    /// Reads what [`Writer`] wrote, serial by serial.
    pub(in super::super) struct Cursor<'w> {
        high: &'w [Word],
        low: &'w [Word],
        is_bitmap: bool,
        low_bits: u32,
        rank: u64,
        /// The bits of the current high word that are still to come.
        word: u64,
        index: u64,
    }

    impl<'w> Cursor<'w> {
        pub(in super::super) fn new(entry: &Entry, words: &'w [Word]) -> Self {
            let (high, low) = words.split_at(entry.high_words as usize);
            let word = high.first().copied().map_or(0, u64::from_le_bytes);
            let is_bitmap = entry.encoding == BITMAP;
            Self { high, low, is_bitmap, low_bits: u32::from(entry.low_bits), rank: 0, word, index: 0 }
        }
    }

    impl Iterator for Cursor<'_> {
        type Item = u64;

        fn next(&mut self) -> Option<u64> {
            while self.word == 0 {
                self.index += 1;
                self.word = u64::from_le_bytes(*self.high.get(self.index as usize)?);
            }
            let position = self.index * 64 + u64::from(self.word.trailing_zeros());
            self.word &= self.word - 1;
            if self.is_bitmap {
                return Some(position);
            }
            let low = bits_at(self.low, self.rank * u64::from(self.low_bits), self.low_bits);
            let serial = (position - self.rank) << self.low_bits | low;
            self.rank += 1;
            Some(serial)
        }
    }
}
