//! `countersign revoke`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use countersign_shared::{AgentId, CredentialId, Jti, TenantId};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, sleep};

use super::{Outcome, Revoke, operator};
use crate::config::{self, Sources};
use crate::domain::audit::Origin;
use crate::domain::publication::Report;
use crate::management::caller::Caller;
use crate::management::publication::{State, Status};
use crate::management::revocations::{Ended, Subject, begin, revoke};
use crate::storage::live_tokens::{self, Live, Of};
use crate::storage::publication::{self, Queued};
use crate::storage::{Database, StorageError, tenants};
use crate::{clock, keys};

/// For how long it waits until the edge has the revocation.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) async fn run(sources: &Sources, options: &Revoke) -> Outcome {
    let config = config::Keys::from_sources(sources)?;
    let subject = subject(options)?;
    let database = operator::connect_by(config.plain).await?;
    let secrets = keys::load_secrets(&database, &config.master_key).await?;
    let secrets = secrets.ok_or("there are no keys yet: run `countersign bootstrap`")?;

    let tenant = match (&subject, options.tenant) {
        (_, Some(tenant)) => tenant,
        // By their ids alone it is clear whose they are.
        (Subject::Agent(AgentId(id)) | Subject::Credential(CredentialId(id)), None) => {
            tenants::owner(&database, *id).await?.ok_or("there is no such agent or credential")?
        }
        (Subject::Tenant(tenant), None) => *tenant,
        (Subject::Token(_) | Subject::Key(_) | Subject::Everything { .. }, None) => {
            tenants::platform(&database)
                .await?
                .ok_or("there is no tenant yet: run `countersign bootstrap`")?
        }
    };
    let touched = touched(&database, tenant, &subject).await;
    if !options.yes {
        confirm(&subject, &touched)?;
    }
    let caller = Caller::operator(tenant);
    let mut transaction = begin(&database, &caller, &subject).await?;
    let ended = revoke(&mut transaction, &secrets, &caller, &subject, &Origin::default()).await?;
    Database::commit(transaction).await?;
    let committed = publication::find(&database).await?.now;
    let edge =
        if options.no_wait { None } else { Some(at_the_edge(&database, &subject, ended, committed).await?) };

    let ended = match ended {
        Ended::Token(jti) => ("jti", jti.to_string()),
        Ended::UpTo(time, _) => ("issued_up_to", clock::timestamp(time).format(&Rfc3339)?),
    };
    if options.json {
        let mut said = json!({ "live_tokens": touched.json(), "committed_at": committed.format(&Rfc3339)? });
        said[ended.0] = ended.1.into();
        if let Some(edge) = &edge {
            said["edge"] = edge.json(committed)?;
        }
        println!("{said}");
        return Ok(());
    }
    match (&subject, ended.1) {
        (Subject::Token(_), jti) => println!("revoked: token {jti}"),
        (Subject::Everything { .. }, time) => println!("revoked: every token that was issued up to {time}"),
        (_, time) => println!("revoked: every token of it that was issued up to {time}"),
    }
    println!("{}", touched.text());
    match edge {
        Some(edge) => println!("{}", edge.text(committed)?),
        None => println!(
            "Edges refuse them about a second from now, if an issuer is running; else when one starts."
        ),
    }
    Ok(())
}

fn subject(options: &Revoke) -> Result<Subject, String> {
    let what = &options.what;
    let bad = |name: &str| format!("--{name} is not a UUID in lower-case hyphenated form");
    if let Some(jti) = &what.jti {
        return jti
            .parse::<Jti>()
            .map(Subject::Token)
            .map_err(|_| "--jti is not that of a token of ours".into());
    }
    if let Some(agent) = &what.agent {
        return agent.parse::<AgentId>().map(Subject::Agent).map_err(|_| bad("agent"));
    }
    if let Some(credential) = &what.credential {
        return credential.parse::<CredentialId>().map(Subject::Credential).map_err(|_| bad("credential"));
    }
    if let Some(key) = &what.key {
        return Ok(Subject::Key(key.clone()));
    }
    if let (true, Some(reason)) = (what.everything, &options.reason) {
        return Ok(Subject::Everything { reason: reason.clone() });
    }
    match (what.all_of_tenant, options.tenant) {
        (true, Some(tenant)) => Ok(Subject::Tenant(tenant)),
        _ => Err("--all-of-tenant takes --tenant ID".into()),
    }
}

