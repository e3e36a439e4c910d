//! What limits do beside requests: carry away what has gathered.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::app::App;

/// How long giving back may take at a stop, when there may be no database any more.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often what is held and unused is given back.
const EVERY: Duration = Duration::from_secs(1);
/// How often monthly counts are carried to the hot state: a client that asks often is counted there once for all that it got meanwhile.
const CARRY: Duration = Duration::from_secs(5);

/// The tasks at work.
pub struct Upkeep {
    app: Arc<App>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

/// Starts them.
pub fn start(app: &Arc<App>) -> Upkeep {
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(until(stopping.clone(), carry(app.clone())));
    tasks.spawn(until(stopping, give_back(app.clone())));
    Upkeep { app: app.clone(), tasks, stop }
}

impl Upkeep {
    /// Ends them; gives back what is held. To be called when no request is under way any more.
    pub async fn stop(mut self) {
        _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
        let limits = &self.app.limits;
        let last = async {
            limits.monthly.flush(&*limits.hot).await;
            limits.quotas.give_back_all(&self.app.database).await;
        };
        if timeout(PATIENCE, last).await.is_err() {
            warn!("what was held of monthly quotas couldn't be given back in time, and counts as used");
        }
    }
}

async fn until(mut stopping: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
}

async fn carry(app: Arc<App>) {
    loop {
        sleep(CARRY).await;
        app.limits.monthly.flush(&*app.limits.hot).await;
    }
}

async fn give_back(app: Arc<App>) {
    loop {
        sleep(EVERY).await;
        app.limits.quotas.give_back_idle(&app.database).await;
    }
}
