//! A log without threads: its owner has it append, tick and keep its cursors, so that a run is what its seed makes of
//! it.

use std::{ops::Range, path::PathBuf, sync::Arc, time::Instant};

use bytes::Bytes;

use super::disk::FakeDisk;
use crate::{
    AppendError, Cursor, CursorStart, LogObserver, LogOptions, LogQuery, OpenError, Record, Spool,
    compaction::Compactor,
    disk_reader::DiskReader,
    index::IndexBuilder,
    log::Log,
    scan::{PayloadUse, ScanFound, SegmentScan},
    segment::{self, DATA_START},
    spool::LogHandle,
    writer::{self, AppendQueue},
};

/// What a record takes in a segment.
pub fn frame_len(record_bytes: usize) -> u64 {
    segment::frame_len(record_bytes)
}

/// Where a record stands.
pub struct StepPlace {
    pub sequence: u64,
    pub path: PathBuf,
    pub bytes: Range<u64>,
}

/// What the threads of a log have.
pub struct SteppedLog {
    log: Log,
    inlet: Arc<AppendQueue>,
    compactor: Compactor,
    indexes: IndexBuilder,
    requests: Vec<writer::QueuedAppend>,
    results: Vec<Result<u64, AppendError>>,
    /// Something that was to be appended was not.
    has_refused: bool,
}

impl SteppedLog {
    pub fn open(
        disk: &FakeDisk,
        options: &LogOptions,
        observer: Arc<dyn LogObserver>,
    ) -> Result<(Spool, Self), OpenError> {
        let log = Log::open(Arc::new(disk.clone()), options, observer)?;
        let inlet = AppendQueue::new();
        let handle = Arc::new(LogHandle {
            inlet: inlet.clone(),
            shared: log.shared().clone(),
        });
        let stepped = Self {
            log,
            inlet,
            compactor: Compactor::default(),
            indexes: IndexBuilder::default(),
            requests: Vec::new(),
            results: Vec::new(),
            has_refused: false,
        };
        Ok((Spool { handle }, stepped))
    }

    /// Whether anything waits to be appended.
    pub fn has_work(&self) -> bool {
        self.inlet.oldest_waits().is_some()
    }

    /// Appends all that waits, as the writer's thread does.
    pub fn append(&mut self) {
        let (waiting, before) = (self.inlet.waiting() as u64, self.head());
        let now = Instant::now();
        writer::work(&mut self.log, &self.inlet, now, &mut self.requests, &mut self.results);
        self.has_refused |= self.head() - before < waiting;
    }

    /// What the writer's thread does now and then.
    pub fn tick(&mut self) {
        self.log.tick();
    }

    /// What the cursors' thread does now and then; returns how many segments were compacted.
    pub fn keep_cursors(&mut self) -> usize {
        let shared = self.log.shared().clone();
        if shared.is_failed() {
            return 0;
        }
        self.log.sync_cursors();
        if shared.is_failed() {
            return 0;
        }
        let compacted = self.compactor.run(self.log.cursors(), &shared);
        compacted.unwrap_or_else(|(path, error)| {
            shared.fail(&format!("compaction of {}: {error}", path.display()));
            0
        })
    }

    /// What the cursors' thread does now and then besides: makes some of the indexes that are missing.
    pub fn make_indexes(&mut self) {
        self.indexes.run(self.log.shared());
    }

    pub fn close(&mut self) {
        self.log.close();
        self.log.shared().close();
    }

    pub fn is_failed(&self) -> bool {
        self.log.shared().is_failed()
    }

    pub fn cursor(&mut self, name: &str, start: CursorStart) -> Result<Cursor, OpenError> {
        Ok(Cursor {
            state: self.log.cursor(name, start)?,
            shared: self.log.shared().clone(),
        })
    }

    pub fn head(&self) -> u64 {
        self.log.shared().head()
    }

    /// Whether it has no room, or had none for something: what is smaller may fit still.
    pub fn lacks_room(&self) -> bool {
        self.has_refused || self.log.lacks_room()
    }

    /// What there is and whether it has room, for people.
    pub fn segments(&self) -> String {
        let shared = self.log.shared();
        let state = shared.state();
        let sealed = shared.sealed_segments().len();
        format!(
            "{} bytes of {}, {sealed} sealed, refuses {:?}",
            state.bytes, state.bytes_max, state.refuses
        )
    }

    /// What readers have handed out and is still held.
    pub fn held_bytes(&self) -> usize {
        self.log.shared().read_budget.held()
    }

    /// All that there is at or after `from`.
    pub fn read_from(&self, from: u64) -> std::io::Result<Vec<Record>> {
        self.read(None, from)
    }

    /// All that a query asks for, and whatever else is read for it.
    pub fn find(&self, query: LogQuery) -> std::io::Result<Vec<Record>> {
        self.read(Some(query), 1)
    }

    fn read(&self, query: Option<LogQuery>, from: u64) -> std::io::Result<Vec<Record>> {
        let mut disk = DiskReader::new(self.log.shared().clone()).asking(query);
        let (mut records, mut next) = (Vec::new(), from);
        while next <= self.head() {
            let read = disk.read(next, 64, 1 << 16).map_err(|(_, error)| error)?;
            records.extend(read.records);
            next = read.through + 1;
        }
        Ok(records)
    }

    /// Whether the page of the cursors is as the cursors are.
    pub fn is_written(&self) -> bool {
        self.log.cursors().is_written(self.log.shared())
    }

    /// Where each record stands, as far as its header is whole.
    pub fn places(&self) -> Vec<StepPlace> {
        let mut places = Vec::new();
        self.scan(PayloadUse::Skipped, |place, _| places.push(place));
        places
    }

    /// Every record that is whole.
    pub fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        self.scan(PayloadUse::Copied(&|_| true), |StepPlace { sequence, .. }, bytes| {
            records.extend(bytes.map(|bytes| Record { sequence, bytes }));
        });
        records
    }

    fn scan(&self, payload: PayloadUse<'_>, mut found: impl FnMut(StepPlace, Option<Bytes>)) {
        let shared = self.log.shared();
        let mut next = 1;
        while let Some(segment) = shared.segment_for(next) {
            next = segment.last_sequence + 1;
            let path = shared.segments_dir.join(segment.file_name());
            let Ok(file) = shared.fs.open(&path) else { continue };
            let mut scan = SegmentScan::new(file, segment.seed(), DATA_START, segment.end);
            while let Ok(Some(next)) = scan.next(|_| payload) {
                let ScanFound::Frame {
                    offset,
                    header,
                    payload,
                } = next
                else {
                    continue;
                };
                let place = StepPlace {
                    sequence: header.sequence,
                    path: path.clone(),
                    bytes: offset..offset + header.frame_len(),
                };
                found(place, payload);
            }
        }
    }

    /// What the log has in memory from `from` on.
    pub fn newest_from(&self, from: u64) -> Vec<Record> {
        let mut records = Vec::new();
        self.log.shared().read_hot(from, usize::MAX, usize::MAX, &mut records);
        records
    }
}
