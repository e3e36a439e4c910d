//! `countersign keys rewrap`.

use clap::Args;
use serde_json::json;

use crate::cli::Outcome;
use crate::cli::operator::connect_by;
use crate::config::{self, Sources};
use crate::keys::{self, Rewrapped};
use crate::storage::sealed::Row;

pub(super) const HELP: &str = "\
Every running issuer must have been started with both master keys before, the old one as MASTER_KEY and the new one as NEW_MASTER_KEY: from \
the first row on that is moved, issuers need the new one, and they seal new keys under it. If it is interrupted, run it again.

Examples:
  NEW_MASTER_KEY_FILE=/etc/countersign/master-2.key countersign keys rewrap
  NEW_MASTER_KEY_PROVIDER=pkcs11 NEW_PKCS11_MODULE=/usr/lib/softhsm/libsofthsm2.so NEW_PKCS11_TOKEN_LABEL=countersign \\
    NEW_PKCS11_KEY_LABEL=master-1 NEW_PKCS11_PIN_FILE=/etc/countersign/pin countersign keys rewrap";

#[derive(Debug, Args)]
pub(in crate::cli) struct Rewrap {
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(sources: &Sources, options: &Rewrap) -> Outcome {
    let config = config::Rewrap::from_sources(sources)?.keys;
    let database = connect_by(config.plain).await?;
    let done = keys::rewrap(&database, &config.master_key).await?;
    if options.json {
        println!(
            "{}",
            json!({ "from": done.from, "to": done.to, "rows": done.rows, "failed": done.failed.len() })
        );
    } else {
        print(&done);
    }
    match done.failed.as_slice() {
        [] => Ok(()),
        failed => Err(failure(failed).into()),
    }
}

fn print(done: &Rewrapped) {
    let Rewrapped { from, to, rows, failed } = done;
    let from: Vec<&str> = from.iter().map(String::as_str).collect();
    match (rows, failed.is_empty()) {
        (0, true) => println!("nothing to do: everything is sealed under {to} already"),
        (0, false) => println!("nothing was moved to {to}"),
        _ => println!("moved {rows} rows from {} to {to}", from.join(" and ")),
    }
    if failed.is_empty() {
        println!(
            "\nWhat to do next:
  1. Restart every issuer with the new master key as MASTER_KEY (or MASTER_KEY_PROVIDER and what goes with it), without NEW_MASTER_KEY.
  2. Keep the old one for as long as there are backups of this database from before: they open with nothing else.
If others may know the old one, they can have opened what they copied before now: rotate the signing keys too."
        );
    }
}

fn failure(failed: &[(Row, keys::KeyError)]) -> String {
    let lines = failed.iter().map(|(row, error)| {
        let (table, id) = match row {
            Row::SigningKey(kid) => ("signing_keys", kid),
            Row::ServerSecret(name) => ("server_secrets", name),
        };
        format!("\n  {table} `{id}`: {error}")
    });
    format!("{} rows stay as they are:{}", failed.len(), lines.collect::<String>())
}
