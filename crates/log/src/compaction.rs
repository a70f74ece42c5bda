//! Gives space back that is held by a few records that are still wanted.
//!
//! A segment is deleted once every cursor has passed it. Where one record waits for long, what was settled around it
//! would stay with it. So in a segment of which little is wanted, each run of records that every cursor has settled is
//! made one filler, and the pages in it are given back to the file system (a hole is punched). The wanted records stay
//! where they are, and it needs no room.
//!
//! First the fillers are made durable, then the holes. A reader that stands within a run meanwhile may see anything:
//! segments have a generation, odd while one is compacted, by which readers know that what they took for damage is
//! none. A loss of power that tears a filler's header within a sector costs a false alarm: one settled record counts as
//! damaged.

use std::{collections::HashMap, io, ops::RangeInclusive, sync::Arc};

use super::{
    RecordClass,
    cursors::{LogCursors, PathError},
    file_system::{File, PAGE_BYTES, is_passing},
    retention::LogRetention,
    scan::{PayloadUse, ScanFound, SegmentScan},
    segment::{BATCH_HEADER_LEN, DATA_START, FRAME_HEADER_LEN, encode_filler},
    shared::{LogShared, Segment},
};

/// A segment is compacted when so few of its records are wanted: one in so many.
const WANTED_ONE_IN: u64 = 4;
/// Segments at a time, and when the log has little room.
const SEGMENTS_MAX: usize = 1;
const SEGMENTS_MAX_WITHOUT_ROOM: usize = 8;
/// A filler's header stays within one.
const SECTOR_BYTES: u64 = 512;

/// What compacting a segment made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CompactedSegment {
    pub disk_bytes: u64,
    pub records: u64,
    pub bulk_bytes: u64,
}

/// What was compacted in this life.
#[derive(Default)]
pub(super) struct Compactor {
    /// How many records of a segment were wanted when it was compacted: more than that are never wanted again.
    wanted: HashMap<u64, u64>,
    /// The file system cannot do it.
    is_unsupported: bool,
}

/// Bytes that become one filler.
#[derive(Debug, Clone, Copy)]
struct UnwantedRun {
    start: u64,
    end: u64,
}

impl UnwantedRun {
    /// The whole pages behind the filler's header.
    fn pages(self) -> Option<(u64, u64)> {
        let start = (self.start + FRAME_HEADER_LEN as u64).next_multiple_of(PAGE_BYTES);
        let end = self.end / PAGE_BYTES * PAGE_BYTES;
        (start < end).then(|| (start, end - start))
    }
}