/// For clap.
pub(super) fn tenant_id(text: &str) -> Result<TenantId, String> {
    text.parse().map_err(|_| "must be a UUID in lower-case hyphenated form".to_owned())
}

/// For clap.
pub(super) fn reason(text: &str) -> Result<String, &'static str> {
    let length = text.chars().count();
    if (1..=500).contains(&length) { Ok(text.to_owned()) } else { Err("must have 1 to 500 characters") }
}

/// How many live tokens a revocation touches.
enum Touched {
    Known(Live),
    /// At most so many: tokens don't leave behind who signed them.
    AtMost(u64),
    Unknown,
}

async fn touched(database: &Database, tenant: TenantId, subject: &Subject) -> Touched {
    let of = match subject {
        Subject::Token(jti) => Of { jti: Some(*jti), tenant: Some(tenant), ..Of::default() },
        Subject::Agent(agent) => Of { agent: Some(*agent), tenant: Some(tenant), ..Of::default() },
        Subject::Credential(credential) => {
            // Its agent's events are what there is an index for.
            let agent = live_tokens::holder(database, *credential).await.ok().flatten();
            Of { credential: Some(*credential), agent, tenant: Some(tenant), ..Of::default() }
        }
        Subject::Tenant(tenant) => Of { tenant: Some(*tenant), ..Of::default() },
        Subject::Key(_) | Subject::Everything { .. } => Of::default(),
    };
    // That it can't be counted is no reason to let them live.
    match (live_tokens::count(database, of, clock::precise()).await, subject) {
        (Ok(Live { count, or_more: false }), Subject::Key(_)) => Touched::AtMost(count),
        (Err(_), _) | (Ok(_), Subject::Key(_)) => Touched::Unknown,
        (Ok(live), _) => Touched::Known(live),
    }
}

impl Touched {
    fn text(&self) -> String {
        let tokens = |count: u64| format!("{count} live token{}", if count == 1 { "" } else { "s" });
        match self {
            Self::Known(Live { count, or_more: false }) => {
                format!("It touches {}, by the audit log.", tokens(*count))
            }
            Self::Known(Live { count, or_more: true }) => {
                format!("It touches at least {}, by the audit log.", tokens(*count))
            }
            Self::AtMost(count) => format!("It touches at most {}, by the audit log.", tokens(*count)),
            Self::Unknown => "How many live tokens it touches isn't known.".to_owned(),
        }
    }

    fn json(&self) -> Value {
        let (count, bound) = match self {
            Self::Known(Live { count, or_more: false }) => (Some(count), "exact"),
            Self::Known(Live { count, or_more: true }) => (Some(count), "at_least"),
            Self::AtMost(count) => (Some(count), "at_most"),
            Self::Unknown => (None, "unknown"),
        };
        json!({ "count": count, "bound": bound })
    }
}

/// Has somebody at a terminal say that they mean it.
fn confirm(subject: &Subject, touched: &Touched) -> Result<(), String> {
    let what = match subject {
        Subject::Everything { .. } => "every token of every tenant".to_owned(),
        Subject::Tenant(tenant) => format!("every token of tenant {tenant}"),
        Subject::Token(_) | Subject::Agent(_) | Subject::Credential(_) | Subject::Key(_) => return Ok(()),
    };
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(format!("this ends {what}: say --yes if that is meant"));
    }
    eprint!("This ends {what}. {} Type yes to go on: ", touched.text());
    _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == "yes" { Ok(()) } else { Err("nothing was done".into()) }
}

/// How far a revocation has come.
enum Edge {
    /// There is nothing to tell the edge: the token has expired.
    Nothing,
    /// Everyone who listens was sent it.
    Acknowledged { listeners: u64, at: OffsetDateTime },
    /// It is where it is published to; who listens there isn't known, or nobody does.
    Delivered { sink: String, listeners: Option<u64>, at: OffsetDateTime },
    /// It isn't there yet.
    Waiting(Option<String>),
    /// No issuer publishes.
    NotRunning,
}

