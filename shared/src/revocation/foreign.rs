//! Revoked tokens of other trusted issuers, whose jtis are what those like: a Bloom filter that is held in memory, and exact lists that are
//! fetched when it says "maybe".
//!
//! The filter is split-block (Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007; as in Apache Parquet): a key
//! sets one bit in each of the eight 32-bit lanes of one 32-byte block. Hashes are SipHash-2-4 under a key that the filter carries, over bytes
//! that are spelled out here, so that a filter made natively answers the same in 32-bit WebAssembly, and who doesn't know the key can't
//! make up jtis that hit. The lists are cut by the hash: one positive needs one part. Both are immutable and named by their SHA-256.

use alloc::vec::Vec;
use core::hash::Hasher as _;

use siphasher::sip::SipHasher24;

use super::FormatError;
use super::bytes::Reader;

const FILTER_MAGIC: [u8; 4] = *b"CSRF";
const LIST_MAGIC: [u8; 4] = *b"CSRL";
const VERSION: u16 = 1;

/// Of one block, in bytes: eight lanes.
const BLOCK: usize = 32;

/// Parts are at most 2 to the power of this.
const MAX_PART_BITS: u8 = 16;

/// What the filter says about a token. Either way it is not the last word on tokens that were revoked after it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// It is not among the revoked ones.
    Clear,
    /// It may be. The [`ForeignList`] of this SHA-256 knows.
    ConfirmWith([u8; 32]),
}

/// The filter: about 12 bits in memory for each revoked token.
#[derive(Debug, Clone)]
pub struct ForeignFilter {
    key: [u8; 16],
    count: u64,
    part_bits: u8,
    /// SHA-256 of each part's list; zero where there is none.
    lists: Vec<[u8; 32]>,
    blocks: Vec<u8>,
}

impl ForeignFilter {
    /// Reads a filter. `digest` is the SHA-256 of `bytes` by the host's primitive, `expected` what it must be; they are compared
    /// before anything is parsed.
    pub fn parse(bytes: &[u8], digest: &[u8; 32], expected: &[u8; 32]) -> Result<Self, FormatError> {
        if digest != expected {
            return Err(FormatError::Digest);
        }
        let mut reader = Reader::new(bytes);
        if reader.array()? != FILTER_MAGIC || reader.u16()? != VERSION {
            return Err(FormatError::Version);
        }
        let (part_bits, reserved) = (reader.u8()?, reader.u8()?);
        let (count, key, block_count) = (reader.u64()?, reader.array()?, reader.u32()?);
        if reserved != 0 || part_bits > MAX_PART_BITS || block_count == 0 {
            return Err(FormatError::Filter);
        }
        let lists = reader.take(32 << part_bits)?.as_chunks().0.to_vec();
        let length =
            usize::try_from(u64::from(block_count) * BLOCK as u64).map_err(|_| FormatError::Length)?;
        let blocks = reader.take(length)?.to_vec();
        reader.end()?;
        Ok(Self { key, count, part_bits, lists, blocks })
    }

    /// How many tokens were put in.
    pub const fn len(&self) -> u64 {
        self.count
    }

    /// Whether none was.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether the token `jti` of `issuer` may be revoked.
    pub fn check(&self, issuer: &str, jti: &str) -> Suspicion {
        let hash = hash(&self.key, issuer, jti);
        let (blocks, _) = self.blocks.as_chunks::<BLOCK>();
        let hit = blocks.get(block_of(hash, blocks.len())).is_some_and(|block| {
            let (lanes, _) = block.as_chunks::<4>();
            lanes.iter().zip(masks(hash)).all(|(lane, mask)| u32::from_le_bytes(*lane) & mask != 0)
        });
        match self.lists.get(part_of(hash, self.part_bits)) {
            Some(list) if hit && *list != [0; 32] => Suspicion::ConfirmWith(*list),
            _ => Suspicion::Clear,
        }
    }
}

