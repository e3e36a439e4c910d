//! Hot state of one process.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use countersign_shared::{AgentId, Jti};
use futures_util::future::{BoxFuture, ready};

use super::{Answered, Asked, Failed, Health, HotState, MonthlyCount, OutOfReach, Verdict};
use crate::domain::limit::{Counts, LockoutPolicy, Moment, Network, Pair, Rate, Subject};

/// Above this many marks the next one first clears out those that have lapsed.
const SWEEP_ABOVE: usize = 10_000;
/// Subjects, and pairs, that are remembered at once: some 10 MB of each.
pub(crate) const MAX_ENTRIES: usize = 100_000;
/// A full map is searched for what has lapsed this often at most.
const SWEEP_EVERY: u64 = 1_000;

/// Marks in memory, with the instant up to which each counts; counters; lockouts.
#[derive(Default)]
pub struct InProcess {
    revoked: Mutex<Marks>,
    rates: Mutex<Bounded<Subject, Windows>>,
    pairs: Mutex<Bounded<Pair, Failures>>,
}

#[derive(Default)]
struct Marks {
    until: HashMap<Jti, Instant>,
    /// So that a sweep that finds nothing isn't repeated with every mark.
    sweep_above: usize,
}

/// The counts of a window and the one before.
#[derive(Default)]
struct Windows {
    window: u64,
    counts: Counts,
}

impl Windows {
    /// As they are seen from `window`.
    fn seen_from(&self, window: u64) -> Counts {
        match window.checked_sub(self.window) {
            // A clock that was set back is in the same window.
            None | Some(0) => self.counts,
            Some(1) => Counts { current: 0, previous: self.counts.current },
            Some(_) => Counts::default(),
        }
    }
}

/// When a pair failed, newest last, and until when it is locked out; in milliseconds.
#[derive(Default)]
struct Failures {
    at: VecDeque<u64>,
    /// From when on the failures don't count.
    lapse: u64,
    locked_until: u64,
}

impl Failures {
    fn lapsed(&self, now: Moment) -> bool {
        now.millis >= self.lapse && now.millis >= self.locked_until
    }

    fn locked_for(&self, now: Moment) -> Option<Duration> {
        let left = self.locked_until.saturating_sub(now.millis);
        (left > 0).then(|| Duration::from_millis(left))
    }
}

impl InProcess {
    fn pairs(&self) -> MutexGuard<'_, Bounded<Pair, Failures>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`HotState::admit`].
    pub(super) fn judge(&self, asked: Asked<'_>, now: Moment) -> Answered {
        let Asked { address, pair, proved, rates } = asked;
        let (window, elapsed) = (now.window(), now.elapsed());
        let mut map = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = |rate: &Rate| map.entries.get(&rate.subject).map(|windows| windows.seen_from(window));
        let counts: Vec<Counts> =
            address.iter().chain(rates).map(|rate| seen(rate).unwrap_or_default()).collect();
        let (of_address, of_rates) = counts.split_at(usize::from(address.is_some()));
        let have_room = |rates: &[Rate], counts: &[Counts]| {
            rates.iter().zip(counts).all(|(rate, counts)| counts.has_room(rate.limit, elapsed))
        };
        let mut count = |rates: &[Rate], counts: &[Counts]| {
            for (rate, counts) in rates.iter().zip(counts) {
                let windows = map.entry(rate.subject, now, |windows| windows.window + 1 < window);
                let counts = Counts { current: counts.current + 1, ..*counts };
                *windows = Windows { window: windows.window.max(window), counts };
            }
        };

        if !have_room(address.as_slice(), of_address) {
            return Answered { verdict: Verdict::AddressFull, counts };
        }
        count(address.as_slice(), of_address);
        if let Some(pair) = pair {
            let mut pairs = self.pairs();
            if let Some(left) = pairs.entries.get(&pair).and_then(|failures| failures.locked_for(now)) {
                return Answered { verdict: Verdict::LockedOut(left), counts };
            }
            if proved {
                pairs.entries.remove(&pair);
            }
        }
        if !have_room(rates, of_rates) {
            return Answered { verdict: Verdict::Full, counts };
        }
        count(rates, of_rates);
        Answered { verdict: Verdict::Admitted, counts }
    }

    /// Forgets what `pair` failed at.
    pub(super) fn forget_failures(&self, pair: Pair) {
        let mut pairs = self.pairs();
        if !pairs.entries.is_empty() {
            pairs.entries.remove(&pair);
        }
    }

    /// Takes over a lockout that is known from elsewhere.
    pub(super) fn lock_out(&self, pair: Pair, left: Duration, now: Moment) {
        let until = now.millis + u64::try_from(left.as_millis()).unwrap_or(u64::MAX / 2);
        let mut pairs = self.pairs();
        let failures = pairs.entry(pair, now, |failures| failures.lapsed(now));
        failures.locked_until = failures.locked_until.max(until);
    }
}

