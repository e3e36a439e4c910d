//! The revocation hub: a Durable Object that holds the newest head and the newest key statement, and tells every isolate of them.
//!
//! Isolates ask with what they have and are answered when there is something newer, or after [`MAX_WAIT`], so
//! each always knows how old its knowledge is. The hub refuses what isn't signed, isn't its issuer's or is older than what
//! it holds; the entry script lets only the issuer (the push secret) come this far.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::time::Duration;

use countersign_shared::key_statement::MAX_KEY_STATEMENT_BYTES;
use countersign_shared::revocation::{Head, MAX_HEAD_BYTES};
use countersign_shared::token::Unverified;
use countersign_shared::{KeySet, KeyStatement, Signature};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use serde::{Deserialize, Serialize};
use worker::{
    Date, Delay, DurableObject, Env, Headers, Method, Request, Response, Result, State, durable_object,
};

use crate::host_crypto::verify_ed25519;

/// How long a question is kept waiting at most. With a heartbeat each second, an isolate's knowledge stays under 5 s old.
const MAX_WAIT: Duration = Duration::from_secs(3);
/// How many questions may wait at once; more are answered at once, which costs them only their turn.
const MAX_WAITING: usize = 10_000;
const STORAGE_KEY: &str = "head";
const KEYS_STORAGE_KEY: &str = "keys";

/// A head and when it came.
#[derive(Clone, Serialize, Deserialize)]
struct Held {
    jws: String,
    epoch: u64,
    seq: u64,
    as_of: i64,
    /// What it says is revoked, to tell it from another head of the same position.
    base: [u8; 32],
    delta: Vec<u8>,
    /// Milliseconds since the Unix epoch by the hub's clock, when news of this `as_of` arrived.
    received_at: u64,
}

impl Held {
    fn new(jws: String, head: &Head) -> Self {
        Self {
            jws,
            epoch: head.epoch,
            seq: head.seq,
            as_of: head.as_of.0,
            base: head.base,
            delta: head.delta.clone(),
            received_at: Date::now().as_millis(),
        }
    }

    /// Whether `head` may come after this one: it is of a later position, or of the same and says the same. Two heads of one position that
    /// differ mean that the issuer's database went back in time.
    fn is_followed_by(&self, head: &Head) -> bool {
        let same_content = head.base == self.base && head.delta == self.delta;
        head.position() > self.position() || (head.position() == self.position() && same_content)
    }

    const fn position(&self) -> (u64, u64) {
        (self.epoch, self.seq)
    }
}

/// A key statement.
#[derive(Clone, Serialize, Deserialize)]
struct HeldKeys {
    jws: String,
    position: KeyPosition,
    /// What it says, to tell it from another statement of the same position.
    keys: String,
}

/// Where a key statement stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct KeyPosition {
    epoch: u64,
    version: u64,
}

impl HeldKeys {
    fn new(jws: String, statement: &KeyStatement) -> Self {
        let KeyStatement { epoch, version, .. } = *statement;
        Self { jws, position: KeyPosition { epoch, version }, keys: described(&statement.keys) }
    }

    /// Whether `statement` may come after this one: it is of a later position, or of the same and names the same keys.
    fn is_followed_by(&self, statement: &KeyStatement) -> bool {
        let KeyPosition { epoch, version } = self.position;
        match statement.position().cmp(&(epoch, version)) {
            Ordering::Greater => true,
            Ordering::Equal => described(&statement.keys) == self.keys,
            Ordering::Less => false,
        }
    }
}

/// The same for the same keys.
fn described(keys: &KeySet) -> String {
    let mut text = String::new();
    for key in keys.keys() {
        text.extend([key.kid(), " ", &key.to_json(), "\n"]);
    }
    text
}

/// See the module's text. One for each issuer (and region); addressed by name.
#[durable_object]
pub struct RevocationHub {
    state: State,
    env: Env,
    held: RefCell<Option<Held>>,
    keys: RefCell<Option<HeldKeys>>,
    loaded: Cell<bool>,
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
}

impl DurableObject for RevocationHub {
    fn new(state: State, env: Env) -> Self {
        Self {
            state,
            env,
            held: RefCell::default(),
            keys: RefCell::default(),
            loaded: Cell::default(),
            waiting: RefCell::default(),
        }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        self.load().await?;
        match request.method() {
            // The entry script writes these URLs. `Request::url` would bring a URL parser with its Unicode tables along.
            Method::Put if request.inner().url().ends_with("/keys") => self.push_keys(request).await,
            Method::Put => self.push(request).await,
            Method::Get => self.ask(&request).await,
            _ => error(405, "METHOD_NOT_ALLOWED", "The hub answers GET and PUT"),
        }
    }
}

