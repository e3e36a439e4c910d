//! Slow signatures: they wait in one line, of all keys together, and are made on blocking threads, as many at a time as there are CPUs.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::signer::{SignError, SigningKey};

/// Signatures that a thread makes before it hands them out, where so many wait: who gets theirs at once also asks Redis and Postgres for the next things at
/// once, in fewer requests. The first waits for the last, some milliseconds, of a wait that is longer anyway.
const GROUP: usize = 8;

/// What waits to be signed, and who signs.
pub(super) struct SigningQueue {
    state: Mutex<State>,
    threads: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Threads at work.
    working: usize,
}

type Jws = Result<String, SignError>;

struct Job {
    key: Arc<SigningKey>,
    typ: &'static str,
    payload: Vec<u8>,
    made: oneshot::Sender<Jws>,
}

impl SigningQueue {
    /// `threads`: so many sign at a time, at most.
    pub(super) fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), threads: threads.max(1) })
    }

    /// As [`SigningKey::sign`].
    pub(super) async fn sign(
        self: &Arc<Self>,
        key: Arc<SigningKey>,
        typ: &'static str,
        payload: Vec<u8>,
    ) -> Result<String, SignError> {
        let (made, answer) = oneshot::channel();
        let idle = {
            let mut state = self.state();
            state.waiting.push_back(Job { key, typ, payload, made });
            let idle = state.working < self.threads;
            state.working += usize::from(idle);
            idle
        };
        if idle {
            let place = Place { queue: Arc::clone(self), left: false };
            spawn_blocking(move || place.work());
        }
        answer.await.map_err(|_| SignError::Failed)?
    }

    /// This thread's share of what waits; `None`: it is no longer at work.
    fn next(&self) -> Option<Vec<Job>> {
        let mut state = self.state();
        if state.waiting.is_empty() {
            state.working -= 1;
            return None;
        }
        let share = state.waiting.len().div_ceil(self.threads).min(GROUP);
        Some(state.waiting.drain(..share).collect())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those that sign. It is given back also where the system has no thread for it.
struct Place {
    queue: Arc<SigningQueue>,
    left: bool,
}

impl Place {
    /// Signs until nothing waits.
    fn work(mut self) {
        while let Some(group) = self.queue.next() {
            for (made, jws) in signed(group) {
                _ = made.send(jws);
            }
        }
        self.left = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.left {
            self.queue.state().working -= 1;
        }
    }
}

/// What those get who haven't given up.
fn signed(group: Vec<Job>) -> Vec<(oneshot::Sender<Jws>, Jws)> {
    let wanted = group.into_iter().filter(|job| !job.made.is_closed());
    wanted.map(|job| (job.made, signature(&job.key, job.typ, &job.payload))).collect()
}

/// A panic fails its own signature and takes no thread from the others.
fn signature(key: &SigningKey, typ: &str, payload: &[u8]) -> Result<String, SignError> {
    catch_unwind(AssertUnwindSafe(|| key.sign(typ, payload))).unwrap_or(Err(SignError::Failed))
}

#[cfg(test)]
mod tests {
    use countersign_shared::Algorithm;
    use futures_util::future::join_all;

    use super::*;
    use crate::keys::generate::generate;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_gets_its_own_and_the_threads_come_and_go() {
        let made = generate(Algorithm::Ps256, 2048).await.unwrap();
        let key = Arc::new(SigningKey::from_pkcs8(&made.kid, Algorithm::Ps256, &made.private).unwrap());
        let queue = SigningQueue::new(2);
        for round in 0..3 {
            let asked = (0..50).map(async |number| {
                let payload = format!(r#"{{"n":{number}}}"#);
                let jws = queue.sign(Arc::clone(&key), "JWT", payload.clone().into_bytes()).await.unwrap();
                let expected = data_encoding::BASE64URL_NOPAD.encode(payload.as_bytes());
                assert_eq!(jws.split('.').nth(1), Some(&*expected));
                assert!(queue.state().working <= 2);
            });
            join_all(asked).await;
            // One that is asked for alone isn't kept waiting for others.
            queue.sign(Arc::clone(&key), "JWT", vec![b'a'; round]).await.unwrap();
        }
        // Places come back.
        let began = std::time::Instant::now();
        while queue.state().working > 0 {
            assert!(began.elapsed().as_secs() < 5, "they end when nothing waits");
            tokio::task::yield_now().await;
        }
        queue.state().working = 2;
        drop(Place { queue: Arc::clone(&queue), left: false }); // as where there is no thread
        assert_eq!(queue.state().working, 1);

        // Who gave up is nobody's work.
        queue.state().working = 2;
        let ask = |payload: &[u8]| Box::pin(queue.sign(Arc::clone(&key), "JWT", payload.to_vec()));
        let (mut given_up, mut wanted) = (ask(b"given up"), ask(b"wanted"));
        assert!(
            futures_util::poll!(&mut given_up).is_pending() && futures_util::poll!(&mut wanted).is_pending()
        );
        drop(given_up);
        let group: Vec<Job> = std::mem::take(&mut queue.state().waiting).into();
        assert_eq!(group.len(), 2);
        let mut signed = signed(group);
        assert_eq!(signed.len(), 1);
        let (made, jws) = signed.remove(0);
        made.send(jws).unwrap();
        wanted.await.unwrap();
    }
}
