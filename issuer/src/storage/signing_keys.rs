//! `signing_keys`, and `key_state`: what concerns them together.

use std::time::Duration;

use countersign_shared::{Algorithm, UnixTime};
use sqlx::postgres::PgListener;
use time::OffsetDateTime;

use super::{Database, StorageError, Transaction};
use crate::domain::signing_key::{KeyRecord, Purpose, Sealed};

/// A statement of the leader's that takes longer means that its connection is lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Holds up every other process that would change keys, until the transaction ends.
pub async fn lock(transaction: &mut Transaction) -> Result<(), StorageError> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('countersign keys', 0))")
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Whether a key signs for `purpose`.
pub async fn has_active(transaction: &mut Transaction, purpose: Purpose) -> Result<bool, StorageError> {
    let found = sqlx::query_scalar!(
        r#"select exists (select from signing_keys where purpose = $1 and state = 'active') as "found!""#,
        purpose.as_str(),
    );
    Ok(found.fetch_one(&mut **transaction).await?)
}

/// Whether `kid` is a key of tokens.
pub async fn signs_tokens(transaction: &mut Transaction, kid: &str) -> Result<bool, StorageError> {
    let found = sqlx::query_scalar!(
        r#"select exists (select from signing_keys where kid = $1 and purpose = 'token') as "found!""#,
        kid,
    );
    Ok(found.fetch_one(&mut **transaction).await?)
}

