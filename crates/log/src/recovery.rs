//! What is found in the directory at the start: sealed segments by their first block, an unsealed one by reading it.

pub(super) mod unsealed;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::unsealed::{ScannedSegment, fill, rewrite, scan, seal_or_wait};
use super::{
    OpenError,
    damage::{DamageKind, DamagedPlace},
    file_system::{File, FileSystem, is_passing, read_around},
    log::{ActiveSegment, io_error},
    segment::{
        DATA_START, HEADER_LEN, LogIdentity, SegmentHeader, SegmentSeal, VERSION, log_seed, parse_file_name,
        parse_header, parse_seal,
    },
    shared::Segment,
};

/// What is known of the log before its segments are looked at.
pub(super) struct ExpectedLog {
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
pub(super) struct RecoveredLog {
    /// By id, all sealed.
    pub segments: Vec<Segment>,
    pub next_sequence: u64,
    pub next_segment: u64,
    pub damage: Vec<DamagedPlace>,
    /// The newest segment, when there was no room for its seal.
    pub unsealed: Option<ActiveSegment>,
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
pub(super) fn first_block(file: &dyn File) -> io::Result<(Vec<u8>, SegmentHeader)> {
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
        let SegmentHeader::Valid {
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
pub(super) fn recover(fs: &dyn FileSystem, dir: &Path, expected: &ExpectedLog) -> Result<RecoveredLog, OpenError> {
    let found = names(fs, dir)?;
    let log = RecoveredLog {
        segments: Vec::with_capacity(found.len()),
        next_sequence: expected.durable + 1,
        next_segment: expected.newest_segment + 1,
        damage: Vec::new(),
        unsealed: None,
    };
    let mut recovery = Recovery { fs, dir, expected, log };
    let mut own = Vec::with_capacity(found.len());
    for (id, first_sequence) in found {
        own.extend(recovery.open_segment(id, first_sequence)?);
    }
    let newest = own.last().map(|opened: &OpenedSegment| opened.segment.id);
    for opened in own {
        let is_newest = Some(opened.segment.id) == newest;
        recovery.recover_segment(opened, is_newest)?;
    }
    recovery.check_ends();
    // What the process before created or unlinked last may not be durable yet.
    fs.sync_dir(dir).map_err(|source| io_error(dir, source))?;
    Ok(recovery.log)
}

/// A segment of the log, as far as its first block tells.
struct OpenedSegment {
    segment: Segment,
    path: PathBuf,
    file: Arc<dyn File>,
    block: Vec<u8>,
    header: SegmentHeader,
    /// What is read of it comes from the disk, not from the page cache.
    is_from_disk: bool,
}

impl OpenedSegment {
    fn failed(&self) -> impl Fn(io::Error) -> OpenError + '_ {
        |source| io_error(&self.path, source)
    }

    /// Reads the first block again, as the disk has it, where the file system can do that.
    fn read_again(&mut self) -> io::Result<()> {
        self.is_from_disk = self.file.forget_cached()?;
        self.segment.disk_bytes = self.file.len()?;
        (self.block, self.header) = first_block(self.file.as_ref())?;
        Ok(())
    }

    /// Whether the header says what the name says.
    fn has_own_header(&self) -> bool {
        matches!(self.header, SegmentHeader::Valid { id, first_sequence, .. }
            if (id, first_sequence) == (self.segment.id, self.segment.first_sequence))
    }

    fn seal(&self) -> Option<SegmentSeal> {
        parse_seal(&self.block, self.segment.seed()).filter(|seal| seal.end >= DATA_START)
    }

    /// Reads all of it, and makes torn places harmless.
    fn scan(&mut self, newest: bool, durable: u64) -> io::Result<ScannedSegment> {
        let empty = self.segment;
        let tail = scan(&self.file, &mut self.segment, newest, durable, true)?;
        if fill(self.file.as_ref(), self.segment.seed(), &tail.torn)? {
            return Ok(tail);
        }
        // Without a filler a torn place would be taken for damage later; what is behind it was never acknowledged.
        self.segment = empty;
        scan(&self.file, &mut self.segment, newest, durable, false)
    }

    /// Writes header and last batch once more, and syncs them.
    fn rewrite(&self, last_batch: u64) -> io::Result<()> {
        let header = self
            .has_own_header()
            .then(|| &self.block[..HEADER_LEN.min(self.block.len())]);
        match rewrite(self.file.as_ref(), header, last_batch, self.segment.end) {
            // What was read came from the disk; there is nothing better on one that has no room.
            Err(error) if is_passing(&error) && self.is_from_disk => {
                tracing::warn!(path = %self.path.display(), %error, "no room to write the last batch once more");
                Ok(())
            }
            result => result,
        }
    }

    /// Seals it, unless the disk has no room for that.
    fn seal_or_wait(&mut self) -> io::Result<Option<ActiveSegment>> {
        seal_or_wait(&self.file, &mut self.segment, &self.path)
    }
}

/// A recovery under way.
struct Recovery<'a> {
    fs: &'a dyn FileSystem,
    dir: &'a Path,
    expected: &'a ExpectedLog,
    log: RecoveredLog,
}

impl Recovery<'_> {
    /// Opens a segment; `None` when it is another log's.
    fn open_segment(&mut self, id: u64, first_sequence: u64) -> Result<Option<OpenedSegment>, OpenError> {
        let expected = self.expected;
        let mut segment = Segment::empty(id, log_seed(&expected.log), first_sequence, 0);
        let path = self.dir.join(segment.file_name());
        let failed = |source: io::Error| io_error(&path, source);
        let file = self.fs.open(&path).map_err(failed)?;
        segment.disk_bytes = file.len().map_err(failed)?;
        let (block, header) = first_block(file.as_ref()).map_err(failed)?;
        let refused = |what: String| {
            let path = path.display();
            Err(OpenError::Format(format!(
                "{path} has {what}: use the release that wrote it"
            )))
        };
        let is_foreign = match header {
            SegmentHeader::Unknown(version) => {
                return refused(format!("format version {version}, this build reads 1 and {VERSION}"));
            }
            SegmentHeader::UnknownFeatures(features) => {
                return refused(format!("features {features:#x}, which this build does not know"));
            }
            SegmentHeader::Valid { identity: None, .. } => id >= expected.first_with_identity,
            SegmentHeader::Valid {
                identity: Some(identity),
                ..
            } => identity.log != expected.log,
            SegmentHeader::Blank | SegmentHeader::Damaged => false,
        };
        if is_foreign {
            self.damage(DamageKind::Foreign, &segment, 0, 0);
            self.log.next_segment = self.log.next_segment.max(id + 1);
            return Ok(None);
        }
        if id < expected.first_with_identity {
            segment.log_seed = 0;
        }
        Ok(Some(OpenedSegment {
            segment,
            path,
            file,
            block,
            header,
            is_from_disk: false,
        }))
    }

