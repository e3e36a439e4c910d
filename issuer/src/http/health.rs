//! `/health` and `/ready`; the admin listener's `/livez` and `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::error::RETRY_AFTER_SECONDS;
use super::openapi;
use crate::app::App;
use crate::clients::Clock;
use crate::clock;
use crate::hot;
use crate::keys::KeyError;
use crate::storage::schema::{self, Fit, Mismatch};

/// How long a probe waits for the database.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How long an answer is given again.
const GOOD_FOR: Duration = Duration::from_millis(200);

/// What the last look at the parts has shown.
#[derive(Default)]
pub(super) struct LastReadiness(Mutex<Option<(Instant, (Verdict, Readiness))>>);

/// That the process lives.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    #[schema(schema_with = health_words)]
    status: &'static str,
}

fn health_words() -> RefOr<Schema> {
    openapi::word(&["ok"])
}

/// The process lives.
#[utoipa::path(
    get, path = "/health", tag = "operations", operation_id = "getHealth",
    summary = "Whether the process lives",
    responses((status = 200, description = "It does.", body = Health)),
)]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether the issuer can do its work, and each part of it.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct Readiness {
    #[schema(schema_with = readiness_words)]
    status: &'static str,
    /// The parts without which it can't.
    failing: Vec<&'static str>,
    /// The parts that aren't as they should be.
    degraded: Vec<&'static str>,
    /// By part: `status`, and what else is to be said about it.
    #[schema(value_type = BTreeMap<String, CheckBody>)]
    checks: serde_json::Map<String, Value>,
}

fn readiness_words() -> RefOr<Schema> {
    openapi::word(&["ready", "degraded", "unavailable", "stopping"])
}

/// How a part is.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description: each part says more of its own")]
struct CheckBody {
    status: String,
}

/// How much a failing part takes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ready,
    /// Serves, but not as it should.
    Degraded,
    /// Can't serve.
    Unavailable,
}

struct Check {
    name: &'static str,
    verdict: Verdict,
    body: Value,
}

/// Whether the issuer can do its work.
#[utoipa::path(
    get, path = "/ready", tag = "operations", operation_id = "getReadiness",
    summary = "Whether the issuer can do its work",
    responses(
        (status = 200, description = "It can, `degraded` not as well as it should.", body = Readiness),
        (status = 503, description = "It can't, or is about to stop.", body = Readiness),
    ),
)]
pub(super) async fn ready(
    State(app): State<Arc<App>>,
    Extension(last): Extension<Arc<LastReadiness>>,
) -> Response {
    if app.lifecycle.is_stopping() {
        // Requests are answered for a while yet, but no more should be sent here. What was looked at before doesn't matter any more.
        let body = Readiness {
            status: "stopping",
            failing: Vec::new(),
            degraded: Vec::new(),
            checks: serde_json::Map::new(),
        };
        return unavailable(body);
    }
    // Anybody may ask, as often as they like: they share an answer.
    let mut last = last.0.lock().await;
    let (verdict, body) = match &*last {
        Some((asked, answer)) if asked.elapsed() < GOOD_FOR => answer.clone(),
        _ => {
            let asked = Instant::now();
            last.insert((asked, look(&app).await)).1.clone()
        }
    };
    drop(last);
    match verdict {
        Verdict::Unavailable => unavailable(body),
        Verdict::Ready | Verdict::Degraded => Json(body).into_response(),
    }
}

fn unavailable(body: Readiness) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_AFTER_SECONDS)], Json(body)).into_response()
}

async fn look(app: &App) -> (Verdict, Readiness) {
    let (database, keys, hot_state) = tokio::join!(database(app), keys(app), hot_state(app));
    let [postgres, migrations] = database;
    let (clock, clients) = (clock(app), client_cache(app));
    let checks =
        [postgres, migrations, clock, keys, hot_state, clients, publisher(app), audit(app), maintenance(app)];

    let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ready);
    let status = match verdict {
        Verdict::Ready => "ready",
        Verdict::Degraded => "degraded",
        Verdict::Unavailable => "unavailable",
    };
    let named = |verdict| {
        checks.iter().filter(|check| check.verdict == verdict).map(|check| check.name).collect::<Vec<_>>()
    };
    let (failing, degraded) = (named(Verdict::Unavailable), named(Verdict::Degraded));
    let checks: serde_json::Map<String, Value> =
        checks.into_iter().map(|check| (check.name.to_owned(), check.body)).collect();
    (verdict, Readiness { status, failing, degraded, checks })
}

