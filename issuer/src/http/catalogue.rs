//! Every error code of the API: one place for its status, what it means and what to do about it.
//!
//! `docs/reference/errors.md` is made from this. A code that isn't here can't be answered.

use axum::http::StatusCode;

macro_rules! catalogue {
    (
        $(#[$doc:meta])* enum $name:ident;
        $($code:ident = $word:literal, $status:ident, $meaning:literal, $fix:literal;)+
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $(#[doc = $meaning] $code,)+ }

        impl $name {
            /// All of them, as the reference lists them.
            pub const ALL: &'static [Self] = &[$(Self::$code),+];

            /// As it stands in the answer.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => $word,)+ }
            }

            /// The status of its answers.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$code => StatusCode::$status,)+ }
            }

            /// What happened.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$code => $meaning,)+ }
            }

            /// What the caller can do about it.
            pub const fn fix(self) -> &'static str {
                match self { $(Self::$code => $fix,)+ }
            }
        }
    };
}

catalogue! {
    /// A code in the error envelope.
    enum Code;

    MalformedRequest = "MALFORMED_REQUEST", BAD_REQUEST,
        "The request can't be read: its body isn't a JSON object or didn't arrive whole, an id in its path isn't a UUID, or it has several or no headers `Host`.",
        "Correct what `message` names.";
    ValidationError = "VALIDATION_ERROR", BAD_REQUEST,
        "Fields are unknown, missing or wrong; `details.fields` names all of them.",
        "Correct the named fields.";
    Unauthorized = "UNAUTHORIZED", UNAUTHORIZED,
        "There is no bearer token, or it doesn't hold; with the RFC 6750 challenge.",
        "Get a token for the issuer (`resource` = the issuer's URL) and send it as `Authorization: Bearer`.";
    OperatorTokenRequired = "OPERATOR_TOKEN_REQUIRED", UNAUTHORIZED,
        "The admin listener was asked for more than a probe without its token.",
        "Send `ADMIN_TOKEN` as `Authorization: Bearer`.";
    AccessRefused = "ACCESS_REFUSED", FORBIDDEN,
        "The admin listener was asked by a web page, or `/metrics` by somebody whom `METRICS_GUARD` doesn't let in.",
        "Ask from a program; for `/metrics`, with the header `x-metrics-secret` or from an address in `METRICS_ALLOWED_CIDRS`.";
    InsufficientScope = "INSUFFICIENT_SCOPE", FORBIDDEN,
        "The token lacks the scope in `details.required_scope`.",
        "Ask for a token with that scope; if the agent isn't allowed it, an administrator has to grant it.";
    ScopeEscalation = "SCOPE_ESCALATION", FORBIDDEN,
        "An attempt to hand out management scopes that the caller doesn't hold, or to change an agent that has such (`details.scopes`).",
        "Leave them out, or have a caller do it who holds them.";
    AgentNotFound = "AGENT_NOT_FOUND", NOT_FOUND,
        "The caller's tenant has no such agent.",
        "Check the id, and that the token is one of the agent's tenant.";
    ResourceServerNotFound = "RESOURCE_SERVER_NOT_FOUND", NOT_FOUND,
        "The caller's tenant has no such resource server.",
        "Check the id, and that the token is one of the resource server's tenant.";
    CredentialNotFound = "CREDENTIAL_NOT_FOUND", NOT_FOUND,
        "The caller's tenant has no such credential, or the agent has it not.",
        "Check the id, and that the token is one of the credential's tenant.";
    TokenNotFound = "TOKEN_NOT_FOUND", NOT_FOUND,
        "The token, or the jti, isn't one that was issued to the caller's tenant.",
        "Check it, and that the caller is of the tenant that the token was issued to.";
    TenantNotFound = "TENANT_NOT_FOUND", NOT_FOUND,
        "There is no such tenant.",
        "Check the id.";
    KeyNotFound = "KEY_NOT_FOUND", NOT_FOUND,
        "No signing key of tokens has this kid.",
        "Check it against `/.well-known/jwks.json` or `countersign keys list`.";
    AuditEventNotFound = "AUDIT_EVENT_NOT_FOUND", NOT_FOUND,
        "The caller's tenant has no such audit event, or its time was over.",
        "Check the id; events are kept for `AUDIT_RETENTION_DAYS`.";
    StatusListNotFound = "STATUS_LIST_NOT_FOUND", NOT_FOUND,
        "No token that may be alive refers to a status list at this path.",
        "Use the `uri` that the token has in `status`, or one of those at `/status-lists`.";
    NotFound = "NOT_FOUND", NOT_FOUND,
        "There is nothing at this path.",
        "Check it against the reference.";
    MethodNotAllowed = "METHOD_NOT_ALLOWED", METHOD_NOT_ALLOWED,
        "The path doesn't take this method; the header `Allow` says what it takes.",
        "Use one of those.";
    NotAcceptable = "NOT_ACCEPTABLE", NOT_ACCEPTABLE,
        "The header `Accept` excludes the one form that there is.",
        "Accept `application/statuslist+jwt`.";
    AgentAlreadyExists = "AGENT_ALREADY_EXISTS", CONFLICT,
        "An agent of the tenant has the email already, be it decommissioned.",
        "Use the agent that there is, or another email.";
    CredentialNotActive = "CREDENTIAL_NOT_ACTIVE", CONFLICT,
        "The credential is revoked or has expired, which is final: it can't be changed or rotated.",
        "Make another credential.";
    CredentialLimitReached = "CREDENTIAL_LIMIT_REACHED", CONFLICT,
        "The agent has as many live credentials as it may have, or imported bcrypt hashes that weren't used yet (`details.limit`).",
        "Revoke those that aren't needed.";
    RotationInProgress = "ROTATION_IN_PROGRESS", CONFLICT,
        "The credential was rotated, and what it was before is good until `details.previous_expires_at`.",
        "Wait until then; or send `end_previous: true`, and what it was before ends at once.";
    AgentDecommissioned = "AGENT_DECOMMISSIONED", CONFLICT,
        "The agent is decommissioned, which is final: it can't be changed, suspended or reactivated.",
        "Register another agent.";
    AgentIsCaller = "AGENT_IS_CALLER", CONFLICT,
        "An agent can't suspend or decommission itself, nor change its own scopes: the last administrator would lock its tenant out, and \
         any other could give itself more.",
        "Have another agent do it, or the operator (`countersign agents`).";
    AgentLimitReached = "AGENT_LIMIT_REACHED", CONFLICT,
        "The tenant has as many agents as it may have (`details.max_agents`); decommissioned ones don't count.",
        "Decommission one that isn't needed, or have the platform administrator raise the limit.";
    PlatformScopeReserved = "PLATFORM_SCOPE_RESERVED", CONFLICT,
        "The scopes in `details.scopes` reach beyond one tenant; only agents of the platform's tenant may have them.",
        "Leave them out.";
    IdempotencyKeyInUse = "IDEMPOTENCY_KEY_IN_USE", CONFLICT,
        "Another request with this `Idempotency-Key` is still under way.",
        "Send the request again after `Retry-After` seconds, with the same key.";
    AgentNotActive = "AGENT_NOT_ACTIVE", CONFLICT,
        "The agent is suspended or decommissioned, so it gets no credential.",
        "Reactivate it first; one that was decommissioned stays so.";
    TenantAlreadyExists = "TENANT_ALREADY_EXISTS", CONFLICT,
        "Another tenant has the name, whatever the case of its letters, be it decommissioned.",
        "Use the tenant that there is, or another name.";
    TenantDecommissioned = "TENANT_DECOMMISSIONED", CONFLICT,
        "The tenant was decommissioned: nothing about it changes any more.",
        "Make another tenant.";
    PlatformTenant = "PLATFORM_TENANT", CONFLICT,
        "An attempt to suspend or decommission the platform's own tenant.",
        "Suspend its agents one by one, if that is what is meant.";
    ResourceServerAlreadyExists = "RESOURCE_SERVER_ALREADY_EXISTS", CONFLICT,
        "The identifier, or one that is easily taken for it (case, slashes at the end), is registered, or was once and stays with the tenant that registered it.",
        "Choose another; the operator can release one that was deleted.";
    ResourceServerLimitReached = "RESOURCE_SERVER_LIMIT_REACHED", CONFLICT,
        "The tenant has registered 1,000 identifiers, the deleted ones included.",
        "Have the operator release those that no API takes tokens for any more.";
    PreconditionFailed = "PRECONDITION_FAILED", PRECONDITION_FAILED,
        "What is to be changed isn't in the revision that `If-Match` names: somebody has changed it since.",
        "Read it again, and decide anew with its current `ETag`.";
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", PAYLOAD_TOO_LARGE,
        "The body is over 64 KiB.",
        "Send less.";
    UriTooLong = "URI_TOO_LONG", URI_TOO_LONG,
        "Path and query are over 8 KiB.",
        "Send less; nothing of ours is that long.";
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", UNSUPPORTED_MEDIA_TYPE,
        "The body isn't declared as JSON.",
        "Send `Content-Type: application/json`; with PATCH also `application/merge-patch+json`.";
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", UNPROCESSABLE_ENTITY,
        "The `Idempotency-Key` was used within 24 hours for another request: another method, path or body.",
        "Use a new key for a new request.";
    PreconditionRequired = "PRECONDITION_REQUIRED", PRECONDITION_REQUIRED,
        "The request changes something and has no `If-Match`.",
        "Send the `ETag` of what was read as `If-Match`, or `*` to change it whatever it is by now.";
    RateLimitExceeded = "RATE_LIMIT_EXCEEDED", TOO_MANY_REQUESTS,
        "Too many requests within a minute: of the address, the client, the tenant, or the client at this endpoint (`details.limit_of`).",
        "Try again after `Retry-After` seconds; `RateLimit` and `X-RateLimit-*` of every answer say what is left.";
    ClientLockedOut = "CLIENT_LOCKED_OUT", TOO_MANY_REQUESTS,
        "The client failed to authenticate from this address too often; until `Retry-After` not even the right secret is looked at.",
        "Correct the secret and wait, or have an operator run `countersign unlock`.";
    FreeTierLimitExceeded = "FREE_TIER_LIMIT_EXCEEDED", FORBIDDEN,
        "The tenant has had all its tokens of this month (`details.quota`, `details.used`).",
        "Wait until `details.resets_at`, or have the platform's administrator raise the quota or change the plan.";
    InternalError = "INTERNAL_ERROR", INTERNAL_SERVER_ERROR,
        "Something went wrong on our side; the log has the cause under the request id.",
        "Report it with the `x-request-id` of the answer.";
    HistoryNotKept = "HISTORY_NOT_KEPT", NOT_IMPLEMENTED,
        "A status list was asked for as it was at another `time`.",
        "Ask without `time`.";
    Overloaded = "OVERLOADED", SERVICE_UNAVAILABLE,
        "This issuer has as many requests in the works as it takes (`MAX_REQUESTS`), and too many wait; nothing was done about this one.",
        "Try again after `Retry-After` seconds, and where there are more again after longer.";
    Maintenance = "MAINTENANCE", SERVICE_UNAVAILABLE,
        "The installation is in maintenance, in which nothing is changed, and perhaps no tokens are issued (`details.tokens`); `details.reason` says why.",
        "Try again after `Retry-After` seconds. Revocation goes on, and whatever else ends something.";
    ServiceUnavailable = "SERVICE_UNAVAILABLE", SERVICE_UNAVAILABLE,
        "The database can't be reached, or didn't answer in time.",
        "Try again after `Retry-After` seconds.";
}

