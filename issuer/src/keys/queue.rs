//! Slow signatures: they wait in one line, of all keys together, and are made on blocking threads, as many at a time as there are CPUs.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::signer::{SignError, SigningKey};

/// Signatures that a thread makes before it hands them out, where so many wait: who gets theirs at once also asks Redis and Postgres for the next things at
/// once, in fewer requests. The first waits for the last, some milliseconds, of a wait that is longer anyway.
pub(crate) const GROUP: usize = 8;

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

struct Job {
    key: Arc<SigningKey>,
    typ: &'static str,
    payload: Vec<u8>,
    made: oneshot::Sender<Result<String, SignError>>,
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
            let queue = Arc::clone(self);
            spawn_blocking(move || queue.work());
        }
        answer.await.map_err(|_| SignError::Failed)?
    }

    /// Signs until nothing waits.
    fn work(&self) {
        while let Some(group) = self.next() {
            // Who has given up needs none.
            let wanted = group.into_iter().filter(|job| !job.made.is_closed());
            let signed: Vec<_> =
                wanted.map(|job| (job.made, signature(&job.key, job.typ, &job.payload))).collect();
            for (made, jws) in signed {
                _ = made.send(jws);
            }
        }
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
        // Who gave up is nobody's work.
        let mut given_up = Box::pin(queue.sign(Arc::clone(&key), "JWT", vec![b'a']));
        assert!(futures_util::poll!(&mut given_up).is_pending());
        drop(given_up);
        let began = std::time::Instant::now();
        while queue.state().working > 0 {
            assert!(began.elapsed().as_secs() < 5, "they end when nothing waits");
            tokio::task::yield_now().await;
        }
        assert!(queue.state().waiting.is_empty());
    }
}
