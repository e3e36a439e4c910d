//! Whether tokens are alive, as the database says it now: who asks while a look-up is under way is answered by the next one, together with all who asked
//! meanwhile. Nothing is remembered: what was committed before somebody asked is in the answer.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, oneshot};
use tracing::Instrument as _;

use crate::storage::revocations::{LiveState, Subject, live_states};
use crate::storage::{Database, StorageError};
use crate::traces::errand;

/// Tokens of one look-up.
pub(crate) const BATCH: usize = 256;

struct Asked {
    token: Subject,
    answer: oneshot::Sender<Result<LiveState, StorageError>>,
}

/// Looks up what is asked for.
#[derive(Clone)]
pub struct LiveStates(Arc<Inner>);

struct Inner {
    database: Database,
    waiting: Mutex<Vec<Asked>>,
    /// Who has it looks up, until nobody waits.
    turn: Arc<Semaphore>,
}

impl LiveStates {
    /// In `database`.
    pub fn new(database: Database) -> Self {
        let turn = Arc::new(Semaphore::new(1));
        Self(Arc::new(Inner { database, waiting: Mutex::default(), turn }))
    }

    /// The state of `token`.
    pub async fn of(&self, token: Subject) -> Result<LiveState, StorageError> {
        let (answer, answered) = oneshot::channel();
        self.waiting().push(Asked { token, answer });
        // A task of its own, which goes on for the others when this request is given up.
        if let Ok(turn) = self.0.turn.clone().try_acquire_owned() {
            let looking_up = self.clone();
            tokio::spawn(
                async move { looking_up.take_turn(turn).await }.instrument(errand!("token look-up")),
            );
        }
        answered.await.unwrap_or(Err(StorageError::Unavailable(sqlx::Error::WorkerCrashed)))
    }

    async fn take_turn(&self, mut turn: tokio::sync::OwnedSemaphorePermit) {
        loop {
            while let Some(batch) = self.take() {
                self.look_up(batch).await;
            }
            drop(turn);
            // Who came just before that has seen it taken.
            if self.waiting().is_empty() {
                return;
            }
            let Ok(again) = self.0.turn.clone().try_acquire_owned() else { return };
            turn = again;
        }
    }

    fn take(&self) -> Option<Vec<Asked>> {
        let mut waiting = self.waiting();
        let batch: Vec<Asked> = if waiting.len() <= BATCH {
            std::mem::take(&mut *waiting)
        } else {
            waiting.drain(..BATCH).collect()
        };
        (!batch.is_empty()).then_some(batch)
    }

    async fn look_up(&self, batch: Vec<Asked>) {
        let (tokens, answers): (Vec<Subject>, Vec<_>) =
            batch.into_iter().map(|Asked { token, answer }| (token, answer)).unzip();
        match live_states(&self.0.database, &tokens).await {
            Ok(states) => {
                for (answer, state) in answers.into_iter().zip(states) {
                    _ = answer.send(Ok(state));
                }
            }
            Err(error) => {
                for answer in answers {
                    _ = answer.send(Err(error.again()));
                }
            }
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Asked>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
