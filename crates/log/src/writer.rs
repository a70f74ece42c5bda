//! The thread that owns the log. Requests that wait share one write and one sync.

use std::{
    io, mem,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::{
    AppendError, Audience, CursorStart, OpenError, RecordClass,
    compaction::Compactor,
    cursors::{CursorState, LogCursors},
    desk::{AppendReply, ReplyDelivery, ReplyTo},
    index::IndexBuilder,
    log::{self, Log},
    shared::LogShared,
};

/// Records that may wait for the disk, and those being written.
const WAITING_RECORDS_MAX: usize = 65_536;
/// Their bytes. One record may always wait.
const WAITING_BYTES_MAX: usize = 128 << 20;
/// How often the writer lets others run before it takes a batch.
const YIELDS_MAX: u32 = 8;
/// How often segments are deleted and damage is set aside; and how often cursors are made durable, by a thread of their
/// own.
const TICK_INTERVAL: Duration = Duration::from_millis(500);

pub(super) struct QueuedAppend {
    record: Bytes,
    class: RecordClass,
    audience: Option<Audience>,
    asker: ReplyTo,
}

/// What is asked of the writer besides appending.
type WriterCommand = Box<dyn FnOnce(&mut Log) + Send>;

#[derive(Default)]
struct WriterQueue {
    requests: Vec<QueuedAppend>,
    commands: Vec<WriterCommand>,
    /// Waiting or being written.
    records: usize,
    bytes: usize,
    /// Since when the oldest of `requests` waits, and the oldest of those that are being written has waited.
    waiting_since: Option<Instant>,
    writing_since: Option<Instant>,
    /// Nothing more is taken: the writer ends when the queue is empty.
    closing: bool,
    /// The writer has ended, and this is why.
    ended: Option<AppendError>,
}

impl WriterQueue {
    fn refuses(&self, bytes: usize) -> Option<AppendError> {
        let busy = self.records >= WAITING_RECORDS_MAX || (self.records > 0 && self.bytes + bytes > WAITING_BYTES_MAX);
        match self.ended {
            None if self.closing => Some(AppendError::Closed),
            None if busy => Some(AppendError::Busy),
            ended => ended,
        }
    }
}

/// What the writer waits on.
pub(super) struct AppendQueue {
    queue: Mutex<WriterQueue>,
    wake: Condvar,
}

impl AppendQueue {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
        })
    }

    /// How many records wait.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn waiting(&self) -> usize {
        self.queue.lock().requests.len()
    }

    /// Queues a record; its answer goes to `asker`, which is only made when it is taken.
    pub(super) fn push(
        &self,
        record: Bytes,
        class: RecordClass,
        audience: Option<Audience>,
        asker: impl FnOnce() -> ReplyTo,
    ) -> Result<(), AppendError> {
        let mut queue = self.queue.lock();
        if let Some(refused) = queue.refuses(record.len()) {
            return Err(refused);
        }
        queue.records += 1;
        queue.bytes += record.len();
        if queue.requests.is_empty() {
            queue.waiting_since = Some(Instant::now());
        }
        queue.requests.push(QueuedAppend {
            record,
            class,
            audience,
            asker: asker(),
        });
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    /// What an append would be answered now, as far as the queue goes.
    pub(super) fn refuses(&self) -> Option<AppendError> {
        self.queue.lock().refuses(0)
    }

    /// How long the oldest append that has no answer has waited.
    pub(super) fn oldest_waits(&self) -> Option<Duration> {
        let queue = self.queue.lock();
        let since = queue.writing_since.or(queue.waiting_since)?;
        Some(since.elapsed())
    }

    /// Has the writer do something and waits for it; `None` when the writer has ended.
    pub(super) fn command<T: Send + 'static>(&self, run: impl FnOnce(&mut Log) -> T + Send + 'static) -> Option<T> {
        let (answer, receiver) = mpsc::sync_channel(1);
        let mut queue = self.queue.lock();
        if queue.ended.is_some() {
            return None;
        }
        queue.commands.push(Box::new(move |log| {
            // Whoever asked waits for it.
            let _ = answer.send(run(log));
        }));
        drop(queue);
        self.wake.notify_one();
        receiver.recv().ok()
    }

    pub(super) fn cursor_names(&self) -> Vec<String> {
        self.command(|log| log.cursor_names()).unwrap_or_default()
    }

    pub(super) fn keep_cursors(&self) -> bool {
        self.command(Log::keep_cursors).unwrap_or(false)
    }

    pub(super) fn cursor(&self, name: &str, start: CursorStart) -> Result<Arc<CursorState>, OpenError> {
        let name = name.to_owned();
        self.command(move |log| log.cursor(&name, start)).unwrap_or_else(ended)
    }

    pub(super) fn open_cursor(&self, name: &str, start: CursorStart) -> Result<Arc<CursorState>, OpenError> {
        let name = name.to_owned();
        self.command(move |log| log.open_cursor(&name, start))
            .unwrap_or_else(ended)
    }

    pub(super) fn follow(&self, cursor: Arc<CursorState>) -> Result<(), OpenError> {
        let followed = self.command(move |log| log.follow(&cursor));
        followed.map_or_else(ended, Ok)
    }

    pub(super) fn last_number(&self) -> Result<u64, OpenError> {
        self.command(|log| log.last_number()).map_or_else(ended, Ok)
    }

    pub(super) fn limit(&self, bytes_max: u64) {
        // Of a log that has ended there is nothing to limit.
        let _ = self.command(move |log| log.limit(bytes_max));
    }

    pub(super) fn remove_cursor(&self, name: &str) -> Result<(), OpenError> {
        let name = name.to_owned();
        self.command(move |log| log.remove_cursor(&name)).unwrap_or_else(ended)
    }

    /// Takes nothing more; the writer ends once it is through.
    pub(super) fn close(&self) {
        self.queue.lock().closing = true;
        self.wake.notify_one();
    }
}

