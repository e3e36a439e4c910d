//! A stand-in for the edge: hub and object store. It believes nothing: each head and key statement is verified as the real hub does it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post, put};
use axum::{Json, response::IntoResponse, response::Response};
use countersign_issuer::keys::check_signature;
use countersign_shared::revocation::{Base, Delta, Head, RevokedSet, hex};
use countersign_shared::{Jti, KeySet, KeyStatement};
use serde_json::{Value, json};

use super::cli::Cli;
use super::{ISSUER, Issuer, TestDatabase, eventually};

pub(crate) const PUSH_SECRET: &str = "the-hub-s-push-secret";
pub(crate) const KV_TOKEN: &str = "the-kv-api-token";

/// How a door of the edge answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Fine,
    Failing,
    /// Takes the request and doesn't answer for a while.
    Slow,
    /// Holds a head of this seq, newer than what comes.
    Ahead(u64),
}

/// A head as it was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) head: Head,
    pub(crate) at: Instant,
}

#[derive(Default)]
struct Store {
    heads: Vec<Received>,
    objects: BTreeMap<String, Vec<u8>>,
    keys: Vec<KeyStatement>,
    hub: Option<Mood>,
    kv: Option<Mood>,
    attempts: u32,
    complaints: Vec<String>,
    /// `traceparent` of the pushes.
    parents: Vec<String>,
    forgot: bool,
    listeners: Option<Value>,
    /// In seconds, for what counts time: a test can't wait for hours.
    later: i64,
}

#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) url: String,
    keys: Arc<KeySet>,
    store: Arc<Mutex<Store>>,
}

/// The edge, and an issuer that publishes to it; a head is there.
pub(crate) async fn with_issuer() -> (Edge, Issuer) {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let edge = Edge::start(&database.url).await;
    let issuer = Issuer::start_on(database.into(), administrator, |cli| edge.configure(cli)).await;
    eventually("a first head", 5, async || edge.revoked_set()).await;
    (edge, issuer)
}

