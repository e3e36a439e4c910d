//! `pg_dump` and `pg_restore`: finding those that fit the server, and running them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::BackupError;
use crate::config;

/// Where packages put them beside the `PATH`: directories that have one for each version, and what follows it.
const VERSIONED: [(&str, &str); 3] =
    [("/usr/lib/postgresql", "bin"), ("/usr/local/lib/postgresql", "bin"), ("/usr", "bin")];
const PLAIN: [&str; 3] = ["/usr/local/pgsql/bin", "/usr/local/opt/libpq/bin", "/opt/homebrew/opt/libpq/bin"];
/// The most of what a program says that is handed on.
const LONGEST_COMPLAINT: usize = 1000;

/// Both, of one version.
#[derive(Debug, Clone)]
pub struct Tools {
    directory: PathBuf,
    version: String,
}

/// The first number of a version.
pub(super) fn major(version: &str) -> Option<u32> {
    version.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

impl Tools {
    /// Those in `given`; without it, of all on this machine the oldest that aren't older than the server.
    pub fn find(given: Option<&Path>, server: u32) -> Result<Self, BackupError> {
        let places = given.map_or_else(places, |given| vec![given.to_owned()]);
        let mut found: Vec<Self> = places.into_iter().filter_map(Self::at).collect();
        found.sort_by_key(|tools| major(&tools.version));
        let newest = found.last().cloned();
        if let Some(tools) = found.into_iter().find(|tools| major(&tools.version) >= Some(server)) {
            return Ok(tools);
        }
        let fix = format!(
            "install PostgreSQL's client programs of version {server} or newer (Debian, Ubuntu: apt-get install postgresql-client-{server}), or \
             name their directory in POSTGRES_BIN"
        );
        Err(BackupError(match newest {
            Some(Self { directory, version }) => format!(
                "pg_dump {version} in {} is older than the server, which is {server}: {fix}",
                directory.display()
            ),
            None => format!(
                "pg_dump and pg_restore aren't in {}: {fix}",
                match given {
                    Some(given) => given.display().to_string(),
                    None => "the PATH nor where packages put them".to_owned(),
                }
            ),
        }))
    }

    fn at(directory: PathBuf) -> Option<Self> {
        let version = |program: &str| {
            let path = directory.join(program);
            let said = path.is_file().then(|| Command::new(path).arg("--version").output().ok()).flatten()?;
            // `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
            let said = String::from_utf8(said.stdout).ok()?;
            said.split_whitespace().nth(2).map(str::to_owned)
        };
        let (dump, restore) = (version("pg_dump")?, version("pg_restore")?);
        (dump == restore).then_some(Self { directory, version: dump })
    }

    /// Their version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Begins to dump the database as of the snapshot.
    pub(super) fn dump(&self, database: &config::Database, snapshot: &str) -> Start {
        let mut command = self.command("pg_dump", Some(database));
        // All of it is dumped, row-level security or not: the role sees every tenant's rows by a setting.
        command.args(["--format=custom", "--no-owner", "--no-privileges", "--enable-row-security"]);
        command.args(["--lock-wait-timeout=10000", &format!("--snapshot={snapshot}")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Start(command)
    }

    /// Begins to restore into the database, all of it or nothing.
    pub(super) fn restore(&self, database: &config::Database) -> Start {
        let mut command = self.command("pg_restore", Some(database));
        let name = database.options.get_database().unwrap_or_else(|| database.options.get_username());
        command.args(["--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error"]);
        command.arg(format!("--dbname={name}")).stdin(Stdio::piped()).stdout(Stdio::null());
        Start(command)
    }

    /// Begins to read a dump to its end, and does nothing with it.
    pub(super) fn read_through(&self) -> Start {
        let mut command = self.command("pg_restore", None);
        command.arg("--file=/dev/null").stdin(Stdio::piped()).stdout(Stdio::null());
        Start(command)
    }

    /// The connection goes by the environment: arguments are for everybody on the machine to see.
    fn command(&self, program: &str, database: Option<&config::Database>) -> Command {
        let mut command = Command::new(self.directory.join(program));
        let inherited = |name: &OsString| {
            let name = name.to_string_lossy();
            name.starts_with("PG") || ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR"].contains(&&*name)
        };
        command.env_clear().envs(env::vars_os().filter(|(name, _)| inherited(name)));
        command.stderr(Stdio::piped());
        if let Some(database) = database {
            command.env_remove("PGSERVICE").env("PGAPPNAME", "countersign backup");
            command.env("PGOPTIONS", "-c countersign.tenant=*").envs(database.libpq_environment());
        }
        command
    }
}

fn places() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let versions = VERSIONED.iter().flat_map(|(root, end)| {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        let is_version = |name: &str| name.parse::<u32>().is_ok() || name.starts_with("pgsql-");
        entries
            .filter(move |entry| entry.file_name().to_str().is_some_and(is_version))
            .map(move |entry| entry.path().join(end))
    });
    env::split_paths(&path).chain(versions).chain(PLAIN.iter().map(PathBuf::from)).collect()
}

/// A program that isn't started yet: that is for the thread which waits for it.
pub(super) struct Start(Command);

impl Start {
    pub(super) fn begin(mut self) -> Result<Running, BackupError> {
        let program = self.0.get_program().to_string_lossy().into_owned();
        let mut child =
            self.0.spawn().map_err(|error| BackupError(format!("{program} can't be started: {error}")))?;
        let mut stderr = child.stderr.take();
        // Read meanwhile, or a program with much to say would wait for ever.
        let complaints = std::thread::spawn(move || {
            let mut said = Vec::new();
            if let Some(stderr) = &mut stderr {
                _ = stderr.read_to_end(&mut said);
            }
            String::from_utf8_lossy(&said).trim().to_owned()
        });
        let output = child.stdout.take();
        Ok(Running { child, program, complaints: Some(complaints), output })
    }
}

/// A program at work. Dropped, it is killed.
pub(super) struct Running {
    child: Child,
    program: String,
    complaints: Option<std::thread::JoinHandle<String>>,
    output: Option<ChildStdout>,
}

impl Running {
    /// What it reads.
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let closed = io::ErrorKind::BrokenPipe;
        self.child.stdin.as_mut().map_or_else(|| Err(closed.into()), |input| input.write_all(bytes))
    }

    /// Ends its input and waits for it; an error in its own words if it failed.
    pub(super) fn end(&mut self) -> Result<(), BackupError> {
        drop(self.child.stdin.take());
        drop(self.output.take());
        let status = self.child.wait().map_err(|error| BackupError(format!("{}: {error}", self.program)))?;
        let said = self.complaints.take().and_then(|complaints| complaints.join().ok()).unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        let said: String =
            said.lines().collect::<Vec<_>>().join("; ").chars().take(LONGEST_COMPLAINT).collect();
        Err(BackupError(format!("{} failed ({status}): {said}", self.program)))
    }
}

/// What it writes.
impl Read for Running {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.output.as_mut().map_or(Ok(0), |output| output.read(bytes))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
