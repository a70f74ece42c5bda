//! What the writer tells the readers: which segments there are, how far they are durable, and the newest records.

use std::{
    collections::{HashSet, VecDeque},
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    AppendError, Record, State,
    file_system::FileSystem,
    segment::{DATA_START, file_name},
};

/// A record's cost in memory beyond its bytes.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// Places of damage that are remembered, so that each is counted once.
const DAMAGE_PLACES_MAX: usize = 4096;

/// A segment, as far as it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub id: u64,
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
    pub(super) fn empty(id: u64, first_sequence: u64, disk_bytes: u64) -> Self {
        Self {
            id,
            first_sequence,
            last_sequence: first_sequence - 1,
            records: 0,
            bulk_bytes: 0,
            end: DATA_START,
            disk_bytes,
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
struct Hot {
    records: VecDeque<Record>,
    bytes: usize,
    bytes_max: usize,
}

/// What is wrong, for metrics: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum DamageKind {
    SegmentHeader,
    Seal,
    Record,
    SegmentMissing,
    Cursor,
}

impl DamageKind {
    pub(super) const ALL: [Self; 5] = [
        Self::SegmentHeader,
        Self::Seal,
        Self::Record,
        Self::SegmentMissing,
        Self::Cursor,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            DamageKind::SegmentHeader => "segment_header",
            DamageKind::Seal => "seal",
            DamageKind::Record => "record",
            DamageKind::SegmentMissing => "segment_missing",
            DamageKind::Cursor => "cursor",
        }
    }
}

/// Damaged bytes of a segment, to be set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    pub kind: DamageKind,
    pub path: PathBuf,
    pub segment: u64,
    pub offset: u64,
    pub len: u64,
}

#[derive(Default)]
struct Found {
    places: HashSet<(u64, u64, DamageKind)>,
    waiting: Vec<Damage>,
}

/// Shared by the log, its readers and its cursors.
pub(super) struct Shared {
    pub fs: Arc<dyn FileSystem>,
    pub segments_dir: PathBuf,
    segments: Mutex<Vec<Segment>>,
    hot: Mutex<Hot>,
    head: watch::Sender<u64>,
    state: Mutex<State>,
    found: Mutex<Found>,
    failed: watch::Sender<Option<String>>,
    /// Nothing more will be appended.
    closed: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(
        fs: Arc<dyn FileSystem>,
        segments_dir: PathBuf,
        segments: Vec<Segment>,
        head: u64,
        hot_bytes_max: usize,
        bytes_max: u64,
    ) -> Self {
        Self {
            fs,
            segments_dir,
            segments: Mutex::new(segments),
            hot: Mutex::new(Hot {
                records: VecDeque::new(),
                bytes: 0,
                bytes_max: hot_bytes_max,
            }),
            head: watch::Sender::new(head),
            state: Mutex::new(State {
                records: 0,
                bytes: 0,
                bytes_max,
                head,
                refuses: None,
            }),
            found: Mutex::default(),
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

    pub(super) fn state(&self) -> State {
        let mut state = *self.state.lock();
        if self.is_failed() {
            state.refuses = Some(AppendError::Failed);
        } else if *self.closed.borrow() {
            state.refuses = Some(AppendError::Closed);
        }
        state
    }

    /// Tells what the segments are now, and whether there is room.
    pub(super) fn publish_segments(&self, segments: &[Segment], full: bool) {
        let mut state = self.state.lock();
        state.records = segments.iter().map(|segment| segment.records).sum();
        state.bytes = segments.iter().map(|segment| segment.disk_bytes).sum();
        state.refuses = full.then_some(AppendError::Full);
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

    /// The first segment that has, or had, a record at or after `sequence`.
    pub(super) fn segment_for(&self, sequence: u64) -> Option<Segment> {
        let segments = self.segments.lock();
        let at = segments.partition_point(|segment| segment.last_sequence < sequence);
        segments.get(at).copied()
    }

    /// Notes damage for the writer to count and set aside. Each place counts once.
    pub(super) fn report(&self, damage: Damage) {
        let mut found = self.found.lock();
        if found.places.len() < DAMAGE_PLACES_MAX && found.places.insert((damage.segment, damage.offset, damage.kind)) {
            found.waiting.push(damage);
        }
    }

    pub(super) fn take_damage(&self) -> Vec<Damage> {
        std::mem::take(&mut self.found.lock().waiting)
    }

    /// Forgets the places of a segment that was deleted.
    pub(super) fn forget_damage(&self, segment: u64) {
        self.found.lock().places.retain(|(id, ..)| *id != segment);
    }
}