// OAuth's own words. Several stand for more than one status; the first one listed is the usual one.
catalogue! {
    /// What stands in `error` of an OAuth endpoint's answer.
    enum OauthCode;

    InvalidRequest = "invalid_request", BAD_REQUEST,
        "A parameter is missing, comes twice or is malformed, or the client authenticates in two ways.",
        "Correct what `error_description` names.";
    UnauthorizedClient = "unauthorized_client", BAD_REQUEST,
        "The client is known and may not do this.",
        "Use a client that may, or have an administrator allow it.";
    UnsupportedGrantType = "unsupported_grant_type", BAD_REQUEST,
        "`grant_type` isn't `client_credentials`.",
        "Send `grant_type=client_credentials`.";
    InvalidScope = "invalid_scope", BAD_REQUEST,
        "A scope is malformed, or the agent isn't allowed it for that audience.",
        "Ask for less, or have an administrator grant it to the agent.";
    InvalidTarget = "invalid_target", BAD_REQUEST,
        "The tenant has no such resource server, or there is more than one `resource` (RFC 8707 §2).",
        "Name one resource server that the tenant has registered.";
    InvalidClient = "invalid_client", UNAUTHORIZED,
        "Client authentication failed; how is never said.",
        "Check id and secret, that the credential is active, and that the agent is.";
    NoSuchEndpoint = "invalid_request", NOT_FOUND,
        "There is no such endpoint.",
        "Check the path against the reference.";
    WrongMethod = "invalid_request", METHOD_NOT_ALLOWED,
        "The endpoint takes another method; the header `Allow` says which.",
        "Use that.";
    TargetTooLong = "invalid_request", URI_TOO_LONG,
        "Path and query are over 8 KiB.",
        "Send parameters in the body.";
    ServerError = "server_error", INTERNAL_SERVER_ERROR,
        "Something went wrong on our side; the log has the cause under the request id.",
        "Report it with the `x-request-id` of the answer.";
    AccessDenied = "access_denied", FORBIDDEN,
        "The tenant has had all its tokens of this month; `code` is `FREE_TIER_LIMIT_EXCEEDED`.",
        "Wait until `details.resets_at`, or have the quota raised.";
    RateLimited = "temporarily_unavailable", TOO_MANY_REQUESTS,
        "Too many requests within a minute; `code` is `RATE_LIMIT_EXCEEDED`.",
        "Try again after `Retry-After` seconds.";
    LockedOut = "invalid_client", TOO_MANY_REQUESTS,
        "The client failed to authenticate from this address too often; `code` is `CLIENT_LOCKED_OUT`.",
        "Correct the secret and wait for `Retry-After` seconds, or have an operator run `countersign unlock`.";
    TemporarilyUnavailable = "temporarily_unavailable", SERVICE_UNAVAILABLE,
        "The database can't be reached, or didn't answer in time; with `code`, too much is in the works (`OVERLOADED`), or there is maintenance (`MAINTENANCE`).",
        "Try again after `Retry-After` seconds.";
}

