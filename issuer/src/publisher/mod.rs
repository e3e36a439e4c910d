//! Carrying revocations to the edge, and keys.
//!
//! One leader among all issuers ([`leader`]) reads the outbox, gives its rows their order, and makes of them base objects and heads
//! ([`artifacts`]). Couriers ([`courier`]), one for each sink ([`sinks`], [`directory`]), bring these where they belong and try until they have;
//! [`route`] knows what is still on its way. An object is in its store before a head names it. What is in the outbox is published sooner or later,
//! whoever is restarted meanwhile. Whenever the published keys change the leader makes a statement of them, too, and brings it to the hub.
//!
//! The newest base stays in memory: the next one is made of it and of what came since. All rows are read once in a term ([`reading`]).

mod artifacts;
pub(crate) mod courier;
mod directory;
mod leader;
mod reading;
mod route;
pub(crate) mod sinks;
mod status;
mod term;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::config;

use directory::Directory;
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
    let into_directory = |root: &PathBuf| {
        let [objects, heads, keys] = Directory::doors(root.clone());
        leader::Doors { objects: Arc::new(objects), heads: Arc::new(heads), keys: Arc::new(keys) }
    };
    let (doors, mirror) = match config {
        config::Publisher::Edge(edge, directory) => {
            let edge = leader::Doors {
                objects: Arc::new(sinks::KvStore::new(client.clone(), &edge.kv)),
                heads: Arc::new(sinks::Hub::heads(client.clone(), edge)),
                keys: Arc::new(sinks::Hub::keys(client, edge)),
            };
            (edge, directory.as_ref().map(into_directory))
        }
        config::Publisher::Directory(root) => (into_directory(root), None),
    };
    let task = leader::Task { app: app.clone(), doors, mirror };
    Ok(Publisher { stop, leader: tokio::spawn(task.run(stopping)) })
}

impl Publisher {
    /// Ends it, when what is queued was published or a second is over. What isn't published then stays in the outbox for the next leader.
    pub async fn stop(self) {
        _ = self.stop.send(true);
        _ = self.leader.await;
    }
}
