//! The command line: `countersign serve | migrate | bootstrap | keys`.

mod bootstrap;
mod keys;
mod migrate;
mod serve;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Problems, Sources};
use crate::domain::signing_key::Purpose;

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
    Serve,
    /// Bring the database schema up to date.
    Migrate,
    /// Make keys, the first tenant and its administrator; safe to run again.
    Bootstrap(Bootstrap),
    /// Look at the signing keys.
    #[command(subcommand)]
    Keys(Keys),
}

#[derive(Debug, Args)]
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

#[derive(Debug, Subcommand)]
enum Keys {
    /// Every key with its purpose, algorithm and state.
    List,
    /// The public keys of one purpose, as a JWK Set.
    ExportPublic {
        /// What the keys sign.
        #[arg(long)]
        purpose: PurposeArgument,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PurposeArgument {
    /// Access tokens.
    Token,
    /// Revocation heads: what the edge verifier takes as `REVOCATION_KEYS`.
    Revocation,
}

impl From<PurposeArgument> for Purpose {
    fn from(purpose: PurposeArgument) -> Self {
        match purpose {
            PurposeArgument::Token => Self::Token,
            PurposeArgument::Revocation => Self::Revocation,
        }
    }
}

/// The configuration is not valid (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Does what the command line says. What goes wrong is said on standard error.
pub async fn run(cli: Cli) -> ExitCode {
    // What isn't UTF-8 can't be a setting of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let sources = Sources::read(environment, cli.config.as_deref());
    let outcome = match cli.command {
        Command::Serve => serve::run(&sources).await,
        Command::Migrate => migrate::run(&sources).await,
        Command::Bootstrap(options) => bootstrap::run(&sources, &options).await,
        Command::Keys(Keys::List) => keys::list(&sources).await,
        Command::Keys(Keys::ExportPublic { purpose }) => keys::export_public(&sources, purpose.into()).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("countersign: {error}");
            if error.is::<Problems>() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}
