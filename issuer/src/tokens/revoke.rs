//! Taking a token back. The revocation, its outbox row and its audit row commit together, before anybody is told.

use countersign_shared::{AgentId, Jti, TenantId};
use serde_json::json;

use crate::app::App;
use crate::clock;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::storage::revocations::{self, Revoked};
use crate::storage::{Database, StorageError, audit};

/// Revokes `jti`, a token of `tenant`, on behalf of `actor`. One that has expired needs no revocation and gets none.
pub async fn revoke(
    app: &App,
    tenant: TenantId,
    actor: AgentId,
    jti: Jti,
    origin: &Origin,
) -> Result<(), StorageError> {
    let expires = jti.coordinate().shard.ends_at();
    let left = expires.0 - clock::now().0;
    if left <= 0 {
        return Ok(());
    }
    let mut transaction = app.database.begin().await?;
    let revoked = revocations::insert(&mut transaction, tenant, actor, jti).await?;
    let event = Event::done(tenant, actor, Action::TokenRevoked, origin)
        .on(TargetType::Token, &jti)
        .with(json!({ "already_revoked": revoked == Revoked::Before }));
    audit::record_in(&mut transaction, &event).await?;
    Database::commit(transaction).await?;
    app.hot.mark_revoked(jti, left.unsigned_abs()).await;
    Ok(())
}
