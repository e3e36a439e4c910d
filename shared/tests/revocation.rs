//! Revoked sets: what the builder writes, the reader answers, exactly; and nothing hostile gets through.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA256, digest};
use countersign_shared::revocation::{
    Base, BaseBuilder, Contents, Delta, FormatError, Level, RevokedSet, Rule, encode_delta,
};
use countersign_shared::{Coordinate, Serial, Shard, UnixTime};
use proptest::prelude::*;

fn shard(number: u32) -> Shard {
    Shard::new(number).unwrap()
}

fn serial(number: u64) -> Serial {
    Serial::new(number).unwrap()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

fn parse(bytes: &[u8]) -> Result<Base, FormatError> {
    let digest = sha256(bytes);
    Base::parse(bytes, &digest, &digest)
}

fn build_base(shards: &BTreeMap<Shard, Vec<Serial>>) -> Vec<u8> {
    let mut builder = BaseBuilder::new();
    for (shard, serials) in shards {
        for serial in serials {
            builder.revoke(Coordinate { shard: *shard, serial: *serial });
        }
    }
    builder.finish(7)
}

fn build(shards: &BTreeMap<u32, BTreeSet<u64>>) -> Vec<u8> {
    let shards = shards
        .iter()
        .map(|(number, serials)| (shard(*number), serials.iter().copied().map(serial).collect()))
        .collect();
    build_base(&shards)
}

fn set(bytes: &[u8]) -> RevokedSet {
    RevokedSet::new(parse(bytes).unwrap(), Delta::default())
}

/// Serials of every density: from solid runs to a handful in 2³⁶.
fn serials() -> impl Strategy<Value = BTreeSet<u64>> {
    prop_oneof![
        prop::collection::btree_set(0..300_u64, 0..300),
        prop::collection::btree_set(0..20_000_u64, 0..2_000),
        prop::collection::btree_set(0..Serial::LIMIT, 0..200),
        prop::collection::btree_set(Serial::LIMIT - 3..Serial::LIMIT, 1..3),
        (0..1_000_000_u64, 1..3_000_u64).prop_map(|(start, length)| (start..start + length).collect()),
        (0..60_u32).prop_map(|count| (0..count.min(36)).map(|bit| 1_u64 << bit).collect()),
    ]
}

proptest! {
    #[test]
    fn a_base_holds_exactly_what_was_put_in(shards in prop::collection::btree_map(0..5_u32, serials(), 0..4)) {
        let set = set(&build(&shards));
        for number in 0..6 {
            let revoked = shards.get(&number).cloned().unwrap_or_default();
            // Every member, its neighbours, and the ends of the range.
            let probes = revoked.iter().flat_map(|n| [n.saturating_sub(1), *n, n + 1]).chain([0, Serial::LIMIT - 1]);
            for probe in probes.filter(|probe| *probe < Serial::LIMIT) {
                let coordinate = Coordinate { shard: shard(number), serial: serial(probe) };
                prop_assert_eq!(set.contains(coordinate), revoked.contains(&probe), "shard {} serial {}", number, probe);
            }
        }
    }

    #[test]
    fn a_delta_holds_exactly_what_was_put_in(entries in prop::collection::vec((0..4_u32, 0..5_000_u64), 0..400)) {
        let coordinates: Vec<_> =
            entries.iter().map(|(s, n)| Coordinate { shard: shard(*s), serial: serial(*n) }).collect();
        let delta = Delta::parse(&encode_delta(&coordinates, &[])).unwrap();
        prop_assert_eq!(delta.len(), coordinates.iter().collect::<BTreeSet<_>>().len());
        let set = RevokedSet::new(Base::default(), delta);
        for s in 0..4 {
            for n in 0..5_000 {
                let coordinate = Coordinate { shard: shard(s), serial: serial(n) };
                prop_assert_eq!(set.contains(coordinate), entries.contains(&(s, n)));
            }
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes: Vec<u8>) {
        let _ = parse(&bytes);
        let _ = Delta::parse(&bytes);
    }

    #[test]
    fn a_damaged_base_is_refused_or_harmless(
        shards in prop::collection::btree_map(0..3_u32, serials(), 1..3),
        place: prop::sample::Index, bit in 0..8_u32, cut: prop::sample::Index, probe in 0..Serial::LIMIT,
    ) {
        let bytes = build(&shards);
        let truncated = &bytes[..cut.index(bytes.len())];
        prop_assert!(parse(truncated).is_err());

        let mut damaged = bytes.clone();
        damaged[place.index(bytes.len())] ^= 1 << bit;
        prop_assert_eq!(Base::parse(&damaged, &sha256(&damaged), &sha256(&bytes)).err(), Some(FormatError::Digest));
        // Past the digest (an attacker who can also sign): no panic, whatever it answers.
        if let Ok(base) = parse(&damaged) {
            let set = RevokedSet::new(base, Delta::default());
            for number in 0..3 {
                for n in [0, 1, probe, Serial::LIMIT - 1] {
                    let _ = set.contains(Coordinate { shard: shard(number), serial: serial(n) });
                }
            }
        }
    }
}

#[test]
fn the_last_serial_may_be_alone() {
    for alone in [Serial::LIMIT - 1, Serial::LIMIT - 2, 0] {
        let set = set(&build(&[(1, [alone].into())].into()));
        for n in [0, 1, Serial::LIMIT / 2, Serial::LIMIT - 2, Serial::LIMIT - 1] {
            let coordinate = Coordinate { shard: shard(1), serial: serial(n) };
            assert_eq!(set.contains(coordinate), n == alone, "{n} of {alone}");
        }
    }
}

#[test]
fn the_same_content_makes_the_same_bytes() {
    let forward: BTreeMap<_, _> = [(shard(1), (0..1000).map(|n| serial(n * 37)).collect::<Vec<_>>())].into();
    let mut backward = forward.clone();
    let serials = backward.get_mut(&shard(1)).unwrap();
    serials.reverse();
    serials.extend_from_within(..10);
    assert_eq!(build_base(&forward), build_base(&backward));
}

/// More than the builder sorts at once, in no order, some of them again and again: several runs, merged.
#[test]
fn many_entries_in_any_order_make_the_bytes_of_few() {
    const COUNT: u64 = 600_000;
    for (spacing, shards) in [(13, 3), (40_000, 1)] {
        let coordinate = |n: u64| Coordinate {
            shard: shard(u32::try_from(n % shards).unwrap()),
            serial: serial(n / shards * spacing + n % 2),
        };
        let mut scattered = BaseBuilder::new();
        for n in 0..COUNT {
            // 999,983 is a prime, so this reaches every number once.
            scattered.revoke(coordinate(n * 999_983 % COUNT));
            if n % 3 == 0 {
                scattered.revoke(coordinate(n));
            }
        }
        let scattered = scattered.finish(7);
        let mut in_order: BTreeMap<Shard, Vec<Serial>> = BTreeMap::new();
        for n in 0..COUNT {
            let Coordinate { shard, serial } = coordinate(n);
            in_order.entry(shard).or_default().push(serial);
        }
        assert!(scattered == build_base(&in_order), "spacing {spacing}");

        let set = set(&scattered);
        for n in (0..COUNT).step_by(11) {
            let member = coordinate(n);
            assert!(set.contains(member), "{member:?}");
            let other = Coordinate { serial: serial(member.serial.get() + 2), ..member };
            assert!(!set.contains(other), "{other:?}");
        }
    }
}

/// The bytes don't tell whether an object was made of another one and what came since, or of everything at once.
fn made_in_steps(steps: &[BTreeMap<u32, BTreeSet<u64>>], first_kept: u32) {
    let rule = |n: usize, at| {
        let subject = vec![u8::try_from(n % 3).unwrap(); 16];
        Rule::new(Level::Agent, subject, UnixTime(i64::try_from(at).unwrap())).unwrap()
    };
    let (mut object, mut all) = (BaseBuilder::new().finish(0), BTreeMap::<u32, BTreeSet<u64>>::new());
    for (n, step) in steps.iter().enumerate() {
        let mut builder = BaseBuilder::upon(&object, |_| true, |_| true).unwrap();
        for (number, serials) in step {
            all.entry(*number).or_default().extend(serials);
            for n in serials {
                builder.revoke(Coordinate { shard: shard(*number), serial: serial(*n) });
            }
        }
        builder.end_up_to(rule(n, n));
        object = builder.finish(n as u64 + 1);
    }
    let mut whole = BaseBuilder::new();
    for (number, n) in all.iter().flat_map(|(number, serials)| serials.iter().map(move |n| (*number, *n))) {
        whole.revoke(Coordinate { shard: shard(number), serial: serial(n) });
    }
    (0..steps.len()).for_each(|n| whole.end_up_to(rule(n, n)));
    assert!(object == whole.finish(steps.len() as u64));
    let contents = Contents::of(&object).unwrap();
    assert_eq!(contents.tokens, all.values().map(|serials| serials.len() as u64).sum::<u64>());
    assert_eq!((contents.seq, contents.rules as usize), (steps.len() as u64, steps.len().min(3)));

    // And what is left of it later.
    let mut rest = BaseBuilder::new();
    for (number, n) in all.iter().flat_map(|(number, serials)| serials.iter().map(move |n| (*number, *n))) {
        if number >= first_kept {
            rest.revoke(Coordinate { shard: shard(number), serial: serial(n) });
        }
    }
    let kept = BaseBuilder::upon(&object, |shard| shard.get() >= first_kept, |_| false).unwrap();
    assert!(kept.finish(9) == rest.finish(9));
}

proptest! {
    #[test]
    fn a_base_grows_by_what_is_added(
        steps in prop::collection::vec(prop::collection::btree_map(0..4_u32, serials(), 0..4), 0..4), first_kept in 0..4_u32,
    ) {
        made_in_steps(&steps, first_kept);
    }

    /// Where an Elias–Fano set becomes a bitmap, and a bitmap stays one.
    #[test]
    fn a_dense_base_grows_by_what_is_added(
        steps in prop::collection::vec(prop::collection::btree_set(0..400_u64, 1..300), 1..5),
    ) {
        made_in_steps(&steps.into_iter().map(|serials| [(1, serials)].into()).collect::<Vec<_>>(), 1);
    }
}

/// Bits for each revoked serial, as `docs/design.md` states them: 5.6 when one in ten is revoked, 8.7 at one in a hundred.
#[test]
fn it_is_small() {
    for (one_in, most_bits) in [(10_u64, 5.7), (100, 9.0), (1000, 12.5)] {
        let mut state = 1_u64;
        let revoked: BTreeSet<u64> = (0..2_000_000_u64)
            .filter(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33).is_multiple_of(one_in)
            })
            .collect();
        let count = revoked.len();
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let bits = build(&[(1, revoked)].into()).len() as f64 * 8.0 / count as f64;
        assert!(bits <= most_bits, "1 in {one_in}: {bits:.2} bits");
    }
}

