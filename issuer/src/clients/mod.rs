//! Clients, their tenants and resource servers, kept in memory: a token request whose records are here asks the database for none of them.
//!
//! A record counts for as long as nobody has said that it changed, and it is certain that somebody could have. Postgres says so, by triggers
//! (`storage/changes.rs`); every process listens on a connection of its own and asks four times a second for a sign of life (`listener.rs`). What
//! was announced before it was asked has arrived when the answer is here. So as long as the last answered question is younger than [`LEASE`],
//! a record here is at most that much behind the database. If it is older, records are read from the database, as if there were no cache.
//!
//! Counters keep a record that was loaded while it changed from staying (`generations.rs`). What isn't in the database isn't remembered either.

mod generations;
mod listener;
pub(crate) mod uses;

use std::hash::Hash;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_shared::{AgentId, TenantId};
use moka::sync::Cache;
use tracing::{info, warn};
use uuid::Uuid;

pub use listener::{Background, Dispatch, start};
pub use uses::Uses;

use crate::clock;
use crate::domain::tenant::ResourceServer;
use crate::storage::clients::{self, Client, Tenant};
use crate::storage::{Database, StorageError};
use generations::{Generations, Stamp};

/// How long an answer of the database is taken for a sign that nothing was missed. A tenth of a second less than what is promised: requests
/// under way take time too.
pub const LEASE: Duration = Duration::from_millis(900);
/// By how much this host's clock may be ahead of the database's, in milliseconds.
pub(crate) const MAX_AHEAD: i64 = 1000;
/// And by how much behind: as much, and as long as the database's answer may have taken (`storage/changes.rs`).
pub(crate) const MAX_BEHIND: i64 = 1500;
/// What is kept at most, in records: agents with their credentials (about a kilobyte each), tenants, resource servers.
pub(crate) const MAX_CLIENTS: u64 = 100_000;
pub(crate) const MAX_TENANTS: u64 = 10_000;
pub(crate) const MAX_RESOURCE_SERVERS: u64 = 20_000;

/// The first that are too much.
const MAX_AHEAD_MORE: i64 = MAX_AHEAD + 1;
const MAX_BEHIND_LESS: i64 = -MAX_BEHIND;
/// No time of the database's.
const UNKNOWN: i64 = i64::MIN;

/// How this host's clock stands to the database's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Near enough.
    Right,
    /// Tokens issued by it could outlive a rule that ends them: rules are made by any replica's clock, and reach
    /// [`REPLICA_LAG_SECONDS`](crate::storage::not_before::REPLICA_LAG_SECONDS) ahead. And tokens would seem to have expired.
    Ahead,
    /// Rules made by it would spare tokens that others have just issued; and those would seem to be of the future.
    Behind,
}

/// The records of this process.
pub struct Clients {
    started: Instant,
    /// When the last question was asked that the database answered, in milliseconds after `started`, plus one; 0: nobody listens.
    asked: AtomicU64,
    /// The database's time when it was last asked, less the time since `started`, in milliseconds; [`UNKNOWN`] before.
    database_started: AtomicI64,
    /// What was said of the clock last.
    said: Mutex<Clock>,
    generations: Generations,
    agents: Cache<AgentId, Kept<Client>>,
    tenants: Cache<TenantId, Kept<Tenant>>,
    /// The default one is under no name.
    resource_servers: Cache<(TenantId, Option<String>), Kept<ResourceServer>>,
}

/// A client and its tenant, as they were looked up.
pub struct Known {
    /// The client.
    pub client: Arc<Client>,
    /// Its tenant.
    pub tenant: Arc<Tenant>,
    /// Whether the client was in memory, and so may be a second old. What was just read from the database isn't.
    pub is_client_remembered: bool,
    /// The same of its tenant.
    pub is_tenant_remembered: bool,
}

