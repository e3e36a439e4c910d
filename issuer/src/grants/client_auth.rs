//! Client authentication: with a secret (RFC 6749 §2.3.1), or with an assertion signed by the client's own key (`private_key_jwt`: RFC 7523 §3,
//! OpenID Connect Core §9).
//!
//! A client that doesn't exist, one that is suspended and a wrong proof are one and the same to the caller: the same answer, and an audit
//! row that says which it was. Their times may differ: a client whose record is in memory is known without a query, and an imported bcrypt hash
//! takes long. Client ids are no secrets, and what a wrong guess tells is only that one exists.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use countersign_shared::assertion::{Assertion, Unverified};
use countersign_shared::{AgentId, CredentialId, Jwk, Signature, UnixTime};
use tracing::Instrument as _;

use super::OauthError;
use super::imported::Busy;
use crate::app::App;
use crate::clients::Known;
use crate::clock;
use crate::config::Secret;
use crate::domain::agent::AgentStatus;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::client_secret::{self, ClientSecret};
use crate::domain::credential::Verifier;
use crate::domain::tenant::TenantStatus;
use crate::failures::Concerns;
use crate::keys::check_signature;
use crate::limits::Attempt;
use crate::metrics;
use crate::storage::clients::{Client, ClientCredential, Tenant};
use crate::storage::{StorageError, credentials, used_assertions};
use crate::traces::step;

/// The longest secret that is looked at, in bytes.
const MAX_SECRET_BYTES: usize = 1024;

/// What a client says about itself, as it came.
#[derive(Debug)]
pub enum Presented {
    /// Its id and its secret.
    Secret {
        /// `client_id`.
        client_id: String,
        /// `client_secret`.
        secret: Secret,
    },
    /// An assertion.
    Assertion {
        /// `client_id`, if it was sent too.
        client_id: Option<String>,
        /// `client_assertion`.
        assertion: Secret,
    },
    /// Nothing that can be read, or of a kind that we don't take.
    Unreadable,
}

/// Where a client authenticates: each endpoint may be the audience of an assertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The token endpoint.
    Token,
    /// Introspection.
    Introspection,
    /// Revocation.
    Revocation,
}

impl Endpoint {
    /// Its paths below `ISSUER_URL`.
    pub const fn paths(self) -> [&'static str; 2] {
        match self {
            Self::Token => ["/oauth2/v1/token", "/api/v1/token"],
            Self::Introspection => ["/oauth2/v1/introspect", "/api/v1/token/introspect"],
            Self::Revocation => ["/oauth2/v1/revoke", "/api/v1/token/revoke"],
        }
    }

    /// What an assertion sent here may name as its audience: the issuer, the token endpoint (RFC 7523 §3), and this one.
    fn audiences(self, issuer: &str) -> Vec<String> {
        let paths = [Self::Token.paths(), self.paths()];
        let endpoints = paths.as_flattened().iter().map(|path| format!("{issuer}{path}"));
        std::iter::once(issuer.to_owned()).chain(endpoints).collect()
    }
}

/// A client that has proved who it is, and with which of its credentials.
pub struct Authenticated {
    /// The client.
    pub client: Arc<Client>,
    /// Its tenant.
    pub tenant: Arc<Tenant>,
    /// The credential that it used.
    pub credential: CredentialId,
    /// What its proof was checked against; of an imported secret what it has become.
    proved_by: Verifier,
    /// When this was so: just before the records were read. Whatever is decided by them is as of then.
    pub at: UnixTime,
    /// Tokens obtained with it that were issued up to this instant are ended; a new one must be issued after.
    pub not_before: Option<UnixTime>,
}

/// Why authentication comes to nothing.
enum Failure {
    /// The proof doesn't hold.
    Refused(Refused),
    /// It doesn't by what is remembered, and whether that still holds can't be found out: a failure like any other, but not answered as one. Somebody may try
    /// secrets while the database has no answers; and somebody who may act again since a moment ago isn't told that they may not.
    Doubted(Refused, OauthError),
    /// It couldn't be checked.
    Unchecked(OauthError),
}

/// What is written down of it.
struct Refused {
    reason: String,
    concerns: Concerns,
    /// The client that it is said to be, as far as that can be read.
    claimed: Option<AgentId>,
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Unchecked(error.into())
    }
}

impl From<Busy> for Failure {
    fn from(busy: Busy) -> Self {
        Self::Unchecked(OauthError::Unavailable(busy.to_string()))
    }
}

