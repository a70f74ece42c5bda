//! A log's directory, looked at through plain files: for people with a log that is damaged, or was copied, or that a
//! process is appending to.
//!
//! Nothing is written and no lock is taken. What a process does meanwhile is no damage: what it wrote last may be read
//! by half, so it is looked at again before it counts (`LOOKS_MAX`), and a segment that is gone was deleted.
//!
//! Which log this is, is asked of the superblock, then of the headers of the segments, then of the page of the cursors,
//! and at last of the checksums themselves. Damage has the kinds that the log's own recovery counts ([`damage_kinds`]
//! (crate::damage_kinds)); unlike it, every record is held against its checksum.

mod census;
mod directory;
mod found;
mod rewrite;

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;

pub use self::census::{ImageCensus, ImageDepth, ImageSegment, ImageStep};
use self::directory::ImageDirectory;
pub use self::rewrite::{DirectoryHold, LogRewrite, RewrittenLog};
use super::{
    OpenError, RecordClass,
    cursors::{self, PageFacts},
    damage::DamageKind,
    file_system::{FileSystem, PlainFiles},
    numbers_given_out,
    segment::{LogIdentity, SegmentSeed},
    settled::SettledRanges,
    superblock::Superblock,
};

/// What looks like damage is looked at again, at most so often, until it is the same twice.
const LOOKS_MAX: usize = 5;
const LOOK_WAIT: Duration = Duration::from_millis(20);

/// A log's directory as it was found.
pub struct LogImage {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    superblock: Option<Superblock>,
    superblock_copies: Vec<ImageCopy>,
    page_copies: Vec<ImageCopy>,
    identity: Option<LogIdentity>,
    facts: PageFacts,
    cursors: Option<Vec<ImageCursor>>,
    /// By id, without those of other logs.
    segments: Vec<SegmentFile>,
    foreign: Vec<SegmentFile>,
    damage: Vec<ImageDamage>,
    notes: Vec<ImageNote>,
}

/// One of the two copies in which superblock and page are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageCopy {
    /// The one that counts.
    Current,
    /// Whole, and older.
    Older,
    /// A write that was torn leaves one, and so does damage; the other counts.
    NotWhole,
}

impl ImageCopy {
    /// For people, and for programs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Older => "older",
            Self::NotWhole => "not_whole",
        }
    }
}

/// Something that was damaged or is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDamage {
    pub path: PathBuf,
    /// The segment's id, where it is about one.
    pub segment: Option<u64>,
    pub offset: u64,
    pub len: u64,
    /// One of [`damage_kinds`](crate::damage_kinds).
    pub kind: &'static str,
    /// Of numbers in this range the records are lost by it, as far as there were any.
    pub missing: Option<RangeInclusive<u64>>,
}

impl ImageDamage {
    fn new(kind: DamageKind, path: &Path, offset: u64, len: u64) -> Self {
        Self {
            path: path.to_owned(),
            segment: None,
            offset,
            len,
            kind: kind.label(),
            missing: None,
        }
    }

    fn of_segment(kind: DamageKind, file: &SegmentFile, offset: u64, len: u64) -> Self {
        Self {
            segment: Some(file.id),
            ..Self::new(kind, &file.path, offset, len)
        }
    }

    fn missing(mut self, numbers: Option<RangeInclusive<u64>>) -> Self {
        self.missing = numbers;
        self
    }

    /// How many numbers are lost by it, at most.
    pub fn missing_records(&self) -> u64 {
        self.missing.as_ref().map_or(0, count_numbers)
    }
}

fn count_numbers(numbers: &RangeInclusive<u64>) -> u64 {
    match numbers.is_empty() {
        true => 0,
        false => (numbers.end() - numbers.start()).saturating_add(1),
    }
}

/// Of the numbers from `first` to `last`, those that were given out, if there are any.
fn given_out(first: u64, last: u64) -> Option<RangeInclusive<u64>> {
    let numbers = match first <= last {
        true => numbers_given_out(first..=last),
        false => return None,
    };
    (!numbers.is_empty()).then_some(numbers)
}

/// What is worth a word and costs nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageNote {
    pub path: PathBuf,
    pub text: &'static str,
}

/// A cursor as the page has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageCursor {
    pub name: String,
    /// All up to this number is settled.
    pub position: u64,
    settled: SettledRanges,
}

impl ImageCursor {
    /// One whose position is lost: it begins at the oldest record.
    pub fn at_oldest(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            position: 0,
            settled: SettledRanges::default(),
        }
    }

    /// What is settled above the position, in rising order.
    pub fn settled(&self) -> Vec<RangeInclusive<u64>> {
        let above = self.settled.iter().filter(|range| *range.end() > self.position);
        above.collect()
    }

    /// Whether the record of this number is yet to be settled.
    pub fn needs(&self, number: u64) -> bool {
        number > self.position && !self.settled.contains(number)
    }

    /// Those of the numbers that are yet to be settled, in rising order.
    pub fn needed_of(&self, numbers: &RangeInclusive<u64>) -> Vec<RangeInclusive<u64>> {
        let (mut next, last) = ((*numbers.start()).max(self.position.saturating_add(1)), *numbers.end());
        let mut needed = Vec::new();
        for range in self.settled.iter() {
            if *range.end() < next {
                continue;
            }
            if next > last || *range.start() > last {
                break;
            }
            if next < *range.start() {
                needed.push(next..=range.start() - 1);
            }
            next = range.end().saturating_add(1);
        }
        if next <= last {
            needed.push(next..=last);
        }
        needed
    }
}

