//! Verification in steps that only go forward: bytes → [`Prepared`] → [`AuthenticToken`] → [`VerifiedToken`].
//!
//! [`prepare`] decides everything that can be decided before the signature is known. The host checks the signature with its
//! own primitive and passes the outcome to [`Prepared::finish`], which looks at the claims. Last comes the question whether the token was
//! revoked. Each step returns the only value from which the next can be taken, so none can be left out.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::claims::Claims;
use crate::jwk::KeySet;
use crate::oauth::BearerError;
use crate::time::UnixTime;
use crate::token::Unverified;

/// The media type of an access token (RFC 9068 §2.1).
pub const TOKEN_TYPE: &str = "at+jwt";

/// What a verifier demands of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The one `iss`, compared byte for byte.
    pub issuer: String,
    /// For whom the token must be.
    pub audiences: Audiences,
    /// By how many seconds `iat` and `nbf` may lie ahead of our clock. `exp` gets none: an expired token has expired.
    pub clock_leeway: i64,
    /// The longest token that is looked at, in bytes.
    pub max_token_bytes: usize,
}

/// For whom a token must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audiences {
    /// `aud` must contain one of these: the identifiers under which this verifier is addressed.
    OneOf(Vec<String>),
    /// Whoever it is for: for the issuer, which answers questions about all the tokens it signed. Nobody may act on such a verdict.
    Any,
}

impl Policy {
    /// Default for [`Self::clock_leeway`], in seconds.
    pub const CLOCK_LEEWAY: i64 = 5;
    /// Default for [`Self::max_token_bytes`].
    pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

    /// The policy of a verifier that is addressed by any of `audiences`, with default bounds.
    pub fn new(issuer: String, audiences: Vec<String>) -> Self {
        let audiences = Audiences::OneOf(audiences);
        Self { issuer, audiences, clock_leeway: Self::CLOCK_LEEWAY, max_token_bytes: Self::MAX_TOKEN_BYTES }
    }
}

/// First step: size, encoding, header, key. Errors are those of [`Refusal`] up to `UnknownKey`.
pub fn prepare(token: &[u8], keys: &KeySet, policy: &Policy) -> Result<Prepared, Refusal> {
    Prepared::parse(token, TOKEN_TYPE, keys, policy.max_token_bytes)
}

/// What an access token is prepared as.
#[derive(Debug)]
pub enum AccessToken {}

/// A token whose signature is the next thing to check.
pub type Prepared = Unverified<AccessToken>;

/// What the host's signature primitive said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// The signature was made by the key at [`Unverified::key_index`] over [`Unverified::signing_input`].
    Valid,
    /// It was not, or the host could not tell.
    Invalid,
}

impl Prepared {
    /// What the issuer once signed, whatever the time, the audience and the leeway: enough to take a token back, never to accept it. A
    /// token must be revocable when some clock is wrong, too.
    pub fn signed_claims(self, signature: Signature, policy: &Policy) -> Result<Claims, Refusal> {
        if signature == Signature::Invalid {
            return Err(Refusal::BadSignature);
        }
        let claims = Claims::parse(&self.payload, self.kid)?;
        if claims.issuer == policy.issuer { Ok(claims) } else { Err(Refusal::WrongIssuer) }
    }

    /// Second step: the claims, against `policy` and the time `now`.
    pub fn finish(
        self,
        signature: Signature,
        policy: &Policy,
        now: UnixTime,
    ) -> Result<AuthenticToken, Refusal> {
        let claims = self.signed_claims(signature, policy)?;
        let is_addressed = match &policy.audiences {
            Audiences::OneOf(own) => claims.audience.iter().any(|audience| own.contains(audience)),
            Audiences::Any => true,
        };
        if !is_addressed {
            return Err(Refusal::WrongAudience);
        }
        let times = Times {
            expires: claims.expires_at,
            issued: Some(claims.issued_at),
            not_before: claims.not_before,
        };
        times.check(policy.clock_leeway, now)?;
        Ok(AuthenticToken(claims))
    }
}

/// When a token is good, by its own account.
pub(crate) struct Times {
    pub(crate) expires: UnixTime,
    pub(crate) issued: Option<UnixTime>,
    pub(crate) not_before: Option<UnixTime>,
}

impl Times {
    /// Against the time `now`; `leeway` is for `iat` and `nbf`.
    #[inline(never)]
    pub(crate) fn check(&self, leeway: i64, now: UnixTime) -> Result<(), Refusal> {
        if self.expires <= now {
            return Err(Refusal::Expired);
        }
        let latest = now.plus(leeway);
        if self.not_before.is_some_and(|not_before| not_before > latest) {
            return Err(Refusal::NotYetValid);
        }
        if self.issued.is_some_and(|issued| issued > latest) {
            return Err(Refusal::IssuedInTheFuture);
        }
        if self.issued.is_some_and(|issued| issued >= self.expires) {
            return Err(Refusal::InvalidClaim("iat"));
        }
        Ok(())
    }
}

/// A token that its issuer signed for us and that hasn't expired. Whether it was revoked is still open.
#[derive(Debug)]
pub struct AuthenticToken(Claims);

/// What a store of revocations says of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// Neither revoked nor superseded.
    Clear,
    /// Its jti is revoked.
    Revoked,
    /// A not-before rule ended it.
    Superseded,
}

/// A store of revocations whose answer is known at once: the edge's set in memory, the issuer's row just read.
pub trait Revocations {
    /// Whether the token with these claims has been taken back.
    fn verdict(&self, claims: &Claims) -> Revocation;
}

