//! Making, rotating, changing and revoking credentials.
//!
//! Who has a credential of an agent is that agent, with all its scopes. So all of this takes what handing out those scopes takes
//! ([`Caller::require_may_grant`]), looking at credentials excepted.

use countersign_shared::revocation::Level;
use countersign_shared::{AgentId, CredentialId, Jwk};
use serde_json::json;
use time::OffsetDateTime;

use super::caller::Caller;
use super::{ManagementError, new_id};
use crate::clock;
use crate::domain::agent::AgentStatus;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::client_secret::{BcryptHash, ClientSecret};
use crate::domain::credential::{
    Credential, CredentialKind, CredentialStatus, MAX_LIVE, MAX_LIVE_BCRYPT, Verifier,
};
use crate::domain::page::{Listed, Page};
use crate::domain::revision::Expected;
use crate::keys::ServerSecrets;
use crate::storage::credentials::{self, NewCredential};
use crate::storage::{Transaction, agents, audit, not_before};

/// What a new credential is made of.
#[derive(Debug)]
pub enum Material {
    /// A secret that is made now.
    Generated,
    /// A public key.
    Key(Box<Jwk>),
    /// The hash of a secret that another system made.
    Imported(BcryptHash),
}

/// A credential to be made.
#[derive(Debug)]
pub struct New {
    /// Of what.
    pub material: Material,
    /// What its owner calls it.
    pub name: Option<String>,
    /// Until when it is good.
    pub expires_at: Option<OffsetDateTime>,
}

/// A credential, and the secret that was made for it: here and nowhere else.
pub struct Made {
    /// The credential.
    pub credential: Credential,
    /// Its secret; `None`: the issuer doesn't know it.
    pub secret: Option<ClientSecret>,
}

/// What to change; `None` leaves it as it is, `Some(None)` takes it away.
#[derive(Debug, Default)]
pub struct Patch {
    /// What its owner calls it.
    pub name: Option<Option<String>>,
    /// Until when it is good.
    pub expires_at: Option<Option<OffsetDateTime>>,
}

/// How to rotate.
#[derive(Debug)]
pub struct Rotation {
    /// How long what was good before is good too, in seconds.
    pub overlap_seconds: u32,
    /// Whether, of a rotation that is still under way, the older secret ends now.
    pub end_previous: bool,
    /// The new key; for public keys only.
    pub key: Option<Box<Jwk>>,
}

/// Makes a client secret for an agent of the caller's tenant.
pub async fn create(
    transaction: &mut Transaction,
    secrets: &ServerSecrets,
    caller: &Caller,
    agent: AgentId,
    expires_at: Option<OffsetDateTime>,
    origin: &Origin,
) -> Result<(Credential, ClientSecret), ManagementError> {
    let new = New { material: Material::Generated, name: None, expires_at };
    let Made { credential, secret } = add(transaction, secrets, caller, agent, &new, origin).await?;
    Ok((credential, secret.ok_or(ManagementError::Randomness)?))
}

/// Makes a credential for an agent of the caller's tenant.
pub async fn add(
    transaction: &mut Transaction,
    secrets: &ServerSecrets,
    caller: &Caller,
    agent: AgentId,
    new: &New,
    origin: &Origin,
) -> Result<Made, ManagementError> {
    let (tenant, now) = (caller.tenant(), clock::timestamp(clock::now()));
    let credential = CredentialId(new_id()?);
    // Locked, so that two at once don't both find room for one more.
    let found = agents::find_for_change(transaction, tenant, agent).await?;
    let found = found.ok_or(ManagementError::AgentNotFound)?;
    caller.require_may_grant(&found.profile.scopes)?;
    if found.status != AgentStatus::Active {
        return Err(ManagementError::AgentNotActive);
    }
    let count = credentials::count_live(transaction, tenant, agent, now).await?;
    let is_bcrypt = matches!(new.material, Material::Imported(_));
    for (reached, limit) in
        [(count.live >= MAX_LIVE, MAX_LIVE), (is_bcrypt && count.bcrypt >= MAX_LIVE_BCRYPT, MAX_LIVE_BCRYPT)]
    {
        if reached {
            return Err(ManagementError::CredentialLimitReached(limit));
        }
    }

    let (verifier, secret) = match &new.material {
        Material::Generated => generate(secrets)?,
        Material::Key(key) => (Verifier::Key(key.clone()), None),
        Material::Imported(hash) => (Verifier::Bcrypt(hash.clone()), None),
    };
    let (name, expires_at) = (new.name.as_deref(), new.expires_at);
    let added = NewCredential { tenant, agent, credential, verifier: &verifier, name, expires_at };
    credentials::add(transaction, &added).await?;
    let event = Event::done(tenant, caller.agent(), Action::CredentialCreated, origin)
        .on(TargetType::Credential, &credential)
        .with(json!({ "agent_id": agent, "kind": verifier.kind().as_str() }));
    audit::record_in(transaction, &event).await?;
    Ok(Made { credential: find_one(transaction, caller, agent, credential).await?, secret })
}

