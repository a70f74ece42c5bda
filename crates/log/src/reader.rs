//! Follows the log: from memory near the head, else from disk.

use std::{
    collections::VecDeque,
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use super::{
    Record,
    batch::ReadBatch,
    budget::ReadShare,
    cursors::PathError,
    damage::{DamageKind, DamagedPlace},
    file_system::is_unreadable,
    scan::{DamagedHole, ScanFound, SegmentScan},
    segment::DATA_START,
    shared::{LogShared, Segment},
    sizes::ReadSizes,
};

/// Before a segment is looked at again that is being compacted.
const COMPACTION_WAIT: Duration = Duration::from_millis(2);

/// Why a reader cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the spool is closed")]
    Closed,
}

/// Whether the owner of a reader has use for a record, by what it holds.
pub type WantedRecords = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// A read from disk on its way, which brings the disk reader back.
type ReadUnderWay = JoinHandle<(DiskReader, Result<DiskRead, PathError>)>;

/// Follows the log: from memory near the head, else from disk.
pub struct LogReader {
    shared: Arc<LogShared>,
    share: Arc<ReadShare>,
    head: watch::Receiver<u64>,
    closed: watch::Receiver<bool>,
    /// The sequence number to go on at.
    next: u64,
    wanted: WantedRecords,
    /// Settled before, and not handed out: in rising order.
    skipped: VecDeque<RangeInclusive<u64>>,
    /// Read from disk and not yet handed out.
    buffered: VecDeque<Record>,
    /// Everything up to here is in `buffered`, was handed out or is not there.
    buffered_through: u64,
    disk: Option<DiskReader>,
    reading: Option<ReadUnderWay>,
    /// What is being read is no longer wanted.
    stale: bool,
    sizes: ReadSizes,
}

impl LogReader {
    pub(super) fn new(shared: Arc<LogShared>, from: u64, wanted: WantedRecords) -> Self {
        Self {
            wanted,
            share: ReadShare::new(shared.read_budget.clone()),
            head: shared.watch_head(),
            closed: shared.watch_closed(),
            next: from,
            skipped: VecDeque::new(),
            buffered: VecDeque::new(),
            buffered_through: 0,
            disk: None,
            reading: None,
            stale: false,
            sizes: ReadSizes::now(),
            shared,
        }
    }

    /// Adds the next durable records to `out`, at most `records_max` and (beyond the first) `bytes_max`, and returns
    /// how far it got: every record up to there was handed out, was to be skipped, or is not there. Waits until it gets
    /// further; that may be without a record, where the log has a hole or much that is not wanted. What is not wanted
    /// may be handed out all the same, where it is in memory anyway.
    ///
    /// Cancel-safe, so it can be raced with a stop. Damaged records are passed over (they are counted and set aside).
    /// While what was handed out and is still held, by all readers together, is more than
    /// [`Options::readers_bytes_max`](super::LogOptions::readers_bytes_max), it waits for some to be dropped.
    pub async fn next(
        &mut self,
        records_max: usize,
        bytes_max: usize,
        out: &mut Vec<Record>,
    ) -> Result<u64, ReadError> {
        let records_max = records_max.max(1);
        loop {
            if let Some(through) = self.take_buffered(records_max, bytes_max, out) {
                return Ok(through);
            }
            if self.reading.is_some() {
                self.finish_reading().await?;
                continue;
            }
            if let Some(skipped) = self.skip() {
                return Ok(skipped);
            }
            if self.next > *self.head.borrow_and_update() {
                self.wait().await?;
                continue;
            }
            let bytes_max = bytes_max.min(self.share.room().await).min(self.sizes.reader_bytes_min);
            if self.read_hot(records_max, bytes_max, out) {
                return Ok(self.next - 1);
            }
            self.read_disk(records_max, bytes_max);
        }
    }

    /// Goes back, or forward, to the first record at or after `sequence`.
    pub fn seek(&mut self, sequence: u64) {
        self.next = sequence;
        self.buffered.clear();
        self.buffered_through = 0;
        self.stale = true;
    }

    /// Hands out nothing of these numbers: they were settled before. They are in rising order, and replace those given
    /// before.
    pub fn skip_settled(&mut self, settled: Vec<RangeInclusive<u64>>) {
        self.skipped = settled.into();
    }

    /// Whether all that is durable was handed out.
    pub fn is_at_head(&self) -> bool {
        self.buffered.is_empty() && self.reading.is_none() && self.next > *self.head.borrow()
    }

    /// Passes over numbers that are to be skipped, if the next one is among them; returns how far.
    fn skip(&mut self) -> Option<u64> {
        while self.skipped.front().is_some_and(|range| *range.end() < self.next) {
            self.skipped.pop_front();
        }
        let range = self.skipped.front().filter(|range| range.contains(&self.next))?;
        let through = (*range.end()).min(*self.head.borrow());
        if through < self.next {
            return None;
        }
        self.next = through + 1;
        Some(through)
    }

