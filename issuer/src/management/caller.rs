//! Who calls the management API, and what it may do there.

use countersign_shared::{AgentId, TenantId, VerifiedToken};

use super::ManagementError;
use crate::app::App;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::scope::Scopes;
use crate::failures::Concerns;
use crate::tokens::check::{self, Audience, CheckError};

/// An agent with a token for the issuer that holds. All it does stays in its tenant.
pub struct Caller {
    token: VerifiedToken,
    scopes: Scopes,
}

impl Caller {
    /// From the bearer token of a request. One that doesn't hold is written down.
    pub async fn authenticate(
        app: &App,
        token: Option<&str>,
        origin: &Origin,
    ) -> Result<Self, ManagementError> {
        let Some(token) = token else { return Err(ManagementError::Unauthenticated(None)) };
        let (refusal, concerns, event) = match check::verify(app, token, Audience::Issuer).await {
            Ok(token) => {
                let scopes = token.claims().scope.iter().cloned().collect();
                return Ok(Self { token, scopes });
            }
            Err(CheckError::Storage(error)) => return Err(error.into()),
            Err(CheckError::Refused(refusal)) => {
                let event = Event::failed(Action::TokenAuthenticationFailed, refusal.reason(), origin);
                (refusal, Concerns::Nobody, event)
            }
            // Somebody has it who shouldn't: its tenant wants to know.
            Err(CheckError::Ended(refusal, claims)) => {
                let event = Event::failed(Action::TokenAuthenticationFailed, refusal.reason(), origin)
                    .on(TargetType::Token, &claims.jti);
                let event = Event { tenant: Some(claims.tenant), actor: Some(claims.subject), ..event };
                (refusal, Concerns::Known, event)
            }
        };
        app.failures.record(&app.database, concerns, event).await?;
        Err(ManagementError::Unauthenticated(Some(refusal)))
    }

    /// The tenant that the caller is confined to.
    pub fn tenant(&self) -> TenantId {
        self.token.claims().tenant
    }

    /// The caller itself.
    pub fn agent(&self) -> AgentId {
        self.token.claims().subject
    }

    /// Whether the token allows `scope`.
    pub fn require(&self, scope: &'static str) -> Result<(), ManagementError> {
        self.token.require_scopes(&[scope]).map_err(|_| ManagementError::InsufficientScope(scope))
    }

    /// Whether the caller may hand out `scopes`: of management scopes, only its token's own. Otherwise `agents:write` would be as good as any.
    pub fn require_may_grant(&self, scopes: &Scopes) -> Result<(), ManagementError> {
        let beyond = scopes.for_issuer().beyond(&self.scopes);
        if beyond.is_empty() { Ok(()) } else { Err(ManagementError::ScopeEscalation(beyond)) }
    }
}