impl Compactor {
    /// Looks for segments of which little is wanted, and compacts some of them; returns how many.
    pub(super) fn run(&mut self, cursors: &LogCursors, shared: &LogShared) -> Result<usize, PathError> {
        if self.is_unsupported {
            return Ok(0);
        }
        // Without anything settled behind a gap segments are deleted as they are passed.
        let Some(unsettled) = cursors.unsettled() else {
            shared.publish_retained_between(0);
            return Ok(0);
        };
        let segments = shared.sealed_segments();
        self.wanted
            .retain(|id, _| segments.iter().any(|segment| segment.id == *id));
        let max = match shared.has_room() {
            true => SEGMENTS_MAX,
            false => SEGMENTS_MAX_WITHOUT_ROOM,
        };
        let mut retained = RetainedBetween::count(&segments, &unsettled, shared);
        let mut looked_at = 0;
        for segment in segments {
            let wanted = wanted(&unsettled, &segment);
            if !retained.may_go(&segment, wanted, shared) {
                continue;
            }
            let is_small = segment.disk_bytes < DATA_START + 2 * PAGE_BYTES;
            let is_new = self.wanted.get(&segment.id).is_none_or(|before| wanted < *before);
            // One of which nothing is wanted is about to be deleted, or behind one that is not.
            if looked_at == max || is_small || !is_new || wanted * WANTED_ONE_IN > segment.records {
                continue;
            }
            let path = shared.segments_dir.join(segment.file_name());
            let failed = |error| (path.clone(), error);
            let file = match shared.fs.open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            looked_at += 1;
            self.wanted.insert(segment.id, wanted);
            shared.begin_compaction(segment.id);
            let result = compact(&file, &segment, &unsettled);
            shared.end_compaction(segment.id, result.as_ref().ok().copied().flatten());
            match result {
                Ok(Some(compacted)) => tracing::info!(
                    path = %path.display(),
                    records = wanted,
                    bytes = compacted.disk_bytes,
                    before = segment.disk_bytes,
                    "of a segment only what is still wanted is kept"
                ),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    self.is_unsupported = true;
                    tracing::warn!(
                        path = %path.display(),
                        "the file system cannot punch holes: a record that waits for long holds all of its segment"
                    );
                    return Ok(0);
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(looked_at)
    }
}

/// What is retained of segments of which something is wanted.
struct RetainedBetween {
    retention: Option<LogRetention>,
    /// The lowest number that is wanted: what is before goes as segments.
    lowest: u64,
    bytes: u64,
}

impl RetainedBetween {
    fn count(segments: &[Segment], unsettled: &[RangeInclusive<u64>], shared: &LogShared) -> Self {
        let retention = shared.retention();
        let lowest = unsettled.first().map_or(u64::MAX, |range| *range.start());
        let between = segments.iter().filter(|segment| segment.last_sequence >= lowest);
        let bytes = between.map(|segment| settled_bytes(segment, wanted(unsettled, segment)));
        let bytes = retention.map_or(0, |_| bytes.sum());
        shared.publish_retained_between(bytes);
        Self {
            retention,
            lowest,
            bytes,
        }
    }

    /// Whether what is settled of a segment may be given up: it is old enough, there is too much of that kind, or too
    /// little room.
    fn may_go(&mut self, segment: &Segment, wanted: u64, shared: &LogShared) -> bool {
        let Some(retention) = &self.retention else {
            return true;
        };
        if segment.last_sequence < self.lowest {
            return false;
        }
        let newest_ms = shared.indexes.newest_ms(segment.id);
        let may_go = self.bytes > retention.bytes_max
            || newest_ms.is_some_and(|newest_ms| retention.is_over(newest_ms))
            || !shared.has_room();
        if may_go {
            self.bytes = self.bytes.saturating_sub(settled_bytes(segment, wanted));
        }
        may_go
    }
}

/// About what the records of a segment take that are not wanted.
fn settled_bytes(segment: &Segment, wanted: u64) -> u64 {
    let settled = segment.records.saturating_sub(wanted);
    u64::try_from(u128::from(segment.disk_bytes) * u128::from(settled) / u128::from(segment.records.max(1)))
        .unwrap_or(0)
}

/// How many numbers of a segment are in ranges that rise.
fn wanted(unsettled: &[RangeInclusive<u64>], segment: &Segment) -> u64 {
    let at = unsettled.partition_point(|range| *range.end() < segment.first_sequence);
    let within = unsettled[at..]
        .iter()
        .take_while(|range| *range.start() <= segment.last_sequence);
    within
        .map(|range| (*range.end()).min(segment.last_sequence) + 1 - (*range.start()).max(segment.first_sequence))
        .sum()
}

/// `None`: there is no room to do it.
fn compact(
    file: &Arc<dyn File>,
    segment: &Segment,
    unsettled: &[RangeInclusive<u64>],
) -> io::Result<Option<CompactedSegment>> {
    let (runs, mut compacted) = runs(file, segment, unsettled)?;
    for run in &runs {
        let filler = encode_filler(segment.seed(), run.start, run.end - run.start);
        let mut before = [0; FRAME_HEADER_LEN];
        file.pread(run.start, &mut before)?;
        let Err(error) = file.pwrite(run.start, &filler) else {
            continue;
        };
        let mut now = [0; FRAME_HEADER_LEN];
        file.pread(run.start, &mut now)?;
        // A part of a filler would be taken for damage. Where nothing was written, there is no room to write what is
        // there once more either: file systems that copy on write.
        if now != before {
            file.pwrite(run.start, &before)?;
            // Power may go, and leave the part.
            file.sync_data().map_err(io::Error::other)?;
        }
        return match is_passing(&error) {
            true => Ok(None),
            false => Err(error),
        };
    }
    // A full disk is known before the sync.
    file.sync_data().map_err(io::Error::other)?;
    for run in runs {
        let Some((offset, len)) = run.pages() else { continue };
        match file.punch(offset, len) {
            Err(error) if is_passing(&error) => {}
            result => {
                result?;
                compacted.disk_bytes -= len;
            }
        }
    }
    file.sync_data().map_err(io::Error::other)?;
    Ok(Some(compacted))
}

/// The runs of settled records that are worth a filler, and what the segment is without them.
fn runs(
    file: &Arc<dyn File>,
    segment: &Segment,
    unsettled: &[RangeInclusive<u64>],
) -> io::Result<(Vec<UnwantedRun>, CompactedSegment)> {
    let mut compacted = CompactedSegment {
        disk_bytes: segment.end,
        records: 0,
        bulk_bytes: 0,
    };
    let mut runs = UnwantedRuns::default();
    let mut end = DATA_START;
    let mut scan = SegmentScan::new(file.clone(), segment.seed(), DATA_START, segment.end);
    while let Some(found) = scan.next(|_| PayloadUse::Skipped)? {
        let offset = match &found {
            ScanFound::Frame { offset, .. } | ScanFound::Batch { offset, .. } => *offset,
            ScanFound::Hole(hole) => hole.offset,
        };
        if offset > end {
            // What lies between is a filler.
            runs.extend(end, offset);
        }
        match found {
            ScanFound::Frame { header, .. } => {
                end = offset + header.frame_len();
                let at = unsettled.partition_point(|range| *range.end() < header.sequence);
                if unsettled.get(at).is_some_and(|range| range.contains(&header.sequence)) {
                    runs.close();
                    compacted.records += 1;
                    if header.class == RecordClass::Bulk {
                        compacted.bulk_bytes += header.frame_len();
                    }
                } else {
                    runs.extend(offset, end);
                }
            }
            // It belongs to what follows, whatever that is.
            ScanFound::Batch { .. } => end = offset + BATCH_HEADER_LEN as u64,
            ScanFound::Hole(hole) => {
                runs.close();
                end = hole.offset + hole.len;
            }
        }
    }
    runs.close();
    Ok((runs.closed, compacted))
}

/// Runs, as they are found.
#[derive(Default)]
struct UnwantedRuns {
    closed: Vec<UnwantedRun>,
    open: Option<UnwantedRun>,
}

impl UnwantedRuns {
    /// What stands from `start` to `end` is not wanted.
    fn extend(&mut self, start: u64, end: u64) {
        match &mut self.open {
            Some(run) => run.end = end,
            None if start % SECTOR_BYTES + FRAME_HEADER_LEN as u64 <= SECTOR_BYTES => {
                self.open = Some(UnwantedRun { start, end });
            }
            None => {}
        }
    }

    /// What comes next is wanted, or not known.
    fn close(&mut self) {
        let run = self.open.take().filter(|run| run.pages().is_some());
        self.closed.extend(run);
    }
}
