//! Hot state: what is quick to ask, shared between issuers where there is a Redis, and never the truth.
//!
//! Keys: `revoked:<jti>`, with a time to live until the token has surely expired. A mark that is there refuses a token without asking the
//! database; one that isn't says nothing. So losing all of it changes nothing but speed.

mod in_process;
mod redis;

use std::sync::Arc;

use countersign_shared::Jti;
use futures_util::future::BoxFuture;

use crate::config::Secret;

pub use in_process::InProcess;
pub use redis::Redis;

/// How the hot state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Ok,
    /// It doesn't; everything works without.
    Degraded,
}

/// A place for hot state. None of these fails, and all return within a tenth of a second.
pub trait HotState: Send + Sync {
    /// Its name, for `/ready`.
    fn name(&self) -> &'static str;

    /// Marks `jti` as revoked for `seconds`.
    fn mark_revoked(&self, jti: Jti, seconds: u64) -> BoxFuture<'_, ()>;

    /// Whether `jti` has a mark; `None` where that can't be told.
    fn is_revoked(&self, jti: Jti) -> BoxFuture<'_, Option<bool>>;

    /// How it is right now.
    fn health(&self) -> BoxFuture<'_, Health>;
}

/// The one that the configuration asks for. Doesn't wait for Redis: it may come later.
pub fn open(redis_url: Option<&Secret>) -> Result<Arc<dyn HotState>, ::redis::RedisError> {
    Ok(match redis_url {
        Some(url) => Arc::new(Redis::open(url)?),
        None => Arc::new(InProcess::default()),
    })
}
