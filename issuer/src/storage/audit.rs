//! `audit_queue`, `audit_events`, `audit_chains`, `audit_checkpoints`: written once, never changed.

use std::collections::BTreeMap;

use aws_lc_rs::rand;
use countersign_shared::TenantId;
use sqlx::postgres::{PgListener, PgPool};
use sqlx::{Acquire as _, PgConnection};
use time::{Date, Duration, OffsetDateTime, UtcOffset};
use tracing::Instrument as _;
use uuid::Uuid;

use super::status_lists::Listed;
use super::{Database, StorageError, Transaction};
use crate::audit::chain::End;
use crate::clock;
use crate::domain::audit::{
    Action, Entry, Event, Filter, Hash, INSTALLATION, Origin, Sealed, TargetType, event_id,
};
use crate::traces::step;

/// What wakes the sealer.
const CHANNEL: &str = "countersign_audit";
/// A statement of the sealer that takes longer means that the connection is lost.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// An event that is to be queued.
#[derive(Debug, Clone)]
pub struct Record {
    event_id: Uuid,
    occurred_at: OffsetDateTime,
    tenant: Option<Uuid>,
    /// Whose tenant it is, where that isn't known: an agent that may exist.
    agent: Option<Uuid>,
    actor: Option<Uuid>,
    action: &'static str,
    outcome: &'static str,
    target_type: Option<&'static str>,
    target_id: Option<String>,
    request_id: Option<String>,
    client_ip: Option<String>,
    user_agent: Option<String>,
    details: String,
    /// What a status list has to know of the token that it is about.
    listed: Option<Listed>,
}

impl Record {
    /// Of an event that occurs now.
    pub fn of(event: &Event<'_>) -> Self {
        let mut chance = [0; 8];
        // Without randomness an id is its time alone. What must not be guessed fails for itself.
        _ = rand::fill(&mut chance);
        let occurred_at = clock::precise();
        let actor = event.actor.map(|actor| actor.0);
        let agent = || match &event.target {
            Some((TargetType::Agent, id)) => id.parse().ok().map(|countersign_shared::AgentId(id)| id),
            _ => None,
        };
        Self {
            event_id: event_id(occurred_at, chance),
            occurred_at,
            tenant: event.tenant.map(|tenant| tenant.0),
            agent: actor.or_else(agent),
            actor,
            action: event.action.as_str(),
            outcome: event.outcome.as_str(),
            target_type: event.target.as_ref().map(|(target, _)| target.as_str()),
            target_id: event.target.as_ref().map(|(_, id)| id.clone()),
            request_id: event.origin.request_id.clone(),
            client_ip: event.origin.client_ip.map(|ip| ip.to_string()),
            user_agent: event.origin.user_agent.clone(),
            details: event.details.to_string(),
            listed: None,
        }
    }

    /// The same, of a token that says where its status can be read.
    #[must_use]
    pub fn listing(self, listed: Option<Listed>) -> Self {
        Self { listed, ..self }
    }
}

/// Writes `event` together with what it is about.
pub async fn record_in(transaction: &mut Transaction, event: &Event<'_>) -> Result<(), StorageError> {
    insert(transaction, &[Record::of(event)]).await
}

