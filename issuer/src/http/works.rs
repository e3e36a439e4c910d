//! Requests in the works: so many at once and no more, so that those that were taken are answered in good time however many come.
//!
//! What is beyond it is turned away at once, before anything was done for it. Not counted is what costs nothing and is needed most when there is too much to
//! do: probes, keys, metadata. What takes tokens back has places of its own beside the others'. A request that waits for its body has no place meanwhile:
//! who sends slowly keeps nobody else out.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::warn;

use super::bounds::COMPLAINT_INTERVAL;
use super::error::ApiError;
use super::{is_oauth, oauth, respond};
use crate::app::App;
use crate::clients::Clock;
use crate::{clock, metrics};

/// One part in so many is added for what takes tokens back.
pub(super) const SPARE: usize = 8;

tokio::task_local! {
    static PLACE: Place;
}

/// How many requests there are, and may be.
pub struct Works {
    max: usize,
    taken: Arc<AtomicUsize>,
    /// When the log last said that some were turned away, in milliseconds.
    complained: AtomicU64,
}

impl Works {
    /// With room for `max`.
    pub fn new(max: usize) -> Self {
        Self { max, taken: Arc::default(), complained: AtomicU64::default() }
    }

    /// How many there are.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn place(&self, path: &str) -> Option<Place> {
        let ends = matches!(path, "/oauth2/v1/revoke" | "/api/v1/token/revoke" | "/api/v1/revocations");
        let max = if ends { self.max + self.max.div_ceil(SPARE) } else { self.max };
        let place =
            Place { taken: self.taken.clone(), max, held: Cell::new(false), refused: Cell::new(false) };
        place.take().then_some(place)
    }

    fn refuse(&self, oauth: bool) -> Response {
        metrics::turned_away();
        let (now, complained) = (clock::millis(), self.complained.load(Ordering::Relaxed));
        let due = now.saturating_sub(complained) > COMPLAINT_INTERVAL.as_millis().try_into().unwrap_or(0);
        let first = due
            && self
                .complained
                .compare_exchange(complained, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if first {
            warn!(max = self.max, "requests are turned away: MAX_REQUESTS are in the works already");
        }
        if oauth { oauth::turned_away(&ApiError::Overloaded) } else { ApiError::Overloaded.into_response() }
    }
}

/// One request's place among those in the works.
struct Place {
    taken: Arc<AtomicUsize>,
    max: usize,
    held: Cell<bool>,
    /// There was no room any more when its body had come.
    refused: Cell<bool>,
}

impl Place {
    fn take(&self) -> bool {
        let has_room = self.taken.fetch_add(1, Ordering::Relaxed) < self.max;
        if !has_room {
            self.taken.fetch_sub(1, Ordering::Relaxed);
        }
        self.held.set(has_room);
        has_room
    }

    fn leave(&self) {
        if self.held.take() {
            self.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Lets a request in, or turns it away: because there are too many, or because this host's clock is wrong.
pub(super) async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !is_counted(path) {
        return next.run(request).await;
    }
    let oauth = is_oauth(path);
    // By a wrong clock a valid token seems to have expired or to be of the future, and a rule ends too much or too little. What takes back one token needs none.
    if !matches!(path, "/oauth2/v1/revoke" | "/api/v1/token/revoke") {
        let wrong = match app.clients.clock() {
            Clock::Right => None,
            Clock::Ahead => Some("ahead of"),
            Clock::Behind => Some("behind"),
        };
        if let Some(wrong) = wrong {
            let cause = format!("this host's clock is {wrong} the database's: set it right");
            return respond(ApiError::Unavailable(cause), path);
        }
    }
    let Some(place) = app.works.place(path) else { return app.works.refuse(oauth) };
    let answering = async {
        let response = next.run(request).await;
        (response, PLACE.with(|place| place.refused.get()))
    };
    match PLACE.scope(place, answering).await {
        (_, true) => app.works.refuse(oauth),
        (response, false) => response,
    }
}

fn is_counted(path: &str) -> bool {
    ["/oauth2/", "/api/", "/status-lists"].iter().any(|start| path.starts_with(start))
}

/// Waits for what the client sends, without a place. `None`: afterwards there is none to be had, and whatever is answered the client is told so.
pub(super) async fn waiting_for_client<T>(sent: impl Future<Output = T>) -> Option<T> {
    _ = PLACE.try_with(Place::leave);
    let sent = sent.await;
    let has_room = PLACE.try_with(|place| {
        let has_room = place.take();
        place.refused.set(!has_room);
        has_room
    });
    // Outside of a counted request there is always room.
    has_room.unwrap_or(true).then_some(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_body_has_no_place_and_may_find_none_afterwards() {
        let works = Works::new(1);
        let place = works.place("/oauth2/v1/token").unwrap();
        assert!(works.place("/api/v1/agents").is_none());
        let revoking = works.place("/oauth2/v1/revoke");
        assert!(revoking.is_some() && works.place("/oauth2/v1/revoke").is_none());
        drop(revoking);
        let refused = PLACE.scope(place, async {
            let meanwhile = waiting_for_client(async {
                assert_eq!(works.taken(), 0);
                works.place("/oauth2/v1/token").unwrap()
            });
            assert!(
                meanwhile.await.is_none(),
                "the place went back with what was waited for too late to be had"
            );
            PLACE.with(|place| place.refused.get())
        });
        assert!(refused.await);
        assert_eq!(works.taken(), 0);
    }
}
