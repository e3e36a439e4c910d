//! The binary as an operator runs it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use super::{AUDIENCE, ISSUER, MASTER_KEY};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_countersign");

/// The binary with an environment of its own: nothing is inherited.
#[derive(Clone)]
pub(crate) struct Cli {
    environment: Vec<(String, String)>,
}

impl Cli {
    /// With all that is required.
    pub(crate) fn new(database_url: &str) -> Self {
        Self::bare()
            .env("DATABASE_URL", database_url)
            .env("MASTER_KEY", MASTER_KEY)
            .env("ISSUER_URL", ISSUER)
            .env("DEFAULT_AUDIENCE", AUDIENCE)
            .env("HOST", "127.0.0.1")
            .env("PORT", "0")
            .env("ADMIN_ADDRESS", "127.0.0.1:0")
            .env("STARTUP_TIMEOUT_SECONDS", "10")
            .env("SHUTDOWN_DELAY_SECONDS", "0")
            // Tests are all from one address, and many are in a hurry.
            .env("RATE_LIMIT_PER_IP", "1000000")
            .env("RATE_LIMIT_PER_CLIENT", "1000000")
            .env("RATE_LIMIT_PER_TENANT", "1000000")
            .env("LOCKOUT_ATTEMPTS", "10000")
    }

    /// With nothing.
    pub(crate) fn bare() -> Self {
        Self { environment: Vec::new() }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// Without Redis, and no matter how many others there are.
    pub(crate) fn each_for_itself(self) -> Self {
        self.without("REDIS_URL").env("COUNTERSIGN_ENV", "development").env("LOG_FORMAT", "json")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran(self.command(arguments).output().unwrap())
    }

    /// The same with something on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran(child.wait_with_output().unwrap())
    }
}

/// What came of it.
pub(crate) struct Ran(Output);

impl Ran {
    pub(crate) fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// Its standard output.
    pub(crate) fn expect_success(&self) -> String {
        assert!(self.0.status.success(), "{}", self.stderr());
        self.stdout()
    }

    /// The one line that it ended with.
    pub(crate) fn expect_failure(&self) -> String {
        assert_eq!(self.code(), Some(1), "{}", self.stderr());
        let stderr = self.stderr();
        let last = stderr.lines().last().unwrap();
        last.strip_prefix("countersign: ").unwrap_or_else(|| panic!("{stderr}")).to_owned()
    }
}
