//! What a backup is and has, in a file beside it: `NAME.json` (docs/operations/backup.md).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{BackupError, path_of_manifest};
use crate::storage::backup::Facts;

/// What `encryption` says of one that is sealed ([`super::sealed`]).
const SEALED: &str = "AES-256-GCM";
/// The version of manifests that this binary writes and reads.
const FORMAT: u32 = 1;

/// A backup's description.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// 1.
    pub format: u32,
    /// The instant that it is of, by the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The version of the binary that made it.
    pub countersign: String,
    /// The database's name.
    pub database: String,
    /// The server's version.
    pub server_version: String,
    /// The version of `pg_dump`.
    pub pg_dump: String,
    /// The newest migration.
    pub schema: i64,
    /// The name of the backup's file.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// How it is sealed; absent: not at all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub encryption: Option<String>,
    /// Where publication stood.
    pub position: Position,
    /// The names of the master keys without which its keys don't open.
    pub master_keys: Vec<String>,
    /// How many rows each table has.
    pub rows: BTreeMap<String, u64>,
}

/// Where publication stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The epoch.
    pub epoch: u64,
    /// The newest change.
    pub seq: u64,
}

impl Manifest {
    /// Of a backup that isn't written yet.
    pub(super) fn new(facts: &Facts, path: &Path, is_sealed: bool, pg_dump: &str) -> Self {
        Self {
            format: FORMAT,
            created_at: facts.at,
            countersign: env!("CARGO_PKG_VERSION").to_owned(),
            database: facts.database.clone(),
            server_version: facts.server_version.clone(),
            pg_dump: pg_dump.to_owned(),
            schema: facts.schema,
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: 0,
            sha256: String::new(),
            encryption: is_sealed.then(|| SEALED.to_owned()),
            position: Position { epoch: facts.epoch, seq: facts.seq },
            master_keys: facts.master_keys.clone(),
            rows: facts.rows.clone(),
        }
    }

    /// Of the backup at `path`.
    pub fn read(path: &Path) -> Result<Self, BackupError> {
        let described = path_of_manifest(path);
        let text = fs::read(&described).map_err(|error| {
            BackupError(format!(
                "{} can't be read ({error}): a backup without its manifest was never finished, or lost it",
                described.display()
            ))
        })?;
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|error| BackupError(format!("{} is no manifest: {error}", described.display())))?;
        if manifest.format != FORMAT {
            return Err(BackupError(format!(
                "{} has format {}, and this binary reads {FORMAT}: use the version that made it, {}, or a newer one",
                described.display(),
                manifest.format,
                manifest.countersign
            )));
        }
        if !matches!(manifest.encryption.as_deref(), None | Some(SEALED)) {
            return Err(BackupError(format!("{}: its encryption isn't known here", described.display())));
        }
        Ok(manifest)
    }

    /// Whether it takes a key to read the backup.
    pub const fn is_sealed(&self) -> bool {
        self.encryption.is_some()
    }

    /// The first part of the server's version.
    pub(super) fn server_major(&self) -> u32 {
        super::tools::major(&self.server_version).unwrap_or(0)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default(); // strings and numbers only
        text.push(b'\n');
        text
    }
}