/// Adds a key.
pub async fn insert(transaction: &mut Transaction, key: &KeyRecord) -> Result<(), StorageError> {
    sqlx::query!(
        "insert into signing_keys (kid, purpose, algorithm, state, public_jwk, sealed_data_key, sealed_private, activates_at,
                                   signs_until, longest_lifetime_seconds, master_key_id, public_only, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, clock_timestamp())",
        key.kid,
        key.purpose.as_str(),
        key.algorithm.as_str(),
        key.state.as_str(),
        key.public_jwk,
        key.sealed.data_key,
        key.sealed.value,
        key.activates_at,
        key.signs_until,
        key.longest_lifetime.cast_signed(),
        key.sealed.master_key_id,
        key.public_only,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Writes where the key called `kid` stands: its state and times, and whether it was revoked.
pub async fn update(
    transaction: &mut Transaction,
    key: &KeyRecord,
    retired_early: bool,
) -> Result<(), StorageError> {
    sqlx::query!(
        "update signing_keys set state = $2, activates_at = $3, signs_until = $4, revoked_at = $5, revocation_reason = $6,
                retired_early = retired_early or $7
         where kid = $1",
        key.kid,
        key.state.as_str(),
        key.activates_at,
        key.signs_until,
        key.revoked_at,
        key.revocation_reason,
        retired_early,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// What concerns the keys together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeysState {
    /// Grows with every change.
    pub version: u64,
    /// The longest, in seconds, that a JWK Set may be kept that an issuer has handed out.
    pub jwks_max_age: u32,
    /// For how long, in seconds, no issuer has said so again.
    pub jwks_max_age_unstated: f64,
    /// What tokens are signed with where their resource server doesn't say.
    pub token_algorithm: Algorithm,
    /// And what from an instant on.
    pub next_token_algorithm: Option<(Algorithm, OffsetDateTime)>,
}

impl KeysState {
    /// What tokens are signed with at `now` where their resource server doesn't say.
    pub fn token_algorithm_at(&self, now: OffsetDateTime) -> Algorithm {
        self.next_token_algorithm
            .filter(|(_, from)| *from <= now)
            .map_or(self.token_algorithm, |(next, _)| next)
    }
}

/// All that is known of the keys, as of one instant.
#[derive(Debug, Clone)]
pub struct Known {
    /// What concerns them together.
    pub state: KeysState,
    /// Every key, oldest first.
    pub keys: Vec<KeyRecord>,
    /// The algorithms that resource servers ask for.
    pub asked_for: Vec<Algorithm>,
    /// The longest life, in seconds, that a resource server's tokens have; `None`: none says.
    pub longest_lifetime: Option<u32>,
    /// The database's clock.
    pub now: OffsetDateTime,
}

/// The version of what is known of the keys.
pub async fn version(database: &Database) -> Result<u64, StorageError> {
    let version =
        sqlx::query_scalar!("select version from key_state").fetch_one(&database.installation).await?;
    Ok(version.cast_unsigned())
}

/// All that is known of the keys.
pub async fn known(database: &Database) -> Result<Known, StorageError> {
    let mut transaction = database.begin_installation().await?;
    // Of one instant, all of it.
    sqlx::query!("set transaction isolation level repeatable read, read only")
        .execute(&mut *transaction)
        .await?;
    known_in(&mut transaction).await
}

/// The same in a transaction that has the [`lock`].
pub async fn known_in(transaction: &mut Transaction) -> Result<Known, StorageError> {
    let state = sqlx::query!(
        r#"select version, jwks_max_age_seconds, token_algorithm, next_token_algorithm, next_token_from,
                  clock_timestamp() as "now!",
                  extract(epoch from clock_timestamp() - jwks_max_age_stated_at)::float8 as "unstated!",
                  (select max(token_lifetime_seconds) from resource_servers) as longest_lifetime,
                  (select array_agg(distinct signing_algorithm) from resource_servers where signing_algorithm is not null) as asked_for
           from key_state"#
    )
    .fetch_one(&mut **transaction)
    .await?;
    let word = |word: &str| algorithm("key_state", "true", word);
    let next = match (&state.next_token_algorithm, state.next_token_from) {
        (Some(next), Some(from)) => Some((word(next)?, from)),
        _ => None,
    };
    let asked_for = state.asked_for.unwrap_or_default();
    Ok(Known {
        state: KeysState {
            version: state.version.cast_unsigned(),
            jwks_max_age: state.jwks_max_age_seconds.cast_unsigned(),
            jwks_max_age_unstated: state.unstated,
            token_algorithm: word(&state.token_algorithm)?,
            next_token_algorithm: next,
        },
        keys: list_in(transaction).await?,
        asked_for: asked_for
            .iter()
            .map(|name| algorithm("resource_servers", "", name))
            .collect::<Result<_, _>>()?,
        longest_lifetime: state.longest_lifetime.map(i32::cast_unsigned),
        now: state.now,
    })
}

/// Every key, oldest first.
pub async fn list(database: &Database) -> Result<Vec<KeyRecord>, StorageError> {
    list_in(&mut database.begin_installation().await?).await
}

async fn list_in(transaction: &mut Transaction) -> Result<Vec<KeyRecord>, StorageError> {
    let rows = sqlx::query!(
        "select kid, purpose, algorithm, state, public_jwk, sealed_data_key, sealed_private, master_key_id, public_only, created_at, activates_at, signs_until,
                longest_lifetime_seconds, retires_at, revoked_at, revocation_reason
         from signing_keys order by created_at, kid"
    )
    .fetch_all(&mut **transaction)
    .await?;
    let records = rows.into_iter().map(|row| {
        let problem = StorageError::row("signing_keys", row.kid.clone());
        Ok(KeyRecord {
            purpose: row.purpose.parse().map_err(&problem)?,
            state: row.state.parse().map_err(&problem)?,
            algorithm: algorithm("signing_keys", &row.kid, &row.algorithm)?,
            public_jwk: row.public_jwk,
            public_only: row.public_only,
            sealed: Sealed {
                master_key_id: row.master_key_id,
                data_key: row.sealed_data_key,
                value: row.sealed_private,
            },
            created_at: Some(row.created_at),
            activates_at: row.activates_at,
            signs_until: row.signs_until,
            longest_lifetime: row.longest_lifetime_seconds.cast_unsigned(), // the table has none below one
            retires_at: row.retires_at,
            revoked_at: row.revoked_at,
            revocation_reason: row.revocation_reason,
            kid: row.kid,
        })
    });
    records.collect()
}

fn algorithm(table: &'static str, id: &str, name: &str) -> Result<Algorithm, StorageError> {
    Algorithm::from_name(name).ok_or_else(|| StorageError::Row {
        table,
        id: id.to_owned(),
        problem: format!("`{name}` is no algorithm"),
    })
}

/// An issuer's tokens live for up to `lifetime` seconds, and its JWK Set may be kept for `max_age`: keys are kept and published for at least that long
/// from now on. Must be in force before the issuer signs anything or answers anybody by that.
pub async fn promise(database: &Database, lifetime: u32, max_age: u32) -> Result<(), StorageError> {
    let mut transaction = database.begin_installation().await?;
    lock(&mut transaction).await?;
    sqlx::query!(
        "update signing_keys set longest_lifetime_seconds = $1
         where purpose = 'token' and state in ('pending', 'active') and longest_lifetime_seconds < $1",
        lifetime.cast_signed(),
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!(
        "update key_state set jwks_max_age_seconds = $1, jwks_max_age_stated_at = clock_timestamp() where jwks_max_age_seconds <= $1",
        max_age.cast_signed()
    )
    .execute(&mut *transaction)
    .await?;
    Database::commit(transaction).await
}

/// How often, in seconds, an issuer says again for how long its JWK Set may be kept, where it is `max_age`.
pub const fn restated_after(max_age: u32) -> u32 {
    let shorter = if max_age < 60 { max_age } else { 60 };
    if shorter < 2 { 1 } else { shorter / 2 }
}

/// Says again that JWK Sets may be kept for `max_age` seconds, if that is the longest that any issuer says and it wasn't said lately. Nobody is told.
pub async fn restate(database: &Database, max_age: u32) -> Result<(), StorageError> {
    let mut transaction = database.begin_installation().await?;
    // Who changes keys holds the row: later will do, and waiting would hold up whoever wants to know of changes.
    sqlx::query!(
        "update key_state set jwks_max_age_stated_at = clock_timestamp()
         where singleton in (
             select singleton from key_state
             where jwks_max_age_seconds = $1 and jwks_max_age_stated_at < clock_timestamp() - $2 * interval '1 second'
             for update skip locked
         )",
        max_age.cast_signed(),
        f64::from(restated_after(max_age)),
    )
    .execute(&mut *transaction)
    .await?;
    Database::commit(transaction).await
}

/// By how much later than the last JWK Set may have been kept it counts that none is: that was said up to [`restated_after`] before it was handed out.
pub const UNSTATED_MARGIN: u32 = 60;

/// Whether [`lower_max_age`] has anything to do where an issuer says less.
pub async fn may_lower_max_age(database: &Database) -> Result<bool, StorageError> {
    let may = sqlx::query_scalar!(
        r#"select jwks_max_age_stated_at + (jwks_max_age_seconds + $1) * interval '1 second' < clock_timestamp() as "may!" from key_state"#,
        UNSTATED_MARGIN.cast_signed(),
    );
    Ok(may.fetch_one(&database.installation).await?)
}

/// Takes back what was once promised, if no issuer has said it for so long that no JWK Set of that time is kept any more.
pub async fn lower_max_age(transaction: &mut Transaction, max_age: u32) -> Result<(), StorageError> {
    sqlx::query!(
        "update key_state set jwks_max_age_seconds = $1, jwks_max_age_stated_at = clock_timestamp()
         where jwks_max_age_seconds > $1
         and jwks_max_age_stated_at + (jwks_max_age_seconds + $2) * interval '1 second' < clock_timestamp()",
        max_age.cast_signed(),
        UNSTATED_MARGIN.cast_signed(),
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Where no issuer has ever handed out a JWK Set: none is kept for longer than `max_age` seconds.
pub async fn first_max_age(transaction: &mut Transaction, max_age: u32) -> Result<(), StorageError> {
    sqlx::query!(
        "update key_state set jwks_max_age_seconds = $1, jwks_max_age_stated_at = clock_timestamp() where jwks_max_age_seconds > $1",
        max_age.cast_signed()
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// What tokens are signed with where their resource server doesn't say, now and from an instant on.
pub async fn set_token_algorithm(
    transaction: &mut Transaction,
    algorithm: Algorithm,
    next: Option<(Algorithm, OffsetDateTime)>,
) -> Result<(), StorageError> {
    sqlx::query!(
        "update key_state set token_algorithm = $1, next_token_algorithm = $2, next_token_from = $3",
        algorithm.as_str(),
        next.map(|(algorithm, _)| algorithm.as_str()),
        next.map(|(_, from)| from),
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// A connection of its own that holds the leadership among all issuers, or wants to: when it breaks, another's is free to.
pub struct Leadership {
    connection: PgListener,
}

impl Leadership {
    /// Connects.
    pub async fn open(database: &Database) -> Result<Self, StorageError> {
        bounded(async {
            let mut connection = PgListener::connect_with(&database.dedicated()).await?;
            connection.eager_reconnect(false); // a new connection would be without the lock
            Ok(Self { connection })
        })
        .await
    }

    /// Whether this process is the leader now. Ask again later if not.
    pub async fn acquire(&mut self) -> Result<bool, StorageError> {
        let acquired = sqlx::query_scalar!(
            r#"select pg_try_advisory_lock(hashtextextended('countersign key rotation', 0)) as "acquired!""#
        );
        bounded(async { Ok(acquired.fetch_one(&mut self.connection).await?) }).await
    }

    /// An error means that the connection, and so the lock, is gone.
    pub async fn confirm(&mut self) -> Result<(), StorageError> {
        bounded(async {
            sqlx::query("select /* countersign rotates keys */").execute(&mut self.connection).await?;
            Ok(())
        })
        .await
    }
}

async fn bounded<T>(work: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
    let outcome = tokio::time::timeout(PATIENCE, work).await;
    outcome.unwrap_or(Err(StorageError::Unavailable(sqlx::Error::PoolTimedOut)))
}

/// Has the version of the keys grow to `at_least`: after a restore from a backup, above every one that an issuer can have read before.
pub async fn jump_version(transaction: &mut Transaction, at_least: UnixTime) -> Result<(), StorageError> {
    sqlx::query!("update key_state set version = $1", at_least.0).execute(&mut **transaction).await?;
    Ok(())
}
