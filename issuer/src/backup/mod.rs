//! Backups of the database, and going back to one.
//!
//! A backup is what `pg_dump` makes of one instant ([`tools`]), sealed where there is a key for it ([`sealed`]), and beside it a manifest that says what it is and has
//! ([`manifest`]). It is there when its manifest is. All that is read of it again is compared with that.

mod manifest;
mod restore;
mod sealed;
mod tools;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::config::{self, BackupKey};
use crate::storage::backup::Snapshot;
use crate::storage::{Database, StorageError};

pub use manifest::{Manifest, Position};
pub use restore::{Restored, restore};
use sealed::{Opener, Sealer};
pub use tools::Tools;

/// Bytes that are taken together.
const CHUNK: usize = 64 * 1024;
/// Begins the name that a backup in a directory gets.
const NAME: &str = "countersign-";
/// Ends the name of a manifest.
const MANIFEST: &str = "json";

/// Why there is no backup, or why it can't be used: a sentence that says what to do.
#[derive(Debug)]
pub struct BackupError(pub(crate) String);

impl std::fmt::Display for BackupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BackupError {}

impl From<StorageError> for BackupError {
    fn from(error: StorageError) -> Self {
        Self(error.to_string())
    }
}

fn at(path: &Path, error: &io::Error) -> BackupError {
    BackupError(format!("{}: {error}", path.display()))
}

/// Where a backup goes.
#[derive(Debug, Clone)]
pub enum Place {
    /// A file that isn't there yet.
    File(PathBuf),
    /// A directory; the name is made of the time.
    Directory(PathBuf),
}

impl Place {
    /// A directory where one is, or where the path ends in a slash.
    pub fn of(path: &Path) -> Self {
        let is_directory = path.is_dir() || path.as_os_str().to_string_lossy().ends_with('/');
        if is_directory { Self::Directory(path.to_owned()) } else { Self::File(path.to_owned()) }
    }
}

/// A backup that was made.
#[derive(Debug)]
pub struct Made {
    /// Where.
    pub path: PathBuf,
    /// What it is.
    pub manifest: Manifest,
    /// Those that were deleted for it.
    pub deleted: Vec<PathBuf>,
}

/// Makes a backup of all that is committed now, while everything goes on. With `keep`, only so many of those in its directory stay, the newest.
pub async fn take(
    database: &Database,
    config: &config::Backup,
    place: &Place,
    keep: Option<usize>,
) -> Result<Made, BackupError> {
    let snapshot = Snapshot::open(database).await?;
    let facts = snapshot.facts().clone();
    let tools = Tools::find(config.tools.as_deref(), facts.server_major)?;
    let path = match place {
        Place::File(path) => path.clone(),
        Place::Directory(directory) => directory.join(name(facts.at, config.key.is_some())?),
    };
    let mut manifest = Manifest::new(&facts, &path, config.key.is_some(), tools.version());
    let dump = tools.dump(&config.database, snapshot.id());
    let (target, key) = (path.clone(), config.key.clone());
    let written = tokio::task::spawn_blocking(move || write(&target, key.as_ref(), dump)).await;
    let (bytes, sha256) = written.map_err(|_| BackupError("writing was interrupted".into()))??;
    // It was held until here: what the tables had and what was dumped is of one instant.
    snapshot.close().await;
    (manifest.bytes, manifest.sha256) = (bytes, sha256);
    let described = path_of_manifest(&path);
    write_whole(&described, &manifest.to_json()).map_err(|error| at(&described, &error))?;
    let deleted = match (keep, path.parent()) {
        (Some(keep), Some(directory)) => delete_old(directory, &manifest.database, keep)?,
        _ => Vec::new(),
    };
    Ok(Made { path, manifest, deleted })
}

fn name(at: OffsetDateTime, is_sealed: bool) -> Result<String, BackupError> {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let time = at.format(&format).map_err(|error| BackupError(error.to_string()))?;
    Ok(format!("{NAME}{time}.dump{}", if is_sealed { ".sealed" } else { "" }))
}

/// Where the manifest of the backup at `path` is.
pub fn path_of_manifest(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{MANIFEST}"));
    name.into()
}

/// Writes what `dump` says to `path`: its length and SHA-256. Under that name it is there when it is whole.
fn write(path: &Path, key: Option<&BackupKey>, dump: tools::Start) -> Result<(u64, String), BackupError> {
    if path.exists() {
        return Err(BackupError(format!("{} is there already: give another name", path.display())));
    }
    let unfinished = unfinished(path);
    let written = (|| {
        let file = create(&unfinished).map_err(|error| at(&unfinished, &error))?;
        let (mut file, mut dump) = (Hashing::new(file), dump.begin()?);
        let copied = match key {
            None => io::copy(&mut dump, &mut file).map(|_| ()),
            Some(key) => Sealer::begin(&mut file, key).and_then(|mut sealer| {
                io::copy(&mut dump, &mut sealer)?;
                sealer.finish()
            }),
        };
        // If nobody takes what it says `pg_dump` fails as well.
        let ended = dump.end();
        copied.map_err(|error| at(&unfinished, &error))?;
        ended?;
        let (file, bytes, sha256) = file.finish();
        file.sync_all().and_then(|()| fs::rename(&unfinished, path)).map_err(|error| at(path, &error))?;
        Ok((bytes, sha256))
    })();
    if written.is_err() {
        _ = fs::remove_file(&unfinished);
    }
    written
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".unfinished");
    name.into()
}

