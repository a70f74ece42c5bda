//! The log itself: single-threaded, synchronous, and the only one that writes. The writer thread drives it, and so does
//! the simulator of the tests.

mod append;
mod positions;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub(super) use self::append::{AppendRequest, seal_file};
use super::{
    AppendError, LogObserver, LogOptions, OpenError, SEGMENTS_DIR,
    audience::OpenCursors,
    cursors::{CursorDamage, CursorsFound, LogCursors, PathError},
    damage::{DamageKind, DamagedPlace},
    file_system::{File, FileSystem},
    quarantine::Quarantine,
    recovery::{self, ExpectedLog},
    segment::{BATCH_HEADER_LEN, DATA_START, LogIdentity, PAYLOAD_BYTES_MAX, frame_len},
    shared::{LogShared, Segment},
    superblock::{CleanStop, Superblock, SuperblockFile, SuperblockFound},
};

/// A segment's smallest size: the header's block and as much again.
const SEGMENT_BYTES_MIN: u64 = 2 * DATA_START;
/// `bytes_max` is at least this many segments, so that deleting one makes room.
const SEGMENTS_MIN: u64 = 4;

/// The limits, made consistent.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogLimits {
    pub bytes_max: u64,
    pub bulk_bytes_max: u64,
    pub segment_bytes: u64,
    /// What a segment takes that is made for one large record.
    pub large_segment_bytes_max: u64,
}

impl LogLimits {
    pub(super) fn new(options: &LogOptions) -> Self {
        let segment_bytes_max = (options.bytes_max / SEGMENTS_MIN).clamp(SEGMENT_BYTES_MIN, PAYLOAD_BYTES_MAX);
        let segment_bytes = options.segment_bytes.clamp(SEGMENT_BYTES_MIN, segment_bytes_max);
        let large = segment_bytes_with(frame_len(options.record_bytes_max as usize));
        Self {
            bytes_max: options.bytes_max,
            bulk_bytes_max: (options.bytes_max as f64 * options.bulk_share_max.clamp(0.0, 1.0)) as u64,
            segment_bytes,
            large_segment_bytes_max: large.clamp(segment_bytes, segment_bytes_max),
        }
    }

    /// What a segment takes whose first frame has this length.
    pub(super) fn segment_bytes_for(&self, len: u64) -> u64 {
        segment_bytes_with(len).max(self.segment_bytes)
    }
}

/// What a segment takes that holds one frame of this length.
fn segment_bytes_with(len: u64) -> u64 {
    DATA_START + BATCH_HEADER_LEN as u64 + len
}

/// The segment that is written.
pub(super) struct ActiveSegment {
    pub file: Arc<dyn File>,
    pub path: PathBuf,
    /// Its seal was to be written and there was no room: what there is of it may be whole, so nothing is appended any
    /// more.
    pub is_sealing: bool,
}

/// The open log.
pub(super) struct Log {
    fs: Arc<dyn FileSystem>,
    shared: Arc<LogShared>,
    observer: Arc<dyn LogObserver>,
    limits: LogLimits,
    /// By id. The last one is the active one, if there is one.
    segments: Vec<Segment>,
    active: Option<ActiveSegment>,
    next_sequence: u64,
    next_segment: u64,
    /// Where in the active segment the last batch starts, 0 before the first.
    previous_batch: u64,
    cursors: Arc<LogCursors>,
    followers: OpenCursors,
    superblock: Superblock,
    superblock_file: SuperblockFile,
    quarantine: Quarantine,
    /// Why the last segment could not be made; looked at again on every tick.
    no_room: Option<AppendError>,
    buffer: Vec<u8>,
}

