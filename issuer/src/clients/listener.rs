//! The tasks beside the requests: one hears what changed, one writes down when credentials were used and confirms rules.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_shared::{AgentId, TenantId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use crate::app::App;
use crate::clock;
use crate::storage::changes::Listening;
use crate::storage::{Database, StorageError, limits, maintenance, not_before, serials};

/// How often the database is asked for a sign of life.
const PING: Duration = Duration::from_millis(250);
/// How long after a lost connection another is tried.
const RETRY: Duration = Duration::from_millis(250);
/// How long a start waits until somebody listens.
const FIRST: Duration = Duration::from_secs(1);
/// How often the lock is tried that says whether others are at work, while it isn't had.
const CLAIM: Duration = Duration::from_secs(1);
/// How often uses are written.
const WRITE_USES: Duration = Duration::from_secs(10);
/// How often rules are looked for that another process left unconfirmed.
const CONFIRM_RULES: Duration = Duration::from_secs(5);

type Handler = Box<dyn Fn(&str) + Send + Sync>;

/// What is done about announcements (`storage/changes.rs`), by their kind. A handler must be quick: nothing else is heard meanwhile.
///
/// An announcement reaches a process at most once, and not at all while its connection is lost. The client records are emptied then; whoever
/// else keeps something has to bear that.
#[derive(Default)]
pub struct Dispatch(Vec<(&'static str, Handler)>);

impl Dispatch {
    /// Has `handler` called with the id of every announcement `<kind>:<id>`.
    #[must_use]
    pub fn on(mut self, kind: &'static str, handler: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.0.push((kind, Box::new(handler)));
        self
    }

    /// Kinds that nobody asked for are passed over: a newer release may know more.
    fn deliver(&self, payload: &str) {
        let Some((kind, id)) = payload.split_once(':') else { return };
        self.0.iter().filter(|(known, _)| *known == kind).for_each(|(_, handler)| handler(id));
    }
}

/// The announcements that the client records, the keys and the limits go by.
fn dispatch(app: &Arc<App>) -> Dispatch {
    let (agents, tenants, all, keys, leases, switched) =
        (app.clone(), app.clone(), app.clone(), app.clone(), app.clone(), app.clone());
    let base = limits::KINDS.into_iter().fold(Dispatch::default(), |dispatch, kind| {
        let app = app.clone();
        dispatch.on(kind, move |id| {
            let Some(announcement) = limits::Announcement::parse(kind, id) else { return };
            let app = app.clone();
            tokio::spawn(async move { app.limits.heard(&app.database, announcement).await });
        })
    });
    base.on("agent", move |id| match id.parse::<AgentId>() {
        Ok(agent) => agents.clients.agent_changed(agent),
        Err(_) => agents.clients.all_changed(),
    })
    .on("tenant", move |id| match id.parse::<TenantId>() {
        Ok(tenant) => tenants.clients.tenant_changed(tenant),
        Err(_) => tenants.clients.all_changed(),
    })
    .on("all", move |_| all.clients.all_changed())
    .on("keys", move |_| keys.keys.changed())
    .on(serials::CHANGED, move |_| leases.serials.forget())
    .on(maintenance::CHANGED, move |_| switched.maintenance.changed())
}

/// The running tasks.
pub struct Background {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

/// Starts them, and waits a moment until changes are heard: else the first requests would find the records bypassed.
pub async fn start(app: &Arc<App>) -> Background {
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(listen(app.clone(), dispatch(app), stopping.clone()));
    tasks.spawn(keep_house(app.clone(), stopping));
    let deadline = Instant::now() + FIRST;
    while !app.clients.is_current() && Instant::now() < deadline {
        sleep(Duration::from_millis(5)).await;
    }
    Background { tasks, stop }
}

impl Background {
    /// Ends them, when what is still to be written is.
    pub async fn stop(mut self) {
        _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn listen(app: Arc<App>, dispatch: Dispatch, mut stopping: watch::Receiver<bool>) {
    let listening = async {
        let mut outage = false;
        loop {
            let Err(error) = follow(&app, &dispatch, &mut outage).await;
            app.clients.lost();
            if !outage {
                warn!("changes can't be heard, so every client record is read from the database: {error}");
            }
            outage = true; // said once
            sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = listening => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
}

/// Hears what is announced, for as long as the connection lasts and answers in time.
async fn follow(app: &App, dispatch: &Dispatch, outage: &mut bool) -> Result<Infallible, StorageError> {
    let mut listening = Listening::open(&app.database).await?;
    // What was announced before is unknown.
    app.clients.all_changed();
    app.serials.forget();
    app.maintenance.changed();
    let shared = app.replicas.may_be_several();
    let mut claimed = listening.claim(shared).await?;
    app.replicas.claimed(claimed);
    let mut claim = Instant::now();
    let mut pings = interval(PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            payload = listening.next() => dispatch.deliver(&payload?),
            _ = pings.tick() => {
                let (asked, clock) = (Instant::now(), clock::millis());
                let theirs = listening.ping().await?;
                app.clients.compare_clocks(clock, asked, theirs);
                // First this, then the sign of life: it says that all of it was taken in.
                while let Some(payload) = listening.arrived() {
                    dispatch.deliver(&payload);
                }
                app.clients.renew(asked);
                if std::mem::take(outage) {
                    info!("changes are heard again");
                }
                if !claimed && claim.elapsed() >= CLAIM {
                    claim = Instant::now();
                    claimed = listening.claim(shared).await?;
                    app.replicas.claimed(claimed);
                }
            }
        }
    }
}

/// Writes uses of credentials, confirms rules that were left unconfirmed; at the stop, writes the uses that are left.
async fn keep_house(app: Arc<App>, mut stopping: watch::Receiver<bool>) {
    let work = async {
        let (mut writes, mut rules) = (interval(WRITE_USES), interval(CONFIRM_RULES));
        for ticks in [&mut writes, &mut rules] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                _ = writes.tick() => app.uses.write(&app.database).await,
                _ = rules.tick() => confirm_rules(&app.database).await,
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    app.uses.write(&app.database).await;
}

async fn confirm_rules(database: &Database) {
    if let Err(error) = not_before::confirm_abandoned(database).await {
        warn!("rules that another process left unconfirmed aren't looked at: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn announcements_reach_those_who_asked() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let note = |kind: &'static str| {
            let heard = heard.clone();
            move |id: &str| heard.lock().unwrap().push((kind, id.to_owned()))
        };
        let dispatch = Dispatch::default().on("a", note("a")).on("b", note("b")).on("a", note("a again"));
        for payload in ["a:1", "b:", "c:2", "nothing", "a:1:2"] {
            dispatch.deliver(payload);
        }
        let expected = [("a", "1"), ("a again", "1"), ("b", ""), ("a", "1:2"), ("a again", "1:2")];
        assert_eq!(*heard.lock().unwrap(), expected.map(|(kind, id)| (kind, id.to_owned())));
    }
}
