//! `countersign serve`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use ipnet::{IpNet, Ipv4Net};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout, timeout_at};
use tracing::{error, info, warn};

use super::Outcome;
use crate::app::{App, OpenError};
use crate::clients::{self, Background};
use crate::config::{Environment, Problems, Serve, Sources, Tls};
use crate::jobs::{self, Jobs};
use crate::keys::rotation::Rotation;
use crate::limits::{self, Upkeep};
use crate::metrics::figures;
use crate::publisher::{self, Publisher};
use crate::storage::Database;
use crate::storage::schema::{self, Mismatch};
use crate::telemetry::{self, Logs};
use crate::{http, maintenance, traces};

/// How long the database's connections may take to close: a request that was cut off may hold one.
const DISCONNECTING: Duration = Duration::from_secs(1);
/// How long the publisher, the audit log and the database's connections may take to close, after the requests.
const CLOSING: Duration = Duration::from_secs(5);

pub(super) async fn run(sources: &Sources) -> Outcome {
    let config = Serve::from_sources(sources)?;
    // Held to the end: what is logged last is written then.
    let (logs, _writing) = telemetry::start_serving(config.telemetry, config.otlp.is_some())?;
    let logs = Arc::new(logs);
    if let Some(otlp) = &config.otlp {
        traces::start(otlp)?;
    }
    panic::set_hook(Box::new(|panic| error!("{panic}")));
    let mut signals = Signals::listen()?;
    let running = tokio::select! {
        running = Running::start(&config, logs) => running?,
        signal = signals.next() => {
            info!(signal, "stopped before the start was complete");
            return Ok(());
        }
    };
    let app = running.app.clone();
    let by = tokio::select! {
        signal = signals.next() => signal,
        by = app.lifecycle.asked() => by,
    };
    // From here on `/ready` says so, and who sends requests here has the delay's time to hear it.
    app.lifecycle.stop(by);
    let delay = config.shutdown_delay;
    info!(by, delay_seconds = delay.as_secs(), "stopping");
    tokio::select! {
        () = sleep(delay) => {}
        signal = signals.next() => info!(signal, "asked again: the rest of the delay is left out"),
    }
    running.stop(config.shutdown_timeout).await
}

/// What asks for a stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The issuer at work.
struct Running {
    app: Arc<App>,
    background: Background,
    publisher: Option<Publisher>,
    limits: Upkeep,
    jobs: Jobs,
    public: Listener,
    admin: Listener,
    stop: watch::Sender<bool>,
}

impl Running {
    async fn start(
        config: &Serve,
        logs: Arc<Logs>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let deadline = Instant::now() + config.database.startup_timeout;
        // Bound first: that a port is taken shows at once, not after a minute of waiting for the database.
        let public = bind(config.address, "PORT or HOST").await?;
        let admin = bind(config.admin.address, "ADMIN_ADDRESS").await?;
        let database = Database::connect(&config.database).await?;
        database.require_confinement().await?;
        migrated(&database, deadline).await?;
        let app = App::open(config, database).await?;
        let background = clients::start(&app).await;
        if config.telemetry.environment == Environment::Production {
            alone_or_shared(&app, deadline).await?;
        }
        let publisher = match &config.publisher {
            Some(publisher) => Some(publisher::start(&app, publisher)?),
            None => None,
        };
        let limits = limits::start(&app);
        let jobs = jobs::start(&app.database, config.audit_retention);
        let (stop, stopping) = watch::channel(false);
        app.keys.watch(stopping.clone());
        maintenance::start(&app, stopping.clone());
        if let Some(certificate) = &app.certificate {
            certificate.watch(stopping.clone());
        }
        if config.metrics.enabled {
            figures::start(&app, stopping.clone());
        }
        let master = config.master_key.clone();
        Rotation::start(&app.database, master, config.signing, app.keys.clone(), stopping);
        info!(address = %public.local_addr()?, admin_address = %admin.local_addr()?, issuer = config.issuer_url.as_str(), "listening");
        let mut unbounded = config.limits.trusted_proxies.networks().to_vec();
        unbounded.push(IpNet::from(Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8)));
        unbounded.push(IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        let connections = http::Connections {
            max: config.http.max_connections,
            max_per_ip: config.http.max_connections_per_ip,
            // Proxies stand for everybody; and who is on this machine could do worse.
            unbounded,
        };
        let router =
            http::public(app.clone(), config.http.allowed_origins.clone(), config.metrics.guard.clone());
        let public = Listener::start(public, router, connections.clone(), None);
        let operators =
            http::Operators { token: config.admin.token.clone(), metrics: config.metrics.enabled, logs };
        let router = http::admin(app.clone(), operators);
        let admin = Listener::start(admin, router, connections, config.admin.tls.clone());
        Ok(Self { app, background, publisher, limits, jobs, public, admin, stop })
    }

