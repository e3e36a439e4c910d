//! Figures for those who watch the issuer, in the text format of `OpenMetrics` 1.0, which Prometheus scrapes. All of them: `docs/reference/metrics.md`.
//!
//! What happens is counted here, where it happens, in the process's memory. What merely is, [`gauges`] reads when somebody scrapes; and what only the
//! database knows a task reads now and then ([`figures`]), so that no scrape and no request costs a query.
//!
//! Labels are routes, statuses, and words of ours: nothing that a caller could make up, and no tenant, client or address.

pub mod figures;
pub mod gauges;

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use axum::http::Method;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Bounds of the buckets for requests, in seconds.
const REQUEST_SECONDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds of the buckets for jobs, in seconds.
const JOB_SECONDS: [f64; 10] = [0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];

/// Of the process: there is one issuer in each.
static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RequestLabels, Histogram, fn() -> Histogram>,
    tokens: Family<OutcomeLabel, Counter>,
    validation_failures: Family<ReasonLabel, Counter>,
    authentication_failures: Counter,
    rejections: Family<LimitLabel, Counter>,
    lockouts: Counter,
    turned_away: Counter,
    log_lines_lost: Counter,
    job_seconds: Family<JobLabels, Histogram, fn() -> Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    job: &'static str,
    outcome: &'static str,
}

impl Metrics {
    fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
            tokens: Family::default(),
            validation_failures: Family::default(),
            authentication_failures: Counter::default(),
            rejections: Family::default(),
            lockouts: Counter::default(),
            turned_away: Counter::default(),
            log_lines_lost: Counter::default(),
            job_seconds: Family::new_with_constructor(|| Histogram::new(JOB_SECONDS)),
        };
        let mut registry = Registry::default();
        // The format's own rules add `_total` to counters.
        registry.register("http_requests", "Requests that were answered", metrics.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "From a request's arrival to its answer",
            metrics.request_seconds.clone(),
        );
        registry.register("token_issuance", "Token requests, by what came of them", metrics.tokens.clone());
        registry.register(
            "token_validation_failures",
            "Tokens that didn't hold, at introspection and at the management API",
            metrics.validation_failures.clone(),
        );
        registry.register(
            "countersign_authentication_failures",
            "Clients that failed to authenticate",
            metrics.authentication_failures.clone(),
        );
        registry.register(
            "countersign_limiter_rejections",
            "Requests refused by a limit",
            metrics.rejections.clone(),
        );
        registry.register("countersign_lockouts", "Clients that were locked out", metrics.lockouts.clone());
        registry.register(
            "countersign_requests_turned_away",
            "Requests that found MAX_REQUESTS in the works",
            metrics.turned_away.clone(),
        );
        registry.register(
            "countersign_log_lines_lost",
            "Lines of the log that were not written",
            metrics.log_lines_lost.clone(),
        );
        registry.register(
            "background_job_duration_seconds",
            "Runs of jobs beside the requests",
            metrics.job_seconds.clone(),
        );
        Self { registry, ..metrics }
    }
}

/// A request was answered. `route` is the template that matched, not the path.
pub fn request_answered(method: &Method, route: String, status: u16, duration: Duration) {
    let labels = RequestLabels { method: known(method), route, status };
    METRICS.requests.get_or_create(&labels).inc();
    METRICS.request_seconds.get_or_create(&labels).observe(duration.as_secs_f64());
}

/// Methods are for clients to make up; these have a meaning here.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// A token request came to its end: `issued`, or a word for why not.
pub fn token_request(outcome: &'static str) {
    METRICS.tokens.get_or_create(&OutcomeLabel { outcome }).inc();
}

/// A token that was looked at didn't hold.
pub fn token_refused(reason: &'static str) {
    METRICS.validation_failures.get_or_create(&ReasonLabel { reason }).inc();
}

/// A client failed to authenticate.
pub fn authentication_failed() {
    METRICS.authentication_failures.inc();
}

/// A limit refused a request.
pub fn limited(limit: &'static str) {
    METRICS.rejections.get_or_create(&LimitLabel { limit }).inc();
}

/// A client was locked out.
pub fn locked_out() {
    METRICS.lockouts.inc();
}

/// There was no room for so many lines of the log, or they couldn't be written.
pub fn log_lines_lost(lines: u64) {
    METRICS.log_lines_lost.inc_by(lines);
}

/// A request was turned away because there were too many.
pub fn turned_away() {
    METRICS.turned_away.inc();
}

/// A run of the job `job` has ended, well or not.
pub fn job_finished(job: &'static str, duration: Duration, ok: bool) {
    let outcome = if ok { "success" } else { "failure" };
    METRICS.job_seconds.get_or_create(&JobLabels { job, outcome }).observe(duration.as_secs_f64());
}

/// All that was counted, and the gauges of `now` after it.
pub fn encode(now: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    text::encode_registry(&mut text, &METRICS.registry)?;
    text::encode_registry(&mut text, now)?;
    text::encode_eof(&mut text)?;
    Ok(text)
}
