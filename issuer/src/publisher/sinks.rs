//! Where artifacts go: objects to Workers KV, heads to the hub.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Deserialize;

use crate::config::{self, Secret};

/// How long storing an object may take: it can have megabytes.
const OBJECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long pushing a head may take. While one hangs no other is sent, and knowledge at the edge grows old.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);

/// Something to deliver.
#[derive(Debug)]
pub(super) enum Artifact {
    /// An immutable object: its name and its bytes.
    Object(String, Vec<u8>),
    /// A signed head.
    Head(String),
}

/// A place for artifacts.
pub(super) trait Sink: Send + Sync + 'static {
    /// Its name, for logs and `/ready`.
    fn name(&self) -> &'static str;

    /// Delivers `artifact`; whatever arrives twice does no harm.
    fn deliver<'a>(&'a self, artifact: &'a Artifact) -> BoxFuture<'a, Result<(), SinkError>>;
}

/// Why a delivery failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SinkError {
    /// Worth trying again: no connection, or an answer other than the expected one.
    Failed(String),
    /// The hub holds a newer head than this one.
    Superseded {
        /// Of the head it holds.
        epoch: u64,
        /// Of the head it holds.
        seq: u64,
    },
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(cause) => f.write_str(cause),
            Self::Superseded { epoch, seq } => {
                write!(f, "it holds the newer head (epoch {epoch}, seq {seq})")
            }
        }
    }
}

/// Workers KV, by `PUT …/values/{key}` of Cloudflare's REST API.
pub(super) struct KvStore {
    client: Client,
    values: String,
    token: Option<Secret>,
}

impl KvStore {
    pub(super) fn new(client: Client, config: &config::KvStore) -> Self {
        let base = config.api_base.as_str().trim_end_matches('/');
        let values = format!("{base}/storage/kv/namespaces/{}/values/", config.namespace_id);
        Self { client, values, token: config.token.clone() }
    }
}

impl Sink for KvStore {
    fn name(&self) -> &'static str {
        "kv"
    }

    fn deliver<'a>(&'a self, artifact: &'a Artifact) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move {
            let Artifact::Object(name, bytes) = artifact else {
                return Err(SinkError::Failed("heads don't go through KV".into()));
            };
            let url = format!("{}{}", self.values, name.replace('/', "%2F"));
            let mut request = self.client.put(url).header(CONTENT_TYPE, "application/octet-stream");
            if let Some(token) = &self.token {
                request = request.bearer_auth(token.expose());
            }
            send(request.timeout(OBJECT_TIMEOUT).body(bytes.clone())).await
        })
    }
}

/// The revocation hub at the edge.
pub(super) struct Hub {
    client: Client,
    url: Url,
    secret: Secret,
}

impl Hub {
    pub(super) fn new(client: Client, config: &config::Publisher) -> Self {
        let mut url = config.hub_url.clone();
        let path = format!("{}/_countersign/hub/head", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Self { client, url, secret: config.hub_push_secret.clone() }
    }
}

impl Sink for Hub {
    fn name(&self) -> &'static str {
        "hub"
    }

    fn deliver<'a>(&'a self, artifact: &'a Artifact) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move {
            let Artifact::Head(jws) = artifact else {
                return Err(SinkError::Failed("the hub takes heads only".into()));
            };
            let request =
                self.client.put(self.url.clone()).timeout(HEAD_TIMEOUT).bearer_auth(self.secret.expose());
            send(request.header(CONTENT_TYPE, "application/jose").body(jws.clone())).await
        })
    }
}

/// The hub's error body, as far as it matters here.
#[derive(Deserialize)]
struct Conflict {
    details: ConflictDetails,
}

#[derive(Deserialize)]
struct ConflictDetails {
    epoch: u64,
    seq: u64,
}

async fn send(request: RequestBuilder) -> Result<(), SinkError> {
    // Without the URL: it is known, and may say more than a log should.
    let failed = |error: reqwest::Error| {
        SinkError::Failed(error.without_url().to_string().chars().take(200).collect())
    };
    let response = request.send().await.map_err(failed)?;
    match response.status() {
        status if status.is_success() => Ok(()),
        StatusCode::CONFLICT => {
            let Conflict { details } = response.json().await.map_err(failed)?;
            Err(SinkError::Superseded { epoch: details.epoch, seq: details.seq })
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(SinkError::Failed(format!("it refuses our secret ({})", response.status().as_u16())))
        }
        status => Err(SinkError::Failed(format!("it answered {}", status.as_u16()))),
    }
}