fn ended<T>() -> Result<T, OpenError> {
    Err(OpenError::Format("the spool is closed".to_owned()))
}

/// Starts the writer's thread. `lock` is held until it ends.
pub(super) fn start(log: Log, lock: Box<dyn Send>, thread_name: &str) -> io::Result<Arc<AppendQueue>> {
    let inlet = AppendQueue::new();
    let ending = WriterEnding {
        inlet: inlet.clone(),
        shared: log.shared().clone(),
    };
    let keeper = CursorKeeper::start(log.cursors().clone(), log.shared().clone())?;
    thread::Builder::new().name(thread_name.to_owned()).spawn(move || {
        // Dropped in the reverse order: who learns that the writer has ended can open the directory again.
        let ending = ending;
        let _lock = lock;
        let _keeper = keeper;
        run(log, &ending.inlet);
    })?;
    Ok(inlet)
}

/// The thread that makes the cursors durable, so that no append waits for that. Ends when this is dropped.
struct CursorKeeper {
    ending: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<thread::JoinHandle<()>>,
}

impl CursorKeeper {
    fn start(cursors: Arc<LogCursors>, shared: Arc<LogShared>) -> io::Result<Self> {
        let ending = Arc::new((Mutex::new(false), Condvar::new()));
        let told = ending.clone();
        let keep = move || {
            let _alive = MustLive(shared.clone());
            let (ended, wake) = &*told;
            let mut compactor = Compactor::default();
            let mut indexes = IndexBuilder::default();
            let mut ended = ended.lock();
            while !*ended && !shared.is_failed() {
                if !wake.wait_for(&mut ended, TICK_INTERVAL).timed_out() {
                    continue;
                }
                parking_lot::MutexGuard::unlocked(&mut ended, || {
                    if let Err((path, error)) = cursors.sync(&shared) {
                        return shared.fail(&format!("cursors {}: {error}", path.display()));
                    }
                    if let Err((path, error)) = compactor.run(&cursors, &shared) {
                        return shared.fail(&format!("compaction of {}: {error}", path.display()));
                    }
                    indexes.run(&shared);
                });
            }
        };
        let thread = thread::Builder::new().name("forebay-cursors".to_owned()).spawn(keep)?;
        Ok(Self {
            ending,
            thread: Some(thread),
        })
    }
}

/// Fails the log when the thread that holds this panics: without it nothing is ever deleted.
struct MustLive(Arc<LogShared>);