/// One part's tokens, exactly. Borrows the object: nothing is copied.
#[derive(Debug, Clone, Copy)]
pub struct ForeignList<'b> {
    /// For each issuer, ascending: where its name ends among the names, and its tokens among the tokens.
    issuers: &'b [[u8; 8]],
    /// For each token, ascending within its issuer: where its jti ends among the jtis.
    ends: &'b [[u8; 4]],
    names: &'b [u8],
    jtis: &'b [u8],
}

impl<'b> ForeignList<'b> {
    /// Reads a list. `digest` is the SHA-256 of `bytes` by the host's primitive, `expected` the one that
    /// [`Suspicion::ConfirmWith`] names; they are compared before anything is parsed.
    pub fn parse(bytes: &'b [u8], digest: &[u8; 32], expected: &[u8; 32]) -> Result<Self, FormatError> {
        if digest != expected {
            return Err(FormatError::Digest);
        }
        let mut reader = Reader::new(bytes);
        if reader.array()? != LIST_MAGIC || reader.u16()? != VERSION || reader.u16()? != 0 {
            return Err(FormatError::Version);
        }
        let (issuer_count, token_count) = (reader.u32()?, reader.u32()?);
        let (names_length, jtis_length) = (reader.u32()?, reader.u32()?);
        let issuers = reader.words(issuer_count)?;
        let length = usize::try_from(u64::from(token_count) * 4).map_err(|_| FormatError::Length)?;
        let ends = reader.take(length)?.as_chunks().0;
        let mut text = |length| reader.take(usize::try_from(length).map_err(|_| FormatError::Length)?);
        let (names, jtis) = (text(names_length)?, text(jtis_length)?);
        reader.end()?;
        let list = Self { issuers, ends, names, jtis };
        if list.is_sound() { Ok(list) } else { Err(FormatError::List) }
    }

    /// How many tokens it has.
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether the token `jti` of `issuer` is revoked: exactly.
    pub fn contains(&self, issuer: &str, jti: &str) -> bool {
        let Some(place) = find(self.issuers.len(), |place| self.name(place), issuer.as_bytes()) else {
            return false;
        };
        let (from, to) = (self.tokens_before(place), self.tokens_before(place + 1));
        let jti_at = |place: usize| self.jti(from + place);
        find(to.saturating_sub(from), jti_at, jti.as_bytes()).is_some()
    }

    /// Whether all offsets ascend and end where their text does, and all issuers, and each one's jtis, ascend.
    fn is_sound(&self) -> bool {
        let issuers = self.issuers.len();
        let ascending = |count: usize, end: &dyn Fn(usize) -> usize| (0..count).all(|n| end(n) <= end(n + 1));
        // Offsets first: what they delimit is looked at only when they are known to be in order.
        ascending(issuers, &|place| self.name_start(place))
            && self.name_start(issuers) == self.names.len()
            && (0..issuers).all(|place| self.tokens_before(place) < self.tokens_before(place + 1))
            && self.tokens_before(issuers) == self.len()
            && ascending(self.len(), &|place| self.jti_start(place))
            && self.jti_start(self.len()) == self.jtis.len()
            && (1..issuers).all(|place| self.name(place - 1) < self.name(place))
            && (0..issuers).all(|place| {
                let (from, to) = (self.tokens_before(place), self.tokens_before(place + 1));
                (from + 1..to).all(|token| self.jti(token - 1) < self.jti(token))
            })
    }

