//! Any serials: a set of them has each, and none beside them.

#![no_main]

use std::collections::BTreeSet;

use countersign_shared::revocation::{Base, BaseBuilder, Delta, RevokedSet, encode_delta};
use countersign_shared::{Coordinate, Serial, Shard};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Five bytes each: the first says what the rest is, a step from the last one or a place of its own.
    let mut serial = 0_u64;
    let mut tokens = BTreeSet::new();
    for chunk in bytes.as_chunks::<5>().0 {
        let [kind, rest @ ..] = *chunk;
        let number = u64::from(u32::from_le_bytes(rest));
        serial = match kind % 3 {
            0 => serial + number % 70,
            1 => number,
            _ => number << 4,
        } % Serial::LIMIT;
        let shard = Shard::new(u32::from(kind / 3 % 4)).unwrap();
        tokens.insert(Coordinate { shard, serial: Serial::new(serial).unwrap() });
    }
    let mut builder = BaseBuilder::new();
    tokens.iter().rev().for_each(|token| builder.revoke(*token));
    let object = builder.finish(0);
    let base = Base::parse(&object, &[0; 32], &[0; 32]).expect("what was just made");
    let delta: Vec<_> = tokens.iter().rev().copied().collect();
    let delta = Delta::parse(&encode_delta(&delta, &[])).expect("what was just made");
    assert_eq!(delta.len(), tokens.len());
    let sets = [RevokedSet::new(base, Delta::default()), RevokedSet::new(Base::default(), delta)];
    for token in &tokens {
        let serial = token.serial.get();
        for near in [serial.saturating_sub(1), serial, serial + 1, serial + 64, serial ^ 1 << 20] {
            let Some(near) = Serial::new(near) else { continue };
            let near = Coordinate { serial: near, ..*token };
            for set in &sets {
                assert_eq!(set.contains(near), tokens.contains(&near), "{near:?}");
            }
        }
    }
});
