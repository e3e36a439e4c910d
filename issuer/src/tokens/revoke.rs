//! Taking tokens back, by their ids. The revocations, their outbox rows and their audit rows commit together, before anybody is told.

use countersign_shared::{AgentId, Jti, TenantId};
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::clock::{self, SLOW_CLOCKS};
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::text_enum;
use crate::keys::ServerSecrets;
use crate::storage::{Database, StorageError, Transaction, audit, revocations};
use crate::tokens::jti;

/// The most tokens that are taken back in one transaction: a request's body has room for them, and its few statements end in a small part of the
/// time that a request has.
pub const MOST_AT_ONCE: usize = 1000;

text_enum! {
    /// What became of one of many tokens.
    pub enum Became {
        /// It is revoked now.
        Revoked = "revoked",
        /// It was before.
        AlreadyRevoked = "already_revoked",
        /// It needs no revocation: its time is over everywhere, slow clocks included.
        Expired = "expired",
        /// It isn't one of the tenant's.
        NotFound = "not_found",
    }
}

/// Revokes `jti`, a token of `tenant`, on behalf of `actor`.
pub async fn revoke(
    app: &App,
    tenant: TenantId,
    actor: Option<AgentId>,
    jti: Jti,
    origin: &Origin,
) -> Result<(), StorageError> {
    let mut transaction = app.database.begin_as(tenant).await?;
    revoke_in(&mut transaction, tenant, actor, jti, origin).await?;
    Database::commit(transaction).await?;
    mark(app, &[jti]).await;
    Ok(())
}

/// The same in a transaction; [`mark`] it when that is committed. One that has expired needs no revocation and gets none.
pub async fn revoke_in(
    transaction: &mut Transaction,
    tenant: TenantId,
    actor: Option<AgentId>,
    jti: Jti,
    origin: &Origin,
) -> Result<(), StorageError> {
    revoke_ours(transaction, tenant, actor, &[jti], origin).await?;
    Ok(())
}

/// Revokes those of `ids`, at most [`MOST_AT_ONCE`], that are tokens of `tenant`; what became of each, in their order. An id that comes twice is, the
/// second time, one that was revoked before. [`mark`] them when the transaction is committed.
pub async fn revoke_many_in(
    transaction: &mut Transaction,
    secrets: &ServerSecrets,
    tenant: TenantId,
    actor: Option<AgentId>,
    ids: &[Uuid],
    origin: &Origin,
) -> Result<Vec<Became>, StorageError> {
    let ours = |id: &Uuid| Jti::from_uuid(*id).filter(|jti| jti::is_ours(&secrets.jti_tag, *jti, tenant));
    let found: Vec<Option<Jti>> = ids.iter().map(ours).collect();
    let jtis: Vec<Jti> = found.iter().flatten().copied().collect();
    let mut became = revoke_ours(transaction, tenant, actor, &jtis, origin).await?.into_iter();
    Ok(found.into_iter().map(|jti| jti.and_then(|_| became.next()).unwrap_or(Became::NotFound)).collect())
}

/// What became of each, in their order; all are the tenant's.
async fn revoke_ours(
    transaction: &mut Transaction,
    tenant: TenantId,
    actor: Option<AgentId>,
    jtis: &[Jti],
    origin: &Origin,
) -> Result<Vec<Became>, StorageError> {
    let mut live: Vec<Jti> = jtis.iter().filter(|jti| !is_over(**jti)).copied().collect();
    // In one order whoever asks: two that revoke the same tokens at once must not wait for each other.
    live.sort_unstable();
    live.dedup();
    let mut new = revocations::insert(transaction, tenant, actor, &live).await?;
    let became = |jti: &Jti| {
        if live.binary_search(jti).is_err() {
            Became::Expired
        } else if new.remove(jti) {
            Became::Revoked
        } else {
            Became::AlreadyRevoked
        }
    };
    let became: Vec<Became> = jtis.iter().map(became).collect();
    let events = jtis.iter().zip(&became).filter(|(_, became)| **became != Became::Expired);
    let events = events.map(|(jti, became)| {
        Event::done(tenant, actor, Action::TokenRevoked, origin)
            .on(TargetType::Token, jti)
            .with(json!({ "already_revoked": *became == Became::AlreadyRevoked }))
    });
    audit::record_all_in(transaction, &events.collect::<Vec<_>>()).await?;
    Ok(became)
}

/// The UUID with this text, which is its one spelling: lower-case, hyphenated (RFC 9562 §4).
pub fn canonical(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|id| *id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text)
}

/// Tells the hot state, in one trip, so that the database isn't asked about them any more.
pub async fn mark(app: &App, jtis: &[Jti]) {
    let marks: Vec<(Jti, u64)> = jtis.iter().map(|jti| (*jti, seconds_left(*jti))).collect();
    let marks: Vec<(Jti, u64)> = marks.into_iter().filter(|(_, left)| *left > 0).collect();
    if !marks.is_empty() {
        app.hot.mark_revoked(&marks).await;
    }
}

/// Whether every token of the shard has expired, by slow clocks too.
fn is_over(jti: Jti) -> bool {
    jti.coordinate().shard.ends_at().plus(SLOW_CLOCKS) <= clock::now()
}

/// Until every token of the shard has expired here.
fn seconds_left(jti: Jti) -> u64 {
    let left = jti.coordinate().shard.ends_at().0 - clock::now().0;
    left.try_into().unwrap_or(0)
}
