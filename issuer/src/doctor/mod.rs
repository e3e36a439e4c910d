//! Looks at everything that an installation stands on, and says what to do about what isn't as it should be. Nothing is changed.
//!
//! The parts: what issuers keep in Postgres ([`state`]), and what they reach elsewhere ([`places`]). Where one stands on another that is missing, it isn't looked at.

mod places;
mod state;

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::Serve;
use crate::storage::Database;
use crate::storage::schema::{self, Fit, Mismatch};

/// How it stands with something, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warning,
    /// It doesn't work, or won't for long.
    Failure,
}

impl Verdict {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// What was found about something.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), todo: None }
    }

    /// It works, and there is something to do.
    pub fn warning(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, found: found.into(), todo: Some(todo.into()) }
    }

    /// There is something to do, now.
    pub fn failure(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Failure, found: found.into(), todo: Some(todo.into()) }
    }
}

/// Looks at everything that `config` names.
pub async fn examine(config: &Serve) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("configuration", "nothing in it contradicts itself")];
    let elsewhere = places::all(config);
    let (here, elsewhere) = tokio::join!(database(config), elsewhere);
    findings.extend(here);
    findings.extend(elsewhere);
    findings
}

async fn database(config: &Serve) -> Vec<Finding> {
    let connecting = Instant::now();
    // Once: who asks wants to know how it is now.
    let mut now = config.database.clone();
    now.startup_timeout = Duration::ZERO;
    let database = match Database::connect(&now).await {
        Ok(database) => database,
        Err(error) => {
            let todo = "start it, or correct DATABASE_URL; all that stands on it wasn't looked at";
            return vec![Finding::failure("database", error.found(), todo)];
        }
    };
    let address = config.database.address();
    let took = connecting.elapsed().as_millis();
    let mut findings =
        vec![Finding::ok("database", format!("PostgreSQL at {address} answers, in {took} ms"))];
    if let Err(error) = database.require_confinement().await {
        let todo = "use a role that is neither superuser nor BYPASSRLS, and owns the database";
        findings.push(Finding::failure("role", error.to_string(), todo));
    }
    findings.push(state::clock(&database).await);
    match schema::check(&database).await {
        Ok(Fit::Exact) => {
            findings.push(Finding::ok(
                "migrations",
                format!("the schema is this binary's: {}", schema::newest()),
            ));
        }
        Ok(Fit::Newer(version)) => {
            let found =
                format!("the schema is newer than this binary (migration {version}), and works with it");
            let todo = "use the version that made it, as soon as that is rolled out";
            findings.push(Finding::warning("migrations", found, todo));
        }
        Err(mismatch) => {
            let todo = match &mismatch {
                Mismatch::Behind => "run: countersign migrate",
                Mismatch::Ahead(_) => "use the version that made it, or a newer one",
                Mismatch::Altered(_) => "see `countersign migrate status`, and use the version that made it",
                Mismatch::Storage(_) => "see the database's log",
            };
            findings.push(Finding::failure("migrations", mismatch.to_string(), todo));
            return findings; // what is asked next is asked of this binary's schema
        }
    }
    findings.extend(state::all(&database, config).await);
    if let Some(publisher) = &config.publisher {
        findings.extend(places::base(&database, publisher).await);
    }
    database.close().await;
    findings
}