/// Finds the client and checks its proof.
pub async fn authenticate(
    app: &App,
    presented: &Presented,
    endpoint: Endpoint,
    origin: &Origin,
) -> Result<Authenticated, OauthError> {
    let now = clock::now();
    let claim = Claim::read(presented);
    let named = match &claim {
        Ok(claim) => Some(claim.client),
        Err(refused) => refused.claimed,
    };
    if let Ok(claim) = &claim
        && let Some(authenticated) = step!("secret verification").in_scope(|| prove_at_once(app, claim, now))
    {
        let Authenticated { client, tenant, .. } = &authenticated;
        let counted =
            app.limits.authenticated_at_once(client.agent_id, client.tenant_id, tenant.rates(), origin);
        counted.instrument(step!("limits")).await?;
        app.uses.note(client.tenant_id, authenticated.credential, now);
        return Ok(authenticated);
    }
    Box::pin(authenticate_in_turn(app, claim, named, presented, endpoint, origin, now)).await
}

/// As [`authenticate`], with the limits asked before the proof is looked at.
async fn authenticate_in_turn(
    app: &App,
    claim: Result<Claim<'_>, Refused>,
    named: Option<AgentId>,
    presented: &Presented,
    endpoint: Endpoint,
    origin: &Origin,
    now: UnixTime,
) -> Result<Authenticated, OauthError> {
    // Who is locked out isn't looked at.
    let attempt = app.limits.before_authentication(named, origin).instrument(step!("limits")).await?;
    let outcome = match claim {
        Ok(claim) => prove(app, claim, presented, endpoint, now).await,
        Err(refused) => Err(Failure::Refused(refused)),
    };
    match outcome {
        Ok(authenticated) => {
            let Authenticated { client, tenant, .. } = &authenticated;
            let counted =
                app.limits.authenticated(&attempt, client.agent_id, client.tenant_id, tenant.rates());
            counted.instrument(step!("limits")).await?;
            app.uses.note(authenticated.client.tenant_id, authenticated.credential, now);
            Ok(authenticated)
        }
        Err(Failure::Refused(refused)) => Err(refuse(app, &attempt, &refused, origin).await),
        Err(Failure::Doubted(refused, doubt)) => match refuse(app, &attempt, &refused, origin).await {
            OauthError::InvalidClient => Err(doubt),
            locked_out_or_unwritten => Err(locked_out_or_unwritten),
        },
        Err(Failure::Unchecked(error)) => Err(error),
    }
}

/// Counts a failure, and writes it down.
async fn refuse(app: &App, attempt: &Attempt, refused: &Refused, origin: &Origin) -> OauthError {
    metrics::authentication_failed();
    // Counted first: of attempts at once those that come too late learn nothing.
    let counted = app.limits.authentication_failed(app, attempt, refused.concerns, origin).await;
    let error = write_down(app, refused, origin).await;
    counted.map_or_else(Into::into, |()| error)
}

/// What is refused is written down first; what can't be written down isn't answered.
async fn write_down(app: &App, refused: &Refused, origin: &Origin) -> OauthError {
    let event = Event::failed(Action::ClientAuthenticationFailed, &refused.reason, origin);
    let event = match refused.claimed {
        Some(agent) => event.on(TargetType::Agent, &agent),
        None => event,
    };
    match app.failures.record(&app.audit, refused.concerns, event).await {
        Ok(()) => OauthError::InvalidClient,
        Err(error) => error.into(),
    }
}

/// Who a client says it is, and how it would prove it.
struct Claim<'p> {
    client: AgentId,
    proof: Proof<'p>,
}

