//! `countersign unlock`.

use serde_json::json;

use super::{Outcome, Unlock, operator};
use crate::config::{self, Sources};
use crate::domain::audit::Origin;
use crate::domain::limit::Network;
use crate::hot;
use crate::management::caller::Caller;
use crate::management::unlock;
use crate::storage::{Database, limits};

pub(super) async fn run(sources: &Sources, options: &Unlock) -> Outcome {
    let config = config::Unlock::from_sources(sources)?;
    let database = operator::connect_by(config.plain).await?;

    let (client, network) = (options.client, options.ip.map(Network::of));
    let tenant = limits::tenant_of(&mut database.begin_installation().await?, client).await?;
    let tenant = tenant.ok_or_else(|| format!("there is no client {client}"))?;
    let mut transaction = database.begin_as(tenant).await?;
    let caller = Caller::operator(tenant);
    unlock::unlock(&mut transaction, &caller, client, network, &Origin::default()).await?;
    // Running issuers hear of it at the commit, but perhaps none is running, and the lockout would wait in Redis for the first.
    let hot = hot::open(config.redis_url.as_ref()).map_err(|_| "REDIS_URL can't be used")?;
    hot.unlock(client, network)
        .await
        .map_err(|_| "Redis, which holds the lockouts, can't be reached: nothing was changed")?;
    Database::commit(transaction).await?;

    let network = network.map(|network| network.to_string());
    if options.json {
        println!("{}", json!({ "client_id": client, "tenant_id": tenant, "network": network }));
    } else {
        let from = network.unwrap_or_else(|| "everywhere".to_owned());
        println!("client {client} may authenticate again from {from}");
    }
    Ok(())
}
