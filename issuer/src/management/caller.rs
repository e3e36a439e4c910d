//! Who acts, and what it may do.

use countersign_shared::{AgentId, TenantId};

use super::ManagementError;
use crate::app::App;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::scope::{AGENTS_READ, PLATFORM, Scopes, TENANTS_WRITE};
use crate::failures::Concerns;
use crate::limits::meter;
use crate::tokens::check::{self, Audience, CheckError};

/// An agent with a token for the issuer that holds, or the operator at the command line. All it does stays in its tenant, but for what
/// platform scopes allow.
pub struct Caller {
    tenant: TenantId,
    authority: Authority,
}

enum Authority {
    /// An agent, with its token's scopes; whether its tenant is the platform's.
    Agent { agent: AgentId, scopes: Scopes, platform: bool },
    /// Who can run this binary with the database's password can do anything.
    Operator,
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
            Ok((token, live)) => {
                let claims = token.claims();
                meter::note_caller(claims.tenant, claims.subject);
                app.limits.from_client(claims.subject, claims.tenant, live.rates).await?;
                let scopes = claims.scope.iter().cloned().collect();
                let authority =
                    Authority::Agent { agent: claims.subject, scopes, platform: live.tenant_is_platform };
                return Ok(Self { tenant: claims.tenant, authority });
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
        app.failures.record(&app.audit, concerns, event).await?;
        Err(ManagementError::Unauthenticated(Some(refusal)))
    }

    /// The operator at the command line, acting in `tenant`.
    pub const fn operator(tenant: TenantId) -> Self {
        Self { tenant, authority: Authority::Operator }
    }

    /// The tenant that the caller is confined to.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The caller itself; `None`: the operator.
    pub const fn agent(&self) -> Option<AgentId> {
        match &self.authority {
            Authority::Agent { agent, .. } => Some(*agent),
            Authority::Operator => None,
        }
    }

    /// The caller acting in `tenant`, as an administrator of it: what `tenants:write` is good for. In its own tenant it is what it is.
    pub fn within(&self, tenant: TenantId) -> Result<Self, ManagementError> {
        self.require(TENANTS_WRITE)?;
        let authority = match &self.authority {
            Authority::Operator => Authority::Operator,
            Authority::Agent { agent, scopes, platform } => {
                let own = tenant == self.tenant;
                let scopes = if own { scopes.clone() } else { Scopes::tenant_administrator() };
                Authority::Agent { agent: *agent, scopes, platform: *platform && own }
            }
        };
        Ok(Self { tenant, authority })
    }

    /// Whether the caller may do what any management scope is enough for.
    pub fn require_any(&self) -> Result<(), ManagementError> {
        match &self.authority {
            Authority::Operator => Ok(()),
            Authority::Agent { scopes, .. } if !scopes.for_issuer().is_empty() => Ok(()),
            Authority::Agent { .. } => Err(ManagementError::InsufficientScope(AGENTS_READ)),
        }
    }

    /// What its token allows; nothing in particular for the operator.
    pub fn scope(&self) -> String {
        match &self.authority {
            Authority::Agent { scopes, .. } => scopes.to_string(),
            Authority::Operator => String::new(),
        }
    }

    /// Whether the caller may do what takes `scope`. A platform scope counts only in the platform's tenant.
    pub fn require(&self, scope: &'static str) -> Result<(), ManagementError> {
        let may = match &self.authority {
            Authority::Operator => true,
            Authority::Agent { scopes, platform, .. } => {
                scopes.contains(scope) && (*platform || !PLATFORM.contains(&scope))
            }
        };
        if may { Ok(()) } else { Err(ManagementError::InsufficientScope(scope)) }
    }

    /// Whether the caller may hand out `scopes`: of management scopes, only its token's own. Otherwise `agents:write` would be as good as any.
    pub fn require_may_grant(&self, scopes: &Scopes) -> Result<(), ManagementError> {
        let Authority::Agent { scopes: own, .. } = &self.authority else { return Ok(()) };
        let beyond = scopes.for_issuer().beyond(own);
        if beyond.is_empty() { Ok(()) } else { Err(ManagementError::ScopeEscalation(beyond)) }
    }
}
