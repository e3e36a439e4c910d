//! What the golden files hold: made, and asked about, by the native tests and by the wasm module alike.

use countersign_shared::revocation::{
    Base, BaseBuilder, Delta, ForeignFilter, ForeignList, Level, RevokedSet, Rule, Suspicion, build_foreign,
    encode_delta,
};
use countersign_shared::{Coordinate, Serial, Shard, UnixTime};

/// The files' names, in `shared/tests/golden/`.
pub const NAMES: [&str; 6] =
    ["empty.base", "sparse.base", "mixed.base", "some.delta", "foreign.filter", "foreign.list"];

const SHARD: u32 = 494_340;
const KEY: [u8; 16] = *b"SipHash key here";

/// A number that looks random (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
pub const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether one in `one_in` is revoked, as far as the numbers look random.
pub const fn is_revoked(serial: u64, one_in: u64) -> bool {
    mix(serial) < u64::MAX / one_in
}

/// Shards from [`SHARD`] on: of how many serials each, one in how many is revoked.
fn shards(name: &str) -> &'static [(u64, u64)] {
    match name {
        "sparse.base" => &[(100_000, 100)],
        "mixed.base" => &[(10_000, 2), (30_000, 10), (5_000, u64::MAX), (Serial::LIMIT, 1 << 28)],
        "some.delta" => &[(100_000, 400), (Serial::LIMIT, 1 << 29)],
        _ => &[],
    }
}

fn coordinate(shard: usize, serial: u64) -> Option<Coordinate> {
    let shard = Shard::new(SHARD + u32::try_from(shard).ok()?)?;
    Some(Coordinate { shard, serial: Serial::new(serial)? })
}

/// Serials to make a shard of, or to ask about: all of a small one, some of a large one.
fn candidates(serials: u64) -> impl Iterator<Item = u64> {
    let step = (serials >> 17).max(1);
    (0..serials).step_by(usize::try_from(step).unwrap_or(usize::MAX))
}

/// In a large shard the candidates are few, so more of them are revoked.
fn is_member(serial: u64, (serials, one_in): (u64, u64)) -> bool {
    is_revoked(serial, (one_in / (serials >> 17).max(1)).max(1))
}

fn members(name: &str) -> Vec<Coordinate> {
    let shards = (0_usize..).zip(shards(name));
    let members = shards.flat_map(|(place, shard)| {
        let serials = candidates(shard.0).filter(|serial| is_member(*serial, *shard));
        serials.filter_map(move |serial| coordinate(place, serial))
    });
    members.collect()
}

fn rules() -> Vec<Rule> {
    let rule = |level, subject: &[u8], not_before| Rule::new(level, subject.to_vec(), UnixTime(not_before));
    let rules = [
        rule(Level::Global, b"", 1),
        rule(Level::Tenant, &[0x11; 16], 1_790_000_000),
        rule(Level::Agent, &[0x22; 16], 1_790_000_001),
        rule(Level::Credential, &[0x33; 16], i64::MAX),
        rule(Level::Key, b"a kid", -1),
    ];
    rules.into_iter().flatten().collect()
}

fn token(number: u64) -> (String, String) {
    (format!("https://issuer-{}.example", number % 3), format!("{:016x}", mix(number)))
}

/// The bytes of the file `name`.
pub fn make(name: &str, sha256: impl Fn(&[u8]) -> [u8; 32]) -> Option<Vec<u8>> {
    match name {
        "some.delta" => Some(encode_delta(&members(name), &rules())),
        "foreign.filter" | "foreign.list" => {
            let tokens: Vec<_> = (0..200).map(token).collect();
            let tokens: Vec<_> = tokens.iter().map(|(issuer, jti)| (issuer.as_str(), jti.as_str())).collect();
            let mut objects = build_foreign(&tokens, KEY, sha256)?;
            if name == "foreign.filter" { Some(objects.filter) } else { Some(objects.lists.pop()?.1) }
        }
        _ => {
            let mut builder = BaseBuilder::new();
            for member in members(name) {
                builder.revoke(member);
            }
            if name == "mixed.base" {
                for rule in rules() {
                    builder.end_up_to(rule);
                }
            }
            Some(builder.finish(42))
        }
    }
}

/// Reads the file `name` and asks it about everything it holds and more. How many answers were right, or the first that was wrong.
pub fn check(name: &str, bytes: &[u8], sha256: impl Fn(&[u8]) -> [u8; 32]) -> Result<u32, String> {
    let digest = sha256(bytes);
    let mut right = 0;
    let mut expect = |what: &dyn core::fmt::Debug, said: bool, is: bool| {
        right += 1;
        if said == is { Ok(()) } else { Err(format!("{name} says {said} of {what:?}")) }
    };
    match name {
        "foreign.filter" => {
            let filter = ForeignFilter::parse(bytes, &digest, &digest).map_err(|error| error.to_string())?;
            let mut suspected = 0;
            for number in 0..2_000 {
                let (issuer, jti) = token(number);
                let said = filter.check(&issuer, &jti) != Suspicion::Clear;
                if number < 200 {
                    expect(&(issuer, jti), said, true)?;
                } else {
                    suspected += u32::from(said);
                }
            }
            // The very ones, not about so many: both sides compute the same bits.
            expect(&("suspected in vain", suspected), suspected == SUSPECTED_IN_VAIN, true)?;
        }
        "foreign.list" => {
            let list = ForeignList::parse(bytes, &digest, &digest).map_err(|error| error.to_string())?;
            for number in 0..2_000 {
                let (issuer, jti) = token(number);
                expect(&number, list.contains(&issuer, &jti), number < 200)?;
            }
        }
        _ => {
            let set = if name == "some.delta" {
                RevokedSet::new(Base::default(), Delta::parse(bytes).map_err(|error| error.to_string())?)
            } else {
                let base = Base::parse(bytes, &digest, &digest).map_err(|error| error.to_string())?;
                expect(&"seq", base.seq() == 42, true)?;
                RevokedSet::new(base, Delta::default())
            };
            let none = (100, u64::MAX);
            for (place, shard) in (0_usize..).zip(shards(name).iter().chain([&none])) {
                for serial in candidates(shard.0) {
                    if let Some(coordinate) = coordinate(place, serial) {
                        expect(&coordinate, set.contains(coordinate), is_member(serial, *shard))?;
                    }
                }
            }
        }
    }
    Ok(right)
}

/// Of the tokens 200 to 1,999, none of which is in the filter.
const SUSPECTED_IN_VAIN: u32 = 8;
