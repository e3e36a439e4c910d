//! How a task that tries again and again says so: at once, then at growing distance, and when it is over. What fails every second for an hour would
//! otherwise fill the log by itself, several times over.

use std::fmt;
use std::time::{Duration, Instant};

use tracing::{info, warn};

/// How soon a failure is said again; each time twice as long.
const FIRST: Duration = Duration::from_secs(10);
/// And how long at most.
const LONGEST: Duration = Duration::from_mins(10);
/// What fails again within this time after it seemed over wasn't.
const SETTLED: Duration = Duration::from_secs(10);

/// Failures of one task, from the first to when it works again.
#[derive(Debug)]
pub struct Outage {
    fails: &'static str,
    works: &'static str,
    span: Option<Span>,
}

#[derive(Debug)]
struct Span {
    began: Instant,
    failures: u32,
    said: Instant,
    /// Until it is said again.
    pause: Duration,
    /// Since when it has worked.
    over: Option<Instant>,
    /// A failure was said, and not yet that it is over.
    is_open: bool,
}

/// What is to be said of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Saying {
    /// For how long it has failed.
    seconds: u64,
    /// How often.
    failures: u32,
}

impl Outage {
    /// Of a task of which the log says `fails` before the cause, and `works` when it is over.
    pub const fn new(fails: &'static str, works: &'static str) -> Self {
        Self { fails, works, span: None }
    }

    /// It failed, which the log is told, if it is time.
    pub fn fails(&mut self, cause: impl fmt::Display) {
        if let Some(Saying { seconds, failures }) = self.fails_at(Instant::now()) {
            warn!(failures, seconds, "{} {cause}", self.fails);
        }
    }

    /// It works, which the log is told if it was told that it didn't.
    pub fn works(&mut self) {
        if let Some(seconds) = self.works_at(Instant::now()) {
            info!(seconds, "{}", self.works);
        }
    }

    fn fails_at(&mut self, now: Instant) -> Option<Saying> {
        self.span.take_if(|span| span.over.is_some_and(|over| now.duration_since(over) >= SETTLED));
        let Some(span) = &mut self.span else {
            self.span =
                Some(Span { began: now, failures: 1, said: now, pause: FIRST, over: None, is_open: true });
            return Some(Saying { seconds: 0, failures: 1 });
        };
        span.failures = span.failures.saturating_add(1);
        span.over = None;
        if now.duration_since(span.said) < span.pause {
            return None;
        }
        span.said = now;
        span.is_open = true;
        span.pause = (span.pause * 2).min(LONGEST);
        Some(Saying { seconds: now.duration_since(span.began).as_secs(), failures: span.failures })
    }

    /// For how many seconds it didn't, where that is to be said.
    fn works_at(&mut self, now: Instant) -> Option<u64> {
        let span = self.span.as_mut().filter(|span| span.over.is_none())?;
        span.over = Some(now);
        std::mem::take(&mut span.is_open).then(|| now.duration_since(span.began).as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_failures_takes_few_lines() {
        let mut outage = Outage::new("it fails:", "it works");
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let said: Vec<u64> = (0..3600).filter(|second| outage.fails_at(at(*second)).is_some()).collect();
        assert_eq!(said, [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030]);
        assert_eq!(outage.works_at(at(3600)), Some(3600));
        assert_eq!(outage.works_at(at(3601)), None, "said once");
        // What comes back at once is the same outage.
        assert_eq!(outage.fails_at(at(3605)), None);
        assert_eq!(outage.works_at(at(3606)), None, "nobody was told that it failed");
        assert_eq!(outage.fails_at(at(4000)), Some(Saying { seconds: 0, failures: 1 }));
    }

    #[test]
    fn what_fails_and_works_by_turns_takes_few_lines_too() {
        let mut outage = Outage::new("it fails:", "it works");
        let start = Instant::now();
        let (mut failed, mut worked) = (Vec::new(), Vec::new());
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            failed.extend(outage.fails_at(now).map(|_| second));
            worked.extend(outage.works_at(now + Duration::from_millis(500)).map(|_| second));
        }
        assert_eq!(failed, [0, 10, 30, 70, 150, 310]);
        assert_eq!(worked, failed, "each is said to be over, once");
    }
}
