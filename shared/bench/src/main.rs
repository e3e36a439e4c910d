//! What revoked sets cost, natively, beside what others do. `bin/bench revocation` runs it.
//!
//!     revocation-bench DIR ROUNDS EXACT
//!
//! Writes into DIR the objects that WebAssembly is to read, checks EXACT serials one by one, and prints a line for each figure: work, metric, unit and
//! the value of each round, with tabs between. Times are CPU times; what is compared takes turns.

mod peers;

use std::hint::black_box;
use std::path::Path;

use countersign_revocation_bench::{content, coordinate, count_wrong, foreign_token, hits, sha256};
use countersign_shared::revocation::{
    Base, BaseBuilder, Delta, ForeignFilter, RevokedSet, Suspicion, build_foreign, encode_delta,
};
use cpu_time::ProcessTime;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Revoked tokens where the number isn't another's.
const MANY: u64 = 10_000_000;

/// Look-ups a round.
const LOOKUPS: u32 = 2_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, rounds, exact] = arguments.as_slice() else {
        panic!("usage: revocation-bench DIR ROUNDS EXACT");
    };
    let (rounds, exact) = (rounds.parse().expect("ROUNDS"), exact.parse().expect("EXACT"));
    let dir = Path::new(dir);
    std::fs::create_dir_all(dir).expect("DIR can be made");
    for one_in in [10, 100, 1000] {
        build_and_look_up(one_in, rounds);
    }
    sizes_beside_peers();
    look_ups_beside_peers(rounds);
    exactness(exact, dir);
    deltas();
    foreign(rounds, dir);
    let million = build((0..10_000_000).filter(|serial| content::is_revoked(*serial, 10)));
    std::fs::write(dir.join("million.base"), million).expect("DIR can be written to");
}

fn report(work: &str, metric: &str, unit: &str, values: &[f64]) {
    let values: Vec<_> = values.iter().map(|value| format!("{value}")).collect();
    println!("{work}\t{metric}\t{unit}\t{}", values.join(" "));
}

/// The result of `work`, and the CPU time it took, in seconds.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let began = ProcessTime::now();
    let result = black_box(work());
    (result, began.elapsed().as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

fn build(serials: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut builder = BaseBuilder::new();
    serials.for_each(|serial| builder.revoke(coordinate(serial)));
    builder.finish(1)
}

fn load(object: &[u8]) -> RevokedSet {
    let base = Base::parse(object, &[0; 32], &[0; 32]).expect("an object that was just made");
    RevokedSet::new(base, Delta::default())
}

/// `count` serials of which each is revoked with a chance of one in `one_in`, in no order; and the number of live ones.
fn scattered(count: u64, one_in: u64) -> (Vec<u64>, u64) {
    let mut serials = Vec::with_capacity(usize::try_from(count).expect("fits"));
    let (mut serial, mut draw) = (0_u64, 0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small positive numbers")]
    while (serials.len() as u64) < count {
        draw += 1;
        // Geometric gaps.
        let chance = ratio(content::mix(draw) >> 11, 1 << 53);
        serial += ((1.0 - chance).ln() / (1.0 - ratio(1, one_in)).ln()) as u64 + 1;
        serials.push(serial - 1);
    }
    for place in (1..serials.len()).rev() {
        let other = content::mix(place as u64 ^ 0x5eed) % (place as u64 + 1);
        serials.swap(place, usize::try_from(other).expect("fits"));
    }
    (serials, serial)
}

fn percent(one_in: u64) -> String {
    format!("{}%", ratio(100, one_in))
}

/// Ten million, in no order.
fn build_and_look_up(one_in: u64, rounds: usize) {
    let work = format!("Elias–Fano, 10 M revoked, {} of live", percent(one_in));
    let (serials, universe) = scattered(MANY, one_in);
    let (mut seconds, mut peaks, mut object) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        drop(core::mem::take(&mut object));
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let (made, took) = timed(|| build(serials.iter().copied()));
        object = made;
        seconds.push(took);
        peaks.push(ratio((MEMORY.peak_usage() - before) as u64, object.len() as u64));
    }
    drop(serials);
    report(&work, "build, sort included", "s", &seconds);
    report(&work, "peak memory of the build / size of the set", "×", &peaks);
    report(&work, "bits a revoked token", "bits", &[ratio(object.len() as u64 * 8, MANY)]);
    let (mut loads, mut lookups) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (set, took) = timed(|| load(&object));
        loads.push(took * 1e3);
        let contains = |serial| set.contains(coordinate(serial));
        let (_, took) = timed(|| hits(contains, universe, LOOKUPS, round as u64));
        lookups.push(took * 1e9 / f64::from(LOOKUPS));
    }
    report(&work, "load, without the digest", "ms", &loads);
    report(&work, "look-up, native", "ns", &lookups);
}

/// Bits and build time for each revoked token, with everybody given the same ones.
fn sizes_beside_peers() {
    // The clubcard hashes every live token when it is built, so the sparser the fewer.
    for (one_in, live) in [(10, 10_000_000), (100, 20_000_000), (1000, 50_000_000)] {
        let revoked: Vec<u64> = (0..live).filter(|serial| content::is_revoked(*serial, one_in)).collect();
        let count = revoked.len() as u64;
        let work = format!("{} of {} M live", percent(one_in), live / 1_000_000);
        let line = |name: &str, (bytes, seconds): (u64, f64)| {
            report(&work, &format!("{name}: bits a revoked token"), "bits", &[ratio(bytes * 8, count)]);
            report(&work, &format!("{name}: build"), "ms", &[seconds * 1e3]);
        };
        let (object, seconds) = timed(|| build(revoked.iter().copied()));
        line("Elias–Fano", (object.len() as u64, seconds));
        let (list, seconds) = timed(|| peers::status_list(&revoked, live));
        line("zlib status list", (peers::deflate(&list), seconds + timed(|| peers::deflate(&list)).1));
        let (size, seconds) = timed(|| peers::Clubcard::build(live, one_in).bytes());
        line("clubcard", (size, seconds));
        let (size, seconds) = timed(|| peers::fast_bloom(&revoked).1);
        line("fastbloom at 1%", (size, seconds));
        let (size, seconds) = timed(|| peers::fuse(&revoked).1);
        line("xorf BinaryFuse8", (size, seconds));
    }
}