async fn at_the_edge(
    database: &Database,
    subject: &Subject,
    ended: Ended,
    committed: OffsetDateTime,
) -> Result<Edge, StorageError> {
    let queued = match (ended, subject.rule()) {
        (Ended::Token(jti), _) => publication::queued_token(database, jti.coordinate()).await?,
        (Ended::UpTo(up_to, _), Some((level, subject))) => {
            publication::queued_rule(database, level, &subject, up_to.0).await?
        }
        (Ended::UpTo(..), None) => None,
    };
    let Some(Queued { outbox_id, mut seq }) = queued else { return Ok(Edge::Nothing) };
    let began = Instant::now();
    loop {
        if seq.is_none() {
            seq = publication::seq_of(database, outbox_id).await?;
        }
        let found = publication::find(database).await?;
        let acknowledged_at = found.acknowledged_at;
        let status = Status::of(found);
        if status.state == State::NotRunning {
            return Ok(Edge::NotRunning);
        }
        if let (Some(seq), Some(report), Some(reported_at)) = (seq, &status.report, status.reported_at)
            && let Some(edge) = arrived(seq, report, reported_at.max(committed), acknowledged_at)
        {
            return Ok(edge);
        }
        if began.elapsed() > PATIENCE {
            let error = status.report.as_ref().and_then(Report::heads).and_then(|heads| heads.error.clone());
            return Ok(Edge::Waiting(error));
        }
        sleep(LOOK_EVERY).await;
    }
}

fn arrived(
    seq: u64,
    report: &Report,
    reported_at: OffsetDateTime,
    acknowledged_at: Option<OffsetDateTime>,
) -> Option<Edge> {
    let heads = report.heads()?;
    let delivered = heads.last_success_at.is_some() && report.seq.saturating_sub(heads.lag_rows) >= seq;
    match report.listeners {
        Some(listeners) if listeners.count > 0 => {
            let has_it = listeners.position() >= (report.epoch, seq);
            has_it.then(|| Edge::Acknowledged {
                listeners: listeners.count,
                at: acknowledged_at.unwrap_or(reported_at),
            })
        }
        listeners => delivered.then(|| Edge::Delivered {
            sink: heads.sink.clone(),
            listeners: listeners.map(|listeners| listeners.count),
            at: reported_at,
        }),
    }
}

impl Edge {
    fn text(&self, committed: OffsetDateTime) -> Result<String, time::error::Format> {
        let when = |at: OffsetDateTime| -> Result<String, time::error::Format> {
            let seconds = (at - committed).max(time::Duration::ZERO).as_seconds_f64();
            Ok(format!("{}, {seconds:.2} s after the commit", at.format(&Rfc3339)?))
        };
        Ok(match self {
            Self::Nothing => "It has expired: no edge has to be told.".to_owned(),
            Self::Acknowledged { listeners: 1, at } => format!("The one listening isolate had it at {}.", when(*at)?),
            Self::Acknowledged { listeners, at } => {
                format!("Every one of {listeners} listening isolates had it at {}.", when(*at)?)
            }
            Self::Delivered { sink, listeners: None, at } => {
                format!("The {sink} had it at {} at the latest; who listens there isn't known.", when(*at)?)
            }
            Self::Delivered { sink, at, .. } => format!(
                "The {sink} had it at {} at the latest. No isolate listens: each asks before it serves again.",
                when(*at)?
            ),
            Self::Waiting(error) => {
                let cause = error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
                let seconds = PATIENCE.as_secs();
                format!(
                    "The edge doesn't have it after {seconds} s{cause}. It is committed, and tried until it arrives: see \
                     `GET /api/v1/revocations/status`."
                )
            }
            Self::NotRunning => {
                "No issuer publishes, so the edge isn't told: it is when one with HUB_URL or PUBLISHER_DIRECTORY runs."
                    .to_owned()
            }
        })
    }

    fn json(&self, committed: OffsetDateTime) -> Result<Value, time::error::Format> {
        let when = |state: &str, listeners: Option<u64>, at: OffsetDateTime| {
            let seconds = (at - committed).max(time::Duration::ZERO).as_seconds_f64();
            Ok(
                json!({ "state": state, "listeners": listeners, "at": at.format(&Rfc3339)?, "seconds": seconds }),
            )
        };
        match self {
            Self::Nothing => Ok(json!({ "state": "nothing_to_publish" })),
            Self::Acknowledged { listeners, at } => when("acknowledged", Some(*listeners), *at),
            Self::Delivered { listeners, at, .. } => when("delivered", *listeners, *at),
            Self::Waiting(error) => Ok(json!({ "state": "waiting", "error": error })),
            Self::NotRunning => Ok(json!({ "state": "not_running" })),
        }
    }
}
