//! What issuers keep in Postgres: keys, publication, jobs, the audit log; and the database's clock.

use time::{Duration, OffsetDateTime};

use super::Finding;
use crate::clients::{MAX_AHEAD, MAX_BEHIND};
use crate::clock;
use crate::config::Serve;
use crate::domain::signing_key::{KeyRecord, Purpose};
use crate::jobs::{self, Job};
use crate::keys::{self, KeyError};
use crate::management::publication::{State, Status};
use crate::storage::jobs::Run;
use crate::storage::signing_keys::{self, Known};
use crate::storage::{Database, StorageError, inspection, publication, schema};

/// An issuer whose clock is off by more decides nothing.
const MOST_AHEAD: Duration = Duration::milliseconds(MAX_AHEAD);
const MOST_BEHIND: Duration = Duration::milliseconds(MAX_BEHIND);
/// A clock that is off by more is to be looked after.
const NOTABLE: Duration = Duration::milliseconds(500);
/// How much later than it is due something is late: by then a leader has long seen it.
const LATE: Duration = Duration::hours(1);
/// Audit events are sealed within a second.
const LONGEST_QUEUED: Duration = Duration::minutes(1);

const NO_ISSUER: &str = "see whether an issuer runs (`countersign serve`), and its log";

/// This process's clock beside the database's.
pub(super) async fn clock(database: &Database) -> Finding {
    let (before, theirs) = (clock::precise(), inspection::now(database).await);
    let after = clock::precise();
    let theirs = match theirs {
        Ok(theirs) => theirs,
        Err(error) => return unknown("clock", &error),
    };
    // It was read at some time in between: what is certain is what is left after that.
    let off = (before - theirs).max(Duration::ZERO) - (theirs - after).max(Duration::ZERO);
    let todo = "keep both machines' clocks by NTP or the like";
    let found = match off.whole_milliseconds() {
        0 => "this machine's and the database's agree".to_owned(),
        ms @ 1.. => format!("this machine's clock is {ms} ms ahead of the database's"),
        ms => format!("this machine's clock is {} ms behind the database's", -ms),
    };
    if off > MOST_AHEAD || -off > MOST_BEHIND {
        Finding::failure("clock", format!("{found}: an issuer here decides nothing"), todo)
    } else if off.abs() >= NOTABLE {
        Finding::warning("clock", found, todo)
    } else {
        Finding::ok("clock", found)
    }
}

/// All but the clock.
pub(super) async fn all(database: &Database, config: &Serve) -> Vec<Finding> {
    let mut findings = match signing_keys::known(database).await {
        Ok(known) => signing(&known, config),
        Err(error) => vec![unknown("keys", &error)],
    };
    findings.push(match publication::find(database).await {
        Ok(found) => published(&Status::of(found), config.publisher.is_some()),
        Err(error) => unknown("publication", &error),
    });
    findings.push(match (jobs::last_runs(database).await, schema::migrations(database).await) {
        (Ok(runs), Ok(migrations)) => {
            let migrated = migrations.iter().filter_map(|migration| migration.applied_at).max();
            cleaned(&runs, migrated, clock::precise())
        }
        (Err(error), _) | (_, Err(error)) => unknown("jobs", &error),
    });
    findings.push(match inspection::audit(database).await {
        Ok(found) => audited(&found, config.audit_retention.days),
        Err(error) => unknown("audit", &error),
    });
    findings
}

fn unknown(check: &'static str, error: &StorageError) -> Finding {
    Finding::failure(check, error.to_string(), "see the database's log")
}