/// One million of ten million, everybody in turn; and who is wrong how often.
fn look_ups_beside_peers(rounds: usize) {
    const LIVE: u64 = 10_000_000;
    let revoked: Vec<u64> = (0..LIVE).filter(|serial| content::is_revoked(*serial, 10)).collect();
    let set = load(&build(revoked.iter().copied()));
    let card = peers::Clubcard::build(LIVE, 10);
    let (bloom, _) = peers::fast_bloom(&revoked);
    let (fuse, _) = peers::fuse(&revoked);
    let list = peers::status_list(&revoked, LIVE);
    let work = "1 M of 10 M live";
    let ours = |serial| set.contains(coordinate(serial));
    let card = |serial| card.contains(serial);
    let bloom = |serial: u64| bloom.contains(&serial);
    let fuse = |serial: u64| peers::fuse_contains(&fuse, serial);
    let list = |serial| peers::status(&list, serial);
    let everybody: [(&str, &dyn Fn(u64) -> bool); 5] = [
        ("Elias–Fano", &ours),
        ("clubcard", &card),
        ("fastbloom at 1%", &bloom),
        ("xorf BinaryFuse8", &fuse),
        ("status list, inflated", &list),
    ];
    let mut times = vec![Vec::new(); everybody.len()];
    for round in 0..rounds {
        for ((_, contains), times) in everybody.iter().zip(&mut times) {
            let (_, seconds) = timed(|| hits(contains, LIVE, LOOKUPS, round as u64));
            times.push(seconds * 1e9 / f64::from(LOOKUPS));
        }
    }
    for ((name, contains), times) in everybody.iter().zip(&times) {
        report(work, &format!("{name}: look-up, native"), "ns", times);
        let [rejects, accepts, _] = count_wrong(contains, 0..LIVE, 10);
        report(work, &format!("{name}: false rejects"), "", &[f64::from(rejects)]);
        report(work, &format!("{name}: false accepts"), "", &[f64::from(accepts)]);
    }
}

/// Every serial, one by one, against what made the set.
fn exactness(serials: u64, dir: &Path) {
    let work = format!("Elias–Fano, {} M serials, one by one", ratio(serials, 1_000_000));
    for one_in in [10, 100, 1000] {
        let object = build((0..serials).filter(|serial| content::is_revoked(*serial, one_in)));
        let set = load(&object);
        let [rejects, accepts, right] =
            count_wrong(|serial| set.contains(coordinate(serial)), 0..serials, one_in);
        assert!(u64::from(right) > serials / one_in / 2, "nothing was revoked");
        report(&work, &format!("false rejects at {}, native", percent(one_in)), "", &[f64::from(rejects)]);
        report(&work, &format!("false accepts at {}, native", percent(one_in)), "", &[f64::from(accepts)]);
        std::fs::write(dir.join(format!("exact-{one_in}.base")), object).expect("DIR can be written to");
    }
}

fn deltas() {
    for (count, live) in [(1_000_u64, 100_000_000_u64), (1_000, 10_000_000), (100, 10_000_000)] {
        let tokens: Vec<_> = (0..count).map(|n| coordinate(content::mix(n) % live)).collect();
        let size = encode_delta(&tokens, &[]).len() as u64;
        report(
            &format!("delta of {count} over {} M", live / 1_000_000),
            "bytes a revocation",
            "B",
            &[ratio(size, count)],
        );
    }
}

/// A million tokens of other issuers.
fn foreign(rounds: usize, dir: &Path) {
    const COUNT: u64 = 1_000_000;
    let work = "split-block Bloom, 1 M foreign tokens";
    let tokens: Vec<_> = (0..COUNT).map(foreign_token).collect();
    let borrowed: Vec<_> = tokens.iter().map(|(issuer, jti)| (issuer.as_str(), jti.as_str())).collect();
    let (objects, seconds) = timed(|| build_foreign(&borrowed, *b"a random number.", sha256));
    let objects = objects.expect("not too many");
    report(work, "build, with its lists and their digests", "s", &[seconds]);
    report(work, "bits a token", "bits", &[ratio(objects.filter.len() as u64 * 8, COUNT)]);
    let largest = objects.lists.iter().map(|(_, list)| list.len()).max().unwrap_or(0);
    report(work, "largest list", "KB", &[ratio(largest as u64, 1000)]);
    let filter = ForeignFilter::parse(&objects.filter, &[0; 32], &[0; 32]).expect("just made");
    let suspects = |tokens: &[(String, String)]| {
        tokens.iter().filter(|(issuer, jti)| filter.check(issuer, jti) != Suspicion::Clear).count() as u64
    };
    report(work, "missed", "", &[ratio(COUNT - suspects(&tokens), 1)]);
    let others: Vec<_> = (COUNT..2 * COUNT).map(foreign_token).collect();
    let times: Vec<_> = (0..rounds).map(|_| timed(|| suspects(&others)).1 * 1e9 / ratio(COUNT, 1)).collect();
    report(work, "suspected in vain", "%", &[ratio(suspects(&others) * 100, COUNT)]);
    report(work, "look-up, native", "ns", &times);
    std::fs::write(dir.join("foreign.filter"), objects.filter).expect("DIR can be written to");
}
