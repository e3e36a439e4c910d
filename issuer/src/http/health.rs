//! `/health` and `/ready`; the admin listener's `/livez` and `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::error::RETRY_AFTER_SECONDS;
use crate::app::App;
use crate::domain::signing_key::{KeyRecord, KeyState};
use crate::hot::Health;
use crate::storage::schema::{self, Mismatch};
use crate::storage::signing_keys;

/// How long a probe waits for the database.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process lives.
pub(super) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
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
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let (database, keys, hot_state) = tokio::join!(database(&app), keys(&app), hot_state(&app));
    let [postgres, migrations] = database;
    let checks = [postgres, migrations, keys, hot_state, publisher(&app)];

    let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ready);
    let status = match verdict {
        Verdict::Ready => "ready",
        Verdict::Degraded => "degraded",
        Verdict::Unavailable => "unavailable",
    };
    let checks: serde_json::Map<String, Value> =
        checks.into_iter().map(|check| (check.name.to_owned(), check.body)).collect();
    let body = Json(json!({ "status": status, "checks": checks }));
    match verdict {
        Verdict::Unavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_AFTER_SECONDS)], body).into_response()
        }
        Verdict::Ready | Verdict::Degraded => body.into_response(),
    }
}

async fn database(app: &App) -> [Check; 2] {
    let answer = tokio::time::timeout(PATIENCE, schema::check(&app.database)).await;
    let ok = (Verdict::Ready, "ok");
    let (postgres, migrations) = match answer {
        Ok(Ok(())) => (ok, ok),
        Ok(Err(Mismatch::Storage(_))) | Err(_) => {
            ((Verdict::Unavailable, "unavailable"), (Verdict::Unavailable, "unknown"))
        }
        Ok(Err(Mismatch::Behind)) => (ok, (Verdict::Unavailable, "behind")),
        // The release after this one is being rolled out: its migrations leave this one working (migrations/README.md).
        Ok(Err(Mismatch::Ahead(_))) => (ok, (Verdict::Degraded, "ahead")),
        Ok(Err(Mismatch::Altered(_))) => (ok, (Verdict::Unavailable, "altered")),
    };
    [("postgres", postgres), ("migrations", migrations)].map(|(name, (verdict, status))| Check {
        name,
        verdict,
        body: json!({ "status": status }),
    })
}

/// Whether the key that this process signs with is still the one that the database names.
async fn keys(app: &App) -> Check {
    let answer = tokio::time::timeout(PATIENCE, signing_keys::list(&app.database)).await;
    let signs_with = app.token_keys.signer.key().kid();
    let (verdict, status) = match answer {
        Ok(Ok(records)) => {
            let is_active = |record: &KeyRecord| record.kid == signs_with && record.state == KeyState::Active;
            if records.iter().any(is_active) {
                (Verdict::Ready, "ok")
            } else {
                (Verdict::Degraded, "not_active")
            }
        }
        Ok(Err(_)) | Err(_) => (Verdict::Unavailable, "unknown"),
    };
    Check { name: "keys", verdict, body: json!({ "status": status }) }
}

async fn hot_state(app: &App) -> Check {
    let (verdict, status) = match app.hot.health().await {
        Health::Ok => (Verdict::Ready, "ok"),
        Health::Degraded => (Verdict::Degraded, "degraded"),
    };
    Check { name: "hot_state", verdict, body: json!({ "status": status, "kind": app.hot.name() }) }
}

fn publisher(app: &App) -> Check {
    let report = app.publisher.report();
    let verdict = if report.failing { Verdict::Degraded } else { Verdict::Ready };
    Check { name: "publisher", verdict, body: report.body }
}
