//! Hot state: what is quick to ask, shared between issuers where there is a Redis, and never the truth.
//!
//! Every key is described in `docs/reference/redis.md`. A mark `revoked:<jti>` that is there refuses a token without asking the database; one
//! that isn't says nothing. Limits on requests, and lockouts, are kept here alone: while Redis is away each process keeps its own. So losing all
//! of it costs speed, and for a minute or a lockout's length some strictness; never a revocation, nor a token beyond a quota.

mod in_process;
mod redis;

use std::sync::Arc;
use std::time::Duration;

use countersign_shared::{AgentId, Jti};
use futures_util::future::BoxFuture;

use crate::config::Secret;
use crate::domain::limit::{Counts, LockoutPolicy, Moment, Month, Network, Pair, Rate};

pub use in_process::InProcess;
pub use redis::Redis;
pub(crate) use redis::{PAUSE, TIMEOUT};

/// How the hot state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Ok,
    /// It doesn't; everything works without.
    Degraded,
}

/// What came of a request's count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// Whether there was room under every limit; else it was counted against none.
    pub has_room: bool,
    /// For each limit, what there was before; nothing where the client is locked out.
    pub counts: Vec<Counts>,
    /// For how long the client is still locked out where it comes from: then it wasn't counted.
    pub locked_for: Option<Duration>,
}

impl Counted {
    fn locked_out(left: Duration) -> Self {
        Self { locked_for: Some(left), ..Self::default() }
    }
}

/// What came of a failed authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// It was noted.
    Noted,
    /// It was one too many: the client is locked out from now on.
    LocksOut,
    /// Others that were under way at once had locked the client out before, for so long still.
    LockedOut(Duration),
}

/// What is known of a client from somewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attempts {
    /// For how long it is still locked out.
    pub locked_for: Option<Duration>,
    /// Whether there were failures that still count.
    pub failed: bool,
}

/// Tokens that a client got in a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonthlyCount {
    /// The client.
    pub client: AgentId,
    /// The month.
    pub month: Month,
    /// How many since the last count.
    pub tokens: u64,
}

/// The state that other issuers see wasn't reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfReach;

/// A place for hot state. All return within a tenth of a second.
pub trait HotState: Send + Sync {
    /// Its name, for `/ready`.
    fn name(&self) -> &'static str;

    /// Marks each of these tokens as revoked for so many seconds.
    fn mark_revoked<'a>(&'a self, marks: &'a [(Jti, u64)]) -> BoxFuture<'a, ()>;

    /// Whether `jti` has a mark; `None` where that can't be told.
    fn is_revoked(&self, jti: Jti) -> BoxFuture<'_, Option<bool>>;

    /// Counts a request under all of `rates` or, where one has no room or `authenticated`, where the request's client has just proved itself, is locked out,
    /// under none. Atomic.
    fn count<'a>(
        &'a self,
        rates: &'a [Rate],
        authenticated: Option<Pair>,
        now: Moment,
    ) -> BoxFuture<'a, Counted>;

    /// What is known of `pair`.
    fn attempts(&self, pair: Pair, now: Moment) -> BoxFuture<'_, Attempts>;

    /// Notes that `pair` failed to authenticate. Atomic.
    fn failed<'a>(&'a self, pair: Pair, policy: &'a LockoutPolicy, now: Moment) -> BoxFuture<'a, Failed>;

    /// Forgets the failures of `pair`.
    fn forget_failures(&self, pair: Pair) -> BoxFuture<'_, ()>;

    /// Forgets failures and lockouts of `client`: from `network`, or from everywhere.
    fn unlock(&self, client: AgentId, network: Option<Network>) -> BoxFuture<'_, Result<(), OutOfReach>>;

    /// Adds to the counts of tokens that operators look at.
    fn add_monthly<'a>(&'a self, counts: &'a [MonthlyCount]) -> BoxFuture<'a, Result<(), OutOfReach>>;

    /// How it is right now.
    fn health(&self) -> BoxFuture<'_, Health>;

    /// Whether other issuers see it too, while it is well.
    fn is_shared(&self) -> bool;
}

/// The one that the configuration asks for. Doesn't wait for Redis: it may come later.
pub fn open(redis_url: Option<&Secret>) -> Result<Arc<dyn HotState>, ::redis::RedisError> {
    Ok(match redis_url {
        Some(url) => Arc::new(Redis::open(url)?),
        None => Arc::new(InProcess::default()),
    })
}
