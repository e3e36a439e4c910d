//! Starting and stopping.

use std::net::TcpListener;
#[cfg(target_os = "linux")]
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use countersign_shared::Jti;
use reqwest::StatusCode;
use serde_json::json;

use crate::support::cli::{BINARY, Cli};
use crate::support::edge::{Edge, Mood};
use crate::support::file::File;
use crate::support::issuer::{Starting, claims};
use crate::support::proxy::{Line, Proxy};
use crate::support::{ADMIN_TOKEN, Issuer, TestDatabase, eventually};

#[tokio::test]
async fn a_taken_port_is_named_with_its_setting() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let cli = Cli::new(&database.url);
    let said = cli.clone().env("PORT", &address.port().to_string()).run(&["serve"]).expect_failure();
    assert_eq!(said, format!("{address} is in use by another process: stop that, or change PORT or HOST"));
    let said = cli.env("ADMIN_ADDRESS", &address.to_string()).run(&["serve"]).expect_failure();
    assert_eq!(said, format!("{address} is in use by another process: stop that, or change ADMIN_ADDRESS"));
}

/// Whatever limit it inherits. A shell under the same limit is dumped: so that shows.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_crash_leaves_no_dump_of_memory() {
    let folder = std::env::temp_dir().join(format!("countersign-dumps-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let abort = |pid: u32| {
        assert!(Command::new("kill").args(["-ABRT", &pid.to_string()]).status().unwrap().success());
    };
    // It waits for a database that isn't there.
    let cli = Cli::new("postgres://nobody@127.0.0.1:1/none");
    let inherited = cli.command(&[]);
    let inherited = inherited.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut under_limit = Command::new("/bin/sh");
    under_limit.current_dir(&folder).env_clear().envs(inherited).stderr(Stdio::null()).stdout(Stdio::null());
    under_limit.args(["-c", "ulimit -S -c unlimited && exec \"$@\"", "sh"]);
    let start = |command: &mut Command, arguments: &[&str]| command.args(arguments).spawn().unwrap();
    let mut sleeping = {
        let mut shell = Command::new("/bin/sh");
        shell.current_dir(&folder).args(["-c", "ulimit -S -c unlimited && exec \"$@\"", "sh"]);
        start(&mut shell, &["sleep", "20"])
    };
    let mut issuer = start(&mut under_limit, &[BINARY, "serve"]);
    // The soft limit and the hard one.
    let limits = |pid: u32| {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
        let line =
            limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap_or_default();
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    eventually("no dump is allowed", 10, async || (limits(issuer.id()) == "0 0").then_some(())).await;
    eventually("one is", 10, async || limits(sleeping.id()).starts_with("unlimited").then_some(())).await;
    for process in [&issuer, &sleeping] {
        abort(process.id());
    }
    let ended = [issuer.wait().unwrap(), sleeping.wait().unwrap()];
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(ended.map(|status| status.signal()), [Some(6); 2]);
    assert_eq!(ended.map(|status| status.core_dumped()), [false, true]);
}

#[tokio::test]
async fn a_missing_database_is_named_and_waited_for() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let (proxy, url) = Proxy::before(&database.url, Line::Cut).await;
    let url = url.replacen("postgres@", "postgres:hunter2@", 1);
    let starting = Starting::spawn(&Cli::new(&url));
    let line = eventually("it says that the database is missing", 5, async || {
        starting.log().lines().find(|line| line.contains("PostgreSQL at")).map(str::to_owned)
    })
    .await;
    assert!(line.contains(&proxy.address.to_string()) && line.contains("retry_in_ms"), "{line}");
    assert!(!starting.log().contains("hunter2"));
    proxy.set(Line::Open);
    let issuer = starting.ready(database.into(), administrator).await;
    assert_eq!(issuer.get("/ready").send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_database_that_does_not_come_ends_the_start_with_one_line() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cli = Cli::new(&format!("postgres://user:hunter2@{free}/none")).env("STARTUP_TIMEOUT_SECONDS", "1");
    let started = Instant::now();
    let ran = cli.run(&["serve"]);
    assert!((0.5..5.0).contains(&started.elapsed().as_secs_f64()));
    let said = ran.expect_failure();
    assert!(said.starts_with(&format!("PostgreSQL at {free} can't be reached: ")), "{said}");
    assert!(said.ends_with(": start it, or correct DATABASE_URL"), "{said}");
    assert!(!ran.stderr().contains("hunter2"));
}

#[tokio::test]
async fn stops_while_still_starting() {
    let (proxy, url) = Proxy::before(&TestDatabase::empty().await.url, Line::Cut).await;
    let starting = Starting::spawn(&Cli::new(&url));
    eventually("it is starting", 5, async || starting.log().contains("PostgreSQL at").then_some(())).await;
    assert_eq!(starting.terminate().code(), Some(0));
    drop(proxy);
}

#[tokio::test]
async fn stops_at_once_when_idle() {
    for signal in ["TERM", "INT"] {
        let mut issuer = Issuer::start().await;
        issuer.token(&issuer.administrator).await; // leaves a connection that is kept alive
        issuer.signal(signal);
        assert_eq!(issuer.wait(Duration::from_secs(5)).code(), Some(0), "{signal}");
        assert!(issuer.get("/health").send().await.is_err());
    }
}

#[tokio::test]
async fn the_log_s_level_changes_only_the_log() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let quiet = Cli::new(&database.url).env("LOG_LEVEL", "ERROR").env("PORT", &port.to_string());
    let serving = Starting::spawn(&quiet);
    let url = format!("http://127.0.0.1:{port}/ready");
    eventually("it serves", 10, async || reqwest::get(&url).await.ok()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(reqwest::get(&url).await.unwrap().status(), StatusCode::OK);
    assert_eq!(serving.log(), "");
    assert_eq!(serving.terminate().code(), Some(0));
}

/// A request that waits in the database until the returned transaction ends.
async fn held_request(
    issuer: &Issuer,
) -> (sqlx::Transaction<'static, sqlx::Postgres>, tokio::task::JoinHandle<reqwest::Result<reqwest::Response>>)
{
    let token = issuer.management_token(&issuer.administrator).await;
    let mut transaction = issuer.database.pool.begin().await.unwrap();
    sqlx::query("select from agents for update").execute(&mut *transaction).await.unwrap();
    let path = format!("/api/v1/agents/{}/credentials", issuer.administrator.id);
    let request = tokio::spawn(issuer.post(&path).bearer_auth(token).json(&json!({})).send());
    eventually("the request waits for the lock", 5, async || {
        let waiting: i64 = issuer
            .database
            .value("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")
            .await;
        (waiting > 0).then_some(())
    })
    .await;
    (transaction, request)
}

/// Once the issuer takes no more connections.
async fn no_more_connections(issuer: &Issuer) {
    let address = issuer.url.trim_start_matches("http://");
    eventually("no more connections are taken", 5, async || {
        tokio::net::TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn requests_under_way_are_answered_before_it_ends() {
    let mut issuer = Issuer::start().await;
    let (transaction, request) = held_request(&issuer).await;
    issuer.signal("TERM");
    no_more_connections(&issuer).await;
    transaction.rollback().await.unwrap();
    assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::CREATED);
    assert_eq!(issuer.wait(Duration::from_secs(5)).code(), Some(0));
}

#[tokio::test]
async fn a_stop_has_a_limit() {
    let mut issuer = Issuer::start_with(|cli| cli.env("SHUTDOWN_TIMEOUT_SECONDS", "1")).await;
    let (transaction, request) = held_request(&issuer).await;
    let started = Instant::now();
    issuer.signal("TERM");
    assert_eq!(issuer.wait(Duration::from_secs(4)).code(), Some(1));
    assert!(started.elapsed() > Duration::from_millis(900));
    issuer.logged("SHUTDOWN_TIMEOUT_SECONDS").await;
    assert!(!request.await.unwrap().is_ok_and(|response| response.status().is_success()));
    drop(transaction);
}

/// It has something to say at its end, to a reader that takes nothing any more.
#[tokio::test]
async fn its_end_waits_for_nobody_who_reads_why() {
    let mut issuer = Issuer::start_with(|cli| cli.env("SHUTDOWN_TIMEOUT_SECONDS", "1")).await;
    let (transaction, _request) = held_request(&issuer).await;
    let unread = issuer.unread();
    for _ in 0..20 {
        // Each is a line: more than a pipe holds.
        let asked = (0..100).map(|_| issuer.get("/.well-known/jwks.json").send());
        assert!(futures_util::future::join_all(asked).await.iter().all(Result::is_ok));
    }
    issuer.signal("TERM");
    assert_eq!(issuer.wait(Duration::from_secs(6)).code(), Some(1));
    drop(unread);
    drop(transaction);
}

/// Compiled in by `.cargo/config.toml`, which a build from elsewhere wouldn't see.
#[cfg(target_os = "linux")]
#[test]
fn its_allocator_is_set_up_as_measured() {
    let said = Cli::bare().env("_RJEM_MALLOC_CONF", "stats_print:true").run(&["--version"]).stderr();
    assert!(
        said.contains("opt.dirty_decay_ms: 1000") && said.contains("opt.percpu_arena: \"disabled\""),
        "{said}"
    );
    let arenas = std::thread::available_parallelism().unwrap();
    assert!(said.contains(&format!("opt.narenas: {arenas}\n")), "{said}");
}

/// What `/ready` says, and on the admin listener too.
async fn readiness(issuer: &Issuer) -> [(StatusCode, serde_json::Value); 2] {
    let ask = async |url: String| {
        let answer = issuer.http.get(url).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    };
    [ask(format!("{}/ready", issuer.url)).await, ask(format!("{}/readyz", issuer.admin_url)).await]
}

#[tokio::test]
async fn before_a_stop_it_says_that_it_is_not_ready_and_goes_on_serving() {
    let mut issuer = Issuer::start_with(|cli| cli.env("SHUTDOWN_DELAY_SECONDS", "2")).await;
    assert_eq!(readiness(&issuer).await.map(|(status, _)| status), [StatusCode::OK; 2]);
    let asked = Instant::now();
    let answer = issuer.http.post(format!("{}/shutdown", issuer.admin_url)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    // At once: an answer of a moment ago isn't given again.
    for (status, body) in readiness(&issuer).await {
        assert_eq!((status, &body["status"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("stopping")));
    }
    while asked.elapsed() < Duration::from_millis(1500) {
        issuer.token(&issuer.administrator).await;
        assert_eq!(issuer.get("/health").send().await.unwrap().status(), StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(issuer.wait(Duration::from_secs(8)).code(), Some(0));
    assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn asked_again_it_does_not_wait_for_the_delay() {
    let mut issuer = Issuer::start_with(|cli| cli.env("SHUTDOWN_DELAY_SECONDS", "60")).await;
    issuer.signal("TERM");
    eventually("it is stopping", 5, async || {
        (readiness(&issuer).await[0].1["status"] == "stopping").then_some(())
    })
    .await;
    issuer.signal("INT");
    assert_eq!(issuer.wait(Duration::from_secs(8)).code(), Some(0));
}

#[tokio::test]
async fn while_requests_are_under_way_it_can_still_be_watched() {
    let mut issuer = Issuer::start().await;
    let (transaction, request) = held_request(&issuer).await;
    issuer.signal("TERM");
    no_more_connections(&issuer).await;
    let live = issuer.http.get(format!("{}/livez", issuer.admin_url)).send().await.unwrap();
    assert_eq!(live.status(), StatusCode::OK);
    transaction.rollback().await.unwrap();
    assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::CREATED);
    assert_eq!(issuer.wait(Duration::from_secs(8)).code(), Some(0));
}

/// What is revoked while the edge doesn't answer reaches it after all, though nobody else is there to take over.
#[tokio::test]
async fn what_was_revoked_just_before_a_stop_is_at_the_edge() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let edge = Edge::start(&database.url).await;
    let mut issuer = Issuer::start_on(database.into(), administrator, |cli| edge.configure(cli)).await;
    let token = issuer.token(&issuer.administrator).await;
    let jti: Jti = claims(&token)["jti"].as_str().unwrap().parse().unwrap();
    eventually("the first head is there", 10, async || edge.revoked_set()).await;
    edge.set_hub(Mood::Failing);
    issuer.revoke(&issuer.administrator, &token).await;
    issuer.signal("TERM");
    no_more_connections(&issuer).await;
    // Longer than everything else takes that has to end.
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!edge.revoked_set().unwrap().contains(jti.coordinate()));
    edge.set_hub(Mood::Fine);
    edge.refuses(jti).await;
    assert_eq!(issuer.wait(Duration::from_secs(5)).code(), Some(0));
}

#[tokio::test]
async fn the_admin_listener_wants_its_token_where_there_is_one() {
    let mut issuer = Issuer::start_with(|cli| cli.env("ADMIN_TOKEN", ADMIN_TOKEN)).await;
    let shutdown = || issuer.http.post(format!("{}/shutdown", issuer.admin_url));
    // Probes are for whoever watches the process.
    for path in ["livez", "readyz"] {
        let probe = issuer.http.get(format!("{}/{path}", issuer.admin_url)).send().await.unwrap();
        assert_eq!(probe.status(), StatusCode::OK);
    }
    let wrong = ADMIN_TOKEN.replace('b', "c");
    let refused = [
        shutdown(),
        shutdown().bearer_auth(&wrong),
        shutdown().bearer_auth(&ADMIN_TOKEN[1..]),
        shutdown().basic_auth("admin", Some(ADMIN_TOKEN)),
    ];
    for request in refused {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
    }
    // A page in a browser on this machine may send such a request, and can't hide that it is one.
    for (name, value) in [("origin", "http://127.0.0.1:9090"), ("sec-fetch-site", "cross-site")] {
        let answer = shutdown().bearer_auth(ADMIN_TOKEN).header(name, value).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{name}");
    }
    assert_eq!(issuer.get("/ready").send().await.unwrap().status(), StatusCode::OK);
    let answer = shutdown().bearer_auth(ADMIN_TOKEN).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(issuer.wait(Duration::from_secs(8)).code(), Some(0));
    issuer.logged("\"stopped\"").await; // the last line
    let log = issuer.log();
    assert!(log.contains("without its token") && !log.contains(ADMIN_TOKEN) && !log.contains(&wrong));
}

#[tokio::test]
async fn the_admin_listener_speaks_tls_where_it_has_a_certificate() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (File::new(&made.cert.pem()), File::new(&made.signing_key.serialize_pem()));
    let settings =
        |cli: Cli| cli.env("ADMIN_TLS_CERTIFICATE", certificate.path()).env("ADMIN_TLS_KEY", key.path());
    let issuer = Issuer::start_with(settings).await;
    let port = issuer.admin_url.rsplit_once(':').unwrap().1;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
    let trusting = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()])
        .resolve("localhost", address)
        .build()
        .unwrap();
    let url = format!("https://localhost:{port}/readyz");
    let answer = trusting.get(&url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    // Who doesn't know the certificate, or speaks in the clear, gets nothing; and holds nobody up.
    let stranger = reqwest::Client::builder().resolve("localhost", address).build().unwrap();
    assert!(stranger.get(&url).send().await.is_err());
    assert!(issuer.http.get(format!("{}/readyz", issuer.admin_url)).send().await.is_err());
    let _silent = tokio::net::TcpStream::connect(address).await.unwrap();
    assert_eq!(trusting.get(&url).send().await.unwrap().status(), StatusCode::OK);

    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = File::new(&other.signing_key.serialize_pem());
    let refused = |cli: Cli| {
        let ran = cli.run(&["serve"]);
        assert_eq!(ran.code(), Some(78), "{}", ran.stderr());
        ran.stderr()
    };
    let cli = || settings(Cli::new(&issuer.database.url));
    let said = refused(cli().env("ADMIN_TLS_KEY", other.path()));
    assert!(said.contains("ADMIN_TLS_CERTIFICATE and ADMIN_TLS_KEY don't go together"), "{said}");
    let said = refused(cli().env("ADMIN_TLS_KEY", certificate.path()));
    assert!(said.contains("has no unencrypted private key"), "{said}");
    let said = refused(cli().env("ADMIN_TLS_CERTIFICATE", key.path()));
    assert!(said.contains("has no certificate"), "{said}");
    key.mode(0o644);
    let said = refused(cli());
    assert!(said.contains("is open to everybody"), "{said}");
}

#[tokio::test]
async fn a_replaced_certificate_is_taken_up_and_a_bad_one_is_not() {
    let make = |days: i64| {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
        let key = rcgen::KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let ((first, first_key), (second, second_key)) = (make(90), make(30));
    let (certificate, key) = (File::new(&first), File::new(&first_key));
    let issuer = Issuer::start_with(|cli| {
        cli.env("ADMIN_TLS_CERTIFICATE", certificate.path()).env("ADMIN_TLS_KEY", key.path())
    })
    .await;
    let port = issuer.admin_url.rsplit_once(':').unwrap().1;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
    // A new connection for each: an open one shows what it showed.
    let page = async |trusted: &str, path: &str| {
        let client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(trusted.as_bytes()).unwrap()])
            .resolve("localhost", address)
            .build()
            .unwrap();
        client.get(format!("https://localhost:{port}{path}")).send().await.ok()?.text().await.ok()
    };
    let metric = async |trusted: &str, name: &str| {
        let text = page(trusted, "/metrics").await?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
    };
    let days = "countersign_certificate_days_to_expiry ";
    assert!((89.0..90.1).contains(&metric(&first, days).await.unwrap()));
    assert!(page(&second, "/livez").await.is_none());

    // The key alone: the two don't go together, and it goes on as before.
    std::fs::write(key.path(), &second_key).unwrap();
    // Two looks, five seconds apart.
    let logged = async |text: &str| {
        eventually(text, 20, async || {
            issuer.log().lines().find(|line| line.contains(text)).map(str::to_owned)
        })
        .await
    };
    let line = logged("the admin listener's new certificate can't be used").await;
    assert!(line.contains("ERROR") && line.contains("don't go together"), "{line}");
    assert_eq!(metric(&first, "countersign_certificate_stuck ").await, Some(1.0));
    // And its certificate: taken up, without a restart.
    std::fs::write(certificate.path(), &second).unwrap();
    eventually("the new certificate is shown", 20, async || page(&second, "/livez").await).await;
    assert!(page(&first, "/livez").await.is_none());
    assert!((29.0..30.1).contains(&metric(&second, days).await.unwrap()));
    assert_eq!(metric(&second, "countersign_certificate_stuck ").await, Some(0.0));
    logged("the admin listener's certificate was replaced").await;

    // So does who is asked whether all is well, from the files.
    let doctor = |certificate: &str, key: &str| {
        let (certificate, key) = (File::new(certificate), File::new(key));
        let cli = Cli::new(&issuer.database.url);
        cli.env("ADMIN_TLS_CERTIFICATE", certificate.path())
            .env("ADMIN_TLS_KEY", key.path())
            .run(&["doctor"])
            .stdout()
    };
    assert!(doctor(&second, &second_key).contains("the admin listener's ends in 29 days"));
    let (last_days, last_key) = make(3);
    assert!(
        doctor(&last_days, &last_key).contains("certificate: replace the files of ADMIN_TLS_CERTIFICATE")
    );

    // One that has ended already is worse than what there is; and so is none.
    let (ended, ended_key) = make(-1);
    std::fs::write(certificate.path(), &ended).unwrap();
    std::fs::write(key.path(), &ended_key).unwrap();
    eventually("it is refused", 20, async || issuer.log().contains(" ended at ").then_some(())).await;
    std::fs::remove_file(certificate.path()).unwrap();
    eventually("it is missed", 80, async || issuer.log().contains("can't be read").then_some(())).await;
    assert_eq!(metric(&second, "countersign_certificate_stuck ").await, Some(1.0));
    // What was there before.
    std::fs::write(certificate.path(), &second).unwrap();
    std::fs::write(key.path(), &second_key).unwrap();
    logged("have again what is served").await;
    for secret in [&first_key, &second_key, &ended_key] {
        assert!(secret.lines().all(|line| line.starts_with('-') || !issuer.log().contains(line)));
    }
}

/// With a second thread: while a command runs, the proxy goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_says_by_its_status_whether_the_issuer_lives_and_is_ready() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let (proxy, url) = Proxy::before(&database.url, Line::Open).await;
    let mut issuer =
        Issuer::start_on(database.into(), administrator, |cli| cli.env("DATABASE_URL", &url)).await;
    let port = issuer.url.rsplit_once(':').unwrap().1.to_owned();
    // It needs nothing of the configuration but where the listener is; one for all addresses is there by the loopback.
    let cli = Cli::bare().env("PORT", &port).env("HOST", "0.0.0.0").env("HTTP_PROXY", "http://127.0.0.1:1");
    eventually("it is ready", 20, async || (issuer.ready().await.0 == StatusCode::OK).then_some(())).await;
    for what in [&["probe"][..], &["probe", "live"], &["probe", "ready"]] {
        assert_eq!(cli.run(what).expect_success(), "");
    }
    proxy.set(Line::Cut);
    eventually("it isn't ready", 10, async || {
        let ran = cli.run(&["probe", "ready"]);
        (ran.code() == Some(1))
            .then(|| assert!(ran.expect_failure().contains("says 503: "), "{}", ran.stderr()))
    })
    .await;
    cli.run(&["probe", "live"]).expect_success();
    issuer.stop();
    assert!(cli.run(&["probe", "live"]).expect_failure().contains("can't be reached"));
    // One that takes the connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let cli = cli.env("PORT", &silent.local_addr().unwrap().port().to_string());
    let began = std::time::Instant::now();
    let said = cli.run(&["probe", "--timeout", "1"]).expect_failure();
    assert!(said.contains("doesn't answer within 1 s") && began.elapsed() < Duration::from_secs(4), "{said}");
    assert_eq!(cli.env("PORT", "x").run(&["probe"]).code(), Some(1));
}

#[tokio::test]
async fn a_schema_that_is_migrated_meanwhile_is_waited_for() {
    let database = TestDatabase::empty().await;
    let cli = Cli::new(&database.url);
    let starting = Starting::spawn(&cli);
    eventually("it waits", 5, async || starting.log().contains("run: countersign migrate").then_some(()))
        .await;
    cli.run(&["migrate"]).expect_success();
    let (_, administrator) = TestDatabase::bootstrapped().await; // of another database: nobody asks for it here
    let issuer = starting.ready(database.into(), administrator).await;
    assert_eq!(issuer.get("/ready").send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn without_redis_production_has_one_issuer() {
    let mut alone = Issuer::start_with(|cli| cli.without("REDIS_URL")).await;
    let another = |cli: Cli| cli.env("STARTUP_TIMEOUT_SECONDS", "2").without("REDIS_URL");
    let ran = another(Cli::new(&alone.database.url)).run(&["serve"]);
    assert_eq!(ran.code(), Some(78), "{}", ran.stderr());
    assert!(
        ran.stderr().contains("  REDIS_URL environment variable is required where several"),
        "{}",
        ran.stderr()
    );
    assert_eq!(alone.ready().await.1["checks"]["hot_state"]["status"], "ok");

    // One that shares may come to replace it, and says what it thinks of that.
    let shared = Issuer::start_on(alone.database.clone(), alone.administrator.clone(), |cli| cli).await;
    shared.logged("another issuer on this database has no REDIS_URL").await;
    let (status, body) = shared.ready().await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("degraded")));
    assert_eq!(body["degraded"], json!(["hot_state"]));
    assert!(alone.stop().success());
    eventually("it is well", 5, async || (shared.ready().await.1["status"] == "ready").then_some(())).await;

    // Beside those that share there is none that doesn't.
    let ran = another(Cli::new(&shared.database.url)).run(&["serve"]);
    assert_eq!(ran.code(), Some(78), "{}", ran.stderr());
    // One that was killed holds nothing up.
    drop(shared);
    let database = alone.database.clone();
    let next = Issuer::start_on(database, alone.administrator.clone(), another).await;
    assert_eq!(next.ready().await.1["checks"]["hot_state"]["limits"], "per_process");
}