impl HotState for InProcess {
    fn name(&self) -> &'static str {
        "in_process"
    }

    fn mark_revoked<'a>(&'a self, new: &'a [(Jti, u64)]) -> BoxFuture<'a, ()> {
        let now = Instant::now();
        let mut marks = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.until.len() >= marks.sweep_above.max(SWEEP_ABOVE) {
            marks.until.retain(|_, until| *until > now);
            marks.sweep_above = marks.until.len() * 2;
        }
        marks.until.extend(new.iter().map(|(jti, seconds)| (*jti, now + Duration::from_secs(*seconds))));
        Box::pin(ready(()))
    }

    fn is_revoked(&self, jti: Jti) -> BoxFuture<'_, Option<bool>> {
        let marks = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        let revoked = marks.until.get(&jti).is_some_and(|until| *until > Instant::now());
        Box::pin(ready(Some(revoked)))
    }

    fn admit<'a>(&'a self, asked: Asked<'a>, now: Moment) -> BoxFuture<'a, Answered> {
        Box::pin(ready(self.judge(asked, now)))
    }

    fn failed<'a>(&'a self, pair: Pair, policy: &'a LockoutPolicy, now: Moment) -> BoxFuture<'a, Failed> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2);
        let attempts = usize::try_from(policy.attempts).unwrap_or(usize::MAX);
        let mut pairs = self.pairs();
        let failures = pairs.entry(pair, now, |failures| failures.lapsed(now));
        if let Some(left) = failures.locked_for(now) {
            return Box::pin(ready(Failed::LockedOut(left)));
        }
        failures.at.push_back(now.millis);
        while failures.at.len() > attempts {
            failures.at.pop_front();
        }
        failures.lapse = now.millis + millis(policy.window);
        let first = failures.at.front().copied().unwrap_or(now.millis);
        let locks = failures.at.len() >= attempts && now.millis.saturating_sub(first) < millis(policy.window);
        if locks {
            failures.at.clear();
            failures.locked_until = now.millis + millis(policy.lockout);
        }
        Box::pin(ready(if locks { Failed::LocksOut } else { Failed::Noted }))
    }

    fn unlock(&self, client: AgentId, network: Option<Network>) -> BoxFuture<'_, Result<(), OutOfReach>> {
        self.pairs().entries.retain(|pair, _| {
            pair.client != Some(client) || network.is_some_and(|network| pair.network != network)
        });
        Box::pin(ready(Ok(())))
    }

    /// There is nobody to show them to.
    fn add_monthly<'a>(&'a self, _: &'a [MonthlyCount]) -> BoxFuture<'a, Result<(), OutOfReach>> {
        Box::pin(ready(Ok(())))
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(ready(Health::Ok))
    }

    fn is_shared(&self) -> bool {
        false
    }
}

/// A map of at most [`MAX_ENTRIES`].
struct Bounded<K, V> {
    entries: HashMap<K, V>,
    swept: u64,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), swept: 0 }
    }
}

