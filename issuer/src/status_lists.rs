//! Token Status Lists (draft-ietf-oauth-status-list-21): what was revoked, in a form that verifiers of any make can read.
//!
//! A list for each shard, its index a token's serial. It has the tokens whose resource server asked for that (`resource_servers.status_list`), and says of each
//! whether it was taken back, be it by itself or by a rule.
//!
//! Lists are made when somebody asks, and kept. Whether a kept one still holds is one small query, twice a second at most: every revocation and every rule is an entry
//! of the outbox, so a list is good until there is an entry that concerns it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Bytes;
use countersign_shared::{Shard, UnixTime, base64url};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde::Serialize;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};

use crate::app::App;
use crate::clock;
use crate::clock::SLOW_CLOCKS;
use crate::config::IssuerUrl;
use crate::domain::signing_key::HEAD_SECONDS;
use crate::keys::{SignError, Signer};
use crate::storage::StorageError;
use crate::storage::status_lists as storage;

/// `typ` of a Status List Token (§5.1).
pub const STATUS_LIST_TYPE: &str = "statuslist+jwt";

/// How long a look counts.
const LOOK: Duration = Duration::from_millis(500);
/// How often a list is made anew while tokens may still come that a rule ends.
const RIPEN: Duration = Duration::from_secs(2);
/// A list that takes long to make is made less often: this many times as long as it took is left between two...
const REST: u32 = 4;
/// ... or this, if that is shorter.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// For how long a list may be relied on, in seconds, besides the time in which nobody need ask again: as with a head.
const FRESH_SECONDS: u32 = HEAD_SECONDS;
/// An unchanged list is signed again after this, in seconds.
const SIGNED_SECONDS: i64 = FRESH_SECONDS as i64 / 2;
/// The fewest entries of a list. Together with the doubling below: a list that somebody has kept has the indexes of tokens that were issued since. And how many tokens there are
/// is nobody's business.
const MIN_LENGTH: u64 = 1 << 20;
/// Bytes of a list that are made at a time.
const CHUNK: u64 = 64 * 1024;

/// Where the list of `shard` is: its `sub`, and the `uri` in the tokens.
pub fn uri(issuer: &IssuerUrl, shard: Shard) -> String {
    format!("{}/status-lists/{}", issuer.as_str(), shard.get())
}

/// The lists that this process has made.
pub struct StatusLists {
    /// How long others may go without asking again, in seconds.
    ttl: u32,
    slots: std::sync::Mutex<BTreeMap<Shard, Slot>>,
    /// When it was seen that a shard has none.
    absent: std::sync::Mutex<BTreeMap<Shard, Instant>>,
    /// One is made at a time.
    making: Semaphore,
    /// No entry of the outbox can come before this one any more.
    settled: AtomicI64,
    listed: Mutex<Option<(Instant, Vec<Shard>)>>,
}

type Slot = Arc<Mutex<Option<Held>>>;

/// A signed list, as it is sent.
pub struct Published {
    /// The strong entity tag of `jwt`, without quotes.
    pub tag: String,
    /// The Status List Token.
    pub jwt: Bytes,
    /// The same in gzip's coding.
    pub gzip: Bytes,
}

struct Held {
    looked: Instant,
    made: Instant,
    took: Duration,
    /// The outbox was looked at up to this entry, and after it there were so many that concern the list.
    seen: (i64, i64),
    ripe: bool,
    extent: Extent,
    /// `lst`.
    list: Arc<str>,
    signed_at: UnixTime,
    kid: String,
    published: Arc<Published>,
}

/// What a list says without knowing any token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    /// Its number of entries.
    length: u64,
    /// All before it are invalid.
    floor: u64,
}

impl Extent {
    const fn of(look: &storage::Look) -> Self {
        let wanted = look.next_serial.saturating_mul(2).next_power_of_two();
        Self { length: if wanted > MIN_LENGTH { wanted } else { MIN_LENGTH }, floor: look.floor }
    }
}

/// The payload of a Status List Token (§5.1), in the order it is written.
#[derive(Serialize)]
struct Payload<'a> {
    iss: &'a str,
    sub: String,
    iat: i64,
    exp: i64,
    ttl: u32,
    status_list: List<'a>,
}