/// For its owner alone: a backup has every agent's name, and what secrets are checked against.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = unfinished(path);
    let mut file = create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    // That the names are there has to outlive a crash, too.
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Deletes all but the newest `keep` backups of `database` in `directory` that have a name of ours; those without a manifest aren't counted, nor touched.
fn delete_old(directory: &Path, database: &str, keep: usize) -> Result<Vec<PathBuf>, BackupError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| at(directory, &error))? {
        let path = entry.map_err(|error| at(directory, &error))?.path();
        let is_ours = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            let name = name.strip_suffix(".sealed").unwrap_or(name);
            name.starts_with(NAME) && name.strip_suffix(".dump").is_some()
        });
        if let (true, Ok(manifest)) = (is_ours, Manifest::read(&path))
            && manifest.database == database
        {
            found.push((manifest.created_at, path));
        }
    }
    found.sort_unstable_by(|one, other| other.cmp(one));
    let old: Vec<PathBuf> = found.into_iter().skip(keep).map(|(_, path)| path).collect();
    for path in &old {
        // The manifest first: what is left of an interrupted deletion is no backup.
        let manifest = path_of_manifest(path);
        fs::remove_file(&manifest).map_err(|error| at(&manifest, &error))?;
        fs::remove_file(path).map_err(|error| at(path, &error))?;
    }
    Ok(old)
}

/// Reads the whole backup at `path`: that it is what its manifest says, that it opens, and that `pg_restore` can read it to its end.
pub async fn verify(
    path: &Path,
    key: Option<BackupKey>,
    tools: Option<&Path>,
) -> Result<Manifest, BackupError> {
    let manifest = Manifest::read(path)?;
    let tools = Tools::find(tools, manifest.server_major())?;
    let (path, expected) = (path.to_owned(), manifest.clone());
    let checked = tokio::task::spawn_blocking(move || {
        check_digest(&path, &expected)?;
        pour(&path, &expected, key.as_ref(), tools.read_through())
    });
    checked.await.map_err(|_| BackupError("reading was interrupted".into()))??;
    Ok(manifest)
}

/// That the file is the one that the manifest is of.
fn check_digest(path: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let mut file = File::open(path).map_err(|error| at(path, &error))?;
    let mut hashing = Hashing::new(io::sink());
    io::copy(&mut file, &mut hashing).map_err(|error| at(path, &error))?;
    let (_, bytes, sha256) = hashing.finish();
    if bytes == manifest.bytes && sha256 == manifest.sha256 {
        return Ok(());
    }
    Err(BackupError(format!(
        "{} isn't what was written: {bytes} bytes with SHA-256 {sha256}, and its manifest says {} with {}. Use another backup",
        path.display(),
        manifest.bytes,
        manifest.sha256
    )))
}

/// Gives the dump at `path` to `program`, and waits for its end.
fn pour(
    path: &Path,
    manifest: &Manifest,
    key: Option<&BackupKey>,
    program: tools::Start,
) -> Result<(), BackupError> {
    let file = File::open(path).map_err(|error| at(path, &error))?;
    let mut dump: Box<dyn Read> = match (manifest.is_sealed(), key) {
        (false, _) => Box::new(file),
        (true, Some(key)) => Box::new(Opener::begin(file, key).map_err(|error| at(path, &error))?),
        (true, None) => {
            return Err(BackupError(format!(
                "{} is sealed: set BACKUP_KEY to the key that it was made with",
                path.display()
            )));
        }
    };
    let mut program = program.begin()?;
    let mut chunk = vec![0; CHUNK];
    loop {
        // What can't be read is the backup's fault; then the program is killed. What can't be written is the program's, which says itself why.
        let read = dump.read(&mut chunk).map_err(|error| at(path, &error))?;
        if read == 0 || program.write_all(&chunk[..read]).is_err() {
            return program.end();
        }
    }
}

/// Hashes what is written through it.
struct Hashing<W> {
    inner: W,
    context: Context,
    bytes: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, context: Context::new(&SHA256), bytes: 0 }
    }

    /// What it wrote to, how many bytes, and their SHA-256.
    fn finish(self) -> (W, u64, String) {
        (self.inner, self.bytes, HEXLOWER.encode(self.context.finish().as_ref()))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.context.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
