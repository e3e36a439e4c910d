//! Revoked tokens of other issuers: filter and lists together answer exactly, and nothing hostile gets through.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA256, digest};
use countersign_shared::revocation::{
    ForeignFilter, ForeignList, ForeignObjects, FormatError, Suspicion, build_foreign,
};
use proptest::prelude::*;

const KEY: [u8; 16] = *b"a key of a test.";

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

fn filter(bytes: &[u8]) -> Result<ForeignFilter, FormatError> {
    ForeignFilter::parse(bytes, &sha256(bytes), &sha256(bytes))
}

fn list(bytes: &[u8]) -> Result<ForeignList<'_>, FormatError> {
    ForeignList::parse(bytes, &sha256(bytes), &sha256(bytes))
}

fn build(tokens: &[(String, String)]) -> ForeignObjects {
    let tokens: Vec<_> = tokens.iter().map(|(issuer, jti)| (issuer.as_str(), jti.as_str())).collect();
    build_foreign(&tokens, KEY, sha256).unwrap()
}

/// As a verifier asks: the filter, and where it isn't sure the list.
struct Verifier<'b> {
    filter: ForeignFilter,
    lists: BTreeMap<[u8; 32], ForeignList<'b>>,
}

impl<'b> Verifier<'b> {
    fn new(objects: &'b ForeignObjects) -> Self {
        let lists = objects
            .lists
            .iter()
            .map(|(name, bytes)| (*name, ForeignList::parse(bytes, &sha256(bytes), name).unwrap()));
        Self { filter: filter(&objects.filter).unwrap(), lists: lists.collect() }
    }

    fn is_revoked(&self, issuer: &str, jti: &str) -> bool {
        match self.filter.check(issuer, jti) {
            Suspicion::Clear => false,
            Suspicion::ConfirmWith(name) => self.lists[&name].contains(issuer, jti),
        }
    }
}

fn tokens() -> impl Strategy<Value = Vec<(String, String)>> {
    // Few letters, so that one is another's beginning, and issuer and jti can be divided differently.
    prop::collection::vec(("[ab]{0,3}", "[abé]{0,4}"), 0..200)
}

proptest! {
    #[test]
    fn filter_and_lists_answer_exactly(tokens in tokens(), others in tokens()) {
        let objects = build(&tokens);
        let verifier = Verifier::new(&objects);
        let revoked: BTreeSet<_> = tokens.iter().collect();
        prop_assert_eq!(verifier.filter.len(), revoked.len() as u64);
        for (issuer, jti) in tokens.iter().chain(&others) {
            prop_assert_eq!(verifier.is_revoked(issuer, jti), revoked.contains(&(issuer.clone(), jti.clone())));
        }
    }

    #[test]
    fn the_same_tokens_make_the_same_objects(tokens in tokens(), again in 0..20_usize) {
        let mut other: Vec<_> = tokens.iter().rev().cloned().collect();
        other.extend(tokens.iter().take(again).cloned());
        prop_assert_eq!(build(&tokens), build(&other));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes: Vec<u8>, version in any::<bool>()) {
        let _ = filter(&bytes);
        let _ = list(&bytes);
        for magic in [b"CSRF", b"CSRL"] {
            let announced = [magic.as_slice(), &[u8::from(version), 0], &bytes].concat();
            let _ = filter(&announced).map(|filter| filter.check("a", "b"));
            let _ = list(&announced).map(|list| list.contains("a", "b"));
        }
    }

    #[test]
    fn damaged_objects_are_refused_or_harmless(tokens in tokens(), place: prop::sample::Index, bit in 0..8_u32, cut: prop::sample::Index) {
        let objects = build(&tokens);
        let damage = |bytes: &[u8]| {
            let mut damaged = bytes.to_vec();
            damaged[place.index(bytes.len())] ^= 1 << bit;
            damaged
        };
        prop_assert!(filter(&objects.filter[..cut.index(objects.filter.len())]).is_err());
        let damaged = damage(&objects.filter);
        let refused = ForeignFilter::parse(&damaged, &sha256(&damaged), &sha256(&objects.filter)).err();
        prop_assert_eq!(refused, Some(FormatError::Digest));
        if let Ok(filter) = filter(&damaged) {
            for (issuer, jti) in &tokens {
                let _ = filter.check(issuer, jti);
            }
        }
        for (name, bytes) in &objects.lists {
            prop_assert!(list(&bytes[..cut.index(bytes.len())]).is_err());
            let damaged = damage(bytes);
            prop_assert_eq!(ForeignList::parse(&damaged, &sha256(&damaged), name).err(), Some(FormatError::Digest));
            if let Ok(list) = list(&damaged) {
                for (issuer, jti) in &tokens {
                    let _ = list.contains(issuer, jti);
                }
            }
        }
    }
}