impl Log {
    /// Recovers what is in the directory. Appends go to a new segment.
    pub(super) fn open(
        fs: Arc<dyn FileSystem>,
        options: &LogOptions,
        observer: Arc<dyn LogObserver>,
    ) -> Result<Self, OpenError> {
        let limits = LogLimits::new(options);
        let segments_dir = options.dir.join(SEGMENTS_DIR);
        let cursors_dir = options.dir.join("cursors");
        let quarantine_dir = options.dir.join("quarantine");
        for dir in [&segments_dir, &cursors_dir, &quarantine_dir] {
            fs.make_dir(dir).map_err(|source| io_error(dir, source))?;
        }
        let (mut superblock_file, found) = SuperblockFile::read(fs.as_ref(), &options.dir)?;
        let known = match &found {
            SuperblockFound::Whole(superblock) => Some(superblock.identity.log),
            SuperblockFound::Damaged | SuperblockFound::Missing => None,
        };
        let in_segments = recovery::identity(fs.as_ref(), &segments_dir, known.is_none())?;
        let known = known.or(in_segments.map(|(identity, _)| identity.log));
        let cursors = CursorsFound::read(fs.as_ref(), &cursors_dir, known).map_err(path_error)?;
        let mut signs = Vec::new();
        let mut superblock = Self::superblock(
            fs.as_ref(),
            options,
            &superblock_file,
            found,
            in_segments,
            &cursors,
            &mut signs,
        )?;
        let facts = cursors.facts().unwrap_or_default();
        let clean = superblock.clean.take();
        let expected = ExpectedLog {
            log: superblock.identity.log,
            first_with_identity: superblock.first_with_identity,
            durable: facts.last_sequence.max(clean.map_or(0, |clean| clean.last_sequence)),
            oldest_segment: facts.oldest_segment,
            newest_segment: facts
                .newest_segment
                .max(clean.map_or(0, |clean| clean.next_segment.saturating_sub(1))),
        };
        let recovered = recovery::recover(fs.as_ref(), &segments_dir, &expected)?;
        let before = superblock.clone();
        superblock.identity.epoch += 1;
        let has_superblock = superblock_file
            .write(fs.as_ref(), &mut superblock)
            .map_err(|source| io_error(superblock_file.path(), source))?;
        if !has_superblock {
            // The life before goes on, as far as the disk knows.
            superblock = before;
        }
        let oldest = recovered.segments.first().map_or(1, |segment| segment.first_sequence);
        signs.extend(
            cursors
                .damaged_files()
                .map(|path| (DamageKind::Cursor, path.to_owned())),
        );
        let cursors = LogCursors::new(fs.clone(), cursors_dir, superblock.identity, cursors, oldest - 1);
        if has_superblock {
            cursors.allow_writing();
        }
        // A cursor is never ahead of the log, unless the log lost its end: those numbers were seen and settled.
        let next_sequence = recovered
            .next_sequence
            .max(cursors.highest() + 1)
            .max(options.numbers_from);
        let shared = Arc::new(LogShared::new(
            fs.clone(),
            segments_dir,
            recovered.segments.clone(),
            next_sequence - 1,
            options,
        ));
        let mut log = Self {
            quarantine: Quarantine::open(fs.clone(), quarantine_dir),
            fs,
            shared,
            observer,
            limits,
            segments: recovered.segments,
            active: recovered.unsealed,
            next_sequence,
            next_segment: recovered.next_segment,
            previous_batch: 0,
            cursors: Arc::new(cursors),
            followers: OpenCursors::default(),
            superblock,
            superblock_file,
            // Without it nothing is appended.
            no_room: (!has_superblock).then_some(AppendError::Full),
            buffer: Vec::new(),
        };
        for damage in recovered.damage {
            log.shared.report(damage);
        }
        for (kind, path) in signs {
            tracing::error!(path = %path.display(), kind = kind.label(), "the log is not as it was left: {}", kind.meaning());
            log.observer.damage(kind.label());
        }
        log.settle_damage();
        log.publish();
        Ok(log)
    }

    /// The superblock as it was found, or else as the segments and cursors have it, or else of a new log; what is wrong
    /// with it is added to
    /// `signs`.
    fn superblock(
        fs: &dyn FileSystem,
        options: &LogOptions,
        file: &SuperblockFile,
        found: SuperblockFound,
        in_segments: Option<(LogIdentity, u64)>,
        cursors: &CursorsFound,
        signs: &mut Vec<(DamageKind, PathBuf)>,
    ) -> Result<Superblock, OpenError> {
        let mut sign = |kind, path: &Path| signs.push((kind, path.to_owned()));
        let had_page = match &found {
            SuperblockFound::Whole(superblock) => superblock.has_page,
            SuperblockFound::Damaged | SuperblockFound::Missing => in_segments.is_some(),
        };
        match cursors.damage {
            Some(CursorDamage::Damaged) if had_page => sign(DamageKind::Cursor, &cursors.path),
            Some(CursorDamage::Damaged) => {}
            Some(CursorDamage::Foreign) => sign(DamageKind::Foreign, &cursors.path),
            None => {}
        }
        let in_cursors = cursors.identity();
        let mut superblock = match found {
            SuperblockFound::Whole(superblock) => {
                let is_newer = |other: LogIdentity| {
                    other.log == superblock.identity.log && other.epoch > superblock.identity.epoch
                };
                let born = file.born();
                let is_copy = born != 0 && superblock.born != 0 && born != superblock.born;
                let others = [in_cursors, in_segments.map(|(identity, _)| identity)];
                if is_copy || others.into_iter().flatten().any(is_newer) {
                    sign(DamageKind::Restored, file.path());
                }
                superblock
            }
            SuperblockFound::Damaged | SuperblockFound::Missing => {
                let dir = options.dir.join(SEGMENTS_DIR);
                let next_segment = recovery::names(fs, &dir)?.last().map_or(0, |(id, _)| *id) + 1;
                let known = in_segments.map(|(identity, _)| identity).or(in_cursors);
                // It is durable before anything else of the log is there: alone, it was never finished.
                if known.is_some() {
                    sign(DamageKind::Superblock, file.path());
                }
                Superblock {
                    generation: 0,
                    identity: known.unwrap_or_else(|| LogIdentity {
                        log: fs.random(),
                        epoch: 0,
                    }),
                    clean: None,
                    first_with_identity: in_segments.map_or(next_segment, |(_, first)| first),
                    has_page: false,
                    born: 0,
                    replica: String::new(),
                }
            }
        };
        let epochs = [in_cursors, in_segments.map(|(identity, _)| identity)];
        for other in epochs
            .into_iter()
            .flatten()
            .filter(|other| other.log == superblock.identity.log)
        {
            superblock.identity.epoch = superblock.identity.epoch.max(other.epoch);
        }
        superblock.born = file.born();
        superblock.replica.clone_from(&options.replica);
        Ok(superblock)
    }