    fn name(&self, place: usize) -> &'b [u8] {
        self.names.get(self.name_start(place)..self.name_start(place + 1)).unwrap_or_default()
    }

    fn jti(&self, place: usize) -> &'b [u8] {
        self.jtis.get(self.jti_start(place)..self.jti_start(place + 1)).unwrap_or_default()
    }

    /// Where the name of issuer number `place` starts: where the one before ends.
    fn name_start(&self, place: usize) -> usize {
        self.issuer_line(place).map_or(0, |[end, _]| end)
    }

    /// How many tokens there are of the issuers before number `place`.
    fn tokens_before(&self, place: usize) -> usize {
        self.issuer_line(place).map_or(0, |[_, tokens]| tokens)
    }

    /// The line before issuer number `place`; `None` for the first.
    fn issuer_line(&self, place: usize) -> Option<[usize; 2]> {
        let line = self.issuers.get(place.checked_sub(1)?)?;
        let [end, tokens] = line.as_chunks::<4>().0 else { return None };
        Some([offset(*end), offset(*tokens)])
    }

    fn jti_start(&self, place: usize) -> usize {
        place.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| offset(*end))
    }
}

fn offset(bytes: [u8; 4]) -> usize {
    usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
}

/// The place of `wanted` among `count` ascending texts.
fn find<'b>(count: usize, text: impl Fn(usize) -> &'b [u8], wanted: &[u8]) -> Option<usize> {
    let (mut from, mut to) = (0, count);
    while from < to {
        let middle = from + (to - from) / 2;
        match text(middle).cmp(wanted) {
            core::cmp::Ordering::Less => from = middle + 1,
            core::cmp::Ordering::Equal => return Some(middle),
            core::cmp::Ordering::Greater => to = middle,
        }
    }
    None
}

/// Of the issuer's length (as u64), the issuer and the jti. Every byte is named: Rust's `Hash` would write lengths of the
/// machine's own width.
fn hash(key: &[u8; 16], issuer: &str, jti: &str) -> u64 {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(&(issuer.len() as u64).to_le_bytes());
    hasher.write(issuer.as_bytes());
    hasher.write(jti.as_bytes());
    hasher.finish()
}

/// The block, by the upper half of the hash.
fn block_of(hash: u64, blocks: usize) -> usize {
    usize::try_from(((hash >> 32) * blocks as u64) >> 32).unwrap_or(usize::MAX)
}

/// The bit in each lane, by the lower half.
fn masks(hash: u64) -> [u32; 8] {
    // Those of Apache Parquet's filters.
    const SALTS: [u32; 8] = [
        0x47b6_137b,
        0x4497_4d91,
        0x8824_ad5b,
        0xa2b7_289d,
        0x7054_95c7,
        0x2df1_424b,
        0x9efc_4947,
        0x5c6b_fb31,
    ];
    let [a, b, c, d, ..] = hash.to_le_bytes();
    SALTS.map(|salt| 1 << (u32::from_le_bytes([a, b, c, d]).wrapping_mul(salt) >> 27))
}

/// The part, by the first bits of the hash.
fn part_of(hash: u64, part_bits: u8) -> usize {
    hash.checked_shr(64 - u32::from(part_bits)).and_then(|part| usize::try_from(part).ok()).unwrap_or(0)
}

#[cfg(feature = "builder")]
pub use build::{ForeignObjects, build_foreign};

#[cfg(feature = "builder")]
mod build {
    use alloc::string::String;
    use alloc::vec;
    use alloc::vec::Vec;

    use super::{BLOCK, FILTER_MAGIC, LIST_MAGIC, MAX_PART_BITS, VERSION, block_of, hash, masks, part_of};

    /// Bits for each token: one in 180 others is suspected, and costs fetching a list.
    const BITS_PER_TOKEN: u64 = 12;

    /// A list has about so many bytes at most: it is fetched while somebody waits.
    const LIST_BYTES: u64 = 64 * 1024;