    fn damage(&mut self, kind: DamageKind, segment: &Segment, offset: u64, len: u64) {
        self.log.damage.push(DamagedPlace {
            kind,
            path: self.dir.join(segment.file_name()),
            segment: segment.id,
            offset,
            len,
        });
    }

    /// Takes a segment into the log: by its seal, or else by what is found in it.
    fn recover_segment(&mut self, mut opened: OpenedSegment, newest: bool) -> Result<(), OpenError> {
        if newest {
            let read = opened.read_again();
            read.map_err(opened.failed())?;
        }
        let previous = self.log.segments.last();
        if previous.is_some_and(|previous| previous.id + 1 != opened.segment.id) {
            self.damage(DamageKind::SegmentMissing, &opened.segment, 0, 0);
        }
        match opened.seal() {
            Some(seal) => self.take_sealed(&mut opened, seal, newest)?,
            None if !self.recover_unsealed(&mut opened, newest)? => return Ok(()),
            None => {}
        }
        let segment = opened.segment;
        if !opened.has_own_header() {
            self.damage(DamageKind::SegmentHeader, &segment, 0, opened.block.len() as u64);
        }
        self.log.next_sequence = self.log.next_sequence.max(segment.last_sequence + 1);
        self.log.next_segment = self.log.next_segment.max(segment.id + 1);
        self.log.segments.push(segment);
        Ok(())
    }