/// A record, and what the counters were before it was read.
struct Kept<T> {
    record: Arc<T>,
    stamp: Stamp,
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self { record: self.record.clone(), stamp: self.stamp }
    }
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            asked: AtomicU64::new(0),
            database_started: AtomicI64::new(UNKNOWN),
            said: Mutex::new(Clock::Right),
            generations: Generations::default(),
            agents: Cache::new(MAX_CLIENTS),
            tenants: Cache::new(MAX_TENANTS),
            resource_servers: Cache::new(MAX_RESOURCE_SERVERS),
        }
    }
}

impl Clients {
    /// The client `agent`, with its live credentials, and its tenant.
    pub async fn known(&self, database: &Database, agent: AgentId) -> Result<Option<Known>, StorageError> {
        if let Some((client, tenant)) = self.at_hand(agent) {
            return Ok(Some(Known {
                client,
                tenant,
                is_client_remembered: true,
                is_tenant_remembered: true,
            }));
        }
        let found = self.record(&self.agents, agent, agent.0, || clients::find(database, agent)).await?;
        let Some((client, is_client_remembered)) = found else { return Ok(None) };
        let id = client.tenant_id;
        let found = self.record(&self.tenants, id, id.0, || clients::find_tenant(database, id)).await?;
        Ok(found.map(|(tenant, is_tenant_remembered)| Known {
            client,
            tenant,
            is_client_remembered,
            is_tenant_remembered,
        }))
    }

    /// The client `agent` and its tenant, where both are in memory and count.
    pub fn at_hand(&self, agent: AgentId) -> Option<(Arc<Client>, Arc<Tenant>)> {
        let client = self.kept(&self.agents, &agent, self.generations.stamp(agent.0))?;
        let tenant = client.tenant_id;
        let tenant = self.kept(&self.tenants, &tenant, self.generations.stamp(tenant.0))?;
        Some((client, tenant))
    }

    /// The tenant's resource server called `identifier`; without it, its default.
    pub async fn resource_server(
        &self,
        database: &Database,
        tenant: TenantId,
        identifier: Option<&str>,
    ) -> Result<Option<Arc<ResourceServer>>, StorageError> {
        let key = (tenant, identifier.map(str::to_owned));
        let load = || clients::find_resource_server(database, tenant, identifier);
        Ok(self.record(&self.resource_servers, key, tenant.0, load).await?.map(|(record, _)| record))
    }

    /// The two as the database has them now, where that is something else than is remembered here; nothing where it is the same, or one of them is gone.
    ///
    /// What changed is heard a moment later than it was committed, and meanwhile nobody is to be refused who may.
    pub async fn news_of(
        &self,
        database: &Database,
        known: &Known,
    ) -> Result<Option<(Arc<Client>, Arc<Tenant>)>, StorageError> {
        let (mut client, mut tenant) = (known.client.clone(), known.tenant.clone());
        if known.is_client_remembered {
            let Some(now) = clients::find(database, client.agent_id).await? else { return Ok(None) };
            if now != *client {
                self.agent_changed(now.agent_id);
                client = Arc::new(now);
            }
        }
        if known.is_tenant_remembered {
            let Some(now) = clients::find_tenant(database, tenant.tenant_id).await? else { return Ok(None) };
            if now != *tenant {
                self.tenant_changed(now.tenant_id);
                tenant = Arc::new(now);
            }
        }
        let same = Arc::ptr_eq(&client, &known.client) && Arc::ptr_eq(&tenant, &known.tenant);
        Ok((!same).then_some((client, tenant)))
    }

    /// The record, and whether it was remembered.
    async fn record<
        K: Hash + Eq + Send + Sync + 'static,
        T: Send + Sync + 'static,
        F: Future<Output = Result<Option<T>, StorageError>>,
    >(
        &self,
        kept: &Cache<K, Kept<T>>,
        key: K,
        subject: Uuid,
        load: impl FnOnce() -> F,
    ) -> Result<Option<(Arc<T>, bool)>, StorageError> {
        // Before anything is read: what changes from here on makes this stamp an old one.
        let stamp = self.generations.stamp(subject);
        if let Some(record) = self.kept(kept, &key, stamp) {
            return Ok(Some((record, true)));
        }
        let Some(record) = Box::pin(load()).await?.map(Arc::new) else { return Ok(None) };
        if self.is_current() {
            kept.insert(key, Kept { record: record.clone(), stamp });
        }
        Ok(Some((record, false)))
    }

