//! Any bytes, as if somebody had signed them: each reader refuses them or answers, and never panics.

#![no_main]

use countersign_shared::revocation::{Base, Delta, ForeignFilter, ForeignList, RevokedSet};
use countersign_shared::{Coordinate, Serial, Shard};
use libfuzzer_sys::fuzz_target;

const DIGEST: [u8; 32] = [0; 32];

fuzz_target!(|bytes: &[u8]| {
    let probe = bytes.iter().rev().take(8).fold(0, |probe, byte| probe << 8 | u64::from(*byte));
    let coordinates = || {
        let shards = [0, 1, 494_340, (probe & 0xff_ffff) as u32];
        let serials = [0, 1, 63, 64, probe % Serial::LIMIT, probe % 4096, Serial::LIMIT - 1];
        shards.into_iter().flat_map(move |shard| {
            serials.map(|serial| Coordinate {
                shard: Shard::new(shard).unwrap(),
                serial: Serial::new(serial).unwrap(),
            })
        })
    };
    // What the first bytes announce is up to the fuzzer; the golden files are its seeds.
    if let Ok(base) = Base::parse(bytes, &DIGEST, &DIGEST) {
        let set = RevokedSet::new(base, Delta::default());
        coordinates().for_each(|coordinate| _ = set.contains(coordinate));
    }
    if let Ok(delta) = Delta::parse(bytes) {
        assert!(delta.len() <= bytes.len());
        let set = RevokedSet::new(Base::default(), delta);
        coordinates().for_each(|coordinate| _ = set.contains(coordinate));
    }
    let text = String::from_utf8_lossy(&bytes[bytes.len() / 2..]);
    if let Ok(filter) = ForeignFilter::parse(bytes, &DIGEST, &DIGEST) {
        _ = filter.check("https://issuer-0.example", &text);
    }
    if let Ok(list) = ForeignList::parse(bytes, &DIGEST, &DIGEST) {
        assert!(list.len() <= bytes.len());
        _ = list.contains("https://issuer-0.example", &text);
        _ = list.contains("", &text);
    }
});
