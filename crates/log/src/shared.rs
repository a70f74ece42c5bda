//! What the writer tells the readers: which segments there are, how far they are durable, and the newest records.

use std::{
    collections::{HashMap, VecDeque},
    ops::RangeInclusive,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    AppendError, CursorBacklog, LogOptions, LogState, Record,
    budget::{RECORD_OVERHEAD_BYTES, ReadBudget},
    compaction::CompactedSegment,
    cursors::PageFacts,
    damage::{DamageFound, DamageReports, DamagedPlace},
    file_system::FileSystem,
    index::SegmentIndexes,
    retention::{LogRetention, RetainedRecords},
    segment::{DATA_START, SegmentSeed, file_name},
};

/// A segment, as far as it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub id: u64,
    /// The log's part of the seed of its checksums.
    pub log_seed: u32,
    pub first_sequence: u64,
    /// One below the first while there is no record.
    pub last_sequence: u64,
    pub records: u64,
    pub bulk_bytes: u64,
    /// Where the last durable frame ends.
    pub end: u64,
    /// What the file takes on disk.
    pub disk_bytes: u64,
}

impl Segment {
    pub(super) fn empty(id: u64, log_seed: u32, first_sequence: u64, disk_bytes: u64) -> Self {
        Self {
            id,
            log_seed,
            first_sequence,
            last_sequence: first_sequence - 1,
            records: 0,
            bulk_bytes: 0,
            end: DATA_START,
            disk_bytes,
        }
    }

    pub(super) fn seed(&self) -> SegmentSeed {
        SegmentSeed {
            segment: self.id,
            log: self.log_seed,
        }
    }

    pub(super) fn file_name(&self) -> String {
        file_name(self.id, self.first_sequence)
    }
}

impl Record {
    fn bytes_in_memory(&self) -> usize {
        self.bytes.len() + RECORD_OVERHEAD_BYTES
    }
}

/// The newest records, all durable, in a row.
struct HotRecords {
    records: VecDeque<Record>,
    bytes: usize,
    bytes_max: usize,
}

/// What became of a segment by compaction.
#[derive(Default)]
struct CompactionLock {
    generation: u32,
    /// The writer has yet to hear of it.
    made: Option<CompactedSegment>,
}

/// The disk works for the log as long as this is there.
pub(super) struct DiskWork<'a> {
    shared: &'a LogShared,
}

impl Drop for DiskWork<'_> {
    fn drop(&mut self) {
        *self.shared.disk_works.lock() = None;
    }
}

/// Shared by the log, its readers and its cursors.
pub(super) struct LogShared {
    pub fs: Arc<dyn FileSystem>,
    pub segments_dir: PathBuf,
    segments: Mutex<Vec<Segment>>,
    hot: Mutex<HotRecords>,
    head: watch::Sender<u64>,
    state: Mutex<LogState>,
    damage: Mutex<DamageFound>,
    compactions: Mutex<HashMap<u64, CompactionLock>>,
    /// What stays of what is settled; `None`: nothing.
    retention: Mutex<Option<LogRetention>>,
    pub indexes: SegmentIndexes,
    /// Settled, and retained in segments that cannot be deleted yet.
    retained_between: AtomicU64,
    /// What readers have handed out.
    pub read_budget: Arc<ReadBudget>,
    /// When the write or sync that is under way began.
    disk_works: Mutex<Option<Instant>>,
    failed: watch::Sender<Option<String>>,
    /// Nothing more will be appended.
    closed: watch::Sender<bool>,
}

impl LogShared {
    pub(super) fn new(
        fs: Arc<dyn FileSystem>,
        segments_dir: PathBuf,
        segments: Vec<Segment>,
        head: u64,
        options: &LogOptions,
    ) -> Self {
        Self {
            fs,
            segments_dir,
            segments: Mutex::new(segments),
            hot: Mutex::new(HotRecords {
                records: VecDeque::new(),
                bytes: 0,
                bytes_max: options.hot_bytes_max,
            }),
            head: watch::Sender::new(head),
            state: Mutex::new(LogState {
                records: 0,
                bytes: 0,
                bytes_max: options.bytes_max,
                head,
                refuses: None,
                append_waits: None,
                disk_works: None,
                retained: RetainedRecords::default(),
            }),
            damage: Mutex::default(),
            compactions: Mutex::default(),
            retention: Mutex::default(),
            indexes: SegmentIndexes::new(&options.dir),
            retained_between: AtomicU64::new(0),
            read_budget: Arc::new(ReadBudget::new(options.readers_bytes_max)),
            disk_works: Mutex::default(),
            failed: watch::Sender::new(None),
            closed: watch::Sender::new(false),
        }
    }

