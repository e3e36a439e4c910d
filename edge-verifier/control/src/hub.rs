//! The revocation hub: a Durable Object that holds the newest head and the newest key statement, and tells every isolate of them.
//!
//! Each isolate has an answer of the hub open, to which lines are added: what is new at once, and each second that nothing is, so it always knows
//! how old its knowledge is. The hub refuses what isn't signed, isn't its issuer's or is older than what
//! it holds; the entry script lets only the issuer (the push secret) come this far.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::fmt::Write as _;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign_shared::key_statement::MAX_KEY_STATEMENT_BYTES;
use countersign_shared::revocation::{Head, MAX_HEAD_BYTES};
use countersign_shared::token::Unverified;
use countersign_shared::{KeySet, KeyStatement, Signature};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use worker::{
    Date, Delay, DurableObject, Env, Headers, Method, Request, Response, Result, State, durable_object,
};

use crate::host_crypto::verify_ed25519;
use crate::listeners::{Counts, Heard, KeyPosition, Listener, Listeners, Position};

/// How long a question is kept waiting at most, by isolates of a version that can't listen.
const MAX_WAIT: Duration = Duration::from_secs(3);
/// How many questions may wait at once; more are answered at once, which costs them only their turn.
const MAX_WAITING: usize = 10_000;
/// How long an answer may stay open, in milliseconds: as long as the platform lets an isolate listen, 30 s.
const MAX_STREAM_MS: u64 = 30_000;
/// What an answer with lines is declared as.
const LINES: &str = "text/x-countersign-news";
/// The issuer's heartbeat gives listeners a line each second. When it doesn't come for so long they get one all the same, …
const OVERDUE_MS: u64 = 1_250;
/// … which is looked at so often.
const LOOK: Duration = Duration::from_millis(500);
/// A push is answered when every listener was sent it, after this time at the latest.
const SENT_WITHIN: Duration = Duration::from_millis(25);
const SENT_STEP: Duration = Duration::from_millis(5);
/// How long another hub may take to say what it holds.
const ELDER_WAIT: Duration = Duration::from_secs(2);
/// The hub that there has always been. New ones begin with what it holds (`edge-verifier/entry/hubs.ts` names them all).
const ELDER: &str = "global";
const NAMESPACE: &str = "REVOCATION_HUB";
const STORAGE_KEY: &str = "head";
const KEYS_STORAGE_KEY: &str = "keys";
const NO_HEAD: &str = "NO_HEAD";
const AGE_HEADER: &str = "x-countersign-age-ms";

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
    fn new(jws: String, head: &Head, received_at: u64) -> Self {
        Self {
            jws,
            epoch: head.epoch,
            seq: head.seq,
            as_of: head.as_of.0,
            base: head.base,
            delta: head.delta.clone(),
            received_at,
        }
    }

    const fn age_ms(&self, now: u64) -> u64 {
        now.saturating_sub(self.received_at)
    }

    /// Whether `head` may come after this one: it is of a later position, or of the same and says the same. Two heads of one position that
    /// differ mean that the issuer's database went back in time.
    fn is_followed_by(&self, head: &Head) -> bool {
        let same_content = head.base == self.base && head.delta == self.delta;
        let position = position(head);
        position > self.position() || (position == self.position() && same_content)
    }

    const fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.seq }
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

