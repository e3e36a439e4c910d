//! What is in memory stays there: private keys, the master key, secrets.

use rustix::io;
use rustix::process::{Resource, Rlimit, setrlimit};

/// No crash of this process leaves a core dump. On Linux nobody but root attaches a debugger to it or reads its memory or environment either (prctl(2),
/// `PR_SET_DUMPABLE`): that also keeps it from programs that core dumps are piped to (core(5)), which no limit does. What it starts has the limit from it, so it
/// leaves no file; but it is dumpable again (execve(2)), and what comes of its memory where `core_pattern` is a pipe is for that program to say.
pub(super) fn forbid() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