const fn require_clear(revocation: Revocation) -> Result<(), Refusal> {
    match revocation {
        Revocation::Clear => Ok(()),
        Revocation::Revoked => Err(Refusal::Revoked),
        Revocation::Superseded => Err(Refusal::Superseded),
    }
}

impl AuthenticToken {
    /// What the token says. It may have been revoked: use this to look that up, not to decide.
    pub const fn claims(&self) -> &Claims {
        &self.0
    }

    /// Third step: revocation.
    pub fn against(self, revocations: &impl Revocations) -> Result<VerifiedToken, Refusal> {
        require_clear(revocations.verdict(&self.0))?;
        Ok(VerifiedToken(self.0))
    }
}

/// A token that holds. Nothing but the steps above can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedToken(Claims);

impl VerifiedToken {
    /// What the token says.
    pub const fn claims(&self) -> &Claims {
        &self.0
    }

    /// Whether the token still holds at `now`, for those who keep it: it hasn't expired ([`Refusal::Expired`]), nor was it taken back meanwhile.
    pub fn recheck(&self, now: UnixTime, revocations: &impl Revocations) -> Result<(), Refusal> {
        if self.0.expires_at <= now {
            return Err(Refusal::Expired);
        }
        require_clear(revocations.verdict(&self.0))
    }

    /// Whether the token's scope has all of `required`; else [`Refusal::InsufficientScope`].
    pub fn require_scopes(&self, required: &[&str]) -> Result<(), Refusal> {
        let held = |scope: &&str| self.0.scope.iter().any(|own| own == scope);
        if required.iter().all(held) { Ok(()) } else { Err(Refusal::InsufficientScope) }
    }
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Longer than the policy's limit.
    TooLarge,
    /// Not a JWS as we take it; names the part.
    Malformed(&'static str),
    /// `alg` isn't on the list.
    UnsupportedAlgorithm,
    /// `typ` isn't that of the expected kind of token.
    WrongType,
    /// `crit` is present.
    CriticalExtension,
    /// `alg` isn't that of the key (RFC 8725 §3.1).
    AlgorithmMismatch,
    /// No key of that `kid` is known.
    UnknownKey,
    /// The signature doesn't hold.
    BadSignature,
    /// A required claim is absent.
    MissingClaim(&'static str),
    /// A claim has the wrong type or value.
    InvalidClaim(&'static str),
    /// `cnf` is there: the token is bound to a key, and no proof of possession is checked (RFC 7800 §3).
    ProofRequired,
    /// `iss` isn't the policy's.
    WrongIssuer,
    /// `aud` has none of the policy's.
    WrongAudience,
    /// `exp` has come.
    Expired,
    /// `nbf` hasn't come.
    NotYetValid,
    /// `iat` lies ahead of our clock.
    IssuedInTheFuture,
    /// The token was revoked.
    Revoked,
    /// Everything of its agent, credential, tenant or key up to its `iat` was ended.
    Superseded,
    /// The token holds, and lacks a scope.
    InsufficientScope,
}

impl Refusal {
    /// A stable word for logs, metrics and test vectors.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed(_) => "malformed",
            Self::UnsupportedAlgorithm => "unsupported_algorithm",
            Self::WrongType => "wrong_type",
            Self::CriticalExtension => "critical_extension",
            Self::AlgorithmMismatch => "algorithm_mismatch",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::MissingClaim(_) => "missing_claim",
            Self::InvalidClaim(_) => "invalid_claim",
            Self::ProofRequired => "proof_required",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::IssuedInTheFuture => "issued_in_the_future",
            Self::Revoked => "revoked",
            Self::Superseded => "superseded",
            Self::InsufficientScope => "insufficient_scope",
        }
    }

    /// One sentence for the client, fit for a quoted string: enough to act on, nothing about our insides.
    pub const fn description(&self) -> &'static str {
        match self {
            Self::TooLarge => "The token is too long",
            Self::Malformed(_) => "The token is malformed",
            Self::UnsupportedAlgorithm | Self::AlgorithmMismatch => "The token's algorithm is not accepted",
            Self::WrongType => "The token is not an access token",
            Self::CriticalExtension => "The token requires an extension that is not supported",
            Self::UnknownKey => "The token's signing key is not known",
            Self::BadSignature => "The token's signature is not valid",
            Self::MissingClaim(_) | Self::InvalidClaim(_) => "The token's claims are not acceptable",
            Self::ProofRequired => "The token is bound to a key, and no proof of possession is taken here",
            Self::WrongIssuer => "The token is from another issuer",
            Self::WrongAudience => "The token is for another audience",
            Self::Expired => "The token has expired",
            Self::NotYetValid | Self::IssuedInTheFuture => "The token is not valid yet",
            Self::Revoked | Self::Superseded => "The token was revoked",
            Self::InsufficientScope => "The token's scope is not sufficient",
        }
    }

    /// The code for the challenge. A token that isn't one is still an *invalid token*: RFC 6750 §3.1 keeps
    /// `invalid_request` for requests that are malformed themselves.
    pub const fn oauth_error(&self) -> BearerError {
        match self {
            Self::InsufficientScope => BearerError::InsufficientScope,
            _ => BearerError::InvalidToken,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(part) => write!(f, "malformed ({part})"),
            Self::MissingClaim(claim) => write!(f, "missing_claim ({claim})"),
            Self::InvalidClaim(claim) => write!(f, "invalid_claim ({claim})"),
            other => f.write_str(other.reason()),
        }
    }
}

impl core::error::Error for Refusal {}
