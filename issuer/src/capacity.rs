//! How much there is of everything, and how long anybody waits for it: `docs/reference/limits.md`, which a test compares with [`tables`]. What clients may ask for
//! is in [`crate::http::bounds`], and on the same page.

use std::time::Duration;

use crate::audit::{MAX_EXPORTS, writer};
use crate::clients::{LEASE, MAX_CLIENTS, MAX_RESOURCE_SERVERS, MAX_TENANTS, uses};
use crate::config::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_IP, MAX_REQUESTS, POOL_SIZE, STARTUP_SECONDS};
use crate::grants::imported;
use crate::http::health;
use crate::publisher::{courier, sinks};
use crate::storage::{
    ACQUIRE_TIMEOUT, LONG_STATEMENT_TIMEOUT, STATEMENT_TIMEOUT, audit, changes, idempotency, jobs,
    not_before, outbox, signing_keys, status_lists,
};
use crate::telemetry::lines;
use crate::tokens::{known, live};
use crate::{hot, http, limits};

/// Connections that an issuer has beside its pools, of each who does this: hears changes, rotates keys, publishes, reads all that was published when it begins,
/// seals, writes the audit log, does jobs one after the other.
const BESIDE: u32 = 7;

/// The page's tables, in its order.
pub fn tables() -> [String; 4] {
    [http::bounds::table(), settings(), waits(), queues()]
}

fn settings() -> String {
    let of_pools = |size: u32| {
        format!("{size}, in each of two pools; with up to {BESIDE} beside them, {} in all", 2 * size + BESIDE)
    };
    table(
        "setting",
        "default",
        "beyond it",
        &[
            ("`MAX_REQUESTS`", MAX_REQUESTS.to_string(), "they wait in line, then 503 `OVERLOADED`"),
            ("`MAX_CONNECTIONS`", MAX_CONNECTIONS.to_string(), "they wait in the listener's queue"),
            (
                "`MAX_CONNECTIONS_PER_IP`",
                MAX_CONNECTIONS_PER_IP.to_string(),
                "closed; the loopback and `TRUSTED_PROXIES` excepted",
            ),
            ("`DATABASE_POOL_SIZE`", of_pools(POOL_SIZE), "requests wait for a connection, as below"),
            ("`STARTUP_TIMEOUT_SECONDS`", STARTUP_SECONDS.to_string(), "the start fails"),
        ],
    )
}

fn waits() -> String {
    let statement = milliseconds(STATEMENT_TIMEOUT);
    table(
        "wait",
        "at most",
        "then",
        &[
            ("a request, for a connection to Postgres", said(ACQUIRE_TIMEOUT), "503 `SERVICE_UNAVAILABLE`"),
            ("a request, for a statement of Postgres", statement, "503; Postgres ends it"),
            (
                "one with an `Idempotency-Key`, for another with the same",
                milliseconds(idempotency::PATIENCE),
                "409 `IDEMPOTENCY_KEY_IN_USE`",
            ),
            (
                "one that ends tokens, for another that ends the same",
                milliseconds(not_before::PATIENCE),
                "503",
            ),
            ("the publisher, for a statement", said(outbox::PATIENCE), "it starts over; another may lead"),
            (
                "… that reads what came after the base in force",
                milliseconds(LONG_STATEMENT_TIMEOUT),
                "the same",
            ),
            ("… for the next row of all that matters", said(outbox::LONG_PATIENCE), "the same"),
            ("who rotates keys, for the lock of who does", said(signing_keys::PATIENCE), "the same"),
            ("the audit log's sealer, for a part that it seals", said(audit::PATIENCE), "the same"),
            ("a job, for a statement", milliseconds(jobs::PATIENCE), "tried again after a minute"),
            ("… for a lock", milliseconds(jobs::LOCK_PATIENCE), "the same"),
            (
                "who makes a status list, for its tokens",
                milliseconds(status_lists::PATIENCE),
                "503 to who asks for it; it is tried again",
            ),
            (
                "who hears changes, for a sign of life",
                said(changes::PATIENCE),
                "client records are read from Postgres",
            ),
            ("for how long client records count after the last sign of life", said(LEASE), "the same"),
            (
                "an audit event, to be written",
                said(writer::PATIENCE),
                "503: what can't be written down isn't answered",
            ),
            (
                "an export of audit events, until its client has taken it",
                said(http::audit::EXPORT_PATIENCE),
                "it ends there",
            ),
            ("anybody, for Redis", said(hot::TIMEOUT), "the process counts for itself"),
            ("… before Redis is asked again, by one request", said(hot::PAUSE), ""),
            ("a probe, for Postgres", said(health::PATIENCE), "`unavailable`"),
            ("an imported secret, for its turn to be checked", said(imported::PATIENCE), "503"),
            ("the publisher, for the hub", said(sinks::PUSH_TIMEOUT), "tried again, with pauses"),
            ("the publisher, for an object in KV", said(sinks::OBJECT_TIMEOUT), "the same"),
            ("… the longest of these pauses", said(courier::LONGEST_PAUSE), ""),
        ],
    )
}