    /// Takes no more requests, waits for those under way, ends the publisher and the audit log. Whoever watches can do so until the requests are done.
    async fn stop(mut self, patience: Duration) -> Outcome {
        let drained = timeout(patience, self.public.stop()).await;
        self.public.abort();
        _ = self.stop.send(true);
        // Whatever the requests did, the publisher and the database get their end.
        let closed = timeout(CLOSING, async {
            let close = async {
                if let Some(publisher) = self.publisher.take() {
                    publisher.stop().await;
                }
                self.jobs.stop().await;
                self.background.stop().await;
                self.limits.stop().await;
                self.app.audit.stop().await;
                timeout(DISCONNECTING, self.app.database.close()).await
            };
            let watched = async {
                self.admin.stop().await;
                traces::stop().await;
            };
            tokio::join!(close, watched).0
        });
        let closed = closed.await;
        if drained.is_err() {
            let seconds = patience.as_secs();
            return Err(format!(
                "requests were still under way after SHUTDOWN_TIMEOUT_SECONDS ({seconds} s); they were cut off"
            )
            .into());
        }
        closed.flatten().map_err(|_| "the database's connections didn't close in time; they were cut off")?;
        info!("stopped");
        Ok(())
    }
}

/// A listener at work.
struct Listener {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Listener {
    fn start(
        listener: TcpListener,
        router: Router,
        connections: http::Connections,
        tls: Option<Tls>,
    ) -> Self {
        let (stop, stopping) = watch::channel(false);
        Self { task: tokio::spawn(http::serve(listener, router, connections, tls, stopping)), stop }
    }

    /// Takes no more connections; returns when the requests under way are answered.
    async fn stop(&mut self) {
        _ = self.stop.send(true);
        _ = (&mut self.task).await;
    }

    fn abort(&self) {
        self.task.abort();
    }
}

/// Waits for a schema that is about to be migrated: whoever starts everything at once needn't know an order.
async fn migrated(database: &Database, deadline: Instant) -> Result<(), OpenError> {
    let mut pause = Duration::from_millis(100);
    loop {
        match schema::require(database).await {
            Err(mismatch @ Mismatch::Behind) => {
                if Instant::now() + pause > deadline {
                    return Err(OpenError::Schema(mismatch));
                }
                warn!(retry_in_ms = pause.as_millis(), "{mismatch}");
            }
            checked => return checked.map_err(OpenError::Schema),
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Refuses to count for itself beside others. One that was killed just now may still hold its lock.
async fn alone_or_shared(app: &App, deadline: Instant) -> Result<(), Problems> {
    if app.replicas.may_be_several() || timeout_at(deadline.into(), app.replicas.settled()).await.is_ok() {
        return Ok(());
    }
    Err(Problems(vec![
        "REDIS_URL environment variable is required where several issuers are at work on one database, and another one is: without it each counts \
         requests and lockouts for itself. Set it for all of them, or stop the other one first"
            .to_owned(),
    ]))
}

async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{address} is in use by another process: stop that, or change {setting}")
        }
        _ => format!("can't listen on {address}: {error}; change {setting}"),
    })
}
