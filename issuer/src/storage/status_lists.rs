//! `status_tokens`: what a status list has to know of the tokens in it. And what of all else decides it.

use countersign_shared::{AgentId, Coordinate, CredentialId, Shard, TenantId, UnixTime};

use sqlx::postgres::PgConnection;

use super::{Database, StorageError};
use crate::clock::SLOW_CLOCKS;
use crate::domain::tenant::MAX_LIFETIME_SECONDS;

/// How long it takes until it is certain that no transaction is under way any more that took an earlier `outbox_id`: three times as long as any gets.
const SETTLED_SECONDS: f64 = 30.0;
/// How long tokens may still come that a rule ends which is there already: from a replica that hasn't heard of it, with as much time as a request gets.
const RIPE_SECONDS: f64 = 15.0;
/// What reading all of a shard may take, in milliseconds.
pub(crate) const PATIENCE: &str = "60000";

/// A token that says where its status can be read.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its place: the list, and the index in it.
    pub coordinate: Coordinate,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its agent.
    pub agent: AgentId,
    /// What it was obtained with.
    pub credential: CredentialId,
    /// What it is signed with.
    pub kid: String,
    /// Its `iat`.
    pub issued_at: UnixTime,
}

/// How far what decides a list has come.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Every serial is below it.
    pub next_serial: u64,
    /// Tokens below it have ended, all of them.
    pub floor: u64,
    /// Entries after the one that was seen that concern the list.
    pub news: i64,
    /// Before this one none can come any more.
    pub settled: i64,
    /// Entries after that one that concern the list.
    pub unsettled: i64,
    /// A rule is so young that tokens may still come which it ends.
    pub unripe: bool,
}

/// Whether anything about the list of `shard` may have changed since `seen`, an entry of the outbox; 0: none was seen. `None`: no token refers to that list.
pub async fn look(database: &Database, shard: Shard, seen: i64) -> Result<Option<Look>, StorageError> {
    let row = sqlx::query!(
        r#"with base as (
               select case when $2::bigint > 0 then $2::bigint
                           else coalesce((select outbox_id from revocation_outbox where extract(epoch from now() - queued_at)::float8 > $3
                                          order by outbox_id desc limit 1), 0) end as id
           ), news as materialized (
               select outbox_id, (shard = $1) is true or rule_level is not null as concerned, rule_level is not null as is_rule,
                      extract(epoch from now() - queued_at)::float8 as age
               from revocation_outbox where outbox_id > (select id from base)
           ), settled as (
               select coalesce(max(outbox_id), (select id from base)) as id from news where age > $3
           )
           select next_serial, status_floor, settled.id as "settled!",
                  (select count(*) from news where concerned) as "news!",
                  (select count(*) from news where concerned and outbox_id > settled.id) as "unsettled!",
                  exists (select from news where is_rule and age < $4) as "unripe!"
           from serial_shards s, settled
           where s.shard = $1 and (status_floor > 0 or exists (select from status_tokens t where t.shard = $1))"#,
        shard.get().cast_signed(),
        seen,
        SETTLED_SECONDS,
        RIPE_SECONDS,
    )
    .fetch_optional(&database.installation)
    .await?;
    Ok(row.map(|row| Look {
        next_serial: row.next_serial.cast_unsigned(),
        floor: row.status_floor.cast_unsigned(),
        news: row.news,
        settled: row.settled,
        unsettled: row.unsettled,
        unripe: row.unripe,
    }))
}

/// The serials of the listed tokens of `shard` that were revoked, or ended by a rule; ascending.
pub async fn ended(database: &Database, shard: Shard) -> Result<Vec<u64>, StorageError> {
    let mut transaction = database.installation.begin().await?;
    sqlx::query!("select set_config('statement_timeout', $1, true)", PATIENCE)
        .fetch_one(&mut *transaction)
        .await?;
    // A rule that ends none of the shard's tokens, because it is older than any of them.
    let oldest = shard.ends_at().0 - Shard::SECONDS - i64::from(MAX_LIFETIME_SECONDS);
    let serials = sqlx::query_scalar!(
        r#"with rule as materialized (
               select level, subject, not_before from not_before_rules where not_before >= $2
           )
           select t.serial as "serial!"
           from status_tokens t
           join (select distinct serial from revocation_outbox where shard = $1) revoked using (serial)
           where t.shard = $1
           union
           select t.serial
           from status_tokens t
           left join rule r0 on r0.level = 0
           left join rule r1 on r1.level = 1 and r1.subject = uuid_send(t.tenant_id)
           left join rule r2 on r2.level = 2 and r2.subject = uuid_send(t.agent_id)
           left join rule r3 on r3.level = 3 and r3.subject = uuid_send(t.credential_id)
           left join rule r4 on r4.level = 4 and r4.subject = convert_to(t.kid, 'UTF8')
           where t.shard = $1
           and greatest(r0.not_before, r1.not_before, r2.not_before, r3.not_before, r4.not_before) >= t.issued_at
           order by 1"#,
        shard.get().cast_signed(),
        oldest,
    )
    .fetch_all(&mut *transaction)
    .await?;
    Ok(serials.into_iter().map(i64::cast_unsigned).collect())
}

/// The shards from `from` on that have a list.
pub async fn shards(database: &Database, from: Shard) -> Result<Vec<Shard>, StorageError> {
    let shards = sqlx::query_scalar!(
        "select shard from serial_shards s
         where shard >= $1 and (status_floor > 0 or exists (select from status_tokens t where t.shard = s.shard))
         order by shard",
        from.get().cast_signed(),
    )
    .fetch_all(&database.installation)
    .await?;
    Ok(shards.into_iter().filter_map(|shard| Shard::new(shard.cast_unsigned())).collect())
}

/// Forgets up to `limit` of the tokens that have expired; how many.
pub async fn sweep(connection: &mut PgConnection, now: UnixTime, limit: i64) -> Result<u64, StorageError> {
    let Some(oldest) = Shard::of_expiry(now.plus(-SLOW_CLOCKS)) else { return Ok(0) };
    let swept = sqlx::query!(
        "delete from status_tokens where ctid = any(array(
             select ctid from status_tokens where shard < $1 order by shard limit $2 for update skip locked))",
        oldest.get().cast_signed(),
        limit,
    )
    .execute(connection)
    .await?;
    Ok(swept.rows_affected())
}