enum Proof<'p> {
    Secret(&'p str),
    /// Parsed, and as it came.
    Assertion(Box<Unverified>, &'p str),
}

impl<'p> Claim<'p> {
    fn read(presented: &'p Presented) -> Result<Self, Refused> {
        let refused = |reason: String, claimed| Refused { reason, concerns: Concerns::Nobody, claimed };
        match presented {
            Presented::Secret { client_id, secret } => {
                let client = client_id.parse().map_err(|_| refused("malformed client_id".into(), None))?;
                let secret = secret.expose();
                if secret.is_empty() || secret.len() > MAX_SECRET_BYTES {
                    return Err(refused("malformed client_secret".into(), Some(client)));
                }
                Ok(Self { client, proof: Proof::Secret(secret) })
            }
            Presented::Assertion { client_id, assertion } => {
                let text = assertion.expose();
                let unverified = Unverified::parse(text.as_bytes())
                    .map_err(|refusal| refused(format!("assertion: {refusal}"), None))?;
                let client = unverified.client();
                if client_id.as_ref().is_some_and(|id| *id != client.to_string()) {
                    return Err(refused("assertion: client_id is another".into(), Some(client)));
                }
                Ok(Self { client, proof: Proof::Assertion(Box::new(unverified), text) })
            }
            Presented::Unreadable => Err(refused("unreadable client authentication".into(), None)),
        }
    }
}

/// As [`prove`], where a hash and what is in memory are enough for it, and it holds. The limits haven't been asked then: with one question fewer that is less
/// work than asking them first would be, and nobody gets to see what came of it before they are.
fn prove_at_once(app: &App, claim: &Claim<'_>, now: UnixTime) -> Option<Authenticated> {
    let Proof::Secret(secret) = claim.proof else { return None };
    ClientSecret::parse(secret).ok()?;
    let (client, tenant) = app.clients.at_hand(claim.client)?;
    let (credential, proved_by) = by_own_secret(app, &client, secret, now);
    let credential = credential?;
    if inactive(&client, &tenant).is_some() {
        return None;
    }
    let not_before = credential.not_before.max(tenant.not_before);
    let credential = credential.credential_id;
    Some(Authenticated { client, tenant, credential, proved_by, at: now, not_before })
}

async fn prove(
    app: &App,
    claim: Claim<'_>,
    presented: &Presented,
    endpoint: Endpoint,
    now: UnixTime,
) -> Result<Authenticated, Failure> {
    let claimed = Some(claim.client);
    let unknown = || {
        let reason = "unknown client".to_owned();
        Failure::Refused(Refused { reason, concerns: Concerns::Nobody, claimed })
    };
    let known = app.clients.known(&app.database, claim.client).instrument(step!("client look-up")).await?;
    let known = known.ok_or_else(unknown)?;
    let outcome = hold_against(app, claim, known.client.clone(), known.tenant.clone(), endpoint, now).await;
    let refused = match outcome {
        Err(Failure::Refused(refused)) => refused,
        outcome => return outcome,
    };
    // Who got a credential a moment ago, or may act again, isn't refused for what isn't true any more.
    match app.clients.news_of(&app.database, &known).await {
        Ok(Some((client, tenant))) => {
            let claim = Claim::read(presented).map_err(Failure::Refused)?;
            hold_against(app, claim, client, tenant, endpoint, now).await
        }
        Ok(None) => Err(Failure::Refused(refused)),
        Err(error) => {
            let reason = format!("{}, by what was remembered", refused.reason);
            Err(Failure::Doubted(Refused { reason, ..refused }, error.into()))
        }
    }
}

/// Whether the claim holds, by these records.
async fn hold_against(
    app: &App,
    claim: Claim<'_>,
    client: Arc<Client>,
    tenant: Arc<Tenant>,
    endpoint: Endpoint,
    now: UnixTime,
) -> Result<Authenticated, Failure> {
    let claimed = Some(claim.client);
    let known = |reason: &str| {
        Failure::Refused(Refused { reason: reason.to_owned(), concerns: Concerns::Known, claimed })
    };
    let (credential, proved_by, assertion) = match claim.proof {
        Proof::Secret(secret) => {
            let found = by_secret(app, &client, secret, now).instrument(step!("secret verification")).await?;
            let (credential, proved_by) = found.ok_or_else(|| {
                let mistyped = ClientSecret::is_mistyped(secret);
                known(if mistyped { "malformed client_secret" } else { "wrong, expired or revoked secret" })
            })?;
            (credential, proved_by, None)
        }
        Proof::Assertion(unverified, text) => {
            let audiences = endpoint.audiences(app.issuer_url.as_str());
            let found = step!("assertion verification")
                .in_scope(|| by_assertion(&client, *unverified, text.as_bytes(), &audiences, now));
            let (credential, key, assertion) =
                found.map_err(|reason| known(&format!("assertion: {reason}")))?;
            (credential, Verifier::Key(Box::new(key.clone())), Some(assertion))
        }
    };
    if let Some(reason) = inactive(&client, &tenant) {
        return Err(known(reason));
    }
    // Last: an assertion that gets nothing isn't used up.
    if let Some(assertion) = assertion
        && !used_assertions::take(&app.database, client.tenant_id, &assertion, now).await?
    {
        return Err(known("assertion: used before"));
    }
    let not_before = credential.not_before.max(tenant.not_before);
    let credential = credential.credential_id;
    Ok(Authenticated { client, tenant, credential, proved_by, at: now, not_before })
}

/// Looks up once more what was known of a client, who needs no other proof: it may have been suspended since, and what it proved itself by
/// revoked or rotated away.
pub async fn look_again(
    app: &App,
    before: &Authenticated,
    origin: &Origin,
) -> Result<Authenticated, OauthError> {
    let at = clock::now();
    let agent = before.client.agent_id;
    let reason = match app.clients.known(&app.database, agent).await? {
        None => "unknown client",
        Some(Known { client, tenant, .. }) => {
            let same = |credential: &&ClientCredential| credential.credential_id == before.credential;
            let credential = client.credentials.iter().find(same);
            let credential = credential
                .filter(|credential| credential.verifiers(at).any(|verifier| *verifier == before.proved_by));
            match (inactive(&client, &tenant), credential) {
                (None, Some(credential)) => {
                    let not_before = credential.not_before.max(tenant.not_before);
                    let (credential, proved_by) = (before.credential, before.proved_by.clone());
                    return Ok(Authenticated { client, tenant, credential, proved_by, at, not_before });
                }
                (Some(reason), _) => reason,
                (None, None) => "wrong, expired or revoked secret",
            }
        }
    };
    let refused = Refused { reason: reason.to_owned(), concerns: Concerns::Known, claimed: Some(agent) };
    Err(write_down(app, &refused, origin).await)
}

/// Why the client may do nothing.
fn inactive(client: &Client, tenant: &Tenant) -> Option<&'static str> {
    match (client.status, tenant.status) {
        (AgentStatus::Active, TenantStatus::Active) => None,
        (AgentStatus::Active, TenantStatus::Suspended | TenantStatus::Decommissioned) => {
            Some("tenant not active")
        }
        (AgentStatus::Suspended | AgentStatus::Decommissioned, _) => Some("agent not active"),
    }
}