/// A credential of an agent of the caller's tenant.
pub async fn find(
    transaction: &mut Transaction,
    caller: &Caller,
    agent: AgentId,
    credential: CredentialId,
) -> Result<Credential, ManagementError> {
    let found = agents::find(transaction, caller.tenant(), agent).await?;
    found.ok_or(ManagementError::AgentNotFound)?;
    find_one(transaction, caller, agent, credential).await
}

/// A page of the credentials of an agent of the caller's tenant, by when they were made.
pub async fn list(
    transaction: &mut Transaction,
    caller: &Caller,
    agent: AgentId,
    status: Option<CredentialStatus>,
    page: &Page,
) -> Result<Listed<Credential>, ManagementError> {
    let found = agents::find(transaction, caller.tenant(), agent).await?;
    found.ok_or(ManagementError::AgentNotFound)?;
    let now = clock::timestamp(clock::now());
    Ok(credentials::list(transaction, caller.tenant(), agent, status, page, now).await?)
}

/// Changes a live credential that is in the `expected` revision. Where nothing would be different nothing is written.
pub async fn update(
    transaction: &mut Transaction,
    caller: &Caller,
    agent: AgentId,
    credential: CredentialId,
    patch: &Patch,
    expected: &Expected,
    origin: &Origin,
) -> Result<Credential, ManagementError> {
    let (found, _) = find_for_change(transaction, caller, agent, credential, Some(expected)).await?;
    if found.status != CredentialStatus::Active {
        return Err(ManagementError::CredentialNotActive);
    }
    let name = patch.name.as_ref().unwrap_or(&found.name);
    let expires_at = patch.expires_at.unwrap_or(found.expires_at);
    let mut differences = Vec::new();
    if *name != found.name {
        differences.push("name");
    }
    if expires_at != found.expires_at {
        differences.push("expires_at");
    }
    if differences.is_empty() {
        return Ok(found);
    }
    credentials::update(transaction, caller.tenant(), credential, name.as_deref(), expires_at).await?;
    let event = Event::done(caller.tenant(), caller.agent(), Action::CredentialUpdated, origin)
        .on(TargetType::Credential, &credential)
        .with(json!({ "agent_id": agent, "fields": differences }));
    audit::record_in(transaction, &event).await?;
    find_one(transaction, caller, agent, credential).await
}

