//! The monthly quota of a tenant: exact, durable, and without a row's lock for each token.
//!
//! Each process takes allowances from Postgres and issues from memory. What it holds counts as used, so all processes together never issue
//! more than the quota, whatever becomes of any of them. What a process holds and doesn't use it gives back: after a while, at a stop, and
//! when another one has nothing left and asks.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_shared::TenantId;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::warn;

use crate::domain::limit::Month;
use crate::storage::limits::{self, Allowance};
use crate::storage::{Database, StorageError};

/// How long an allowance may lie unused.
const IDLE: Duration = Duration::from_secs(5);
/// How long the others get to give back what they hold.
const RECALL: Duration = Duration::from_millis(100);
/// How long a quota that was used up isn't asked about again, unless it is a new one.
const USED_UP: Duration = Duration::from_secs(1);

/// What this process holds of tenants' quotas.
#[derive(Default)]
pub(super) struct Quotas {
    tenants: Mutex<HashMap<TenantId, Arc<Stock>>>,
}

struct Stock {
    held: Mutex<Held>,
    /// Whoever comes while an allowance is fetched waits for that one.
    fetching: tokio::sync::Mutex<()>,
}

struct Held {
    month: Month,
    quota: u64,
    left: u64,
    used: Instant,
    /// When there was nothing left in the database either, and what had been granted then.
    used_up: Option<(Instant, u64)>,
}

/// A token that may be issued. Dropped without having been spent, it may be used for another one.
pub struct Unit {
    stock: Arc<Stock>,
    month: Month,
    spent: bool,
}

impl Unit {
    /// The token was issued.
    pub(super) fn spend(mut self) {
        self.spent = true;
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let mut held = self.stock.held();
        if !self.spent && held.month == self.month {
            held.left += 1;
        }
    }
}

/// The tenant has had all its tokens of this month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaUsedUp {
    /// Tokens a month.
    pub quota: u64,
    /// How many are used: more than the quota, if that was lowered.
    pub used: u64,
    /// When the next month begins.
    pub resets_at: OffsetDateTime,
}

impl fmt::Display for QuotaUsedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { quota, used, resets_at } = self;
        let day = resets_at.date();
        write!(
            f,
            "the tenant has used {used} of its {quota} tokens a month; the next month begins on {day} (UTC)"
        )
    }
}

/// Why there is no token.
#[derive(Debug)]
pub enum QuotaError {
    /// The quota is used up.
    UsedUp(QuotaUsedUp),
    /// The database, which knows what is left, doesn't say.
    Storage(StorageError),
}

