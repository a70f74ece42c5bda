//! The handle of an open log.

use std::{future::Future, path::Path, sync::Arc};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    AppendError, AppendReplies, Audience, CursorBacklog, LogObserver, LogOptions, LogQuery, LogReader, LogRetention,
    LogState, OpenError, RecordClass, SEGMENTS_DIR, WantedRecords,
    desk::{ReplyTicket, ReplyTo},
    file_system::{DirectoryLock, FileSystem, RealFileSystem},
    log::{Log, io_error},
    shared::LogShared,
    writer::{self, AppendQueue},
};

/// Descriptors that a spool keeps for its files, for when the process has no other left.
const SPARE_DESCRIPTORS: usize = 8;

/// The open log. Clones share it. When the last one is dropped, the log is closed as by [`Spool::close`].
#[derive(Clone)]
pub struct Spool {
    pub(super) handle: Arc<LogHandle>,
}

pub(super) struct LogHandle {
    pub inlet: Arc<AppendQueue>,
    pub shared: Arc<LogShared>,
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        self.inlet.close();
    }
}

impl Spool {
    /// Whether a spool was ever opened in `dir`.
    pub fn exists(dir: &Path) -> bool {
        dir.join(SEGMENTS_DIR).is_dir()
    }

    /// Takes the directory for this process and recovers what is in it.
    pub fn open(options: LogOptions, observer: Arc<dyn LogObserver>) -> Result<Self, OpenError> {
        Self::open_retaining(options, None, observer)
    }

    /// Like [`Spool::open`], for one that keeps for a while what every cursor has settled.
    pub fn open_retaining(
        options: LogOptions,
        retention: Option<LogRetention>,
        observer: Arc<dyn LogObserver>,
    ) -> Result<Self, OpenError> {
        let fs = Arc::new(RealFileSystem::with_spares(SPARE_DESCRIPTORS));
        Self::open_retaining_on(fs, options, retention, observer, "forebay-spool")
    }

    /// Like [`Spool::open`], for a spool beside another one: with a name for the writer's thread, and without
    /// descriptors of its own for when the process has no other left.
    pub fn open_named(
        options: LogOptions,
        observer: Arc<dyn LogObserver>,
        thread_name: &str,
    ) -> Result<Self, OpenError> {
        let fs = Arc::new(RealFileSystem::with_spares(0));
        Self::open_on(fs, options, observer, thread_name)
    }

    pub(super) fn open_on(
        fs: Arc<dyn FileSystem>,
        options: LogOptions,
        observer: Arc<dyn LogObserver>,
        thread_name: &str,
    ) -> Result<Self, OpenError> {
        Self::open_retaining_on(fs, options, None, observer, thread_name)
    }

    fn open_retaining_on(
        fs: Arc<dyn FileSystem>,
        options: LogOptions,
        retention: Option<LogRetention>,
        observer: Arc<dyn LogObserver>,
        thread_name: &str,
    ) -> Result<Self, OpenError> {
        let dir = &options.dir;
        fs.make_dir(dir).map_err(|source| io_error(dir, source))?;
        let path = dir.join("LOCK");
        let lock = match fs.lock(&path, &holder()).map_err(|source| io_error(&path, source))? {
            DirectoryLock::Taken(lock) => lock,
            DirectoryLock::Held(holder) => {
                return Err(OpenError::Held {
                    dir: dir.clone(),
                    holder,
                });
            }
        };
        let log = Log::open(fs, &options, observer)?;
        let shared = log.shared().clone();
        shared.retain(retention);
        let inlet = writer::start(log, lock, thread_name).map_err(|source| io_error(dir, source))?;
        let handle = Arc::new(LogHandle { inlet, shared });
        Ok(Self { handle })
    }

