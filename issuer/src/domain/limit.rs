//! What is limited: requests a minute, failed authentications, tokens a month.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use countersign_shared::{AgentId, TenantId, UnixTime};
use time::{Date, OffsetDateTime, Time};

use super::text_enum;

text_enum! {
    /// A class of endpoints, which may have a limit of its own.
    pub enum Endpoint {
        /// Issuing tokens.
        Token = "token",
        /// Introspection.
        Introspect = "introspect",
        /// Revocation.
        Revoke = "revoke",
        /// The management API.
        Management = "management",
    }
}

/// Who is taken for one and the same by address: an IPv4 address, or the /64 of an IPv6 address, which is what a single customer has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// That of `ip`.
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => ip.fmt(f),
            IpAddr::V6(ip) => write!(f, "{ip}/64"),
        }
    }
}

impl std::str::FromStr for Network {
    type Err = std::net::AddrParseError;

    /// From an address, or from what [`fmt::Display`] makes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_suffix("/64").unwrap_or(text).parse().map(Self::of)
    }
}

/// Whose requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Everybody's from there, before anybody is authenticated.
    Ip(Network),
    /// A client's.
    Client(AgentId),
    /// Those of all clients of a tenant.
    Tenant(TenantId),
    /// A client's to one class of endpoints.
    Endpoint(AgentId, Endpoint),
}

impl Subject {
    /// Its kind, as headers and errors have it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Ip(_) => "ip",
            Self::Client(_) => "client",
            Self::Tenant(_) => "tenant",
            Self::Endpoint(..) => "endpoint",
        }
    }
}

/// As the keys of counters have it (`docs/reference/redis.md`).
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(network) => write!(f, "ip:{network}"),
            Self::Client(client) => client.fmt(f),
            Self::Tenant(tenant) => write!(f, "tenant:{tenant}"),
            Self::Endpoint(client, endpoint) => write!(f, "{client}:{}", endpoint.as_str()),
        }
    }
}

/// So many requests a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Whose.
    pub subject: Subject,
    /// At most. At least one.
    pub limit: u32,
}

/// Length of the windows that requests are counted in, in milliseconds.
pub const WINDOW_MS: u64 = 60_000;

/// Where an instant lies among the windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub millis: u64,
}

impl Moment {
    /// The number of its window.
    pub const fn window(self) -> u64 {
        self.millis / WINDOW_MS
    }

    /// How far into its window it lies, in milliseconds.
    pub const fn elapsed(self) -> u64 {
        self.millis % WINDOW_MS
    }
}

/// Requests that were let through. Those of the minute before count by the part of it that lies in the last sixty seconds, as if they had come
/// evenly: a sliding window, out of two numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// In this window.
    pub current: u64,
    /// In the one before.
    pub previous: u64,
}

impl Counts {
    /// Whether another request has room under `limit`. The script in Redis decides by the same formula.
    pub const fn has_room(self, limit: u32, elapsed: u64) -> bool {
        self.previous * (WINDOW_MS - elapsed) + (self.current + 1) * WINDOW_MS <= limit as u64 * WINDOW_MS
    }

    /// How many more have room right now.
    pub fn remaining(self, limit: u32, elapsed: u64) -> u32 {
        let used = self.previous * (WINDOW_MS - elapsed) + self.current * WINDOW_MS;
        let left = (u64::from(limit) * WINDOW_MS).saturating_sub(used) / WINDOW_MS;
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// In how many milliseconds one more has room, if none comes before.
    pub const fn wait(self, limit: u32, elapsed: u64) -> u64 {
        if self.has_room(limit, elapsed) {
            return 0;
        }
        let limit = limit as u64;
        // The latest share of the window before at which `previous` leaves room beside `current`.
        if self.current < limit {
            return WINDOW_MS - elapsed - (limit - self.current - 1) * WINDOW_MS / self.previous;
        }
        // Not in this window. In the next one, `current` fades as `previous` does now.
        2 * WINDOW_MS - elapsed - (limit - 1) * WINDOW_MS / self.current
    }
}

/// How a client stands with one of its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Of whose requests.
    pub kind: &'static str,
    /// Requests a minute.
    pub limit: u32,
    /// How many more have room right now.
    pub remaining: u32,
    /// In how many milliseconds that changes: the minute ends or, where nothing remains, one more has room.
    pub reset_in: u64,
}

impl Standing {
    /// With `counts`, at `now`.
    pub fn new(rate: &Rate, counts: Counts, now: Moment) -> Self {
        let Rate { subject, limit } = *rate;
        let remaining = counts.remaining(limit, now.elapsed());
        let reset_in =
            if remaining > 0 { WINDOW_MS - now.elapsed() } else { counts.wait(limit, now.elapsed()) };
        Self { kind: subject.kind(), limit, remaining, reset_in }
    }
}

/// What a tenant's own settings say of its requests; `None`: the issuer's settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TenantRates {
    /// A minute, of all its clients together.
    pub tenant: Option<u32>,
    /// A minute, of each.
    pub client: Option<u32>,
}

/// What decides how many tokens a tenant may have a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantQuota {
    /// Its own quota.
    pub own: Option<u64>,
    /// Whether it is on the free plan, whose quota counts where it has none of its own.
    pub free_plan: bool,
}

