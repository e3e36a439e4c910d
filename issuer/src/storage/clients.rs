//! What client authentication and a token request read: clients, their tenants, resource servers. Kept in memory by [`crate::clients`].

use countersign_shared::{AgentId, Algorithm, CredentialId, Jwk, TenantId, UnixTime};
use time::OffsetDateTime;
use tracing::Instrument as _;

use super::{Database, StorageError};
use crate::clock;
use crate::domain::agent::{AgentStatus, AgentType};
use crate::domain::client_secret::BcryptHash;
use crate::domain::credential::Verifier;
use crate::domain::limit::{TenantQuota, TenantRates};
use crate::domain::scope::Scopes;
use crate::domain::tenant::{Limits, Plan, ResourceServer, TenantStatus};
use crate::traces::step;

/// An agent as an OAuth client.
#[derive(Debug, PartialEq, Eq)]
pub struct Client {
    /// The agent.
    pub agent_id: AgentId,
    /// Its tenant.
    pub tenant_id: TenantId,
    /// What it does.
    pub agent_type: AgentType,
    /// Whether it may.
    pub status: AgentStatus,
    /// All it may ask for.
    pub scopes: Scopes,
    /// Its credentials, but for those that were revoked, or had expired when this was read.
    pub credentials: Vec<ClientCredential>,
}

/// One of a client's credentials.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientCredential {
    /// Its id.
    pub credential_id: CredentialId,
    /// Refused from this second on.
    pub expires_at: Option<UnixTime>,
    /// Tokens of the agent or of this credential with `iat` up to this instant are ended: the latest of both rules.
    pub not_before: Option<UnixTime>,
    current: Verifier,
    /// What it was before it was rotated, good up to this second.
    previous: Option<(Verifier, UnixTime)>,
}

impl ClientCredential {
    /// What proves it at `now`: nothing once it has expired, two things while a rotation is under way.
    pub fn verifiers(&self, now: UnixTime) -> impl Iterator<Item = &Verifier> {
        let live = self.expires_at.is_none_or(|expires_at| now < expires_at);
        let previous = self.previous.as_ref().filter(|(_, until)| now < *until);
        let verifiers = [Some(&self.current), previous.map(|(verifier, _)| verifier)];
        verifiers.into_iter().flatten().filter(move |_| live)
    }
}

/// A tenant, as far as its clients' requests depend on it.
#[derive(Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub tenant_id: TenantId,
    /// Whether its agents may do anything.
    pub status: TenantStatus,
    /// Whether it is the platform's.
    pub is_platform: bool,
    /// What it pays for.
    pub plan: Plan,
    /// Where its use ends.
    pub limits: Limits,
    /// Tokens of the tenant with `iat` up to this instant are ended: the latest of its rule, the installation's and those of signing keys. Which
    /// key will sign isn't known here, and a second more does no harm.
    pub not_before: Option<UnixTime>,
}

impl Tenant {
    /// Its own limits on requests.
    pub const fn rates(&self) -> TenantRates {
        TenantRates {
            tenant: self.limits.requests_per_minute,
            client: self.limits.client_requests_per_minute,
        }
    }

    /// What decides how many tokens it may have a month.
    pub fn quota(&self) -> TenantQuota {
        TenantQuota { own: self.limits.monthly_token_quota, free_plan: self.plan == Plan::Free }
    }
}

/// The client `agent`.
pub async fn find(database: &Database, agent: AgentId) -> Result<Option<Client>, StorageError> {
    let mut connection = database.connection().await?;
    let rows = sqlx::query!(
        r#"select a.tenant_id as "tenant_id!", a.agent_type as "agent_type!", a.status as "status!", a.scopes as "scopes!",
                  c.credential_id as "credential_id?", c.expires_at as "expires_at?", c.secret_hash as "secret_hash?",
                  c.bcrypt_hash as "bcrypt_hash?", c.public_jwk as "public_jwk?", c.previous_secret_hash as "previous_secret_hash?",
                  c.previous_bcrypt_hash as "previous_bcrypt_hash?", c.previous_public_jwk as "previous_public_jwk?",
                  c.previous_until as "previous_until?",
                  greatest(
                      (select not_before from not_before_rules where level = 2 and subject = $2),
                      (select not_before from not_before_rules where level = 3 and subject = uuid_send(c.credential_id))
                  ) as "not_before?"
           from agents a
           left join credentials c on c.agent_id = a.agent_id and c.tenant_id = a.tenant_id and c.status = 'active'
                and (c.expires_at is null or c.expires_at > $3)
           where a.agent_id = $1
           order by c.credential_id -- two readings of the same are equal"#,
        agent.0,
        agent.0.as_bytes().as_slice(),
        clock::timestamp(clock::now()),
    )
    .fetch_all(&mut *connection)
    .instrument(step!("database statement", what = "client"))
    .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let problem = StorageError::row("agents", agent);
    let mut client = Client {
        agent_id: agent,
        tenant_id: TenantId(first.tenant_id),
        agent_type: first.agent_type.parse().map_err(&problem)?,
        status: first.status.parse().map_err(&problem)?,
        scopes: first.scopes.iter().cloned().collect(),
        credentials: Vec::with_capacity(rows.len()),
    };
    for row in rows {
        let Some(id) = row.credential_id else { continue };
        let credential_id = CredentialId(id);
        let current = verifier(credential_id, row.secret_hash, row.bcrypt_hash.as_deref(), row.public_jwk)?;
        let previous = row.previous_until.map(|until| {
            let (secret, bcrypt) = (row.previous_secret_hash, row.previous_bcrypt_hash.as_deref());
            Ok::<_, StorageError>((
                verifier(credential_id, secret, bcrypt, row.previous_public_jwk)?,
                unix(until),
            ))
        });
        client.credentials.push(ClientCredential {
            credential_id,
            expires_at: row.expires_at.map(unix),
            not_before: row.not_before.map(UnixTime),
            current,
            previous: previous.transpose()?,
        });
    }
    Ok(Some(client))
}

