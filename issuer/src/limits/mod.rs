//! Limits: on requests, on failed authentications, on tokens a month.
//!
//! Requests are counted in the hot state ([`crate::hot`]), before authentication by address and after it by client, tenant and endpoint: a stranger
//! who names a victim uses up nothing of the victim's. Failures are counted by client and address together, for the same reason. The monthly quota is
//! counted in Postgres and survives the hot state.

pub mod meter;
pub(crate) mod monthly;
pub mod places;
mod quota;
mod upkeep;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_shared::{AgentId, TenantId, UnixTime};
use serde_json::json;

use crate::app::App;
use crate::clock;
use crate::config;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::limit::{Moment, Month, Network, Pair, Rate, Standing, Subject, TenantQuota, TenantRates};
use crate::failures::Concerns;
use crate::hot::{Answered, Asked, Failed, HotState, MonthlyCount, OutOfReach, Verdict};
use crate::metrics;
use crate::storage::limits::Announcement;
use crate::storage::{Database, StorageError};

pub use quota::{QuotaError, QuotaUsedUp, Unit};
pub use upkeep::{Upkeep, start};

/// All limits of the running issuer.
pub struct Limits {
    settings: config::Limits,
    hot: Arc<dyn HotState>,
    quotas: quota::Quotas,
    monthly: monthly::Monthly,
}

/// A request is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimited {
    /// The limit that has no room; of several the one that takes longest.
    pub standing: Standing,
}

impl RateLimited {
    /// After how many seconds a request has room again.
    pub const fn retry_after(&self) -> u64 {
        self.standing.reset_in.div_ceil(1000)
    }
}

impl fmt::Display for RateLimited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Standing { kind, limit, .. } = self.standing;
        let whose = match kind {
            "ip" => "this address",
            "client" => "this client",
            "tenant" => "this tenant",
            _ => "this client at this endpoint",
        };
        write!(f, "{whose} may make {limit} requests a minute; try again in {} seconds", self.retry_after())
    }
}

/// A client failed to authenticate too often from where the request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockedOut {
    /// For how long it still is.
    pub left: Duration,
}

impl LockedOut {
    /// The same in seconds.
    pub fn retry_after(&self) -> u64 {
        u64::try_from(self.left.as_millis()).unwrap_or(u64::MAX).div_ceil(1000)
    }
}

impl fmt::Display for LockedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.retry_after();
        write!(
            f,
            "this client failed to authenticate from this address too often; try again in {seconds} seconds"
        )
    }
}

/// What a limit refuses at the OAuth endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// A request.
    Rate(RateLimited),
    /// An authentication.
    LockedOut(LockedOut),
    /// A token.
    Quota(QuotaUsedUp),
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(limited) => limited.fmt(f),
            Self::LockedOut(locked_out) => locked_out.fmt(f),
            Self::Quota(used_up) => used_up.fmt(f),
        }
    }
}

/// What keeps a failed authentication from being answered as one.
#[derive(Debug)]
pub enum FailureError {
    /// Others had locked the client out by then.
    LockedOut(LockedOut),
    /// It couldn't be written down.
    Storage(StorageError),
}

impl From<StorageError> for FailureError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// A client that may try to authenticate.
pub struct Attempt {
    pair: Option<Pair>,
}

impl Limits {
    /// With nothing counted yet.
    pub fn new(settings: config::Limits, hot: Arc<dyn HotState>) -> Self {
        Self { settings, hot, quotas: quota::Quotas::default(), monthly: monthly::Monthly::default() }
    }

    /// Whose `X-Forwarded-For` is believed.
    pub const fn trusted_proxies(&self) -> &config::TrustedProxies {
        &self.settings.trusted_proxies
    }

    /// Tokens a month of a tenant on the free plan.
    pub const fn free_tier(&self) -> u64 {
        self.settings.free_tier
    }

    /// The limit on requests from `ip`.
    pub fn of_address(&self, ip: IpAddr) -> Rate {
        Rate { subject: Subject::Ip(Network::of(ip)), limit: self.settings.per_ip }
    }

