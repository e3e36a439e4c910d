//! What others do: each as its documentation tells to use it.

use std::io::Write as _;

use clubcard::builder::{ApproximateRibbon, ClubcardBuilder, ExactRibbon};
use clubcard::{ApproximateSizeOf, AsQuery, Equation, Filterable, Membership, Queryable};
use countersign_revocation_bench::content::{is_revoked, mix};
use fastbloom::BloomFilter;
use xorf::{BinaryFuse8, Filter as _};

/// The IETF's Token Status List (draft-ietf-oauth-status-list, §4): a bit for each token, the first in the lowest bit.
pub(crate) fn status_list(revoked: &[u64], live: u64) -> Vec<u8> {
    let mut list = vec![0; usize::try_from(live.div_ceil(8)).expect("fits")];
    for serial in revoked {
        list[usize::try_from(serial / 8).expect("fits")] |= 1 << (serial % 8);
    }
    list
}

/// The status of one token.
pub(crate) fn status(list: &[u8], serial: u64) -> bool {
    list[usize::try_from(serial / 8).expect("fits")] >> (serial % 8) & 1 == 1
}

/// How long the list is as it travels: zlib, at the highest level, as is recommended there.
pub(crate) fn deflate(list: &[u8]) -> u64 {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(list).expect("in memory");
    encoder.finish().expect("in memory").len() as u64
}

/// A filter with false positives of 1%, and its size.
pub(crate) fn fast_bloom(revoked: &[u64]) -> (BloomFilter, u64) {
    let filter = BloomFilter::with_false_pos(0.01).seed(&7).items(revoked);
    let size = filter.as_slice().len() as u64 * 8;
    (filter, size)
}

/// A binary fuse filter, and its size.
pub(crate) fn fuse(revoked: &[u64]) -> (BinaryFuse8, u64) {
    let keys: Vec<u64> = revoked.iter().map(|serial| mix(*serial)).collect();
    let filter = BinaryFuse8::try_from(&keys).expect("keys are distinct");
    let size = filter.fingerprints.len() as u64;
    (filter, size)
}

pub(crate) fn fuse_contains(filter: &BinaryFuse8, serial: u64) -> bool {
    filter.contains(&mix(serial))
}

/// Mozilla's exact set for `CRLite`.
pub(crate) struct Clubcard(clubcard::Clubcard<WIDTH, Live, ()>);

const WIDTH: usize = 4;

struct Live(u64);

impl ApproximateSizeOf for Live {}

struct Token {
    bytes: [u8; 8],
    revoked: bool,
}

impl Token {
    fn new(serial: u64, revoked: bool) -> Self {
        Self { bytes: serial.to_le_bytes(), revoked }
    }
}

impl AsQuery<WIDTH> for Token {
    fn as_query(&self, m: usize) -> Equation<WIDTH> {
        // Its example hashes with SHA-256; this is faster, and does for numbers that nobody chooses.
        let serial = u64::from_le_bytes(self.bytes);
        let mut a = [1, 2, 3, 4].map(|part: u64| mix(serial ^ part << 56));
        a[0] |= 1;
        let start = usize::try_from(a[WIDTH - 1]).expect("64 bits") % m.max(1);
        Equation::inhomogeneous(start, a, u8::from(!self.revoked))
    }

    fn block(&self) -> &[u8] {
        &[]
    }

    fn discriminant(&self) -> &[u8] {
        &self.bytes
    }
}

impl Filterable<WIDTH> for Token {
    fn included(&self) -> bool {
        self.revoked
    }
}

impl Queryable<WIDTH> for Token {
    type UniverseMetadata = Live;
    type PartitionMetadata = ();

    fn in_universe(&self, live: &Live) -> bool {
        u64::from_le_bytes(self.bytes) < live.0
    }
}

impl Clubcard {
    /// Of those of `live` serials that are revoked.
    pub(crate) fn build(live: u64, one_in: u64) -> Self {
        let mut builder = ClubcardBuilder::new();
        let mut approximate = builder.new_approx_builder(&[]);
        for serial in (0..live).filter(|serial| is_revoked(*serial, one_in)) {
            approximate.insert(Token::new(serial, true));
        }
        approximate.set_universe_size(usize::try_from(live).expect("fits"));
        builder.collect_approx_ribbons(vec![ApproximateRibbon::from(approximate)]);
        let mut exact = builder.new_exact_builder(&[]);
        for serial in 0..live {
            exact.insert(Token::new(serial, is_revoked(serial, one_in)));
        }
        builder.collect_exact_ribbons(vec![ExactRibbon::from(exact)]);
        Self(builder.build::<Token>(Live(live), ()))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.approximate_size_of() as u64
    }

    pub(crate) fn contains(&self, serial: u64) -> bool {
        matches!(self.0.contains(&Token::new(serial, false)), Membership::Member)
    }
}
