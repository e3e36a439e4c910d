//! The log's lines on their way to standard error: who logs hands a line over and goes on, and one thread writes what has come meanwhile, all of it at once.
//!
//! So a reader of the log that hangs holds nobody up: lines for which there is no room are lost, and counted, as are those that can't be written. What else is
//! lost is what a process that is killed, or aborts, had not written yet: [`PAUSE`] of it where the reader keeps up. The audit log is another matter, and isn't here.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use crate::metrics;

/// For how long lines are gathered.
const PAUSE: Duration = Duration::from_millis(20);
/// What may wait to be written, in bytes; as much again may be with the thread.
pub(crate) const WAITING_BYTES: usize = 1 << 20;
/// How long the end of the process waits for a reader that takes nothing.
pub(crate) const ENDING_PATIENCE: Duration = Duration::from_secs(1);
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
        let mut torn = false;
        loop {
            let lost = {
                let mut state = self.state();
                while state.waiting.is_empty() && !state.ending {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                let gathering = |state: &mut State| !state.ending && state.waiting.len() < self.most / 4;
                let gathered = self.changed.wait_timeout_while(state, PAUSE, gathering);
                (state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
                if state.waiting.is_empty() && state.ending {
                    state.ended = true;
                    self.changed.notify_all();
                    return;
                }
                std::mem::swap(&mut state.waiting, &mut taken);
                std::mem::take(&mut state.lost)
            };
            // Now, while there is room: it comes right after the last line before the gap.
            if lost > 0 {
                warn!(lost, "lines of this log were lost: whoever reads it was too slow");
            }
            if torn {
                taken.insert(0, b'\n');
            }
            let written = write_all(&mut sink, &taken);
            torn = taken[..written].last().map_or(torn, |last| *last != b'\n');
            metrics::log_lines_lost(taken[written..].iter().map(|byte| u64::from(*byte == b'\n')).sum());
            taken.clear();
            taken.shrink_to(KEPT_BYTES);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all of `bytes`, or up to where it can't: returns how many. Whoever set the descriptor not to block, which all who have it share, is waited for.
fn write_all(sink: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match sink.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => break,
        }
    }
    written
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
            metrics::log_lines_lost(1);
        } else {
            let before = state.waiting.len();
            state.waiting.extend_from_slice(line);
            let enough = self.0.most / 4;
            if before == 0 || before < enough && state.waiting.len() >= enough {
                self.0.changed.notify_all();
            }
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
        asked: mpsc::Sender<()>,
        let_go: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            _ = self.asked.send(());
            _ = self.let_go.recv();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_who_reads_and_what_there_is_room_for_is_written() {
        let (asked, asks) = mpsc::channel();
        let (let_go, waited_for) = mpsc::channel();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let (lines, writing) =
            start(Slow { asked, let_go: waited_for, written: written.clone() }, 100).unwrap();
        (&lines).write_all(b"before\n").unwrap();
        asks.recv().unwrap(); // from here on nothing is taken
        for line in 0..1000 {
            (&lines).write_all(format!("line {line:03}\n").as_bytes()).unwrap();
        }
        assert_eq!(lines.0.state().lost, 989);
        drop(let_go); // and now everything
        drop(writing);
        let expected = (0..11).fold("before\n".to_owned(), |all, line| all + &format!("line {line:03}\n"));
        assert_eq!(String::from_utf8(written.lock().unwrap().clone()).unwrap(), expected);
    }

    /// Answers as it was told, one after the other.
    struct Scripted(Vec<io::Result<usize>>);

    impl Write for Scripted {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.0.remove(0)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn it_is_known_how_far_it_came() {
        let fails = |kind: io::ErrorKind| Err(io::Error::from(kind));
        let (interrupted, full) = (|| fails(io::ErrorKind::Interrupted), || fails(io::ErrorKind::WouldBlock));
        let mut busy = Scripted(vec![Ok(3), interrupted(), full(), Ok(2), full(), Ok(1)]);
        assert_eq!((write_all(&mut busy, b"abcdef"), busy.0.len()), (6, 0));
        let mut broken = Scripted(vec![Ok(4), fails(io::ErrorKind::StorageFull)]);
        assert_eq!(write_all(&mut broken, b"abcdef"), 4);
    }

    #[test]
    fn all_is_written_at_the_end_where_there_is_room() {
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let ((asked, _), (_, waited_for)) = (mpsc::channel(), mpsc::channel());
        let (lines, writing) =
            start(Slow { asked, let_go: waited_for, written: written.clone() }, WAITING_BYTES).unwrap();
        let expected = (0..1000).fold(String::new(), |all, line| all + "line " + &line.to_string() + "\n");
        for line in expected.split_inclusive('\n') {
            (&lines).write_all(line.as_bytes()).unwrap();
        }
        drop(writing);
        assert_eq!(String::from_utf8(written.lock().unwrap().clone()).unwrap(), expected);
    }
}