fn queues() -> String {
    let (of_one, of_all) = imported::PLACES;
    let (exports_of_one, exports_of_all) = MAX_EXPORTS;
    table(
        "kept or waiting",
        "at most",
        "beyond it",
        &[
            ("audit events that wait to be written", writer::WAITING.to_string(), "requests wait, as above"),
            ("… written together", writer::BATCH.to_string(), ""),
            (
                "signatures that RSA keys are still to make",
                "requests in the works".to_owned(),
                "requests wait, as above",
            ),
            ("tokens whose state is looked up together", live::BATCH.to_string(), "the next look-up"),
            (
                "signatures of tokens that are known to hold",
                known::PLACES.to_string(),
                "an older one is checked again",
            ),
            ("imported secrets being checked, of one tenant", of_one.to_string(), "503"),
            ("… of all", of_all.to_string(), "503"),
            ("exports of the audit log at once, of one tenant", exports_of_one.to_string(), "503"),
            ("… of all", exports_of_all.to_string(), "503"),
            (
                "audit events of an export that are in memory",
                http::audit::EXPORT_PAGE.to_string(),
                "read when they are taken",
            ),
            ("credentials whose last use waits to be written", uses::MAX_NOTED.to_string(), "not noted"),
            (
                "counters of requests, and of failures, that a process has without Redis, of each",
                hot::MAX_ENTRIES.to_string(),
                "a lapsed one's place is taken, or any one's",
            ),
            ("client records in memory", MAX_CLIENTS.to_string(), "read from Postgres"),
            ("tenants", MAX_TENANTS.to_string(), "the same"),
            ("resource servers", MAX_RESOURCE_SERVERS.to_string(), "the same"),
            (
                "lines of the log that wait to be written, and as much that is being written",
                format!("{} MiB", lines::WAITING_BYTES / (1024 * 1024)),
                "lost, and counted",
            ),
            (
                "clients whose monthly count waits for Redis",
                limits::monthly::MAX_WAITING.to_string(),
                "not shown in Redis; the quota doesn't go by it",
            ),
        ],
    )
}

fn table(what: &str, bound: &str, beyond: &str, rows: &[(&str, String, &str)]) -> String {
    let rows: Vec<String> =
        rows.iter().map(|(what, bound, beyond)| format!("| {what} | {bound} | {beyond} |\n")).collect();
    format!("| {what} | {bound} | {beyond} |\n|---|---|---|\n{}", rows.concat())
}

fn said(time: Duration) -> String {
    if time.subsec_millis() == 0 {
        format!("{} s", time.as_secs())
    } else {
        format!("{} ms", time.as_millis())
    }
}

/// As Postgres is told.
fn milliseconds(text: &str) -> String {
    said(Duration::from_millis(text.parse().unwrap_or_default()))
}