/// What signs, what follows it, and whether the master key opens it.
fn signing(known: &Known, config: &Serve) -> Vec<Finding> {
    let mut findings = Vec::new();
    for purpose in [Purpose::Token, Purpose::Revocation] {
        let check = match purpose {
            Purpose::Token => "token keys",
            Purpose::Revocation => "key of heads",
        };
        if let Err(error) = keys::published(&known.keys, &config.master_key, purpose) {
            let todo = match &error {
                KeyError::NoActiveKey(_) => "run: countersign bootstrap",
                _ => {
                    "correct MASTER_KEY: `countersign keys list` shows the keys (docs/reference/keys.md, At rest)"
                }
            };
            findings.push(Finding::failure(check, error.to_string(), todo));
            continue;
        }
        let algorithms = match purpose {
            Purpose::Token => {
                let mut algorithms = known.asked_for.clone();
                algorithms.push(known.state.token_algorithm);
                algorithms.sort_unstable_by_key(|algorithm| algorithm.as_str());
                algorithms.dedup();
                algorithms
            }
            Purpose::Revocation => {
                let signs = known.keys.iter().find(|key| key.purpose == purpose && key.signs_at(known.now));
                signs.map(|key| key.algorithm).into_iter().collect()
            }
        };
        if algorithms.is_empty() {
            findings.push(Finding::failure(check, "no key signs", "run: countersign bootstrap"));
        }
        for algorithm in algorithms {
            let of = |key: &&KeyRecord| {
                key.purpose == purpose && key.algorithm == algorithm && key.signs_at(known.now)
            };
            let Some(key) = known.keys.iter().rfind(of) else {
                let found = format!("no key signs {}", algorithm.as_str());
                findings.push(Finding::failure(
                    check,
                    found,
                    format!("a running issuer makes one within a minute; else {NO_ISSUER}"),
                ));
                continue;
            };
            let next = known.scheduled(purpose, algorithm);
            let rotates = matches!(purpose, Purpose::Token).then_some(config.signing.rotation).flatten();
            findings.push(rotation(check, key, next, rotates, known.now));
        }
    }
    findings
}

fn rotation(
    check: &'static str,
    key: &KeyRecord,
    next: Option<&KeyRecord>,
    rotates: Option<Duration>,
    now: OffsetDateTime,
) -> Finding {
    let signs = format!("{} signs {}", key.kid, key.algorithm.as_str());
    if let Some(from) = next.and_then(|next| Some((next.kid.as_str(), next.activates_at?))) {
        let (kid, at) = from;
        if now - at > LATE {
            return Finding::warning(
                check,
                format!("{signs}; {kid} was to follow it {} ago, and isn't active", days(now - at)),
                NO_ISSUER,
            );
        }
        return Finding::ok(
            check,
            format!("{signs}; {kid} is published, and follows it in {}", days(at - now)),
        );
    }
    let Some((rotates, since)) = rotates.zip(key.activates_at) else {
        return Finding::ok(check, format!("{signs}, until an operator says otherwise"));
    };
    let due = since + rotates - now;
    if -due > LATE {
        let found = format!("{signs}, and should have been followed {} ago", days(-due));
        return Finding::warning(check, found, NO_ISSUER);
    }
    Finding::ok(check, format!("{signs}; it is rotated in {}", days(due)))
}

/// In the largest unit that says something.
fn days(duration: Duration) -> String {
    match duration.whole_hours() {
        ..=1 => format!("{} min", duration.whole_minutes().max(0)),
        hours @ 2..48 => format!("{hours} h"),
        hours => format!("{} days", hours / 24),
    }
}

