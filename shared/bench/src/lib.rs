//! The revoked set as the edge has it, in WebAssembly: what `bin/bench revocation` measures there, and the golden files.

#[path = "../../tests/golden/content.rs"]
pub mod content;

use std::cell::RefCell;

use countersign_shared::revocation::{Base, BaseBuilder, Delta, ForeignFilter, RevokedSet, Suspicion};
use countersign_shared::{Coordinate, Serial, Shard};
use sha2::{Digest as _, Sha256};
use wasm_bindgen::prelude::wasm_bindgen;

/// The one shard of the sets that are measured.
pub const SHARD: u32 = 494_340;

#[derive(Default)]
struct Held {
    object: Vec<u8>,
    set: RevokedSet,
    filter: Option<ForeignFilter>,
}

thread_local! {
    static HELD: RefCell<Held> = RefCell::default();
}

/// SHA-256, which elsewhere is the host's.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The token of that serial.
pub fn coordinate(serial: u64) -> Coordinate {
    Coordinate {
        shard: Shard::new(SHARD).expect("a constant"),
        serial: Serial::new(serial).expect("within the universe"),
    }
}

/// Some token of another issuer.
pub fn foreign_token(number: u64) -> (String, String) {
    (format!("https://issuer-{}.example", number % 7), format!("{:016x}{number:016x}", content::mix(number)))
}

/// Asks `set` about `count` serials below `universe` that look random; how many are revoked.
pub fn hits(set: impl Fn(u64) -> bool, universe: u64, count: u32, seed: u64) -> u32 {
    let mut state = seed | 1;
    let mut hits = 0;
    for _ in 0..count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Of 32 upper bits, so that there is no 128-bit product in the loop.
        hits += u32::from(set(((state >> 32) * universe) >> 32));
    }
    hits
}

/// Keeps the bytes of an object for [`load`].
#[wasm_bindgen]
pub fn put(object: Vec<u8>) {
    HELD.with_borrow_mut(|held| held.object = object);
}

/// Loads what was put: all but its digest.
#[wasm_bindgen]
pub fn load() -> bool {
    HELD.with_borrow_mut(|held| {
        let base = Base::parse(&held.object, &[0; 32], &[0; 32]);
        base.map(|base| held.set = RevokedSet::new(base, Delta::default())).is_ok()
    })
}

/// Makes a set of the serials below `live` of which one in `one_in` is revoked, and loads it.
#[wasm_bindgen]
pub fn build_sample(live: u32, one_in: u32) -> bool {
    let mut builder = BaseBuilder::new();
    for serial in (0..u64::from(live)).filter(|serial| content::is_revoked(*serial, u64::from(one_in))) {
        builder.revoke(coordinate(serial));
    }
    put(builder.finish(1));
    load()
}

/// An object of the serials below `live` of `shard` of which one in `one_in` is revoked.
#[wasm_bindgen]
pub fn sample_object(shard: u32, live: u32, one_in: u32) -> Option<Vec<u8>> {
    let shard = Shard::new(shard)?;
    let mut builder = BaseBuilder::new();
    for serial in (0..u64::from(live)).filter(|serial| content::is_revoked(*serial, u64::from(one_in))) {
        builder.revoke(Coordinate { shard, serial: Serial::new(serial)? });
    }
    Some(builder.finish(1))
}

/// Whether the samples revoke `serial`.
#[wasm_bindgen]
pub fn sample_revokes(serial: u32, one_in: u32) -> bool {
    content::is_revoked(u64::from(serial), u64::from(one_in))
}

/// [`hits`] of the loaded set; of none at all if `universe` is negative, for what the loop itself takes.
#[wasm_bindgen]
pub fn look_up(universe: f64, count: u32, seed: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number")]
    let serials = universe.abs() as u64;
    HELD.with_borrow(|held| {
        if universe < 0.0 {
            hits(|serial| serial % 10 == 0, serials, count, u64::from(seed))
        } else {
            hits(|serial| held.set.contains(coordinate(serial)), serials, count, u64::from(seed))
        }
    })
}

/// Asks the loaded set about every serial from `from` to `to`: false rejects, false accepts, and rightly revoked ones.
#[wasm_bindgen]
pub fn wrong(from: u32, to: u32, one_in: u32) -> Vec<u32> {
    HELD.with_borrow(|held| {
        let contains = |serial| held.set.contains(coordinate(serial));
        count_wrong(contains, u64::from(from)..u64::from(to), u64::from(one_in)).to_vec()
    })
}

/// False rejects, false accepts, and rightly revoked ones, among `serials` of which one in `one_in` is revoked.
pub fn count_wrong(contains: impl Fn(u64) -> bool, serials: core::ops::Range<u64>, one_in: u64) -> [u32; 3] {
    let mut counts = [0; 3];
    for serial in serials {
        match (contains(serial), content::is_revoked(serial, one_in)) {
            (true, false) => counts[0] += 1,
            (false, true) => counts[1] += 1,
            (true, true) => counts[2] += 1,
            (false, false) => {}
        }
    }
    counts
}

/// Loads a filter of other issuers' tokens.
#[wasm_bindgen]
pub fn load_filter(object: &[u8]) -> bool {
    let filter = ForeignFilter::parse(object, &[0; 32], &[0; 32]).ok();
    HELD.with_borrow_mut(|held| held.filter = filter);
    HELD.with_borrow(|held| held.filter.is_some())
}

/// How many of the tokens from `from` to `to` the filter suspects, `times` over.
#[wasm_bindgen]
pub fn suspected(from: u32, to: u32, times: u32) -> u32 {
    let tokens: Vec<_> = (from..to).map(|number| foreign_token(u64::from(number))).collect();
    HELD.with_borrow(|held| {
        let Some(filter) = &held.filter else { return u32::MAX };
        let mut count = 0;
        for _ in 0..times {
            for (issuer, jti) in &tokens {
                count += u32::from(filter.check(issuer, jti) != Suspicion::Clear);
            }
        }
        count
    })
}

/// The golden files' names, one a line.
#[wasm_bindgen]
pub fn golden_names() -> String {
    content::NAMES.join("\n")
}

/// The bytes of a golden file, as made here; nothing if there is none of that name.
#[wasm_bindgen]
pub fn golden_make(name: &str) -> Option<Vec<u8>> {
    content::make(name, sha256)
}

/// Reads a golden file and asks it about everything: how many answers were right, or what was wrong.
#[wasm_bindgen]
pub fn golden_check(name: &str, bytes: &[u8]) -> String {
    match content::check(name, bytes, sha256) {
        Ok(right) => right.to_string(),
        Err(wrong) => wrong,
    }
}
