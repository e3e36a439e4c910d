//! The log's lines on their way to standard error: who logs hands a line over and goes on, and one thread writes what has come meanwhile, all of it at once.
//!
//! So a reader of the log that hangs holds nobody up: lines for which there is no room are lost, and counted. What else is lost is what a process that is
//! killed had not written yet, [`PAUSE`] of it. The audit log is another matter, and isn't here.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use crate::metrics;

/// For how long lines are gathered.
const PAUSE: Duration = Duration::from_millis(20);
/// What may wait to be written, in bytes.
pub(crate) const WAITING_BYTES: usize = 1 << 20;
/// How long the end of the process waits for a reader that takes nothing.
const ENDING_PATIENCE: Duration = Duration::from_secs(1);
/// What a buffer that was emptied keeps of its room.
const KEPT_BYTES: usize = 1 << 16;

/// Where lines are handed in.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    most: usize,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    lost: u64,
    /// Nothing more is gathered.
    ending: bool,
    /// The thread is at its end: who still has something to say writes it.
    ended: bool,
}

/// Writes what was handed in when it is dropped: to be held until the process ends.
#[must_use = "what is logged last is written when this is dropped"]
pub struct Writing(Lines);

/// Starts the thread that writes to `sink`.
pub(super) fn start(sink: impl Write + Send + 'static, most: usize) -> io::Result<(Lines, Writing)> {
    let shared = Shared { state: Mutex::default(), changed: Condvar::new(), most };
    let lines = Lines(Arc::new(shared));
    let writing = lines.clone();
    thread::Builder::new().name("log".to_owned()).spawn(move || writing.0.write(sink))?;
    Ok((lines.clone(), Writing(lines)))
}

impl Shared {
    fn write(&self, mut sink: impl Write) {
        let mut taken = Vec::new();
        loop {
            let lost = {
                let mut state = self.state();
                while state.waiting.is_empty() && !state.ending {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                let gathering = self.changed.wait_timeout_while(state, PAUSE, |state| !state.ending);
                (state, _) = gathering.unwrap_or_else(PoisonError::into_inner);
                if state.waiting.is_empty() && state.ending {
                    state.ended = true;
                    self.changed.notify_all();
                    return;
                }
                std::mem::swap(&mut state.waiting, &mut taken);
                std::mem::take(&mut state.lost)
            };
            _ = sink.write_all(&taken); // there is nobody to tell
            taken.clear();
            taken.shrink_to(KEPT_BYTES);
            if lost > 0 {
                warn!(lost, "lines of this log were lost: whoever reads it was too slow");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for &Lines {
    /// Takes a whole line, or none of it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        if state.ended {
            drop(state);
            io::stderr().write_all(line)?;
        } else if state.waiting.len() + line.len() > self.0.most {
            state.lost += 1;
            metrics::log_line_lost();
        } else {
            if state.waiting.is_empty() {
                self.0.changed.notify_all();
            }
            state.waiting.extend_from_slice(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = &'w Self;

    fn make_writer(&'w self) -> &'w Self {
        self
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let shared = &self.0.0;
        let mut state = shared.state();
        state.ending = true;
        shared.changed.notify_all();
        _ = shared.changed.wait_timeout_while(state, ENDING_PATIENCE, |state| !state.ended);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes as much as it is let.
    struct Slow {
        let_go: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            _ = self.let_go.recv();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_who_reads_and_what_was_handed_in_is_written() {
        let (let_go, waited_for) = mpsc::channel();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let (lines, writing) = start(Slow { let_go: waited_for, written: written.clone() }, 100).unwrap();
        for line in 0..1000 {
            (&lines).write_all(format!("line {line:03}\n").as_bytes()).unwrap();
        }
        assert!(lines.0.state().lost > 0);
        drop(let_go); // from here on it takes everything
        drop(writing);
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let whole: Vec<&str> = written.lines().collect();
        assert!(!whole.is_empty() && whole.iter().all(|line| line.len() == "line 000".len()), "{written}");
        assert_eq!(whole[0], "line 000");
    }

    #[test]
    fn all_is_written_at_the_end_where_there_is_room() {
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let (let_go, waited_for) = mpsc::channel();
        drop(let_go);
        let (lines, writing) =
            start(Slow { let_go: waited_for, written: written.clone() }, WAITING_BYTES).unwrap();
        let expected = (0..1000).fold(String::new(), |all, line| all + "line " + &line.to_string() + "\n");
        for line in expected.split_inclusive('\n') {
            (&lines).write_all(line.as_bytes()).unwrap();
        }
        drop(writing);
        assert_eq!(String::from_utf8(written.lock().unwrap().clone()).unwrap(), expected);
    }
}
