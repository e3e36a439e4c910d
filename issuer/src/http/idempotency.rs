//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a creating request that is sent again gets the same answer again, and nothing
//! is created twice.
//!
//! The key is claimed and the answer kept in the very transaction that creates: both are there or neither is. So a request that fails keeps
//! nothing, and may be sent again with its key.

use std::ops::{Deref, DerefMut};

use aws_lc_rs::digest::{Context, SHA256};
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use countersign_shared::{AgentId, TenantId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::{ApiError, FieldProblem};
use super::json::{self, Fields};
use crate::app::App;
use crate::keys::envelope;
use crate::management::caller::Caller;
use crate::storage::idempotency::{self, Claim};
use crate::storage::{Database, Transaction};

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// On an answer that was given before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

const MAX_KEY_BYTES: usize = 255;

/// A creating request: its body, and by what it is known again.
pub(super) struct Call {
    key: Option<String>,
    fingerprint: [u8; 32],
    body: Vec<u8>,
}

impl Call {
    /// Reads `request`, whose body must be JSON.
    pub(super) async fn read(request: Request) -> Result<Self, ApiError> {
        let key = key(request.headers())?;
        let mut digest = Context::new(&SHA256);
        for part in [request.method().as_str(), request.uri().path()] {
            digest.update(part.as_bytes());
            digest.update(b"\0"); // stands in neither
        }
        let body = json::read_body(request, &["application/json"]).await?;
        digest.update(&body);
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest.finish().as_ref());
        Ok(Self { key, fingerprint, body })
    }

    /// What it is known again by: with another token that allows other things it is another request, for what the first one was told may not
    /// be for the second.
    fn fingerprint_of(&self, caller: &Caller) -> [u8; 32] {
        let mut digest = Context::new(&SHA256);
        digest.update(&self.fingerprint);
        digest.update(caller.scope().as_bytes());
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest.finish().as_ref());
        fingerprint
    }

    /// The body's members.
    pub(super) fn fields(&self) -> Result<Fields, ApiError> {
        Fields::parse(&self.body)
    }
}

fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let key = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().ok(),
        (Some(_), Some(_)) => None,
    };
    let sound = |key: &&str| {
        (1..=MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    };
    key.filter(sound).map(|key| Some(key.to_owned())).ok_or_else(|| {
        let problem = format!("must come once, with 1 to {MAX_KEY_BYTES} printable ASCII characters");
        ApiError::Validation(vec![FieldProblem { field: "Idempotency-Key".to_owned(), problem }])
    })
}

/// The answer to a creating request: what of it is kept, so that it can be given again byte for byte.
#[derive(Serialize, Deserialize)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    #[serde(skip)]
    replayed: bool,
}

impl Answer {
    /// 201 with `body` as JSON.
    pub(super) fn created(body: &impl Serialize) -> Result<Self, ApiError> {
        let body = serde_json::to_string(body).map_err(|error| ApiError::Internal(error.to_string()))?;
        let status = StatusCode::CREATED.as_u16();
        Ok(Self { status, headers: Vec::new(), body, replayed: false })
    }

    /// 200 with `body` as JSON.
    pub(super) fn ok(body: &impl Serialize) -> Result<Self, ApiError> {
        Ok(Self { status: StatusCode::OK.as_u16(), ..Self::created(body)? })
    }

    /// The same with a header more: `Location`, `ETag`.
    #[must_use]
    pub(super) fn with(mut self, name: &HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name.as_str().to_owned(), value.into()));
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, [(CONTENT_TYPE, "application/json")], self.body).into_response();
        let headers = response.headers_mut();
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
            {
                headers.insert(name, value);
            }
        }
        if self.replayed {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// The transaction that a call is worked on in. A type without a lifetime: with one the compiler can't tell that the work may go from thread to
/// thread.
pub(super) struct Working(Transaction);

impl Deref for Working {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.0
    }
}

impl DerefMut for Working {
    fn deref_mut(&mut self) -> &mut Transaction {
        &mut self.0
    }
}

/// Does `work` in a transaction confined to the caller's tenant, once: a call that was answered before gets that answer.
pub(super) async fn once<W>(app: &App, caller: &Caller, call: &Call, work: W) -> Result<Answer, ApiError>
where
    W: AsyncFnOnce(&mut Working) -> Result<Answer, ApiError>,
{
    let transaction = app.database.begin_as(caller.tenant()).await?;
    once_in(app, transaction, caller, call, work).await
}

/// The same in a transaction that was begun already; it is committed here.
pub(super) async fn once_in<W>(
    app: &App,
    transaction: Transaction,
    caller: &Caller,
    call: &Call,
    work: W,
) -> Result<Answer, ApiError>
where
    W: AsyncFnOnce(&mut Working) -> Result<Answer, ApiError>,
{
    let mut transaction = Working(transaction);
    let (tenant, Some(agent), Some(key)) = (caller.tenant(), caller.agent(), &call.key) else {
        let answer = work(&mut transaction).await?;
        Database::commit(transaction.0).await?;
        return Ok(answer);
    };
    let fingerprint = call.fingerprint_of(caller);
    match idempotency::claim(&mut transaction, tenant, agent, key, &fingerprint).await? {
        Claim::New => {}
        Claim::Answered { fingerprint: first, .. } if first != fingerprint => {
            return Err(ApiError::IdempotencyKeyReused);
        }
        Claim::Answered { sealed, .. } => return open(app, tenant, agent, key, &sealed),
        Claim::Busy => return Err(ApiError::IdempotencyKeyInUse),
    }
    let answer = work(&mut transaction).await?;
    let sealed = seal(app, tenant, agent, key, &answer)?;
    idempotency::complete(&mut transaction, tenant, agent, key, &sealed).await?;
    Database::commit(transaction.0).await?;
    Ok(answer)
}

fn seal(
    app: &App,
    tenant: TenantId,
    agent: AgentId,
    key: &str,
    answer: &Answer,
) -> Result<Vec<u8>, ApiError> {
    let internal =
        |problem: &dyn std::fmt::Display| ApiError::Internal(format!("keeping an answer: {problem}"));
    let plain = serde_json::to_vec(answer).map(Zeroizing::new).map_err(|error| internal(&error))?;
    let id = row_id(tenant, agent, key);
    app.secrets
        .idempotency
        .seal(&context(&id), &plain)
        .map_err(|_| internal(&"the cipher or the source of randomness failed"))
}

fn open(app: &App, tenant: TenantId, agent: AgentId, key: &str, sealed: &[u8]) -> Result<Answer, ApiError> {
    let id = row_id(tenant, agent, key);
    let plain = app.secrets.idempotency.open(&context(&id), sealed);
    let answer = plain.and_then(|plain| serde_json::from_slice::<Answer>(&plain).ok());
    let answer = answer.map(|answer| Answer { replayed: true, ..answer });
    answer.ok_or_else(|| {
        ApiError::Internal("a kept answer in idempotency_keys was changed or moved".to_owned())
    })
}

/// The ids have one length each, so these can't run into each other.
fn row_id(tenant: TenantId, agent: AgentId, key: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("{tenant}/{agent}/{key}"))
}

const fn context(id: &str) -> envelope::Context<'_> {
    envelope::Context { table: "idempotency_keys", purpose: "answer", id }
}