impl RevocationHub {
    /// Reads what was held before a restart.
    async fn load(&self) -> Result<()> {
        if !self.loaded.get() {
            let stored = self.state.storage().get(STORAGE_KEY).await?;
            let keys = self.state.storage().get(KEYS_STORAGE_KEY).await?;
            // Someone else may have loaded, and even pushed, meanwhile.
            if !self.loaded.replace(true) {
                *self.held.borrow_mut() = stored;
                *self.keys.borrow_mut() = keys;
            }
        }
        Ok(())
    }

    /// `PUT /head`: the body is a head. The answer says which keys the hub holds: an issuer that has newer ones pushes them again.
    async fn push(&self, mut request: Request) -> Result<Response> {
        let body = request.bytes().await?;
        if body.len() > MAX_HEAD_BYTES {
            return error(413, "PAYLOAD_TOO_LARGE", "A head has at most 256 KiB");
        }
        let statement = match self.verify(&body).await {
            Ok(statement) => statement,
            Err(message) => return error(400, "INVALID_HEAD", &message),
        };
        let Ok(jws) = String::from_utf8(body) else { return error(400, "INVALID_HEAD", "not a JWS") };

        let newer_content = {
            let mut held = self.held.borrow_mut();
            if let Some(held) = held.as_ref().filter(|held| !held.is_followed_by(&statement)) {
                let Held { epoch, seq, as_of, .. } = *held;
                let message = format!(
                    "The hub holds epoch {epoch} seq {seq} as of {as_of}, which this is no successor of"
                );
                return error_with(409, "OLDER_HEAD", &message, Position { epoch, seq });
            }
            let (position, as_of) =
                held.as_ref().map_or(((0, 0), i64::MIN), |held| (held.position(), held.as_of));
            let newer_content = held.is_none() || statement.position() > position;
            // A heartbeat sent twice is no news: it must not make old knowledge look fresh.
            if newer_content || statement.as_of.0 > as_of {
                *held = Some(Held::new(jws, &statement));
            }
            newer_content
        };
        let held = self.held.borrow().clone();
        self.state.storage().put(STORAGE_KEY, held).await?;
        if newer_content {
            self.tell_everybody();
        }
        let keys = self.keys.borrow().as_ref().map(|held| held.position);
        Response::from_json(&Taken { epoch: statement.epoch, seq: statement.seq, keys })
    }

    /// `PUT /keys`: the body is a key statement.
    async fn push_keys(&self, mut request: Request) -> Result<Response> {
        let body = request.bytes().await?;
        if body.len() > MAX_KEY_STATEMENT_BYTES {
            return error(413, "PAYLOAD_TOO_LARGE", "A key statement has at most 96 KiB");
        }
        let statement = match self.verify_keys(&body).await {
            Ok(statement) => statement,
            Err(message) => return error(400, "INVALID_KEYS", &message),
        };
        let Ok(jws) = String::from_utf8(body) else { return error(400, "INVALID_KEYS", "not a JWS") };

        // Compared and replaced with nothing awaited in between.
        let held = self.keys.borrow().clone();
        if let Some(held) = held.filter(|held| !held.is_followed_by(&statement)) {
            let KeyPosition { epoch, version } = held.position;
            let message = format!(
                "The hub holds the keys of epoch {epoch} version {version}, which these are no successor of"
            );
            return error_with(409, "OLDER_KEYS", &message, held.position);
        }
        let held = HeldKeys::new(jws, &statement);
        let position = held.position;
        let is_news = self.keys.replace(Some(held.clone())).is_none_or(|before| before.position != position);
        self.state.storage().put(KEYS_STORAGE_KEY, held).await?;
        if is_news {
            self.tell_everybody();
        }
        Response::from_json(&position)
    }

    /// Answers every open question.
    fn tell_everybody(&self) {
        // Those who gave up waiting are gone; nothing is lost by telling them.
        self.waiting.take().into_iter().for_each(|waiting| _ = waiting.send(()));
    }

    /// Whether the bytes are a head that holds; if not, why.
    async fn verify(&self, jws: &[u8]) -> core::result::Result<Head, String> {
        let (keys, issuer) = self.trusted()?;
        let prepared = Head::prepare(jws, &keys).map_err(|refusal| refusal.to_string())?;
        let verdict = check(&prepared, jws, &keys).await;
        let (head, _) = prepared.finish(verdict, &issuer).map_err(|error| error.to_string())?;
        Ok(head)
    }

