//! A segment without a seal: where it ends, what of it is torn and what is damaged.

use std::{io, iter, path::Path, sync::Arc};

use crate::{
    RecordClass,
    file_system::{File, is_passing, read_around},
    log::{ActiveSegment, seal_file},
    scan::{DamagedHole, PayloadUse, ScanFound, SegmentScan},
    segment::{DATA_START, SegmentSeed, encode_filler},
    shared::Segment,
    sizes::ReadSizes,
};

/// What a segment without a seal was found to hold, beyond what its [`Segment`] says.
pub(crate) struct ScannedSegment {
    /// Damage, as offset and length: what stood there was durable once.
    pub holes: Vec<(u64, u64)>,
    /// Bytes of batches whose sync did not finish, and those of them that stand before a record that is whole.
    pub torn_bytes: u64,
    pub torn: Vec<(u64, u64)>,
    /// Where the last batch starts.
    pub last_batch: u64,
    /// Above every number that was given out.
    pub next_sequence: u64,
}

/// Reads a whole segment that has no seal, and finds where it ends.
///
/// A batch is written only after the one before it was synced, and says how far the log was durable by then; the page
/// of the cursors says it too. So a hole before the last batch is damage, and so is one where records are missing that
/// were durable. Another hole in the last batch, or after it, was torn before anybody was told that it is there; what
/// is whole around it is kept, unless `keeps_torn` is false. A segment that is not the newest had a seal once, and was
/// cut at its end: every hole is damage.
pub(crate) fn scan(
    file: &Arc<dyn File>,
    segment: &mut Segment,
    newest: bool,
    durable: u64,
    keeps_torn: bool,
) -> io::Result<ScannedSegment> {
    let file_end = segment.disk_bytes;
    let mut tail = ScannedSegment {
        holes: Vec::new(),
        torn_bytes: 0,
        torn: Vec::new(),
        last_batch: file_end,
        next_sequence: 0,
    };
    let mut durable_before = 0;
    if newest {
        let last = last_batch(file, segment.seed(), file_end)?;
        tail.last_batch = last.start;
        tail.next_sequence = last.next_sequence;
        durable_before = last.durable;
    }
    let last_batch = tail.last_batch;
    // A hole at the end is as long as what it holds.
    let mut judge = |hole: DamagedHole, end: u64, last_sequence: u64| {
        let was_durable = hole.unreadable || hole.offset < last_batch || last_sequence.max(durable_before) < durable;
        if was_durable && end > hole.offset {
            tail.holes.push((hole.offset, end - hole.offset));
        } else {
            tail.torn_bytes += end - hole.offset;
        }
        was_durable.then_some(end)
    };
    let mut torn = Vec::new();
    let mut hole: Option<DamagedHole> = None;
    let mut scan = SegmentScan::new(file.clone(), segment.seed(), DATA_START, file_end);
    while let Some(found) = scan.next(|_| PayloadUse::Checked)? {
        match found {
            ScanFound::Frame { offset, header, .. } => {
                if let Some(hole) = hole.take() {
                    let place = (hole.offset, hole.len);
                    if judge(hole, offset, segment.last_sequence).is_none() {
                        if !keeps_torn {
                            break;
                        }
                        torn.push(place);
                    }
                }
                segment.records += 1;
                segment.last_sequence = segment.last_sequence.max(header.sequence);
                segment.end = offset + header.frame_len();
                if header.class == RecordClass::Bulk {
                    segment.bulk_bytes += header.frame_len();
                }
            }
            // One without records behind it was torn with them.
            ScanFound::Batch { .. } => {}
            ScanFound::Hole(next) => {
                // One goes over into the other.
                match &mut hole {
                    Some(hole) => {
                        hole.len += next.len;
                        hole.content_end = next.content_end;
                        hole.unreadable |= next.unreadable;
                    }
                    None => hole = Some(next),
                }
            }
        }
    }
    if let Some(hole) = hole {
        let end = hole.content_end;
        if let Some(end) = judge(hole, end, segment.last_sequence) {
            segment.end = segment.end.max(end);
        }
    }
    tail.torn = torn;
    Ok(tail)
}

/// Writes over the torn places, so that nobody takes them for damage. `false`: there is no room for it.
pub(super) fn fill(file: &dyn File, seed: SegmentSeed, torn: &[(u64, u64)]) -> io::Result<bool> {
    for &(offset, len) in torn {
        match file.pwrite(offset, &encode_filler(seed, offset, len)) {
            Err(error) if is_passing(&error) => return Ok(false),
            result => result?,
        }
    }
    Ok(true)
}

/// The newest batch that left a valid header, of its own or of one of its frames.
struct LastBatch {
    start: u64,
    durable: u64,
    next_sequence: u64,
}

fn last_batch(file: &Arc<dyn File>, seed: SegmentSeed, file_end: u64) -> io::Result<LastBatch> {
    let mut last = LastBatch {
        start: DATA_START,
        durable: 0,
        next_sequence: 0,
    };
    let mut scan = SegmentScan::new(file.clone(), seed, DATA_START, file_end);
    while let Some(found) = scan.next(|_| PayloadUse::Skipped)? {
        match found {
            ScanFound::Frame { header, .. } => {
                last.start = last.start.max(u64::from(header.batch_start));
                last.next_sequence = last.next_sequence.max(header.sequence + 1);
            }
            ScanFound::Batch { offset, header } => {
                last.start = last.start.max(offset);
                last.durable = last.durable.max(header.durable);
                let next = header.first_sequence + u64::from(header.records);
                last.next_sequence = last.next_sequence.max(next);
            }
            ScanFound::Hole(_) => {}
        }
    }
    Ok(last)
}

/// Writes the header and the last batch once more, the same bytes, and syncs them.
///
/// If the fsync of the process before failed, its pages are in memory and marked clean: an fsync alone would say yes to
/// what the disk does not have.
pub(super) fn rewrite(file: &dyn File, header: Option<&[u8]>, start: u64, end: u64) -> io::Result<()> {
    if let Some(header) = header {
        file.pwrite(0, header)?;
    }
    let mut buffer = vec![0; ReadSizes::now().chunk_bytes];
    let mut at = start;
    while at < end {
        let part = buffer.len().min((end - at) as usize);
        let mut unreadable = Vec::new();
        let read = read_around(file, at, &mut buffer[..part], &mut unreadable)? as u64;
        if read == 0 {
            break;
        }
        let mut written = at;
        for lost in unreadable.into_iter().chain(iter::once(at + read..at + read)) {
            file.pwrite(written, &buffer[(written - at) as usize..(lost.start - at) as usize])?;
            written = lost.end;
        }
        at += read;
    }
    // A full disk is known before the sync.
    file.sync_data().map_err(io::Error::other)
}

/// Seals a segment, unless the disk has no room for that: it is read at each start until it has.
pub(super) fn seal_or_wait(
    file: &Arc<dyn File>,
    segment: &mut Segment,
    path: &Path,
) -> io::Result<Option<ActiveSegment>> {
    match seal_file(file.as_ref(), segment) {
        Err(error) if is_passing(&error) => {
            tracing::warn!(path = %path.display(), %error, "no room to seal a segment");
            Ok(Some(ActiveSegment {
                file: file.clone(),
                path: path.to_owned(),
                is_sealing: true,
            }))
        }
        result => result.map(|()| None),
    }
}
