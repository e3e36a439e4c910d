//! What only the database knows, looked at now and then: no scrape asks it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::job_finished;
use crate::app::App;
use crate::clock;
use crate::domain::limit::Month;
use crate::storage::figures::{self, Figures};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(10);
/// What is older isn't shown any more.
const GOOD_FOR: Duration = Duration::from_mins(1);

/// What was found last.
#[derive(Default)]
pub struct Latest(Mutex<Option<(Figures, Instant)>>);

impl Latest {
    /// It, with its age; nothing where it is too old to go by.
    pub fn get(&self) -> (Option<Figures>, Option<Duration>) {
        let latest = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = latest.map(|(_, at)| at.elapsed());
        (latest.map(|(figures, _)| figures).filter(|_| age < Some(GOOD_FOR)), age)
    }

    fn set(&self, figures: Figures) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((figures, Instant::now()));
    }
}

/// Starts looking, until `stopping`.
pub fn start(app: &Arc<App>, mut stopping: watch::Receiver<bool>) {
    let app = app.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = look(&app) => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    });
}

async fn look(app: &App) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        let began = Instant::now();
        let found = figures::read(&app.database, Month::of(clock::now()), app.limits.free_tier()).await;
        job_finished("metrics_figures", began.elapsed(), found.is_ok());
        match found {
            Ok(found) => {
                app.figures.set(found);
                if std::mem::take(&mut failing) {
                    info!("metrics know of the database again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!("metrics don't know of the database: {error}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_is_not_shown_but_how_old_it_is() {
        let found = Figures {
            outbox: 1,
            audit_queue: 2,
            audit_queue_age: 3.0,
            tenants_near_quota: 4,
            tenants_at_quota: 5,
        };
        let latest = Latest::default();
        assert_eq!(latest.get(), (None, None));
        latest.set(found);
        assert_eq!(latest.get().0, Some(found));
        let Some(then) = Instant::now().checked_sub(GOOD_FOR) else { return };
        *latest.0.lock().unwrap() = Some((found, then));
        let (figures, age) = latest.get();
        assert_eq!(figures, None);
        assert!(age >= Some(GOOD_FOR));
    }
}
