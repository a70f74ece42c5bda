//! Log lines on their way to stderr: a bounded queue, and a thread that writes.
//!
//! Nobody else waits for whoever reads the log, or for the disk that it is on. A line for which there is no room, or
//! that cannot be written, is dropped and counted; the next one is tried again, for a reader may come back and a disk
//! be cleared.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, poll};

/// All lines that wait, with [`LINE_BYTES_EXTRA`] for each.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// What a line takes in memory beside its text.
const LINE_BYTES_EXTRA: usize = 64;

/// The lines that wait.
#[derive(Default)]
pub(super) struct LogQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct QueueState {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// A line was taken and is not written yet.
    is_writing: bool,
}

impl LogQueue {
    /// A queue whose lines a thread of its own writes to stderr.
    pub fn to_stderr() -> io::Result<Arc<Self>> {
        // With a descriptor of its own: the lock of `std::io::stderr` would be held for as long as a write blocks.
        let stderr = StandardError(File::from(io::stderr().as_fd().try_clone_to_owned()?));
        let queue = Arc::new(Self::default());
        let writing = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("forebay-log".to_owned())
            .spawn(move || writing.write_to(stderr))?;
        Ok(queue)
    }

    /// Takes a line, with its end; drops it where there is no room. Never waits.
    pub fn push(&self, line: &[u8]) {
        let bytes = line.len() + LINE_BYTES_EXTRA;
        let mut state = self.state.lock();
        if state.bytes + bytes > QUEUE_BYTES_MAX {
            drop(state);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.bytes += bytes;
        state.lines.push_back(line.to_vec());
        self.changed.notify_all();
    }

    /// Lines that nobody will read.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every line is written or dropped, or the time is over.
    pub fn flush(&self, deadline: Duration) {
        let deadline = Instant::now() + deadline;
        let mut state = self.state.lock();
        while (state.is_writing || !state.lines.is_empty())
            && !self.changed.wait_until(&mut state, deadline).timed_out()
        {}
    }

    /// Writes line by line, for ever.
    fn write_to(&self, out: impl Write) {
        let mut out = LineWriter { out, is_torn: false };
        let mut reported = 0;
        loop {
            let line = self.next_line();
            let result = out.write(&line);
            if result.is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            let has_caught_up = self.written();
            let dropped = self.dropped();
            if result.is_ok() && has_caught_up && dropped > reported {
                tracing::warn!(
                    lines = dropped - reported,
                    "lines of the log were dropped: whoever reads it was too slow, or its disk was full"
                );
                reported = dropped;
            }
        }
    }

    fn next_line(&self) -> Vec<u8> {
        let mut state = self.state.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len() + LINE_BYTES_EXTRA;
                state.is_writing = true;
                return line;
            }
            self.changed.wait(&mut state);
        }
    }

    /// The line that was taken last is dealt with. Returns whether there is no other.
    fn written(&self) -> bool {
        let mut state = self.state.lock();
        state.is_writing = false;
        self.changed.notify_all();
        state.lines.is_empty()
    }
}

/// Writes whole lines: one that was cut off does not run into the next.
struct LineWriter<W> {
    out: W,
    /// A part of a line was written, without its end.
    is_torn: bool,
}

impl<W: Write> LineWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.out.write_all(b"\n")?;
            self.is_torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    rest = &rest[bytes..];
                    self.is_torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The process's stderr, waited for also where somebody made it non-blocking.
struct StandardError(File);

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// What each write does, one after the other; it blocks until there is the next.
    struct Scripted {
        results: Receiver<io::Result<usize>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let bytes_max = self.results.recv().unwrap_or(Err(io::ErrorKind::BrokenPipe.into()))?;
            let bytes = &bytes[..bytes.len().min(bytes_max)];
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn scripted() -> (Arc<LogQueue>, Sender<io::Result<usize>>, Receiver<Vec<u8>>) {
        let (results, result) = channel();
        let (written, reader) = channel();
        let queue = Arc::new(LogQueue::default());
        let writing = queue.clone();
        let out = Scripted {
            results: result,
            written,
        };
        std::thread::spawn(move || writing.write_to(out));
        (queue, results, reader)
    }

    #[test]
    fn a_writer_that_blocks_holds_up_nobody_and_what_has_no_room_is_counted() {
        let (queue, results, reader) = scripted();
        let line = [b'x'; 1024];
        let room = QUEUE_BYTES_MAX / (line.len() + LINE_BYTES_EXTRA);
        let began = Instant::now();
        for _ in 0..2 * room {
            queue.push(&line);
        }
        queue.flush(Duration::from_millis(10));
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        // The thread that writes may have taken one out of the queue.
        let dropped = queue.dropped() as usize;
        assert!((room - 1..=room).contains(&dropped), "{dropped} of {room}");
        for _ in 0..2 * room - dropped {
            results.send(Ok(usize::MAX)).unwrap();
        }
        queue.flush(SOON);
        assert_eq!(reader.try_iter().count(), 2 * room - dropped);
    }

    #[test]
    fn a_write_that_fails_drops_its_line_and_the_next_one_begins_at_a_line() {
        let (queue, results, reader) = scripted();
        for line in ["first\n", "second\n", "third\n"] {
            queue.push(line.as_bytes());
        }
        results.send(Ok(3)).unwrap();
        results.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        results.send(Err(io::ErrorKind::Interrupted.into())).unwrap();
        for _ in 0..3 {
            results.send(Ok(usize::MAX)).unwrap();
        }
        queue.flush(SOON);
        let written: Vec<u8> = reader.try_iter().flatten().collect();
        assert_eq!(String::from_utf8(written).unwrap(), "fir\nsecond\nthird\n");
        assert_eq!(queue.dropped(), 1);
        drop(results);
        queue.push(b"nobody reads\n");
        queue.flush(SOON);
        assert_eq!(queue.dropped(), 2);
    }
}
