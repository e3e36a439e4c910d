//! Going back to a backup.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{BackupError, Manifest, Tools, check_digest, pour};
use crate::clock;
use crate::config;
use crate::management::recovery::{self, Recovered};
use crate::storage::backup::Target;
use crate::storage::{Database, schema};

/// What was done.
#[derive(Debug)]
pub struct Restored {
    /// The backup.
    pub manifest: Manifest,
    /// The migrations that it lacked.
    pub migrated: Vec<String>,
    /// What makes edges believe it; `None` where that wasn't wanted.
    pub recovered: Option<Recovered>,
    /// How long all of it took.
    pub took: Duration,
    /// How long ago the backup was made, at the end.
    pub age: time::Duration,
}

/// Restores the backup at `path` into an empty database; with `replace`, into one that isn't, whose content is deleted when the backup is there, and not sooner. Then
/// applies the migrations that are missing and, with a `reason`, does what `countersign recover` does. When something fails the database is as it was before.
pub async fn restore(
    database: &Database,
    config: &config::Backup,
    path: &Path,
    replace: bool,
    reason: Option<&str>,
) -> Result<Restored, BackupError> {
    let began = Instant::now();
    let manifest = Manifest::read(path)?;
    if manifest.schema > schema::newest() {
        return Err(BackupError(format!(
            "{} has a schema that is newer than this binary (migration {}): use the version that made it, {}, or a newer one",
            path.display(),
            manifest.schema,
            manifest.countersign
        )));
    }
    let mut target = Target::open(database).await?;
    let server = target.server_major().await?;
    if server < manifest.server_major() {
        return Err(BackupError(format!(
            "the backup is of PostgreSQL {}, and this server is {server}: restore it into one that isn't older",
            manifest.server_version
        )));
    }
    let tools = Tools::find(config.tools.as_deref(), server)?;
    let (tables, broken_off) = target.tables().await?;
    if broken_off {
        return Err(BackupError(
            "a restore was broken off here: its database is in the schema `countersign_before_restore`. Drop that, or drop `public` and rename it to that, and \
             try again"
                .to_owned(),
        ));
    }
    if tables > 0 && !replace {
        return Err(BackupError(
            "the database isn't empty: make another one and name that in DATABASE_URL, or delete what is in this one by --force".to_owned(),
        ));
    }
    // Our own first connection may not be quite gone yet.
    let patience = Instant::now() + Duration::from_secs(2);
    let mut users = target.users().await?;
    while users > 0 && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(50)).await;
        users = target.users().await?;
    }
    if users > 0 {
        return Err(BackupError(format!(
            "issuers or their commands are connected to the database ({users} connections): stop them first"
        )));
    }
    // Before anything is touched.
    let (file, expected) = (path.to_owned(), manifest.clone());
    let checked = tokio::task::spawn_blocking(move || check_digest(&file, &expected)).await;
    checked.map_err(|_| BackupError("reading was interrupted".into()))??;

    let replaces = tables > 0;
    if replaces {
        target.set_aside().await?;
    }
    match fill(database, config, path, &manifest, &tools, &mut target, reason).await {
        Ok((migrated, recovered)) => {
            if replaces {
                target.forget().await?;
            }
            let age = clock::precise() - manifest.created_at;
            Ok(Restored { manifest, migrated, recovered, took: began.elapsed(), age })
        }
        Err(BackupError(cause)) => {
            let undone = if replaces { target.put_back().await } else { target.clear().await };
            Err(BackupError(match undone {
                Ok(()) => format!("{cause}. The database is as it was before"),
                Err(error) => format!("{cause}. And what was done of it can't be undone: {error}"),
            }))
        }
    }
}

async fn fill(
    database: &Database,
    config: &config::Backup,
    path: &Path,
    manifest: &Manifest,
    tools: &Tools,
    target: &mut Target,
    reason: Option<&str>,
) -> Result<(Vec<String>, Option<Recovered>), BackupError> {
    let program = tools.restore(&config.database);
    let (file, expected, key) = (path.to_owned(), manifest.clone(), config.key.clone());
    let poured = tokio::task::spawn_blocking(move || pour(&file, &expected, key.as_ref(), program)).await;
    poured.map_err(|_| BackupError("restoring was interrupted".into()))??;
    let rows = target.rows().await?;
    if rows != manifest.rows {
        let differs = rows
            .iter()
            .chain(&manifest.rows)
            .find(|(table, _)| rows.get(*table) != manifest.rows.get(*table));
        let table = differs.map_or_else(String::new, |(table, _)| table.clone());
        return Err(BackupError(format!(
            "{table} has {:?} rows after the restore, and the backup has {:?}",
            rows.get(&table),
            manifest.rows.get(&table)
        )));
    }
    let migrated = schema::migrate(database).await.map_err(|error| BackupError(error.to_string()))?;
    let recovered = match reason {
        Some(reason) => Some(recovery::recover(database, reason).await?),
        None => None,
    };
    Ok((migrated.applied, recovered))
}
