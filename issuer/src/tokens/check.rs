//! Whether a token holds: the verification core the edge runs too, with the issuer's live state in place of the revoked set.

use std::fmt;

use countersign_shared::verify::{Audiences, AuthenticToken, Policy, Revocation, Revocations};
use countersign_shared::{Claims, Prepared, Refusal, Signature, VerifiedToken, prepare};

use crate::app::App;
use crate::clock;
use crate::keys::check_signature;
use crate::metrics;
use crate::storage::StorageError;
use crate::storage::revocations::LiveState;

/// For whom a token must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// For the issuer's own API.
    Issuer,
    /// For any: introspection is about tokens, it doesn't act on one's authority.
    Any,
}

/// Why a token doesn't pass, or why that isn't known.
#[derive(Debug)]
pub enum CheckError {
    /// It isn't one of ours, or has expired.
    Refused(Refusal),
    /// It is one of ours, and was taken back.
    Ended(Refusal, Box<Claims>),
    /// The database has to be asked, and didn't answer.
    Storage(StorageError),
}

impl From<Refusal> for CheckError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StorageError> for CheckError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) | Self::Ended(refusal, _) => refusal.fmt(f),
            Self::Storage(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CheckError {}

/// Whether we signed `token` for `audience` and it hasn't expired. Whether it was revoked is still open.
pub fn authenticate(app: &App, token: &str, audience: Audience) -> Result<AuthenticToken, Refusal> {
    let issuer = app.issuer_url.as_str().to_owned();
    let mut policy = Policy::new(issuer.clone(), vec![issuer]);
    if audience == Audience::Any {
        policy.audiences = Audiences::Any;
    }
    let (prepared, signature) = check_signature_of(app, token, &policy)?;
    prepared.finish(signature, &policy, clock::now())
}

fn check_signature_of(app: &App, token: &str, policy: &Policy) -> Result<(Prepared, Signature), Refusal> {
    let keys = app.keys.current();
    let keys = &keys.tokens.published.keys;
    let token = token.as_bytes();
    let prepared = prepare(token, keys, policy)?;
    let key = &keys.keys()[prepared.key_index()];
    let signature = app
        .known_signatures
        .check(key, token, || check_signature(key, prepared.signing_input(token), prepared.signature()));
    Ok((prepared, signature))
}

/// The claims of a token that we signed, be it expired or from a fast clock: for taking it back.
pub fn to_be_revoked(app: &App, token: &str) -> Result<Claims, Refusal> {
    let policy = Policy::new(app.issuer_url.as_str().to_owned(), Vec::new());
    let (prepared, signature) = check_signature_of(app, token, &policy)?;
    prepared.signed_claims(signature, &policy)
}

/// Whether `token` holds, all considered, and what the database says of it. To accept it takes the database; to refuse it,
/// where that is away, a mark in the hot state is enough.
pub async fn verify(
    app: &App,
    token: &str,
    audience: Audience,
) -> Result<(VerifiedToken, LiveState), CheckError> {
    let verified = look_at(app, token, audience).await;
    if let Err(CheckError::Refused(refusal) | CheckError::Ended(refusal, _)) = &verified {
        metrics::token_refused(refusal.reason());
    }
    verified
}

async fn look_at(
    app: &App,
    token: &str,
    audience: Audience,
) -> Result<(VerifiedToken, LiveState), CheckError> {
    let authentic = authenticate(app, token, audience)?;
    let claims = authentic.claims();
    let state = match app.live_states.of(claims.into()).await {
        Ok(state) => state,
        Err(_) if app.hot.is_revoked(claims.jti).await == Some(true) => {
            return Err(CheckError::Ended(Refusal::Revoked, Box::new(claims.clone())));
        }
        Err(error) => return Err(error.into()),
    };
    let claims = claims.clone();
    match authentic.against(&state) {
        Ok(token) => Ok((token, state)),
        Err(refusal) => Err(CheckError::Ended(refusal, Box::new(claims))),
    }
}

impl Revocations for LiveState {
    fn verdict(&self, _: &Claims) -> Revocation {
        self.verdict
    }
}
