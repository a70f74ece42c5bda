//! What is whole of an image, written anew: the same log, with the same numbers and cursors, in segments of its own.
//!
//! The new segments have ids above all that there were, so that none of the old bytes is valid in them. Where the log's
//! end is lost, an empty segment stands for it: no number comes again. The superblock is written last; without it there
//! is no log.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{ImageCursor, LogImage};
use crate::{
    OpenError, RecordClass, SEGMENTS_DIR,
    cursors::{
        self, PageFacts,
        page::{self, CursorSnapshot},
    },
    file_system::{DirectoryLock, File, FileSystem, PlainFiles, RealFileSystem},
    log::{io_error, seal_file},
    segment::{
        BATCH_HEADER_LEN, BatchHeader, DATA_START, LogIdentity, PAYLOAD_BYTES_MAX, encode_frame, encode_header,
        frame_len, log_seed,
    },
    shared::Segment,
    spool::holder,
    superblock::{CleanStop, Superblock, SuperblockFile},
};

/// Written with one call.
const BATCH_BYTES: usize = 256 << 10;
/// What a segment takes, whatever those before took.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// The lock of a log's directory, held until this is dropped.
pub struct DirectoryHold {
    _lock: Box<dyn Send>,
}

impl DirectoryHold {
    /// Takes the lock of the log in `dir`, and makes none where there is none.
    pub fn take(dir: &Path) -> Result<Self, OpenError> {
        Self::take_on(&PlainFiles, dir)
    }

    /// Takes the lock of the log in `dir` as a process does that opens it: it is there afterwards, and says who holds
    /// it.
    pub fn make(dir: &Path) -> Result<Self, OpenError> {
        Self::take_on(&RealFileSystem::with_spares(0), dir)
    }

    fn take_on(fs: &dyn FileSystem, dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("LOCK");
        match fs.lock(&path, &holder()).map_err(|source| io_error(&path, source))? {
            DirectoryLock::Taken(lock) => Ok(Self { _lock: lock }),
            DirectoryLock::Held(holder) => Err(OpenError::Held {
                dir: dir.to_owned(),
                holder,
            }),
        }
    }
}

/// What a rewrite came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RewrittenLog {
    pub records: u64,
    /// Records whose number does not rise above that of the record before: they were not written.
    pub misplaced: u64,
    pub segments: u64,
    /// Numbers that are given out next are above this.
    pub last_sequence: u64,
}

/// The segment that is written.
struct RewriteSegment {
    file: Arc<dyn File>,
    path: PathBuf,
    segment: Segment,
    previous_batch: u64,
}

/// A log that is being written anew.
pub struct LogRewrite {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    identity: LogIdentity,
    replica: String,
    first_segment: u64,
    next_segment: u64,
    segment_bytes: u64,
    /// The highest number that was given out, as far as anything but the records says.
    highest: u64,
    cursors: Option<Vec<ImageCursor>>,
    active: Option<RewriteSegment>,
    /// The id and the last number of each segment.
    written: Vec<(u64, u64)>,
    last_sequence: u64,
    records: u64,
    misplaced: u64,
    /// A batch that is not written yet, its records, and its first number.
    buffer: Vec<u8>,
    buffered: u32,
    buffered_from: u64,
}

impl LogRewrite {
    /// Begins to write the log of an image anew, in `dir`, which must not hold one.
    pub fn create(image: &LogImage, dir: &Path) -> Result<Self, OpenError> {
        Self::create_on(Arc::new(RealFileSystem::with_spares(0)), image, dir)
    }

    pub(crate) fn create_on(fs: Arc<dyn FileSystem>, image: &LogImage, dir: &Path) -> Result<Self, OpenError> {
        for below in ["", SEGMENTS_DIR, "cursors", "quarantine"] {
            let dir = dir.join(below);
            fs.make_dir(&dir).map_err(|source| io_error(&dir, source))?;
        }
        let identity = match image.identity {
            Some(identity) => LogIdentity {
                epoch: identity.epoch + 1,
                ..identity
            },
            None => LogIdentity {
                log: fs.random(),
                epoch: 1,
            },
        };
        let first_segment = image.highest_segment() + 1;
        Ok(Self {
            dir: dir.to_owned(),
            identity,
            replica: image.replica().unwrap_or_default().to_owned(),
            first_segment,
            next_segment: first_segment,
            segment_bytes: image.segment_bytes().clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
            highest: image.highest_known(),
            cursors: image.cursors.clone(),
            active: None,
            written: Vec::new(),
            last_sequence: 0,
            records: 0,
            misplaced: 0,
            buffer: Vec::new(),
            buffered: 0,
            buffered_from: 0,
            fs,
        })
    }