    /// Counts the current request by where it comes from, unless that was done.
    pub async fn from_address(&self) -> Result<(), RateLimited> {
        match meter::take_address() {
            None => Ok(()),
            address => self.admit(Asked { address, ..Asked::default() }).await.map(drop),
        }
    }

    /// Counts an authenticated client's request.
    pub async fn from_client(
        &self,
        client: AgentId,
        tenant: TenantId,
        rates: TenantRates,
    ) -> Result<(), RateLimited> {
        let rates = &*self.rates_of(client, tenant, rates);
        self.admit(Asked { rates, ..Asked::default() }).await.map(drop)
    }

    fn rates_of(&self, client: AgentId, tenant: TenantId, rates: TenantRates) -> Vec<Rate> {
        let settings = &self.settings;
        let per_client = rates.client.unwrap_or(settings.per_client);
        let per_tenant = rates.tenant.unwrap_or(settings.per_tenant);
        let mut limits = vec![
            Rate { subject: Subject::Client(client), limit: per_client },
            Rate { subject: Subject::Tenant(tenant), limit: per_tenant },
        ];
        if let Some(endpoint) = meter::endpoint()
            && let Some(limit) = settings.per_endpoint(endpoint)
        {
            limits.push(Rate { subject: Subject::Endpoint(client, endpoint), limit });
        }
        limits
    }

    /// Asks all that is `asked` at once, and notes how the request stands.
    async fn admit(&self, asked: Asked<'_>) -> Result<Option<LockedOut>, RateLimited> {
        let now = now();
        judge(&asked, &self.hot.admit(asked, now).await, now)
    }

    async fn admit_client(&self, asked: Asked<'_>) -> Result<(), Limited> {
        match self.admit(asked).await {
            Ok(None) => Ok(()),
            Ok(Some(locked_out)) => Err(Limited::LockedOut(locked_out)),
            Err(limited) => Err(Limited::Rate(limited)),
        }
    }

    /// Whether the client that a request names may try to authenticate from there. To be asked before its proof is looked at, wherever that is work.
    /// Counts the request by its address, unless that was done.
    pub async fn before_authentication(
        &self,
        client: Option<AgentId>,
        origin: &Origin,
    ) -> Result<Attempt, Limited> {
        let pair = origin.client_ip.map(|ip| Pair::new(client, ip));
        let address = meter::take_address();
        if address.is_some() || pair.is_some() {
            self.admit_client(Asked { address, pair, ..Asked::default() }).await?;
        }
        Ok(Attempt { pair })
    }

    /// All at once, for a client whose proof has been looked at before, because that was less work than asking twice: as if
    /// [`before_authentication`](Self::before_authentication) and [`authenticated`](Self::authenticated) had been asked one after the other.
    pub async fn authenticated_at_once(
        &self,
        client: AgentId,
        tenant: TenantId,
        rates: TenantRates,
        origin: &Origin,
    ) -> Result<(), Limited> {
        let pair = origin.client_ip.map(|ip| Pair::new(Some(client), ip));
        let (address, rates) = (meter::take_address(), &*self.rates_of(client, tenant, rates));
        self.admit_client(Asked { address, pair, proved: true, rates }).await
    }

    /// The attempt failed. If that locks the client out there, it is written down. Several may be under way at once, all begun before the first has failed:
    /// those that end after the lockout began learn nothing but that.
    pub async fn authentication_failed(
        &self,
        app: &App,
        attempt: &Attempt,
        concerns: Concerns,
        origin: &Origin,
    ) -> Result<(), FailureError> {
        let Some(Pair { client, network }) = attempt.pair else { return Ok(()) };
        // Clients that don't exist count as one: names are easily made up, and each would take memory.
        let pair = Pair { client: client.filter(|_| concerns == Concerns::Known), network };
        let policy = &self.settings.lockout;
        match self.hot.failed(pair, policy, now()).await {
            Failed::Noted => return Ok(()),
            Failed::LockedOut(left) => {
                metrics::limited("lockout");
                return Err(FailureError::LockedOut(LockedOut { left }));
            }
            Failed::LocksOut => metrics::locked_out(),
        }
        let mut event = Event::failed(Action::ClientLockedOut, "too many failed authentications", origin);
        event.details["failures"] = json!(policy.attempts);
        event.details["seconds"] = json!(policy.lockout.as_secs());
        event.details["network"] = json!(pair.network.to_string());
        if let Some(client) = pair.client {
            event = event.on(TargetType::Agent, &client);
        }
        Ok(app.failures.record(&app.audit, concerns, event).await?)
    }

