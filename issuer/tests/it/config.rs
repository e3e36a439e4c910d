//! Configuration as the operator meets it: by what the binary says.

use crate::support::cli::{Cli, Ran};
use crate::support::file::File;
use crate::support::{ADMIN_TOKEN, MASTER_KEY, TestDatabase};

/// The problems it names.
fn problems(ran: &Ran) -> Vec<String> {
    assert_eq!(ran.code(), Some(78), "{}", ran.stderr());
    let stderr = ran.stderr();
    let mut lines = stderr.lines();
    assert_eq!(lines.next(), Some("countersign: the configuration is not valid:"));
    lines.map(|line| line.strip_prefix("  ").unwrap().to_owned()).collect()
}

const URL: &str = "postgres://user:hunter2@127.0.0.1:1/none";

#[test]
fn everything_missing_is_named_at_once_with_the_fix() {
    let named = problems(&Cli::bare().run(&["serve"]));
    let starts = ["DATABASE_URL", "MASTER_KEY", "ISSUER_URL"];
    assert_eq!(named.len(), starts.len(), "{named:?}");
    for (problem, name) in named.iter().zip(starts) {
        assert!(
            problem.starts_with(&format!("{name} environment variable is required: set it to ")),
            "{problem}"
        );
    }
    let named = problems(&Cli::bare().run(&["bootstrap"]));
    assert!(
        named.iter().any(|problem| problem.starts_with("DEFAULT_AUDIENCE environment variable is required"))
    );
    // An empty value is none.
    let named = problems(&Cli::bare().env("DATABASE_URL", " ").run(&["migrate"]));
    assert!(named[0].starts_with("DATABASE_URL environment variable is required"));
}

#[test]
fn everything_wrong_is_named_at_once_and_secrets_are_not_shown() {
    let cli = Cli::new("mysql://user:hunter2@host/db")
        .env("MASTER_KEY", "aHVudGVyMg==")
        .env("ISSUER_URL", "http://issuer.example/")
        .env("REDIS_URL", "hunter2")
        .env("PORT", "70000")
        .env("HOST", "localhost")
        .env("ADMIN_ADDRESS", "9090")
        .env("COUNTERSIGN_ENV", "test")
        .env("LOG_LEVEL", "LOUD")
        .env("LOG_FORMAT", "xml")
        .env("TOKEN_LIFETIME_SECONDS", "86401")
        .env("DATABASE_POOL_SIZE", "1")
        .env("STARTUP_TIMEOUT_SECONDS", "x")
        .env("SHUTDOWN_TIMEOUT_SECONDS", "0")
        .env("SHUTDOWN_DELAY_SECONDS", "301")
        .env("OTLP_ENDPOINT", "http://hunter2@collector:4318")
        .env("OTLP_SAMPLE_PERCENT", "101")
        .env("ADMIN_TOKEN", "hunter2")
        .env("ADMIN_TLS_CERTIFICATE", "/nonexistent/certificate.pem")
        .env("CORS_ALLOWED_ORIGINS", "*")
        .env("MAX_CONNECTIONS", "1")
        .env("MAX_CONNECTIONS_PER_IP", "0")
        .env("MAX_REQUESTS", "0")
        .env("HUB_URL", "ftp://edge");
    let ran = cli.run(&["serve"]);
    let named = problems(&ran);
    for name in [
        "DATABASE_URL",
        "MASTER_KEY",
        "ISSUER_URL",
        "REDIS_URL",
        "PORT",
        "HOST",
        "ADMIN_ADDRESS",
        "COUNTERSIGN_ENV",
        "LOG_LEVEL",
        "LOG_FORMAT",
        "TOKEN_LIFETIME_SECONDS",
        "DATABASE_POOL_SIZE",
        "STARTUP_TIMEOUT_SECONDS",
        "SHUTDOWN_TIMEOUT_SECONDS",
        "SHUTDOWN_DELAY_SECONDS",
        "ADMIN_TOKEN",
        "ADMIN_TLS_KEY",
        "OTLP_ENDPOINT",
        "OTLP_SAMPLE_PERCENT",
        "CORS_ALLOWED_ORIGINS",
        "MAX_CONNECTIONS",
        "MAX_CONNECTIONS_PER_IP",
        "MAX_REQUESTS",
        "HUB_URL",
        "HUB_PUSH_SECRET",
        "KV_NAMESPACE_ID",
        "KV_ACCOUNT_ID",
    ] {
        let count = named.iter().filter(|problem| problem.starts_with(&format!("{name} "))).count();
        assert_eq!(count, 1, "{name}: {named:#?}");
    }
    assert_eq!(named.len(), 27, "{named:#?}");
    assert!(!ran.stderr().contains("hunter2") && !ran.stderr().contains("aHVudGVyMg"), "{}", ran.stderr());
}