    /// Appends a record under its number. One whose number does not rise is not written, and counted.
    pub fn append(&mut self, sequence: u64, class: RecordClass, record: &[u8]) -> Result<(), OpenError> {
        if sequence <= self.last_sequence || record.len() as u64 > PAYLOAD_BYTES_MAX {
            self.misplaced += 1;
            return Ok(());
        }
        let len = frame_len(record.len());
        let is_next = self.buffered > 0 && sequence == self.last_sequence + 1;
        if !is_next || self.buffer.len() + len as usize > BATCH_BYTES {
            self.write_batch()?;
        }
        let needed = match self.buffer.is_empty() {
            true => BATCH_HEADER_LEN as u64 + len,
            false => self.buffer.len() as u64 + len,
        };
        let has_room = |active: &RewriteSegment| active.segment.end + needed <= active.segment.disk_bytes;
        if !self.active.as_ref().is_some_and(has_room) {
            self.write_batch()?;
            self.seal()?;
            self.begin_segment(sequence, len)?;
        }
        let active = self.active.as_ref().expect("a segment was begun");
        if self.buffer.is_empty() {
            // Filled in once it is known what follows.
            self.buffer.resize(BATCH_HEADER_LEN, 0);
            self.buffered_from = sequence;
        }
        let seed = active.segment.seed();
        encode_frame(&mut self.buffer, seed, active.segment.end, sequence, class, record);
        let active = self.active.as_mut().expect("a segment was begun");
        if class == RecordClass::Bulk {
            active.segment.bulk_bytes += len;
        }
        active.segment.records += 1;
        active.segment.last_sequence = sequence;
        self.buffered += 1;
        self.last_sequence = sequence;
        self.records += 1;
        Ok(())
    }

    /// Writes what is left, the cursors and the superblock, durably.
    pub fn finish(mut self) -> Result<RewrittenLog, OpenError> {
        self.write_batch()?;
        self.seal()?;
        let highest = self.highest.max(self.last_sequence);
        if highest > self.last_sequence {
            // What was given out behind the last record is not given out again.
            self.begin_segment(highest + 1, 0)?;
            self.seal()?;
        }
        let segments = self.dir.join(SEGMENTS_DIR);
        self.sync_dir(&segments)?;
        self.write_cursors(highest)?;
        self.write_superblock(highest)?;
        Ok(RewrittenLog {
            records: self.records,
            misplaced: self.misplaced,
            segments: self.written.len() as u64,
            last_sequence: highest,
        })
    }

    fn begin_segment(&mut self, first_sequence: u64, len: u64) -> Result<(), OpenError> {
        let bytes = (DATA_START + BATCH_HEADER_LEN as u64 + len).max(self.segment_bytes);
        let segment = Segment::empty(self.next_segment, log_seed(&self.identity.log), first_sequence, bytes);
        let path = self.dir.join(SEGMENTS_DIR).join(segment.file_name());
        let header = encode_header(segment.id, first_sequence, &self.identity);
        let created = self.fs.create(&path, bytes).and_then(|file| {
            file.pwrite(0, &header)?;
            Ok(file)
        });
        self.active = Some(RewriteSegment {
            file: created.map_err(|source| io_error(&path, source))?,
            path,
            segment,
            previous_batch: 0,
        });
        self.next_segment += 1;
        Ok(())
    }

    fn write_batch(&mut self) -> Result<(), OpenError> {
        let (Some(active), 1..) = (&mut self.active, self.buffered) else {
            return Ok(());
        };
        let start = active.segment.end;
        let header = BatchHeader {
            records: self.buffered,
            len: self.buffer.len() as u32,
            previous: active.previous_batch as u32,
            first_sequence: self.buffered_from,
            durable: self.buffered_from - 1,
        };
        self.buffer[..BATCH_HEADER_LEN].copy_from_slice(&header.encode(active.segment.seed(), start));
        let written = active.file.pwrite(start, &self.buffer);
        written.map_err(|source| io_error(&active.path, source))?;
        active.previous_batch = start;
        active.segment.end += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffered = 0;
        Ok(())
    }

