//! Where revocations are published.

use std::path::PathBuf;

use reqwest::{Client, Method, RequestBuilder, Url};

use super::secret::Secret;
use super::sources::Reader;
use super::values::{Environment, is_loopback};

/// Where artifacts go.
#[derive(Debug)]
pub enum Publisher {
    /// To the edge on Cloudflare; to a directory on this machine, too, if there is one.
    Edge(Box<Edge>, Option<PathBuf>),
    /// To a directory alone.
    Directory(PathBuf),
}

/// The edge's two doors: objects go to Workers KV, heads to the hub. Neither is of use without the other.
#[derive(Debug)]
pub struct Edge {
    /// Base URL of the edge.
    pub hub_url: Url,
    /// What the hub knows the issuer by.
    pub hub_push_secret: Secret,
    /// The object store.
    pub kv: KvStore,
}

/// Workers KV, by Cloudflare's REST API.
#[derive(Debug, Clone)]
pub struct KvStore {
    /// Everything before `/storage/kv/namespaces/…`.
    pub api_base: Url,
    /// The namespace's id.
    pub namespace_id: String,
    /// Absent in development, where wrangler's local API asks for none.
    pub token: Option<Secret>,
}

impl KvStore {
    /// A request about the namespace; `what` is the rest of its path, already escaped: `values/…`, `bulk/delete`.
    pub fn request(&self, client: &Client, method: Method, what: &str) -> RequestBuilder {
        let Self { api_base, namespace_id, token } = self;
        let base = api_base.as_str().trim_end_matches('/');
        let request = client.request(method, format!("{base}/storage/kv/namespaces/{namespace_id}/{what}"));
        match token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }
}

const CLOUDFLARE: &str = "https://api.cloudflare.com/client/v4/accounts/";

impl Publisher {
    pub(super) fn read(reader: &mut Reader<'_>, environment: Environment) -> Option<Self> {
        let edge = Edge::read(reader, environment);
        let directory = reader.text("PUBLISHER_DIRECTORY").map(PathBuf::from);
        let directory = directory.filter(|path| {
            if !path.is_absolute() {
                reader.problem("PUBLISHER_DIRECTORY must be an absolute path");
            }
            path.is_absolute()
        });
        match (edge, directory) {
            (Some(edge), directory) => Some(Self::Edge(Box::new(edge), directory)),
            (None, directory) => directory.map(Self::Directory),
        }
    }
}

impl Edge {
    fn read(reader: &mut Reader<'_>, environment: Environment) -> Option<Self> {
        let named = ["HUB_URL", "KV_NAMESPACE_ID", "KV_API_BASE", "KV_ACCOUNT_ID"];
        named.iter().find(|name| reader.text(name).is_some())?;

        let hub_url = reader.required("HUB_URL", "set it to the base URL of the edge verifier");
        let hub_url = hub_url.and_then(|text| url(reader, environment, "HUB_URL", text));
        let hub_push_secret =
            reader.required_secret("HUB_PUSH_SECRET", "set it to the edge verifier's HUB_PUSH_SECRET");
        let namespace_id = reader.required("KV_NAMESPACE_ID", "set it to the id of the KV namespace");
        let token = reader.secret("KV_API_TOKEN");
        let api_base = match (reader.text("KV_API_BASE"), reader.text("KV_ACCOUNT_ID")) {
            (Some(base), _) => url(reader, environment, "KV_API_BASE", base),
            (None, Some(account)) => {
                if token.is_none() {
                    reader.problem(
                        "KV_API_TOKEN environment variable is required with KV_ACCOUNT_ID: \
                         set it to an API token that may write Workers KV",
                    );
                }
                url(reader, environment, "KV_ACCOUNT_ID", &format!("{CLOUDFLARE}{account}"))
            }
            (None, None) => {
                reader.problem(
                    "KV_ACCOUNT_ID environment variable is required: set it to the Cloudflare account \
                     (or KV_API_BASE to the base URL of another KV API)",
                );
                None
            }
        };
        let namespace_id = namespace_id.filter(|id| {
            let sound = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
            if !sound {
                reader.problem("KV_NAMESPACE_ID may have letters, digits, `-` and `_` only");
            }
            sound
        })?;
        Some(Self {
            hub_url: hub_url?,
            hub_push_secret: hub_push_secret?,
            kv: KvStore { api_base: api_base?, namespace_id: namespace_id.to_owned(), token },
        })
    }
}

/// A URL that a secret is sent to: https, but for what runs on the same machine or in development.
fn url(reader: &mut Reader<'_>, environment: Environment, name: &str, text: &str) -> Option<Url> {
    let url = text.parse::<Url>().ok().filter(|url| {
        (url.scheme() == "https"
            || url.scheme() == "http" && (environment == Environment::Development || is_loopback(url)))
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if url.is_none() {
        reader.problem(format!(
            "{name} must make an https URL without credentials, query and fragment (http only for localhost, or with \
             COUNTERSIGN_ENV=development)"
        ));
    }
    url
}
