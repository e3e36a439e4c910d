//! What is, read when somebody scrapes, from this process's memory.

use std::sync::atomic::AtomicU64;

use countersign_shared::Algorithm;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::app::App;
use crate::clock;
use crate::domain::signing_key::{KeyRecord, Purpose};
use crate::hot::Health;

type Number = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabel {
    pool: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabel {
    sink: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabels {
    purpose: &'static str,
    algorithm: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlgorithmLabel {
    algorithm: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UsedLabel {
    used: &'static str,
}

/// All gauges, as they are now. What isn't known isn't there.
pub async fn read(app: &App) -> Registry {
    let mut registry = Registry::default();
    process(&mut registry);
    connections(&mut registry, app);
    requests(&mut registry, app);
    publisher(&mut registry, app);
    keys(&mut registry, app);
    hot_state(&mut registry, app).await;
    certificate(&mut registry, app);
    database(&mut registry, app);
    registry
}

fn number(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Number::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn process(registry: &mut Registry) {
    registry.register(
        "countersign_build",
        "The program",
        Info::new([("version", env!("CARGO_PKG_VERSION"))]),
    );
    if let Some(bytes) = resident_bytes() {
        number(registry, "memory_usage_bytes", "Memory of the process that is resident", bytes);
    }
}

/// As Linux has it; elsewhere it isn't known.
fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u32 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(f64::from(kibibytes) * 1024.0)
}

fn connections(registry: &mut Registry, app: &App) {
    let (active, idle) = (Family::<PoolLabel, Number>::default(), Family::<PoolLabel, Number>::default());
    for (pool, open, unused) in app.database.connections() {
        let label = PoolLabel { pool };
        active.get_or_create(&label).set(f64::from(open.saturating_sub(unused)));
        idle.get_or_create(&label).set(f64::from(unused));
    }
    registry.register("database_connections_active", "Connections that are in use", active);
    registry.register("countersign_database_connections_idle", "Connections that wait to be used", idle);
}

fn requests(registry: &mut Registry, app: &App) {
    let taken = u32::try_from(app.works.taken()).unwrap_or(u32::MAX);
    let help = "Requests that are under way, of those that MAX_REQUESTS counts";
    number(registry, "countersign_requests_in_works", help, f64::from(taken));
    let waiting = u32::try_from(app.works.waiting()).unwrap_or(u32::MAX);
    number(
        registry,
        "countersign_requests_waiting",
        "Requests that wait for a place among those",
        f64::from(waiting),
    );
    let on = f64::from(u8::from(app.maintenance.mode().is_some()));
    number(registry, "countersign_maintenance", "1: this issuer is in maintenance", on);
}

fn publisher(registry: &mut Registry, app: &App) {
    let Some(leading) = app.publisher.leading() else { return };
    let help = "1: this process publishes; 0: another one does, or none is reached";
    number(registry, "countersign_publisher_leader", help, f64::from(u8::from(leading.is_some())));
    let Some((lag, report)) = leading else { return };
    number(
        registry,
        "countersign_revocation_lag_seconds",
        "For how long the oldest change hasn't reached the edge",
        lag.as_secs_f64(),
    );
    if let Some(as_of) = report.as_of {
        let age = clock::now().0.saturating_sub(as_of).max(0);
        let help = "Age of the newest head that the edge has taken";
        number(registry, "countersign_revocation_head_age_seconds", help, float(age));
    }
    if let Some(listeners) = report.listeners {
        let help = "Isolates that listen for revocations";
        number(registry, "countersign_edge_listeners", help, float(listeners.count));
    }
    let (lags, failing) = (Family::<SinkLabel, Number>::default(), Family::<SinkLabel, Number>::default());
    for sink in report.sinks {
        let label = SinkLabel { sink: sink.sink };
        lags.get_or_create(&label).set(float(sink.lag_ms) / 1000.0);
        failing.get_or_create(&label).set(f64::from(u8::from(sink.failing_since.is_some())));
    }
    registry.register(
        "countersign_sink_lag_seconds",
        "For how long the oldest change hasn't reached this sink",
        lags,
    );
    registry.register("countersign_sink_failing", "1: nothing reaches this sink", failing);
}

fn keys(registry: &mut Registry, app: &App) {
    let (keys, now) = (app.keys.current(), clock::precise());
    let states = Family::<KeyLabels, Number>::default();
    for record in keys.records() {
        let labels = KeyLabels {
            purpose: record.purpose.as_str(),
            algorithm: record.algorithm.as_str(),
            state: record.state.as_str(),
        };
        states.get_or_create(&labels).inc();
    }
    registry.register("countersign_signing_keys", "Keys that aren't retired", states);

    let days = Family::<AlgorithmLabel, Number>::default();
    for algorithm in Algorithm::ALL {
        let signs = |record: &&KeyRecord| {
            record.purpose == Purpose::Token && record.algorithm == algorithm && record.signs_at(now)
        };
        // Of several the one whose time came last signs: until another does, or its days are over.
        let key = keys.records().filter(signs).max_by_key(|record| record.activates_at);
        let ends =
            key.and_then(|key| key.signs_until.or_else(|| Some(key.activates_at? + app.key_rotation?)));
        if let Some(ends) = ends {
            let label = AlgorithmLabel { algorithm: algorithm.as_str() };
            days.get_or_create(&label).set((ends - now).as_seconds_f64() / 86_400.0);
        }
    }
    registry.register(
        "countersign_signing_key_days_to_rotation",
        "Until another key signs tokens; negative: it is late",
        days,
    );
}

async fn hot_state(registry: &mut Registry, app: &App) {
    let up = Family::<KindLabel, Number>::default();
    let answers = app.hot.health().await == Health::Ok;
    up.get_or_create(&KindLabel { kind: app.hot.name() }).set(f64::from(u8::from(answers)));
    registry.register("countersign_hot_state_up", "1: it answers; 0: each process counts for itself", up);
}

fn certificate(registry: &mut Registry, app: &App) {
    let Some(certificate) = &app.certificate else { return };
    let left = certificate.ends_at() - clock::precise();
    number(
        registry,
        "countersign_certificate_days_to_expiry",
        "Until the admin listener's certificate ends; negative: it has ended",
        left.as_seconds_f64() / 86_400.0,
    );
    let help = "1: the files have another certificate, which can't be used";
    number(registry, "countersign_certificate_stuck", help, f64::from(u8::from(certificate.is_stuck())));
}

fn database(registry: &mut Registry, app: &App) {
    let (figures, age) = app.figures.get();
    if let Some(age) = age {
        let help =
            "Since the figures below were read from the database; after 60 s without news they are left out";
        number(registry, "countersign_figures_age_seconds", help, age.as_secs_f64());
    }
    let Some(figures) = figures else { return };
    number(
        registry,
        "countersign_outbox_rows",
        "Changes that no leader has taken up yet",
        float(figures.outbox),
    );
    number(
        registry,
        "countersign_audit_queue_rows",
        "Audit events that aren't in their chain yet",
        float(figures.audit_queue),
    );
    number(
        registry,
        "countersign_audit_queue_age_seconds",
        "For how long the oldest of them has waited",
        figures.audit_queue_age,
    );
    let tenants = Family::<UsedLabel, Number>::default();
    tenants.get_or_create(&UsedLabel { used: "80%" }).set(float(figures.tenants_near_quota));
    tenants.get_or_create(&UsedLabel { used: "100%" }).set(float(figures.tenants_at_quota));
    registry.register(
        "countersign_quota_tenants",
        "Tenants that have used so much of the month's quota, or more",
        tenants,
    );
}

/// A whole number as metrics have it: exact up to 2⁵³, which none of these reaches.
#[expect(clippy::cast_precision_loss, reason = "as said")]
fn float(number: impl TryInto<i64>) -> f64 {
    number.try_into().unwrap_or(i64::MAX) as f64
}
