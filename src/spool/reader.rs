//! Follows the log: from memory near the head, else from disk.

use std::{collections::VecDeque, io, path::PathBuf, sync::Arc};

use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};

use super::{
    Record,
    cursors::PathError,
    scan::{Found, Scan},
    segment::DATA_START,
    shared::{Damage, DamageKind, Segment, Shared},
};

/// Why a reader cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the spool is closed")]
    Closed,
}

/// A read from disk on its way, which brings the disk reader back.
type Reading = JoinHandle<(DiskReader, Result<Vec<Record>, PathError>)>;

/// Follows the log: from memory near the head, else from disk.
pub struct Reader {
    shared: Arc<Shared>,
    head: watch::Receiver<u64>,
    closed: watch::Receiver<bool>,
    /// The sequence number to go on at.
    next: u64,
    /// Read from disk and not yet handed out. The first is the one at or after `next`.
    buffered: VecDeque<Record>,
    disk: Option<DiskReader>,
    reading: Option<Reading>,
    /// What is being read is no longer wanted.
    stale: bool,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, from: u64) -> Self {
        Self {
            head: shared.watch_head(),
            closed: shared.watch_closed(),
            next: from,
            buffered: VecDeque::new(),
            disk: None,
            reading: None,
            stale: false,
            shared,
        }
    }

    /// The next durable records, at most `records_max` and (beyond the first) `bytes_max`; waits for at least one.
    /// Cancel-safe. Damaged records are passed over (they were counted and set aside).
    pub async fn next(&mut self, records_max: usize, bytes_max: usize, out: &mut Vec<Record>) -> Result<(), ReadError> {
        loop {
            if self.take_buffered(records_max, bytes_max, out) {
                return Ok(());
            }
            if self.reading.is_some() {
                self.finish_reading().await?;
                continue;
            }
            let before = out.len();
            if self.shared.read_hot(self.next, records_max, bytes_max, out) {
                self.next += (out.len() - before) as u64;
                return Ok(());
            }
            if self.next > *self.head.borrow_and_update() {
                self.wait().await?;
                continue;
            }
            let mut disk = self.disk.take().unwrap_or_else(|| DiskReader::new(self.shared.clone()));
            let from = self.next;
            self.stale = false;
            self.reading = Some(spawn_blocking(move || {
                let result = disk.read(from);
                (disk, result)
            }));
        }
    }

    /// Goes back, or forward, to the first record at or after `sequence`.
    pub fn seek(&mut self, sequence: u64) {
        self.next = sequence;
        self.buffered.clear();
        self.stale = true;
    }

    /// Whether all that is durable was handed out.
    pub fn is_at_head(&self) -> bool {
        self.buffered.is_empty() && self.reading.is_none() && self.next > *self.head.borrow()
    }

    fn take_buffered(&mut self, records_max: usize, bytes_max: usize, out: &mut Vec<Record>) -> bool {
        let (mut taken, mut bytes) = (0, 0);
        while taken < records_max.max(1) {
            let Some(record) = self.buffered.front() else { break };
            bytes += record.bytes.len();
            if taken > 0 && bytes > bytes_max {
                break;
            }
            self.next = record.sequence + 1;
            out.extend(self.buffered.pop_front());
            taken += 1;
        }
        taken > 0
    }

    async fn finish_reading(&mut self) -> Result<(), ReadError> {
        let Some(reading) = &mut self.reading else {
            return Ok(());
        };
        let finished = reading.await;
        self.reading = None;
        // Only a runtime that ends takes the read away.
        let (disk, result) = finished.map_err(|_| ReadError::Closed)?;
        let after = disk.next;
        self.disk = Some(disk);
        if self.stale {
            return Ok(());
        }
        let records = result.map_err(|(path, source)| ReadError::Io { path, source })?;
        if records.is_empty() {
            self.next = self.next.max(after);
        }
        self.buffered.extend(records);
        Ok(())
    }

    /// Waits for a new head.
    async fn wait(&mut self) -> Result<(), ReadError> {
        if *self.closed.borrow_and_update() {
            return Err(ReadError::Closed);
        }
        tokio::select! {
            changed = self.head.changed() => changed.map_err(|_| ReadError::Closed),
            changed = self.closed.changed() => changed.map_err(|_| ReadError::Closed),
        }
    }
}

