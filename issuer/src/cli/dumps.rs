//! What is in memory stays there: private keys, the master key, secrets.

use rustix::io;
use rustix::process::{Resource, Rlimit, setrlimit};

/// No crash of this process, nor of one that it starts, leaves a core dump. On Linux nobody but root attaches a debugger to it or reads its memory or
/// environment either (prctl(2), `PR_SET_DUMPABLE`): that also keeps it from programs that core dumps are piped to (core(5)), which no limit does.
pub(super) fn forbid() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
