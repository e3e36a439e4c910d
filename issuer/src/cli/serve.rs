//! `countersign serve`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, info};

use super::Outcome;
use crate::app::App;
use crate::clients::{self, Background};
use crate::config::{Serve, Sources};
use crate::jobs::{self, Jobs};
use crate::keys::rotation::Rotation;
use crate::limits::{self, Upkeep};
use crate::publisher::{self, Publisher};
use crate::storage::Database;
use crate::{http, telemetry};

/// How long the publisher, the audit log and the database's connections may take to close, after the requests.
const CLOSING: Duration = Duration::from_secs(3);

pub(super) async fn run(sources: &Sources) -> Outcome {
    let config = Serve::from_sources(sources)?;
    telemetry::start(config.telemetry);
    panic::set_hook(Box::new(|panic| error!("{panic}")));
    let mut signals = Signals::listen()?;
    let running = tokio::select! {
        running = Running::start(&config) => running?,
        signal = signals.next() => {
            info!(signal, "stopped before the start was complete");
            return Ok(());
        }
    };
    let signal = signals.next().await; // not inside the macro: it evaluates nothing where INFO isn't logged
    info!(signal, "stopping");
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
    listeners: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Running {
    async fn start(config: &Serve) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        // Bound first: that a port is taken shows at once, not after a minute of waiting for the database.
        let public = bind(config.address, "PORT or HOST").await?;
        let admin = bind(config.admin_address, "ADMIN_ADDRESS").await?;
        let database = Database::connect(&config.database).await?;
        database.require_confinement().await?;
        let app = App::open(config, database).await?;
        let publisher = match &config.publisher {
            Some(publisher) => Some(publisher::start(&app, publisher)?),
            None => None,
        };
        let background = clients::start(&app).await;
        let limits = limits::start(&app);
        let jobs = jobs::start(&app.database, config.audit_retention);
        let (stop, stopping) = watch::channel(false);
        app.keys.watch(stopping.clone());
        let master = config.master_key.clone();
        Rotation::start(&app.database, master, config.signing, app.keys.clone(), stopping.clone());
        let mut listeners = JoinSet::new();
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
        let router = http::public(app.clone(), config.http.allowed_origins.clone());
        listeners.spawn(http::serve(public, router, connections.clone(), stopping.clone()));
        listeners.spawn(http::serve(admin, http::admin(app.clone()), connections, stopping));
        Ok(Self { app, background, publisher, limits, jobs, listeners, stop })
    }

    /// Takes no more requests, waits for those under way, ends the publisher and the audit log.
    async fn stop(mut self, patience: Duration) -> Outcome {
        _ = self.stop.send(true);
        let drained = timeout(patience, async { while self.listeners.join_next().await.is_some() {} }).await;
        self.listeners.abort_all();
        // Whatever the requests did, the publisher and the database get their end.
        let closed = timeout(CLOSING, async {
            if let Some(publisher) = self.publisher.take() {
                publisher.stop().await;
            }
            self.jobs.stop().await;
            self.background.stop().await;
            self.limits.stop().await;
            self.app.audit.stop().await;
            self.app.database.close().await;
        });
        let closed = closed.await;
        if drained.is_err() {
            let seconds = patience.as_secs();
            return Err(format!(
                "requests were still under way after SHUTDOWN_TIMEOUT_SECONDS ({seconds} s); they were cut off"
            )
            .into());
        }
        closed.map_err(|_| "the database's connections didn't close in time; they were cut off")?;
        info!("stopped");
        Ok(())
    }
}

async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{address} is in use by another process: stop that, or change {setting}")
        }
        _ => format!("can't listen on {address}: {error}; change {setting}"),
    })
}
