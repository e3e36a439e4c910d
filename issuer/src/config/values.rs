//! The settings that more than one command reads, as types.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;
use sqlx::postgres::PgConnectOptions;

use super::secret::Secret;
use super::sources::Reader;

/// Where the issuer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// On a developer's machine.
    Development,
    /// Anywhere else.
    Production,
}

impl FromStr for Environment {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "development" => Ok(Self::Development),
            "production" => Ok(Self::Production),
            _ => Err(()),
        }
    }
}

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(()),
        }
    }
}

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLevel(pub tracing::Level);

impl FromStr for LogLevel {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // By name only: `tracing` would also take digits.
        if text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            text.parse().map(Self).map_err(|_| ())
        } else {
            Err(())
        }
    }
}

/// Where logs go and how.
#[derive(Debug, Clone, Copy)]
pub struct Telemetry {
    /// Sets what isn't set itself.
    pub environment: Environment,
    /// What is logged.
    pub level: LogLevel,
    /// How.
    pub format: LogFormat,
}

impl Telemetry {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let environment =
            reader.parsed("COUNTERSIGN_ENV", Environment::Production, "`development` or `production`");
        let level = reader.parsed(
            "LOG_LEVEL",
            LogLevel(tracing::Level::INFO),
            "one of ERROR, WARN, INFO, DEBUG, TRACE",
        );
        let default = match environment {
            Environment::Development => LogFormat::Text,
            Environment::Production => LogFormat::Json,
        };
        let format = reader.parsed("LOG_FORMAT", default, "`json` or `text`");
        Self { environment, level, format }
    }
}

/// Connections of each pool where nothing is set.
pub(crate) const POOL_SIZE: u32 = 10;
/// And how long a start tries to reach the database, in seconds.
pub(crate) const STARTUP_SECONDS: u32 = 60;

/// The database, and how long to wait for it.
#[derive(Clone)]
pub struct Database {
    /// Parsed from `DATABASE_URL`.
    pub options: PgConnectOptions,
    /// `DATABASE_URL`, for other programs.
    url: Secret,
    /// Connections held at most.
    pub pool_size: u32,
    /// How long a start tries to reach it.
    pub startup_timeout: Duration,
}

impl Database {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let url = reader.required_secret(
            "DATABASE_URL",
            "set it to a PostgreSQL URL such as postgres://user:password@host:5432/countersign",
        );
        let pool_size = reader.integer("DATABASE_POOL_SIZE", POOL_SIZE, 2..=1000, " connections");
        let startup_timeout =
            reader.integer("STARTUP_TIMEOUT_SECONDS", STARTUP_SECONDS, 1..=3600, " seconds");
        let url = url?;
        // The parser's error may quote the URL.
        let options = Some(&url).and_then(|url| {
            let scheme = ["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme));
            let options = scheme.then(|| url.expose().parse::<PgConnectOptions>().ok()).flatten();
            if options.is_none() {
                reader.problem("DATABASE_URL is not a PostgreSQL URL: it has the form postgres://user:password@host:5432/database");
            }
            options
        })?;
        Some(Self { options, url, pool_size, startup_timeout: Duration::from_secs(startup_timeout.into()) })
    }

    /// The same for programs that go by libpq (PostgreSQL documentation, libpq, Environment Variables). It has the password.
    pub(crate) fn libpq_environment(&self) -> Vec<(&'static str, String)> {
        let host = self
            .options
            .get_socket()
            .map_or_else(|| self.options.get_host().to_owned(), |socket| socket.display().to_string());
        let database = self.options.get_database().unwrap_or_else(|| self.options.get_username());
        let mut environment = vec![
            ("PGHOST", host),
            ("PGPORT", self.options.get_port().to_string()),
            ("PGUSER", self.options.get_username().to_owned()),
            ("PGDATABASE", database.to_owned()),
        ];
        let Ok(url) = self.url.expose().parse::<Url>() else { return environment };
        if let Some(password) = url.password() {
            // Percent-encoded as in any URL; only in forms is a plus sign a space, and an ampersand an end.
            let field = format!("p={}", password.replace('+', "%2B").replace('&', "%26"));
            let password =
                form_urlencoded::parse(field.as_bytes()).next().map(|(_, value)| value.into_owned());
            environment.extend(password.map(|password| ("PGPASSWORD", password)));
        }
        for (name, value) in url.query_pairs() {
            let variable = match &*name {
                "password" => "PGPASSWORD",
                "sslmode" | "ssl-mode" => "PGSSLMODE",
                "sslrootcert" | "ssl-root-cert" | "ssl-ca" => "PGSSLROOTCERT",
                "sslcert" | "ssl-cert" => "PGSSLCERT",
                "sslkey" | "ssl-key" => "PGSSLKEY",
                _ => continue,
            };
            environment.push((variable, value.into_owned()));
        }
        environment
    }

