//! Hot state in Redis, shared by all issuers. Keys: `docs/reference/redis.md`.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use countersign_shared::{AgentId, Jti};
use data_encoding::HEXLOWER;
use futures_util::future::BoxFuture;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, ToRedisArgs, cmd, pipe};
use tracing::{info, warn};

use super::{Answered, Asked, Failed, Health, HotState, InProcess, MonthlyCount, OutOfReach, Verdict};
use crate::config::Secret;
use crate::domain::limit::{Counts, LockoutPolicy, Moment, Month, Network, Pair, Rate};

/// The longest that anybody waits for Redis.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(100);
/// After a failure nobody waits for it at all, for this long.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// How long a monthly count is kept after its month, in seconds: the last tokens of a month are counted after it.
const MONTHLY_GRACE: i64 = 86_400;

static ADMISSION: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/admission.lua")));
static FAILURE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/failure.lua")));
static MONTHLY: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/monthly.lua")));

/// A connection that re-establishes itself.
pub struct Redis {
    connection: ConnectionManager,
    state: Mutex<State>,
    /// Counts and locks out while Redis doesn't.
    meanwhile: InProcess,
}

enum State {
    Fine,
    /// It didn't answer the one who asked last.
    Failing {
        asked: Instant,
    },
}

/// While it fails, one asker a second finds out if it still does, and nobody else waits for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    AsUsual,
    IfItIsBack,
    No,
}

impl Redis {
    /// Connects when first used.
    pub fn open(url: &Secret) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_number_of_retries(0);
        let connection = ConnectionManager::new_lazy_with_config(Client::open(url.expose())?, config)?;
        Ok(Self { connection, state: Mutex::new(State::Fine), meanwhile: InProcess::default() })
    }

    /// Whether and how to ask.
    fn asking(&self) -> Asking {
        let mut state = self.state();
        let State::Failing { asked } = &mut *state else { return Asking::AsUsual };
        if asked.elapsed() < PAUSE {
            return Asking::No;
        }
        *asked = Instant::now();
        Asking::IfItIsBack
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What Redis answers; `None` when it doesn't, in time or at all.
    async fn ask<T>(&self, answer: impl Future<Output = Result<T, RedisError>>) -> Option<T> {
        let asking = self.asking();
        if asking == Asking::No {
            return None;
        }
        let failure = match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(Ok(value)) => {
                // What was under way when it failed may still arrive; that says nothing.
                if asking == Asking::IfItIsBack {
                    *self.state() = State::Fine;
                    info!("Redis answers again: limits are shared again");
                }
                return Some(value);
            }
            failure => failure,
        };
        let cause = match failure {
            Ok(Err(error)) => error.category().to_owned(), // its own words may have the address with the password
            _ => format!("no answer in {} ms", TIMEOUT.as_millis()),
        };
        let before = std::mem::replace(&mut *self.state(), State::Failing { asked: Instant::now() });
        if matches!(before, State::Fine) {
            warn!(cause, "Redis is lost: going on without; each process now counts for itself");
        }
        None
    }

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let mut connection = self.connection.clone();
        self.ask(async move { command.query_async(&mut connection).await }).await
    }

    async fn pipeline(&self, pipeline: &redis::Pipeline) -> Option<()> {
        let mut connection = self.connection.clone();
        self.ask(async move { pipeline.query_async(&mut connection).await }).await
    }

    /// Runs a script by its digest; where Redis doesn't know it (any more), by its text.
    async fn script<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[impl ToRedisArgs],
    ) -> Option<T> {
        let command = |name: &str, script: &str| {
            let mut command = cmd(name);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        let mut connection = self.connection.clone();
        self.ask(async move {
            match command("EVALSHA", &script.digest).query_async(&mut connection).await {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    command("EVAL", script.text).query_async(&mut connection).await
                }
                answer => answer,
            }
        })
        .await
    }
}

struct Script {
    text: &'static str,
    digest: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        // What Redis names scripts by; nothing rests on it.
        Self { text, digest: HEXLOWER.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref()) }
    }
}

fn revoked_key(jti: Jti) -> String {
    format!("revoked:{jti}")
}

fn failures_key(pair: Pair) -> String {
    format!("failures:{pair}")
}

fn lockout_key(pair: Pair) -> String {
    format!("lockout:{pair}")
}

/// The networks that may have one of the above.
fn networks_key(pair_client: &str) -> String {
    format!("lockouts:{pair_client}")
}

