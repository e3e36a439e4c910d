//! Taking a token back. The revocation, its outbox row and its audit row commit together, before anybody is told.

use countersign_shared::{AgentId, Jti, TenantId};
use serde_json::json;

use crate::app::App;
use crate::clock;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::storage::revocations::{self, Revoked};
use crate::storage::{Database, StorageError, Transaction, audit};

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
    mark(app, jti).await;
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
    if seconds_left(jti) == 0 {
        return Ok(());
    }
    let revoked = revocations::insert(transaction, tenant, actor, jti).await?;
    let event = Event::done(tenant, actor, Action::TokenRevoked, origin)
        .on(TargetType::Token, &jti)
        .with(json!({ "already_revoked": revoked == Revoked::Before }));
    audit::record_in(transaction, &event).await
}

/// Tells the hot state, so that the database isn't asked about it any more.
pub async fn mark(app: &App, jti: Jti) {
    let left = seconds_left(jti);
    if left > 0 {
        app.hot.mark_revoked(jti, left).await;
    }
}

/// Until every token of the shard has expired.
fn seconds_left(jti: Jti) -> u64 {
    let left = jti.coordinate().shard.ends_at().0 - clock::now().0;
    left.try_into().unwrap_or(0)
}
