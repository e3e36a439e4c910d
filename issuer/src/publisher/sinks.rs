//! Where artifacts go: objects to Workers KV, heads and key statements to the hub; or all of them to a directory ([`super::directory`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use super::artifacts::BaseObject;
use crate::config::{self, Secret};
use crate::domain::publication::Listeners;
use crate::traces;

/// How long storing an object may take: it can have megabytes.
pub(crate) const OBJECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a push to the hub may take. While one hangs no other is sent, and knowledge at the edge grows old.
pub(crate) const PUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Something to deliver.
#[derive(Debug)]
pub(super) enum Artifact {
    /// An immutable object.
    Object(Arc<BaseObject>),
    /// A signed head, and the object that it names where this process has it.
    Head(String, Option<Arc<BaseObject>>),
    /// A signed key statement.
    Keys(String),
}

/// What the place said when it took it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Receipt {
    /// Epoch and version of the key statement that is there. Only heads are answered with it.
    pub(super) keys: Option<(u64, u64)>,
    /// Who listens there. Likewise, and not from every hub.
    pub(super) listeners: Option<Listeners>,
}

/// A place for artifacts.
pub(super) trait Sink: Send + Sync + 'static {
    /// Its name, for logs and `/ready`.
    fn name(&self) -> &'static str;

    /// Delivers `artifact`; whatever arrives twice does no harm.
    fn deliver<'a>(&'a self, artifact: &'a Artifact) -> BoxFuture<'a, Result<Receipt, SinkError>>;

    /// The store whose objects have to be deleted when no head names them any more; `None` where that isn't the publisher's work.
    fn store(&self) -> Option<&dyn ObjectStore> {
        None
    }
}

/// A place that keeps objects until it is told to delete them.
pub(super) trait ObjectStore: Send + Sync {
    /// Tells it from all others.
    fn place(&self) -> &str;

    /// Deletes the objects of these names, at most [`MAX_DELETED`]; returns the names of those that are gone, whether or not they were there.
    fn delete<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<Vec<String>, SinkError>>;
}

/// As many as Workers KV deletes at once.
pub(super) const MAX_DELETED: usize = 10_000;

/// Why a delivery failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SinkError {
    /// Worth trying again: no connection, or an answer other than the expected one.
    Failed(String),
    /// Some of the hubs have taken it. The others have to be told again, and these must not wait for them with what is newer.
    Incomplete(String),
    /// It isn't older than what is there, but names a base that isn't, and that we don't have at hand: nothing was changed.
    Baseless(String),
    /// The hub holds a newer head, or key statement, than this one.
    Superseded {
        /// Of the one it holds.
        epoch: u64,
        /// Of the one it holds; of a key statement, its version.
        seq: u64,
    },
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(cause) | Self::Incomplete(cause) | Self::Baseless(cause) => f.write_str(cause),
            Self::Superseded { epoch, seq } => {
                write!(f, "it holds a newer one (epoch {epoch}, {seq})")
            }
        }
    }
}

/// Workers KV, by `PUT …/values/{key}` and `POST …/bulk/delete` of Cloudflare's REST API.
pub(super) struct KvStore {
    client: Client,
    place: String,
    config: config::KvStore,
}

impl KvStore {
    pub(super) fn new(client: Client, config: &config::KvStore) -> Self {
        Self { client, place: format!("kv {}", config.namespace_id), config: config.clone() }
    }
}

impl Sink for KvStore {
    fn name(&self) -> &'static str {
        "kv"
    }

    fn deliver<'a>(&'a self, artifact: &'a Artifact) -> BoxFuture<'a, Result<Receipt, SinkError>> {
        Box::pin(async move {
            let Artifact::Object(object) = artifact else {
                return Err(SinkError::Failed("only objects go through KV".into()));
            };
            let value = format!("values/{}", object.name().replace('/', "%2F"));
            let request = self.config.request(&self.client, Method::PUT, &value).timeout(OBJECT_TIMEOUT);
            let request = request.header(CONTENT_TYPE, "application/octet-stream");
            send(request.body(object.bytes.clone())).await?;
            Ok(Receipt::default())
        })
    }

    fn store(&self) -> Option<&dyn ObjectStore> {
        Some(self)
    }
}

impl ObjectStore for KvStore {
    fn place(&self) -> &str {
        &self.place
    }