impl<K: Copy + Eq + Hash, V: Default> Bounded<K, V> {
    /// The entry of `key`. A new one takes the place of those that have `lapsed` or, where none has, of any: so many at once are an attack, and
    /// whom it costs is left to chance.
    fn entry(&mut self, key: K, now: Moment, lapsed: impl Fn(&V) -> bool) -> &mut V {
        if self.entries.len() >= MAX_ENTRIES && !self.entries.contains_key(&key) {
            if now.millis.abs_diff(self.swept) >= SWEEP_EVERY {
                self.swept = now.millis;
                self.entries.retain(|_, value| !lapsed(value));
            }
            if self.entries.len() >= MAX_ENTRIES
                && let Some(any) = self.entries.keys().next().copied()
            {
                self.entries.remove(&any);
            }
        }
        self.entries.entry(key).or_default()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn at(millis: u64) -> Moment {
        Moment { millis }
    }

    fn pair(host: u8) -> Pair {
        Pair::new("01234567-89ab-cdef-0123-456789abcdef".parse().ok(), [192, 0, 2, host].into())
    }

    fn rate(host: u32, limit: u32) -> Rate {
        Rate { subject: Subject::Ip(Network::of(std::net::Ipv4Addr::from_bits(host).into())), limit }
    }

    fn admitted(state: &InProcess, rates: &[Rate], now: u64) -> bool {
        state.judge(Asked { rates, ..Asked::default() }, at(now)).verdict == Verdict::Admitted
    }

    fn locked_for(state: &InProcess, host: u8, now: u64) -> Option<Duration> {
        match state.judge(Asked { pair: Some(pair(host)), ..Asked::default() }, at(now)).verdict {
            Verdict::LockedOut(left) => Some(left),
            _ => None,
        }
    }

    #[test]
    fn counts_under_every_limit_or_under_none() {
        let state = InProcess::default();
        let both = [rate(1, 3), rate(2, 2)];
        assert_eq!([0, 1, 2].map(|now| admitted(&state, &both, now)), [true, true, false]);
        assert!(admitted(&state, &both[..1], 3), "what was refused wasn't counted");
        assert!(!admitted(&state, &both[..1], 4));
        // Half of the three have faded; a minute later all have.
        assert!(admitted(&state, &both[..1], 90_000) && !admitted(&state, &both[..1], 90_001));
        assert!(admitted(&state, &both, 180_000) && admitted(&state, &both, 180_000));
    }

    #[test]
    fn an_address_counts_whatever_becomes_of_the_request() {
        let state = InProcess::default();
        let verdict = |rates: &[Rate]| {
            let asked = Asked { address: Some(rate(1, 3)), rates, ..Asked::default() };
            state.judge(asked, at(0)).verdict
        };
        assert_eq!(verdict(&[rate(2, 1)]), Verdict::Admitted);
        assert_eq!(verdict(&[rate(2, 1)]), Verdict::Full);
        assert_eq!(verdict(&[]), Verdict::Admitted);
        assert_eq!(verdict(&[rate(3, 1)]), Verdict::AddressFull);
        assert!(admitted(&state, &[rate(3, 1)], 0), "behind a full address nothing was counted");
    }

    #[test]
    fn locks_out_after_so_many_failures_in_any_window() {
        let state = InProcess::default();
        let policy = LockoutPolicy { attempts: 3, window: MINUTE, lockout: MINUTE * 2 };
        let outcome = |host, now| state.failed(pair(host), &policy, at(now)).now_or_never().unwrap();
        let failed = |host, now| outcome(host, now) == Failed::LocksOut;
        let locked = |host, now| locked_for(&state, host, now);
        assert!(!failed(1, 0) && !failed(1, 50_000) && !failed(1, 60_000), "the first was a minute ago");
        assert_eq!(locked(1, 60_001), None);
        assert!(failed(1, 60_001));
        let left = Duration::from_millis(119_999);
        assert_eq!(outcome(1, 60_002), Failed::LockedOut(left), "it is already");
        let prove = |host| {
            let asked = Asked { pair: Some(pair(host)), proved: true, rates: &[rate(1, 3)], address: None };
            state.judge(asked, at(60_002))
        };
        assert_eq!(prove(1).verdict, Verdict::LockedOut(left), "nor does a success that comes too late help");
        assert_eq!(prove(2).counts, [Counts::default()], "the other wasn't counted");
        assert_eq!(prove(2).verdict, Verdict::Admitted);
        assert_eq!(locked(1, 60_001), Some(MINUTE * 2));
        assert_eq!(locked(2, 60_001), None, "elsewhere it isn't");
        assert_eq!(locked(1, 180_001), None);
        assert!(!failed(1, 180_001) && !failed(1, 180_002) && failed(1, 180_003), "afresh");

        // A success makes the failures forgotten; naming the client doesn't.
        assert!(!failed(3, 0) && !failed(3, 1));
        assert_eq!(locked(3, 2), None);
        assert!(failed(3, 2));
        assert!(!failed(2, 0) && !failed(2, 1));
        assert_eq!(prove(2).verdict, Verdict::Admitted);
        assert!(!failed(2, 60_003) && !failed(2, 60_004));
    }

    #[test]
    fn unlocks_one_address_or_all() {
        let state = InProcess::default();
        let locked = |host| locked_for(&state, host, 1).is_some();
        let unlock = |network| state.unlock(pair(1).client.unwrap(), network).now_or_never();
        for host in 1..=3 {
            state.lock_out(pair(host), MINUTE, at(0));
        }
        unlock(Some(pair(2).network));
        assert_eq!([1, 2, 3].map(locked), [true, false, true]);
        unlock(None);
        assert_eq!([1, 2, 3].map(locked), [false; 3]);
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_memory_than_that() {
        let state = InProcess::default();
        let entries = || state.rates.lock().unwrap().entries.len();
        for host in 0..150_000 {
            admitted(&state, &[rate(host, 10)], u64::from(host) / 100);
        }
        assert_eq!(entries(), MAX_ENTRIES);
        // Two minutes later the next new one clears them out.
        admitted(&state, &[rate(u32::MAX, 10)], 200_000);
        assert_eq!(entries(), 1);
    }
}
