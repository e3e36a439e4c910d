//! The command line; `countersign --help` lists what it can do.

mod agents;
mod audit;
mod backup;
mod bootstrap;
mod credentials;
mod describe;
mod doctor;
mod dumps;
mod jobs;
mod keys;
mod maintenance;
mod migrate;
mod operator;
mod output;
mod policy;
mod probe;
mod recover;
mod resource_servers;
mod restore;
mod revoke;
mod revoke_many;
mod serve;
mod tenants;
mod unlock;

use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use clap::{Args, Parser, Subcommand};
use countersign_shared::AgentId;

use countersign_shared::TenantId;

use crate::config::{Problems, Sources};
use crate::telemetry::lines::ENDING_PATIENCE;

/// Countersign's issuer: an identity provider for agents, whose tokens are verified at the edge.
#[derive(Debug, Parser)]
#[command(name = "countersign", version)]
pub struct Cli {
    /// TOML file with settings, named as in the environment but in lower case. The environment wins.
    #[arg(long, global = true, env = "COUNTERSIGN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the issuer until SIGTERM or SIGINT.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve,
    /// Bring the database schema up to date, or show how it stands.
    Migrate(migrate::Migrate),
    /// Make keys, the first tenant and its administrator; safe to run again.
    Bootstrap(Bootstrap),
    /// Take tokens back: one, all that an agent, a credential, a tenant or a key has obtained so far, or all there are.
    #[command(after_help = REVOKE_EXAMPLES)]
    Revoke(Revoke),
    /// Make a backup of the database, or check one.
    Backup(backup::Backup),
    /// Go back to a backup: into an empty database, and so that edges never go back with it.
    Restore(restore::Restore),
    /// Make a database fit for use that was restored from a backup: it lacks what was revoked since. Ends every token.
    Recover(recover::Recover),
    /// Register, look at, change and end agents.
    #[command(subcommand)]
    Agents(agents::Agents),
    /// Make, change, suspend and end tenants.
    #[command(subcommand)]
    Tenants(tenants::Command),
    /// Register, change and delete the APIs that a tenant's tokens are for.
    #[command(subcommand)]
    ResourceServers(resource_servers::Command),
    /// Make, look at, rotate and revoke the credentials of an agent.
    #[command(subcommand)]
    Credentials(credentials::Credentials),
    /// Read, verify and prune the audit log.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Look at and do what running issuers do from time to time: removing what is of no use any more.
    #[command(subcommand)]
    Jobs(jobs::Command),
    /// Turn away what changes something, for as long as you work on the installation.
    #[command(subcommand)]
    Maintenance(maintenance::Command),
    /// Look at everything that an installation stands on, and say what to do about it.
    Doctor(doctor::Doctor),
    /// Ask the issuer that runs here with this configuration whether it lives or is ready: a container's health check.
    Probe(probe::Probe),
    /// Let a client authenticate again that was locked out after too many failures.
    Unlock(Unlock),
    /// Make, look at, rotate, retire and revoke signing keys.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Check, explain and print a route policy for the edge.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Print the description of the HTTP API (`OpenAPI` 3.1), as `/openapi.json` serves it.
    #[command(after_help = "Example:\n  countersign openapi > openapi.json")]
    Openapi,
    /// Print every error code of the HTTP API.
    #[command(after_help = "Examples:\n  countersign errors\n  countersign errors --json")]
    Errors {
        /// As a page: `docs/reference/errors.md`.
        #[arg(long)]
        markdown: bool,
        /// As a JSON array.
        #[arg(long, conflicts_with = "markdown")]
        json: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  countersign bootstrap
  countersign bootstrap --tenant Acme --email root@acme.example --json")]
struct Bootstrap {
    /// Name of the first tenant.
    #[arg(long, default_value = "default")]
    tenant: String,
    /// Email of the administrator agent.
    #[arg(long, default_value = "administrator@localhost")]
    email: String,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  countersign unlock --client 0197a3c2-1f00-7c3e-8a51-3d1f6a2b4c5d
  countersign unlock --client 0197a3c2-1f00-7c3e-8a51-3d1f6a2b4c5d --ip 203.0.113.7")]
struct Unlock {
    /// The client: an agent's id.
    #[arg(long, value_name = "ID")]
    client: AgentId,
    /// Only from this address (of an IPv6 address, its /64); from everywhere without it.
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  countersign serve
  countersign --config /etc/countersign/countersign.toml serve
  LOG_LEVEL=DEBUG countersign serve

What it takes from the environment: docs/reference/configuration.md.";

const REVOKE_EXAMPLES: &str = "\
Examples:
  countersign revoke --agent 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11       every token of an agent
  countersign revoke --jti 0189ab12-3400-8f00-9c00-000000000000 --tenant 2f0c…   one token, by its id from a log
  grep -oE '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}' leaked.log | sort -u | countersign revoke --jtis - --tenant 2f0c…
  countersign revoke --tenant 2f0c1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --all-of-tenant
  countersign revoke --key 4oQ0…   every token signed with a key: kid as `countersign keys list` shows it
  countersign revoke --everything --reason 'the database was copied'   every token of every tenant

It says how many live tokens that touches, as far as the audit log knows, and when every isolate at the edge had it.";

#[derive(Debug, Args)]
struct Revoke {
    #[command(flatten)]
    what: RevokeWhat,
    /// The tenant whose it is. Where the id alone says so it isn't needed; a jti without it is looked for in the platform's tenant.
    #[arg(long, value_name = "ID", value_parser = revoke::tenant_id)]
    tenant: Option<TenantId>,
    /// Why, for the audit log.
    #[arg(long, requires = "everything", value_parser = revoke::reason)]
    reason: Option<String>,
    /// Don't ask before all tokens of a tenant, or of all, are ended.
    #[arg(long)]
    yes: bool,
    /// Don't wait until the edge has it: up to ten seconds.
    #[arg(long)]
    no_wait: bool,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct RevokeWhat {
    /// One token, by its id.
    #[arg(long)]
    jti: Option<String>,
    /// Tokens by their ids, one a line of this file (-: of standard input), as many as there are. What isn't a token of the tenant is named, and no
    /// hindrance to the others.
    #[arg(long, value_name = "FILE")]
    jtis: Option<PathBuf>,
    /// Every token of this agent.
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Every token obtained with this credential.
    #[arg(long, value_name = "ID")]
    credential: Option<String>,
    /// Every token of the tenant that --tenant names.
    #[arg(long)]
    all_of_tenant: bool,
    /// Every token, of all tenants, that this key signed.
    #[arg(long, value_name = "KID")]
    key: Option<String>,
    /// Every token of every tenant.
    #[arg(long, requires = "reason")]
    everything: bool,
}

/// The configuration is not valid (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Does what the command line says. What goes wrong is said on standard error.
pub async fn run(cli: Cli) -> ExitCode {
    if let Err(error) = dumps::forbid() {
        eprintln!(
            "countersign: a core dump of this process could hold its keys, and can't be forbidden: {error}"
        );
    }
    // What isn't UTF-8 can't be a setting of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let sources = Sources::read(environment, cli.config.as_deref());
    let outcome = match cli.command {
        Command::Serve => serve::run(&sources).await,
        Command::Migrate(options) => migrate::run(&sources, &options).await,
        Command::Bootstrap(options) => bootstrap::run(&sources, &options).await,
        Command::Revoke(options) => match &options.what.jtis {
            Some(file) => revoke_many::run(&sources, &options, file).await,
            None => revoke::run(&sources, &options).await,
        },
        Command::Backup(options) => backup::run(&sources, &options).await,
        Command::Restore(options) => restore::run(&sources, &options).await,
        Command::Recover(options) => recover::run(&sources, &options).await,
        Command::Agents(command) => agents::run(&sources, &command).await,
        Command::Tenants(command) => tenants::run(&sources, &command).await,
        Command::ResourceServers(command) => resource_servers::run(&sources, &command).await,
        Command::Credentials(command) => credentials::run(&sources, &command).await,
        Command::Audit(command) => audit::run(&sources, command).await,
        Command::Jobs(command) => jobs::run(&sources, &command).await,
        Command::Maintenance(command) => maintenance::run(&sources, &command).await,
        Command::Doctor(options) => return doctor::run(&sources, &options).await,
        Command::Probe(options) => probe::run(&sources, &options).await,
        Command::Unlock(options) => unlock::run(&sources, &options).await,
        Command::Keys(command) => keys::run(&sources, &command).await,
        Command::Policy(command) => policy::run(&command),
        Command::Openapi => describe::openapi(),
        Command::Errors { markdown, json } => describe::errors(markdown, json),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format!("countersign: {error}"));
            if error.is::<Problems>() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

/// Says the last thing on standard error, and waits no longer than a moment for whoever reads it: the process is to end.
fn say(line: String) {
    let (done, said) = mpsc::channel();
    thread::spawn(move || {
        eprintln!("{line}");
        _ = done.send(());
    });
    _ = said.recv_timeout(ENDING_PATIENCE);
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// The words of a line of shell: quotes are heeded, and nothing else that shells do.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quote = None;
        for character in line.chars() {
            match (character, quote) {
                ('"' | '\'', None) => quote = Some(character),
                (end, Some(begin)) if end == begin => quote = None,
                (' ', None) => words.push(String::new()),
                (other, _) => words.last_mut().unwrap().push(other),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    /// The call of `countersign` in an example: at its beginning, behind variables or a pipe, or in brackets.
    fn call(example: &str) -> Option<Vec<String>> {
        // A remark stands after three spaces.
        let example = example.split("   ").next()?;
        let inner = example.split_once("$(").map(|(_, inner)| inner.trim_end_matches(['"', ')']));
        let words = words(inner.unwrap_or(example));
        let begins = |place: usize| match place.checked_sub(1) {
            None => true,
            Some(before) => {
                words[before].ends_with('|') || words[..place].iter().all(|word| word.contains('='))
            }
        };
        let first = (0..words.len()).find(|place| words[*place] == "countersign" && begins(*place))?;
        let call = words[first..].iter().take_while(|word| *word != ">" && *word != "|");
        Some(call.cloned().collect())
    }

    /// The calls in the lines of `help` that are set in.
    fn calls(help: &str) -> Vec<Vec<String>> {
        let mut lines: Vec<String> = Vec::new();
        for line in help.lines().filter(|line| line.starts_with("  ")) {
            match lines.last_mut().filter(|last| last.ends_with('\\')) {
                Some(last) => *last = format!("{} {}", last.trim_end_matches(['\\', ' ']), line.trim()),
                None => lines.push(line.trim().to_owned()),
            }
        }
        lines.iter().filter_map(|line| call(line)).collect()
    }

    /// Every command that does something, by its words.
    fn commands(command: &clap::Command, path: &[String], found: &mut Vec<(Vec<String>, String)>) {
        for sub in command.get_subcommands() {
            let path = [path, &[sub.get_name().to_owned()]].concat();
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            if !sub.has_subcommands() || !sub.is_subcommand_required_set() {
                found.push((path.clone(), help));
            }
            commands(sub, &path, found);
        }
    }

    #[test]
    fn every_command_has_examples_that_it_takes() {
        let mut found = Vec::new();
        commands(&Cli::command(), &[], &mut found);
        assert!(found.len() > 40, "{}", found.len());
        for (path, help) in found {
            let calls = calls(&help);
            // An id that is cut short stands for a whole one.
            let whole = |word: &String| match word.strip_suffix('…') {
                Some(_) => "2f0c1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11".to_owned(),
                None => word.clone(),
            };
            let mut own = 0;
            for call in &calls {
                let taken = Cli::try_parse_from(call.iter().map(whole));
                assert!(taken.is_ok(), "{path:?}: {call:?}: {}", taken.unwrap_err());
                own += usize::from(call.windows(path.len()).any(|words| words == path));
            }
            assert!(own > 0, "{path:?} has no example: {help}");
        }
    }
}