    /// Whether a record is to be skipped. What comes later has a higher number.
    fn is_skipped(&mut self, sequence: u64) -> bool {
        while self.skipped.front().is_some_and(|range| *range.end() < sequence) {
            self.skipped.pop_front();
        }
        self.skipped.front().is_some_and(|range| range.contains(&sequence))
    }

    /// How many records may be read from `next` on before one that is to be skipped.
    fn until_skipped(&self) -> u64 {
        self.skipped
            .front()
            .map_or(u64::MAX, |range| range.start().saturating_sub(1))
    }

    fn read_hot(&mut self, records_max: usize, bytes_max: usize, out: &mut Vec<Record>) -> bool {
        let before = out.len();
        if !self.shared.read_hot(self.next, records_max, bytes_max, out) {
            return false;
        }
        let until = self.until_skipped();
        while out.len() > before + 1 && out.last().is_some_and(|record| record.sequence > until) {
            out.pop();
        }
        for record in &mut out[before..] {
            self.next = record.sequence + 1;
            *record = self.share.charge(record.clone());
        }
        // What was read from disk before is behind.
        self.disk.iter_mut().for_each(DiskReader::release);
        true
    }

    /// Begins to read from disk, elsewhere.
    fn read_disk(&mut self, records_max: usize, bytes_max: usize) {
        let disk = self.disk.take();
        let mut disk = disk.unwrap_or_else(|| DiskReader::new_wanting(self.shared.clone(), self.wanted.clone()));
        let from = self.next;
        self.stale = false;
        let records_max = records_max.max(self.sizes.ahead_records);
        let bytes_max = bytes_max.max(self.sizes.ahead_bytes);
        let read = move || {
            let result = disk.read(from, records_max, bytes_max);
            (disk, result)
        };
        self.reading = Some(match self.sizes.simulated_read {
            None => spawn_blocking(read),
            Some(after) => tokio::spawn(async move {
                sleep(after).await;
                read()
            }),
        });
    }

    fn take_buffered(&mut self, records_max: usize, bytes_max: usize, out: &mut Vec<Record>) -> Option<u64> {
        if self.buffered_through < self.next {
            return None;
        }
        let (mut taken, mut bytes) = (0, 0);
        while taken < records_max {
            let Some(record) = self.buffered.front() else { break };
            bytes += record.bytes.len();
            if taken > 0 && bytes > bytes_max {
                break;
            }
            let sequence = record.sequence;
            self.next = sequence + 1;
            let skipped = self.is_skipped(sequence);
            let record = self.buffered.pop_front();
            if !skipped {
                out.extend(record);
                taken += 1;
            }
        }
        if self.buffered.is_empty() {
            self.next = self.buffered_through + 1;
        }
        Some(self.next - 1)
    }

    async fn finish_reading(&mut self) -> Result<(), ReadError> {
        let Some(reading) = &mut self.reading else {
            return Ok(());
        };
        let finished = reading.await;
        self.reading = None;
        // Only a runtime that ends takes the read away.
        let (disk, result) = finished.map_err(|_| ReadError::Closed)?;
        self.disk = Some(disk);
        if self.stale {
            return Ok(());
        }
        let read = result.map_err(|(path, source)| ReadError::Io { path, source })?;
        self.buffered
            .extend(read.records.into_iter().map(|record| self.share.charge(record)));
        self.buffered_through = read.through;
        Ok(())
    }

    /// Waits for a new head.
    async fn wait(&mut self) -> Result<(), ReadError> {
        if *self.closed.borrow_and_update() {
            return Err(ReadError::Closed);
        }
        tokio::select! {
            biased;
            changed = self.head.changed() => changed.map_err(|_| ReadError::Closed),
            changed = self.closed.changed() => changed.map_err(|_| ReadError::Closed),
        }
    }
}

/// What a read from disk brought.
pub(super) struct DiskRead {
    pub records: Vec<Record>,
    /// Every record up to here was read, now or before, or is not there.
    pub through: u64,
}

/// Reads the durable part of the segments, in order, no more than is asked for.
pub(super) struct DiskReader {
    shared: Arc<LogShared>,
    wanted: WantedRecords,
    scan: Option<SegmentScan>,
    /// The sequence number that comes next.
    next: u64,
    /// The segment's, when the scan began.
    generation: u32,
    /// Where in the segment of `scan` which sequence number stands, about one a chunk, for going back.
    marks: Vec<(u64, u64)>,
}

/// How reading a segment ended.
enum ReadStop {
    /// At its end.
    End,
    /// Before it: enough was read, or looked at.
    Enough,
    /// It was compacted meanwhile, and has to be looked at again.
    Compacted,
}

impl DiskReader {
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn new(shared: Arc<LogShared>) -> Self {
        Self::new_wanting(shared, Arc::new(|_| true))
    }

    pub(super) fn new_wanting(shared: Arc<LogShared>, wanted: WantedRecords) -> Self {
        Self {
            shared,
            wanted,
            scan: None,
            next: 0,
            generation: 0,
            marks: Vec::new(),
        }
    }

