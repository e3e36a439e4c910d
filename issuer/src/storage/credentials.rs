//! `credentials`, for who manages them. What authentication reads of them: [`super::clients`].

use countersign_shared::{AgentId, CredentialId, TenantId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Database, StorageError, Transaction};
use crate::domain::client_secret::BcryptHash;
use crate::domain::credential::{Credential, CredentialKind, CredentialStatus, Verifier, jwk_document};
use crate::domain::page::{Listed, Page, Position};

/// A credential to be added.
pub struct NewCredential<'a> {
    /// Its tenant.
    pub tenant: TenantId,
    /// Whose it is.
    pub agent: AgentId,
    /// Its id.
    pub credential: CredentialId,
    /// What it is checked against.
    pub verifier: &'a Verifier,
    /// What its owner calls it.
    pub name: Option<&'a str>,
    /// Until when it is good.
    pub expires_at: Option<OffsetDateTime>,
}

/// Adds it.
pub async fn add(transaction: &mut Transaction, new: &NewCredential<'_>) -> Result<(), StorageError> {
    let columns = Columns::of(new.verifier);
    sqlx::query!(
        "insert into credentials (credential_id, tenant_id, agent_id, kind, name, expires_at, secret_hash, bcrypt_hash, public_jwk)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        new.credential.0,
        new.tenant.0,
        new.agent.0,
        columns.kind,
        new.name,
        new.expires_at,
        columns.secret_hash,
        columns.bcrypt_hash,
        columns.public_jwk,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Adds a client secret of which `secret_hash` is kept.
pub async fn insert(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent: AgentId,
    credential: CredentialId,
    secret_hash: &[u8],
    expires_at: Option<OffsetDateTime>,
) -> Result<(), StorageError> {
    let verifier = &Verifier::Secret(secret_hash.to_owned());
    add(transaction, &NewCredential { tenant, agent, credential, verifier, name: None, expires_at }).await
}

/// A verifier as the table has it: one of the three is there.
struct Columns<'a> {
    kind: &'static str,
    secret_hash: Option<&'a [u8]>,
    bcrypt_hash: Option<&'a str>,
    public_jwk: Option<String>,
}

impl<'a> Columns<'a> {
    fn of(verifier: &'a Verifier) -> Self {
        let kind = match verifier {
            Verifier::Secret(_) | Verifier::Bcrypt(_) => CredentialKind::ClientSecret,
            Verifier::Key(_) => CredentialKind::PublicKey,
        };
        let mut columns =
            Self { kind: kind.as_str(), secret_hash: None, bcrypt_hash: None, public_jwk: None };
        match verifier {
            Verifier::Secret(hash) => columns.secret_hash = Some(hash),
            Verifier::Bcrypt(hash) => columns.bcrypt_hash = Some(hash.as_str()),
            Verifier::Key(key) => columns.public_jwk = Some(jwk_document(key)),
        }
        columns
    }
}

/// Live credentials of an agent.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    /// All of them.
    pub live: i64,
    /// Of these, bcrypt hashes that weren't used yet.
    pub bcrypt: i64,
}

/// How many of the agent's credentials are live at `now`.
pub async fn count_live(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent: AgentId,
    now: OffsetDateTime,
) -> Result<Count, StorageError> {
    let count = sqlx::query_as!(
        Count,
        r#"select count(*) as "live!", count(*) filter (where bcrypt_hash is not null or previous_bcrypt_hash is not null) as "bcrypt!"
           from credentials where tenant_id = $1 and agent_id = $2 and status = 'active' and (expires_at is null or expires_at > $3)"#,
        tenant.0,
        agent.0,
        now,
    );
    Ok(count.fetch_one(&mut **transaction).await?)
}

/// Whose credential it is, if the tenant has it.
pub async fn holder(
    transaction: &mut Transaction,
    tenant: TenantId,
    credential: CredentialId,
) -> Result<Option<AgentId>, StorageError> {
    let found = sqlx::query_scalar!(
        "select agent_id from credentials where tenant_id = $1 and credential_id = $2",
        tenant.0,
        credential.0,
    );
    Ok(found.fetch_optional(&mut **transaction).await?.map(AgentId))
}