/// A status list (§4.2): one bit a token, set where it isn't valid.
#[derive(Serialize)]
struct List<'a> {
    bits: u8,
    lst: &'a str,
    aggregation_uri: String,
}

/// Why there is no list to be had.
#[derive(Debug)]
pub enum StatusListError {
    /// The database.
    Storage(StorageError),
    /// It can't be signed.
    Signing(SignError),
    /// Ours.
    Making(String),
}

impl From<StorageError> for StatusListError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<SignError> for StatusListError {
    fn from(error: SignError) -> Self {
        Self::Signing(error)
    }
}

impl fmt::Display for StatusListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::Signing(error) => error.fmt(f),
            Self::Making(problem) => write!(f, "a status list can't be made: {problem}"),
        }
    }
}

impl std::error::Error for StatusListError {}

impl StatusLists {
    /// None yet; others may go `ttl` seconds without asking again.
    pub fn new(ttl: u32) -> Self {
        Self {
            ttl,
            slots: std::sync::Mutex::default(),
            absent: std::sync::Mutex::default(),
            making: Semaphore::new(1),
            settled: AtomicI64::new(0),
            listed: Mutex::default(),
        }
    }

    /// How long others may go without asking again, in seconds.
    pub const fn ttl(&self) -> u32 {
        self.ttl
    }

    /// The slot of `shard`; those of shards whose time is over are dropped.
    fn slot(&self, shard: Shard, now: UnixTime) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|shard, _| is_kept(*shard, now));
        slots.entry(shard).or_default().clone()
    }

    /// Whether it was seen a moment ago that `shard` has none: whoever asks again and again costs no query each.
    fn is_absent(&self, shard: Shard) -> bool {
        let absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.get(&shard).is_some_and(|seen| seen.elapsed() < LOOK)
    }

    fn note_absent(&self, shard: Shard) {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.retain(|_, seen| seen.elapsed() < LOOK);
        absent.insert(shard, Instant::now());
    }
}

fn is_kept(shard: Shard, now: UnixTime) -> bool {
    shard.ends_at().plus(SLOW_CLOCKS) > now
}

/// The list of `shard`, as it was half a second ago or later. `None`: there is none.
pub async fn read(app: &Arc<App>, shard: Shard) -> Result<Option<Arc<Published>>, StatusListError> {
    let now = clock::now();
    // No token lives for longer than a day, so no more slots than hours are taken whatever is asked for.
    if !is_kept(shard, now) || shard.ends_at().0 - now.0 > 26 * Shard::SECONDS {
        return Ok(None);
    }
    let slot = app.status_lists.slot(shard, now).lock_owned().await;
    if app.status_lists.is_absent(shard) {
        return Ok(None);
    }
    if let Some(held) = slot.as_ref()
        && held.looked.elapsed() < LOOK
        && app.keys.token_signer(None).await?.key().kid() == held.kid
    {
        return Ok(Some(held.published.clone()));
    }
    // It is made even if who asked doesn't wait: somebody will ask again.
    let app = app.clone();
    let making = tokio::spawn(async move { refresh(&app, shard, slot).await });
    making.await.map_err(|error| StatusListError::Making(error.to_string()))?
}

/// Where lists are, as of a second ago or later: those of shards whose tokens may be alive.
pub async fn uris(app: &App) -> Result<Vec<String>, StatusListError> {
    let mut listed = app.status_lists.listed.lock().await;
    let shards = if let Some(known) = listed.take_if(|(read, _)| read.elapsed() < LOOK) {
        known
    } else {
        let (read, from) = (Instant::now(), Shard::of_expiry(clock::now()));
        let from = from.ok_or_else(|| StatusListError::Making("time has left the range of shards".into()))?;
        (read, storage::shards(&app.database, from).await?)
    };
    let (_, shards) = listed.insert(shards);
    Ok(shards.iter().map(|shard| uri(&app.issuer_url, *shard)).collect())
}