impl Edge {
    /// Knows the revocation keys of the database at `database_url`.
    pub(crate) async fn start(database_url: &str) -> Self {
        let keys = revocation_keys(database_url);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let edge = Self { url, keys: Arc::new(keys), store: Arc::default() };
        let router = Router::new()
            .route("/_countersign/hub/head", put(hub))
            .route("/_countersign/hub/keys", put(hub_keys))
            .route("/_countersign/health", get(health))
            .route("/kv/storage/kv/namespaces/{namespace}/values/{key}", put(kv).get(kv_get))
            .layer(DefaultBodyLimit::max(25 * 1024 * 1024)) // KV's
            .route("/kv/storage/kv/namespaces/{namespace}/bulk/delete", post(kv_delete))
            .with_state(edge.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        edge
    }

    /// Settings by which an issuer publishes here.
    pub(crate) fn configure(&self, cli: Cli) -> Cli {
        cli.env("HUB_URL", &self.url)
            .env("HUB_PUSH_SECRET", PUSH_SECRET)
            .env("KV_API_BASE", &format!("{}/kv", self.url))
            .env("KV_NAMESPACE_ID", "namespace")
            .env("KV_API_TOKEN", KV_TOKEN)
    }

    fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    pub(crate) fn set_hub(&self, mood: Mood) {
        self.store().hub = Some(mood);
    }

    pub(crate) fn set_kv(&self, mood: Mood) {
        self.store().kv = Some(mood);
    }

    /// What the hub says of its listeners from now on: how many, and what all of them have been sent.
    pub(crate) fn set_listeners(&self, count: u64, (epoch, seq): (u64, u64)) {
        self.store().listeners = Some(json!({ "count": count, "epoch": epoch, "seq": seq }));
    }

    /// Takes it for so many seconds later where it is about deleting objects.
    pub(crate) fn pretend_later(&self, seconds: i64) {
        self.store().later = seconds;
    }

    /// The names of all objects in the store.
    pub(crate) fn objects(&self) -> Vec<String> {
        self.store().objects.keys().cloned().collect()
    }

    /// How long an object is.
    #[cfg(feature = "measurements")]
    pub(crate) fn object_bytes(&self, name: &str) -> usize {
        self.store().objects[name].len()
    }

    /// `traceparent` of each push of a head that had one.
    pub(crate) fn parents(&self) -> Vec<String> {
        self.store().parents.clone()
    }

    /// The hub's heads, oldest first.
    pub(crate) fn heads(&self) -> Vec<Received> {
        self.store().heads.clone()
    }

    /// The hub's key statements, oldest first.
    pub(crate) fn keys(&self) -> Vec<KeyStatement> {
        self.store().keys.clone()
    }

    /// Loses all key statements.
    pub(crate) fn forget_keys(&self) {
        self.store().keys.clear();
    }

    /// How many heads and objects came, or tried to.
    pub(crate) fn attempts(&self) -> u32 {
        self.store().attempts
    }

    /// Loses all objects.
    pub(crate) fn forget_objects(&self) {
        let mut store = self.store();
        store.objects.clear();
        store.forgot = true;
    }

    /// What an isolate would know now: the set of the newest head; `None` while there is none, or its base isn't there.
    pub(crate) fn revoked_set(&self) -> Option<RevokedSet> {
        let store = self.store();
        let head = &store.heads.last()?.head;
        let bytes = store.objects.get(&format!("base/{}", hex(&head.base)))?;
        let base = Base::parse(bytes, &sha256(bytes), &head.base).unwrap();
        Some(RevokedSet::new(base, Delta::parse(&head.delta).unwrap()))
    }

    /// Waits until the edge refuses the token with this jti; how long that took.
    pub(crate) async fn refuses(&self, jti: Jti) -> Duration {
        let started = Instant::now();
        eventually("the edge knows the revocation", 15, async || {
            self.revoked_set().filter(|set| set.contains(jti.coordinate()))
        })
        .await;
        self.expect_sound();
        started.elapsed()
    }

    /// That nothing came which the real edge would have refused.
    pub(crate) fn expect_sound(&self) {
        assert_eq!(self.store().complaints, Vec::<String>::new());
    }
}

/// The keys of heads of the database at `database_url`.
pub(crate) fn revocation_keys(database_url: &str) -> KeySet {
    let exported = Cli::new(database_url).run(&["keys", "export-public", "--purpose", "revocation"]);
    KeySet::parse(exported.expect_success().as_bytes()).unwrap()
}

/// What a verifier reads that has nothing but the directory; `None` while not all of it is there.
pub(crate) fn read_directory(directory: &std::path::Path, keys: &KeySet) -> Option<(Head, RevokedSet)> {
    let head = verify(keys, &std::fs::read_to_string(directory.join("head.jwt")).ok()?).unwrap();
    let bytes = std::fs::read(directory.join("base").join(hex(&head.base))).unwrap();
    let base = Base::parse(&bytes, &sha256(&bytes), &head.base).unwrap();
    let delta = Delta::parse(&head.delta).unwrap();
    let statement = std::fs::read_to_string(directory.join("keys.jwt")).ok()?;
    verify_keys(keys, &statement).unwrap();
    Some((head, RevokedSet::new(base, delta)))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().try_into().unwrap()
}

async fn mood(mood: Option<Mood>) -> Option<Response> {
    match mood {
        None | Some(Mood::Fine) => None,
        Some(Mood::Failing) => Some(StatusCode::INTERNAL_SERVER_ERROR.into_response()),
        Some(Mood::Slow) => {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Some(StatusCode::GATEWAY_TIMEOUT.into_response())
        }
        Some(Mood::Ahead(seq)) => {
            let body = json!({ "code": "OLDER_HEAD", "message": "", "details": { "epoch": 1, "seq": seq } });
            Some((StatusCode::CONFLICT, Json(body)).into_response())
        }
    }
}

async fn hub(State(edge): State<Edge>, headers: HeaderMap, body: String) -> Response {
    if let Some(parent) = headers.get("traceparent") {
        edge.store().parents.push(parent.to_str().unwrap().to_owned());
    }
    let now = {
        let mut store = edge.store();
        store.attempts += 1;
        store.hub
    };
    if let Some(answer) = mood(now).await {
        return answer;
    }
    let mut store = edge.store();
    if headers["authorization"] != format!("Bearer {PUSH_SECRET}") {
        store.complaints.push("a wrong push secret".into());
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let head = match verify(&edge.keys, &body) {
        Ok(head) => head,
        Err(complaint) => {
            store.complaints.push(complaint);
            return StatusCode::BAD_REQUEST.into_response();
        }
    };
    if headers["content-type"] != "application/jose" {
        store.complaints.push("a wrong content type".into());
    }
    if head.fresh_until.0 <= head.as_of.0 {
        store.complaints.push("a head that is never fresh".into());
    }
    if !store.forgot && !store.objects.contains_key(&format!("base/{}", hex(&head.base))) {
        store.complaints.push("a head whose base isn't stored".into());
    }
    let last = store.heads.last().map(|received| received.head.clone());
    if let Some(last) = last {
        if (head.position(), head.as_of) < (last.position(), last.as_of) {
            store.complaints.push(format!("{:?} after {:?}", head.position(), last.position()));
        }
        let content = |head: &Head| (head.base, head.delta.clone());
        if head.position() == last.position() && content(&head) != content(&last) {
            store.complaints.push(format!("two contents for {:?}", head.position()));
        }
    }
    let keys = store.keys.last().map(|keys| json!({ "epoch": keys.epoch, "version": keys.version }));
    let mut position = json!({ "epoch": head.epoch, "seq": head.seq, "keys": keys });
    if let Some(listeners) = &store.listeners {
        position["listeners"] = listeners.clone();
    }
    store.heads.push(Received { head, at: Instant::now() });
    Json(position).into_response()
}

/// As an isolate answers that goes by the newest head.
async fn health(State(edge): State<Edge>) -> Response {
    let store = edge.store();
    match (store.heads.last(), store.hub) {
        (Some(newest), None | Some(Mood::Fine)) => {
            let (epoch, seq) = newest.head.position();
            let age = u64::try_from(newest.at.elapsed().as_millis()).unwrap();
            let known = json!({ "epoch": epoch, "seq": seq, "age_ms": age });
            Json(json!({ "status": "ok", "keys": "loaded", "revocations": known })).into_response()
        }
        _ => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "stale", "revocations": null })))
            .into_response(),
    }
}