/// A client from somewhere: what is locked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pair {
    /// The client that was named; `None` stands for every name that can't be a client's.
    pub client: Option<AgentId>,
    /// From where.
    pub network: Network,
}

impl Pair {
    /// The client that a request names, and where the request comes from.
    pub fn new(client: Option<AgentId>, ip: IpAddr) -> Self {
        Self { client, network: Network::of(ip) }
    }

    /// The first part of its keys.
    pub fn client_key(&self) -> String {
        self.client.map_or_else(|| "malformed".to_owned(), |client| client.to_string())
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.client_key(), self.network)
    }
}

/// When failed authentications lock out.
#[derive(Debug, Clone, Copy)]
pub struct LockoutPolicy {
    /// With this many failures …
    pub attempts: u32,
    /// … within this time …
    pub window: Duration,
    /// … for this long.
    pub lockout: Duration,
}

/// A calendar month, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Month {
    first: Date,
}

impl Month {
    /// The one that `time` lies in.
    pub fn of(time: UnixTime) -> Self {
        let day = crate::clock::timestamp(time).date();
        // Every month has a first.
        Self { first: day.replace_day(1).unwrap_or(day) }
    }

    /// Its first day.
    pub const fn first_day(self) -> Date {
        self.first
    }

    /// The first instant that is no longer in it.
    pub fn ends_at(self) -> OffsetDateTime {
        let next = (self.first + time::Duration::days(31)).replace_day(1).unwrap_or(self.first);
        OffsetDateTime::new_utc(next, Time::MIDNIGHT)
    }
}

/// `year:month`, without leading zeros.
impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.first.year(), u8::from(self.first.month()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks at each instant of `requests`; how many are let through.
    fn let_through(limit: u32, requests: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut counts = [0_u64; 100];
        let mut through = Vec::new();
        for millis in requests {
            let now = Moment { millis };
            let window = usize::try_from(now.window()).unwrap();
            let seen =
                Counts { current: counts[window], previous: if window > 0 { counts[window - 1] } else { 0 } };
            if seen.has_room(limit, now.elapsed()) {
                assert!(seen.remaining(limit, now.elapsed()) > 0 && seen.wait(limit, now.elapsed()) == 0);
                counts[window] += 1;
                through.push(millis);
            } else {
                assert_eq!(seen.remaining(limit, now.elapsed()), 0);
                // The wait is exact to the millisecond.
                let wait = seen.wait(limit, now.elapsed());
                assert!(wait > 0);
                for (later, room) in [(millis + wait - 1, false), (millis + wait, true)] {
                    let later = Moment { millis: later };
                    let passed = later.window() - now.window();
                    let seen = match passed {
                        0 => seen,
                        1 => Counts { current: 0, previous: seen.current },
                        _ => Counts::default(),
                    };
                    assert_eq!(seen.has_room(limit, later.elapsed()), room, "{seen:?} {later:?}");
                }
            }
        }
        through
    }

    #[test]
    fn a_burst_gets_the_limit_and_no_more_across_the_windows_border() {
        // 200 requests in the last second of a minute and the first of the next.
        let through = let_through(100, (0..200).map(|n| 59_000 + n * 10));
        assert_eq!(through.len(), 101, "one more: a second later, a sixtieth of the burst has faded");
        // Over all the minutes of a flood: what the limit says, each minute.
        let through = let_through(100, (0..600_000).step_by(50));
        for start in (0..540_000).step_by(1_000) {
            let within = through.iter().filter(|at| (start..start + 60_000).contains(*at)).count();
            assert!(within <= 110, "{within} within a minute of {start}");
        }
        let minutes: Vec<usize> =
            (0..10).map(|minute| through.iter().filter(|at| **at / 60_000 == minute).count()).collect();
        assert!(minutes.iter().all(|count| *count <= 100), "{minutes:?}");
        // And an even stream below the limit is never refused.
        assert_eq!(let_through(100, (0..600_000).step_by(610)).len(), 984);
    }

    #[test]
    fn a_limit_of_one() {
        assert_eq!(
            let_through(1, [0, 1, 59_999, 60_000, 119_999, 120_000, 180_000, 240_000]),
            [0, 120_000, 240_000]
        );
    }

    #[test]
    fn addresses_are_counted_by_customer() {
        let network = |text: &str| Network::of(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.1"), "192.0.2.1");
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(network("::1"), "::/64");
        for text in ["192.0.2.1", "2001:db8:1:2::/64", "2001:db8:1:2:3::"] {
            assert_eq!(
                text.parse::<Network>().unwrap(),
                Network::of(text.trim_end_matches("/64").parse().unwrap())
            );
        }
    }

    #[test]
    fn months_end_where_the_next_begins() {
        let at = |text: &str| {
            let time = OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap();
            Month::of(UnixTime(time.unix_timestamp()))
        };
        assert_eq!(at("2026-03-31T23:59:59Z").to_string(), "2026:3");
        assert_eq!(at("2026-12-31T23:59:59Z").ends_at().to_string(), "2027-01-01 0:00:00.0 +00:00:00");
        assert_eq!(at("2028-02-01T00:00:00Z").ends_at().to_string(), "2028-03-01 0:00:00.0 +00:00:00");
    }
}