    /// What is kept under `key`, if it counts. `stamp`: the subject's, of just before.
    fn kept<K: Hash + Eq + Send + Sync + 'static, T: Send + Sync + 'static>(
        &self,
        kept: &Cache<K, Kept<T>>,
        key: &K,
        stamp: Stamp,
    ) -> Option<Arc<T>> {
        let found = if self.is_current() { kept.get(key) } else { None };
        found.filter(|found| found.stamp == stamp).map(|found| found.record)
    }

    /// The agent or one of its credentials has changed.
    pub fn agent_changed(&self, agent: AgentId) {
        self.generations.advance(agent.0);
    }

    /// The tenant or one of its resource servers has changed.
    pub fn tenant_changed(&self, tenant: TenantId) {
        self.generations.advance(tenant.0);
    }

    /// Anything may have changed.
    pub fn all_changed(&self) {
        self.generations.advance_all();
        self.agents.invalidate_all();
        self.tenants.invalidate_all();
        self.resource_servers.invalidate_all();
    }

    /// Whether what is kept counts: the database has shown lately that it would have said what changed.
    pub fn is_current(&self) -> bool {
        let asked = self.asked.load(Ordering::SeqCst);
        asked > 0 && self.milliseconds_at(Instant::now()).saturating_sub(asked) < millis(LEASE)
    }

    /// Whether this host's clock is right. A step is noticed at once: since the database was asked the monotonic clock has gone on.
    pub fn clock(&self) -> Clock {
        self.clock_at(clock::millis(), Instant::now())
    }

    /// Whether no tokens may be issued by this host's clock.
    pub fn is_clock_ahead(&self) -> bool {
        self.clock() == Clock::Ahead
    }

    fn clock_at(&self, ours: u64, instant: Instant) -> Clock {
        match self.ahead_at(ours, instant) {
            MAX_AHEAD_MORE.. => Clock::Ahead,
            ..MAX_BEHIND_LESS => Clock::Behind,
            _ => Clock::Right,
        }
    }

    /// By how many milliseconds this host's clock, which says `ours` at `instant`, is ahead of the database's.
    fn ahead_at(&self, ours: u64, instant: Instant) -> i64 {
        let database_started = self.database_started.load(Ordering::Relaxed);
        if database_started == UNKNOWN {
            return 0;
        }
        let since = i64::try_from(self.milliseconds_at(instant)).unwrap_or(i64::MAX);
        i64::try_from(ours).unwrap_or(i64::MAX).saturating_sub(database_started.saturating_add(since))
    }

