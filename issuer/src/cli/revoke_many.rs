//! `countersign revoke --jtis`: tokens by their ids, one a line, as many as there are.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use uuid::Uuid;

use super::output::{self, Format};
use super::{Outcome, Revoke, operator};
use crate::config::{self, Sources};
use crate::domain::audit::Origin;
use crate::keys;
use crate::keys::ServerSecrets;
use crate::management::caller::Caller;
use crate::storage::{Database, StorageError, tenants};
use crate::tokens::revoke::{Became, MOST_AT_ONCE, canonical, revoke_many_in};

/// A line of more bytes holds no id, and isn't kept.
const LINE_BYTES: u64 = 1024;
/// How often it says how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

/// What became of the lines.
#[derive(Default, Serialize)]
struct Counts {
    revoked: u64,
    already_revoked: u64,
    expired: u64,
    not_found: u64,
    malformed: u64,
}

/// A line that has something.
struct Line {
    number: u64,
    /// `None`: it isn't a UUID.
    id: Option<Uuid>,
}

pub(super) async fn run(sources: &Sources, options: &Revoke, file: &Path) -> Outcome {
    let config = config::Keys::from_sources(sources)?;
    let mut lines = open(file)?;
    let database = operator::connect_by(config.plain).await?;
    let secrets = keys::load_secrets(&database, &config.master_key).await?;
    let secrets = secrets.ok_or("there are no keys yet: run `countersign bootstrap`")?;
    let tenant = match options.tenant {
        Some(tenant) => tenant,
        None => tenants::platform(&database)
            .await?
            .ok_or("there is no tenant yet: run `countersign bootstrap`")?,
    };
    let mut transaction = database.begin_as(tenant).await?;
    if !tenants::exists(&mut transaction, tenant).await? {
        return Err(format!("there is no tenant {tenant}").into());
    }
    drop(transaction);

    let caller = Caller::operator(tenant);
    let mut counts = Counts::default();
    let (mut read, mut said) = (0, Instant::now());
    loop {
        let batch = next_batch(&mut *lines, &mut read).map_err(|error| {
            format!("line {} can't be read: {error}; what came before it is done", read + 1)
        })?;
        let Some(first) = batch.first().map(|line| line.number) else { break };
        revoke(&database, &secrets, &caller, &batch, &mut counts).await.map_err(|error| {
            // Doing it again does no harm.
            format!("line {first} and those after it aren't done: {error}")
        })?;
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            eprintln!("{read} lines, {} revoked", counts.revoked);
        }
    }

    match Format::of(options.json) {
        Format::Json => output::json(&counts)?,
        format @ Format::Text => {
            let Counts { revoked, already_revoked, expired, .. } = counts;
            output::note(
                format,
                &format!("revoked: {revoked} tokens; {already_revoked} were before, {expired} have expired"),
            )?;
            if revoked > 0 {
                let soon = "Edges refuse them about a second from now, if an issuer is running; else when one starts.";
                output::note(format, soon)?;
            }
        }
    }
    let Counts { not_found, malformed, .. } = counts;
    if not_found + malformed > 0 {
        let what = format!("{not_found} are no tokens of tenant {tenant}, {malformed} lines are no ids");
        return Err(format!("all others are revoked, but {what}").into());
    }
    Ok(())
}

/// One transaction for all of `batch`.
async fn revoke(
    database: &Database,
    secrets: &ServerSecrets,
    caller: &Caller,
    batch: &[Line],
    counts: &mut Counts,
) -> Result<(), StorageError> {
    let ids: Vec<Uuid> = batch.iter().filter_map(|line| line.id).collect();
    let (tenant, origin) = (caller.tenant(), Origin::default());
    let mut transaction = database.begin_as(tenant).await?;
    let became = revoke_many_in(&mut transaction, secrets, tenant, caller.agent(), &ids, &origin).await?;
    Database::commit(transaction).await?;
    let mut became = became.into_iter();
    for Line { number, id } in batch {
        // None of the text of a line that isn't an id: it may be a token.
        let Some(id) = id else {
            counts.malformed += 1;
            eprintln!("line {number}: not a UUID in lower-case hyphenated form");
            continue;
        };
        match became.next() {
            Some(Became::Revoked) => counts.revoked += 1,
            Some(Became::AlreadyRevoked) => counts.already_revoked += 1,
            Some(Became::Expired) => counts.expired += 1,
            Some(Became::NotFound) | None => {
                counts.not_found += 1;
                eprintln!("line {number}: {id} is no token of the tenant");
            }
        }
    }
    Ok(())
}

fn open(file: &Path) -> Result<Box<dyn BufRead>, String> {
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let opened = File::open(file).map_err(|error| format!("{} can't be read: {error}", file.display()))?;
    Ok(Box::new(BufReader::new(opened)))
}

/// The next lines that have something, at most as many as go into one transaction; none at the end. `read` counts all lines.
fn next_batch(lines: &mut dyn BufRead, read: &mut u64) -> io::Result<Vec<Line>> {
    let mut batch = Vec::with_capacity(MOST_AT_ONCE);
    let mut line = Vec::new();
    while batch.len() < MOST_AT_ONCE {
        line.clear();
        if (&mut *lines).take(LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let whole = line.ends_with(b"\n") || (line.len() as u64) < LINE_BYTES;
        if !whole {
            lines.skip_until(b'\n')?;
        }
        *read += 1;
        let text = str::from_utf8(&line).map(str::trim);
        if text != Ok("") {
            let id = text.ok().filter(|_| whole).and_then(canonical);
            batch.push(Line { number: *read, id });
        }
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_and_none_is_kept_that_is_too_long() {
        let id = "079a3112-3456-8789-8fed-cba987654321";
        let long = "x".repeat(usize::try_from(LINE_BYTES).unwrap() * 3);
        let text = format!("{id}\n\n  {id}\r\n{long}\n{}\nnot one\n{id}", id.to_uppercase());
        let mut read = 0;
        let batch = next_batch(&mut text.as_bytes(), &mut read).unwrap();
        let found: Vec<(u64, bool)> = batch.iter().map(|line| (line.number, line.id.is_some())).collect();
        assert_eq!(found, [(1, true), (3, true), (4, false), (5, false), (6, false), (7, true)]);
        assert_eq!(read, 7);
    }

    #[test]
    fn batches_end_where_a_transaction_does() {
        let text = "079a3112-3456-8789-8fed-cba987654321\n".repeat(MOST_AT_ONCE + 1);
        let (mut lines, mut read) = (text.as_bytes(), 0);
        let sizes: Vec<usize> = (0..3).map(|_| next_batch(&mut lines, &mut read).unwrap().len()).collect();
        assert_eq!(sizes, [MOST_AT_ONCE, 1, 0]);
    }
}