fn published(status: &Status, is_configured: bool) -> Finding {
    const CHECK: &str = "publication";
    let failing = status
        .report
        .iter()
        .flat_map(|report| &report.sinks)
        .filter_map(|sink| Some(format!("{}: {}", sink.sink, sink.error.as_ref()?)));
    let failing: Vec<String> = failing.collect();
    let superseded = failing.iter().any(|cause| cause.contains("it holds a newer one"));
    let todo = if superseded {
        "if the database was restored from a backup: countersign recover (docs/reference/recovery.md)"
    } else {
        "see whether hub and KV can be reached from the issuers, and take their secrets (below, and the issuers' logs)"
    };
    let because = if failing.is_empty() { String::new() } else { format!(" ({})", failing.join("; ")) };
    match status.state {
        State::NotRunning if is_configured => {
            let found = "no issuer publishes: what is revoked isn't known at the edge";
            Finding::failure(CHECK, format!("{found}{because}"), NO_ISSUER)
        }
        State::NotRunning => Finding::warning(
            CHECK,
            "no issuer publishes, and nothing says where to: what is revoked is known here alone",
            "set HUB_URL and what goes with it, or PUBLISHER_DIRECTORY (docs/reference/configuration.md)",
        ),
        State::Behind => {
            let found = format!(
                "{} changes aren't at the edge, the oldest for {} s",
                status.lag_rows,
                status.lag.whole_seconds()
            );
            Finding::failure(CHECK, format!("{found}{because}"), todo)
        }
        State::Current if !failing.is_empty() => {
            Finding::warning(CHECK, format!("some of it fails{because}"), todo)
        }
        State::Current => {
            let listeners = status.report.as_ref().and_then(|report| report.listeners);
            let listeners = listeners
                .map_or_else(String::new, |listeners| format!("; {} isolates listen", listeners.count));
            Finding::ok(CHECK, format!("every change is there where it is published{listeners}"))
        }
    }
}

/// `migrated`: when the schema became what it is. What never ran can't have been due before that: there may have been no issuer yet.
fn cleaned(runs: &[(Job, Option<Run>)], migrated: Option<OffsetDateTime>, now: OffsetDateTime) -> Finding {
    const CHECK: &str = "jobs";
    let failed: Vec<String> = runs
        .iter()
        .filter_map(|(job, run)| Some(format!("{}: {}", job.as_str(), run.as_ref()?.failure.as_ref()?)))
        .collect();
    if !failed.is_empty() {
        return Finding::warning(
            CHECK,
            format!("failed: {}", failed.join("; ")),
            "see the issuers' logs; `countersign jobs run NAME` tries again",
        );
    }
    let is_late = |run: &Option<Run>| match run {
        Some(run) => !run.running && now - run.next_at > LATE,
        None => migrated.is_none_or(|since| now - since > LATE),
    };
    let late: Vec<&str> = runs.iter().filter(|(_, run)| is_late(run)).map(|(job, _)| job.as_str()).collect();
    if late.is_empty() {
        return Finding::ok(
            CHECK,
            match runs.iter().filter(|(_, run)| run.is_none()).count() {
                0 => "all were done when they were due".to_owned(),
                first => format!("none is late; {first} are to be done for the first time"),
            },
        );
    }
    Finding::warning(
        CHECK,
        format!("not done for more than an hour after they were due, or never: {}", late.join(", ")),
        NO_ISSUER,
    )
}

fn audited(found: &inspection::Audit, retention_days: u32) -> Finding {
    const CHECK: &str = "audit";
    let queued = found.oldest_queued.map_or(Duration::ZERO, |since| found.now - since);
    let size = format!("{} of audit events in {} weeks", bytes(found.bytes), found.weeks);
    // The fullest week is what the others may become.
    let ahead = found.largest_week.saturating_mul(u64::from(retention_days.div_ceil(7) + 1));
    let size = format!(
        "{size}; at the pace of the fullest it will be {} in AUDIT_RETENTION_DAYS ({retention_days}): have room for that",
        bytes(ahead)
    );
    if queued > LONGEST_QUEUED {
        let found = format!("events have waited for {} s to be sealed; {size}", queued.whole_seconds());
        return Finding::failure(CHECK, found, NO_ISSUER);
    }
    Finding::ok(CHECK, size)
}

fn bytes(bytes: u64) -> String {
    match bytes {
        ..1_000_000 => format!("{} KB", bytes.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{} MB", bytes.div_ceil(1_000_000)),
        _ => format!("{} GB", bytes.div_ceil(1_000_000_000)),
    }
}