    /// A segment that has a seal is what the seal says.
    fn take_sealed(&mut self, opened: &mut OpenedSegment, seal: SegmentSeal, newest: bool) -> Result<(), OpenError> {
        let segment = &mut opened.segment;
        segment.records = seal.records;
        segment.bulk_bytes = seal.bulk_bytes;
        segment.last_sequence = seal.last_sequence;
        segment.end = seal.end;
        if !newest {
            // It may have been compacted.
            let allocated = opened.file.allocated().map_err(opened.failed())?;
            opened.segment.disk_bytes = opened.segment.disk_bytes.min(allocated);
        } else if seal.end <= segment.disk_bytes {
            // Its own sync may have failed, see `rewrite`; the segments before it were sealed before it was made.
            let unsealed = opened.seal_or_wait();
            self.log.unsealed = unsealed.map_err(opened.failed())?;
        }
        Ok(())
    }

    /// Finds what a segment without a seal holds, and seals it; `false` where it was never finished, and is gone.
    fn recover_unsealed(&mut self, opened: &mut OpenedSegment, newest: bool) -> Result<bool, OpenError> {
        let scanned = opened.scan(newest, self.expected.durable);
        let tail = scanned.map_err(opened.failed())?;
        self.log.next_sequence = self.log.next_sequence.max(tail.next_sequence);
        let is_empty = opened.segment.records == 0 && tail.holes.is_empty() && tail.torn_bytes == 0;
        if newest && is_empty && !opened.has_own_header() {
            self.remove_unfinished(opened)?;
            return Ok(false);
        }
        let segment = opened.segment;
        if !newest {
            self.damage(DamageKind::Seal, &segment, 0, 0);
        }
        for &(offset, len) in &tail.holes {
            self.damage(DamageKind::Record, &segment, offset, len);
        }
        if tail.torn_bytes > 0 {
            tracing::info!(path = %opened.path.display(), offset = segment.end, len = tail.torn_bytes,
                "part of a batch that was never acknowledged: passed over");
        }
        opened.rewrite(tail.last_batch).map_err(opened.failed())?;
        let unsealed = opened.seal_or_wait();
        self.log.unsealed = unsealed.map_err(opened.failed())?.filter(|_| newest);
        Ok(true)
    }

    /// Removes the newest segment, which holds nothing and has no header.
    fn remove_unfinished(&mut self, opened: &OpenedSegment) -> Result<(), OpenError> {
        let (path, segment) = (&opened.path, &opened.segment);
        tracing::info!(path = %path.display(), "segment whose creation did not finish: removed");
        // Where it cannot be removed now, its number is not used again.
        let left = match self.fs.unlink(path) {
            Err(error) if is_passing(&error) => 1,
            result => result.map(|()| 0).map_err(opened.failed())?,
        };
        self.fs
            .sync_dir(self.dir)
            .map_err(|source| io_error(self.dir, source))?;
        self.log.next_sequence = self.log.next_sequence.max(segment.first_sequence);
        self.log.next_segment = self.log.next_segment.max(segment.id + left);
        Ok(())
    }

    /// Whether the first and the last segments are there, and the last records.
    fn check_ends(&mut self) {
        let (dir, expected) = (self.dir, self.expected);
        let first = self.log.segments.first().map_or(u64::MAX, |segment| segment.id);
        let last = self.log.segments.last().copied();
        let mut missing = |segment: u64| {
            self.log.damage.push(DamagedPlace {
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
        let known = |damage: &DamagedPlace| damage.segment == last_id && damage.kind == DamageKind::Record;
        if let Some(last) = last
            && last.last_sequence < expected.durable
            && !self.log.damage.iter().any(known)
        {
            self.damage(DamageKind::Record, &last, last.end, 0);
        }
    }
}