    /// The attempt succeeded: earlier failures from there are forgotten, and the request is counted. Unless the client was locked out there in
    /// the meantime: then it is too late.
    pub async fn authenticated(
        &self,
        attempt: &Attempt,
        client: AgentId,
        tenant: TenantId,
        rates: TenantRates,
    ) -> Result<(), Limited> {
        let rates = &*self.rates_of(client, tenant, rates);
        self.admit_client(Asked { address: None, pair: attempt.pair, proved: true, rates }).await
    }

    /// Lets `client` try again from `network`, or from everywhere, in the hot state that this process reaches.
    pub async fn unlock(&self, client: AgentId, network: Option<Network>) -> Result<(), OutOfReach> {
        self.hot.unlock(client, network).await
    }

    /// One token of the tenant's quota, to be spent by [`Limits::issued`]; `None` where there is no quota.
    pub async fn take_token(
        &self,
        database: &Database,
        tenant: TenantId,
        quota: TenantQuota,
        at: UnixTime,
    ) -> Result<Option<Unit>, QuotaError> {
        let limit = quota.own.or(quota.free_plan.then_some(self.settings.free_tier));
        match limit {
            Some(limit) => {
                let taken = self.quotas.take(database, tenant, limit, Month::of(at)).await;
                if let Err(QuotaError::UsedUp(_)) = taken {
                    metrics::limited("quota");
                }
                taken.map(Some)
            }
            None => Ok(None),
        }
    }

    /// A token was issued to `client`.
    pub fn issued(&self, unit: Option<Unit>, client: AgentId, at: UnixTime) {
        if let Some(unit) = unit {
            unit.spend();
        }
        if self.hot.is_shared() {
            self.monthly.add(MonthlyCount { client, month: Month::of(at), tokens: 1 });
        }
    }

    /// Does what some process announced.
    pub async fn heard(&self, database: &Database, announcement: Announcement) {
        match announcement {
            Announcement::Unlock(client, network) => {
                // Who announced it has seen to a Redis that it can reach; this is for those it can't.
                _ = self.unlock(client, network).await;
            }
            Announcement::Recall(tenant) => self.quotas.give_back(database, tenant).await,
        }
    }
}

/// Notes how a request stands with each limit that it met, and refuses it where one had no room; or says that its client is locked out.
fn judge(asked: &Asked<'_>, answered: &Answered, now: Moment) -> Result<Option<LockedOut>, RateLimited> {
    let addresses = usize::from(asked.address.is_some());
    // Up to where the limits were asked, and up to where the request was counted.
    let (met, counted) = match answered.verdict {
        Verdict::Admitted => (usize::MAX, usize::MAX),
        Verdict::AddressFull => (addresses, 0),
        Verdict::LockedOut(_) => (addresses, addresses),
        Verdict::Full => (usize::MAX, addresses),
    };
    let mut refusing: Option<Standing> = None;
    let limits = asked.address.iter().chain(asked.rates).zip(&answered.counts).enumerate();
    for (place, (rate, counts)) in limits.take(met) {
        let mut counts = *counts;
        let full = place >= counted && !counts.has_room(rate.limit, now.elapsed());
        counts.current += u64::from(place < counted);
        let standing = Standing::new(rate, counts, now);
        meter::note(standing);
        if full && refusing.is_none_or(|other| other.reset_in < standing.reset_in) {
            refusing = Some(standing);
        }
    }
    if let Verdict::LockedOut(left) = answered.verdict {
        metrics::limited("lockout");
        return Ok(Some(LockedOut { left }));
    }
    // Where it was counted everywhere there is none that refuses.
    let Some(standing) = refusing else { return Ok(None) };
    metrics::limited(standing.kind);
    Err(RateLimited { standing })
}

fn now() -> Moment {
    Moment { millis: clock::millis() }
}