    /// At `ours`, in milliseconds, and `asked`, the database was asked for its time: that was `theirs` when it answered, later than it was asked.
    fn compare_clocks(&self, ours: u64, asked: Instant, theirs: i64) {
        let since = i64::try_from(self.milliseconds_at(asked)).unwrap_or(i64::MAX);
        self.database_started.store(theirs.saturating_sub(since), Ordering::Relaxed);
        let (clock, ahead_ms) = (self.clock_at(ours, asked), self.ahead_at(ours, asked));
        let before = std::mem::replace(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner), clock);
        match clock {
            _ if clock == before => {}
            Clock::Right => info!("this host's clock agrees with the database's again"),
            Clock::Ahead => warn!(
                ahead_ms,
                "this host's clock is ahead of the database's: nothing is decided until it is set right"
            ),
            Clock::Behind => warn!(
                behind_ms = -ahead_ms,
                "this host's clock is behind the database's: nothing is decided until it is set right"
            ),
        }
    }

    /// The question asked at `asked` was answered, and what came before the answer was taken in.
    fn renew(&self, asked: Instant) {
        self.asked.store(self.milliseconds_at(asked), Ordering::SeqCst);
    }

    /// Nobody listens any more.
    fn lost(&self) {
        self.asked.store(0, Ordering::SeqCst);
        self.all_changed();
    }

    fn milliseconds_at(&self, instant: Instant) -> u64 {
        millis(instant.saturating_duration_since(self.started)) + 1
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn twice(clients: &Clients, between: impl FnOnce()) -> u32 {
        let kept: Cache<u8, Kept<u32>> = Cache::new(10);
        let find = async |value| {
            let load = async || Ok(Some(value));
            *clients.record(&kept, 1, Uuid::nil(), load).await.unwrap().unwrap().0
        };
        assert_eq!(find(1).await, 1);
        between();
        find(2).await
    }

    #[tokio::test]
    async fn a_record_counts_until_it_changes() {
        let clients = Clients::default();
        assert_eq!(twice(&clients, || {}).await, 2, "nobody listens");
        clients.renew(Instant::now());
        assert_eq!(twice(&clients, || {}).await, 1);
        assert_eq!(twice(&clients, || clients.agent_changed(AgentId(Uuid::nil()))).await, 2);
        assert_eq!(twice(&clients, || clients.agent_changed(AgentId(Uuid::from_u128(1)))).await, 1);
        assert_eq!(twice(&clients, || clients.all_changed()).await, 2);
        assert_eq!(twice(&clients, || clients.lost()).await, 2);
    }

    #[tokio::test]
    async fn a_record_that_changes_while_it_is_loaded_does_not_stay() {
        let clients = Clients::default();
        clients.renew(Instant::now());
        let kept: Cache<u8, Kept<u32>> = Cache::new(10);
        let load = async || {
            clients.agent_changed(AgentId(Uuid::nil()));
            Ok(Some(1))
        };
        assert_eq!(*clients.record(&kept, 1, Uuid::nil(), load).await.unwrap().unwrap().0, 1);
        let load = async || Ok(Some(2));
        assert_eq!(*clients.record(&kept, 1, Uuid::nil(), load).await.unwrap().unwrap().0, 2);
        let load = async || Ok(Some(3));
        assert_eq!(*clients.record(&kept, 1, Uuid::nil(), load).await.unwrap().unwrap().0, 2);
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_remembered() {
        let clients = Clients::default();
        clients.renew(Instant::now());
        let kept: Cache<u8, Kept<u32>> = Cache::new(10);
        assert!(clients.record(&kept, 1, Uuid::nil(), async || Ok(None)).await.unwrap().is_none());
        assert!(clients.record(&kept, 1, Uuid::nil(), async || Ok(Some(2))).await.unwrap().is_some());
    }

    #[test]
    fn a_clock_that_is_wrong_is_noticed() {
        let clients = Clients::default();
        let asked = Instant::now();
        assert_eq!(clients.clock_at(5000, asked), Clock::Right, "nothing is known yet");
        for (ours, theirs, clock) in [
            (5000, 5000, Clock::Right),
            (5000, 6500, Clock::Right),
            (5000, 6501, Clock::Behind),
            (6000, 5000, Clock::Right),
            (6001, 5000, Clock::Ahead),
            (5500, 5000, Clock::Right),
        ] {
            clients.compare_clocks(ours, asked, theirs);
            assert_eq!(clients.clock_at(ours, asked), clock, "{ours} {theirs}");
        }
        // Without having asked again: it has gone on, or was set.
        let later = asked + Duration::from_mins(1);
        assert_eq!(clients.clock_at(65_500, later), Clock::Right);
        assert_eq!(clients.clock_at(67_000, later), Clock::Ahead);
        assert_eq!(clients.clock_at(5500, later), Clock::Behind);
    }

    #[test]
    fn an_old_sign_of_life_is_none() {
        let clients = Clients {
            started: Instant::now().checked_sub(Duration::from_secs(10)).unwrap(),
            ..Clients::default()
        };
        assert!(!clients.is_current());
        clients.renew(Instant::now());
        assert!(clients.is_current());
        clients.renew(Instant::now().checked_sub(LEASE).unwrap());
        assert!(!clients.is_current());
        clients.renew(Instant::now());
        clients.lost();
        assert!(!clients.is_current());
    }
}