impl OauthCode {
    /// Whether every OAuth endpoint may answer it.
    pub const fn is_common(self) -> bool {
        matches!(
            self,
            Self::InvalidRequest
                | Self::TargetTooLong
                | Self::InvalidClient
                | Self::RateLimited
                | Self::LockedOut
                | Self::ServerError
                | Self::TemporarilyUnavailable
        )
    }
}

/// `docs/reference/errors.md`.
pub fn page() -> String {
    let codes = Code::ALL.iter().map(|code| (code.as_str(), code.status(), code.meaning(), code.fix()));
    let words = OauthCode::ALL.iter().map(|code| (code.as_str(), code.status(), code.meaning(), code.fix()));
    format!(
        "{PREAMBLE}\n## In the envelope\n\n{ENVELOPE}\n{}\n## At the OAuth endpoints\n\n{OAUTH}\n{}",
        table(codes),
        table(words)
    )
}

fn table<'a>(rows: impl Iterator<Item = (&'a str, StatusCode, &'a str, &'a str)>) -> String {
    let rows = rows.map(|(code, status, meaning, fix)| {
        format!("| `{code}` | {} | {meaning} | {fix} |\n", status.as_u16())
    });
    format!("| code | status | what happened | what to do |\n|---|---|---|---|\n{}", rows.collect::<String>())
}

const PREAMBLE: &str = "\
# Errors

Every code that the issuer's HTTP API answers. Made by `countersign errors --markdown` from `issuer/src/http/catalogue.rs`; a test fails where this page is
not what that prints.
";

const ENVELOPE: &str = "\
Everywhere but at the OAuth endpoints: `{\"code\": \"…\", \"message\": \"…\", \"details\": {…}}`. `code` is stable, `message` is for people, `details` is always an object.
";

const OAUTH: &str = "\
`{\"error\": \"…\", \"error_description\": \"…\"}` (RFC 6749 §5.2), with `code` from the table above where OAuth has no word for what happened.
";
