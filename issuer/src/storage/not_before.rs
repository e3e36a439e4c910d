//! `not_before_rules`: each ends the tokens of its subject that were issued up to an instant.

use countersign_shared::revocation::Level;
use countersign_shared::{TenantId, UnixTime};

use super::{StorageError, Transaction, outbox};

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
    sqlx::query!("select set_config('lock_timeout', '500ms', true)").fetch_one(&mut **transaction).await?;
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
    .fetch_one(&mut **transaction)
    .await?;
    Ok(())
}
