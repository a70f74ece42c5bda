//! Reads the durable part of the segments, in order.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use super::{
    Record, WantedRecords,
    batch::ReadBatch,
    cursors::PathError,
    damage::{DamageKind, DamagedPlace},
    file_system::is_unreadable,
    index::LogQuery,
    scan::{DamagedHole, ScanFound, SegmentScan},
    segment::DATA_START,
    shared::{LogShared, Segment},
    sizes::ReadSizes,
};

/// Before a segment is looked at again that is being compacted.
const COMPACTION_WAIT: Duration = Duration::from_millis(2);

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
    query: Option<LogQuery>,
    /// Where in the segment of `scan` there is something to be read; `None`: everywhere.
    places: Option<VecDeque<u64>>,
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
            query: None,
            places: None,
        }
    }

    pub(super) fn asking(mut self, query: Option<LogQuery>) -> Self {
        self.query = query;
        self
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
            (Some(scan), Some((_, offset))) if self.places.is_none() => scan.restart(*offset),
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
            self.places = match &self.query {
                Some(query) => self.shared.indexes.places(self.shared.fs.as_ref(), segment.id, query),
                None => None,
            };
            if self.places.as_ref().is_some_and(VecDeque::is_empty) {
                self.scan = None;
                return Ok(ReadStop::End);
            }
            let file = self.shared.fs.open(path)?;
            let scan = SegmentScan::new(file, segment.seed(), DATA_START, segment.end);
            self.scan = Some(match self.places {
                Some(_) => scan.by_pages(),
                None => scan,
            });
            self.marks.clear();
        }
        let scan = self.scan.as_mut().expect("it was just set");
        scan.extend(segment.end);
        while !read.is_enough() {
            let from = self.next;
            if let Some(places) = &mut self.places {
                match places.pop_front() {
                    Some(offset) => scan.restart(offset),
                    None => return Ok(ReadStop::End),
                }
            }
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
                        self.places.iter_mut().for_each(|places| places.push_front(offset));
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