#[test]
fn the_issuer_s_url_has_one_spelling() {
    for (url, environment) in [
        ("https://issuer.example/", "development"),
        ("https://ISSUER.example", "development"),
        ("https://issuer.example:443", "development"),
        ("https://issuer.example?a", "development"),
        ("https://issuer.example#a", "development"),
        ("https://user@issuer.example", "development"),
        ("issuer.example", "development"),
        ("http://issuer.example", "production"),
    ] {
        let ran = Cli::new(URL).env("ISSUER_URL", url).env("COUNTERSIGN_ENV", environment).run(&["serve"]);
        let named = problems(&ran);
        assert!(named.len() == 1 && named[0].starts_with("ISSUER_URL must "), "{url}: {named:?}");
    }
    for (url, environment) in [
        ("http://127.0.0.1:3000", "production"),
        ("http://[::1]:3000", "production"),
        ("http://localhost:3000", "production"),
        ("http://issuer.example", "development"),
        ("https://issuer.example/a/b", "production"),
    ] {
        let cli = Cli::new(URL).env("ISSUER_URL", url).env("COUNTERSIGN_ENV", environment);
        let ran = cli.env("STARTUP_TIMEOUT_SECONDS", "1").run(&["serve"]);
        assert_eq!(ran.code(), Some(1), "{url} is fine, the database isn't: {}", ran.stderr());
    }
}

#[test]
fn origins_are_written_as_browsers_write_them() {
    for (origins, environment) in [
        ("https://app.example/", "production"),
        ("https://app.example/path", "production"),
        ("https://APP.example", "production"),
        ("https://app.example:443", "production"),
        ("https://*.example", "production"),
        ("http://app.example", "production"),
        ("app.example", "production"),
        ("null", "production"),
        ("https://app.example, *", "production"),
        ("ftp://app.example", "development"),
        ("*", "production"),
    ] {
        let cli = Cli::new(URL).env("CORS_ALLOWED_ORIGINS", origins).env("COUNTERSIGN_ENV", environment);
        let named = problems(&cli.run(&["serve"]));
        assert!(named.len() == 1 && named[0].starts_with("CORS_ALLOWED_ORIGINS "), "{origins}: {named:?}");
    }
}

#[test]
fn the_audience_is_not_the_issuer() {
    let ran = Cli::new(URL).env("DEFAULT_AUDIENCE", "https://issuer.example").run(&["bootstrap"]);
    assert!(problems(&ran)[0].starts_with("DEFAULT_AUDIENCE must not be ISSUER_URL"));
}