/// Reads the durable part of the segments, in order, a chunk at a time.
pub(super) struct DiskReader {
    shared: Arc<Shared>,
    scan: Option<Scan>,
    /// The sequence number that comes next.
    next: u64,
    /// Where in the segment of `scan` which sequence number stands, about one a chunk, for going back.
    marks: Vec<(u64, u64)>,
}

impl DiskReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            scan: None,
            next: 0,
            marks: Vec::new(),
        }
    }

    /// Reads records at or after `from`, as many as one chunk holds; none when there are none that are whole.
    pub(super) fn read(&mut self, from: u64) -> Result<Vec<Record>, PathError> {
        if from < self.next {
            self.go_back(from);
        }
        self.next = from;
        let mut out = Vec::new();
        while out.is_empty() {
            let Some(segment) = self.shared.segment_for(self.next) else {
                break;
            };
            let path = self.shared.segments_dir.join(segment.file_name());
            match self.read_segment(segment, &path, &mut out) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.missing(segment, path),
                Err(error) => {
                    self.scan = None;
                    return Err((path, error));
                }
                Ok(()) if out.is_empty() => self.next = self.next.max(segment.last_sequence + 1),
                Ok(()) => {}
            }
        }
        Ok(out)
    }

    /// Back within the segment at hand, if there is a mark for it, else to wherever it is found.
    fn go_back(&mut self, sequence: u64) {
        let at = self.marks.partition_point(|(marked, _)| *marked <= sequence);
        self.marks.truncate(at);
        self.scan = match (self.scan.take(), self.marks.last()) {
            (Some(scan), Some((_, offset))) => Some(scan.restart(*offset)),
            _ => None,
        };
    }

    /// The file is gone: deleted meanwhile, since every cursor passed it, or by a stranger.
    fn missing(&mut self, segment: Segment, path: PathBuf) {
        if self
            .shared
            .segment_for(self.next)
            .is_some_and(|again| again.id == segment.id)
        {
            self.shared.report(Damage {
                kind: DamageKind::SegmentMissing,
                path,
                segment: segment.id,
                offset: 0,
                len: 0,
            });
            self.next = segment.last_sequence + 1;
        }
    }

    fn read_segment(&mut self, segment: Segment, path: &std::path::Path, out: &mut Vec<Record>) -> io::Result<()> {
        if self.scan.as_ref().is_none_or(|scan| scan.segment() != segment.id) {
            let file = self.shared.fs.open(path)?;
            self.scan = Some(Scan::new(file, segment.id, DATA_START, segment.end));
            self.marks.clear();
        }
        let scan = self.scan.as_mut().expect("it was just set");
        scan.extend(segment.end);
        loop {
            let buffered = scan.is_buffered();
            if !buffered && !out.is_empty() {
                return Ok(());
            }
            match scan.next()? {
                None => return Ok(()),
                Some(Found::Frame {
                    offset,
                    header,
                    payload,
                }) => {
                    if !buffered {
                        self.marks.push((header.sequence, offset));
                    }
                    if header.sequence >= self.next {
                        self.next = header.sequence + 1;
                        out.push(Record {
                            sequence: header.sequence,
                            bytes: payload,
                        });
                    }
                }
                Some(Found::Hole { offset, len, .. }) => self.shared.report(Damage {
                    kind: DamageKind::Record,
                    path: path.to_owned(),
                    segment: segment.id,
                    offset,
                    len,
                }),
            }
        }
    }
}