    /// Host and port, or the socket's path; never credentials.
    pub fn address(&self) -> String {
        match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.options.get_host(), self.options.get_port()),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// For how long the audit log is kept, in days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditRetention {
    /// 1 to 36,500.
    pub days: u32,
}

impl AuditRetention {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self { days: reader.integer("AUDIT_RETENTION_DAYS", 90, 1..=36_500, " days") }
    }
}

/// The issuer's identifier (RFC 8414 §2): an https URL without query, fragment and trailing slash, in its canonical spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerUrl {
    text: String,
    path: String,
}

impl IssuerUrl {
    const MAX_BYTES: usize = 512;

    pub(super) fn read(reader: &mut Reader<'_>, environment: Environment) -> Option<Self> {
        let text = reader.required(
            "ISSUER_URL",
            "set it to the URL that clients reach the issuer by, e.g. https://id.example.com",
        )?;
        match Self::parse(text, environment) {
            Ok(url) => Some(url),
            Err(problem) => {
                reader.problem(format!("ISSUER_URL {problem}"));
                None
            }
        }
    }

    /// Checks `text`; the error continues the sentence "`ISSUER_URL` …".
    pub fn parse(text: &str, environment: Environment) -> Result<Self, String> {
        let url: Url =
            text.parse().map_err(|_| "must be an absolute URL, e.g. https://id.example.com".to_owned())?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) || environment == Environment::Development => {}
            "http" => {
                return Err(
                    "must be an https URL (http only for localhost, or with COUNTERSIGN_ENV=development)"
                        .into(),
                );
            }
            _ => return Err("must be an https URL".into()),
        }
        if !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err("must not have credentials, a query or a fragment".into());
        }
        // Tokens are compared with it byte for byte, so there is one way to write it.
        let canonical = url.as_str().trim_end_matches('/');
        if canonical != text || canonical.contains(['"', '\\']) {
            return Err(format!("must be written in its canonical form, `{canonical}`"));
        }
        if text.len() > Self::MAX_BYTES {
            return Err(format!("must have at most {} characters: every token carries it", Self::MAX_BYTES));
        }
        Ok(Self { text: text.to_owned(), path: url.path().trim_end_matches('/').to_owned() })
    }

    /// The identifier.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its path, without a trailing slash: mostly empty.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Whether `url` leads to this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A resource server's identifier: what stands in `aud`. RFC 8707 §2 asks for an absolute URI without fragment; plain names, which
/// the older `audience` parameter had, are taken too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identifier(String);

impl Identifier {
    /// The longest identifier, in bytes.
    pub const MAX_BYTES: usize = 512;

    pub(super) fn read_default_audience(reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.required(
            "DEFAULT_AUDIENCE",
            "set it to the identifier of the API that tokens are for, e.g. https://api.example.com",
        )?;
        let identifier = text.parse();
        if identifier.is_err() {
            reader.problem(
                "DEFAULT_AUDIENCE must be 1 to 512 visible ASCII characters without `#`, `,`, `\"` and `\\`",
            );
            return None;
        }
        // Tokens for the issuer carry management scopes: no other API may accept them.
        if reader.text("ISSUER_URL") == Some(text) {
            reader.problem("DEFAULT_AUDIENCE must not be ISSUER_URL: the issuer's own API is another one");
            return None;
        }
        identifier.ok()
    }

    /// The identifier as it stands in `aud`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Identifier {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let sound = (1..=Self::MAX_BYTES).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b',' | b'"' | b'\\'));
        if sound { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

pub(super) fn redis_url(reader: &mut Reader<'_>) -> Option<Secret> {
    let url = reader.secret("REDIS_URL")?;
    if redis::Client::open(url.expose()).is_err() {
        reader.problem("REDIS_URL is not a Redis URL: it has the form redis://user:password@host:6379/0 (rediss:// with TLS)");
        return None;
    }
    Some(url)
}