    /// Appends a record and returns its sequence number once it is durable.
    ///
    /// It waits in the queue from the call on: dropping the future does not take the record back.
    pub fn append(
        &self,
        record: Bytes,
        class: RecordClass,
    ) -> impl Future<Output = Result<u64, AppendError>> + Send + 'static {
        let (sender, receiver) = oneshot::channel();
        let pushed = self.handle.inlet.push(record, class, None, || ReplyTo::One(sender));
        async move {
            pushed?;
            receiver.await.unwrap_or(Err(AppendError::Failed))
        }
    }

    /// Like [`Spool::append`], for one who appends much: the answer arrives at `desk`, under `ticket`. `Err`: the
    /// record was not taken, and no answer comes. The cursors of the `audience` pin it until they settle it, and refuse
    /// it where they may pin no more; for all others it is settled.
    pub fn append_for(
        &self,
        desk: &Arc<AppendReplies>,
        ticket: u64,
        record: Bytes,
        class: RecordClass,
        audience: Audience,
    ) -> Result<(), AppendError> {
        let asker = || ReplyTo::Desk(ReplyTicket::new(desk.clone(), ticket));
        self.handle.inlet.push(record, class, Some(audience), asker)
    }

    /// Reads from the first record at or after `from`.
    pub fn reader(&self, from: u64) -> LogReader {
        self.reader_of(from, Arc::new(|_| true))
    }

    /// Reads what is `wanted` from the first record at or after `from`: of what is read from disk, nothing else takes
    /// memory or comes back.
    pub fn reader_of(&self, from: u64, wanted: WantedRecords) -> LogReader {
        LogReader::new(self.handle.shared.clone(), from, wanted)
    }

    /// Likewise, of what a query asks for: what a segment's index knows to be something else is not read. What is
    /// `wanted` must be what the query asks for, for an index knows less.
    pub fn reader_of_query(&self, from: u64, wanted: WantedRecords, query: LogQuery) -> LogReader {
        self.reader_of(from, wanted).asking(query)
    }

    /// What the log has behind `position`. Numbers are not always in a row, so this is counted and not subtracted.
    pub fn backlog(&self, position: u64) -> CursorBacklog {
        self.handle.shared.backlog(position, &[])
    }

    /// The last record of so many segments behind `position` that they take `bytes` on disk together: at least one, and
    /// never the newest.
    pub fn number_after(&self, position: u64, bytes: u64) -> u64 {
        self.handle.shared.number_after(position, bytes)
    }

    /// From here on the log may take so much of the disk; where it takes more, nothing is appended until it takes less.
    /// The size of its segments stays. Waits for the disk.
    pub fn limit(&self, bytes_max: u64) {
        self.handle.inlet.limit(bytes_max);
    }

    /// From here on this is kept of what every cursor has settled. Waits for nothing: what is to go goes soon.
    pub fn retain(&self, retention: Option<LogRetention>) {
        self.handle.shared.retain(retention);
    }

    /// From here on all readers together may hold so much of what they have read.
    pub fn limit_readers(&self, bytes_max: usize) {
        self.handle.shared.limit_readers(bytes_max);
    }

    pub fn state(&self) -> LogState {
        let mut state = self.handle.shared.state();
        state.refuses = state.refuses.or_else(|| self.handle.inlet.refuses());
        state.append_waits = self.handle.inlet.oldest_waits();
        state
    }

    /// Resolves when a write or an fsync failed, with the reason. The process must end.
    pub async fn failed(&self) -> String {
        let mut failed = self.handle.shared.watch_failed();
        let reason = failed.wait_for(Option::is_some).await;
        let reason = reason.expect("the sender is kept by the handle");
        reason.clone().unwrap_or_default()
    }

    /// Makes the cursors durable, seals the log and stops the writer. What waits is appended before.
    pub async fn close(&self) {
        self.handle.inlet.close();
        let mut closed = self.handle.shared.watch_closed();
        closed
            .wait_for(|closed| *closed)
            .await
            .expect("the sender is kept by the handle");
    }
}

/// What the lock file says about this process.
pub(super) fn holder() -> String {
    let host = hostname::get().unwrap_or_default();
    format!("pid {} on {}", std::process::id(), host.to_string_lossy())
}
