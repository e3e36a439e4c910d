//! `countersign doctor`.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::output::{self, Format};
use crate::config::{Serve, Sources};
use crate::doctor::{self, Finding, Verdict};
use crate::telemetry;

#[derive(Debug, Args)]
#[command(after_help = "It takes what `countersign serve` takes from the environment, and changes nothing.

Examples:
  countersign doctor
  countersign --config /etc/countersign/countersign.toml doctor --json

Exit status: 0 where all is well, 1 where there is something to look at, 2 where something doesn't work.")]
pub(super) struct Doctor {
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Body {
    status: Verdict,
    findings: Vec<Finding>,
}

pub(super) async fn run(sources: &Sources, options: &Doctor) -> ExitCode {
    let findings = match Serve::from_sources(sources) {
        Ok(config) => {
            telemetry::start(config.telemetry);
            doctor::examine(&config).await
        }
        Err(problems) => {
            let todo = "correct it; all else wasn't looked at (docs/reference/configuration.md)";
            problems.0.into_iter().map(|problem| Finding::failure("configuration", problem, todo)).collect()
        }
    };
    let status = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok);
    if let Err(error) = print(Format::of(options.json), status, findings) {
        eprintln!("countersign: {error}");
        return ExitCode::from(2);
    }
    ExitCode::from(match status {
        Verdict::Ok => 0,
        Verdict::Warning => 1,
        Verdict::Failure => 2,
    })
}

fn print(format: Format, status: Verdict, findings: Vec<Finding>) -> std::io::Result<()> {
    if format == Format::Json {
        return output::json(&Body { status, findings });
    }
    let row = |finding: &Finding| {
        vec![finding.verdict.as_str().to_owned(), finding.check.to_owned(), finding.found.clone()]
    };
    let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
    output::list(format, &(), &["", "what", "found"], &rows)?;
    for finding in &findings {
        if let Some(todo) = &finding.todo {
            output::note(format, &format!("\n{}: {todo}", finding.check))?;
        }
    }
    Ok(())
}
