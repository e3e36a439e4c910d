//! What backups need besides the database.

use std::fmt;
use std::path::PathBuf;

use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::sources::Reader;
use super::{Database, Plain, Problems, Sources, Telemetry};

/// What backups are sealed with: 256 bits, wiped from memory when dropped.
#[derive(Clone)]
pub struct BackupKey(Zeroizing<[u8; 32]>);

impl BackupKey {
    /// Of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for who seals.
    pub(crate) fn bytes(&self) -> &[u8] {
        &*self.0
    }
}

impl fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What `backup` and `restore` need.
#[derive(Debug)]
pub struct Backup {
    /// Where logs go and how.
    pub telemetry: Telemetry,
    /// The truth.
    pub database: Database,
    /// Backups are sealed with it; they aren't without it.
    pub key: Option<BackupKey>,
    /// Where `pg_dump` and `pg_restore` are, if they aren't to be looked for.
    pub tools: Option<PathBuf>,
}

/// What `backup verify` needs.
#[derive(Debug)]
pub struct BackupReading {
    /// Where logs go and how.
    pub telemetry: Telemetry,
    /// Opens those that are sealed.
    pub key: Option<BackupKey>,
    /// Where `pg_restore` is, if it isn't to be looked for.
    pub tools: Option<PathBuf>,
}

impl Backup {
    /// Reads and checks all of it.
    pub fn from_sources(sources: &Sources) -> Result<Self, Problems> {
        let Plain { telemetry, database } = Plain::from_sources(sources)?;
        let BackupReading { key, tools, .. } = BackupReading::from_sources(sources)?;
        Ok(Self { telemetry, database, key, tools })
    }
}

impl BackupReading {
    /// Reads and checks all of it.
    pub fn from_sources(sources: &Sources) -> Result<Self, Problems> {
        let mut reader = Reader::new(sources);
        let telemetry = Telemetry::read(&mut reader);
        let key = key(&mut reader);
        let tools = reader.text("POSTGRES_BIN").map(PathBuf::from).filter(|path| {
            if !path.is_absolute() {
                reader.problem("POSTGRES_BIN must be an absolute path: that of the directory with pg_dump and pg_restore");
            }
            path.is_absolute()
        });
        reader.finish(Some(Self { telemetry, key, tools }))
    }
}

fn key(reader: &mut Reader<'_>) -> Option<BackupKey> {
    let text = reader.key_material("BACKUP_KEY")?;
    // One that is lost with a backup, or found there, is to be neither lost nor found with the other.
    if reader.text("MASTER_KEY").is_some_and(|master| master.trim() == text.expose().trim()) {
        reader.problem("BACKUP_KEY is MASTER_KEY: make another with `openssl rand -base64 32`");
    }
    let bytes = BASE64.decode(text.expose().as_bytes()).map(Zeroizing::new).ok();
    let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok()).map(BackupKey::new);
    if key.is_none() {
        reader.problem("BACKUP_KEY must be the base64 of 32 bytes: make one with `openssl rand -base64 32`");
    }
    key
}