    /// Whether the bytes are a key statement that holds; if not, why.
    async fn verify_keys(&self, jws: &[u8]) -> core::result::Result<KeyStatement, String> {
        let (keys, issuer) = self.trusted()?;
        let prepared = KeyStatement::prepare(jws, &keys).map_err(|refusal| refusal.to_string())?;
        let verdict = check(&prepared, jws, &keys).await;
        prepared.finish(verdict, &issuer).map_err(|error| error.to_string())
    }

    /// Whose statements are taken, and by which keys.
    fn trusted(&self) -> core::result::Result<(KeySet, String), String> {
        let variable = |name: &str| {
            self.env.var(name).map(|value| value.to_string()).map_err(|_| format!("{name} is not set"))
        };
        let keys =
            KeySet::parse(variable("REVOCATION_KEYS")?.as_bytes()).map_err(|error| error.to_string())?;
        Ok((keys, variable("ISSUER_URL")?))
    }

    /// `GET ?epoch=…&seq=…&wait_ms=…`: the head as soon as it is newer than that, at the latest after `wait_ms`. 503 if there is none. With
    /// `&key_epoch=…&key_version=…` the key statement, too, on a line of its own and as soon, where it is newer than that.
    async fn ask(&self, request: &Request) -> Result<Response> {
        // In plain digits.
        let url = request.inner().url();
        let parameter = |name: &str| {
            let (_, query) = url.split_once('?')?;
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
        };
        let known = (parameter("epoch").unwrap_or(0), parameter("seq").unwrap_or(0));
        let wait = Duration::from_millis(parameter("wait_ms").unwrap_or(0)).min(MAX_WAIT);
        let known_keys = parameter("key_epoch").zip(parameter("key_version"));
        let new_keys = || {
            let keys = self.keys.borrow();
            let newer = |held: &&HeldKeys| {
                known_keys.is_some_and(|(epoch, version)| held.position > KeyPosition { epoch, version })
            };
            keys.as_ref().filter(newer).map(|held| held.jws.clone())
        };
        let has_news = || {
            self.held.borrow().as_ref().is_some_and(|held| held.position() > known) || new_keys().is_some()
        };
        if !has_news() && !wait.is_zero() {
            self.wait_for_news(wait).await;
        }
        let Some(held) = self.held.borrow().clone() else {
            return error(503, "NO_HEAD", "The issuer has not pushed a head yet");
        };
        let headers = Headers::new();
        headers.set("content-type", "application/jose")?;
        headers.set(
            "x-countersign-age-ms",
            &Date::now().as_millis().saturating_sub(held.received_at).to_string(),
        )?;
        let body = match new_keys() {
            None => held.jws,
            Some(keys) => format!("{}\n{keys}", held.jws),
        };
        Ok(Response::ok(body)?.with_headers(headers))
    }

    async fn wait_for_news(&self, wait: Duration) {
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting.borrow_mut();
            waiting.retain(|waiting| !waiting.is_canceled());
            if waiting.len() >= MAX_WAITING {
                return;
            }
            waiting.push(sender);
        }
        if let Either::Right(((), receiver)) = select(receiver, Delay::from(wait)).await {
            drop(receiver);
        }
    }
}

/// What the host says of the signature on `jws`.
async fn check<Kind>(prepared: &Unverified<Kind>, jws: &[u8], keys: &KeySet) -> Signature {
    let key = &keys.keys()[prepared.key_index()];
    let holds = verify_ed25519(key, prepared.signature(), prepared.signing_input(jws)).await;
    if holds { Signature::Valid } else { Signature::Invalid }
}

#[derive(Serialize)]
struct Position {
    epoch: u64,
    seq: u64,
}

#[derive(Serialize)]
struct Taken {
    epoch: u64,
    seq: u64,
    keys: Option<KeyPosition>,
}

#[derive(Serialize)]
struct ErrorBody<'a, D> {
    code: &'a str,
    message: &'a str,
    details: D,
}

fn error(status: u16, code: &str, message: &str) -> Result<Response> {
    #[derive(Serialize)]
    struct Nothing {}
    error_with(status, code, message, Nothing {})
}

fn error_with(status: u16, code: &str, message: &str, details: impl Serialize) -> Result<Response> {
    Ok(Response::from_json(&ErrorBody { code, message, details })?.with_status(status))
}