    pub(super) fn head(&self) -> u64 {
        *self.head.borrow()
    }

    pub(super) fn watch_head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    pub(super) fn watch_failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    pub(super) fn watch_closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// From here until what is returned is dropped the disk works for the log.
    pub(super) fn disk_works(&self) -> DiskWork<'_> {
        *self.disk_works.lock() = Some(Instant::now());
        DiskWork { shared: self }
    }

    /// Marks the spool as failed. The first reason stays.
    pub(super) fn fail(&self, reason: &str) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                *failed = Some(reason.to_owned());
            }
            first
        });
    }

    pub(super) fn is_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(super) fn state(&self) -> LogState {
        let mut state = *self.state.lock();
        state.disk_works = self.disk_works.lock().map(|since| since.elapsed());
        if self.is_failed() {
            state.refuses = Some(AppendError::Failed);
        } else if *self.closed.borrow() {
            state.refuses = Some(AppendError::Closed);
        }
        state
    }

    pub(super) fn limit(&self, bytes_max: u64) {
        self.state.lock().bytes_max = bytes_max;
    }

    pub(super) fn limit_readers(&self, bytes_max: usize) {
        self.read_budget.limit(bytes_max);
    }

    /// Tells what the segments are now, and whether there is room.
    pub(super) fn publish_segments(&self, segments: &[Segment], refuses: Option<AppendError>) {
        let mut state = self.state.lock();
        state.records = segments.iter().map(|segment| segment.records).sum();
        state.bytes = segments.iter().map(|segment| segment.disk_bytes).sum();
        state.refuses = refuses;
        drop(state);
        let mut shared = self.segments.lock();
        shared.clear();
        shared.extend_from_slice(segments);
    }

    /// Tells how far the newest segment is durable now.
    pub(super) fn publish_appended(&self, newest: Segment, records: u64) {
        self.state.lock().records += records;
        if let Some(last) = self.segments.lock().last_mut() {
            *last = newest;
        }
    }

    /// Makes records visible, in order. They are durable and their segment was published.
    pub(super) fn publish_records(&self, records: impl Iterator<Item = Record>) {
        let mut hot = self.hot.lock();
        let mut head = 0;
        for record in records {
            head = record.sequence;
            if hot.records.back().is_some_and(|newest| newest.sequence + 1 != head) {
                hot.records.clear();
                hot.bytes = 0;
            }
            hot.bytes += record.bytes_in_memory();
            hot.records.push_back(record);
        }
        while hot.bytes > hot.bytes_max {
            let Some(oldest) = hot.records.pop_front() else { break };
            hot.bytes -= oldest.bytes_in_memory();
        }
        drop(hot);
        if head > 0 {
            self.state.lock().head = head;
            self.head.send_replace(head);
        }
    }

    /// Lets go of the records up to `settled`, which nobody will read again.
    pub(super) fn forget_records(&self, settled: u64) {
        let mut hot = self.hot.lock();
        let passed = hot.records.partition_point(|record| record.sequence <= settled);
        let forgotten: Vec<Record> = hot.records.drain(..passed).collect();
        hot.bytes -= forgotten.iter().map(Record::bytes_in_memory).sum::<usize>();
        // Freed when others can read again.
        drop(hot);
    }

    /// Copies records from `from` on out of memory; `false` when they are not there.
    pub(super) fn read_hot(&self, from: u64, records_max: usize, bytes_max: usize, out: &mut Vec<Record>) -> bool {
        let hot = self.hot.lock();
        let Some(first) = hot.records.front().map(|record| record.sequence) else {
            return false;
        };
        if from < first || from - first >= hot.records.len() as u64 {
            return false;
        }
        let mut bytes = 0;
        for (taken, record) in hot
            .records
            .range((from - first) as usize..)
            .take(records_max.max(1))
            .enumerate()
        {
            bytes += record.bytes.len();
            if taken > 0 && bytes > bytes_max {
                break;
            }
            out.push(record.clone());
        }
        true
    }

    /// What the page of the cursors says of the log, when the lowest of them is at `lowest`.
    pub(super) fn facts(&self, lowest: Option<u64>) -> PageFacts {
        let segments = self.segments.lock();
        let Some(newest) = segments.last() else {
            return PageFacts::default();
        };
        let wanted = |segment: &&Segment| lowest.is_none_or(|lowest| segment.last_sequence > lowest);
        PageFacts {
            last_sequence: newest.last_sequence,
            oldest_segment: segments.iter().find(wanted).map_or(newest.id + 1, |segment| segment.id),
            newest_segment: newest.id,
        }
    }

    /// The first segment that has, or had, a record at or after `sequence`.
    pub(super) fn segment_for(&self, sequence: u64) -> Option<Segment> {
        let segments = self.segments.lock();
        let at = segments.partition_point(|segment| segment.last_sequence < sequence);
        segments.get(at).copied()
    }

    /// Notes damage for the writer to count and set aside. Each place counts once.
    pub(super) fn report(&self, damage: DamagedPlace) {
        self.damage.lock().add(damage);
    }

    pub(super) fn take_damage(&self) -> DamageReports {
        self.damage.lock().drain_reports()
    }

    /// The segments that nothing is added to any more, without the newest.
    pub(super) fn sealed_segments(&self) -> Vec<Segment> {
        let segments = self.segments.lock();
        let sealed = segments.split_last().map(|(_, sealed)| sealed.to_vec());
        sealed.unwrap_or_default()
    }

    /// Where so many of the sealed segments behind `position` end that they take `bytes`.
    pub(super) fn number_after(&self, position: u64, bytes: u64) -> u64 {
        let (mut number, mut left) = (position, bytes);
        for segment in self.sealed_segments() {
            if segment.last_sequence > position && (number == position || left > 0) {
                number = segment.last_sequence;
                left = left.saturating_sub(segment.disk_bytes);
            }
        }
        number
    }

    /// Whether no append will be refused for want of room for a while.
    pub(super) fn has_room(&self) -> bool {
        let state = self.state.lock();
        let enough = match *self.retention.lock() {
            None => state.bytes_max / 2,
            // What is retained may take as much, and goes by itself.
            Some(_) => state.bytes_max / 8 * 7,
        };
        state.refuses.is_none() && state.bytes < enough
    }

    pub(super) fn retention(&self) -> Option<LogRetention> {
        *self.retention.lock()
    }

    pub(super) fn retain(&self, retention: Option<LogRetention>) {
        *self.retention.lock() = retention;
    }

    pub(super) fn retained_between(&self) -> u64 {
        self.retained_between.load(Ordering::Relaxed)
    }

    pub(super) fn publish_retained_between(&self, bytes: u64) {
        self.retained_between.store(bytes, Ordering::Relaxed);
    }

    /// Tells what the segments hold that could go; what is retained between others comes on top.
    pub(super) fn publish_retained(&self, in_front: RetainedRecords) {
        self.state.lock().retained = RetainedRecords {
            bytes: in_front.bytes + self.retained_between(),
            ..in_front
        };
    }

    /// Rises by one when a segment's compaction begins, and when it ends: odd while it lasts.
    pub(super) fn generation(&self, segment: u64) -> u32 {
        let compactions = self.compactions.lock();
        compactions.get(&segment).map_or(0, |compaction| compaction.generation)
    }

    pub(super) fn begin_compaction(&self, segment: u64) {
        self.compactions.lock().entry(segment).or_default().generation += 1;
    }

    /// `made`: for the writer, whose segments they are.
    pub(super) fn end_compaction(&self, segment: u64, made: Option<CompactedSegment>) {
        let mut compactions = self.compactions.lock();
        let compaction = compactions.entry(segment).or_default();
        compaction.generation += 1;
        compaction.made = made.or(compaction.made);
    }

    pub(super) fn take_compacted(&self) -> Vec<(u64, CompactedSegment)> {
        let mut compactions = self.compactions.lock();
        let made = compactions.iter_mut();
        made.filter_map(|(segment, compaction)| Some((*segment, compaction.made.take()?)))
            .collect()
    }

    /// Forgets what is known of a segment that was deleted.
    pub(super) fn forget_segment(&self, segment: u64) {
        self.compactions.lock().remove(&segment);
        self.damage.lock().forget(segment);
    }

    /// What the log has behind `position`, without what is `settled` there (in rising order), as far as numbers tell:
    /// records that are damaged count until a reader has passed them.
    pub(super) fn backlog(&self, position: u64, settled: &[RangeInclusive<u64>]) -> CursorBacklog {
        let segments = self.segments.lock();
        let mut backlog = CursorBacklog::default();
        let mut settled = settled.iter().peekable();
        let at = segments.partition_point(|segment| segment.last_sequence <= position);
        for segment in &segments[at..] {
            let first = segment.first_sequence.max(position + 1);
            let mut numbers = segment.last_sequence + 1 - first;
            while let Some(range) = settled.peek().filter(|range| *range.start() <= segment.last_sequence) {
                let last = segment.last_sequence.min(*range.end());
                numbers -= (last + 1).saturating_sub(first.max(*range.start()));
                if *range.end() > segment.last_sequence {
                    break;
                }
                settled.next();
            }
            backlog.records += segment.records.min(numbers);
            backlog.bytes += segment.disk_bytes;
        }
        backlog
    }
}
