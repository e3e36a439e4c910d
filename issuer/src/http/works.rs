//! Requests in the works: so many at once and no more, so that those that were taken are answered in good time however many come.
//!
//! What is beyond it waits in line, a moment at most, so that those who ask seldom get their turn beside those who ask again at once; where too many wait, or
//! the moment is over, it is turned away before anything was done for it. Not counted is what costs nothing and is needed most when there is too much to
//! do: probes, keys, metadata. What takes tokens back has places of its own beside the others'. A request that waits for its body has no place meanwhile:
//! who sends slowly keeps nobody else out.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::warn;

use super::bounds::Complaints;
use super::error::ApiError;
use super::{is_oauth, oauth, respond};
use crate::app::App;
use crate::clients::Clock;
use crate::metrics;

/// One part in so many is added for what takes tokens back.
pub(super) const SPARE: usize = 8;
/// How long a request waits for its place.
pub(crate) const PATIENCE: Duration = Duration::from_millis(200);
/// How many may wait, for each that may be in the works.
pub(crate) const WAITING: usize = 4;

tokio::task_local! {
    static PLACE: Place;
}

/// How many requests there are, and may be.
pub struct Works {
    max: usize,
    room: Arc<Room>,
    complaints: Complaints,
}

impl Works {
    /// With room for `max`.
    pub fn new(max: usize) -> Self {
        let room = Room {
            places: Arc::new(Semaphore::new(max)),
            spare: Arc::new(Semaphore::new(max.div_ceil(SPARE))),
            waiting: AtomicUsize::default(),
            max_waiting: WAITING.saturating_mul(max),
        };
        Self { max, room: Arc::new(room), complaints: Complaints::default() }
    }

    /// How many there are.
    pub fn taken(&self) -> usize {
        let free = self.room.places.available_permits() + self.room.spare.available_permits();
        (self.max + self.max.div_ceil(SPARE)).saturating_sub(free)
    }

    /// How many wait for a place.
    pub fn waiting(&self) -> usize {
        self.room.waiting.load(Ordering::Relaxed)
    }

    fn refuse(&self, oauth: bool) -> Response {
        metrics::turned_away();
        if self.complaints.due() {
            warn!(max = self.max, "requests are turned away: MAX_REQUESTS are in the works already");
        }
        if oauth { oauth::turned_away(&ApiError::Overloaded) } else { ApiError::Overloaded.into_response() }
    }
}

/// The places, and the line before them.
struct Room {
    places: Arc<Semaphore>,
    /// For what takes tokens back, where there is no other.
    spare: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
}

impl Room {
    /// A place, as soon as those have theirs who came before; `None`: not in time. `ends`: it takes tokens back.
    async fn place(&self, ends: bool) -> Option<OwnedSemaphorePermit> {
        let (places, spare) = (|| self.places.clone(), || self.spare.clone());
        // A place that is free while somebody waits is theirs already.
        if let Ok(place) = places().try_acquire_owned() {
            return Some(place);
        }
        if ends && let Ok(place) = spare().try_acquire_owned() {
            return Some(place);
        }
        let _in_line = self.join_line()?;
        let given = timeout(PATIENCE, async {
            tokio::select! {
                place = places().acquire_owned() => place,
                place = spare().acquire_owned(), if ends => place,
            }
        });
        given.await.ok()?.ok()
    }

    fn join_line(&self) -> Option<InLine<'_>> {
        let in_line = InLine(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < self.max_waiting).then_some(in_line)
    }
}

/// Counts who waits, for as long as it waits.
struct InLine<'r>(&'r AtomicUsize);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One request's place among those in the works.
struct Place {
    room: Arc<Room>,
    /// It takes tokens back.
    ends: bool,
    held: RefCell<Option<OwnedSemaphorePermit>>,
    /// There was no room any more when its body had come.
    refused: Cell<bool>,
}

/// Lets a request in, for `answering`, or turns it away: because there are too many, or because this host's clock is wrong.
pub(super) async fn admit<F: Future<Output = Response>>(
    app: &App,
    request: Request,
    answering: impl FnOnce(Request) -> F,
) -> Response {
    let path = request.uri().path();
    if !is_counted(path) {
        return answering(request).await;
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
    let ends = matches!(path, "/oauth2/v1/revoke" | "/api/v1/token/revoke" | "/api/v1/revocations");
    let room = app.works.room.clone();
    // At OAuth's endpoints nothing is done before the body has come, so they take their places then.
    let held = if oauth { None } else { room.place(ends).await };
    if !oauth && held.is_none() {
        return app.works.refuse(oauth);
    }
    let place = Place { room, ends, held: RefCell::new(held), refused: Cell::new(false) };
    let answering = async {
        let response = answering(request).await;
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

/// Waits for what the client sends, without a place, then for one. `None`: there is none to be had, and whatever is answered the client is told so.
pub(super) async fn waiting_for_client<T>(sent: impl Future<Output = T>) -> Option<T> {
    // Outside of a counted request there is always room.
    let Ok((room, ends)) = PLACE.try_with(|place| {
        place.held.take();
        (place.room.clone(), place.ends)
    }) else {
        return Some(sent.await);
    };
    let sent = sent.await;
    let held = room.place(ends).await;
    PLACE
        .with(|place| {
            place.refused.set(held.is_none());
            place.held.replace(held);
            !place.refused.get()
        })
        .then_some(sent)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn room(places: usize) -> Arc<Room> {
        Works::new(places).room
    }

    #[tokio::test]
    async fn who_comes_when_all_places_are_taken_waits_for_its_turn_and_not_for_long() {
        let room = room(1);
        let held = room.place(false).await.unwrap();
        let mut first = Box::pin(room.place(false));
        let mut second = Box::pin(room.place(false));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        assert_eq!(room.waiting.load(Ordering::Relaxed), 2);
        drop(held);
        assert!(room.place(false).now_or_never().is_none(), "who comes now is behind those who wait");
        let held = first.await.unwrap();
        assert!(second.await.is_none(), "it has waited for long enough");
        assert_eq!(room.waiting.load(Ordering::Relaxed), 0);
        drop(held);
        assert!(room.place(false).await.is_some());
    }

    #[tokio::test]
    async fn where_too_many_wait_nobody_else_does() {
        let room = room(1);
        let _held = room.place(false).await.unwrap();
        let mut line: Vec<_> = (0..WAITING).map(|_| Box::pin(room.place(false))).collect();
        assert!(line.iter_mut().all(|waiting| waiting.as_mut().now_or_never().is_none()));
        assert!(matches!(room.place(false).now_or_never(), Some(None)), "at once");
        line.pop();
        assert!(room.place(false).now_or_never().is_none(), "who gave up leaves the line");
    }

    #[tokio::test]
    async fn what_takes_tokens_back_has_places_of_its_own() {
        let room = room(1);
        let _held = room.place(false).await.unwrap();
        let ending = room.place(true).await;
        assert!(ending.is_some() && room.place(true).now_or_never().is_none());
        drop(ending);
        assert!(room.place(true).await.is_some());
    }

    #[tokio::test]
    async fn who_waits_for_a_body_has_no_place_and_may_find_none_afterwards() {
        let works = Works::new(1);
        let room = works.room.clone();
        let held = RefCell::new(room.place(false).await);
        assert_eq!(works.taken(), 1);
        let place = Place { room: room.clone(), ends: false, held, refused: Cell::new(false) };
        let refused = PLACE.scope(place, async {
            let meanwhile = waiting_for_client(async {
                assert_eq!(works.taken(), 0);
                room.place(false).await.unwrap()
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