fn numbered(numbers: std::ops::Range<u32>) -> Vec<(String, String)> {
    numbers.map(|n| (format!("https://issuer-{}.example", n % 3), format!("jti-{n:08}"))).collect()
}

#[test]
fn few_others_are_suspected_and_none_is_refused() {
    let objects = build(&numbered(0..20_000));
    assert!(objects.lists.len() > 4, "cut into parts");
    assert!(objects.lists.iter().all(|(_, list)| list.len() < 100_000), "of about 64 KiB");
    let verifier = Verifier::new(&objects);
    for (issuer, jti) in numbered(0..20_000) {
        assert!(verifier.is_revoked(&issuer, &jti));
    }
    let others = numbered(20_000..70_000);
    let suspected =
        others.iter().filter(|(issuer, jti)| verifier.filter.check(issuer, jti) != Suspicion::Clear);
    let suspected = suspected.count();
    assert!((100..500).contains(&suspected), "{suspected} of 50,000");
    assert!(others.iter().all(|(issuer, jti)| !verifier.is_revoked(issuer, jti)));
}

/// One more token changes the filter and the one list that it belongs to.
#[test]
fn lists_that_nothing_was_added_to_stay() {
    let tokens = numbered(0..20_001);
    let (before, after) = (build(&tokens[..20_000]), build(&tokens));
    let names =
        |objects: &ForeignObjects| objects.lists.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>();
    assert!(before.lists.len() > 2);
    assert_eq!(names(&before).intersection(&names(&after)).count(), before.lists.len() - 1);
}

#[test]
fn another_key_suspects_others() {
    let tokens = numbered(0..10_000);
    let borrowed: Vec<_> = tokens.iter().map(|(issuer, jti)| (issuer.as_str(), jti.as_str())).collect();
    let suspected = |key| {
        let filter = filter(&build_foreign(&borrowed, key, sha256).unwrap().filter).unwrap();
        let others = numbered(10_000..60_000).into_iter();
        others.filter(|(issuer, jti)| filter.check(issuer, jti) != Suspicion::Clear).collect::<BTreeSet<_>>()
    };
    let (one, other) = (suspected(KEY), suspected([9; 16]));
    assert!(one.len() > 50 && other.len() > 50);
    assert!(one.intersection(&other).count() < one.len() / 4);
}

#[test]
fn other_versions_and_impossible_headers_are_refused() {
    let ForeignObjects { filter: bytes, lists } = build(&numbered(0..10));
    let with = |bytes: &[u8], place: usize, value: u8| {
        let mut other = bytes.to_vec();
        other[place] = value;
        other
    };
    for (place, value, error) in [
        (0, b'X', FormatError::Version),
        (4, 2, FormatError::Version),
        (6, 17, FormatError::Filter),
        (7, 1, FormatError::Filter),
        (6, 16, FormatError::Length),
        (35, 0xff, FormatError::Length),
        (32, 0, FormatError::Filter),
    ] {
        assert_eq!(filter(&with(&bytes, place, value)).err(), Some(error), "{place}");
    }
    let (_, bytes) = &lists[0];
    for (place, value, error) in [
        (0, b'X', FormatError::Version),
        (4, 2, FormatError::Version),
        (6, 1, FormatError::Version),
        (11, 0xff, FormatError::Length),
        (15, 0xff, FormatError::Length),
        (24, 0xff, FormatError::List),
        (28, 0xff, FormatError::List),
        (48, 0xff, FormatError::List),
    ] {
        assert_eq!(list(&with(bytes, place, value)).err(), Some(error), "{place}");
    }
    let last = bytes.len() - 1;
    assert_eq!(list(&with(bytes, last, b'!')).err(), Some(FormatError::List), "out of order");
    assert_eq!(list(&[bytes.as_slice(), b"x"].concat()).err(), Some(FormatError::Length));
}