    /// Lets go of the memory for what was read, but not of the place.
    pub(super) fn release(&mut self) {
        self.scan.iter_mut().for_each(SegmentScan::release);
    }

    /// Reads records at or after `from` that are wanted: at most `records_max` and, beyond the first, `bytes_max`.
    pub(super) fn read(&mut self, from: u64, records_max: usize, bytes_max: usize) -> Result<DiskRead, PathError> {
        if from < self.next {
            self.go_back(from);
        }
        self.next = from;
        let wanted = self.wanted.clone();
        let mut read = ReadBatch {
            records: Vec::new(),
            bytes: 0,
            records_max,
            bytes_max,
            is_wanted: &*wanted,
            passed_bytes: 0,
            unreadable: 0,
        };
        // What is durable now is in a segment that is found below, unless it is lost.
        let head = self.shared.head();
        loop {
            let Some(segment) = self.shared.segment_for(self.next) else {
                self.next = self.next.max(head + 1);
                break;
            };
            let path = self.shared.segments_dir.join(segment.file_name());
            match self.read_segment(segment, &path, &mut read) {
                Ok(ReadStop::End) => self.next = self.next.max(segment.last_sequence + 1),
                Ok(ReadStop::Enough) => break,
                Ok(ReadStop::Compacted) => {
                    self.scan = None;
                    thread::sleep(COMPACTION_WAIT);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.missing(segment, path),
                // The file itself cannot be opened.
                Err(error) if is_unreadable(&error) => self.lost(DamageKind::Record, segment, path, segment.end),
                Err(_) if read.found_any() => {
                    self.scan = None;
                    break;
                }
                Err(error) => {
                    self.scan = None;
                    return Err((path, error));
                }
            }
        }
        Ok(DiskRead {
            records: read.records,
            through: self.next - 1,
        })
    }

    /// Back within the segment at hand, if there is a mark for it, else to wherever it is found.
    fn go_back(&mut self, sequence: u64) {
        let at = self.marks.partition_point(|(marked, _)| *marked <= sequence);
        self.marks.truncate(at);
        match (&mut self.scan, self.marks.last()) {
            (Some(scan), Some((_, offset))) => scan.restart(*offset),
            _ => self.scan = None,
        }
    }

    /// The file is gone: deleted meanwhile, since every cursor passed it, or by a stranger.
    fn missing(&mut self, segment: Segment, path: PathBuf) {
        self.scan = None;
        let again = self.shared.segment_for(self.next);
        if again.is_some_and(|again| again.id == segment.id) {
            self.lost(DamageKind::SegmentMissing, segment, path, 0);
        }
    }

    /// Nothing of the segment can be read.
    fn lost(&mut self, kind: DamageKind, segment: Segment, path: PathBuf, len: u64) {
        self.scan = None;
        self.shared.report(DamagedPlace {
            kind,
            path,
            segment: segment.id,
            offset: 0,
            len,
        });
        self.next = segment.last_sequence + 1;
    }

    fn read_segment(&mut self, segment: Segment, path: &Path, read: &mut ReadBatch<'_>) -> io::Result<ReadStop> {
        let generation = self.shared.generation(segment.id);
        let is_other = |scan: &SegmentScan| scan.segment() != segment.id;
        if self.scan.as_ref().is_none_or(is_other) || generation != self.generation {
            self.generation = generation;
            let file = self.shared.fs.open(path)?;
            self.scan = Some(SegmentScan::new(file, segment.seed(), DATA_START, segment.end));
            self.marks.clear();
        }
        let scan = self.scan.as_mut().expect("it was just set");
        scan.extend(segment.end);
        while !read.is_enough() {
            let from = self.next;
            let found = scan.next(|header| read.wants(header, from))?;
            match found {
                None => return Ok(ReadStop::End),
                Some(ScanFound::Batch { .. }) => {}
                Some(ScanFound::Frame {
                    offset,
                    header,
                    payload,
                }) => {
                    if header.sequence >= from && !read.has_room(header.payload_len as usize) {
                        scan.restart(offset);
                        return Ok(ReadStop::Enough);
                    }
                    let marked = self
                        .marks
                        .last()
                        .map_or(0, |(_, marked)| marked + ReadSizes::now().chunk_bytes as u64);
                    if offset >= marked {
                        self.marks.push((header.sequence, offset));
                    }
                    if header.sequence >= from {
                        self.next = header.sequence + 1;
                        read.add(&header, payload);
                    }
                }
                Some(ScanFound::Hole(DamagedHole {
                    offset,
                    len,
                    unreadable,
                    ..
                })) => {
                    if generation % 2 == 1 || self.shared.generation(segment.id) != generation {
                        return Ok(ReadStop::Compacted);
                    }
                    read.unreadable += usize::from(unreadable);
                    self.shared.report(DamagedPlace {
                        kind: DamageKind::Record,
                        path: path.to_owned(),
                        segment: segment.id,
                        offset,
                        len,
                    });
                }
            }
        }
        Ok(ReadStop::Enough)
    }
}
