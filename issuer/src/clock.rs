//! The one place that reads the wall clock, and waits for it. What decides takes the time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use countersign_shared::UnixTime;
use time::OffsetDateTime;

/// By how much a verifier's clock may be slow, in seconds: for so long what a token says is kept after it has expired.
pub const SLOW_CLOCKS: i64 = 3600;

/// The current time, in whole seconds.
pub fn now() -> UnixTime {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    UnixTime(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// The current time in whole microseconds, as the database keeps them.
pub fn precise() -> OffsetDateTime {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let nanos = i128::try_from(micros).unwrap_or(0) * 1000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// `time` as a timestamp; the epoch where it lies outside the years 0–9999.
pub fn timestamp(time: UnixTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(time.0).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Returns when the wall clock has reached `time`.
pub async fn reach(time: UnixTime) {
    let instant = UNIX_EPOCH + Duration::from_secs(time.0.unsigned_abs());
    while let Ok(left) = instant.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}

/// The current time in milliseconds since 1970-01-01T00:00:00Z: for limits, whose windows are short.
pub fn millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