async fn kv_get(
    State(edge): State<Edge>,
    Path((_, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let store = edge.store();
    if headers["authorization"] != format!("Bearer {KV_TOKEN}") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    store
        .objects
        .get(&key)
        .map_or(StatusCode::NOT_FOUND.into_response(), |object| object.clone().into_response())
}

async fn hub_keys(State(edge): State<Edge>, headers: HeaderMap, body: String) -> Response {
    let now = edge.store().hub;
    if let Some(answer) = mood(now.filter(|mood| !matches!(mood, Mood::Ahead(_)))).await {
        return answer;
    }
    let mut store = edge.store();
    if headers["authorization"] != format!("Bearer {PUSH_SECRET}") {
        store.complaints.push("a wrong push secret".into());
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let statement = match verify_keys(&edge.keys, &body) {
        Ok(statement) => statement,
        Err(complaint) => {
            store.complaints.push(complaint);
            return StatusCode::BAD_REQUEST.into_response();
        }
    };
    let (epoch, version) = statement.position();
    if let Some(held) = store.keys.last().cloned() {
        let says_the_same = held.position() == (epoch, version) && held.keys == statement.keys;
        if !says_the_same && held.position() >= (epoch, version) {
            store.complaints.push(format!("keys {:?} after {:?}", (epoch, version), held.position()));
            let details = json!({ "epoch": held.epoch, "version": held.version });
            let body = json!({ "code": "OLDER_KEYS", "message": "", "details": details });
            return (StatusCode::CONFLICT, Json(body)).into_response();
        }
    }
    store.keys.push(statement);
    Json(json!({ "epoch": epoch, "version": version })).into_response()
}

fn verify_keys(keys: &KeySet, jws: &str) -> Result<KeyStatement, String> {
    let prepared = KeyStatement::prepare(jws.as_bytes(), keys).map_err(|error| error.to_string())?;
    let key = &keys.keys()[prepared.key_index()];
    let signature = check_signature(key, prepared.signing_input(jws.as_bytes()), prepared.signature());
    prepared.finish(signature, ISSUER).map_err(|error| error.to_string())
}

fn verify(keys: &KeySet, jws: &str) -> Result<Head, String> {
    let prepared = Head::prepare(jws.as_bytes(), keys).map_err(|error| error.to_string())?;
    let key = &keys.keys()[prepared.key_index()];
    let signature = check_signature(key, prepared.signing_input(jws.as_bytes()), prepared.signature());
    let (head, _) = prepared.finish(signature, ISSUER).map_err(|error| error.to_string())?;
    Ok(head)
}

async fn kv(
    State(edge): State<Edge>,
    Path((namespace, key)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let now = {
        let mut store = edge.store();
        store.attempts += 1;
        store.kv
    };
    if let Some(answer) = mood(now).await {
        return answer;
    }
    let mut store = edge.store();
    if namespace != "namespace" || headers["authorization"] != format!("Bearer {KV_TOKEN}") {
        store.complaints.push("a wrong namespace or token".into());
        return StatusCode::FORBIDDEN.into_response();
    }
    if key != format!("base/{}", hex(&sha256(&body))) {
        store.complaints.push(format!("an object called {key} that isn't"));
    }
    store.objects.insert(key, body.to_vec());
    Json(json!({ "success": true })).into_response()
}

/// As strict as it gets: an object that any head may refer to, by the clock of any verifier, must not go.
async fn kv_delete(
    State(edge): State<Edge>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    Json(names): Json<Vec<String>>,
) -> Response {
    let now = edge.store().kv;
    if let Some(answer) = mood(now).await {
        return answer;
    }
    let mut store = edge.store();
    if namespace != "namespace" || headers["authorization"] != format!("Bearer {KV_TOKEN}") {
        store.complaints.push("a wrong namespace or token".into());
        return StatusCode::FORBIDDEN.into_response();
    }
    let now = time::OffsetDateTime::now_utc().unix_timestamp() + store.later;
    for name in names {
        let naming = |received: &&Received| format!("base/{}", hex(&received.head.base)) == name;
        let fresh_until = store.heads.iter().filter(naming).map(|received| received.head.fresh_until.0).max();
        let newest_names = store.heads.last().as_ref().is_some_and(naming);
        if newest_names || fresh_until.is_some_and(|until| until + 3600 + 60 > now) {
            store.complaints.push(format!("{name} is deleted, and heads refer to it"));
        }
        store.objects.remove(&name);
    }
    Json(json!({ "success": true, "result": { "successful_key_count": 1, "unsuccessful_keys": [] } }))
        .into_response()
}