impl From<StorageError> for QuotaError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl Quotas {
    /// One of `tenant`'s `quota` of tokens in `month`.
    pub(super) async fn take(
        &self,
        database: &Database,
        tenant: TenantId,
        quota: u64,
        month: Month,
    ) -> Result<Unit, QuotaError> {
        let stock = self.stock(tenant, month, quota);
        match stock.take(month, quota) {
            Some(unit) => Ok(unit),
            None => Box::pin(take_anew(&stock, database, tenant, quota, month)).await,
        }
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Stock>>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stock(&self, tenant: TenantId, month: Month, quota: u64) -> Arc<Stock> {
        let stock = || {
            let held = Held { month, quota, left: 0, used: Instant::now(), used_up: None };
            Arc::new(Stock { held: Mutex::new(held), fetching: tokio::sync::Mutex::default() })
        };
        self.tenants().entry(tenant).or_insert_with(stock).clone()
    }

    /// Gives back all that is held of `tenant`'s.
    pub(super) async fn give_back(&self, database: &Database, tenant: TenantId) {
        let stock = self.tenants().get(&tenant).cloned();
        if let Some(stock) = stock {
            give_back_from(&stock, database, tenant).await;
        }
    }

    /// Gives back what hasn't been touched for a while.
    pub(super) async fn give_back_idle(&self, database: &Database) {
        let is_idle = |stock: &Stock| stock.held().used.elapsed() >= IDLE;
        self.give_back_where(database, is_idle).await;
        // A stock that somebody else has in hand stays: what comes back to it would be lost with it.
        self.tenants()
            .retain(|_, stock| Arc::strong_count(stock) > 1 || stock.held().left > 0 || !is_idle(stock));
    }

    /// Gives back everything.
    pub(super) async fn give_back_all(&self, database: &Database) {
        self.give_back_where(database, |_| true).await;
    }

    async fn give_back_where(&self, database: &Database, wanted: impl Fn(&Stock) -> bool) {
        let found: Vec<(TenantId, Arc<Stock>)> = self
            .tenants()
            .iter()
            .filter(|(_, stock)| wanted(stock))
            .map(|(tenant, stock)| (*tenant, stock.clone()))
            .collect();
        for (tenant, stock) in found {
            give_back_from(&stock, database, tenant).await;
        }
    }
}

/// As [`Quotas::take`], where nothing is in stock.
async fn take_anew(
    stock: &Arc<Stock>,
    database: &Database,
    tenant: TenantId,
    quota: u64,
    month: Month,
) -> Result<Unit, QuotaError> {
    let _fetching = stock.fetching.lock().await;
    if let Some(unit) = stock.take(month, quota) {
        return Ok(unit);
    }
    let used_up = |used| {
        let resets_at = month.ends_at();
        QuotaError::UsedUp(QuotaUsedUp { quota, used, resets_at })
    };
    if let Some((old, left)) = stock.turn_over(month, quota)
        && left > 0
    {
        limits::give_back(database, tenant, old, left).await?;
    }
    if let Some(used) = stock.known_as_used_up() {
        return Err(used_up(used));
    }
    if let Some(unit) = stock.fetch(database, tenant, quota, month).await? {
        return Ok(unit);
    }
    // Others may hold some of what is granted. They give it back when asked.
    limits::recall(database, tenant).await?;
    tokio::time::sleep(RECALL).await;
    if let Some(unit) = stock.fetch(database, tenant, quota, month).await? {
        return Ok(unit);
    }
    let used = limits::granted(database, tenant, month).await?;
    stock.held().used_up = Some((Instant::now(), used));
    Err(used_up(used))
}

async fn give_back_from(stock: &Stock, database: &Database, tenant: TenantId) {
    let (month, left) = {
        let mut held = stock.held();
        (held.month, std::mem::take(&mut held.left))
    };
    if left == 0 {
        return;
    }
    if let Err(error) = limits::give_back(database, tenant, month, left).await {
        warn!(%tenant, left, "tokens of a monthly quota couldn't be given back and count as used: {error}");
    }
}

impl Stock {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of those that are held, if they are of this month and quota.
    fn take(self: &Arc<Self>, month: Month, quota: u64) -> Option<Unit> {
        let mut held = self.held();
        if (held.month, held.quota) != (month, quota) || held.left == 0 {
            return None;
        }
        held.left -= 1;
        held.used = Instant::now();
        Some(Unit { stock: self.clone(), month, spent: false })
    }

    /// Begins another month or quota. Returns what is left of the one before.
    fn turn_over(&self, month: Month, quota: u64) -> Option<(Month, u64)> {
        let mut held = self.held();
        if (held.month, held.quota) == (month, quota) {
            return None;
        }
        let before = (held.month, held.left);
        *held = Held { month, quota, left: 0, used: Instant::now(), used_up: None };
        Some(before)
    }

    /// What was used when it was found, a moment ago, that nothing is left.
    fn known_as_used_up(&self) -> Option<u64> {
        self.held().used_up.filter(|(since, _)| since.elapsed() < USED_UP).map(|(_, used)| used)
    }

    /// Takes an allowance, and one of it.
    async fn fetch(
        self: &Arc<Self>,
        database: &Database,
        tenant: TenantId,
        quota: u64,
        month: Month,
    ) -> Result<Option<Unit>, StorageError> {
        match limits::take_allowance(database, tenant, month, quota).await? {
            Allowance::UsedUp => Ok(None),
            Allowance::Granted(granted) => {
                self.held().left += granted;
                Ok(self.take(month, quota))
            }
        }
    }
}