/// Writes `events` together with what they are about, in one statement.
pub async fn record_all_in(transaction: &mut Transaction, events: &[Event<'_>]) -> Result<(), StorageError> {
    if events.is_empty() {
        return Ok(());
    }
    insert(transaction, &events.iter().map(Record::of).collect::<Vec<_>>()).await
}

/// Queues `records` in one statement, with what status lists have to know of their tokens. Where an event knows no tenant but names an agent, that
/// agent's tenant is entered: its administrator wants to see
/// failed attempts.
async fn insert(connection: &mut PgConnection, records: &[Record]) -> Result<(), StorageError> {
    fn column<R, T>(records: &[R], of: impl Fn(&R) -> T) -> Vec<T> {
        records.iter().map(of).collect()
    }
    let tokens: Vec<&Listed> = records.iter().filter_map(|record| record.listed.as_ref()).collect();
    sqlx::query!(
        "with tokens as (
             insert into status_tokens (shard, serial, tenant_id, agent_id, credential_id, kid, issued_at)
             select * from unnest($15::integer[], $16::bigint[], $17::uuid[], $18::uuid[], $19::uuid[], $20::text[], $21::bigint[])
         )
         insert into audit_queue (event_id, occurred_at, tenant_id, actor_agent_id, action, outcome, target_type, target_id, request_id,
                                  client_ip, user_agent, details)
         select e.event_id, e.occurred_at,
                coalesce(e.tenant_id, (select a.tenant_id from agents a where a.agent_id = e.agent_id), $14),
                e.actor, e.action, e.outcome, e.target_type, e.target_id, e.request_id, e.client_ip, e.user_agent, e.details::json
         from unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[],
                     $10::text[], $11::text[], $12::text[], $13::text[])
              as e (event_id, occurred_at, tenant_id, agent_id, actor, action, outcome, target_type, target_id, request_id, client_ip,
                    user_agent, details)",
        &column(records, |record| record.event_id),
        &column(records, |record| record.occurred_at),
        &column(records, |record| record.tenant) as _,
        &column(records, |record| record.agent) as _,
        &column(records, |record| record.actor) as _,
        &column(records, |record| record.action) as _,
        &column(records, |record| record.outcome) as _,
        &column(records, |record| record.target_type) as _,
        &column(records, |record| record.target_id.clone()) as _,
        &column(records, |record| record.request_id.clone()) as _,
        &column(records, |record| record.client_ip.clone()) as _,
        &column(records, |record| record.user_agent.clone()) as _,
        &column(records, |record| record.details.clone()),
        INSTALLATION,
        &column(&tokens, |token| token.coordinate.shard.get().cast_signed()),
        &column(&tokens, |token| token.coordinate.serial.get().cast_signed()),
        &column(&tokens, |token| token.tenant.0),
        &column(&tokens, |token| token.agent.0),
        &column(&tokens, |token| token.credential.0),
        &column(&tokens, |token| token.kid.clone()),
        &column(&tokens, |token| token.issued_at.0),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The connection on which a process writes the events of its requests.
pub struct Writer(PgPool);

impl Writer {
    /// Connects when there is something to write.
    pub fn open(database: &Database) -> Self {
        Self(database.single())
    }

    /// Queues `records`: all of them, or none.
    pub async fn write(&self, records: &[Record]) -> Result<(), StorageError> {
        let connection = self.0.acquire().instrument(step!("database connection")).await?;
        let mut connection = Dropped(Some(connection));
        let Some(held) = &mut connection.0 else { return Ok(()) };
        let outcome =
            insert(held, records).instrument(step!("database statement", what = "audit events")).await;
        if !matches!(outcome, Err(StorageError::Unavailable(_))) {
            connection.0.take(); // back into the pool
        }
        outcome
    }

    /// Closes the connection.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

/// A connection that is closed unless it is taken out: who gives up waiting for an answer leaves none behind that others would wait on.
struct Dropped(Option<sqlx::pool::PoolConnection<sqlx::Postgres>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// The newest place in the queue; `None`: it is empty.
pub async fn last_queued(database: &Database) -> Result<Option<i64>, StorageError> {
    let last = sqlx::query_scalar!("select queue_id from audit_queue order by queue_id desc limit 1");
    Ok(last.fetch_optional(&database.installation).await?)
}

/// The oldest place in the queue; `None`: it is empty.
pub async fn first_queued(database: &Database) -> Result<Option<i64>, StorageError> {
    let first = sqlx::query_scalar!("select queue_id from audit_queue order by queue_id limit 1");
    Ok(first.fetch_optional(&database.installation).await?)
}

/// Has the sealer look at the queue now.
pub async fn wake_sealer(database: &Database) -> Result<(), StorageError> {
    sqlx::query!("select pg_notify($1, '')", CHANNEL).execute(&database.installation).await?;
    Ok(())
}

/// A connection that wants to be the sealer's, or is. It holds the advisory lock: when it breaks the lock is gone, and with it the
/// transaction that an unseated sealer might still be in.
pub struct Sealing {
    connection: PgListener,
    /// Of the last partition that is known to be there: the Monday it begins on.
    week: Option<Date>,
}

impl Sealing {
    /// Connects, and listens for who wants the queue sealed.
    pub async fn open(database: &Database) -> Result<Self, StorageError> {
        bounded(async {
            let mut connection = PgListener::connect_with(&database.dedicated()).await?;
            connection.eager_reconnect(false); // a new connection would be without the lock
            connection.listen(CHANNEL).await?;
            Ok(Self { connection, week: None })
        })
        .await
    }

    /// Whether this process seals from now on. Ask again later if not.
    pub async fn acquire(&mut self) -> Result<bool, StorageError> {
        let acquired = sqlx::query_scalar!(
            r#"select pg_try_advisory_lock(hashtextextended('countersign audit sealer', 0)) as "acquired!""#
        );
        bounded(async { Ok(acquired.fetch_one(&mut self.connection).await?) }).await
    }

    /// Returns when somebody wants the queue sealed. An error means that the connection, and so the lock, is gone.
    pub async fn woken(&mut self) -> Result<(), StorageError> {
        match self.connection.try_recv().await? {
            Some(_) => Ok(()),
            None => Err(StorageError::Unavailable(sqlx::Error::WorkerCrashed)),
        }
    }

    /// Forgets who asked so far: the queue is about to be read.
    pub fn drain(&mut self) {
        while self.connection.next_buffered().is_some() {}
    }

    /// Moves up to `limit` events, the oldest first, from the queue into their chains, as `extend` has it: all in one transaction. What commits late
    /// is sealed later, whatever its place in the queue: nothing is skipped. Returns how many it were.
    pub async fn seal(
        &mut self,
        limit: usize,
        extend: impl FnOnce(Vec<Entry>, &mut BTreeMap<Uuid, End>, OffsetDateTime) -> Vec<Sealed>,
    ) -> Result<usize, StorageError> {
        let Self { connection, week } = self;
        bounded(async {
            let mut transaction = connection.begin().await?;
            let rows = sqlx::query!(
                r#"select queue_id, event_id, occurred_at, tenant_id, actor_agent_id, action, outcome, target_type, target_id, request_id,
                          client_ip, user_agent, details::text as "details!", now() as "now!"
                   from audit_queue order by queue_id limit $1"#,
                i64::try_from(limit).unwrap_or(i64::MAX),
            )
            .fetch_all(&mut *transaction)
            .await?;
            let Some(now) = rows.first().map(|row| row.now) else { return Ok(0) };
            let places: Vec<i64> = rows.iter().map(|row| row.queue_id).collect();
            let entries: Vec<Entry> = rows
                .into_iter()
                .map(|row| Entry {
                    event_id: row.event_id,
                    occurred_at: row.occurred_at,
                    tenant_id: row.tenant_id,
                    actor: row.actor_agent_id,
                    action: row.action,
                    outcome: row.outcome,
                    target_type: row.target_type,
                    target_id: row.target_id,
                    request_id: row.request_id,
                    client_ip: row.client_ip,
                    user_agent: row.user_agent,
                    details: row.details,
                })
                .collect();

            let mut ends = lock_ends(&mut transaction, &entries).await?;
            let sealed = extend(entries, &mut ends, now);
            for recorded_at in sealed.iter().map(|sealed| sealed.recorded_at) {
                let monday = monday(recorded_at);
                if *week != Some(monday) {
                    sqlx::query!("select audit_add_partition($1)", monday).execute(&mut *transaction).await?;
                    *week = Some(monday);
                }
            }
            move_into_chains(&mut transaction, &places, &sealed).await?;
            write_ends(&mut transaction, &ends).await?;
            transaction.commit().await?;
            Ok(places.len())
        })
        .await
        .inspect_err(|_| *week = None) // the partition may have gone with the transaction
    }
}

/// Where the chains of `entries` end. Nobody else moves that while this connection has the advisory lock; the rows are locked all the same.
async fn lock_ends(
    connection: &mut PgConnection,
    entries: &[Entry],
) -> Result<BTreeMap<Uuid, End>, StorageError> {
    let mut tenants: Vec<Uuid> = entries.iter().map(|entry| entry.tenant_id).collect();
    tenants.sort_unstable();
    tenants.dedup();
    let rows = sqlx::query!(
        "select tenant_id, seq, hash, recorded_at from audit_chains where tenant_id = any($1) for update",
        &tenants,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let hash = digest("audit_chains", row.tenant_id, row.hash)?;
            Ok((row.tenant_id, End { seq: row.seq, hash, recorded_at: Some(row.recorded_at) }))
        })
        .collect()
}

async fn move_into_chains(
    connection: &mut PgConnection,
    places: &[i64],
    sealed: &[Sealed],
) -> Result<(), StorageError> {
    let seqs: Vec<i64> = sealed.iter().map(|sealed| sealed.seq).collect();
    let times: Vec<OffsetDateTime> = sealed.iter().map(|sealed| sealed.recorded_at).collect();
    let hashes: Vec<&[u8]> = sealed.iter().map(|sealed| sealed.hash.as_slice()).collect();
    let moved = sqlx::query!(
        "with taken as (delete from audit_queue where queue_id = any($1) returning *)
         insert into audit_events (tenant_id, seq, recorded_at, event_id, occurred_at, actor_agent_id, action, outcome, target_type, target_id,
                                   request_id, client_ip, user_agent, details, hash)
         select tenant_id, place.seq, place.recorded_at, event_id, occurred_at, actor_agent_id, action, outcome, target_type, target_id,
                request_id, client_ip, user_agent, details, place.hash
         from taken join unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::bytea[]) as place (queue_id, seq, recorded_at, hash)
              using (queue_id)
         order by queue_id",
        places,
        &seqs,
        &times,
        &hashes as _,
    )
    .execute(connection)
    .await?
    .rows_affected();
    if moved == places.len() as u64 {
        return Ok(());
    }
    let problem = format!("{moved} of {} events were there to be sealed", places.len());
    Err(StorageError::Row { table: "audit_queue", id: format!("{:?}", places.first()), problem })
}

async fn write_ends(connection: &mut PgConnection, ends: &BTreeMap<Uuid, End>) -> Result<(), StorageError> {
    let tenants: Vec<Uuid> = ends.keys().copied().collect();
    let seqs: Vec<i64> = ends.values().map(|end| end.seq).collect();
    let hashes: Vec<&[u8]> = ends.values().map(|end| end.hash.as_slice()).collect();
    let times: Vec<Option<OffsetDateTime>> = ends.values().map(|end| end.recorded_at).collect();
    sqlx::query!(
        "insert into audit_chains (tenant_id, seq, hash, recorded_at)
         select * from unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::timestamptz[])
         on conflict (tenant_id) do update set seq = excluded.seq, hash = excluded.hash, recorded_at = excluded.recorded_at",
        &tenants,
        &seqs,
        &hashes as _,
        &times as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The day on which the week of `time` begins (UTC).
fn monday(time: OffsetDateTime) -> Date {
    let date = time.to_offset(UtcOffset::UTC).date();
    date - Duration::days(date.weekday().number_days_from_monday().into())
}

/// A part of the log that was dropped.
#[derive(Debug)]
pub struct Pruned {
    /// The partition, named by the Monday on which it began.
    pub partition: String,
    /// How many events it had.
    pub events: i64,
    /// Of how many chains.
    pub chains: i64,
}

/// Drops the oldest partition, if all of it is older than `days`, and leaves checkpoints, and an event that tells of it.
pub async fn prune(connection: &mut PgConnection, days: u32) -> Result<Option<Pruned>, StorageError> {
    // Who reads the log holds it up, and would be waited for by all who come after: for two seconds, then not today.
    sqlx::raw_sql("set local lock_timeout = '2s'; set local statement_timeout = '60s'")
        .execute(&mut *connection)
        .await?;
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('countersign audit retention', 0))")
        .execute(&mut *connection)
        .await?;
    let cutoff = clock::precise() - Duration::days(days.into());
    let row = sqlx::query!(
        r#"select dropped as "partition!", events as "events!", chains as "chains!" from audit_drop_partition($1)"#,
        cutoff,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let pruned = Pruned { partition: row.partition, events: row.events, chains: row.chains };
    let origin = Origin::default();
    let event = Event::of_installation(Action::AuditPruned, &origin).with(serde_json::json!({
        "partition": pruned.partition, "events": pruned.events, "chains": pruned.chains, "retention_days": days,
    }));
    insert(connection, &[Record::of(&event)]).await?;
    Ok(Some(pruned))
}

/// Sealed events of `tenant`, and of the installation where it is the platform's, the newest first: those that `filter` lets through, before the one
/// with the id `before`.
pub async fn list(
    transaction: &mut Transaction,
    tenant: TenantId,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Sealed>, StorageError> {
    // Planned with the values it has: those that aren't asked about fall away, and of the indexes the one is used that suits the others.
    sqlx::query!("set local plan_cache_mode = force_custom_plan").execute(&mut **transaction).await?;
    let mut rows = list_chain(transaction, tenant.0, filter, before, limit).await?;
    if sees_installation(transaction, tenant).await? {
        rows.extend(list_chain(transaction, INSTALLATION, filter, before, limit).await?);
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.event_id));
        rows.truncate(usize::try_from(limit).unwrap_or(0));
    }
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Whether `tenant` is the platform's: row-level security goes by the same.
async fn sees_installation(transaction: &mut Transaction, tenant: TenantId) -> Result<bool, StorageError> {
    let sees = sqlx::query_scalar!(
        r#"select exists (select from tenants where tenant_id = $1 and is_platform) as "sees!""#,
        tenant.0,
    );
    Ok(sees.fetch_one(&mut **transaction).await?)
}

async fn list_chain(
    transaction: &mut Transaction,
    chain: Uuid,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Row>, StorageError> {
    let least = |time| event_id(time, [0; 8]);
    let rows = sqlx::query_as!(
        Row,
        r#"select tenant_id, seq, recorded_at, event_id, occurred_at, actor_agent_id, action, outcome, target_type, target_id, request_id,
                  client_ip, user_agent, details::text as "details!", hash
           from audit_events
           where tenant_id = $1
           and ($2::uuid is null or event_id >= $2) and ($3::uuid is null or event_id < $3)
           and ($4::uuid is null or actor_agent_id = $4) and ($5::text is null or action = $5)
           and ($6::text is null or target_type = $6) and ($7::text is null or target_id = $7)
           and ($8::text is null or outcome = $8)
           order by event_id desc limit $9"#,
        chain,
        filter.from.map(least),
        before.into_iter().chain(filter.to.map(least)).min(),
        filter.actor.map(|actor| actor.0),
        filter.action.map(Action::as_str),
        filter.target_type.map(TargetType::as_str),
        filter.target_id,
        filter.outcome.map(crate::domain::audit::Outcome::as_str),
        limit,
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(rows)
}

/// The event with that id, if `tenant` may see it.
pub async fn find(
    transaction: &mut Transaction,
    tenant: TenantId,
    event: Uuid,
) -> Result<Option<Sealed>, StorageError> {
    let mut chains = vec![tenant.0];
    if sees_installation(transaction, tenant).await? {
        chains.push(INSTALLATION);
    }
    let row = sqlx::query_as!(
        Row,
        r#"select tenant_id, seq, recorded_at, event_id, occurred_at, actor_agent_id, action, outcome, target_type, target_id, request_id,
                  client_ip, user_agent, details::text as "details!", hash
           from audit_events where tenant_id = any($1) and event_id = $2 limit 1"#,
        &chains,
        event,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// The id of the first chain after `after` of which there is, or should be, anything: events, an end, a checkpoint, a tenant.
pub async fn next_chain(database: &Database, after: Option<Uuid>) -> Result<Option<Uuid>, StorageError> {
    let next = sqlx::query_scalar!(
        r#"select min(tenant_id::text)::uuid from (
               (select tenant_id from audit_events where $1::uuid is null or tenant_id > $1 order by tenant_id limit 1)
               union all (select tenant_id from audit_chains where $1::uuid is null or tenant_id > $1 order by tenant_id limit 1)
               union all (select tenant_id from audit_checkpoints where $1::uuid is null or tenant_id > $1 order by tenant_id limit 1)
               -- A tenant's chain begins with its own making.
               union all (select tenant_id from tenants where $1::uuid is null or tenant_id > $1 order by tenant_id limit 1)
           ) found"#,
        after,
    );
    Ok(next.fetch_one(&database.installation).await?)
}

/// Up to `limit` rows of a chain in its order, after the one with that `seq` and `recorded_at`.
pub async fn rows_after(
    database: &Database,
    tenant: Uuid,
    after: Option<(i64, OffsetDateTime)>,
    limit: i64,
) -> Result<Vec<Sealed>, StorageError> {
    let (seq, recorded_at) = after.unwrap_or((i64::MIN, OffsetDateTime::UNIX_EPOCH));
    let rows = sqlx::query_as!(
        Row,
        r#"select tenant_id, seq, recorded_at, event_id, occurred_at, actor_agent_id, action, outcome, target_type, target_id, request_id,
                  client_ip, user_agent, details::text as "details!", hash
           from audit_events where tenant_id = $1 and (seq, recorded_at) > ($2, $3) order by seq, recorded_at limit $4"#,
        tenant,
        seq,
        recorded_at,
        limit,
    )
    .fetch_all(&database.installation)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Where the chain is said to end, if it has nothing after (`seq`, `recorded_at`): both are read at one moment.
pub async fn end_after(
    database: &Database,
    tenant: Uuid,
    after: Option<(i64, OffsetDateTime)>,
) -> Result<ChainEnd, StorageError> {
    let (seq, recorded_at) = after.unwrap_or((i64::MIN, OffsetDateTime::UNIX_EPOCH));
    let row = sqlx::query!(
        r#"select exists (select from audit_events where tenant_id = $1 and (seq, recorded_at) > ($2, $3)) as "more!",
                  c.seq as "seq?", c.hash as "hash?"
           from (select) as one left join audit_chains c on c.tenant_id = $1"#,
        tenant,
        seq,
        recorded_at,
    )
    .fetch_one(&database.installation)
    .await?;
    if row.more {
        return Ok(ChainEnd::NotYet);
    }
    let end = match (row.seq, row.hash) {
        (Some(seq), Some(hash)) => Some((seq, digest("audit_chains", tenant, hash)?)),
        _ => None,
    };
    Ok(ChainEnd::At(end))
}

/// What [`end_after`] finds.
#[derive(Debug)]
pub enum ChainEnd {
    /// There are more rows.
    NotYet,
    /// The last event's `seq` and hash, if there is a record of it.
    At(Option<(i64, Hash)>),
}

/// Whether there is such a tenant, and nothing waits to be the first event of its chain.
pub async fn ought_to_have_chain(database: &Database, tenant: Uuid) -> Result<bool, StorageError> {
    let found = sqlx::query_scalar!(
        r#"select exists (select from tenants where tenant_id = $1)
                  and not exists (select from audit_queue where tenant_id = $1)
                  and not exists (select from audit_events where tenant_id = $1) as "ought!""#,
        tenant,
    );
    Ok(found.fetch_one(&database.installation).await?)
}

/// The newest checkpoint of a chain: `seq` and hash of the last event that was dropped.
pub async fn checkpoint(database: &Database, tenant: Uuid) -> Result<Option<(i64, Hash)>, StorageError> {
    let row = sqlx::query!(
        "select seq, hash from audit_checkpoints where tenant_id = $1 order by seq desc limit 1",
        tenant
    )
    .fetch_optional(&database.installation)
    .await?;
    row.map(|row| Ok((row.seq, digest("audit_checkpoints", tenant, row.hash)?))).transpose()
}

/// How many events wait to be sealed.
pub async fn queued(database: &Database) -> Result<i64, StorageError> {
    let count = sqlx::query_scalar!(r#"select count(*) as "count!" from audit_queue"#);
    Ok(count.fetch_one(&database.installation).await?)
}

struct Row {
    tenant_id: Uuid,
    seq: i64,
    recorded_at: OffsetDateTime,
    event_id: Uuid,
    occurred_at: OffsetDateTime,
    actor_agent_id: Option<Uuid>,
    action: String,
    outcome: String,
    target_type: Option<String>,
    target_id: Option<String>,
    request_id: Option<String>,
    client_ip: Option<String>,
    user_agent: Option<String>,
    details: String,
    hash: Vec<u8>,
}

impl TryFrom<Row> for Sealed {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        Ok(Self {
            seq: row.seq,
            recorded_at: row.recorded_at,
            hash: digest("audit_events", row.event_id, row.hash)?,
            entry: Entry {
                event_id: row.event_id,
                occurred_at: row.occurred_at,
                tenant_id: row.tenant_id,
                actor: row.actor_agent_id,
                action: row.action,
                outcome: row.outcome,
                target_type: row.target_type,
                target_id: row.target_id,
                request_id: row.request_id,
                client_ip: row.client_ip,
                user_agent: row.user_agent,
                details: row.details,
            },
        })
    }
}

fn digest(table: &'static str, id: Uuid, bytes: Vec<u8>) -> Result<Hash, StorageError> {
    let problem = || "its hash doesn't have 32 bytes".to_owned();
    bytes.try_into().map_err(|_| StorageError::Row { table, id: id.to_string(), problem: problem() })
}

async fn bounded<T>(work: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
    let outcome = tokio::time::timeout(PATIENCE, work).await;
    outcome.unwrap_or(Err(StorageError::Unavailable(sqlx::Error::PoolTimedOut)))
}