async fn database(app: &App) -> [Check; 2] {
    let answer = tokio::time::timeout(PATIENCE, schema::check(&app.database)).await;
    let ok = (Verdict::Ready, "ok");
    let (postgres, migrations) = match answer {
        Ok(Ok(Fit::Exact)) => (ok, ok),
        // The release after this one is being rolled out: its migrations leave this one working (migrations/README.md).
        Ok(Ok(Fit::Newer(_))) => (ok, (Verdict::Degraded, "ahead")),
        Ok(Err(Mismatch::Storage(_))) | Err(_) => {
            ((Verdict::Unavailable, "unavailable"), (Verdict::Unavailable, "unknown"))
        }
        Ok(Err(Mismatch::Behind)) => (ok, (Verdict::Unavailable, "behind")),
        Ok(Err(Mismatch::Ahead(_))) => (ok, (Verdict::Unavailable, "too_new")),
        Ok(Err(Mismatch::Altered(_))) => (ok, (Verdict::Unavailable, "altered")),
    };
    [("postgres", postgres), ("migrations", migrations)].map(|(name, (verdict, status))| Check {
        name,
        verdict,
        body: json!({ "status": status }),
    })
}

/// Whether this process knows which key signs.
async fn keys(app: &App) -> Check {
    let (verdict, status) = match tokio::time::timeout(PATIENCE, app.keys.fresh()).await {
        Ok(Ok(keys)) if keys.token_signer_at(clock::precise(), None).is_some() => (Verdict::Ready, "ok"),
        Ok(Ok(_)) => (Verdict::Unavailable, "none_signs"),
        Ok(Err(KeyError::Storage(_))) | Err(_) => (Verdict::Unavailable, "unknown"),
        Ok(Err(_)) => (Verdict::Unavailable, "unusable"),
    };
    Check { name: "keys", verdict, body: json!({ "status": status }) }
}

async fn hot_state(app: &App) -> Check {
    let health = app.hot.health().await;
    let (verdict, status) = match health {
        // Whoever counts for itself has to be alone.
        hot::Health::Ok if app.replicas.count_apart() => (Verdict::Degraded, "several_apart"),
        hot::Health::Ok => (Verdict::Ready, "ok"),
        hot::Health::Degraded => (Verdict::Degraded, "degraded"),
    };
    // Where requests are counted and clients locked out.
    let shared = app.hot.is_shared() && health == hot::Health::Ok;
    let limits = if shared { "shared" } else { "per_process" };
    let body = json!({ "status": status, "kind": app.hot.name(), "limits": limits });
    Check { name: "hot_state", verdict, body }
}

/// Whether this host's clock is fit for deciding about tokens.
fn clock(app: &App) -> Check {
    let (verdict, status) = match app.clients.clock() {
        Clock::Right => (Verdict::Ready, "ok"),
        Clock::Ahead => (Verdict::Unavailable, "ahead"),
        Clock::Behind => (Verdict::Unavailable, "behind"),
    };
    Check { name: "clock", verdict, body: json!({ "status": status }) }
}

/// Whether client records may be taken from memory.
fn client_cache(app: &App) -> Check {
    let (verdict, status) =
        if app.clients.is_current() { (Verdict::Ready, "ok") } else { (Verdict::Degraded, "bypassed") };
    Check { name: "client_cache", verdict, body: json!({ "status": status }) }
}

fn publisher(app: &App) -> Check {
    let report = app.publisher.report();
    let verdict = if report.failing { Verdict::Degraded } else { Verdict::Ready };
    Check { name: "publisher", verdict, body: report.body }
}

/// Whether what is queued for the audit log gets into its chains. Nothing is lost while it doesn't.
fn audit(app: &App) -> Check {
    let (verdict, status) =
        if app.audit.is_failing() { (Verdict::Degraded, "degraded") } else { (Verdict::Ready, "ok") };
    Check { name: "audit", verdict, body: json!({ "status": status }) }
}

/// Whether what changes something is turned away. Everything else goes on, so it is still to be sent here.
fn maintenance(app: &App) -> Check {
    let (verdict, body) = match app.maintenance.mode() {
        None => (Verdict::Ready, json!({ "status": "off" })),
        Some(mode) => {
            let mut body = super::maintenance::body(&mode);
            body["status"] = json!("on");
            (Verdict::Degraded, body)
        }
    };
    Check { name: "maintenance", verdict, body }
}
