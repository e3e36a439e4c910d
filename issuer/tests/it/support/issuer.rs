//! A running issuer.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use countersign_shared::{Claims, UnixTime};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use super::cli::Cli;
use super::{TestDatabase, eventually, required};

/// `ISSUER_URL`: not where the issuer listens, so nothing can depend on that.
pub(crate) const ISSUER: &str = "https://issuer.example";
/// The default resource server.
pub(crate) const AUDIENCE: &str = "https://api.example";

/// A client's credentials.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) tenant: String,
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl Client {
    pub(crate) fn from_json(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Self { tenant: text("tenant_id"), id: text("client_id"), secret: text("client_secret") }
    }
}

/// The binary at work, on a database of its own unless it was given one. Killed when dropped.
pub(crate) struct Issuer {
    child: Child,
    pub(crate) url: String,
    pub(crate) admin_url: String,
    pub(crate) http: reqwest::Client,
    log: Arc<Mutex<String>>,
    pub(crate) administrator: Client,
    pub(crate) database: Arc<TestDatabase>,
}

impl Issuer {
    /// With a Redis and without a publisher.
    pub(crate) async fn start() -> Self {
        Self::start_with(|cli| cli).await
    }

    /// The same with other settings.
    pub(crate) async fn start_with(change: impl FnOnce(Cli) -> Cli) -> Self {
        let (database, administrator) = TestDatabase::bootstrapped().await;
        Self::start_on(Arc::new(database), administrator, change).await
    }

    /// The same on a given database.
    pub(crate) async fn start_on(
        database: Arc<TestDatabase>,
        administrator: Client,
        change: impl FnOnce(Cli) -> Cli,
    ) -> Self {
        let cli = change(Cli::new(&database.url).env("REDIS_URL", &required("TEST_REDIS_URL")));
        let starting = Starting::spawn(&cli);
        starting.ready(database, administrator).await
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// All that it has logged for what it was asked up to here: lines are written a moment after they came, in order.
    pub(crate) async fn whole_log(&self) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        self.get("/nothing-here").header("x-request-id", &id).send().await.unwrap();
        self.logged(&id).await;
        self.log()
    }