/// The agent's credential; until the transaction ends nobody else changes it.
pub async fn find_for_change(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent: AgentId,
    credential: CredentialId,
    now: OffsetDateTime,
) -> Result<Option<Credential>, StorageError> {
    sqlx::query!(
        "select from credentials where tenant_id = $1 and agent_id = $2 and credential_id = $3 for no key update",
        tenant.0,
        agent.0,
        credential.0,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    find(transaction, tenant, agent, credential, now).await
}

/// The agent's credential, as it is at `now`.
pub async fn find(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent: AgentId,
    credential: CredentialId,
    now: OffsetDateTime,
) -> Result<Option<Credential>, StorageError> {
    let row = sqlx::query_as!(
        Row,
        r#"select credential_id, agent_id, kind, bcrypt_hash is not null as "is_bcrypt!", name, public_jwk, created_at, updated_at, expires_at,
                  rotated_at, revoked_at, revision,
                  case when status = 'active' and expires_at <= $4 then 'expired' else status end as "status!",
                  case when status = 'active' and previous_until > $4 then previous_until end as previous_until,
                  (select last_used_at from credential_uses u where u.credential_id = c.credential_id) as last_used_at
           from credentials c where tenant_id = $1 and agent_id = $2 and credential_id = $3"#,
        tenant.0,
        agent.0,
        credential.0,
        now,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// A page of the agent's credentials, by when they were made.
pub async fn list(
    transaction: &mut Transaction,
    tenant: TenantId,
    agent: AgentId,
    status: Option<CredentialStatus>,
    page: &Page,
    now: OffsetDateTime,
) -> Result<Listed<Credential>, StorageError> {
    let rows = sqlx::query_as!(
        Row,
        r#"select credential_id, agent_id, kind, bcrypt_hash is not null as "is_bcrypt!", name, public_jwk, created_at, updated_at, expires_at,
                  rotated_at, revoked_at, revision,
                  case when status = 'active' and expires_at <= $3 then 'expired' else status end as "status!",
                  case when status = 'active' and previous_until > $3 then previous_until end as previous_until,
                  (select last_used_at from credential_uses u where u.credential_id = c.credential_id) as last_used_at
           from credentials c
           where tenant_id = $1 and agent_id = $2
           and ($4::text is null or $4 = case when status = 'active' and expires_at <= $3 then 'expired' else status end)
           and ($5::timestamptz is null or (created_at, credential_id) > ($5, $6::uuid))
           order by created_at, credential_id limit $7"#,
        tenant.0,
        agent.0,
        now,
        status.map(CredentialStatus::as_str),
        page.after.map(|after| after.at),
        page.after.map(|after| after.id),
        page.rows(),
    )
    .fetch_all(&mut **transaction)
    .await?;
    let credentials = rows.into_iter().map(Credential::try_from).collect::<Result<Vec<Credential>, _>>()?;
    Ok(page.cut(credentials, |credential| Position {
        at: credential.created_at,
        id: credential.credential_id.0,
    }))
}

/// Gives a credential that is locked its name and its end.
pub async fn update(
    transaction: &mut Transaction,
    tenant: TenantId,
    credential: CredentialId,
    name: Option<&str>,
    expires_at: Option<OffsetDateTime>,
) -> Result<(), StorageError> {
    sqlx::query!(
        "update credentials set name = $3, expires_at = $4, revision = revision + 1, updated_at = now()
         where tenant_id = $1 and credential_id = $2",
        tenant.0,
        credential.0,
        name,
        expires_at,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Puts `verifier` in the place of what a credential, which is locked, was checked against; that is good until `previous_until`, or no more at all.
pub async fn rotate(
    transaction: &mut Transaction,
    tenant: TenantId,
    credential: CredentialId,
    verifier: &Verifier,
    previous_until: Option<OffsetDateTime>,
) -> Result<(), StorageError> {
    let columns = Columns::of(verifier);
    sqlx::query!(
        "update credentials set
             secret_hash = $3, bcrypt_hash = $4, public_jwk = $5, previous_until = $6,
             previous_secret_hash = case when $6::timestamptz is not null then secret_hash end,
             previous_bcrypt_hash = case when $6::timestamptz is not null then bcrypt_hash end,
             previous_public_jwk = case when $6::timestamptz is not null then public_jwk end,
             rotated_at = now(), revision = revision + 1, updated_at = now()
         where tenant_id = $1 and credential_id = $2",
        tenant.0,
        credential.0,
        columns.secret_hash,
        columns.bcrypt_hash,
        columns.public_jwk,
        previous_until,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Ends a credential for ever; of secrets nothing is kept. False where that was done before.
pub async fn revoke(
    transaction: &mut Transaction,
    tenant: TenantId,
    credential: CredentialId,
) -> Result<bool, StorageError> {
    let revoked = sqlx::query!(
        "update credentials set
             status = 'revoked', revoked_at = now(), revision = revision + 1, updated_at = now(), secret_hash = null, bcrypt_hash = null,
             previous_secret_hash = null, previous_bcrypt_hash = null, previous_public_jwk = null, previous_until = null
         where tenant_id = $1 and credential_id = $2 and status = 'active'",
        tenant.0,
        credential.0,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(revoked.rows_affected() == 1)
}

/// Puts the HMAC of a secret in the place of its bcrypt hash, where that is still `imported`; so of two uses at once one does it.
pub async fn upgrade(
    database: &Database,
    tenant: TenantId,
    credential: CredentialId,
    imported: &BcryptHash,
    secret_hash: &[u8],
) -> Result<(), StorageError> {
    sqlx::query!(
        "update credentials set
             secret_hash = case when bcrypt_hash = $3 then $4 else secret_hash end,
             bcrypt_hash = nullif(bcrypt_hash, $3),
             previous_secret_hash = case when previous_bcrypt_hash = $3 then $4 else previous_secret_hash end,
             previous_bcrypt_hash = nullif(previous_bcrypt_hash, $3)
         where tenant_id = $1 and credential_id = $2 and status = 'active' and (bcrypt_hash = $3 or previous_bcrypt_hash = $3)",
        tenant.0,
        credential.0,
        imported.as_str(),
        secret_hash,
    )
    .execute(&database.installation)
    .await?;
    Ok(())
}

struct Row {
    credential_id: Uuid,
    agent_id: Uuid,
    kind: String,
    is_bcrypt: bool,
    name: Option<String>,
    status: String,
    public_jwk: Option<String>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    last_used_at: Option<OffsetDateTime>,
    rotated_at: Option<OffsetDateTime>,
    previous_until: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
    revision: i64,
}

impl TryFrom<Row> for Credential {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        let problem = StorageError::row("credentials", row.credential_id);
        let kind = row.kind.parse().map_err(&problem)?;
        Ok(Self {
            credential_id: CredentialId(row.credential_id),
            agent_id: AgentId(row.agent_id),
            kind: if row.is_bcrypt { CredentialKind::BcryptHash } else { kind },
            name: row.name,
            status: row.status.parse().map_err(&problem)?,
            public_jwk: row.public_jwk,
            created_at: row.created_at,
            updated_at: row.updated_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
            rotated_at: row.rotated_at,
            previous_until: row.previous_until,
            revoked_at: row.revoked_at,
            revision: row.revision,
        })
    }
}