const fn position(head: &Head) -> Position {
    let (epoch, seq) = head.position();
    Position { epoch, seq }
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

/// See the module's text. Addressed by name: one for each issuer, or several that all hold the same.
#[durable_object]
pub struct RevocationHub {
    hub: Rc<Hub>,
}

/// Shared with the answers that are open.
struct Hub {
    state: State,
    env: Env,
    held: RefCell<Option<Held>>,
    keys: RefCell<Option<HeldKeys>>,
    loaded: Cell<bool>,
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
    listeners: Listeners,
    is_ticking: Cell<bool>,
    /// Questions and pushes since the object started.
    requests: Cell<u64>,
}

impl DurableObject for RevocationHub {
    fn new(state: State, env: Env) -> Self {
        let hub = Hub {
            state,
            env,
            held: RefCell::default(),
            keys: RefCell::default(),
            loaded: Cell::default(),
            waiting: RefCell::default(),
            listeners: Listeners::default(),
            is_ticking: Cell::default(),
            requests: Cell::default(),
        };
        Self { hub: Rc::new(hub) }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let hub = &self.hub;
        hub.requests.set(hub.requests.get() + 1);
        if let Err(message) = hub.load().await? {
            return error(503, "NOT_LOADED", &message);
        }
        // The entry script writes these URLs. `Request::url` would bring a URL parser with its Unicode tables along.
        let url = request.inner().url();
        match request.method() {
            Method::Put if url.ends_with("/keys") => hub.push_keys(request).await,
            Method::Put => hub.push(request).await,
            Method::Get if url.ends_with("/status") => hub.status(),
            Method::Get => Rc::clone(hub).ask(&url).await,
            _ => error(405, "METHOD_NOT_ALLOWED", "The hub answers GET and PUT"),
        }
    }
}

impl Hub {
    /// Reads what was held before a restart. A hub that never held anything begins with what the elder holds: were it to begin with nothing, it
    /// would take a head that is older than those that isolates go by. The inner error: that can't be had at present.
    async fn load(&self) -> Result<core::result::Result<(), String>> {
        if self.loaded.get() {
            return Ok(Ok(()));
        }
        let mut stored: Option<Held> = self.state.storage().get(STORAGE_KEY).await?;
        let mut keys: Option<HeldKeys> = self.state.storage().get(KEYS_STORAGE_KEY).await?;
        let is_new = stored.is_none();
        if is_new {
            match self.inherit().await {
                Ok((head, statement)) => (stored, keys) = (head, statement.or(keys)),
                Err(message) => return Ok(Err(message)),
            }
        }
        // Someone else may have loaded, and even pushed, meanwhile.
        if !self.loaded.replace(true) {
            self.held.borrow_mut().clone_from(&stored);
            self.keys.borrow_mut().clone_from(&keys);
            if let Some(head) = stored.filter(|_| is_new) {
                self.state.storage().put(STORAGE_KEY, head).await?;
                if let Some(keys) = keys {
                    self.state.storage().put(KEYS_STORAGE_KEY, keys).await?;
                }
            }
        }
        Ok(Ok(()))
    }

    /// What the elder holds; nothing, if this is the elder itself.
    async fn inherit(&self) -> core::result::Result<(Option<Held>, Option<HeldKeys>), String> {
        let said = |error: worker::Error| format!("The hub {ELDER:?} can't be asked: {error}");
        let namespace = self.env.durable_object(NAMESPACE).map_err(said)?;
        let elder = namespace.id_from_name(ELDER).map_err(said)?;
        if elder.to_string() == self.state.id().to_string() {
            return Ok((None, None));
        }
        let stub = elder.get_stub().map_err(said)?;
        let question = stub.fetch_with_str("https://hub/head?epoch=0&seq=0&key_epoch=0&key_version=0");
        let mut answer = match select(std::pin::pin!(question), Delay::from(ELDER_WAIT)).await {
            Either::Left((answer, _)) => answer.map_err(said)?,
            Either::Right(_) => return Err(format!("The hub {ELDER:?} doesn't answer")),
        };
        let body = answer.text().await.map_err(said)?;
        match answer.status_code() {
            200 => {}
            503 if body.contains(NO_HEAD) => return Ok((None, None)),
            status => return Err(format!("The hub {ELDER:?} answered {status}")),
        }
        let age = answer.headers().get(AGE_HEADER).map_err(said)?.and_then(|age| age.parse().ok());
        let received_at = Date::now().as_millis().saturating_sub(age.unwrap_or(u64::MAX));
        let (jws, keys) = body.split_once('\n').map_or((&*body, None), |(jws, keys)| (jws, Some(keys)));
        let head = self.verify(jws.as_bytes()).await?;
        let keys = match keys {
            None => None,
            Some(jws) => Some(HeldKeys::new(jws.to_owned(), &self.verify_keys(jws.as_bytes()).await?)),
        };
        Ok((Some(Held::new(jws.to_owned(), &head, received_at)), keys))
    }

    /// `PUT /head`: the body is a head. The answer says which keys the hub holds: an issuer that has newer ones pushes them again. And how many
    /// isolates listen, and how far all of them were told.
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

        let (has_newer_content, is_news) = {
            let mut held = self.held.borrow_mut();
            if let Some(held) = held.as_ref().filter(|held| !held.is_followed_by(&statement)) {
                let Held { epoch, seq, as_of, .. } = *held;
                let message = format!(
                    "The hub holds epoch {epoch} seq {seq} as of {as_of}, which this is no successor of"
                );
                return error_with(409, "OLDER_HEAD", &message, Position { epoch, seq });
            }
            let has_newer_content = held.as_ref().is_none_or(|held| position(&statement) > held.position());
            // A heartbeat sent twice is no news: it must not make old knowledge look fresh.
            let is_news =
                has_newer_content || held.as_ref().is_some_and(|held| statement.as_of.0 > held.as_of);
            if is_news {
                *held = Some(Held::new(jws, &statement, Date::now().as_millis()));
            }
            (has_newer_content, is_news)
        };
        let held = self.held.borrow().clone();
        self.state.storage().put(STORAGE_KEY, held).await?;
        if has_newer_content {
            self.answer_those_who_wait();
        }
        if is_news {
            self.listeners.tell(Date::now().as_millis());
        }
        let keys = self.keys.borrow().as_ref().map(|held| held.position);
        let listeners = self.heard(position(&statement)).await;
        Response::from_json(&Taken { epoch: statement.epoch, seq: statement.seq, keys, listeners })
    }

    /// How far the listeners were told, once all have heard of `newest` or have had the time to.
    async fn heard(&self, newest: Position) -> Heard {
        let mut waited = Duration::ZERO;
        loop {
            let heard = self.listeners.heard(Date::now().as_millis(), newest);
            if heard.position >= newest || waited >= SENT_WITHIN {
                return heard;
            }
            Delay::from(SENT_STEP).await;
            waited += SENT_STEP;
        }
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
            self.answer_those_who_wait();
            self.listeners.tell(Date::now().as_millis());
        }
        Response::from_json(&position)
    }

    /// Answers every question that waits.
    fn answer_those_who_wait(&self) {
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

    /// `GET ?stream_ms=…`: lines, for so long. See [`Self::next_lines`].
    ///
    /// `GET ?epoch=…&seq=…&wait_ms=…`: the head as soon as it is newer than that, at the latest after `wait_ms`. With
    /// `&key_epoch=…&key_version=…` the key statement, too, on a line of its own and as soon, where it is newer than that. 503 if there is no
    /// head.
    async fn ask(self: Rc<Self>, url: &str) -> Result<Response> {
        // In plain digits.
        let parameter = |name: &str| {
            let (_, query) = url.split_once('?')?;
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
        };
        let known_keys = parameter("key_epoch")
            .zip(parameter("key_version"))
            .map(|(epoch, version)| KeyPosition { epoch, version });
        if let Some(length) = parameter("stream_ms").filter(|_| self.held.borrow().is_some()) {
            let now = Date::now().as_millis();
            if let Some(listener) = self.listeners.open(now, now + length.min(MAX_STREAM_MS), known_keys) {
                return self.stream(listener);
            }
        }
        let known = Position { epoch: parameter("epoch").unwrap_or(0), seq: parameter("seq").unwrap_or(0) };
        let wait = Duration::from_millis(parameter("wait_ms").unwrap_or(0)).min(MAX_WAIT);
        let has_news = || {
            let has_newer_head = self.held.borrow().as_ref().is_some_and(|held| held.position() > known);
            has_newer_head || self.newer_keys(known_keys).is_some()
        };
        if !has_news() && !wait.is_zero() {
            self.wait_for_news(wait).await;
        }
        let Some(held) = self.held.borrow().clone() else {
            return error(503, NO_HEAD, "The issuer has not pushed a head yet");
        };
        let headers = Headers::new();
        headers.set("content-type", "application/jose")?;
        headers.set(AGE_HEADER, &held.age_ms(Date::now().as_millis()).to_string())?;
        let body = match self.newer_keys(known_keys) {
            None => held.jws,
            Some(keys) => format!("{}\n{}", held.jws, keys.jws),
        };
        Ok(Response::ok(body)?.with_headers(headers))
    }

    /// The key statement, if it is newer than that; `None`, too, for who wants none.
    fn newer_keys(&self, known: Option<KeyPosition>) -> Option<HeldKeys> {
        let known = known?;
        self.keys.borrow().as_ref().filter(|held| held.position > known).cloned()
    }

    /// An answer with lines for `listener`.
    fn stream(self: Rc<Self>, listener: Rc<Listener>) -> Result<Response> {
        self.keep_ticking();
        let open = Open { hub: self, listener };
        let lines = stream::poll_fn(move |context| {
            let lines = open.hub.next_lines(&open.listener, context);
            lines.map(|lines| lines.map(|lines| Ok::<_, worker::Error>(lines.into_bytes())))
        });
        let headers = Headers::new();
        headers.set("content-type", LINES)?;
        Ok(Response::from_stream(lines)?.with_headers(headers))
    }

    /// What a listener is told next. Each line is `what clock age …`, both in milliseconds: the hub's clock, and how long ago by it the issuer was
    /// heard from. `head … jws`: first of all, and when it changed. `keys … jws`: when there is a newer statement. `tick … epoch seq`: there is
    /// nothing newer than the head of that position.
    fn next_lines(&self, listener: &Listener, context: &Context<'_>) -> Poll<Option<String>> {
        let now = Date::now().as_millis();
        if listener.is_over(now) {
            return Poll::Ready(None);
        }
        if !listener.take(context) {
            return Poll::Pending;
        }
        let held = self.held.borrow();
        // Whoever listens does so because there is one.
        let Some(held) = held.as_ref() else { return Poll::Ready(None) };
        let (position, age) = (held.position(), held.age_ms(now));
        let mut lines = String::new();
        if listener.sent.replace(Some(position)) == Some(position) {
            let Position { epoch, seq } = position;
            _ = writeln!(lines, "tick {now} {age} {epoch} {seq}");
        } else {
            _ = writeln!(lines, "head {now} {age} {}", held.jws);
        }
        if let Some(keys) = self.newer_keys(listener.keys.get()) {
            listener.keys.set(Some(keys.position));
            _ = writeln!(lines, "keys {now} {age} {}", keys.jws);
        }
        Poll::Ready(Some(lines))
    }

    /// As long as anybody listens, tells them that there is nothing new when the issuer is silent: it isn't the hub that is gone.
    fn keep_ticking(self: &Rc<Self>) {
        if self.is_ticking.replace(true) {
            return;
        }
        let hub = Rc::clone(self);
        wasm_bindgen_futures::spawn_local(async move {
            while !hub.listeners.is_empty() {
                Delay::from(LOOK).await;
                let now = Date::now().as_millis();
                if hub.listeners.told_ago(now) >= OVERDUE_MS {
                    hub.listeners.tell(now);
                }
            }
            hub.is_ticking.set(false);
        });
    }

    /// `GET /status`, for operators.
    fn status(&self) -> Result<Response> {
        let now = Date::now().as_millis();
        let held = self.held.borrow();
        Response::from_json(&Status {
            head: held.as_ref().map(Held::position),
            age_ms: held.as_ref().map(|held| held.age_ms(now)),
            keys: self.keys.borrow().as_ref().map(|held| held.position),
            listeners: self.listeners.counts(now),
            requests: self.requests.get(),
        })
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

/// An answer that is open.
struct Open {
    hub: Rc<Hub>,
    listener: Rc<Listener>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.listener.end();
    }
}

#[derive(Serialize)]
struct Taken {
    epoch: u64,
    seq: u64,
    keys: Option<KeyPosition>,
    listeners: Heard,
}

#[derive(Serialize)]
struct Status {
    head: Option<Position>,
    age_ms: Option<u64>,
    keys: Option<KeyPosition>,
    listeners: Counts,
    requests: u64,
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