/// Gives a live credential a new secret or key. The old one is good for the overlap; so at most two are, and while they are
/// only a rotation that ends the older of them is taken. Tokens stay as they are: they end with the credential.
pub async fn rotate(
    transaction: &mut Transaction,
    secrets: &ServerSecrets,
    caller: &Caller,
    agent: AgentId,
    credential: CredentialId,
    rotation: &Rotation,
    origin: &Origin,
) -> Result<Made, ManagementError> {
    let (found, agent_status) = find_for_change(transaction, caller, agent, credential, None).await?;
    if found.status != CredentialStatus::Active {
        return Err(ManagementError::CredentialNotActive);
    }
    if agent_status != AgentStatus::Active {
        return Err(ManagementError::AgentNotActive);
    }
    if let Some(until) = found.previous_until
        && !rotation.end_previous
    {
        return Err(ManagementError::RotationInProgress(until));
    }
    let (verifier, secret) = match (found.kind, &rotation.key) {
        (CredentialKind::ClientSecret | CredentialKind::BcryptHash, None) => generate(secrets)?,
        (CredentialKind::PublicKey, Some(key)) => (Verifier::Key(key.clone()), None),
        (CredentialKind::PublicKey, None) => {
            let problem = "is required: the credential is a public key";
            return Err(ManagementError::Field { field: "public_jwk", problem });
        }
        (_, Some(_)) => {
            let problem = "is not a field of this request: the credential is a client secret";
            return Err(ManagementError::Field { field: "public_jwk", problem });
        }
    };
    let overlap = i64::from(rotation.overlap_seconds);
    let previous_until = (overlap > 0).then(|| clock::timestamp(clock::now().plus(overlap)));
    credentials::rotate(transaction, caller.tenant(), credential, &verifier, previous_until).await?;
    let event = Event::done(caller.tenant(), caller.agent(), Action::CredentialRotated, origin)
        .on(TargetType::Credential, &credential)
        .with(json!({ "agent_id": agent, "overlap_seconds": overlap, "ended_previous": found.previous_until.is_some() }));
    audit::record_in(transaction, &event).await?;
    Ok(Made { credential: find_one(transaction, caller, agent, credential).await?, secret })
}

/// Ends a credential for ever, and every token obtained with it: those too that another replica issues before it has heard of it. Where that was done
/// before nothing happens.
pub async fn revoke(
    transaction: &mut Transaction,
    caller: &Caller,
    agent: AgentId,
    credential: CredentialId,
    expected: Option<&Expected>,
    origin: &Origin,
) -> Result<Credential, ManagementError> {
    let (found, _) = find_for_change(transaction, caller, agent, credential, expected).await?;
    if !credentials::revoke(transaction, caller.tenant(), credential).await? {
        return Ok(found);
    }
    let subject = credential.0.as_bytes();
    not_before::end_with_holder(transaction, caller.tenant(), Level::Credential, subject).await?;
    let event = Event::done(caller.tenant(), caller.agent(), Action::CredentialRevoked, origin)
        .on(TargetType::Credential, &credential)
        .with(json!({ "agent_id": agent }));
    audit::record_in(transaction, &event).await?;
    find_one(transaction, caller, agent, credential).await
}

fn generate(secrets: &ServerSecrets) -> Result<(Verifier, Option<ClientSecret>), ManagementError> {
    let secret = ClientSecret::generate()?;
    Ok((Verifier::Secret(secret.hash(&secrets.pepper).as_ref().to_owned()), Some(secret)))
}

async fn find_one(
    transaction: &mut Transaction,
    caller: &Caller,
    agent: AgentId,
    credential: CredentialId,
) -> Result<Credential, ManagementError> {
    let now = clock::timestamp(clock::now());
    let found = credentials::find(transaction, caller.tenant(), agent, credential, now).await?;
    found.ok_or(ManagementError::CredentialNotFound)
}

/// The credential, locked, if the caller may change it and it is in the revision that the caller expects; and its agent's status, which stays
/// as it is meanwhile.
async fn find_for_change(
    transaction: &mut Transaction,
    caller: &Caller,
    agent: AgentId,
    credential: CredentialId,
    expected: Option<&Expected>,
) -> Result<(Credential, AgentStatus), ManagementError> {
    let tenant = caller.tenant();
    let owner = agents::find_locked(transaction, tenant, agent).await?;
    let owner = owner.ok_or(ManagementError::AgentNotFound)?;
    caller.require_may_grant(&owner.profile.scopes)?;
    let now = clock::timestamp(clock::now());
    let found = credentials::find_for_change(transaction, tenant, agent, credential, now).await?;
    let found = found.ok_or(ManagementError::CredentialNotFound)?;
    if expected.is_some_and(|expected| !expected.admits(found.revision)) {
        return Err(ManagementError::PreconditionFailed);
    }
    Ok((found, owner.status))
}
