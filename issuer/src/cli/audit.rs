//! `countersign audit`.

use std::io::{self, Write as _};

use clap::{Args, Subcommand};
use countersign_shared::{AgentId, TenantId};
use data_encoding::HEXLOWER;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::output::{self, Format};
use super::revoke::tenant_id;
use super::{Outcome, operator};
use crate::audit::{caught_up, verify};
use crate::config::{Prune, Sources};
use crate::domain::audit::{self as domain, Action, Filter, INSTALLATION, Origin, TargetType};
use crate::domain::page::Page;
use crate::http::audit::{EventBody, instant, line};
use crate::http::list::{ListBody, decode, encode};
use crate::management::audit;
use crate::storage::Database;
use crate::storage::audit::{self as storage, prune};

/// Rows read at once for an export.
const EXPORT_PAGE: i64 = 500;

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Show events, the newest first.
    #[command(
        after_help = "Examples:\n  countersign audit list --outcome failure --from 2026-11-21T00:00:00Z\n  \
        countersign audit list --target-type agent --target-id 6f1c… --json"
    )]
    List(List),
    /// Print every event, the newest first, as JSON, one a line.
    #[command(after_help = "Examples:\n  countersign audit export > audit.ndjson\n  \
        countersign audit export --from 2026-11-01T00:00:00Z --to 2026-12-01T00:00:00Z --tenant 6f1c…")]
    Export(Export),
    /// Check the chains, and name every event that was changed, removed, inserted or moved. Exit status 1 if there is any.
    #[command(
        after_help = "Examples:\n  countersign audit verify\n  countersign audit verify --tenant 6f1c… --json\n\n\
        Keep what it prints of each chain's end somewhere else: who can rewrite the whole database can rewrite a whole chain, but not that."
    )]
    Verify(Verify),
    /// Drop what is older than `AUDIT_RETENTION_DAYS`, by whole weeks. A running issuer does that by itself every hour.
    #[command(
        after_help = "Examples:\n  countersign audit prune\n  AUDIT_RETENTION_DAYS=365 countersign audit prune --json"
    )]
    Prune {
        /// Print a JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// Whose events; of the platform's tenant, and the installation's own, without it.
    #[arg(long, value_name = "ID", value_parser = tenant_id)]
    tenant: Option<TenantId>,
    /// Not before this (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: Option<OffsetDateTime>,
    /// Before this (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = instant)]
    to: Option<OffsetDateTime>,
    /// Who did it: an agent.
    #[arg(long, value_name = "ID", value_parser = agent_id)]
    actor: Option<AgentId>,
    /// What was done, e.g. agent.created.
    #[arg(long, value_parser = word::<Action>)]
    action: Option<Action>,
    /// To what kind of thing, e.g. agent.
    #[arg(long, value_name = "TYPE", value_parser = word::<TargetType>)]
    target_type: Option<TargetType>,
    /// To which one.
    #[arg(long, value_name = "ID")]
    target_id: Option<String>,
    /// How it ended: success or failure.
    #[arg(long, value_parser = word::<domain::Outcome>)]
    outcome: Option<domain::Outcome>,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    which: Which,
    /// How many.
    #[arg(long, default_value_t = Page::DEFAULT_LIMIT, value_parser = clap::value_parser!(u32).range(1..=i64::from(Page::MAX_LIMIT)))]
    limit: u32,
    /// The `next_cursor` of the list before.
    #[arg(long)]
    cursor: Option<String>,
    /// Print a JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Only this tenant's chain.
    #[arg(long, value_name = "ID", value_parser = tenant_id)]
    tenant: Option<TenantId>,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(sources: &Sources, command: Audit) -> Outcome {
    match command {
        Audit::List(options) => list(sources, options).await,
        Audit::Export(options) => export(sources, options).await,
        Audit::Verify(options) => verify(sources, &options).await,
        Audit::Prune { json } => prune_all(sources, json).await,
    }
}

impl Which {
    fn filter(self) -> Filter {
        let Self { tenant: _, from, to, actor, action, target_type, target_id, outcome } = self;
        Filter { from, to, actor, action, target_type, target_id, outcome }
    }
}

async fn list(sources: &Sources, options: List) -> Outcome {
    let after = options
        .cursor
        .as_deref()
        .map(|text| decode(text).ok_or("--cursor is not a next_cursor of this list"));
    let page = Page { limit: options.limit, after: after.transpose()? };
    let (database, caller) = operator::open(sources, options.which.tenant).await?;
    caught_up(&database).await?;
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let listed = audit::list(&mut transaction, &caller, &options.which.filter(), &page).await?;
    let next = listed.next;
    let items = listed.items.into_iter().map(EventBody::try_from).collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<Vec<String>> = items.iter().map(cells).collect();
    let format = Format::of(options.json);
    let body = ListBody::new(crate::domain::page::Listed { items, next }, |item| item);
    output::list(
        format,
        &body,
        &["occurred", "action", "outcome", "actor", "target", "from", "event"],
        &rows,
    )?;
    if let Some(next) = next {
        output::note(format, &format!("more: --cursor {}", encode(&next)))?;
    }
    Ok(())
}

fn cells(event: &EventBody) -> Vec<String> {
    let or_none = |text: Option<&String>| text.map_or_else(|| "-".to_owned(), Clone::clone);
    let target = match (&event.target_type, &event.target_id) {
        (Some(target), Some(id)) => format!("{target} {id}"),
        _ => "-".to_owned(),
    };
    vec![
        event.occurred_at.clone(),
        event.action.clone(),
        event.outcome.clone(),
        or_none(event.actor.as_ref()),
        target,
        or_none(event.client_ip.as_ref()),
        event.event_id.clone(),
    ]
}

async fn export(sources: &Sources, options: Export) -> Outcome {
    let (database, caller) = operator::open(sources, options.which.tenant).await?;
    let filter = options.which.filter();
    caught_up(&database).await?;
    let mut transaction = database.begin_as(caller.tenant()).await?;
    audit::begin_export(&mut transaction, &caller, &filter, &Origin::default()).await?;
    Database::commit(transaction).await?;
    let mut out = io::BufWriter::new(io::stdout());
    let mut before = None;
    loop {
        let mut transaction = database.begin_as(caller.tenant()).await?;
        let rows = audit::export(&mut transaction, &caller, &filter, before, EXPORT_PAGE).await?;
        drop(transaction);
        let Some(last) = rows.last() else { break };
        before = Some(last.entry.event_id);
        for row in rows {
            out.write_all(line(row)?.as_bytes())?;
        }
    }
    out.flush()?;
    Ok(())
}

/// What `verify --json` prints.
#[derive(Serialize)]
struct Report {
    ok: bool,
    chains: Vec<ChainBody>,
    findings: Vec<FindingBody>,
    /// Findings besides those that are listed.
    more_findings: usize,
    /// Events that aren't in a chain yet.
    queued: i64,
}

#[derive(Serialize)]
struct ChainBody {
    tenant_id: Option<String>,
    events: u64,
    /// The last event that was dropped by age; null: none was.
    checkpoint_seq: Option<i64>,
    /// Of the last event.
    seq: Option<i64>,
    /// Of the last event.
    hash: Option<String>,
}

#[derive(Serialize)]
struct FindingBody {
    tenant_id: Option<String>,
    kind: &'static str,
    seq: i64,
    last_seq: i64,
    event_id: Option<String>,
    explanation: String,
}

async fn verify(sources: &Sources, options: &Verify) -> Outcome {
    let database = operator::connect(sources).await?;
    let mut report = Report {
        ok: true,
        chains: Vec::new(),
        findings: Vec::new(),
        more_findings: 0,
        queued: storage::queued(&database).await?,
    };
    if let Some(tenant) = options.tenant {
        report.add(verify::chain(&database, tenant.0).await?);
    } else {
        let mut tenant = None;
        while let Some(next) = verify::next(&database, tenant).await? {
            report.add(verify::chain(&database, next).await?);
            tenant = Some(next);
        }
    }
    report.ok = report.findings.is_empty();
    if options.json {
        output::list(Format::Json, &report, &[], &[])?;
    } else {
        report.print()?;
    }
    match report.findings.len() + report.more_findings {
        0 => Ok(()),
        1 => Err("the audit log is not what was written: 1 finding".into()),
        count => Err(format!("the audit log is not what was written: {count} findings").into()),
    }
}

/// As the API shows it: null is the installation.
fn shown(tenant: Uuid) -> Option<String> {
    (tenant != INSTALLATION).then(|| tenant.to_string())
}

impl Report {
    fn add(&mut self, verified: verify::Verified) {
        let tenant_id = shown(verified.tenant);
        self.more_findings += verified.more;
        self.findings.extend(verified.findings.into_iter().map(|finding| FindingBody {
            tenant_id: tenant_id.clone(),
            kind: finding.kind.as_str(),
            seq: finding.seq,
            last_seq: finding.last_seq,
            event_id: finding.event_id.map(|event| event.to_string()),
            explanation: finding.explanation,
        }));
        self.chains.push(ChainBody {
            tenant_id,
            events: verified.events,
            checkpoint_seq: verified.checkpoint,
            seq: verified.end.map(|(seq, _)| seq),
            hash: verified.end.map(|(_, hash)| HEXLOWER.encode(&hash)),
        });
    }

    fn print(&self) -> io::Result<()> {
        let none = || "-".to_owned();
        let owner = |tenant: &Option<String>| tenant.clone().unwrap_or_else(|| "installation".to_owned());
        let chains: Vec<Vec<String>> = self
            .chains
            .iter()
            .map(|chain| {
                vec![
                    owner(&chain.tenant_id),
                    chain.events.to_string(),
                    chain.checkpoint_seq.map_or_else(none, |seq| seq.to_string()),
                    chain.seq.map_or_else(none, |seq| seq.to_string()),
                    chain.hash.clone().unwrap_or_else(none),
                ]
            })
            .collect();
        output::list(
            Format::Text,
            &(),
            &["chain", "events", "dropped to", "ends with", "hash of the end"],
            &chains,
        )?;
        if !self.findings.is_empty() {
            let findings: Vec<Vec<String>> = self
                .findings
                .iter()
                .map(|finding| {
                    let places = match finding.last_seq {
                        last if last == finding.seq => last.to_string(),
                        last => format!("{}-{last}", finding.seq),
                    };
                    let event = finding.event_id.clone().unwrap_or_else(none);
                    vec![
                        owner(&finding.tenant_id),
                        finding.kind.to_owned(),
                        places,
                        event,
                        finding.explanation.clone(),
                    ]
                })
                .collect();
            output::note(Format::Text, "")?;
            output::list(Format::Text, &(), &["chain", "what", "seq", "event", "how it shows"], &findings)?;
        }
        if self.more_findings > 0 {
            output::note(Format::Text, &format!("and {} findings more", self.more_findings))?;
        }
        if self.queued > 0 {
            output::note(Format::Text, &format!("{} events were not in a chain yet", self.queued))?;
        }
        Ok(())
    }
}

async fn prune_all(sources: &Sources, json: bool) -> Outcome {
    let config = Prune::from_sources(sources)?;
    let database = operator::connect_by(config.plain).await?;
    let (mut partitions, mut events) = (Vec::new(), 0);
    loop {
        let mut transaction = database.begin_installation().await?;
        let Some(pruned) = prune(&mut transaction, config.audit_retention.days).await? else { break };
        Database::commit(transaction).await?;
        events += pruned.events;
        partitions.push(pruned.partition);
    }
    if json {
        let answer = serde_json::json!({ "partitions": partitions, "events": events });
        return Ok(output::list(Format::Json, &answer, &[], &[])?);
    }
    let days = config.audit_retention.days;
    Ok(output::note(
        Format::Text,
        &match partitions.len() {
            0 => format!("nothing to drop: no week ended more than {days} days ago"),
            _ => format!("dropped {events} events: {}", partitions.join(", ")),
        },
    )?)
}

fn agent_id(text: &str) -> Result<AgentId, String> {
    text.parse().map_err(|_| "must be a UUID in lower-case hyphenated form".to_owned())
}

pub(super) fn word<T: std::str::FromStr<Err = crate::domain::UnknownWord>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: crate::domain::UnknownWord| error.to_string())
}