#[tokio::test]
async fn secrets_come_from_files_too() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let (url, key) = (File::new(&format!("{}\n", database.url)), File::new(MASTER_KEY));
    let cli = Cli::new("").without("DATABASE_URL").without("MASTER_KEY");
    let cli = cli.env("DATABASE_URL_FILE", url.path()).env("MASTER_KEY_FILE", key.path());
    cli.run(&["bootstrap"]).expect_success();

    let both = problems(&cli.clone().env("MASTER_KEY", MASTER_KEY).run(&["bootstrap"]));
    assert_eq!(both, ["MASTER_KEY and MASTER_KEY_FILE are both set: keep one"]);
    let missing = problems(&cli.clone().env("MASTER_KEY_FILE", "/nonexistent/key").run(&["bootstrap"]));
    assert!(missing.len() == 1 && missing[0].starts_with("MASTER_KEY_FILE: /nonexistent/key can't be read"));
    key.mode(0o644);
    let open = problems(&cli.run(&["bootstrap"]));
    let expected = format!(
        "MASTER_KEY_FILE: {} is open to everybody on this machine (mode 644): chmod 600 it",
        key.path()
    );
    assert_eq!(open, [expected]);
    key.mode(0o640);
    cli.run(&["bootstrap"]).expect_success();
    let empty = File::new(" \n");
    let empty = problems(&cli.env("MASTER_KEY_FILE", empty.path()).run(&["bootstrap"]));
    assert!(empty.len() == 1 && empty[0].ends_with("is empty"), "{empty:?}");
}

#[tokio::test]
async fn settings_come_from_a_toml_file_and_the_environment_wins() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let file = File::new(&format!(
        "database_url = \"{}\"\nmaster_key = \"{MASTER_KEY}\"\ndefault_audience = \"a\"\nport = 0\nlog_level = \"LOUD\"\n",
        database.url
    ));
    let from_file = Cli::bare().env("LOG_LEVEL", "ERROR");
    from_file.run(&["bootstrap", "--config", file.path()]).expect_success();
    from_file.env("COUNTERSIGN_CONFIG", file.path()).run(&["bootstrap"]).expect_success();
    assert!(
        problems(&Cli::bare().run(&["bootstrap", "--config", file.path()]))[0]
            .starts_with("LOG_LEVEL must be one of")
    );
}

#[test]
fn a_file_must_make_sense() {
    let named = |content: &str| {
        let file = File::new(content);
        problems(&Cli::new(URL).run(&["migrate", "--config", file.path()])).join("\n")
    };
    let unknown = named("databse_url = \"x\"\nport_file = \"x\"\nmaster_key_file = \"x\"\n");
    assert!(
        unknown.contains("the unknown setting `databse_url`")
            && unknown.contains("the unknown setting `port_file`")
    );
    assert!(!unknown.contains("master_key_file"));
    assert!(named("port = [1]").contains("`port` in"));
    let invalid = named("port = 1\nmaster_key = hunter2\n");
    assert!(invalid.contains("is not valid TOML: see line 2") && !invalid.contains("hunter2"), "{invalid}");
    let ran = Cli::new(URL).run(&["migrate", "--config", "/nonexistent.toml"]);
    assert!(problems(&ran)[0].starts_with("/nonexistent.toml can't be read"));
}

#[test]
fn a_publisher_is_configured_whole_or_not_at_all() {
    let cli = Cli::new(URL).env("KV_NAMESPACE_ID", "a/b").env("KV_ACCOUNT_ID", "account");
    let named = problems(&cli.run(&["serve"]));
    let starts = [
        "HUB_URL environment variable is required",
        "HUB_PUSH_SECRET environment variable is required",
        "KV_API_TOKEN environment variable is required with KV_ACCOUNT_ID",
        "KV_NAMESPACE_ID may have",
    ];
    assert_eq!(named.len(), starts.len(), "{named:?}");
    for (problem, start) in named.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem}");
    }
}

