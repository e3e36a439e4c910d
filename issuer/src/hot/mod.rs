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
pub(crate) use in_process::MAX_ENTRIES;
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

/// What is asked of the limits in one go, in this order. Where one refuses, what comes after it isn't touched.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The limit of the address that the request comes from: it is counted there, whatever becomes of it.
    pub address: Option<Rate>,
    /// The client and where it comes from: it must not be locked out there.
    pub pair: Option<Pair>,
    /// The client has just proved itself: what it failed at before is forgotten.
    pub proved: bool,
    /// Limits under which the request is counted: under all of them or, where one has no room, under none.
    pub rates: &'a [Rate],
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Whether the request may go on.
    pub verdict: Verdict,
    /// What was counted before, for the address and then for each of the rates. Where the client is locked out, of the address alone counts.
    pub counts: Vec<Counts>,
}

/// Whether a request may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was counted everywhere.
    Admitted,
    /// Its address has no room: it was counted nowhere.
    AddressFull,
    /// The client is locked out there, for so long still: it was counted for its address only.
    LockedOut(Duration),
    /// One of the rates has no room: it was counted for its address only.
    Full,
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

    /// Whether a request may go on; where it may, it is counted. Atomic.
    fn admit<'a>(&'a self, asked: Asked<'a>, now: Moment) -> BoxFuture<'a, Answered>;

    /// Notes that `pair` failed to authenticate. Atomic.
    fn failed<'a>(&'a self, pair: Pair, policy: &'a LockoutPolicy, now: Moment) -> BoxFuture<'a, Failed>;

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