fn unix(time: OffsetDateTime) -> UnixTime {
    UnixTime(time.unix_timestamp())
}

fn verifier(
    credential: CredentialId,
    secret: Option<Vec<u8>>,
    bcrypt: Option<&str>,
    jwk: Option<String>,
) -> Result<Verifier, StorageError> {
    let found = match (secret, bcrypt, jwk) {
        (Some(hash), None, None) => Some(Verifier::Secret(hash)),
        (None, Some(hash), None) => BcryptHash::parse(hash).map(Verifier::Bcrypt),
        (None, None, Some(jwk)) => Jwk::parse(jwk.as_bytes()).ok().map(|key| Verifier::Key(Box::new(key))),
        _ => None,
    };
    found.ok_or_else(|| StorageError::Row {
        table: "credentials",
        id: credential.to_string(),
        problem: "it has not one verifier that can be used".into(),
    })
}

/// The tenant.
pub async fn find_tenant(database: &Database, tenant: TenantId) -> Result<Option<Tenant>, StorageError> {
    let mut connection = database.connection().await?;
    let row = sqlx::query!(
        r#"select status, is_platform, plan, monthly_token_quota, requests_per_minute, client_requests_per_minute, max_agents,
                  greatest(
                      -- A revoked key signs no more, so its rule, which has no end, is in nobody's way.
                      (select max(not_before) from not_before_rules r
                       where level = 0 or (level = 4 and not exists (
                           select from signing_keys where convert_to(kid, 'UTF8') = r.subject and revoked_at is not null))),
                      (select not_before from not_before_rules where level = 1 and subject = $2)
                  ) as not_before
           from tenants where tenant_id = $1"#,
        tenant.0,
        tenant.0.as_bytes().as_slice(),
    )
    .fetch_optional(&mut *connection)
    .instrument(step!("database statement", what = "tenant"))
    .await?;
    let Some(row) = row else { return Ok(None) };
    let problem = StorageError::row("tenants", tenant);
    let limit = |limit: Option<i32>| limit.and_then(|limit| limit.try_into().ok());
    Ok(Some(Tenant {
        tenant_id: tenant,
        status: row.status.parse().map_err(&problem)?,
        is_platform: row.is_platform,
        plan: row.plan.parse().map_err(&problem)?,
        limits: Limits {
            monthly_token_quota: row.monthly_token_quota.and_then(|quota| quota.try_into().ok()),
            requests_per_minute: limit(row.requests_per_minute),
            client_requests_per_minute: limit(row.client_requests_per_minute),
            max_agents: limit(row.max_agents),
        },
        not_before: row.not_before.map(UnixTime),
    }))
}

/// The tenant's resource server called `identifier`; without it, its default.
pub async fn find_resource_server(
    database: &Database,
    tenant: TenantId,
    identifier: Option<&str>,
) -> Result<Option<ResourceServer>, StorageError> {
    struct Row {
        identifier: String,
        token_lifetime_seconds: Option<i32>,
        signing_algorithm: Option<String>,
        status_list: bool,
    }
    // Two queries: each has an index of its own.
    let row = match identifier {
        Some(identifier) => {
            sqlx::query_as!(
                Row,
                "select identifier, token_lifetime_seconds, signing_algorithm, status_list from resource_servers where identifier = $2 and tenant_id = $1",
                tenant.0,
                identifier,
            )
            .fetch_optional(&database.installation)
            .await?
        }
        None => {
            sqlx::query_as!(
                Row,
                "select identifier, token_lifetime_seconds, signing_algorithm, status_list from resource_servers where tenant_id = $1 and is_default",
                tenant.0,
            )
            .fetch_optional(&database.installation)
            .await?
        }
    };
    Ok(row.map(|row| ResourceServer {
        identifier: row.identifier,
        token_lifetime: row.token_lifetime_seconds.and_then(|seconds| seconds.try_into().ok()),
        signing_algorithm: row.signing_algorithm.as_deref().and_then(Algorithm::from_name), // the table has no other
        status_list: row.status_list,
    }))
}