/// The credential whose secret this is, and what that is stored as.
async fn by_secret<'c>(
    app: &App,
    client: &'c Client,
    secret: &str,
    now: UnixTime,
) -> Result<Option<(&'c ClientCredential, Verifier)>, Failure> {
    let (found, proved_by) = by_own_secret(app, client, secret, now);
    // What has our form was made here and never imported.
    if found.is_some() || ClientSecret::parse(secret).is_ok() {
        return Ok(found.map(|credential| (credential, proved_by)));
    }

    let (holders, hashes): (Vec<_>, Vec<_>) = each(client, now)
        .filter_map(|(credential, verifier)| match verifier {
            Verifier::Bcrypt(imported) => Some((credential, imported.clone())),
            Verifier::Secret(_) | Verifier::Key(_) => None,
        })
        .unzip();
    if hashes.is_empty() {
        return Ok(None);
    }
    let Some(place) = app.imported.find(client.tenant_id, secret, hashes.clone()).await? else {
        return Ok(None);
    };
    let (credential, imported) = (holders[place], &hashes[place]);
    let hash = client_secret::hash(&app.secrets.pepper, secret);
    credentials::upgrade(&app.database, client.tenant_id, credential.credential_id, imported, hash.as_ref())
        .await?;
    app.clients.agent_changed(client.agent_id);
    Ok(Some((credential, proved_by)))
}

/// The credential that has this secret, and what that is stored as.
fn by_own_secret<'c>(
    app: &App,
    client: &'c Client,
    secret: &str,
    now: UnixTime,
) -> (Option<&'c ClientCredential>, Verifier) {
    let hash = client_secret::hash(&app.secrets.pepper, secret);
    // Every hash is looked at, so that the time doesn't tell which one it was.
    let found = each(client, now).fold(None, |found, (credential, verifier)| {
        let Verifier::Secret(stored) = verifier else { return found };
        let equal = verify_slices_are_equal(stored, hash.as_ref()).is_ok();
        if equal { Some(credential) } else { found }
    });
    (found, Verifier::Secret(hash.as_ref().to_vec()))
}

/// The credential whose key signed the assertion, if that holds; else why not. Whether it was used before is still open.
fn by_assertion<'c>(
    client: &'c Client,
    unverified: Unverified,
    text: &[u8],
    audiences: &[String],
    now: UnixTime,
) -> Result<(&'c ClientCredential, &'c Jwk, Assertion), String> {
    let mut candidates = each(client, now)
        .filter_map(|(credential, verifier)| match verifier {
            Verifier::Key(key) if unverified.may_be_signed_by(key) => Some((credential, &**key)),
            _ => None,
        })
        .peekable();
    if candidates.peek().is_none() {
        return Err("none of the client's keys has its alg and kid".into());
    }
    let signed_with =
        |key: &Jwk| check_signature(key, unverified.signing_input(text), unverified.signature());
    let credential = candidates.find(|(_, key)| signed_with(key) == Signature::Valid);
    let (credential, key) = credential.ok_or("bad signature")?;
    let assertion = unverified.finish(Signature::Valid, audiences, now);
    Ok((credential, key, assertion.map_err(|refusal| refusal.to_string())?))
}

/// What the client could prove itself by now, each with its credential.
fn each(client: &Client, now: UnixTime) -> impl Iterator<Item = (&ClientCredential, &Verifier)> {
    let of = move |credential| {
        ClientCredential::verifiers(credential, now).map(move |verifier| (credential, verifier))
    };
    client.credentials.iter().flat_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audiences_of_an_assertion() {
        let issuer = "https://id.example/x";
        assert_eq!(
            Endpoint::Revocation.audiences(issuer),
            [
                "https://id.example/x",
                "https://id.example/x/oauth2/v1/token",
                "https://id.example/x/api/v1/token",
                "https://id.example/x/oauth2/v1/revoke",
                "https://id.example/x/api/v1/token/revoke",
            ]
        );
    }
}
