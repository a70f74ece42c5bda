//! What is found in the directory at the start: sealed segments by their first block, an unsealed one by reading it.

use std::{io, iter, path::Path, sync::Arc};

use super::{
    Class, OpenError,
    damage::{Damage, DamageKind},
    file_system::{File, FileSystem, is_passing, read_around},
    log::{Active, io_error, seal_file},
    scan::{Found, Hole, Payload, Scan},
    segment::{
        DATA_START, HEADER_LEN, Header, LogIdentity, SegmentSeed, VERSION, encode_filler, log_seed, parse_file_name,
        parse_header, parse_seal,
    },
    shared::Segment,
    sizes::ReadSizes,
};

/// What is known of the log before its segments are looked at.
pub(super) struct Expected {
    pub log: [u8; 16],
    /// The first segment that was made with an identity.
    pub first_with_identity: u64,
    /// Every record up to this number was durable once.
    pub durable: u64,
    /// The oldest segment that a cursor needs, and the newest there was; 0 when that is not known.
    pub oldest_segment: u64,
    pub newest_segment: u64,
}

/// The log as it was found.
pub(super) struct Recovered {
    /// By id, all sealed.
    pub segments: Vec<Segment>,
    pub next_sequence: u64,
    pub next_segment: u64,
    pub damage: Vec<Damage>,
    /// The newest segment, when there was no room for its seal.
    pub unsealed: Option<Active>,
}