    fn delete<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<Vec<String>, SinkError>> {
        Box::pin(async move {
            let request = self.config.request(&self.client, Method::POST, "bulk/delete").json(names);
            let response = send(request.timeout(OBJECT_TIMEOUT)).await?;
            let answer = response.json::<Deleted>().await.map_err(failed)?;
            let left = answer.result.unsuccessful_keys.unwrap_or_default();
            Ok(names.iter().filter(|name| !left.contains(name)).cloned().collect())
        })
    }
}

/// KV's answer to a deletion, as far as it matters here.
#[derive(Deserialize)]
struct Deleted {
    result: DeletedKeys,
}

#[derive(Deserialize)]
struct DeletedKeys {
    unsuccessful_keys: Option<Vec<String>>,
}

/// One of the two doors of the revocation hub at the edge.
pub(super) struct Hub {
    name: &'static str,
    client: Client,
    url: Url,
    secret: Secret,
}

impl Hub {
    /// The door for heads.
    pub(super) fn heads(client: Client, config: &config::Edge) -> Self {
        Self::new("hub", "head", client, config)
    }

    /// The door for key statements.
    pub(super) fn keys(client: Client, config: &config::Edge) -> Self {
        Self::new("hub_keys", "keys", client, config)
    }

    fn new(name: &'static str, door: &str, client: Client, config: &config::Edge) -> Self {
        let mut url = config.hub_url.clone();
        let path = format!("{}/_countersign/hub/{door}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Self { name, client, url, secret: config.hub_push_secret.clone() }
    }
}

impl Sink for Hub {
    fn name(&self) -> &'static str {
        self.name
    }

    fn deliver<'a>(&'a self, artifact: &'a Artifact) -> BoxFuture<'a, Result<Receipt, SinkError>> {
        Box::pin(async move {
            let (Artifact::Head(jws, _) | Artifact::Keys(jws)) = artifact else {
                return Err(SinkError::Failed("the hub takes no objects".into()));
            };
            let request =
                self.client.put(self.url.clone()).timeout(PUSH_TIMEOUT).bearer_auth(self.secret.expose());
            let request = match traces::traceparent() {
                Some(traceparent) => request.header("traceparent", traceparent),
                None => request,
            };
            let response = send(request.header(CONTENT_TYPE, "application/jose").body(jws.clone())).await?;
            // It is there; what else the answer says is good to know. A hub of before there were key statements says nothing.
            let taken = response.json::<Taken>().await.unwrap_or_default();
            Ok(Receipt {
                keys: taken.keys.map(|keys| (keys.epoch, keys.version)),
                listeners: taken.listeners,
            })
        })
    }
}

/// The hub's answer to a head, as far as it matters here.
#[derive(Default, Deserialize)]
struct Taken {
    keys: Option<KeyPosition>,
    listeners: Option<Listeners>,
}

#[derive(Deserialize)]
struct KeyPosition {
    epoch: u64,
    version: u64,
}

/// The hub's error body, as far as it matters here.
#[derive(Deserialize)]
struct Conflict {
    details: ConflictDetails,
}

#[derive(Deserialize)]
struct ConflictDetails {
    epoch: u64,
    #[serde(alias = "version")]
    seq: u64,
}

/// Without the URL: it is known, and may say more than a log should.
fn failed(error: reqwest::Error) -> SinkError {
    SinkError::Failed(error.without_url().to_string().chars().take(200).collect())
}

async fn send(request: RequestBuilder) -> Result<Response, SinkError> {
    let response = request.send().await.map_err(failed)?;
    match response.status() {
        status if status.is_success() => Ok(response),
        StatusCode::CONFLICT => {
            let Conflict { details } = response.json().await.map_err(failed)?;
            Err(SinkError::Superseded { epoch: details.epoch, seq: details.seq })
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(SinkError::Failed(format!("it refuses our secret ({})", response.status().as_u16())))
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            let said = response.json::<Incomplete>().await.ok().filter(|said| said.code == "HUBS_INCOMPLETE");
            Err(match said {
                Some(Incomplete { details, .. }) if details.failing.len() < details.hubs => {
                    let (failing, hubs) = (details.failing.len(), details.hubs);
                    SinkError::Incomplete(format!("{failing} of {hubs} hubs fail"))
                }
                _ => SinkError::Failed("it answered 503".into()),
            })
        }
        status => Err(SinkError::Failed(format!("it answered {}", status.as_u16()))),
    }
}

/// The edge's answer where some of its hubs fail, as far as it matters here.
#[derive(Deserialize)]
struct Incomplete {
    code: String,
    details: IncompleteDetails,
}

#[derive(Deserialize)]
struct IncompleteDetails {
    hubs: usize,
    failing: Vec<serde::de::IgnoredAny>,
}