    fn seal(&mut self) -> Result<(), OpenError> {
        let Some(mut active) = self.active.take() else {
            return Ok(());
        };
        let sealed = seal_file(active.file.as_ref(), &mut active.segment);
        sealed.map_err(|source| io_error(&active.path, source))?;
        self.written.push((active.segment.id, active.segment.last_sequence));
        Ok(())
    }

    /// Writes the page, where the positions are known: without one the routes begin at the oldest record.
    fn write_cursors(&self, highest: u64) -> Result<(), OpenError> {
        let Some(cursors) = &self.cursors else { return Ok(()) };
        let dir = self.dir.join("cursors");
        let path = dir.join(cursors::FILE);
        let snapshots: Vec<CursorSnapshot<'_>> = cursors
            .iter()
            .map(|cursor| (cursor.name.as_str(), (cursor.position, cursor.settled())))
            .collect();
        let body = page::encode(&self.identity, &self.facts(highest), &snapshots);
        let written = self.fs.create(&path, 2 * cursors::SLOT_LEN as u64).and_then(|file| {
            for generation in [1, 2] {
                file.pwrite(cursors::slot_offset(generation), &page::slot(generation, &body))?;
            }
            file.sync_data()
        });
        written.map_err(|source| io_error(&path, source))?;
        self.sync_dir(&dir)
    }

    fn facts(&self, highest: u64) -> PageFacts {
        let lowest = self.cursors.iter().flatten().map(|cursor| cursor.position).min();
        let wanted = |(_, last): &&(u64, u64)| lowest.is_none_or(|lowest| *last > lowest);
        match self.written.last() {
            Some((newest, _)) => PageFacts {
                last_sequence: highest,
                oldest_segment: self.written.iter().find(wanted).map_or(newest + 1, |(id, _)| *id),
                newest_segment: *newest,
            },
            None => PageFacts::default(),
        }
    }

    fn write_superblock(&self, highest: u64) -> Result<(), OpenError> {
        let (mut file, _) = SuperblockFile::read(self.fs.as_ref(), &self.dir)?;
        let mut superblock = Superblock {
            generation: 0,
            identity: self.identity,
            clean: Some(CleanStop {
                last_sequence: match self.written.is_empty() {
                    true => 0,
                    false => highest,
                },
                next_segment: self.next_segment,
            }),
            first_with_identity: self.first_segment,
            has_page: self.cursors.is_some(),
            born: 0,
            replica: self.replica.clone(),
        };
        let path = file.path().to_owned();
        match file.write(self.fs.as_ref(), &mut superblock) {
            Ok(true) => Ok(()),
            Ok(false) => Err(io_error(&path, std::io::ErrorKind::StorageFull.into())),
            Err(source) => Err(io_error(&path, source)),
        }
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), OpenError> {
        self.fs.sync_dir(dir).map_err(|source| io_error(dir, source))
    }
}

impl LogImage {
    /// The highest number that was given out, as far as anything but the records says.
    fn highest_known(&self) -> u64 {
        let cursors = self.cursors.iter().flatten().map(ImageCursor::highest);
        let headed = self.segments.iter().filter(|file| file.has_own_header);
        let named = headed.map(|file| file.first_sequence - 1);
        let highest = cursors.chain(named).max().unwrap_or(0);
        highest.max(self.durable())
    }

    /// The id of the newest segment that there is, of whichever log, or was.
    fn highest_segment(&self) -> u64 {
        let found = self.segments.iter().chain(&self.foreign).map(|file| file.id).max();
        found.unwrap_or(0).max(self.newest_segment())
    }

    /// What the largest of the segments takes.
    fn segment_bytes(&self) -> u64 {
        let len = |file: &super::SegmentFile| self.fs.open(&file.path).and_then(|file| file.len()).unwrap_or(0);
        self.segments.iter().map(len).max().unwrap_or(0)
    }
}

impl ImageCursor {
    /// The highest number that it has settled.
    fn highest(&self) -> u64 {
        let last = self.settled.iter().last();
        last.map_or(self.position, |range| self.position.max(*range.end()))
    }
}