impl Drop for MustLive {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail("the thread of the cursors panicked");
        }
    }
}

impl Drop for CursorKeeper {
    fn drop(&mut self) {
        *self.ending.0.lock() = true;
        self.ending.1.notify_one();
        if let Some(thread) = self.thread.take() {
            // One that panicked has failed the log.
            let _ = thread.join();
        }
    }
}

fn run(mut log: Log, inlet: &AppendQueue) {
    let mut next_tick = Instant::now() + TICK_INTERVAL;
    let mut requests = Vec::new();
    let mut results = Vec::new();
    loop {
        let closing = work(&mut log, inlet, next_tick, &mut requests, &mut results);
        if log.shared().is_failed() {
            return;
        }
        if closing {
            return log.close();
        }
        if Instant::now() >= next_tick {
            log.tick();
            next_tick = Instant::now() + TICK_INTERVAL;
        }
    }
}

/// Waits until there is something to do, or the time comes, and does it; returns whether the log is to be closed.
pub(super) fn work(
    log: &mut Log,
    inlet: &AppendQueue,
    until: Instant,
    requests: &mut Vec<QueuedAppend>,
    results: &mut Vec<AppendReply>,
) -> bool {
    let (commands, closing) = wait(inlet, until, requests);
    let (records, bytes) = append(log, requests, results);
    if records > 0 {
        let mut queue = inlet.queue.lock();
        queue.records -= records;
        queue.bytes -= bytes;
        queue.writing_since = None;
    }
    for command in commands {
        command(log);
    }
    closing
}

/// Waits until there is something to do, or the time comes, and takes all that waits.
///
/// Threads that are about to bring a request run first, for as long as that brings more: on busy cores the writer would
/// otherwise be woken by the first of many, and sync for it alone. On idle cores a yield returns at once.
fn wait(inlet: &AppendQueue, until: Instant, requests: &mut Vec<QueuedAppend>) -> (Vec<WriterCommand>, bool) {
    let mut queue = inlet.queue.lock();
    while queue.requests.is_empty() && queue.commands.is_empty() && !queue.closing {
        if inlet.wake.wait_until(&mut queue, until).timed_out() {
            break;
        }
    }
    for _ in 0..YIELDS_MAX {
        let before = queue.requests.len();
        if before == 0 || queue.closing {
            break;
        }
        parking_lot::MutexGuard::unlocked(&mut queue, thread::yield_now);
        if queue.requests.len() == before {
            break;
        }
    }
    mem::swap(&mut queue.requests, requests);
    queue.writing_since = queue.waiting_since.take();
    (mem::take(&mut queue.commands), queue.closing)
}

/// Appends the requests and answers them; returns how many there were, and their bytes.
fn append(log: &mut Log, requests: &mut Vec<QueuedAppend>, results: &mut Vec<AppendReply>) -> (usize, usize) {
    if requests.is_empty() {
        return (0, 0);
    }
    let batch: Vec<_> = requests
        .iter()
        .map(|request| log::AppendRequest {
            record: &request.record,
            class: request.class,
            audience: request.audience,
        })
        .collect();
    log.append_batch(&batch, results);
    let counted = (
        requests.len(),
        requests.iter().map(|request| request.record.len()).sum(),
    );
    let mut answers = ReplyDelivery::default();
    for (request, result) in requests.drain(..).zip(results.drain(..)) {
        answers.give(request.asker, result);
    }
    counted
}

/// Ends the queue with the thread, also when it panics: nobody waits for a writer that is gone.
struct WriterEnding {
    inlet: Arc<AppendQueue>,
    shared: Arc<LogShared>,
}

impl Drop for WriterEnding {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.fail("the spool's writer panicked");
        }
        let ended = match self.shared.is_failed() {
            true => AppendError::Failed,
            false => AppendError::Closed,
        };
        let mut queue = self.inlet.queue.lock();
        queue.ended = Some(ended);
        let left = (mem::take(&mut queue.requests), mem::take(&mut queue.commands));
        drop(queue);
        let mut answers = ReplyDelivery::default();
        for request in left.0 {
            answers.give(request.asker, Err(ended));
        }
        self.shared.close();
    }
}