/// The ids and first sequence numbers in the names of the segments, by id.
pub(super) fn names(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<(u64, u64)>, OpenError> {
    let names = fs.list(dir).map_err(|source| io_error(dir, source))?;
    let numbers = names.iter().filter_map(|name| parse_file_name(name));
    let mut found: Vec<_> = numbers.filter(|(_, first_sequence)| *first_sequence > 0).collect();
    found.sort_unstable();
    Ok(found)
}

/// A segment's first block, and the header in it.
fn first_block(file: &dyn File) -> io::Result<(Vec<u8>, Header)> {
    let mut block = vec![0; DATA_START as usize];
    let read = read_around(file, 0, &mut block, &mut Vec::new())?;
    block.truncate(read);
    let header = parse_header(&block);
    Ok((block, header))
}

/// The identity that the newest segment has, and, where `all` are to be looked at, the first of them that has it.
pub(super) fn identity(fs: &dyn FileSystem, dir: &Path, all: bool) -> Result<Option<(LogIdentity, u64)>, OpenError> {
    let mut newest: Option<(LogIdentity, u64)> = None;
    for (id, first_sequence) in names(fs, dir)?.into_iter().rev() {
        let path = dir.join(Segment::empty(id, 0, first_sequence, 0).file_name());
        let failed = |source: io::Error| io_error(&path, source);
        let (_, header) = first_block(fs.open(&path).map_err(failed)?.as_ref()).map_err(failed)?;
        let Header::Valid {
            identity: Some(identity),
            ..
        } = header
        else {
            continue;
        };
        match &mut newest {
            None if !all => return Ok(Some((identity, id))),
            None => newest = Some((identity, id)),
            Some((newest, first)) if newest.log == identity.log => *first = id,
            Some(_) => {}
        }
    }
    Ok(newest)
}

/// Opens every segment, and cuts, syncs and seals what was not sealed.
pub(super) fn recover(fs: &dyn FileSystem, dir: &Path, expected: &Expected) -> Result<Recovered, OpenError> {
    let found = names(fs, dir)?;
    let mut recovered = Recovered {
        segments: Vec::with_capacity(found.len()),
        next_sequence: expected.durable + 1,
        next_segment: expected.newest_segment + 1,
        damage: Vec::new(),
        unsealed: None,
    };
    let mut own = Vec::with_capacity(found.len());
    for (id, first_sequence) in found {
        own.extend(recovered.look_at(fs, dir, expected, id, first_sequence)?);
    }
    let newest = own.last().map(|looked: &Looked| looked.segment.id);
    for looked in own {
        let is_newest = Some(looked.segment.id) == newest;
        recovered.add(fs, dir, expected, looked, is_newest)?;
    }
    recovered.check_ends(dir, expected);
    // What the process before created or unlinked last may not be durable yet.
    fs.sync_dir(dir).map_err(|source| io_error(dir, source))?;
    Ok(recovered)
}

/// A segment of the log, as far as its first block tells.
struct Looked {
    segment: Segment,
    file: Arc<dyn File>,
    block: Vec<u8>,
    header: Header,
}

impl Recovered {
    /// Opens a segment; `None` when it is another log's.
    fn look_at(
        &mut self,
        fs: &dyn FileSystem,
        dir: &Path,
        expected: &Expected,
        id: u64,
        first_sequence: u64,
    ) -> Result<Option<Looked>, OpenError> {
        let mut segment = Segment::empty(id, log_seed(&expected.log), first_sequence, 0);
        let path = dir.join(segment.file_name());
        let failed = |source: io::Error| io_error(&path, source);
        let file = fs.open(&path).map_err(failed)?;
        segment.disk_bytes = file.len().map_err(failed)?;
        let (block, header) = first_block(file.as_ref()).map_err(failed)?;
        let refused = |what: String| {
            let path = path.display();
            Err(OpenError::Format(format!(
                "{path} has {what}: use the release that wrote it"
            )))
        };
        let is_foreign = match header {
            Header::Unknown(version) => {
                return refused(format!("format version {version}, this build reads 1 and {VERSION}"));
            }
            Header::UnknownFeatures(features) => {
                return refused(format!("features {features:#x}, which this build does not know"));
            }
            Header::Valid { identity: None, .. } => id >= expected.first_with_identity,
            Header::Valid {
                identity: Some(identity),
                ..
            } => identity.log != expected.log,
            Header::Blank | Header::Damaged => false,
        };
        if is_foreign {
            self.damage(DamageKind::Foreign, dir, &segment, 0, 0);
            self.next_segment = self.next_segment.max(id + 1);
            return Ok(None);
        }
        if id < expected.first_with_identity {
            segment.log_seed = 0;
        }
        Ok(Some(Looked {
            segment,
            file,
            block,
            header,
        }))
    }

    fn damage(&mut self, kind: DamageKind, dir: &Path, segment: &Segment, offset: u64, len: u64) {
        self.damage.push(Damage {
            kind,
            path: dir.join(segment.file_name()),
            segment: segment.id,
            offset,
            len,
        });
    }

    fn add(
        &mut self,
        fs: &dyn FileSystem,
        dir: &Path,
        expected: &Expected,
        looked: Looked,
        newest: bool,
    ) -> Result<(), OpenError> {
        let Looked {
            mut segment,
            file,
            mut block,
            mut header,
        } = looked;
        let path = dir.join(segment.file_name());
        let failed = |source: io::Error| io_error(&path, source);
        let mut is_from_disk = false;
        if newest {
            is_from_disk = file.forget_cached().map_err(failed)?;
            segment.disk_bytes = file.len().map_err(failed)?;
            (block, header) = first_block(file.as_ref()).map_err(failed)?;
        }
        let is_expected = matches!(header, Header::Valid { id, first_sequence, .. }
            if (id, first_sequence) == (segment.id, segment.first_sequence));
        if self
            .segments
            .last()
            .is_some_and(|previous| previous.id + 1 != segment.id)
        {
            self.damage(DamageKind::SegmentMissing, dir, &segment, 0, 0);
        }
        let seal = parse_seal(&block, segment.seed()).filter(|seal| seal.end >= DATA_START);
        if let Some(seal) = seal {
            segment.records = seal.records;
            segment.bulk_bytes = seal.bulk_bytes;
            segment.last_sequence = seal.last_sequence;
            segment.end = seal.end;
            if !newest {
                // It may have been compacted.
                segment.disk_bytes = segment.disk_bytes.min(file.allocated().map_err(failed)?);
            }
            if newest && seal.end <= segment.disk_bytes {
                // Its own sync may have failed, see `rewrite`; the segments before it were sealed before it was made.
                self.unsealed = seal_or_wait(&file, &mut segment, &path).map_err(failed)?;
            }
        } else {
            let empty = segment;
            let mut tail = scan(&file, &mut segment, newest, expected.durable, true).map_err(failed)?;
            if !fill(file.as_ref(), segment.seed(), &tail.torn).map_err(failed)? {
                // Without a filler a torn place would be taken for damage later; what is behind it was never
                // acknowledged.
                segment = empty;
                tail = scan(&file, &mut segment, newest, expected.durable, false).map_err(failed)?;
            }
            self.next_sequence = self.next_sequence.max(tail.next_sequence);
            if newest && !is_expected && segment.records == 0 && tail.holes.is_empty() && tail.torn_bytes == 0 {
                tracing::info!(path = %path.display(), "segment whose creation did not finish: removed");
                let left = match fs.unlink(&path) {
                    Err(error) if is_passing(&error) => 1,
                    result => result.map(|()| 0).map_err(failed)?,
                };
                fs.sync_dir(dir).map_err(|source| io_error(dir, source))?;
                self.next_sequence = self.next_sequence.max(segment.first_sequence);
                self.next_segment = self.next_segment.max(segment.id + left);
                return Ok(());
            }
            if !newest {
                self.damage(DamageKind::Seal, dir, &segment, 0, 0);
            }
            for &(offset, len) in &tail.holes {
                self.damage(DamageKind::Record, dir, &segment, offset, len);
            }
            if tail.torn_bytes > 0 {
                tracing::info!(path = %path.display(), offset = segment.end, len = tail.torn_bytes,
                    "part of a batch that was never acknowledged: passed over");
            }
            let header = is_expected.then(|| &block[..HEADER_LEN.min(block.len())]);
            match rewrite(file.as_ref(), header, tail.last_batch, segment.end) {
                // What was read came from the disk; there is nothing better on one that has no room.
                Err(error) if is_passing(&error) && is_from_disk => {
                    tracing::warn!(path = %path.display(), %error, "no room to write the last batch once more");
                }
                result => result.map_err(failed)?,
            }
            let unsealed = seal_or_wait(&file, &mut segment, &path).map_err(failed)?;
            self.unsealed = unsealed.filter(|_| newest);
        }
        if !is_expected {
            self.damage(DamageKind::SegmentHeader, dir, &segment, 0, block.len() as u64);
        }
        self.next_sequence = self.next_sequence.max(segment.last_sequence + 1);
        self.next_segment = self.next_segment.max(segment.id + 1);
        self.segments.push(segment);
        Ok(())
    }

    /// Whether the first and the last segments are there, and the last records.
    fn check_ends(&mut self, dir: &Path, expected: &Expected) {
        let first = self.segments.first().map_or(u64::MAX, |segment| segment.id);
        let last = self.segments.last().copied();
        let mut missing = |segment: u64| {
            self.damage.push(Damage {
                kind: DamageKind::SegmentMissing,
                path: dir.to_owned(),
                segment,
                offset: 0,
                len: 0,
            });
        };
        let last_id = last.map_or(0, |last| last.id);
        if expected.oldest_segment > 0 && first > expected.oldest_segment && last_id > 0 {
            missing(expected.oldest_segment);
        }
        if last_id < expected.newest_segment {
            return missing(last_id + 1);
        }
        // A place that was found damaged stands for what is missing behind it.
        let known = |damage: &Damage| damage.segment == last_id && damage.kind == DamageKind::Record;
        if let Some(last) = last
            && last.last_sequence < expected.durable
            && !self.damage.iter().any(known)
        {
            self.damage(DamageKind::Record, dir, &last, last.end, 0);
        }
    }
}

/// What a segment without a seal was found to hold, beyond what its [`Segment`] says.
struct Tail {
    /// Damage, as offset and length: what stood there was durable once.
    holes: Vec<(u64, u64)>,
    /// Bytes of batches whose sync did not finish, and those of them that stand before a record that is whole.
    torn_bytes: u64,
    torn: Vec<(u64, u64)>,
    /// Where the last batch starts.
    last_batch: u64,
    /// Above every number that was given out.
    next_sequence: u64,
}

/// Reads a whole segment that has no seal, and finds where it ends.
///
/// A batch is written only after the one before it was synced, and says how far the log was durable by then; the page
/// of the cursors says it too. So a hole before the last batch is damage, and so is one where records are missing that
/// were durable. Another hole in the last batch, or after it, was torn before anybody was told that it is there; what
/// is whole around it is kept, unless `keeps_torn` is false. A segment that is not the newest had a seal once, and was
/// cut at its end: every hole is damage.
fn scan(file: &Arc<dyn File>, segment: &mut Segment, newest: bool, durable: u64, keeps_torn: bool) -> io::Result<Tail> {
    let file_end = segment.disk_bytes;
    let mut tail = Tail {
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
    let mut judge = |hole: Hole, end: u64, last_sequence: u64| {
        let was_durable = hole.unreadable || hole.offset < last_batch || last_sequence.max(durable_before) < durable;
        if was_durable && end > hole.offset {
            tail.holes.push((hole.offset, end - hole.offset));
        } else {
            tail.torn_bytes += end - hole.offset;
        }
        was_durable.then_some(end)
    };
    let mut torn = Vec::new();
    let mut hole: Option<Hole> = None;
    let mut scan = Scan::new(file.clone(), segment.seed(), DATA_START, file_end);
    while let Some(found) = scan.next(|_| Payload::Checked)? {
        match found {
            Found::Frame { offset, header, .. } => {
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
                if header.class == Class::Bulk {
                    segment.bulk_bytes += header.frame_len();
                }
            }
            // One without records behind it was torn with them.
            Found::Batch { .. } => {}
            Found::Hole(next) => {
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
fn fill(file: &dyn File, seed: SegmentSeed, torn: &[(u64, u64)]) -> io::Result<bool> {
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
    let mut scan = Scan::new(file.clone(), seed, DATA_START, file_end);
    while let Some(found) = scan.next(|_| Payload::Skipped)? {
        match found {
            Found::Frame { header, .. } => {
                last.start = last.start.max(u64::from(header.batch_start));
                last.next_sequence = last.next_sequence.max(header.sequence + 1);
            }
            Found::Batch { offset, header } => {
                last.start = last.start.max(offset);
                last.durable = last.durable.max(header.durable);
                let next = header.first_sequence + u64::from(header.records);
                last.next_sequence = last.next_sequence.max(next);
            }
            Found::Hole(_) => {}
        }
    }
    Ok(last)
}

/// Writes the header and the last batch once more, the same bytes, and syncs them.
///
/// If the fsync of the process before failed, its pages are in memory and marked clean: an fsync alone would say yes to
/// what the disk does not have.
fn rewrite(file: &dyn File, header: Option<&[u8]>, start: u64, end: u64) -> io::Result<()> {
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
fn seal_or_wait(file: &Arc<dyn File>, segment: &mut Segment, path: &Path) -> io::Result<Option<Active>> {
    match seal_file(file.as_ref(), segment) {
        Err(error) if is_passing(&error) => {
            tracing::warn!(path = %path.display(), %error, "no room to seal a segment");
            Ok(Some(Active {
                file: file.clone(),
                path: path.to_owned(),
                is_sealing: true,
            }))
        }
        result => result.map(|()| None),
    }
}
