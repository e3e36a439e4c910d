//! Carrying revocations to the edge, and keys.
//!
//! One leader among all issuers ([`leader`]) reads the outbox, gives its rows their order, and makes of them base objects and heads
//! ([`artifacts`]). Couriers ([`courier`]), one for each sink ([`sinks`]), bring these where they belong and try until they have. An
//! object is in its store before a head names it. What is in the outbox is published sooner or later, whoever is restarted meanwhile.
//! Whenever the published keys change the leader makes a statement of them, too, and brings it to the hub.

mod artifacts;
mod courier;
mod leader;
mod sinks;
mod status;
mod term;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::config;

pub use status::{Report, Status};

/// A publisher at work.
pub struct Publisher {
    stop: watch::Sender<bool>,
    leader: JoinHandle<()>,
}

/// Starts it.
pub fn start(app: &Arc<App>, config: &config::Publisher) -> Result<Publisher, reqwest::Error> {
    let (stop, stopping) = watch::channel(false);
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(3))
        .redirect(reqwest::redirect::Policy::none()) // the secrets are for one address
        .build()?;
    let objects = Arc::new(sinks::KvStore::new(client.clone(), &config.kv));
    let heads = Arc::new(sinks::Hub::heads(client.clone(), config));
    let keys = Arc::new(sinks::Hub::keys(client, config));
    let task = leader::Task { app: app.clone(), objects, heads, keys };
    Ok(Publisher { stop, leader: tokio::spawn(task.run(stopping)) })
}

impl Publisher {
    /// Ends it. What isn't published yet stays in the outbox for the next leader.
    pub async fn stop(self) {
        _ = self.stop.send(true);
        _ = self.leader.await;
    }
}