#[test]
fn beyond_the_loopback_the_admin_listener_has_a_token() {
    let cli = |address: &str| Cli::new(URL).env("ADMIN_ADDRESS", address);
    for address in ["0.0.0.0:9090", "[::]:9090", "192.0.2.1:9090"] {
        let named = problems(&cli(address).run(&["serve"]));
        assert!(
            named.len() == 1
                && named[0].starts_with("ADMIN_TOKEN environment variable is required with ADMIN_ADDRESS"),
            "{address}: {named:?}"
        );
        let ran =
            cli(address).env("ADMIN_TOKEN", ADMIN_TOKEN).env("STARTUP_TIMEOUT_SECONDS", "1").run(&["serve"]);
        assert_ne!(ran.code(), Some(78), "{}", ran.stderr());
    }
    let short = problems(&cli("127.0.0.1:0").env("ADMIN_TOKEN", &ADMIN_TOKEN[..31]).run(&["serve"]));
    assert!(short.len() == 1 && short[0].starts_with("ADMIN_TOKEN must have at least 32"), "{short:?}");
}

#[test]
fn production_takes_no_examples() {
    let weak = [
        // base64 of 32 zeros, of `0123456789abcdef0123456789abcdef`.
        ("MASTER_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ("MASTER_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
        ("ADMIN_TOKEN", "changeme-changeme-changeme-changeme"),
        ("ADMIN_TOKEN", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("DATABASE_URL", "postgres://postgres:postgres@127.0.0.1:1/none"),
        ("REDIS_URL", "redis://:changeme@127.0.0.1:1"),
    ];
    for (name, value) in weak {
        let cli = Cli::new(URL).env(name, value).env("STARTUP_TIMEOUT_SECONDS", "1");
        let ran = cli.run(&["serve"]);
        let named = problems(&ran);
        assert!(named.len() == 1 && named[0].contains(name) && named[0].contains("production"), "{named:?}");
        assert!(!ran.stderr().contains(value), "{name}");
        // A developer may.
        let ran = cli.env("COUNTERSIGN_ENV", "development").run(&["serve"]);
        assert_eq!(ran.code(), Some(1), "{name}: {}", ran.stderr());
    }
    // Out of a file it is the same.
    let file = File::new("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let cli = Cli::new(URL).without("MASTER_KEY").env("MASTER_KEY_FILE", file.path());
    assert!(problems(&cli.run(&["serve"]))[0].starts_with("MASTER_KEY isn't random"));
}

#[test]
fn metrics_are_guarded_in_production() {
    let named = |settings: &[(&str, &str)]| {
        let cli = settings.iter().fold(Cli::new(URL), |cli, (name, value)| cli.env(name, value));
        problems(&cli.run(&["serve"]))
    };
    for (settings, starts) in [
        (&[("METRICS_GUARD", "none")] as &[_], "METRICS_GUARD must not be `none` in production"),
        (&[("METRICS_GUARD", "open")], "METRICS_GUARD must be `none`, `secret` or `cidr`"),
        (&[("METRICS_GUARD", "secret")], "METRICS_SECRET environment variable is required with"),
        (
            &[("METRICS_GUARD", "secret"), ("METRICS_SECRET", "hunter2")],
            "METRICS_SECRET must have at least 32",
        ),
        (&[("METRICS_GUARD", "cidr")], "METRICS_ALLOWED_CIDRS environment variable is required with"),
        (
            &[("METRICS_GUARD", "cidr"), ("METRICS_ALLOWED_CIDRS", "10.0.0.0/33")],
            "METRICS_ALLOWED_CIDRS must be addresses",
        ),
        (
            &[("METRICS_GUARD", "cidr"), ("METRICS_ALLOWED_CIDRS", "0.0.0.0/0")],
            "METRICS_ALLOWED_CIDRS must not be every",
        ),
        (&[("METRICS_ENABLED", "yes")], "METRICS_ENABLED must be `true` or `false`"),
    ] {
        let named = named(settings);
        assert!(named.iter().any(|problem| problem.starts_with(starts)), "{starts}: {named:?}");
        assert!(!named.join("").contains("hunter2"));
    }
    let open = Cli::new(URL).env("METRICS_GUARD", "none").env("COUNTERSIGN_ENV", "development");
    assert_eq!(open.env("STARTUP_TIMEOUT_SECONDS", "1").run(&["serve"]).code(), Some(1));
}
