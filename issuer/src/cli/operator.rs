//! The operator at the command line: a database, and a tenant to act in.

use countersign_shared::TenantId;
use uuid::Uuid;

use crate::config::{Plain, Sources};
use crate::management::caller::Caller;
use crate::storage::{Database, schema, tenants};
use crate::telemetry;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Connects, and stands for the operator in `tenant`; without one, in the platform's.
pub(super) async fn open(sources: &Sources, tenant: Option<TenantId>) -> Result<(Database, Caller), Failure> {
    let database = connect(sources).await?;
    let tenant = match tenant {
        Some(tenant) => tenant,
        None => tenants::platform(&database)
            .await?
            .ok_or("there is no tenant yet: run `countersign bootstrap`")?,
    };
    stand(database, tenant).await
}

/// The same; without a tenant, in that of the agent or credential `id`.
pub(super) async fn open_for(
    sources: &Sources,
    tenant: Option<TenantId>,
    id: Uuid,
) -> Result<(Database, Caller), Failure> {
    let database = connect(sources).await?;
    let tenant = match tenant {
        Some(tenant) => tenant,
        None => {
            tenants::owner(&database, id).await?.ok_or_else(|| format!("there is no {id} in any tenant"))?
        }
    };
    stand(database, tenant).await
}

/// Starts the log, and connects to a database whose schema this binary works on.
pub(super) async fn connect(sources: &Sources) -> Result<Database, Failure> {
    connect_by(Plain::from_sources(sources)?).await
}

/// The same, for who has read settings of their own too.
pub(super) async fn connect_by(config: Plain) -> Result<Database, Failure> {
    telemetry::start(config.telemetry);
    let database = Database::connect(&config.database).await?;
    schema::require(&database).await?;
    Ok(database)
}

async fn stand(database: Database, tenant: TenantId) -> Result<(Database, Caller), Failure> {
    let mut transaction = database.begin_as(tenant).await?;
    if !tenants::exists(&mut transaction, tenant).await? {
        return Err(format!("there is no tenant {tenant}").into());
    }
    drop(transaction);
    Ok((database, Caller::operator(tenant)))
}