    pub(super) fn shared(&self) -> &Arc<LogShared> {
        &self.shared
    }

    pub(super) fn cursors(&self) -> &Arc<LogCursors> {
        &self.cursors
    }

    /// From here on the log may take so much of the disk.
    pub(super) fn limit(&mut self, bytes_max: u64) {
        self.limits.bytes_max = bytes_max;
        self.shared.limit(bytes_max);
    }

    /// Whether the last segment could not be made.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn lacks_room(&self) -> bool {
        self.no_room.is_some()
    }

    /// What is done now and then: segments behind all cursors are deleted, damage is set aside, and a full spool looks
    /// for room.
    pub(super) fn tick(&mut self) {
        if self.shared.is_failed() {
            return;
        }
        self.settle_damage();
        let shared = self.shared.clone();
        let _work = shared.disk_works();
        if let Err(reason) = self.has_superblock() {
            return self.fail(&reason);
        }
        if let Err((path, error)) = self.delete_settled() {
            return self.fail(&format!("delete {}: {error}", path.display()));
        }
        self.take_compacted();
        if self.no_room.is_some() {
            match self.roll(0) {
                Ok(_) => self.publish(),
                Err(reason) => self.fail(&reason),
            }
        }
    }

    /// Counts with what compacted segments take now.
    fn take_compacted(&mut self) {
        let compacted = self.shared.take_compacted();
        for (id, made) in &compacted {
            if let Some(segment) = self.segments.iter_mut().find(|segment| segment.id == *id) {
                segment.disk_bytes = made.disk_bytes;
                segment.records = made.records;
                segment.bulk_bytes = made.bulk_bytes;
            }
        }
        if !compacted.is_empty() {
            self.publish();
        }
    }

    pub(super) fn fs(&self) -> &dyn FileSystem {
        self.fs.as_ref()
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The oldest was deleted.
    pub(super) fn remove_first_segment(&mut self) {
        self.segments.remove(0);
    }

    /// Counts damage, logs where it is and sets the bytes aside.
    fn settle_damage(&mut self) {
        let reports = self.shared.take_damage();
        for damage in reports.places {
            let DamagedPlace {
                kind,
                path,
                offset,
                len,
                ..
            } = &damage;
            tracing::error!(
                path = %path.display(), offset, len, kind = kind.label(),
                "damage in the spool: its bytes are set aside in quarantine, its records are lost"
            );
            self.observer.damage(kind.label());
            if *len > 0 {
                self.quarantine.copy_aside(&damage);
            }
        }
        for (kind, places) in reports.more {
            tracing::error!(
                places,
                kind = kind.label(),
                "more damage in the spool, which is not set aside"
            );
            for _ in 0..places {
                self.observer.damage(kind.label());
            }
        }
    }

    pub(super) fn publish(&self) {
        self.shared.publish_segments(&self.segments, self.no_room);
    }

    fn fail(&mut self, reason: &str) {
        tracing::error!(reason, "the spool failed: nothing more is written");
        self.shared.fail(reason);
    }

    /// Makes everything durable, seals the log and marks it as closed.
    pub(super) fn close(&mut self) {
        self.no_room = None;
        self.tick();
        if !self.shared.is_failed() {
            let sealed = self.seal();
            self.publish();
            self.sync_cursors();
            self.mark_clean(sealed);
        }
        self.publish();
    }

    fn mark_clean(&mut self, sealed: Result<bool, String>) {
        match sealed {
            Err(reason) => return self.fail(&reason),
            Ok(false) => return,
            Ok(true) if self.shared.is_failed() => return,
            Ok(true) => {}
        }
        self.superblock.has_page |= self.cursors.has_written();
        self.superblock.clean = Some(CleanStop {
            last_sequence: self.segments.last().map_or(0, |newest| newest.last_sequence),
            next_segment: self.next_segment,
        });
        if let Err(error) = self.superblock_file.write(self.fs.as_ref(), &mut self.superblock) {
            self.fail(&format!("{}: {error}", self.superblock_file.path().display()));
        }
    }
}

fn path_error((path, source): PathError) -> OpenError {
    OpenError::Io { path, source }
}

pub(super) fn io_error(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        path: path.to_owned(),
        source,
    }
}