    /// Nobody reads what it logs until this is dropped.
    pub(crate) fn unread(&self) -> mpsc::Sender<()> {
        let (until, dropped) = mpsc::channel::<()>();
        let (held, holds) = mpsc::channel();
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            let _held = log.lock().unwrap();
            held.send(()).unwrap();
            _ = dropped.recv();
        });
        holds.recv().unwrap();
        until
    }

    /// The first line of its log with `text`, once it is there.
    pub(crate) async fn logged(&self, text: &str) -> String {
        eventually(text, 5, async || self.log().lines().find(|line| line.contains(text)).map(str::to_owned))
            .await
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait(Duration::from_secs(20))
    }

    /// A figure of the process's memory, as Linux has it.
    #[cfg(feature = "measurements")]
    pub(crate) fn memory_kib(&self, figure: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
        line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Whether a TCP connection from that local port is this process's, as Linux has it.
    pub(crate) fn is_connected_from(&self, port: u16) -> bool {
        let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut sockets = connections.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, local) = fields[1].split_once(':')?;
            (u16::from_str_radix(local, 16) == Ok(port)).then(|| format!("socket:[{}]", fields[9]))
        });
        let Ok(files) = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())) else { return false };
        let open: Vec<_> = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok()).collect();
        sockets.any(|socket| open.iter().any(|file| file.as_os_str() == &*socket))
    }

    pub(crate) fn signal(&self, signal: &str) {
        send_signal(self.child.id(), signal);
    }

    /// Gone at once, as in a crash.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn wait(&mut self, patience: Duration) -> ExitStatus {
        wait(&mut self.child, patience)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.url))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }

    /// An OAuth request with HTTP Basic.
    pub(crate) async fn oauth(&self, endpoint: &str, client: &Client, form: &[(&str, &str)]) -> Response {
        let request =
            self.post(&format!("/oauth2/v1/{endpoint}")).basic_auth(&client.id, Some(&client.secret));
        request.form(form).send().await.unwrap()
    }

    /// The answer to a token request that should succeed.
    pub(crate) async fn grant(&self, client: &Client, more: &[(&str, &str)]) -> Value {
        let form = [&[("grant_type", "client_credentials")], more].concat();
        let response = self.oauth("token", client, &form).await;
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// A token for the default resource server.
    pub(crate) async fn token(&self, client: &Client) -> String {
        self.grant(client, &[]).await["access_token"].as_str().unwrap().to_owned()
    }

    /// A token for the management API with all the client's scopes.
    pub(crate) async fn management_token(&self, client: &Client) -> String {
        self.grant(client, &[("resource", ISSUER)]).await["access_token"].as_str().unwrap().to_owned()
    }

    /// A token of the administrator for the management API with `scope`.
    pub(crate) async fn scoped_token(&self, scope: &str) -> String {
        let granted = self.grant(&self.administrator, &[("resource", ISSUER), ("scope", scope)]).await;
        granted["access_token"].as_str().unwrap().to_owned()
    }

    /// The error that token requests get within the second that a change takes to reach every replica's memory.
    pub(crate) async fn refused_soon(&self, client: &Client, more: &[(&str, &str)]) -> (u16, String) {
        let form = [&[("grant_type", "client_credentials")], more].concat();
        eventually("no more tokens", 1, async || {
            let response = self.oauth("token", client, &form).await;
            if response.status() == StatusCode::OK { None } else { Some(oauth_error(response).await) }
        })
        .await
    }

    /// Whether the client is told that `token` is active.
    pub(crate) async fn is_active(&self, client: &Client, token: &str) -> bool {
        let response = self.oauth("introspect", client, &[("token", token)]).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.json::<Value>().await.unwrap()["active"].as_bool().unwrap()
    }

    pub(crate) async fn revoke(&self, client: &Client, token: &str) {
        let response = self.oauth("revoke", client, &[("token", token)]).await;
        assert_eq!(response.status(), StatusCode::OK);
    }

    /// What `/ready` says now.
    pub(crate) async fn ready(&self) -> (StatusCode, Value) {
        // An answer is given again for so long.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let response = self.get("/ready").send().await.unwrap();
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            assert!(response.headers().contains_key("retry-after"));
        }
        (response.status(), response.json().await.unwrap())
    }

    /// Registers an agent with these scopes and makes it a credential.
    pub(crate) async fn new_client(&self, scopes: &[&str]) -> Client {
        let token = self.management_token(&self.administrator).await;
        let agent = self.register(&token, &agent_body(scopes)).await;
        let path = format!("/api/v1/agents/{}/credentials", agent["agent_id"].as_str().unwrap());
        let response = self.post(&path).bearer_auth(&token).json(&json!({})).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        let mut credential: Value = response.json().await.unwrap();
        credential["tenant_id"] = agent["tenant_id"].clone();
        Client::from_json(&credential)
    }

    pub(crate) async fn register(&self, token: &str, body: &Value) -> Value {
        let response = self.post("/api/v1/agents").bearer_auth(token).json(body).send().await.unwrap();
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body
    }

    /// Another tenant with an administrator of its own; a new one each time.
    pub(crate) async fn other_tenant(&self) -> Client {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let body = json!({
            "name": format!("Other {number}"),
            "administrator": { "email": "other@example.com" },
            "default_resource_server": { "identifier": format!("https://other-{number}.example") },
        });
        let token = self.management_token(&self.administrator).await;
        let response = self.post("/api/v1/tenants").bearer_auth(&token).json(&body).send().await.unwrap();
        let status = response.status();
        let made: Value = response.json().await.unwrap();
        assert_eq!(status, StatusCode::CREATED, "{made}");
        let mut administrator = made["administrator"].clone();
        administrator["tenant_id"] = made["tenant_id"].clone();
        Client::from_json(&administrator)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the issuer's log ---\n{}", self.log());
        }
    }
}

/// The binary, not listening yet.
pub(crate) struct Starting {
    child: Child,
    log: Arc<Mutex<String>>,
    addresses: mpsc::Receiver<(String, String)>,
}