impl HotState for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn mark_revoked<'a>(&'a self, marks: &'a [(Jti, u64)]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut commands = pipe();
            for (jti, seconds) in marks {
                commands.set_ex(revoked_key(*jti), 1, (*seconds).max(1)).ignore();
            }
            _ = self.pipeline(&commands).await;
        })
    }

    fn is_revoked(&self, jti: Jti) -> BoxFuture<'_, Option<bool>> {
        Box::pin(async move { self.run(cmd("EXISTS").arg(revoked_key(jti))).await })
    }

    fn admit<'a>(&'a self, asked: Asked<'a>, now: Moment) -> BoxFuture<'a, Answered> {
        Box::pin(async move {
            let Asked { address, pair, proved, rates } = asked;
            let window = now.window();
            let mut keys: Vec<String> = Vec::with_capacity(2 * rates.len() + 4);
            if let Some(pair) = pair {
                keys.extend([lockout_key(pair), failures_key(pair)]);
            }
            let mut arguments = Vec::with_capacity(rates.len() + 5);
            arguments.push(now.elapsed());
            arguments.extend([pair.is_some(), proved, address.is_some()].map(u64::from));
            for Rate { subject, limit } in address.iter().chain(rates) {
                for window in [window, window.saturating_sub(1)] {
                    keys.push(format!("rate:{subject}:{window}"));
                }
                arguments.push((*limit).into());
            }
            let answer: Option<Vec<u64>> = self.script(&ADMISSION, &keys, &arguments).await;
            let read = || {
                let [verdict, left, counts @ ..] = answer.as_deref()? else { return None };
                let verdict = match (*verdict, pair) {
                    (0, _) => Verdict::Admitted,
                    (1, _) => Verdict::AddressFull,
                    (2, Some(pair)) => {
                        // Should Redis be lost, this process goes on refusing.
                        let left = Duration::from_millis(*left);
                        self.meanwhile.lock_out(pair, left, now);
                        Verdict::LockedOut(left)
                    }
                    (3, _) => Verdict::Full,
                    _ => return None,
                };
                let (pairs, _) = counts.as_chunks::<2>();
                let counts: Vec<Counts> = pairs
                    .iter()
                    .map(|[current, previous]| Counts { current: *current, previous: *previous })
                    .collect();
                (counts.len() == rates.len() + usize::from(address.is_some()))
                    .then_some(Answered { verdict, counts })
            };
            match read() {
                Some(answered) => {
                    // What was noted here counts no more than there.
                    if let Some(pair) = pair
                        .filter(|_| proved && matches!(answered.verdict, Verdict::Admitted | Verdict::Full))
                    {
                        self.meanwhile.forget_failures(pair);
                    }
                    answered
                }
                None => self.meanwhile.judge(asked, now),
            }
        })
    }

    fn failed<'a>(&'a self, pair: Pair, policy: &'a LockoutPolicy, now: Moment) -> BoxFuture<'a, Failed> {
        Box::pin(async move {
            // Here too, for when Redis is lost.
            let here = self.meanwhile.failed(pair, policy, now).await;
            let keys = [failures_key(pair), lockout_key(pair), networks_key(&pair.client_key())];
            let arguments = [
                now.millis.to_string(),
                policy.attempts.to_string(),
                policy.window.as_millis().to_string(),
                policy.lockout.as_millis().to_string(),
                pair.network.to_string(),
            ];
            let answer: Option<Vec<u64>> = self.script(&FAILURE, &keys, &arguments).await;
            match answer.as_deref() {
                Some([0]) => Failed::Noted,
                Some([1]) => Failed::LocksOut,
                Some([2, left]) => Failed::LockedOut(Duration::from_millis(*left)),
                _ => here,
            }
        })
    }

    fn unlock(&self, client: AgentId, network: Option<Network>) -> BoxFuture<'_, Result<(), OutOfReach>> {
        Box::pin(async move {
            _ = self.meanwhile.unlock(client, network).await;
            let networks_key = networks_key(&client.to_string());
            let networks = if let Some(network) = network {
                vec![network.to_string()]
            } else {
                let listed = self.run(cmd("ZRANGE").arg(&networks_key).arg(0).arg(-1)).await;
                listed.ok_or(OutOfReach)?
            };
            let mut forget = pipe();
            for network in networks {
                let keys = ["failures", "lockout"].map(|kind| format!("{kind}:{client}:{network}"));
                forget.del(&keys).ignore().zrem(&networks_key, network).ignore();
            }
            if forget.is_empty() {
                return Ok(());
            }
            self.pipeline(&forget).await.ok_or(OutOfReach)
        })
    }

    fn add_monthly<'a>(&'a self, counts: &'a [MonthlyCount]) -> BoxFuture<'a, Result<(), OutOfReach>> {
        Box::pin(async move {
            let keys: Vec<String> =
                counts.iter().map(|count| format!("monthly:{}:{}", count.client, count.month)).collect();
            let ends = |month: Month| month.ends_at().unix_timestamp() + MONTHLY_GRACE;
            let arguments: Vec<String> = counts
                .iter()
                .flat_map(|count| [count.tokens.to_string(), ends(count.month).to_string()])
                .collect();
            self.script::<()>(&MONTHLY, &keys, &arguments).await.ok_or(OutOfReach)
        })
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(async move {
            match self.run::<String>(&cmd("PING")).await {
                Some(_) => Health::Ok,
                None => Health::Degraded,
            }
        })
    }

    fn is_shared(&self) -> bool {
        true
    }
}