/// Looks whether what is held still holds; makes, and signs, what doesn't.
async fn refresh(
    app: &App,
    shard: Shard,
    mut slot: OwnedMutexGuard<Option<Held>>,
) -> Result<Option<Arc<Published>>, StatusListError> {
    let lists = &app.status_lists;
    // From before anything is read.
    let (looked, as_of) = (Instant::now(), clock::now());
    let held = slot.as_ref();
    let seen = held.map_or_else(|| lists.settled.load(Ordering::Relaxed), |held| held.seen.0);
    let Some(look) = storage::look(&app.database, shard, seen).await? else {
        *slot = None;
        lists.note_absent(shard);
        return Ok(None);
    };
    lists.settled.fetch_max(look.settled, Ordering::Relaxed);
    let extent = Extent::of(&look);

    let is_same = |held: &&Held| held.seen.1 == look.news && held.extent == extent;
    let is_good = |held: &&Held| {
        (held.ripe || held.made.elapsed() < RIPEN) && held.signed_at.plus(SIGNED_SECONDS) > as_of
    };
    let rests =
        |held: &&Held| held.extent == extent && held.made.elapsed() < (held.took * REST).min(LONGEST_REST);
    let kept = held.filter(|held| is_same(held) && is_good(held) || rests(held));
    let (list, made, took, ripe) = if let Some(held) = kept {
        (held.list.clone(), held.made, held.took, held.ripe)
    } else {
        let (list, took) = make(app, shard, extent).await?;
        (list, Instant::now(), took, !look.unripe)
    };
    // What had to wait for its turn is still to be seen.
    let seen = kept.filter(|held| !is_same(held)).map_or((look.settled, look.unsettled), |held| held.seen);

    let key = app.keys.token_signer(None).await?;
    let kid = key.key().kid();
    let signed = held
        .filter(|held| held.list == list && held.kid == kid && held.signed_at.plus(SIGNED_SECONDS) > as_of);
    let (published, signed_at) = if let Some(held) = signed {
        (held.published.clone(), held.signed_at)
    } else {
        (Arc::new(sign(app, &key, shard, &list, as_of).await?), as_of)
    };
    let (kid, answer) = (kid.to_owned(), published.clone());
    *slot = Some(Held { looked, made, took, seen, ripe, extent, list, signed_at, kid, published });
    Ok(Some(answer))
}

/// `lst` of what the database has now, and how long that took.
async fn make(app: &App, shard: Shard, extent: Extent) -> Result<(Arc<str>, Duration), StatusListError> {
    let making = app.status_lists.making.acquire().await;
    let _one_at_a_time = making.map_err(|error| StatusListError::Making(error.to_string()))?;
    let began = Instant::now();
    let ended = storage::ended(&app.database, shard).await?;
    let list = blocking(move || encode(extent, &ended)).await?;
    Ok((list.into(), began.elapsed()))
}

async fn sign(
    app: &App,
    key: &Signer,
    shard: Shard,
    list: &str,
    as_of: UnixTime,
) -> Result<Published, StatusListError> {
    let ttl = app.status_lists.ttl;
    let payload = Payload {
        iss: app.issuer_url.as_str(),
        sub: uri(&app.issuer_url, shard),
        iat: as_of.0,
        exp: as_of.plus((ttl + FRESH_SECONDS).into()).0,
        ttl,
        status_list: List {
            bits: 1,
            lst: list,
            aggregation_uri: format!("{}/status-lists", app.issuer_url.as_str()),
        },
    };
    // Strings and numbers only: that can't fail.
    let jwt = key.sign(STATUS_LIST_TYPE, serde_json::to_vec(&payload).unwrap_or_default()).await?;
    blocking(move || publish(jwt)).await
}

/// Compressing takes too long for an async thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StatusListError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
    done.map_err(|error| StatusListError::Making(error.to_string()))
}

fn publish(jwt: String) -> io::Result<Published> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(jwt.as_bytes())?;
    let tag = base64url::encode(&digest(&SHA256, jwt.as_bytes()).as_ref()[..16]);
    Ok(Published { tag, gzip: gzip.finish()?.into(), jwt: jwt.into() })
}

