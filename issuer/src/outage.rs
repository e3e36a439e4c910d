//! How a task that tries again and again says so: at once, then at growing distance, and when it is over. What fails every second for an hour would
//! otherwise fill the log by itself, several times over.

use std::time::{Duration, Instant};

/// How soon a failure is said again; each time twice as long.
const FIRST: Duration = Duration::from_secs(10);
/// And how long at most.
const LONGEST: Duration = Duration::from_mins(10);
/// What fails again within this time after it seemed over wasn't.
const SETTLED: Duration = Duration::from_secs(10);

/// Failures of one task, from the first to when it works again.
#[derive(Debug, Default)]
pub struct Outage(Option<Span>);

#[derive(Debug)]
struct Span {
    began: Instant,
    failures: u32,
    said: Instant,
    /// Until it is said again.
    pause: Duration,
    /// Since when it has worked.
    over: Option<Instant>,
}

/// What is to be said of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saying {
    /// For how long it has failed.
    pub seconds: u64,
    /// How often.
    pub failures: u32,
}

impl Outage {
    /// It failed. What to say about it, if anything.
    pub fn fails(&mut self) -> Option<Saying> {
        self.fails_at(Instant::now())
    }

    /// It works. For how many seconds it didn't, where nobody has said yet that it works again.
    pub fn over(&mut self) -> Option<u64> {
        self.over_at(Instant::now())
    }

    fn fails_at(&mut self, now: Instant) -> Option<Saying> {
        self.0.take_if(|span| span.over.is_some_and(|over| now.duration_since(over) >= SETTLED));
        let Some(span) = &mut self.0 else {
            self.0 = Some(Span { began: now, failures: 1, said: now, pause: FIRST, over: None });
            return Some(Saying { seconds: 0, failures: 1 });
        };
        span.failures = span.failures.saturating_add(1);
        span.over = None;
        if now.duration_since(span.said) < span.pause {
            return None;
        }
        span.said = now;
        span.pause = (span.pause * 2).min(LONGEST);
        Some(Saying { seconds: now.duration_since(span.began).as_secs(), failures: span.failures })
    }

    fn over_at(&mut self, now: Instant) -> Option<u64> {
        let span = self.0.as_mut().filter(|span| span.over.is_none())?;
        span.over = Some(now);
        Some(now.duration_since(span.began).as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_failures_takes_few_lines() {
        let mut outage = Outage::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let said: Vec<u64> = (0..3600).filter(|second| outage.fails_at(at(*second)).is_some()).collect();
        assert_eq!(said, [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030]);
        assert_eq!(outage.over_at(at(3600)), Some(3600));
        assert_eq!(outage.over_at(at(3601)), None, "said once");
        // What comes back at once is the same outage.
        assert_eq!(outage.fails_at(at(3605)), None);
        assert_eq!(outage.over_at(at(3606)), Some(3606));
        assert_eq!(outage.fails_at(at(4000)), Some(Saying { seconds: 0, failures: 1 }));
    }
}