    /// A filter and the lists that it names.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ForeignObjects {
        /// [`ForeignFilter`](super::ForeignFilter)'s bytes.
        pub filter: Vec<u8>,
        /// Each [`ForeignList`](super::ForeignList)'s SHA-256 and bytes; to be stored before the filter is.
        pub lists: Vec<([u8; 32], Vec<u8>)>,
    }

    /// Makes the objects of `tokens` (issuer, jti): the same ones under the same key, in any order and with duplicates, make the same bytes. `key` is
    /// 16 random bytes; while it stays, lists that nothing was added to stay too. `sha256` is the host's primitive. `None` if the tokens have more than
    /// 4 GiB in all, or number more than 2³².
    pub fn build_foreign(
        tokens: &[(&str, &str)],
        key: [u8; 16],
        sha256: impl Fn(&[u8]) -> [u8; 32],
    ) -> Option<ForeignObjects> {
        let mut tokens = tokens.to_vec();
        tokens.sort_unstable();
        tokens.dedup();
        let size: u64 = tokens.iter().map(|(_, jti)| 4 + jti.len() as u64).sum();
        let part_bits = (0..MAX_PART_BITS).find(|bits| size >> bits <= LIST_BYTES).unwrap_or(MAX_PART_BITS);
        let blocks = (tokens.len() as u64 * BITS_PER_TOKEN).div_ceil(8 * BLOCK as u64).max(1);
        let block_count = u32::try_from(blocks).ok()?;

        let mut filter = vec![[[0_u8; 4]; BLOCK / 4]; usize::try_from(blocks).ok()?];
        let mut parts: Vec<Vec<(&str, &str)>> = vec![Vec::new(); 1 << part_bits];
        for (issuer, jti) in &tokens {
            let hash = hash(&key, issuer, jti);
            for (lane, mask) in filter[block_of(hash, block_count as usize)].iter_mut().zip(masks(hash)) {
                *lane = (u32::from_le_bytes(*lane) | mask).to_le_bytes();
            }
            parts[part_of(hash, part_bits)].push((issuer, jti));
        }

        let mut out = Vec::with_capacity(36 + (32 << part_bits) + filter.len() * BLOCK);
        out.extend_from_slice(&FILTER_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[part_bits, 0]);
        out.extend_from_slice(&(tokens.len() as u64).to_le_bytes());
        out.extend_from_slice(&key);
        out.extend_from_slice(&block_count.to_le_bytes());
        let mut lists = Vec::new();
        for part in parts {
            if part.is_empty() {
                out.extend_from_slice(&[0; 32]);
                continue;
            }
            let list = write_list(&part)?;
            let digest = sha256(&list);
            out.extend_from_slice(&digest);
            lists.push((digest, list));
        }
        out.extend_from_slice(filter.as_flattened().as_flattened());
        Some(ForeignObjects { filter: out, lists })
    }

    /// Of tokens that ascend, each once. `None` if they are too many or too long.
    fn write_list(tokens: &[(&str, &str)]) -> Option<Vec<u8>> {
        let (mut issuers, mut ends) = (Vec::new(), Vec::new());
        let (mut names, mut jtis, mut count) = (String::new(), String::new(), 0_u32);
        let issuer_tokens: Vec<_> = tokens.chunk_by(|a, b| a.0 == b.0).collect();
        for tokens in &issuer_tokens {
            for (_, jti) in *tokens {
                jtis.push_str(jti);
                ends.extend_from_slice(&u32::try_from(jtis.len()).ok()?.to_le_bytes());
                count = count.checked_add(1)?;
            }
            names.push_str(tokens[0].0);
            issuers.extend_from_slice(&u32::try_from(names.len()).ok()?.to_le_bytes());
            issuers.extend_from_slice(&count.to_le_bytes());
        }
        let mut out = Vec::with_capacity(24 + issuers.len() + ends.len() + names.len() + jtis.len());
        out.extend_from_slice(&LIST_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&u32::try_from(issuer_tokens.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&u32::try_from(names.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&u32::try_from(jtis.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&issuers);
        out.extend_from_slice(&ends);
        out.extend_from_slice(names.as_bytes());
        out.extend_from_slice(jtis.as_bytes());
        Some(out)
    }
}