impl Starting {
    pub(crate) fn spawn(cli: &Cli) -> Self {
        let mut command = cli.command(&["serve"]);
        // Whatever it says, in the order in which it says it.
        let (output, input) = std::io::pipe().unwrap();
        command.stdin(Stdio::null()).stdout(input.try_clone().unwrap()).stderr(input);
        let child = command.spawn().unwrap();
        drop(command); // with the pipe's other end, so that the output ends with the process
        let log = Arc::new(Mutex::new(String::new()));
        let (sender, addresses) = mpsc::channel();
        let (reader, kept) = (BufReader::new(output), log.clone());
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if event["message"] == "listening" {
                    let address = |name: &str| format!("http://{}", event[name].as_str().unwrap());
                    _ = sender.send((address("address"), address("admin_address")));
                }
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, log, addresses }
    }

    /// Waits until it listens.
    pub(crate) async fn ready(mut self, database: Arc<TestDatabase>, administrator: Client) -> Issuer {
        let deadline = Instant::now() + Duration::from_secs(20);
        let (url, admin_url) = loop {
            if let Ok(addresses) = self.addresses.try_recv() {
                break addresses;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "it didn't start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Issuer { child: self.child, url, admin_url, http, log: self.log, administrator, database }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn terminate(mut self) -> ExitStatus {
        send_signal(self.child.id(), "TERM");
        wait(&mut self.child, Duration::from_secs(10))
    }
}

fn wait(child: &mut Child, patience: Duration) -> ExitStatus {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "it didn't end within {patience:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn send_signal(pid: u32, signal: &str) {
    // The standard library can only kill.
    let sent = std::process::Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

/// A body that registers an agent; the email is a new one each time.
pub(crate) fn agent_body(scopes: &[&str]) -> Value {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    json!({
        "email": format!("agent-{number}@example.com"), "agent_type": "screener", "version": "1.0.0", "owner": "tests",
        "deployment_env": "staging", "scopes": scopes,
    })
}

/// The claims of a token, unverified.
pub(crate) fn claims(token: &str) -> Value {
    part(token, 1)
}

/// What a verifier reads from the token.
pub(crate) fn parsed(token: &str) -> Claims {
    let claims = claims(token);
    let text = |name: &str| claims[name].as_str().unwrap().to_owned();
    let time = |name: &str| UnixTime(claims[name].as_i64().unwrap());
    Claims {
        issuer: text("iss"),
        subject: text("sub").parse().unwrap(),
        client_id: text("client_id").parse().unwrap(),
        audience: vec![text("aud")],
        issued_at: time("iat"),
        expires_at: time("exp"),
        not_before: None,
        jti: text("jti").parse().unwrap(),
        scope: Vec::new(),
        tenant: text("tenant_id").parse().unwrap(),
        credential: text("credential_id").parse().unwrap(),
        agent_type: text("agent_type"),
        key_id: part(token, 0)["kid"].as_str().unwrap().to_owned(),
    }
}

/// Header (0) or payload (1) of a JWS, unverified.
pub(crate) fn part(jws: &str, place: usize) -> Value {
    let part = jws.split('.').nth(place).unwrap();
    serde_json::from_slice(&countersign_shared::base64url::decode(part.as_bytes()).unwrap()).unwrap()
}

/// Status, code and details of an error in the envelope, whose form is checked.
pub(crate) async fn envelope(response: Response) -> (u16, String, Value) {
    let status = response.status().as_u16();
    assert!(response.headers().contains_key("x-request-id"));
    let body: Value = response.json().await.unwrap();
    let members: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["code", "details", "message"], "{body}");
    assert!(body["details"].is_object() && !body["message"].as_str().unwrap().is_empty(), "{body}");
    (status, body["code"].as_str().unwrap().to_owned(), body["details"].clone())
}

/// Status and code of an OAuth error, whose form is checked.
pub(crate) async fn oauth_error(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert!(response.headers().contains_key("x-request-id"));
    let body: Value = response.json().await.unwrap();
    let members: Vec<&String> = body.as_object().unwrap().keys().collect();
    // Where a limit refuses, its code says which.
    if matches!(status, 403 | 429) {
        assert_eq!(members, ["code", "details", "error", "error_description"], "{body}");
    } else {
        assert_eq!(members, ["error", "error_description"], "{body}");
    }
    (status, body["error"].as_str().unwrap().to_owned())
}