#[test]
fn a_base_of_another_version_or_with_a_tail_is_refused() {
    let bytes = build(&[(1, [5].into())].into());
    for (place, value) in [(0, b'X'), (4, 2), (6, 1)] {
        let mut other = bytes.clone();
        other[place] = value;
        assert_eq!(parse(&other).err(), Some(FormatError::Version));
    }
    assert_eq!(parse(&[bytes, vec![0]].concat()).err(), Some(FormatError::Length));
}

#[test]
fn rules_must_be_in_order_and_of_the_right_shape() {
    let rule = |level, subject: &[u8]| Rule::new(level, subject.to_vec(), UnixTime(5));
    let sound = [rule(Level::Key, b"kid").unwrap(), rule(Level::Global, b"").unwrap()];
    assert!(Delta::parse(&encode_delta(&[], &sound)).is_ok());
    for (level, subject) in [
        (Level::Global, &b"x"[..]),
        (Level::Agent, b"short"),
        (Level::Tenant, &[1; 17]),
        (Level::Key, b""),
        (Level::Key, &[b'k'; 256]),
    ] {
        assert_eq!(rule(level, subject).err(), Some(FormatError::Rule), "nobody makes one");
        let Ok(length) = u8::try_from(subject.len()) else { continue };
        let bytes = [&[0, 1, level as u8, length], subject, &5_i64.to_le_bytes()].concat();
        assert_eq!(Delta::parse(&bytes).err(), Some(FormatError::Rule), "nor reads one");
    }
    let longest = [rule(Level::Key, &[b'k'; 255]).unwrap()];
    assert!(Delta::parse(&encode_delta(&[], &longest)).is_ok());
    let one = encode_delta(&[], &[rule(Level::Key, b"b").unwrap()]);
    let twice = [&[0, 2], &one[2..], &one[2..]].concat();
    assert_eq!(Delta::parse(&twice).err(), Some(FormatError::Rule));
}

#[test]
fn numbers_have_one_spelling() {
    assert!(Delta::parse(&[0, 0]).is_ok());
    for bytes in [&[0x80, 0x00, 0][..], &[0xff; 11], &[1, 0, 0, 0, 0], &[2, 1, 1, 1, 0, 1, 1, 0]] {
        assert!(Delta::parse(bytes).is_err(), "{bytes:02x?}");
    }
}
