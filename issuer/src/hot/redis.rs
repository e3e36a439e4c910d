//! Hot state in Redis, shared by all issuers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_shared::Jti;
use futures_util::future::BoxFuture;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, cmd};
use tracing::{info, warn};

use super::{Health, HotState};
use crate::config::Secret;

/// The longest that anybody waits for Redis.
pub(super) const TIMEOUT: Duration = Duration::from_millis(100);
/// After a failure nobody waits for it at all, for this long.
const PAUSE: Duration = Duration::from_secs(1);

/// A connection that re-establishes itself.
pub struct Redis {
    connection: ConnectionManager,
    paused_until: Mutex<Option<Instant>>,
    failing: AtomicBool,
}

impl Redis {
    /// Connects when first used.
    pub fn open(url: &Secret) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_number_of_retries(0);
        let connection = ConnectionManager::new_lazy_with_config(Client::open(url.expose())?, config)?;
        Ok(Self { connection, paused_until: Mutex::new(None), failing: AtomicBool::new(false) })
    }

    /// Runs `command`; `None` when Redis doesn't answer, in time or at all.
    async fn run<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Option<T> {
        let paused_until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        if paused_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let mut connection = self.connection.clone();
        let answer = tokio::time::timeout(TIMEOUT, command.query_async(&mut connection)).await;
        match answer {
            Ok(Ok(value)) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    info!("Redis answers again");
                }
                Some(value)
            }
            failure => {
                let cause = match failure {
                    Ok(Err(error)) => error.category().to_owned(), // its own words may have the address with the password
                    _ => format!("no answer in {} ms", TIMEOUT.as_millis()),
                };
                *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(Instant::now() + PAUSE);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    warn!(cause, "Redis is lost: going on without; nothing depends on it but speed");
                }
                None
            }
        }
    }
}

fn key(jti: Jti) -> String {
    format!("revoked:{jti}")
}

impl HotState for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn mark_revoked(&self, jti: Jti, seconds: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut command = cmd("SET");
            command.arg(key(jti)).arg(1).arg("EX").arg(seconds.max(1));
            _ = self.run::<()>(&command).await;
        })
    }

    fn is_revoked(&self, jti: Jti) -> BoxFuture<'_, Option<bool>> {
        Box::pin(async move { self.run(cmd("EXISTS").arg(key(jti))).await })
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(async move {
            match self.run::<String>(&cmd("PING")).await {
                Some(_) => Health::Ok,
                None => Health::Degraded,
            }
        })
    }
}
