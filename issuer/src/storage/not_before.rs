//! `not_before_rules`: each ends the tokens of its subject that were issued up to an instant.

use countersign_shared::revocation::Level;
use countersign_shared::{TenantId, UnixTime};
use sqlx::postgres::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Database, StorageError, Transaction, outbox};
use crate::clock;

/// For how long another replica may go by what it has cached, in whole seconds, rounded up, and one more because `iat` has no fractions: what
/// ends tokens together with their holder (a suspension, say) ends those too that are issued in this time.
pub const REPLICA_LAG_SECONDS: i64 = 2;

/// How old a rule that nobody has confirmed is before another process does: older than any transaction gets.
const ABANDONED_SECONDS: i32 = 10;

/// How long a rule waits for another's lock, in milliseconds.
pub(crate) const PATIENCE: &str = "500";

/// A rule that ends tokens together with what lets its subject have new ones.
pub(super) struct HolderEnded {
    confirm_id: Uuid,
    tenant: TenantId,
    level: Level,
    subject: Vec<u8>,
    not_before: UnixTime,
}

/// Ends every token of the subject with `iat` ≤ `not_before`, and queues that for publication; the publisher is woken when the
/// transaction commits. A rule never goes back: an earlier one than what there is changes nothing. `tenant` is whose subject it is, `None` for the
/// installation's (global, keys).
pub async fn end_tokens(
    transaction: &mut Transaction,
    tenant: Option<TenantId>,
    level: Level,
    subject: &[u8],
    not_before: UnixTime,
) -> Result<(), StorageError> {
    // The rule's time was taken; were it to wait long for another's lock now, tokens issued meanwhile would outlive it.
    sqlx::query!("select set_config('lock_timeout', $1, true)", PATIENCE)
        .fetch_one(&mut **transaction)
        .await?;
    write(transaction, tenant, level, subject, not_before).await
}

/// Ends every token of a subject that may have no new ones from this transaction on: those too that another replica issues before it has heard of
/// it, however long the commit takes. Returns up to when.
pub async fn end_with_holder(
    transaction: &mut Transaction,
    tenant: TenantId,
    level: Level,
    subject: &[u8],
) -> Result<UnixTime, StorageError> {
    let not_before = clock::now().plus(REPLICA_LAG_SECONDS);
    end_tokens(transaction, Some(tenant), level, subject, not_before).await?;
    let confirm_id = Uuid::new_v4();
    sqlx::query!(
        "insert into rules_to_confirm (confirm_id, tenant_id, level, subject) values ($1, $2, $3, $4)",
        confirm_id,
        tenant.0,
        i16::from(level as u8),
        subject,
    )
    .execute(&mut **transaction)
    .await?;
    transaction.ended.push(HolderEnded {
        confirm_id,
        tenant,
        level,
        subject: subject.to_owned(),
        not_before,
    });
    Ok(not_before)
}

/// Writes those rules of a transaction again that its commit has overtaken: until it was done others issued tokens, and for a second more they may.
pub(super) async fn after_commit(installation: &PgPool, ended: &[HolderEnded]) -> Result<(), StorageError> {
    let known_everywhere = clock::now().plus(1);
    for rule in ended {
        if rule.not_before >= known_everywhere {
            sqlx::query!("delete from rules_to_confirm where confirm_id = $1", rule.confirm_id)
                .execute(installation)
                .await?;
            continue;
        }
        let mut transaction = installation.begin().await?;
        let not_before = clock::now().plus(REPLICA_LAG_SECONDS);
        write(&mut transaction, Some(rule.tenant), rule.level, &rule.subject, not_before).await?;
        sqlx::query!("delete from rules_to_confirm where confirm_id = $1", rule.confirm_id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
    }
    Ok(())
}

/// The same for rules whose process died before it could.
pub async fn confirm_abandoned(database: &Database) -> Result<(), StorageError> {
    let mut transaction = database.installation.begin().await?;
    let rows = sqlx::query!(
        "delete from rules_to_confirm where confirm_id in (
             select confirm_id from rules_to_confirm where created_at < now() - $1 * interval '1 second'
             order by created_at limit 100 for update skip locked
         ) returning tenant_id, level, subject",
        f64::from(ABANDONED_SECONDS),
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in &rows {
        let level = u8::try_from(row.level).ok().and_then(Level::from_number);
        let level = level.ok_or_else(|| StorageError::Row {
            table: "rules_to_confirm",
            id: row.tenant_id.to_string(),
            problem: format!("{} is no level", row.level),
        })?;
        let not_before = clock::now().plus(REPLICA_LAG_SECONDS);
        write(&mut transaction, Some(TenantId(row.tenant_id)), level, &row.subject, not_before).await?;
    }
    Ok(transaction.commit().await?)
}

async fn write(
    connection: &mut PgConnection,
    tenant: Option<TenantId>,
    level: Level,
    subject: &[u8],
    not_before: UnixTime,
) -> Result<(), StorageError> {
    sqlx::query!(
        r#"with rule as (
               insert into not_before_rules as r (level, subject, tenant_id, not_before) values ($1, $2, $3, $4)
               on conflict (level, subject) do update set not_before = excluded.not_before, updated_at = now()
               where r.not_before < excluded.not_before
               returning level, subject, not_before
           ), queued as (
               insert into revocation_outbox (rule_level, rule_subject, not_before) select level, subject, not_before from rule
               returning outbox_id
           )
           select count(pg_notify($5, '')) as "queued!" from queued"#,
        i16::from(level as u8),
        subject,
        tenant.map(|tenant| tenant.0),
        not_before.0,
        outbox::CHANNEL,
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}