/// A record that is whole.
#[derive(Debug, Clone)]
pub struct ImageRecord {
    pub sequence: u64,
    pub class: RecordClass,
    /// How long it is.
    pub len: u32,
    /// It, where the depth asks for it ([`ImageDepth::Copied`]).
    pub bytes: Option<Bytes>,
    /// The id of its segment, and where in it its frame stands.
    pub segment: u64,
    pub offset: u64,
}

/// A segment's file, as far as its name and its first block tell.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SegmentFile {
    id: u64,
    first_sequence: u64,
    path: PathBuf,
    seed: SegmentSeed,
    /// `None` where the header is damaged.
    version: Option<u32>,
    epoch: Option<u64>,
    /// The header says what the name says.
    has_own_header: bool,
}

impl LogImage {
    /// Whether something in `dir` is a log's.
    pub fn exists(dir: &Path) -> bool {
        directory::exists(&PlainFiles, dir)
    }

    /// Looks at the log in `dir`.
    ///
    /// # Errors
    ///
    /// There is none, a file cannot be opened, or it is of a version that this build does not read. Damage is none.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(PlainFiles), dir)
    }

    pub(super) fn open_on(fs: Arc<dyn FileSystem>, dir: &Path) -> Result<Self, OpenError> {
        let mut image = ImageDirectory::read(fs.clone(), dir)?;
        for _ in 1..LOOKS_MAX {
            if image.damage.is_empty() {
                break;
            }
            thread::sleep(LOOK_WAIT);
            let again = ImageDirectory::read(fs.clone(), dir)?;
            let is_same = again.damage == image.damage;
            image = again;
            if is_same {
                break;
            }
        }
        Ok(image)
    }

    /// This log has cursors from its first record on: where there is neither a page nor anything else that has them,
    /// they are lost.
    pub fn expect_cursors(&mut self) {
        let has_none = self.cursors.as_ref().is_some_and(Vec::is_empty);
        if has_none && self.page_copies.is_empty() && !self.segments.is_empty() {
            let page = self.dir.join("cursors").join(cursors::FILE);
            self.damage.push(ImageDamage::new(DamageKind::Cursor, &page, 0, 0));
            self.cursors = None;
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The log's UUID; `None` where nothing says it any more, and in version 1.
    pub fn uuid(&self) -> Option<[u8; 16]> {
        self.identity.map(|identity| identity.log)
    }

    /// How often the log was opened.
    pub fn epoch(&self) -> Option<u64> {
        self.identity.map(|identity| identity.epoch)
    }

    /// Who wrote the log; `None` without a superblock.
    pub fn replica(&self) -> Option<&str> {
        self.superblock.as_ref().map(|superblock| superblock.replica.as_str())
    }

    /// Whether the last process closed it in order; `None` without a superblock.
    pub fn is_closed(&self) -> Option<bool> {
        self.superblock.as_ref().map(|superblock| superblock.clean.is_some())
    }

    pub fn superblock_copies(&self) -> &[ImageCopy] {
        &self.superblock_copies
    }

    pub fn page_copies(&self) -> &[ImageCopy] {
        &self.page_copies
    }

    /// The cursors, by name; `None` where the page that has them is lost.
    pub fn cursors(&self) -> Option<&[ImageCursor]> {
        self.cursors.as_deref()
    }

    /// What is worth a word and costs nothing.
    pub fn notes(&self) -> &[ImageNote] {
        &self.notes
    }

    /// What the files of the segments take, as far as they are this log's: what [`LogImage::read`] reads.
    pub fn bytes(&self) -> u64 {
        let len = |file: &SegmentFile| self.fs.open(&file.path).and_then(|file| file.len()).unwrap_or(0);
        self.segments.iter().map(len).sum()
    }

    /// Every record up to this number was durable once.
    fn durable(&self) -> u64 {
        let clean = self.superblock.as_ref().and_then(|superblock| superblock.clean);
        self.facts
            .last_sequence
            .max(clean.map_or(0, |clean| clean.last_sequence))
    }

    /// The newest segment that there was, 0 when that is not known.
    fn newest_segment(&self) -> u64 {
        let clean = self.superblock.as_ref().and_then(|superblock| superblock.clean);
        let clean = clean.map_or(0, |clean| clean.next_segment.saturating_sub(1));
        self.facts.newest_segment.max(clean)
    }

    /// What every cursor has settled.
    fn lowest_position(&self) -> Option<u64> {
        self.cursors.as_ref()?.iter().map(|cursor| cursor.position).min()
    }
}

/// Positions, and what is settled above them, by the names of the cursors.
type CursorPositions = BTreeMap<String, (u64, SettledRanges)>;

fn cursors_of(found: CursorPositions) -> Vec<ImageCursor> {
    let cursors = found.into_iter();
    cursors
        .map(|(name, (position, settled))| ImageCursor {
            name,
            position,
            settled,
        })
        .collect()
}
