//! The one place that reads the wall clock. What decides takes the time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use countersign_shared::UnixTime;
use time::OffsetDateTime;

/// The current time, in whole seconds.
pub fn now() -> UnixTime {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    UnixTime(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// `time` as a timestamp; the epoch where it lies outside the years 0–9999.
pub fn timestamp(time: UnixTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(time.0).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