/// `lst` (§4.1): a bit for each serial, least significant first, set below the floor and for those in `ended`, which are ascending; ZLIB, base64url.
fn encode(Extent { length, floor }: Extent, ended: &[u64]) -> io::Result<String> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let mut ended = ended.iter().copied().skip_while(|serial| *serial < floor).peekable();
    let bytes = length.div_ceil(8);
    let mut from = 0;
    while from < bytes {
        let mut chunk = vec![0_u8; usize::try_from(CHUNK.min(bytes - from)).unwrap_or_default()];
        let end = (from + CHUNK).min(bytes) * 8;
        // A recovery leaves a hundred million: by bytes, then bits.
        let whole = floor.min(end) / 8 * 8;
        let filled = usize::try_from((whole / 8).saturating_sub(from)).unwrap_or_default();
        chunk[..filled].fill(0xff);
        let mut set = |serial: u64| {
            if let Some(byte) = usize::try_from(serial / 8 - from).ok().and_then(|place| chunk.get_mut(place))
            {
                *byte |= 1 << (serial % 8);
            }
        };
        (whole.max(from * 8)..floor.min(end)).for_each(&mut set);
        while let Some(serial) = ended.next_if(|serial| *serial < end) {
            set(serial);
        }
        encoder.write_all(&chunk)?;
        from += CHUNK;
    }
    Ok(base64url::encode(&encoder.finish()?))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn bits(list: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let compressed = base64url::decode(list.as_bytes()).unwrap();
        flate2::read::ZlibDecoder::new(compressed.as_slice()).read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// §4.1, the example with one bit a token.
    #[test]
    fn the_drafts_example() {
        let ended = [0, 3, 4, 5, 7, 8, 9, 13, 15];
        let list = encode(Extent { length: 16, floor: 0 }, &ended).unwrap();
        assert_eq!(bits(&list), [0xb9, 0xa3]);
        assert_eq!(list, "eNrbuRgAAhcBXQ");
    }

    #[test]
    fn what_is_below_the_floor_is_invalid() {
        let length = MIN_LENGTH * 2;
        let floor = CHUNK * 8 + 11;
        let list = bits(&encode(Extent { length, floor }, &[3, floor, length - 1]).unwrap());
        assert_eq!(list.len() as u64 * 8, length);
        for serial in 0..length {
            let place = usize::try_from(serial / 8).unwrap();
            let is_set = list[place] >> (serial % 8) & 1 == 1;
            assert_eq!(is_set, serial <= floor || serial == length - 1, "{serial}");
        }
    }

    #[test]
    fn there_is_room_for_what_comes() {
        let extent = |next_serial| {
            let look =
                storage::Look { next_serial, floor: 0, news: 0, settled: 0, unsettled: 0, unripe: false };
            Extent::of(&look).length
        };
        assert_eq!(extent(4096), MIN_LENGTH);
        assert_eq!(extent(MIN_LENGTH / 2), MIN_LENGTH);
        assert_eq!(extent(MIN_LENGTH / 2 + 1), MIN_LENGTH * 2);
        assert_eq!(extent(1 << 36), 1 << 37);
    }
}

/// No tests: measurements, which `cargo test` leaves out.
#[cfg(all(test, feature = "measurements"))]
mod measurements {
    use super::*;

    /// The table in `docs/benchmarks.md`: `cargo test -p countersign-issuer --features measurements --lib what_a_status_list_weighs -- --nocapture`
    #[test]
    fn what_a_status_list_weighs() {
        let tokens = 1_000_000_u64;
        let extent = Extent { length: 1 << 21, floor: 0 };
        for one_in in [0, 1000, 100, 10] {
            let mut state = 1_u64;
            let ended: Vec<u64> = (0..tokens)
                .filter(|_| {
                    // Marsaglia's xorshift: as random as revocations are.
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    one_in > 0 && state.is_multiple_of(one_in)
                })
                .collect();
            let mut times: Vec<Duration> = (0..5)
                .map(|_| {
                    let began = Instant::now();
                    encode(extent, &ended).unwrap();
                    began.elapsed()
                })
                .collect();
            times.sort_unstable();
            let list = encode(extent, &ended).unwrap();
            let gzip = publish(list.clone()).unwrap().gzip.len();
            println!("{} of {tokens}: lst {} bytes, gzip of it {gzip}, {times:?}", ended.len(), list.len());
        }
    }
}
