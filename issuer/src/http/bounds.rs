//! How much a client may ask for, and for how long. All of it stands in `docs/reference/http-api.md` and `docs/reference/limits.md`, which tests compare with [`table`].

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::works::{PATIENCE, SPARE, WAITING};

/// The longest body, in bytes.
pub(super) const BODY_BYTES: usize = 64 * 1024;
/// How much of a longer one is read and thrown away: a client that is cut off while it still sends may not see the answer.
pub(super) const DISCARDED_BYTES: usize = 1024 * 1024;
/// How long that may take where the request was refused before its body was read.
pub(super) const DISCARD_PATIENCE: Duration = Duration::from_millis(500);
/// How long a body may take to arrive. Shorter than [`ANSWER_PATIENCE`], so that the client is told what was wrong.
pub(super) const BODY_PATIENCE: Duration = Duration::from_secs(4);

/// The longest request target (path and query), in bytes.
pub(super) const TARGET_BYTES: usize = 8 * 1024;
/// The longest head (request line and header fields), in bytes.
pub(super) const HEAD_BYTES: usize = 32 * 1024;
/// The most header fields.
pub(super) const HEAD_FIELDS: usize = 100;
/// How long a connection may take to send a request's head, the first or the next: one that is silent for longer is closed.
pub(super) const HEAD_PATIENCE: Duration = Duration::from_secs(15);

/// A request that takes longer is given up: what it waits for is the database.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may take none of an answer that is ready.
pub(super) const SEND_PATIENCE: Duration = Duration::from_secs(30);

/// The log says at most this often that somebody was turned away.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// What somebody else can have the log say, which is said once in a while.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<Option<Instant>>);

impl Complaints {
    /// Whether it is time for a line.
    pub(super) fn due(&self) -> bool {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) > COMPLAINT_INTERVAL);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// The part of `docs/reference/http-api.md` that says so.
pub fn table() -> String {
    let seconds = |patience: Duration| format!("{} s", patience.as_secs());
    let kib = |bytes: usize| format!("{} KiB", bytes / 1024);
    let rows: [(&str, String, &str); 14] = [
        (
            "request target (path and query)",
            kib(TARGET_BYTES),
            "414 `URI_TOO_LONG`, at the OAuth endpoints `invalid_request`",
        ),
        ("head: request line and header fields together", kib(HEAD_BYTES), "431, without a body; closed"),
        ("header fields", HEAD_FIELDS.to_string(), "431, without a body; closed"),
        ("body", kib(BODY_BYTES), "413 `PAYLOAD_TOO_LARGE`, at the OAuth endpoints `invalid_request`"),
        ("time to send a head, the first on a connection or the next", seconds(HEAD_PATIENCE), "closed"),
        ("time to send a body", seconds(BODY_PATIENCE), "400 `MALFORMED_REQUEST`, `invalid_request`"),
        ("time to answer", seconds(ANSWER_PATIENCE), "503 `SERVICE_UNAVAILABLE`, `temporarily_unavailable`"),
        ("time in which a client takes nothing of its answer", seconds(SEND_PATIENCE), "closed"),
        ("requests in the works at once, of one issuer", "`MAX_REQUESTS`".to_owned(), "they wait in line"),
        ("… with those that revoke", format!("1/{SPARE} more"), "the same"),
        (
            "time in line",
            format!("{} ms", PATIENCE.as_millis()),
            "503 `OVERLOADED`, `temporarily_unavailable`",
        ),
        ("requests in line", format!("{WAITING} for each of the former"), "the same, at once"),
        ("connections at once", "`MAX_CONNECTIONS`".to_owned(), "more wait to be accepted"),
        (
            "connections at once from one IPv4 address, or one IPv6 /64",
            "`MAX_CONNECTIONS_PER_IP`".to_owned(),
            "closed",
        ),
    ];
    let rows = rows.map(|(what, bound, beyond)| format!("| {what} | {bound} | {beyond} |\n"));
    format!("| what | at most | beyond it |\n|---|---|---|\n{}", rows.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_in_a_while() {
        let complaints = Complaints::default();
        let start = Instant::now();
        let said: Vec<u64> =
            (0..300).filter(|tenth| complaints.due_at(start + Duration::from_millis(100 * tenth))).collect();
        assert_eq!(said, [0, 101, 202]);
    }
}
