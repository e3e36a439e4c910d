//! Tokens a month of each client, for operators to look at. Not what the quota goes by.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use countersign_shared::AgentId;

use crate::domain::limit::Month;
use crate::hot::{HotState, MonthlyCount};

/// Clients that wait to be counted; while there is nowhere to count, more aren't.
pub(crate) const MAX_WAITING: usize = 100_000;
/// Counts in one go: a reply takes well less than anybody waits for it.
const CHUNK: usize = 500;

/// Counts that aren't in the hot state yet.
#[derive(Default)]
pub(super) struct Monthly {
    waiting: Mutex<HashMap<(AgentId, Month), u64>>,
}

impl Monthly {
    pub(super) fn add(&self, count: MonthlyCount) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (count.client, count.month);
        if waiting.len() < MAX_WAITING || waiting.contains_key(&key) {
            *waiting.entry(key).or_default() += count.tokens;
        }
    }

    /// Carries them to `hot`. What doesn't arrive waits for the next time.
    pub(super) async fn flush(&self, hot: &dyn HotState) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let counts: Vec<MonthlyCount> = waiting
            .into_iter()
            .map(|((client, month), tokens)| MonthlyCount { client, month, tokens })
            .collect();
        let mut lost = false;
        for chunk in counts.chunks(CHUNK) {
            lost = lost || hot.add_monthly(chunk).await.is_err();
            if lost {
                for count in chunk {
                    self.add(*count);
                }
            }
        }
    }
}
