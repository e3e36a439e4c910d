//! `countersign jobs`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use time::OffsetDateTime;

use super::output::{self, Format};
use super::{Outcome, operator};
use crate::clock;
use crate::config::{Prune, Sources};
use crate::jobs::{self, Job};
use crate::storage::jobs::Run as LastRun;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// What jobs there are, when each was done last and what came of it.
    #[command(after_help = "Examples:\n  countersign jobs list\n  countersign jobs list --json")]
    List(List),
    /// Do jobs now, to their end, whether or not it is time for them.
    #[command(after_help = "Examples:\n  countersign jobs run outbox\n  countersign jobs run --all --json")]
    Run(Run),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Which, by the name in `countersign jobs list`.
    #[arg(value_name = "NAME", required_unless_present = "all", value_parser = super::audit::word::<Job>)]
    jobs: Vec<Job>,
    /// All of them.
    #[arg(long, conflicts_with = "jobs")]
    all: bool,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(sources: &Sources, command: &Command) -> Outcome {
    match command {
        Command::List(options) => list(sources, options).await,
        Command::Run(options) => run_now(sources, options).await,
    }
}

#[derive(Serialize)]
struct ListBody {
    jobs: Vec<JobBody>,
}

#[derive(Serialize)]
struct JobBody {
    name: &'static str,
    removes: &'static str,
    every_seconds: u64,
    state: State,
    #[serde(with = "time::serde::rfc3339::option")]
    started_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
    took_ms: Option<i128>,
    removed: Option<u64>,
    failure: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    next_at: Option<OffsetDateTime>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Nobody has done it yet.
    Never,
    /// Somebody is at it.
    Running,
    /// It was done.
    Done,
    /// Its time was over before it was done; it goes on.
    Unfinished,
    /// It failed.
    Failed,
    /// Who was at it died.
    Interrupted,
}

impl State {
    const fn of(run: &LastRun) -> Self {
        match (run.running, run.finished_at, &run.failure, run.complete) {
            (true, ..) => Self::Running,
            (_, None, ..) => Self::Interrupted,
            (_, _, Some(_), _) => Self::Failed,
            (.., true) => Self::Done,
            (.., false) => Self::Unfinished,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Running => "running",
            Self::Done => "done",
            Self::Unfinished => "unfinished",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

impl JobBody {
    fn of(job: Job, run: Option<LastRun>) -> Self {
        let state = run.as_ref().map_or(State::Never, State::of);
        let took =
            run.as_ref().and_then(|run| Some((run.finished_at? - run.started_at).whole_milliseconds()));
        Self {
            name: job.as_str(),
            removes: job.removes(),
            every_seconds: job.every().as_secs(),
            state,
            started_at: run.as_ref().map(|run| run.started_at),
            finished_at: run.as_ref().and_then(|run| run.finished_at),
            took_ms: took,
            removed: run.as_ref().map(|run| run.removed),
            next_at: run.as_ref().map(|run| run.next_at),
            failure: run.and_then(|run| run.failure),
        }
    }
}

async fn list(sources: &Sources, options: &List) -> Outcome {
    let database = operator::connect(sources).await?;
    let jobs: Vec<JobBody> =
        jobs::last_runs(&database).await?.into_iter().map(|(job, run)| JobBody::of(job, run)).collect();
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let row = |job: &JobBody| {
        vec![
            job.name.to_owned(),
            job.state.as_str().to_owned(),
            output::time(job.started_at),
            text(job.took_ms.map(|took| format!("{took} ms"))),
            text(job.removed.map(|removed| removed.to_string())),
            output::time(job.next_at),
            job.removes.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
    let failures: Vec<String> = jobs
        .iter()
        .filter_map(|job| Some(format!("{} failed: {}", job.name, job.failure.as_ref()?)))
        .collect();
    let format = Format::of(options.json);
    let headings = ["name", "state", "last run", "took", "removed", "due", "removes"];
    output::list(format, &ListBody { jobs }, &headings, &rows)?;
    for failure in failures {
        output::note(format, &failure)?;
    }
    Ok(())
}

#[derive(Serialize)]
struct RunBody {
    jobs: Vec<RanBody>,
}

#[derive(Serialize)]
struct RanBody {
    name: &'static str,
    removed: u64,
    took_ms: i128,
}

async fn run_now(sources: &Sources, options: &Run) -> Outcome {
    let config = Prune::from_sources(sources)?;
    let database = operator::connect_by(config.plain).await?;
    let wanted = if options.all { Job::ALL.to_vec() } else { options.jobs.clone() };
    let mut ran = Vec::new();
    for job in wanted {
        let (began, mut removed) = (clock::precise(), 0);
        loop {
            let outcome = jobs::run(&database, job, config.audit_retention, false).await?;
            let outcome = outcome.ok_or_else(|| {
                format!(
                    "{} is being done by another process: `countersign jobs list` shows when it is through",
                    job.as_str()
                )
            })?;
            removed += outcome.removed;
            if let Some(failure) = outcome.failure {
                return Err(
                    format!("{} failed after it had removed {removed}: {failure}", job.as_str()).into()
                );
            }
            if outcome.complete {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let took_ms = (clock::precise() - began).whole_milliseconds();
        ran.push(RanBody { name: job.as_str(), removed, took_ms });
    }
    let row =
        |ran: &RanBody| vec![ran.name.to_owned(), ran.removed.to_string(), format!("{} ms", ran.took_ms)];
    let rows: Vec<Vec<String>> = ran.iter().map(row).collect();
    let body = RunBody { jobs: ran };
    Ok(output::list(Format::of(options.json), &body, &["name", "removed", "took"], &rows)?)
}
